"""Checkpoints from which every stop can be picked up: which file is whose, and what lies in it."""

import dataclasses
import hashlib
import io
import os
import re
import tempfile
import time
import weakref
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import nn

from course_utils.fingerprint import difference, digest, fingerprint
from course_utils.settings import device, processor, random_states, runs, set_random_states, whole, writing

if os.name == "nt":
    import msvcrt
else:
    import fcntl

KEYS = ("epoch", "lr", "loss", "top1", "val_loss", "val_top1", "images_per_second", "seconds")
LEFT = weakref.WeakKeyDictionary()  # network -> the run that left its weights, and their digest


class CheckpointError(Exception):
    """A checkpoint that cannot be read back, or that another process writes."""


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
    base: Path | None = None  # the name that was asked for
    fingerprint: dict | None = None
    lock: IO | None = None

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
    val = "" if e["val_top1"] is None else f"validation {100 * e['val_top1']:6.2f} %   "
    return (
        f"epoch {e['epoch']:>2}/{epochs}   lr {e['lr']:.4f}   loss {e['loss']:.4f}   train {100 * e['top1']:6.2f} %   "
        f"{val}{e['images_per_second']:,.0f} images/s"
    )


def open_checkpoint(run: Run, checkpoint: str | Path | None, loader: Iterable, val: Iterable | None, epochs: int,
                    fresh: bool, start: str) -> None:  # fmt: skip
    """Find the run's file; restore it where it holds the same run, leave it alone where it holds another.

    Raises ValueError for what no file is called, CheckpointError for a file of this run's own that cannot be read
    or that another process writes.
    """
    if checkpoint is None:
        return
    run.base = place(checkpoint)
    run.fingerprint = fingerprint(run, loader, val, epochs, start)
    left = LEFT.get(run.model)
    left = left if left and left["weights"] == digest([*run.model.parameters()]) else None
    for part in beside(run.base, r"\.\d+\.part"):
        if held := lock(part.with_suffix("").with_suffix("")):  # who wrote it was killed
            part.unlink(missing_ok=True)
            held.close()
    for wait in (*[0.1] * 100, 0):
        saved, there = choose(run, left, fresh)
        known = os.path.exists(run.path)
        if saved and len(saved["history"]["epoch"]) >= epochs:
            break
        run.lock = lock(run.path)
        if run.lock and os.path.exists(run.path) == known:
            break
        if known or not wait:
            message = "another process trains this run. Wait, stop it, or pass a checkpoint name of its own."
            raise CheckpointError(f"{run.path.name}: {message}")
        time.sleep(wait)  # it has just begun and writes its file in a moment
    if saved:
        restore(run, saved, epochs)
        set_epoch(max(0, len(run.history["epoch"]) - 1), loader, val)  # as the last epoch left them
        return
    if there:
        print(f"{there}: this one has a file of its own, {run.path.name}.")
    if left:
        print(f"It trains on from the weights of {left['name']}; build the network again to begin anew.")


def place(checkpoint: str | Path) -> Path:
    """Where a checkpoint of that name lies; relative names in runs(). Raises ValueError for what no file is called."""
    path = Path(checkpoint).expanduser()
    if path.parts and not path.is_absolute():
        path = runs() / path.relative_to("runs" if path.parts[0] == "runs" else "")
    if not path.name or path == runs() or (os.path.exists(path) and not path.is_file()):
        raise ValueError(
            f"checkpoint is {str(checkpoint)!r}; expected the name of a file, such as 'lenet.pt'."
        )
    return path


def beside(base: Path, end: str = "") -> list[Path]:
    """The files <stem>.pt and <stem>-<8 hex>.pt that are there; `end`: what follows the name, as a pattern."""
    name = rf"{re.escape(base.stem)}(-[0-9a-f]{{8}})?{re.escape(base.suffix)}{end}"
    return [file for file in base.parent.glob("*") if re.fullmatch(name, file.name) and os.path.isfile(file)]


