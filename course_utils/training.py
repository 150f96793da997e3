"""The training loop and evaluation (lesson 04), and the small helpers that the loop calls."""

import contextlib
import functools
import math
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from course_utils.checkpoints import (
    CheckpointError,
    Run,
    add_row,
    close_checkpoint,
    line,
    open_checkpoint,
    save_checkpoint,
    set_epoch,
)
from course_utils.checks import check_labels, check_optimizer, check_schedule, explanation, look, watch_step
from course_utils.settings import autocast, device
from course_utils.settings import precision as precision_name

__all__ = ["CheckpointError", "evaluate", "fit", "train_epoch"]

PLAIN = weakref.WeakSet()  # networks that cannot take channels_last: they flatten with `view`


def train_epoch(
    model, batches, criterion, optimizer, scheduler=None, scaler=None, precision="float32", watch=None
):
    """One pass over batches (x, y): mean loss, top-1 (both as the weights change) and images seen."""
    model.train()
    scaler = scaler or torch.amp.GradScaler(device().type, enabled=False)
    cast = autocast(precision)
    loss_sum, correct, seen = 0.0, 0, 0
    for x, y in on_device(model, batches):  # (B, C, H, W), (B,)
        with cast:
            output, logits = forward(model, x, y, first=not seen)  # what the network returns, (B, classes)
            loss = criterion(output, y)  # mean over the batch
        if watch:
            watch(x, y, logits, loss)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if scheduler:
            scheduler.step()
        loss_sum += loss.detach() * len(y)  # sums stay on the device: asking for a number waits for it
        correct += (logits.argmax(1) == y).sum()
        seen += len(y)
    return loss_sum.item() / seen, correct.item() / seen, seen


@torch.no_grad()
def evaluate(model, loader, flip=False):
    """Score a network in float32: loss (cross-entropy), top1, top5, correct, total, confusion[true, said].

    flip: average the softmax of each image and of its mirror image.
    """
    scores, labels = [], []
    with evaluating(model):
        for x, y in on_device(model, loader):  # (B, C, H, W), (B,)
            score = F.log_softmax(forward(model, x, y, first=not scores)[1], dim=1)  # (B, classes)
            if flip:
                mirrored = F.log_softmax(forward(model, x.flip(3), y)[1], dim=1)
                score = torch.logaddexp(score, mirrored) - math.log(2)
            scores.append(score)
            labels.append(y)
    score, y = torch.cat(scores), torch.cat(labels)  # (N, classes), (N,)
    total, classes = score.shape
    check_labels(y, classes)
    best = score.topk(min(5, classes), dim=1).indices  # (N, 5), the likeliest first
    hits = (best == y[:, None]).sum(0).tolist()  # images whose label stands at rank 1, 2, ...
    confusion = torch.bincount(y * classes + best[:, 0], minlength=classes**2).view(classes, classes).cpu()
    result = {"loss": F.nll_loss(score, y).item(), "top1": hits[0] / total, "top5": sum(hits) / total}
    return result | {"correct": hits[0], "total": total, "confusion": confusion}


def fit(model, loader, *, epochs, optimizer, scheduler=None, criterion=None, val=None, checkpoint=None,
        precision="auto", strict=False, fresh=False, start="random"):  # fmt: skip
    """Train; one line an epoch; returns the history, a dict of lists (KEYS) plus `complete`.

    loader, val: iterables of (x, y); scheduler: stepped once a batch; checkpoint: a file, written before the
    first step and after each epoch, from which the same call goes on (relative: in runs()); precision: as in
    settings.precision; strict: stop where the network does not learn; fresh: ignore what the checkpoint
    holds; start: a word for where the weights come from. The network is left in evaluation mode.
    """
    model.to(device())
    run = Run(
        model, optimizer, scheduler, criterion or nn.CrossEntropyLoss(), precision_name(precision), strict
    )
    check_optimizer(run)
    open_checkpoint(run, checkpoint, loader, val, epochs, fresh, start)
    watch = functools.partial(watch_step, run, kept := [])
    try:
        check_schedule(run, loader, epochs)
        if len(run.history["epoch"]) < epochs:
            save_checkpoint(run)
        for epoch in range(len(run.history["epoch"]), epochs):
            began, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
            set_epoch(epoch, loader, val)
            batches = progress(loader, epoch, epochs)
            loss, top1, images = train_epoch(
                model, batches, run.criterion, optimizer, scheduler, run.scaler, run.precision, watch
            )
            look(run, kept)
            speed = images / (time.perf_counter() - began)
            scores = evaluate(model, val) if val is not None else {"loss": None, "top1": None}
            seconds = time.perf_counter() - began
            add_row(run.history, (epoch + 1, lr, loss, top1, scores["loss"], scores["top1"], speed, seconds))
            print(line(run.history, -1, epochs))
            save_checkpoint(run)
    except KeyboardInterrupt:
        print(stopped(run, epochs))
    finally:
        close_checkpoint(run, epochs)
    model.eval()
    run.history["complete"] = len(run.history["epoch"]) >= epochs
    return run.history


