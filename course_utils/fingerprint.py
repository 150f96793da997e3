"""What a run is: everything that decides what `fit` computes, and where two such descriptions differ.

Code is seen by what it does: a probe runs network and criterion on fixed weights and two images. A tuple is numbers
with a tolerance, (tolerance, number, ...). Not seen: items of an IterableDataset, of a one-shot iterator or of a
loader class of one's own (where no loader may be looked at there is no probe), code of an optimizer of one's own,
hooks that only `backward()` calls, a subclass's change to TensorLoader's batches, and what code does late in a run.
"""

import contextlib
import copy
import functools
import hashlib
import inspect
import io
import itertools
import operator
import re
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from course_utils.data import TensorLoader
from course_utils.settings import autocast, random_states, seed_all, set_random_states

NOISE = torch.from_numpy(np.random.RandomState(0).standard_normal(65537).astype(np.float32))
WHOLE = (torch.Tensor, np.ndarray)
MOVED = ("lr", "momentum", "betas")  # what a schedule moves in a group; and what it notes there:
NOTES = ("params", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")


def fingerprint(run: object, loader: Iterable, val: Iterable | None, epochs: int, start: str) -> dict:
    """Everything that decides what a `checkpoints.Run` computes, part by part."""
    model, criterion, optimizer, scheduler = run.model, run.criterion, run.optimizer, run.scheduler
    named = [*model.named_parameters(), *model.named_buffers()]
    names, groups = {id(t): name for name, t in named}, optimizer.param_groups
    seed = torch.initial_seed()  # 64 random bits where nobody has set it
    parts = {"start": start, "seed": str(seed) if seed < 2**32 else "none", "epochs": epochs}
    parts |= {"precision": run.precision, "network": text(model)}
    parts["tensors"] = [f"{name} {list(t.shape)}{', trained' * t.requires_grad}" for name, t in named]
    with untouched(model, criterion, getattr(loader, "dataset", None), getattr(val, "dataset", None)):
        parts |= {"data": [facts(loader), items(loader)], "validation": [facts(val), items(val)]}
        images = next((batch[0] for batch in map(look_at, (loader, val)) if batch), None)
        statistics, code, loss = behaviour(model, criterion, images)
    moved = [[names.get(id(p), "no parameter") for p in group["params"]] for group in groups]
    settings = [{k: text(v) for k, v in g.items() if k not in (*MOVED, *NOTES)} for g in groups]
    kept = {name: t.detach() for name, t in named if t.is_floating_point() and name not in statistics}
    return parts | {
        "criterion": [*arguments(criterion), loss],
        "optimizer": [*arguments(optimizer), moved, settings],
        "schedule": [*arguments(scheduler), rates(optimizer, scheduler, loader, epochs)],
        "code": code,
        "weights": {name: root_mean_square(t) for name, t in kept.items()},
    }


def difference(there: object, here: object, what: str = "") -> str:
    """The first point in which two descriptions differ, in a few words, or "". Of a dict only what both know counts."""
    if isinstance(there, str) and isinstance(here, str) and "\n" in there + here:
        there, here = there.split("\n"), here.split("\n")
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(f"{what} {k}".strip(), there[k], here[k]) for k in here if k in there]
    elif isinstance(there, list) and isinstance(here, list):
        pairs = [(what, a, b) for a, b in itertools.zip_longest(there, here, fillvalue="nothing")]
    elif isinstance(there, tuple) and isinstance(here, tuple):
        return "" if close(there, here, min(there[0], here[0])) else f"{what} differs"
    elif isinstance(there, (dict, list)) or isinstance(here, (dict, list)):
        return f"{what} differs"
    else:
        return (
            "" if there == here else f"{what}: {str(there).strip()[:60]} there, {str(here).strip()[:60]} here"
        )
    return next(filter(None, (difference(a, b, name) for name, a, b in pairs)), "")


def close(a: tuple, b: tuple, tolerance: float) -> bool:
    """Whether numbers with a tolerance agree: zero with zero, NaN with NaN alone."""
    pairs = zip(a[1:], b[1:], strict=True)
    return all(x == y or (x != x and y != y) or (x * y != 0 and abs(x - y) <= tolerance) for x, y in pairs)


