"""Checkpoints from which every stop can be picked up, and the fingerprint that tells one run from another."""

import dataclasses
import dis
import functools
import hashlib
import inspect
import itertools
import random
import re
import types
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from course_utils.settings import device, runs, whole

KEYS = ("epoch", "lr", "loss", "top1", "val_loss", "val_top1", "images_per_second", "seconds")
SIMPLE = (bool, int, float, str, tuple, type(None))
FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
VALUES = (*FUNCTIONS, *SIMPLE, torch.Tensor, nn.Module)  # what describe and code look into


class CheckpointError(Exception):
    """A checkpoint that cannot be read back."""


@dataclasses.dataclass
class Run:
    """What a checkpoint holds, and where it lies."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    criterion: object
    precision: str
    strict: bool
    step: int = 0
    chance: float = 0.0  # sum of the cross-entropy over steps 150 to 200
    path: Path | None = None
    fingerprint: dict[str, str] | None = None

    def __post_init__(self):
        self.scaler = torch.amp.GradScaler(device().type, enabled=self.precision == "float16")
        self.history = {key: [] for key in KEYS} | {"complete": False}


def add_row(history: dict, row: tuple) -> None:
    """Append one epoch's values, in the order of KEYS."""
    for key, value in zip(KEYS, row, strict=True):
        history[key].append(value)


def line(history: dict, i: int, epochs: int) -> str:
    """Epoch i of the history as one line of text."""
    e = {key: history[key][i] for key in KEYS}
    val = "" if e["val_top1"] is None else f"validation {e['val_top1']:7.2%}   "
    return (
        f"epoch {e['epoch']:>2}/{epochs}   lr {e['lr']:.4f}   loss {e['loss']:.4f}   train {e['top1']:7.2%}   "
        f"{val}{e['images_per_second']:,.0f} images/s"
    )


def open_checkpoint(
    run: Run,
    checkpoint: str | Path | None,
    loader: Iterable,
    val: Iterable | None,
    epochs: int,
    fresh: bool,
    start: str,
) -> None:
    """Find the run's file; restore it where it holds the same run, leave it alone where it holds another."""
    if checkpoint is None:
        return
    path = Path(checkpoint).expanduser()
    if not path.is_absolute():
        path = runs() / path.relative_to("runs" if path.parts[0] == "runs" else "")
    run.fingerprint = fingerprint(run, loader, val, epochs, start)
    digest = hashlib.sha256(repr(run.fingerprint).encode()).hexdigest()
    own = path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}")
    for run.path in (path, own):
        if not run.path.is_file():
            return
        try:
            saved = read_checkpoint(run.path)
        except CheckpointError:
            if fresh:
                return
            raise
        if saved["fingerprint"] == run.fingerprint:
            if not fresh:
                restore(run, saved, epochs)
                done = len(run.history["epoch"])
                set_epoch(max(0, done - 1), loader, val)  # the loaders, too, as the last epoch left them
            return
        there = difference(saved["fingerprint"], run.fingerprint)
        print(f"{run.path.name} holds another run ({there}): this one has a file of its own, {own.name}.")


def set_epoch(epoch: int, *loaders: Iterable | None) -> None:
    """Tell each loader, or its sampler, which epoch comes, where it asks for it."""
    for loader in loaders:
        for thing in (loader, getattr(loader, "sampler", None)):
            if hasattr(thing, "set_epoch"):
                thing.set_epoch(epoch)


def read_checkpoint(file: Path) -> dict:
    """What save_checkpoint wrote. Raises CheckpointError for anything else."""
    try:
        with zipfile.ZipFile(file) as opened:  # torch.load does not look at the checksums
            if opened.testzip():
                raise ValueError("damaged")
        saved = torch.load(file, map_location="cpu", weights_only=True)
        return saved | {"fingerprint": dict(saved.get("fingerprint"))}
    except Exception:  # damaged bytes raise errors of many kinds
        raise CheckpointError(
            f"{file} is cut short or no checkpoint of `fit`. Delete it, or pass fresh=True to write it anew."
        ) from None


def save_checkpoint(run: Run) -> None:
    """Write everything that training depends on: to a temporary name, then renamed."""
    if run.path is None:
        return
    saved = {name: getattr(run, name).state_dict() for name in ("model", "optimizer", "scaler")}
    saved["scheduler"] = run.scheduler.state_dict() if run.scheduler is not None else None
    saved |= {name: getattr(run, name) for name in ("history", "step", "chance", "fingerprint")}
    saved |= {name: plain(saved[name]) for name in ("optimizer", "scheduler", "history")}
    numpy_state = np.random.get_state()
    saved["random"] = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "python": random.getstate(),
    }
    with whole(run.path) as part:
        torch.save(saved, part)


