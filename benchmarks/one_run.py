"""One training of benchmarks/claims.py, in a process of its own: what a table declares, to a compact record."""

import contextlib
import functools
import io
import itertools
import os
import signal
import time
from multiprocessing.connection import Connection

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import settings
from course_utils.data import Arrays, TensorLoader, load_arrays, mean_and_std, validation_split
from course_utils.data.arrays import first_of_each
from course_utils.models import MODELS
from course_utils.recipes import by_epoch, fit_arguments, he
from course_utils.training import fit

CHANCE = 0.95  # a network has left chance when the mean loss of 50 steps is below so many times ln(classes)


def worker(pipe: Connection, core: int | None) -> None:
    """Answer each job (spec, lr, seed, precision) with ("done", record) or ("failed", one line), until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.environ["CI"] = "1"  # no progress bar
    if core is not None:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (job := pipe.recv()) is not None:
            try:
                pipe.send(("done", run(*job)))
            except Exception as error:  # noted by the parent, which goes on with other runs
                pipe.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))


@functools.cache
def parts(data: str, limit: int | None) -> tuple[Arrays, Arrays, tuple, tuple]:
    """Training and validation images, mean and deviation of the whole training set. The test set is not read."""
    whole = load_arrays(data, "train")
    rest, validation = validation_split(whole)
    return first_of_each(rest, limit) if limit else rest, validation, *mean_and_std(whole)


def run(spec: dict, lr: float, seed: int, precision: str) -> dict:
    """Train as `spec` says at the peak learning rate `lr`; what was measured, top-1 by epoch in 0..1.

    Where the loss is not finite the run counts as chance.
    """
    spec = spec | {"peak_lr": lr}
    rest, validation, mean, std = parts(spec["data"], spec["limit"])
    sizes = spec["sizes"] if isinstance(spec["sizes"], int) else by_epoch(spec["sizes"], spec["epochs"])
    how = {"sizes": sizes, "mean": mean, "std": std}
    augmentation = {key: spec[key] for key in ("shift", "flip")}
    train = TensorLoader(rest, spec["batch_size"], train=True, seed=seed, **augmentation, **how)
    val = TensorLoader(validation, 500, **how)
    shape = {"num_classes": len(rest.classes), "in_channels": rest.images.shape[1]}
    settings.seed_all(seed)
    began = time.perf_counter()
    net = build(spec, shape)
    if "first" in spec:
        before = spec | spec["first"] | {"network": spec["network"] | spec["first"]["network"]}
        net = take_over(net, trained(build(before, shape), before, train, None, precision, Recorder(()))[0])
    recorder = Recorder(spec.get("trace", ()))
    net, history = trained(net, spec, train, val, precision, recorder)
    chance = [1 / shape["num_classes"]]
    history = history or {"top1": chance, "val_top1": chance, "diverged": True}
    found = {name: rounded(history[key]) for name, key in (("train", "top1"), ("validation", "val_top1"))}
    found |= {
        "diverged": history.get("diverged", False),
        "left_chance": left_chance(recorder.loss_by_step(), shape["num_classes"]),
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return found | recorder.traces()


def build(spec: dict, shape: dict) -> nn.Module:
    """The network that a spec declares, with its initialization."""
    net = MODELS[spec["model"]](**shape, **spec["network"])
    if spec["init"] == "He":
        he(net)
    if spec.get("edit") == "division for LRN":
        for block in (net.conv1, net.conv2):
            block[-1] = Divided()
    for block in net.children():
        for name, layer in block.named_children():
            if isinstance(layer, nn.LocalResponseNorm):
                setattr(block, name, Banded(layer))
    return net.to(settings.device(), memory_format=torch.channels_last)


class Banded(nn.Module):
    """What torch's `layer` computes where beta is 0.75, in a third of its time on a CPU.

    The sum over neighbouring maps is a 1 x 1 convolution.
    """

    def __init__(self, layer: nn.LocalResponseNorm):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        layer, i = self.layer, torch.arange(x.shape[1], device=x.device)
        near = (i[:, None] - i).abs() <= layer.size // 2
        with torch.autocast(x.device.type, enabled=False):  # in float32, as torch's
            x = x.float()
            weight = near[:, :, None, None].float() * (layer.alpha / layer.size)
            root = F.conv2d(x.square(), weight, x.new_full((len(i),), layer.k)).rsqrt()
            return x * root * root.sqrt()


class Divided(nn.Module):
    """What is left of LRN where its sum of squares is small: a division by k ** beta, 1.68."""

    def forward(self, x):
        return x / 2**0.75


def take_over(net: nn.Module, trained: nn.Module) -> nn.Module:
    """VGG's `net` with the first four convolutions and the linear layers of a smaller trained one (section 3.1).

    The n-th convolution of a stage takes the n-th's weights in the same stage: there the shapes agree.
    """
    places = []
    for model in (net, trained):
        stage, at, found = 0, 0, {}
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                stage, at = stage + 1, 0
            elif isinstance(layer, nn.Conv2d):
                found[stage, at] = layer
                at += 1
        places.append(found)
    for place in list(places[1])[:4]:
        places[0][place].load_state_dict(places[1][place].state_dict())
    net.classifier.load_state_dict(trained.classifier.state_dict())
    return net


class Recorder:
    """Stands in for the criterion: keeps each step's cross-entropy, and at `steps` what the network looks like.

    spread: deviation of the logits over the images of the batch, mean over classes. gradients: norm by layer; of the
    first layer also what the logits' loss and the auxiliary heads' give alone.
    """

    def __init__(self, steps: tuple[int, ...]):
        self.steps, self.losses, self.rows = set(steps), [], {}

    def watch(self, net: nn.Module, criterion, optimizer: torch.optim.Optimizer):
        """This recorder as the criterion of `net`."""
        self.net, self.criterion = net, criterion
        optimizer.register_step_pre_hook(lambda *_: self.gradients())
        return self

    def __call__(self, output, y):
        loss = self.criterion(output, y)
        logits = output[0] if isinstance(output, tuple) else output
        seen = logits.detach().float()
        self.losses.append(F.cross_entropy(seen, y))
        if len(self.losses) in self.steps:
            row = self.rows[len(self.losses)] = {"spread": seen.std(0).mean().item(), "gradients": {}}
            if isinstance(output, tuple):
                stem, heads = next(self.net.parameters()), output[1:]
                alone = {
                    "logits_at_stem": (logits, *(head.detach() for head in heads)),
                    "heads_at_stem": (logits.detach(), *heads),
                }
                for name, outputs in alone.items():
                    (gradient,) = torch.autograd.grad(self.criterion(outputs, y), stem, retain_graph=True)
                    row[name] = gradient.float().norm().item()
        return loss

    def gradients(self) -> None:
        """Before an optimizer's step: the norm of the gradient by layer, where this step is to be kept."""
        if len(self.losses) not in self.steps:
            return
        layers = {}
        for name, p in self.net.named_parameters():
            if p.ndim > 1 and p.grad is not None:
                layer = ".".join(name.split(".")[:-1][:2])
                layers[layer] = layers.get(layer, 0) + p.grad.float().square().sum()
        self.rows[len(self.losses)]["gradients"] = {name: s.sqrt().item() for name, s in layers.items()}

    def loss_by_step(self) -> np.ndarray:
        """Cross-entropy of the logits, by step."""
        return torch.stack(self.losses).cpu().numpy() if self.losses else np.zeros(0)

    def traces(self) -> dict:
        """What a record keeps: the rows, and where there are several the loss as means of 20 steps."""
        out = {"trace": rounded(self.rows)} if self.rows else {}
        if len(self.steps) > 1:
            losses = self.loss_by_step()
            means = [float(losses[i : i + 20].mean()) for i in range(0, len(losses), 20)]
            out["loss_by_20_steps"] = rounded(means)
        return out


def rounded(value):
    """Numbers in four digits, in lists and dictionaries too; None for one that is not finite."""
    if isinstance(value, dict):
        return {str(key): rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if np.isfinite(value) else None


def trained(
    net: nn.Module,
    spec: dict,
    train: TensorLoader,
    val: TensorLoader | None,
    precision: str,
    recorder: Recorder,
) -> tuple[nn.Module, dict | None]:
    """The network and its history; None in its place where the loss was not finite."""
    how = fit_arguments(net, spec, len(train))
    how["criterion"] = recorder.watch(net, how["criterion"], how["optimizer"])
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            history = fit(net, train, val=val, precision=precision, **how)
    except ValueError:
        if np.isfinite(recorder.loss_by_step()).all():
            raise
    return net, history if np.isfinite(recorder.loss_by_step()).all() else None


def left_chance(losses: np.ndarray, classes: int) -> int | None:
    """The first step at which the mean loss of 50 steps is below CHANCE * ln(classes); None where none is."""
    means = np.convolve(losses, np.ones(50) / 50, "valid") if len(losses) >= 50 else np.zeros(0)
    below = itertools.chain(np.flatnonzero(means < CHANCE * np.log(classes)), [-1])
    first = int(next(below))
    return None if first < 0 else first + 50