def steady(a: dict, b: dict) -> dict:
    """The numbers of a first look that a second one repeats."""
    return {key: v for key, v in a.items() if key in b and close(v, b[key], v[0] / 4)}


def text(value: object) -> str:
    """A repr without addresses and places; of a number the number, whoever made it."""
    value = value.item() if isinstance(value, (np.generic, torch.Tensor)) and value.ndim == 0 else value
    return re.sub(r" at 0x[0-9a-fA-F]+|\n *Root location: .*", "", repr(value))


def digest(value: object) -> str:
    """16 characters that stand for a tensor, an array, or a list of them and of plain values."""
    found = hashlib.sha256()
    if isinstance(value, WHOLE):
        value = torch.as_tensor(value).detach().cpu().contiguous()
        found.update(value.flatten().view(torch.uint8).numpy())
        value = (value.dtype, value.shape)
    elif isinstance(value, (list, tuple)):
        value = [digest(v) if isinstance(v, (*WHOLE, list, tuple)) else v for v in value[:]]
    found.update(text(value).encode())
    return found.hexdigest()[:16]


def arguments(thing: object) -> list:
    """The class of an object, and those of its constructor's arguments that it keeps as numbers or words."""
    if thing is None or isinstance(thing, (types.FunctionType, types.MethodType, functools.partial)):
        return ["none" if thing is None else "a function"]
    names = inspect.signature(type(thing).__init__).parameters.keys() - {"last_epoch", *MOVED}
    kept = {
        k: v for k, v in vars(thing).items() if k in names and isinstance(v, (int, float, str, np.generic))
    }
    return [type(thing).__name__, {name: text(value) for name, value in kept.items()}]


def facts(data: object) -> object:
    """A loader or data set: its fingerprint(), its content, or what can be told without reading it."""
    if data is None or hasattr(data, "fingerprint"):
        return "none" if data is None else data.fingerprint()
    if isinstance(data, TensorDataset):
        return facts(data.tensors)
    if isinstance(data, (list, tuple, *WHOLE)):
        return f"{type(data).__name__} of {len(data)}, content {digest(data)}"
    held = getattr(data, "__dict__", {}).items()
    found = {
        k: digest(v) for k, v in held if isinstance(v, WHOLE) or k in ("targets", "indices", "replacement")
    }
    if isinstance(data, DataLoader):
        found |= {"batch_size": data.batch_size, "drop_last": data.drop_last, "set": facts(data.dataset)}
        found["seed"] = data.generator and str(data.generator.initial_seed())
        found["order"] = [facts(data.sampler), type(data.batch_sampler).__name__]
    elif isinstance(data, Subset):
        found["of"] = facts(data.dataset)
    elif not hasattr(data, "__iter__"):
        found["repr"] = text(data)
    return [type(data).__name__, found | {"length": operator.length_hint(data, -1)}]


