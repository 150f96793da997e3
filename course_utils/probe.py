"""What a network and a criterion do, seen on fixed weights and a few images, without leaving a trace.

Numbers with a tolerance are tuples: (tolerance, number, ...).
"""

import contextlib
import copy
import functools
import inspect
import io
import math
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from course_utils.data import TensorLoader
from course_utils.settings import autocast, random_states, seed_all, set_random_states

NOISE = torch.from_numpy(np.random.RandomState(0).standard_normal(65537).astype(np.float32))


def look_at(loader: Iterable | None) -> list | None:
    """Up to eight images and labels, under a fixed seed, where looking changes nothing; else None."""
    with contextlib.suppress(Exception):
        seed_all(0)
        if isinstance(loader, TensorLoader):
            shape = 2, loader.arrays.images.shape[1], loader.sizes[-1], loader.sizes[-1]
            return [noise(math.prod(shape)).view(shape)]  # its content is known without a look
        if isinstance(loader, (list, tuple)):
            return [torch.cat(parts) for parts in zip(*loader[:2], strict=True)]
        if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            n = len(loader.dataset)
            rows = [loader.dataset[i] for i in range(0, n, -(-n // 8))]
            return list(rows[0] if loader.batch_sampler is None else loader.collate_fn(rows))


def items(loader: Iterable | None) -> dict:
    """What look_at sees, as numbers; what does not repeat is left out."""
    return steady(*({f"item {i}": numbers(t) for i, t in enumerate(look_at(loader) or [])} for _ in "12"))


def close(a: tuple, b: tuple, tolerance: float) -> bool:
    """Whether numbers with a tolerance agree: zero with zero, NaN with NaN alone."""
    pairs = zip(a[1:], b[1:], strict=True)
    return all(x == y or (x != x and y != y) or (x * y != 0 and abs(x - y) <= tolerance) for x, y in pairs)


def steady(a: dict, b: dict) -> dict:
    """The numbers of a first look that a second one repeats."""
    return {key: v for key, v in a.items() if key in b and close(v, b[key], v[0] / 4)}


def noise(length: int, start: int = 0) -> torch.Tensor:
    """Fixed normal numbers, the same on every machine; not to be written to."""
    return NOISE.expand(-(-(start + length) // len(NOISE)), -1).reshape(-1)[start : start + length]


def projection(tensor: torch.Tensor) -> torch.Tensor:
    """The scalar product with fixed noise over the square root of the length."""
    values = tensor.float().flatten()
    return values @ noise(len(values)).to(values.device) / max(1, len(values)) ** 0.5


def numbers(tensor: torch.Tensor, tolerance: float = 1e-3) -> tuple[float, float, float]:
    """(tolerance x root mean square, root mean square, projection)."""
    size = tensor.detach().float().square().mean().sqrt().item()
    return tolerance * size, size, projection(tensor.detach()).item()


def root_mean_square(tensor: torch.Tensor) -> tuple[float, float]:
    """It, with the tolerance of another draw, 5 / sqrt(n), any below 30 numbers; a constant must keep its value."""
    size, n = tensor.float().square().mean().sqrt().item(), max(1, tensor.numel())
    if n > 1 and bool((tensor == tensor.flatten()[0]).all()):
        return size * 1e-3, size
    return size * 5 / n**0.5 if n >= 30 else math.inf, size


def behaviour(model: nn.Module, criterion: Callable, images: torch.Tensor | None) -> tuple[set, dict, dict]:
    """Names of the buffers that training moves, and what network and criterion do; inside `untouched` alone."""
    place, looks, outputs = next(model.parameters(), NOISE).device, [], {}
    images = None if images is None else images[:2].to(place)
    seed_all(0)
    draws = (
        f"({sum(2**i for i, x in enumerate(F.dropout(torch.ones(32, device=place))) if x):08x})"  # by machine
    )
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
        training, output = one_pass(model, images, True, outputs)
        evaluation, _ = one_pass(model, images, False, outputs)
        looks.append((training, evaluation, losses(model, criterion, output)))
    training, evaluation, loss = (steady(*pair) for pair in zip(*looks, strict=True))
    return statistics, {"in evaluation": evaluation, "in training": {draws: training}}, loss


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
        for name, slope in zip(trained, slopes, strict=True):
            found[f"{name} gradient"] = numbers(torch.zeros(1) if slope is None else slope, 1e-2)
    return outputs | found, output


def losses(model: nn.Module, criterion: Callable, output: object) -> dict:
    """The loss of fixed logits that contain every class, and its gradient."""
    found = {}
    with contextlib.suppress(Exception):
        last = [*model.parameters()][-1] if output is None else tensors(output)[0][0]
        size, several = len(last), isinstance(output, tuple)
        rows = torch.arange(min(size, 1000), device=last.device)
        starts = range(len(output) if several else 1)
        logits = [noise(len(rows) * size, i).clone().view(-1, size).to(last.device) for i in starts]
        logits = [part.requires_grad_() for part in logits]
        seed_all(0)
        found["loss"] = numbers(loss := criterion(tuple(logits) if several else logits[0], rows), 1e-4)
        slopes = torch.autograd.grad(loss, logits, allow_unused=True)
        found |= {f"gradient {i}": numbers(slope) for i, slope in enumerate(slopes) if slope is not None}
    return found


def tensors(output: object) -> list[torch.Tensor]:
    """The tensors in what a module returns."""
    if isinstance(output, torch.Tensor):
        return [output]
    parts = [*output.values()] if isinstance(output, dict) else output
    return [t for part in parts for t in tensors(part)] if isinstance(parts, (list, tuple)) else []


@contextlib.contextmanager
def untouched(*things: object) -> Iterator[None]:
    """A block in float32, without output, after which all generators and all that the things reach is as before."""
    undo, seen, states, later = [], set(), random_states(), functools.partial
    own = {"__main__", *(getattr(thing, "__module__", None) for thing in things)}  # a learner's own code

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
        for part in inside if len(inside) <= 1000 or isinstance(thing, dict) else ():
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
    """Give a container its content back."""
    thing.clear()
    (thing.update if isinstance(thing, (dict, set)) else thing.extend)(content)