def choose(run: Run, left: dict | None, fresh: bool) -> tuple[dict | None, str]:
    """Set run.path; return what to go on from, and why run.base is none of this run's.

    left: the run that left the weights which the network holds. It goes on or is picked up where the settings are
    its own; but once it is finished, an optimizer made since then trains on, and that is another run.
    """
    here, there, damaged = run.fingerprint, "", ""
    candidates = [here]
    if left:
        again = here | {"weights": left["fingerprint"]["weights"]}
        here = here | {"weights": left["weights"]}
        same = left["base"] == run.base and not fresh and not difference(left["fingerprint"], again)
        goes_on = left["optimizer"] is None or left["optimizer"]() is run.optimizer
        candidates = [again, here] if same and goes_on else [here]
    own = run.base.with_name(f"{run.base.stem}-{digest([repr(here)])[:8]}{run.base.suffix}")
    for file in beside(run.base):
        try:
            saved = read_checkpoint(file)
        except CheckpointError as error:
            damaged = str(error) if file == own else damaged
            there = str(error) if file == run.base else there
            continue
        for run.fingerprint in candidates:
            if not (reason := difference(saved["fingerprint"], run.fingerprint)):
                run.path = file
                return None if fresh else saved, ""
        there = f"{file.name} holds another run ({reason})" if file == run.base else there
    if there and damaged and not fresh:
        raise CheckpointError(f"{damaged}. Delete it, or pass fresh=True to write it anew.")
    run.path, run.fingerprint = own if there else run.base, here
    return None, there


def lock(file: Path) -> IO | None:
    """Keep this machine's other processes from training into a file until closed or killed; None where one does."""
    name = hashlib.sha256(f"{Path.home()} {file.resolve()}".encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"course-{name}.lock"
    with writing(place):
        opened = open(place, "ab")  # noqa: SIM115
    try:
        if os.name == "nt":
            msvcrt.locking(opened.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return opened
    except OSError:
        opened.close()


def close_checkpoint(run: Run, epochs: int) -> None:
    """Remember, as long as the network lives, which run left which weights in it; let other processes train."""
    if run.path is not None:
        facts = {"base": run.base, "name": run.path.name, "fingerprint": run.fingerprint}
        facts["optimizer"] = weakref.ref(run.optimizer) if len(run.history["epoch"]) >= epochs else None
        LEFT[run.model] = facts | {"weights": digest([*run.model.parameters()])}
    if run.lock:
        run.lock.close()


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
    except PermissionError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror})") from None
    except Exception:  # damaged bytes raise errors of many kinds
        raise CheckpointError(f"{file} is cut short or no checkpoint of `fit`") from None


def save_checkpoint(run: Run) -> None:
    """Write everything that training depends on: to a temporary name, then renamed. Raises OSError."""
    if run.path is None:
        return
    saved = {name: getattr(run, name).state_dict() for name in ("model", "optimizer", "scaler")}
    saved["scheduler"] = run.scheduler.state_dict() if run.scheduler is not None else None
    saved |= {name: getattr(run, name) for name in ("history", "step", "chance", "fingerprint")}
    saved |= {name: plain(saved[name]) for name in ("optimizer", "scheduler", "history")}
    saved |= {"random": random_states(), "machine": machine()}
    content = io.BytesIO()  # torch hides why it cannot write to a file
    torch.save(saved, content)
    with whole(run.path) as part:
        part.write_bytes(content.getbuffer())


def machine() -> str:
    """What a run has to be continued on to be bit-identical."""
    return f"torch {torch.__version__}, {processor()}, {torch.get_num_threads()} threads, {device().type}"


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
    set_random_states(saved["random"])
    done = len(run.history["epoch"])
    print(f"Picked up from {run.path.name}: {done} of {epochs} epochs are done.")
    if done < epochs and saved["machine"] != machine():
        print(f"It was saved by {saved['machine']}; here, by {machine()}, the rest is not bit-identical.")
    for i in range(done):
        print(line(run.history, i, epochs))