def look_at(loader: Iterable | None) -> list | None:
    """Up to eight images and labels, under a fixed seed, where looking changes nothing; else None."""
    with contextlib.suppress(Exception):
        seed_all(0)
        if isinstance(loader, TensorLoader):
            x = torch.from_numpy(loader.arrays.images[:2].copy()) / 255
            mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (loader.mean, loader.std))
            return [F.interpolate((x - mean) / std, (loader.sizes[-1],) * 2)]  # (2, C, S, S)
        if isinstance(loader, (list, tuple)):
            return [torch.cat(parts) for parts in zip(*loader[:2], strict=True)]
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            n = len(loader.dataset)
            rows = [loader.dataset[i] for i in range(0, n, -(-n // 8))]
            return list(rows[0] if loader.batch_sampler is None else loader.collate_fn(rows))


def items(loader: Iterable | None) -> dict:
    """What look_at sees, as numbers; what does not repeat is left out."""
    return steady(*({f"item {i}": numbers(t) for i, t in enumerate(look_at(loader) or [])} for _ in "12"))


def rates(optimizer: torch.optim.Optimizer, scheduler: object, loader: Iterable, epochs: int) -> dict:
    """What a schedule moves, at a hundred steps from where it stands to the end, as a copy of it tells."""
    twin, found = copy.copy(optimizer), {}
    twin.param_groups = [dict(group) for group in optimizer.param_groups]
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(Exception):
        schedule = copy.deepcopy(scheduler, {id(optimizer): twin})
        steps = epochs * operator.length_hint(loader, 100) if scheduler else 1
        jumps = hasattr(schedule, "_get_closed_form_lr") or isinstance(schedule, (LambdaLR, OneCycleLR))
        jumps = jumps and type(schedule).__module__.startswith("torch.")  # the others go step by step
        now, stride = getattr(schedule, "last_epoch", 0), max(1, steps // 100)
        for step in range(now, steps):
            if step > now and (step % stride == 0 or not jumps):
                schedule.step(*[step] * jumps)
            if step % stride == 0:
                moved = [{k: np.ravel(g[k])[0] for k in MOVED if k in g} for g in twin.param_groups]
                found[f"step {step}"] = [{k: f"{v:.6g}" for k, v in group.items()} for group in moved]
    return found


def noise(length: int, start: int = 0) -> torch.Tensor:
    """Fixed normal numbers, the same on every machine."""
    return NOISE.roll(-start).repeat(length // len(NOISE) + 1)[:length]


def projection(tensor: torch.Tensor) -> torch.Tensor:
    """The scalar product with fixed noise over the square root of the length."""
    values = tensor.float().flatten()
    return values @ noise(len(values)).to(values.device) / max(1, len(values)) ** 0.5


def numbers(tensor: torch.Tensor, tolerance: float = 1e-3) -> tuple[float, float, float]:
    """(tolerance x root mean square, root mean square, projection)."""
    size = tensor.detach().float().square().mean().sqrt().item()
    return tolerance * size, size, projection(tensor.detach()).item()


def root_mean_square(tensor: torch.Tensor) -> tuple[float, float]:
    """It, with the tolerance of another draw, 5 / sqrt(n); a constant must keep its value."""
    size, n = tensor.float().square().mean().sqrt().item(), max(1, tensor.numel())
    constant = n > 1 and bool((tensor == tensor.flatten()[0]).all())
    return size * (1e-3 if constant else 5 / n**0.5), size


def behaviour(model: nn.Module, criterion: Callable, images: torch.Tensor | None) -> tuple[set, dict, dict]:
    """Names of the buffers that training moves, and what network and criterion do; inside `untouched` alone."""
    place, looks, outputs = next(model.parameters(), NOISE).device, [], {}
    images = None if images is None else images[:2].to(place)
    draws = digest(F.dropout(torch.ones(64, device=place)))  # another machine may draw other numbers
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    statistics = set(before)
    fill(model, (), 0)
    with contextlib.suppress(Exception), torch.no_grad():
        model.train()(images.clone())
        after = dict(model.named_buffers())
        statistics = {name for name in before if not torch.equal(before[name], after[name])}
    for name, module in model.named_modules():
        module.register_forward_hook(functools.partial(note, outputs, name))
    for shake in (0, 1e-5):  # what a shake of the weights moves much would differ by machine, too
        fill(model, statistics, shake)
        (training, output), (evaluation, _) = (
            one_pass(model, images, mode, outputs) for mode in (True, False)
        )
        looks.append((training, evaluation, losses(model, criterion, output)))
    training, evaluation, loss = (steady(*pair) for pair in zip(*looks, strict=True))
    return statistics, {"in evaluation": evaluation, "in training": {f"({draws})": training}}, loss


@torch.no_grad()
def fill(model: nn.Module, statistics: Iterable[str], shake: float) -> None:
    """Fixed weights of deviation sqrt(2 / fan-in), each changed by about its `shake`-th part; statistics 1."""
    for i, p in enumerate(model.parameters()):
        scale = (2 / max(1, p[0].numel())) ** 0.5 if p.ndim > 1 else 1
        values = scale * noise(p.numel(), 89 * i) * (1 + shake * noise(p.numel(), 89 * i + 1))
        p.data = values.view(p.shape).to(p.device, p.dtype)  # contiguous
    for name in statistics:
        model.get_buffer(name).fill_(1)


def note(found: dict, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
    """A forward hook: the output of a module, as numbers."""
    found |= {f"{name} output {len(found) + i}": numbers(t) for i, t in enumerate(tensors(output))}


def one_pass(model: nn.Module, images: torch.Tensor, training: bool, outputs: dict) -> tuple[dict, object]:
    """The outputs of all modules and the gradients of all parameters in one mode, as numbers; and the output."""
    outputs.clear()
    found, output = {}, None
    with contextlib.suppress(Exception):  # its own error is training's to show
        seed_all(0)
        output = model.train(training)(images.clone())
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        total = sum(projection(t) for t in tensors(output) if t.requires_grad)
        slopes = torch.autograd.grad(total, [*trained.values()], allow_unused=True)
        slopes = [torch.zeros(1) if slope is None else slope for slope in slopes]
        found = {
            f"{name} gradient": numbers(slope, 1e-2) for name, slope in zip(trained, slopes, strict=True)
        }
    return outputs | found, output


def losses(model: nn.Module, criterion: Callable, output: object) -> dict:
    """The loss of fixed logits that contain every class, and its gradient."""
    found = {}
    with contextlib.suppress(Exception):
        last = [*model.parameters()][-1] if output is None else tensors(output)[0][0]
        size, several = len(last), isinstance(output, tuple)
        rows = torch.arange(min(size, 1000), device=last.device)
        logits = [
            noise(len(rows) * size, i).view(-1, size).to(last.device)
            for i in range(len(output) if several else 1)
        ]
        logits = tuple(z.requires_grad_() for z in logits)
        seed_all(0)
        found["loss"] = numbers(loss := criterion(logits if several else logits[0], rows), 1e-4)
        slopes = torch.autograd.grad(loss, logits, allow_unused=True)
        found |= {f"gradient {i}": numbers(slope) for i, slope in enumerate(slopes) if slope is not None}
    return found


def tensors(output: object) -> list[torch.Tensor]:
    """The tensors in what a module returns."""
    if isinstance(output, torch.Tensor):
        return [output]
    inside = (
        output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    )
    return [t for part in inside for t in tensors(part)]


@contextlib.contextmanager
def untouched(*things: object) -> Iterator[None]:
    """A block in float32, without output, after which all generators and all that the things reach is as before."""
    undo, seen, states, later = [], set(), random_states(), functools.partial
    own = {
        "__main__",
        *(getattr(thing, "__module__", None) for thing in things),
    }  # where learners define things

    def keep(thing):
        inside = ()
        if id(thing) in seen or seen.add(id(thing)):
            return
        if isinstance(thing, torch.Tensor):
            undo.append(later(setattr, thing, "data", thing.data))
            thing.data = thing.data if isinstance(thing, nn.Parameter) else thing.data.clone()
        elif isinstance(thing, np.ndarray):
            undo.append(later(np.copyto, thing, thing.copy()))
        elif isinstance(thing, (dict, set, list, deque)):
            inside = [*(thing.values() if isinstance(thing, dict) else thing)]
            undo.append(later(refill, thing, copy.copy(thing)))
        elif isinstance(thing, torch.Generator):
            undo.append(later(thing.set_state, thing.get_state()))
        elif isinstance(thing, np.random.Generator):
            undo.append(later(setattr, thing.bit_generator, "state", thing.bit_generator.state))
        elif isinstance(thing, types.FunctionType) and thing.__module__ in own:
            with contextlib.suppress(ValueError):  # a name that is not bound yet
                used = inspect.getclosurevars(thing)
                undo.append(later(thing.__globals__.update, used.globals))
                inside = [*used.nonlocals.values(), *used.globals.values()]
        elif isinstance(thing, (tuple, types.MethodType)):
            inside = thing if isinstance(thing, tuple) else (thing.__self__, thing.__func__)
        elif isinstance(thing, nn.Module) or (type(thing).__module__ in own and hasattr(thing, "__dict__")):
            inside = [vars(thing), getattr(type(thing), "forward", None)]
        for part in inside if len(inside) <= 1000 else ():
            keep(part)

    for thing in things:
        keep(thing)
    try:
        quiet = contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore")
        exact = torch.backends.cudnn.flags(enabled=False), autocast("float32")  # cuDNN rounds to TF32
        with quiet[0], quiet[1], exact[0], exact[1], torch.enable_grad():
            yield
    finally:
        for action in reversed(undo):
            action()
        set_random_states(states)


def refill(thing: dict | set | list | deque, content: object) -> None:
    """Give a container its content back; a dict is never empty in between."""
    if isinstance(thing, dict):
        for key in thing.keys() - content.keys():
            del thing[key]
        thing.update(content)
    else:
        thing.clear()
        (thing.update if isinstance(thing, set) else thing.extend)(content)
