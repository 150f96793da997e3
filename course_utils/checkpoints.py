"""Checkpoints from which every stop can be picked up, and the fingerprint that tells one run from another."""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import os
import pickle
import random
import re
import types
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from course_utils.settings import device, runs

KEYS = ("epoch", "lr", "loss", "top1", "val_loss", "val_top1", "images_per_second", "seconds")
SIMPLE = (bool, int, float, str, tuple, type(None))


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


def open_checkpoint(run, checkpoint, loader, val, epochs, fresh, start) -> None:
    """Find the run's file and, where it holds the same run, restore it; a file of another run is left alone."""
    if checkpoint is None:
        return
    path = Path(checkpoint).expanduser()
    if not path.is_absolute():
        path = runs() / path.relative_to("runs" if path.parts[0] == "runs" else "")
    run.fingerprint = fingerprint(run, loader, val, epochs, start)
    digest = hashlib.sha256(repr(run.fingerprint).encode()).hexdigest()
    for file in (path, path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}")):
        run.path = file
        if not file.is_file():
            return
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
            old = saved["fingerprint"]
        except (
            OSError,
            EOFError,
            RuntimeError,
            KeyError,
            TypeError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ):
            if fresh:
                return
            raise CheckpointError(
                f"{file} is cut short or no checkpoint of `fit`. Delete it, or pass fresh=True to write it anew."
            ) from None
        if old == run.fingerprint:
            if not fresh:
                restore(run, saved, epochs)
            return
        print(
            f"{file.name} holds another run ({difference(old, run.fingerprint)}): trained anew, in a file of its own."
        )


def save_checkpoint(run: Run) -> None:
    """Write everything that training depends on: to a temporary name, then renamed."""
    if run.path is None:
        return
    saved = {name: getattr(run, name).state_dict() for name in ("model", "optimizer", "scaler")}
    saved["scheduler"] = run.scheduler.state_dict() if run.scheduler is not None else None
    saved |= {name: getattr(run, name) for name in ("history", "step", "chance", "fingerprint")}
    numpy_state = np.random.get_state()
    saved["random"] = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "python": random.getstate(),
    }
    run.path.parent.mkdir(parents=True, exist_ok=True)
    part = run.path.with_name(f"{run.path.name}.{os.getpid()}.part")
    try:
        torch.save(saved, part)
        os.replace(part, run.path)
    finally:
        part.unlink(missing_ok=True)


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
        "optimizer": [type(run.optimizer).__name__, *groups],
        "scheduler": [
            type(run.scheduler).__name__,
            run.scheduler and run.scheduler.state_dict(),
            describe(run.scheduler),
        ],
        "criterion": describe(run.criterion),
        "model": repr(run.model),
        "shapes": shapes,
        "code": describe(run.model),
        "loader": loader_facts(loader),
        "validation": loader_facts(val),
    }
    return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", str(part)) for name, part in parts.items()}


def loader_facts(loader: Iterable | None) -> str:
    """A loader's fingerprint; without one its type, its length and its data set's repr."""
    if hasattr(loader, "fingerprint"):
        return loader.fingerprint()
    length = len(loader) if hasattr(loader, "__len__") else "unknown length"
    return f"{type(loader).__name__}, {length}, {getattr(loader, 'dataset', None)!r}"


def describe(thing: object) -> list:
    """Settings and code of a network, criterion or schedule: what its repr leaves out."""
    found, seen = [], set()
    for part in thing.modules() if isinstance(thing, nn.Module) else [thing]:
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, (types.FunctionType, functools.partial)) or (
                isinstance(value, list) and value
            ):
                found += [name, *(code(v, seen) for v in (value if isinstance(value, list) else [value]))]
            elif isinstance(value, SIMPLE) and isinstance(part, nn.Module) and not name.startswith("_"):
                found += [] if name == "training" else [f"{name} {value!r}"]
        found += [
            code(f, seen) for kind in type(part).__mro__ for f in vars(kind).values() if not library(kind)
        ]
    if isinstance(thing, nn.Module):
        found += [
            f"{name} {b.flatten()[:1000].tolist()}" for name, b in thing.named_buffers() if b.numel() > 1
        ]
    return [type(thing).__name__, code(thing, seen), *found]


def library(thing: object) -> bool:
    """Whether a class or function comes with Python or torch."""
    return (getattr(thing, "__module__", None) or "builtins").split(".")[0] in (
        "builtins",
        "torch",
        "torchvision",
    )


def code(thing: object, seen: set) -> list:
    """What a function computes: its bytecode, constants and names, and those of the functions that it calls."""
    if isinstance(thing, functools.partial):
        return [code(thing.func, seen), repr(thing.args), repr(thing.keywords)]
    thing = inspect.unwrap(getattr(thing, "__func__", thing)) if callable(thing) else thing
    if not isinstance(thing, types.FunctionType) or library(thing) or thing.__code__ in seen:
        return (
            [repr(thing)] if isinstance(thing, SIMPLE) else [getattr(thing, "__name__", type(thing).__name__)]
        )
    seen.add(thing.__code__)
    found, blocks = [repr(thing.__defaults__)], [thing.__code__]
    closed = [cell.cell_contents for cell in thing.__closure__ or ()]
    for block in blocks:
        constants = [c for c in block.co_consts if c != thing.__doc__]
        blocks += [c for c in constants if isinstance(c, types.CodeType)]
        plain = [sorted(map(repr, c)) if isinstance(c, frozenset) else c for c in constants]
        found += [
            block.co_code.hex(),
            repr([c for c in plain if not isinstance(c, types.CodeType)]),
            block.co_names,
        ]
        closed += [thing.__globals__[name] for name in block.co_names if name in thing.__globals__]
    return found + [code(value, seen) for value in closed if isinstance(value, (types.FunctionType, *SIMPLE))]


def difference(old: dict[str, str], new: dict[str, str]) -> str:
    """The first part in which two fingerprints differ, in a few words."""
    name = next(name for name in new if old.get(name) != new[name])
    if name in ("code", "shapes"):
        return f"another {name} of the network"
    a, b = (re.split(r"\n|, ", parts.get(name, "")) for parts in (old, new))
    pairs = [(x.strip(), y.strip()) for x, y in itertools.zip_longest(a, b, fillvalue="nothing") if x != y]
    return f"{name}: {pairs[0][0][:60]} there, {pairs[0][1][:60]} here"
