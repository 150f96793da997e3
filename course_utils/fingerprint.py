"""What a run is: everything that decides what `fit` computes, and where two such descriptions differ.

Code is seen by what it does (probe.py). Not seen: items of an IterableDataset, of a one-shot iterator or of a loader
class of one's own (where no loader may be looked at there is no probe), code of an optimizer of one's own and what
it keeps elsewhere than in its groups, hooks that only `backward()` calls, a subclass's change to TensorLoader's
batches, and what code does late in a run.
"""

import contextlib
import copy
import hashlib
import itertools
import operator
import re
import warnings
from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from course_utils.probe import behaviour, close, items, look_at, root_mean_square, untouched

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
        "criterion": loss or type(criterion).__name__,
        "optimizer": [type(optimizer).__name__, moved, settings],
        "schedule": [type(scheduler).__name__, rates(optimizer, scheduler, loader, epochs)],
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
        a, b = (str(value).strip()[:60] for value in (there, here))
        return "" if there == here else f"{what}: {a} there, {b} here"
    return next(filter(None, (difference(a, b, name) for name, a, b in pairs)), "")


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


def facts(data: object) -> object:
    """A loader or data set: its fingerprint(), its content, or what can be told without reading it."""
    if data is None or hasattr(data, "fingerprint"):
        return "none" if data is None else data.fingerprint()
    if isinstance(data, TensorDataset):
        return facts(data.tensors)
    if isinstance(data, (list, tuple, *WHOLE)):
        return f"{len(data)} parts, content {digest(data)}"
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


def rates(optimizer: torch.optim.Optimizer, scheduler: object, loader: Iterable, epochs: int) -> dict:
    """What a schedule moves, as its means over each hundredth of the steps to come, as a copy of it tells."""
    twin, rows = copy.copy(optimizer), []
    twin.param_groups = [dict(group) for group in optimizer.param_groups]
    steps = epochs * operator.length_hint(loader, 100) if scheduler else 1
    now, stride = getattr(scheduler, "last_epoch", 0), max(1, steps // 100)
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(Exception):
        schedule = copy.deepcopy(scheduler, {id(optimizer): twin})
        for step in range(now, steps):
            if step > now:
                schedule.step()
            groups = twin.param_groups
            rows.append([(g["lr"], g.get("momentum", 0), g.get("betas", (0,))[0]) for g in groups])
    table, found = np.array(rows, float), {}  # (steps to come, groups, 3)
    for start in range(-(-now // stride) * stride, now + len(rows), stride):
        means = table[start - now : start - now + stride].mean(0)
        found[f"step {start}"] = [dict(zip(MOVED, map("{:.6g}".format, m), strict=True)) for m in means]
    return found