def plain(value: object) -> object:
    """The value with NumPy's numbers as Python's, which weights_only=True reads back."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value


def restore(run: Run, saved: dict, epochs: int) -> None:
    """Put a run back where its checkpoint left it, and print its lines again."""
    for name in ("model", "optimizer", "scaler"):
        getattr(run, name).load_state_dict(saved[name])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(saved["scheduler"])
    run.history, run.step, run.chance = saved["history"], saved["step"], saved["chance"]
    state = saved["random"]
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    done = len(run.history["epoch"])
    print(f"Picked up from {run.path.name}: {done} of {epochs} epochs are done.")
    for i in range(done):
        print(line(run.history, i, epochs))


def fingerprint(run: Run, loader: Iterable, val: Iterable | None, epochs: int, start: str) -> dict[str, str]:
    """Everything that decides what a run computes, part by part, as text without addresses."""
    shapes = {name: tuple(tensor.shape) for name, tensor in run.model.state_dict().items()}
    groups = [
        {**group, "params": [tuple(p.shape) for p in group["params"]]} for group in run.optimizer.param_groups
    ]
    parts = {
        "start": start,
        "epochs": epochs,
        "precision": run.precision,
        "model": repr(run.model),
        "shapes": shapes,
        "code": describe(run.model, {run.model}, shapes),
        "loader": loader_facts(loader),
        "validation": loader_facts(val),
        "criterion": describe(run.criterion, {run.model}),
        "optimizer": [type(run.optimizer).__name__, *groups, describe(run.optimizer, {run.model})],
        "scheduler": [
            type(run.scheduler).__name__,
            run.scheduler and run.scheduler.state_dict(),
            describe(run.scheduler, {run.model}),
        ],
    }
    return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", str(part)) for name, part in parts.items()}


def loader_facts(loader: Iterable | None) -> str:
    """A loader's fingerprint; without one its type, its length and its data set's repr."""
    if hasattr(loader, "fingerprint"):
        return loader.fingerprint()
    try:
        length = len(loader)
    except TypeError:
        length = "unknown length"
    return f"{type(loader).__name__}, {length}, {getattr(loader, 'dataset', None)!r}"


def describe(thing: object, seen: set, saved: Iterable = ()) -> list:
    """Settings and code of a network, criterion, optimizer or schedule: what its repr leaves out.

    seen: functions and networks that are described already; saved: buffers that a checkpoint restores.
    """
    found = []
    for part in thing.modules() if isinstance(thing, nn.Module) else [thing]:
        for name, value in getattr(part, "__dict__", {}).items():
            values = value if isinstance(value, list) else [value]
            if name != "training" and (not name.startswith("_") or isinstance(value, FUNCTIONS)):
                found += [f"{name} {code(v, seen)}" for v in values if isinstance(v, VALUES)]
        for kind in type(part).__mro__:
            for name, value in {} if library(kind) else vars(kind).items():
                # __doc__, __module__, __firstlineno__ and their like do not count
                if callable(value) or not name.startswith("__"):
                    found += [name, code(value, seen)]
    if isinstance(thing, nn.Module):
        found += [f"{name} {code(b, seen)}" for name, b in thing.named_buffers() if name not in saved]
    return [type(thing).__name__, [] if isinstance(thing, nn.Module) else code(thing, seen), *found]


def library(thing: object) -> bool:
    """Whether a class or function comes with Python or torch."""
    return (getattr(thing, "__module__", None) or "builtins").split(".")[0] in (
        "builtins",
        "torch",
        "torchvision",
    )


def code(thing: object, seen: set) -> list:
    """What a function computes: instructions, constants, names, and those of the functions that it calls."""
    if isinstance(thing, functools.partial):
        given = [*thing.args, *itertools.chain(*thing.keywords.items())]
        return [code(value, seen) for value in (thing.func, *given)]
    if isinstance(thing, torch.Tensor):
        return [tuple(thing.shape), thing.detach().flatten()[:1000].tolist()]
    if isinstance(thing, nn.Module) and thing not in seen:
        seen.add(thing)
        return [repr(thing), describe(thing, seen)]
    thing = getattr(thing, "fget", getattr(thing, "__func__", thing))  # a property's, a method's function
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not isinstance(thing, types.FunctionType) or library(thing) or thing in seen:
        return [
            repr(thing) if isinstance(thing, SIMPLE) else getattr(thing, "__name__", type(thing).__name__)
        ]
    seen.add(thing)
    found, blocks = [], [thing.__code__]
    used = [*(thing.__defaults__ or ()), *itertools.chain(*(thing.__kwdefaults__ or {}).items())]
    used += [cell.cell_contents for cell in thing.__closure__ or ()]
    for block in blocks:
        for step in dis.get_instructions(block):
            value = step.argval
            if isinstance(value, types.CodeType):
                blocks.append(value)
                value = "code"
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and value in thing.__globals__:
                used.append(thing.__globals__[value])
            if step.opname != "EXTENDED_ARG":
                found.append(
                    (step.opname, sorted(map(repr, value)) if isinstance(value, frozenset) else value)
                )
    return found + [code(value, seen) for value in used if isinstance(value, VALUES)]


def difference(old: dict[str, str], new: dict[str, str]) -> str:
    """The first part in which two fingerprints differ, in a few words."""
    name = next(name for name in new if old.get(name) != new[name])
    if name in ("code", "shapes"):
        return f"another {name} of the network"
    a, b = (re.split("\n" if name == "model" else r"\n|, ", parts.get(name, "")) for parts in (old, new))
    a, b = ([part.strip(" []{}") for part in parts] for parts in (a, b))
    pairs = ((x, y) for x, y in itertools.zip_longest(a, b, fillvalue="nothing") if x != y)
    x, y = next(pairs, ("one", "another"))
    return f"{name}: {x[:60]} there, {y[:60]} here"