def to_device(tensor: torch.Tensor, place: torch.device | None = None) -> torch.Tensor:
    """The tensor on `place`, by default device(). On MPS a copy that does not wait is wrong (pytorch#189690)."""
    place = place or device()
    return tensor.to(place, non_blocking=place.type == "cuda")


def on_device(model: nn.Module, batches: Iterable) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Put the network on `device()`, then give the pairs (images, labels int64) of a loader there.

    Raises ValueError for a loader without a batch, for batches that are no such pairs and for labels that are
    no whole numbers, one an image.
    """
    place, empty = device(), True
    model.to(place)
    for batch in batches:
        empty = False
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, torch.Tensor) for part in batch):
            kind = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else type(batch)
            raise ValueError(
                f"the loader gave a {kind}; expected pairs of tensors (images, labels). "
                "Write a generator function that yields them, or give the data set a collate_fn that does."
            )
        x, y = (to_device(part, place) for part in batch)
        if y.shape != (len(x),) or y.is_floating_point() or y.is_complex():
            raise ValueError(
                f"the labels of a batch are {y.dtype} of shape {tuple(y.shape)}; expected one whole number an "
                f"image, int64 of shape ({len(x)},). Convert them: y.long(), or y.argmax(1) for one-hot rows."
            )
        yield x, y.long()
    if empty:
        raise ValueError(
            "the loader gave no batch; expected at least one. A generator can be read once: pass a list."
        )


def forward(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, first: bool = False
) -> tuple[object, torch.Tensor]:
    """What the network returns for images x, and the logits in it (B, classes).

    On CPU and CUDA networks with convolutions compute in channels_last, which is faster; on MPS it gives wrong
    gradients (pytorch#175189). A network that flattens with `view` cannot: at the first batch of a pass it is
    put back as it was and runs in the plain format from then on. Raises ValueError, in one line, for images and
    outputs of another kind than expected.
    """
    if first and (device().type == "mps" or all(p.ndim < 4 for p in model.parameters())):
        PLAIN.add(model)
    layout = torch.contiguous_format if model in PLAIN or x.ndim != 4 else torch.channels_last
    undo = remembered(model) if first else None
    if first:
        model.to(memory_format=layout)
    try:
        output = model(x.contiguous(memory_format=layout))
    except (RuntimeError, TypeError, ValueError) as error:
        if "view size is not compatible" in str(error) and layout == torch.channels_last:
            if undo:
                undo()
            PLAIN.add(model)
            torch.clear_autocast_cache()  # it holds the weights in channels_last
            return forward(model, x, y, first=True)
        if message := explanation(model, x, error):
            raise ValueError(message) from None
        raise
    logits = output[0] if isinstance(output, tuple) and output and model.training else output
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(y):
        found = (
            f"shape {tuple(logits.shape)}"
            if isinstance(logits, torch.Tensor)
            else f"a {type(output).__name__}"
        )
        extra = (
            ", in training also a tuple that begins with them"
            if model.training
            else ", in evaluation no tuple"
        )
        raise ValueError(
            f"the network returned {found}; expected logits of shape ({len(y)}, classes){extra}."
        )
    if first or y.is_cpu:  # elsewhere looking at every batch would wait for the device
        check_labels(y, logits.shape[1])
    return output, logits


def remembered(model: nn.Module) -> Callable[[], None]:
    """A function that undoes a forward pass: buffers and random states become again what they are now."""
    buffers, of_torch, of_numpy, of_python = (
        [buffer.clone() for buffer in model.buffers()],
        torch.get_rng_state(),
        np.random.get_state(),
        random.getstate(),
    )
    of_cuda = torch.cuda.get_rng_state_all() if device().type == "cuda" else None

    @torch.no_grad()
    def undo():
        for buffer, old in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(old)
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)

    return undo


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and float32 as such (no autocast, no TF32); afterwards all is as it was, layer by layer."""
    modes = [(layer, layer.training) for layer in model.modules()]
    backends = torch.backends
    if hasattr(backends, "fp32_precision"):
        places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        name, exact = "fp32_precision", "ieee"
    else:  # before torch 2.9
        places, name, exact = (backends.cuda.matmul, backends.cudnn), "allow_tf32", False
    found = [(place, getattr(place, name)) for place in places]
    try:
        model.eval()
        for place in places:
            setattr(place, name, exact)
        with autocast("float32"):
            yield
    finally:
        for place, value in found:
            setattr(place, name, value)
        for layer, mode in modes:
            layer.training = mode


def progress(loader: Iterable, epoch: int, epochs: int) -> Iterable:
    """The loader behind a bar with the time that is left, none under CI."""
    return tqdm(
        loader, f"epoch {epoch + 1}/{epochs}", leave=False, disable=bool(os.environ.get("CI")), unit="batch"
    )


def stopped(run: Run, epochs: int) -> str:
    """What is true after Ctrl-C."""
    text = f"Interrupted after {len(run.history['epoch'])} of {epochs} epochs"
    if run.path:
        return f"{text}; run the same call again to resume."
    return f"{text}. There is no checkpoint to go on from; the network keeps the weights that it has now."
