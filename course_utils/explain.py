"""Look inside a network: its layers and what they cost, its feature maps."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Layer(NamedTuple):
    """A row of the layer table; output: shape without the batch; macs: multiply-adds for one image."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; each of its modules is given back in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def layers(model: nn.Module, shape: tuple[int, ...]) -> list[Layer]:
    """The layers without sublayers in the order in which they run, for one image of `shape`, such as (1, 28, 28).

    Functions called in `forward` (a pool, a ReLU) are no layers: they have no parameters and no multiply-adds.
    Source of the counts: torch's FlopCounterMode, which counts 2 for a multiply-add.
    """
    rows, hooks = [], []

    def note(name):
        def hook(layer, inputs, output):
            parameters = sum(p.numel() for p in layer.parameters())
            rows.append((name, type(layer).__name__, tuple(output.shape[1:]), parameters))

        return hook

    for name, layer in model.named_modules():
        if not list(layer.children()):
            hooks.append(layer.register_forward_hook(note(name)))
    first = next(model.parameters())
    counter = FlopCounterMode(display=False)
    try:
        with counter, evaluation(model):
            model(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    counts = counter.get_flop_counts()  # by layer, all its calls together
    calls = Counter(row[0] for row in rows)
    names = {name: ".".join(filter(None, (type(model).__name__, name))) for name in calls}
    return [Layer(*row, sum(counts.get(names[row[0]], {}).values()) // 2 // calls[row[0]]) for row in rows]


def layer_table(model: nn.Module, shape: tuple[int, ...]) -> str:
    """`layers` as text, with a line of totals."""
    rows = layers(model, shape)
    left, middle = max(20, *(len(r.name) + 2 for r in rows)), max(20, *(len(r.kind) + 2 for r in rows))
    lines = [f"{'layer':<{left}}{'kind':<{middle}}{'output':<18}{'parameters':>12}{'multiply-adds':>16}"]
    lines += [
        f"{r.name:<{left}}{r.kind:<{middle}}{str(r.output):<18}{r.parameters:>12,}{r.macs:>16,}" for r in rows
    ]
    total = f"{'total':<{left + middle + 18}}{parameters(model):>12,}{sum(r.macs for r in rows):>16,}"
    return "\n".join([*lines, total])


def parameters(model: nn.Module) -> int:
    """How many numbers training sets."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds for one image of `shape`."""
    return sum(row.macs for row in layers(model, shape))


@torch.no_grad()
def feature_maps(model: nn.Module, x: torch.Tensor, name: str) -> torch.Tensor:
    """What the layer `name` gives for the batch x in evaluation: (N, channels, H, W) for a convolution.

    Raises ValueError for a layer that the model does not have or runs in training only.
    """
    found, known = [], dict(model.named_modules())
    if name not in known:
        raise ValueError(f"no layer {name!r}; expected one of {', '.join(filter(None, known))}.")
    hook = known[name].register_forward_hook(lambda layer, inputs, output: found.append(output.clone()))
    try:
        with evaluation(model):
            model(x)
    finally:
        hook.remove()
    if not found:
        raise ValueError(
            f"layer {name!r} does not run in evaluation. Look at one that does: see layer_table."
        )
    return found[0]
