"""Device, precision, profile, seeds, and where things are."""

import contextlib
import functools
import os
import platform
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

if TYPE_CHECKING:  # torch takes seconds to import: only the functions that need it do
    import torch

NAME = "deep-dive-into-cnns"
PROFILES = ("smoke", "cpu", "full")
PRECISIONS = ("float32", "bfloat16", "float16")
FAST = ("avx512_bf16", "amx_bf16")  # what a processor computes bfloat16 with


def checkout() -> Path | None:
    """The folder above the package that holds pyproject.toml and data/; None where the package is installed."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "data").is_dir() else None


def runs() -> Path:
    """Where training runs live: COURSE_RUNS, else the checkout's runs/ (or the user's), else ./runs."""
    if os.environ.get("COURSE_RUNS"):
        return Path(os.environ["COURSE_RUNS"]).expanduser()
    return own_folder(checkout() / "runs") if checkout() else Path.cwd() / "runs"


@functools.cache
def own_folder(folder: Path) -> Path:
    """A folder of the checkout; where it may not be written, one of the user's of that name, said in one line."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if os.access(there, os.W_OK):
        return folder
    own = Path(platformdirs.user_data_dir(NAME)) / folder.name
    print(f"{folder} may not be written; {own} is used in its place.")
    return own


def cache() -> Path:
    """Where decoded data sets live: COURSE_CACHE, else the user's cache folder of this system."""
    if os.environ.get("COURSE_CACHE"):
        return Path(os.environ["COURSE_CACHE"]).expanduser()
    return Path(platformdirs.user_cache_dir(NAME))


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A temporary path that becomes `file` when the block ends, and is removed where it fails.

    Raises OSError, in one line that names the file, where it cannot be written (a full disk, a folder of others).
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """A block whose OSError becomes one line that names the file, whatever the library said."""
    try:
        yield
    except OSError as error:
        advice = "Make room, or choose another folder (COURSE_RUNS is that of the runs)."
        raise OSError(f"{file} cannot be written ({error.strerror or error}). {advice}") from None


def profile() -> str:
    """`smoke`, `cpu` or `full`: COURSE_PROFILE, else `cpu`. Raises ValueError for another name."""
    name = os.environ.get("COURSE_PROFILE") or "cpu"
    if name not in PROFILES:
        raise ValueError(
            f"COURSE_PROFILE is {name!r}; expected one of {', '.join(PROFILES)}. Set it to one of them."
        )
    return name


def device() -> "torch.device":
    """COURSE_DEVICE, else CUDA, then Apple's mps, then the processor. Raises ValueError for one that is not here."""
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = os.environ.get("COURSE_DEVICE") or next(name for name in here if here[name])
    if not here.get(name.split(":")[0]):
        known = ", ".join(name for name in here if here[name])
        raise ValueError(f"COURSE_DEVICE is {name!r}; expected one of {known} on this machine. Unset it.")
    return torch.device(name)


def precision(name: str = "auto") -> str:
    """The precision of the forward pass in training: `bfloat16`, `float16` or `float32`.

    name: one of them, or `auto`: bfloat16 where the hardware computes in it, float16 on older CUDA, else float32.
    Raises ValueError for another name.
    """
    import torch

    if name in PRECISIONS:
        return name
    if name != "auto":
        raise ValueError(f"precision is {name!r}; expected 'auto' or one of {', '.join(PRECISIONS)}.")
    if device().type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device().type == "cpu" and computes_fast() else "float32"


def computes_fast() -> list[str]:
    """Which of FAST this processor has; none where torch is too old to say."""
    import torch

    flags = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in FAST if flags.get(name)]


def autocast(name: str) -> contextlib.AbstractContextManager:
    """The context in which a forward pass computes in the precision `name` (a result of `precision`)."""
    import torch

    if name == "float32":
        return torch.autocast(device().type, enabled=False)
    return torch.autocast(device().type, dtype=getattr(torch, name))


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states() -> dict:
    """The states of Python's, NumPy's and torch's generators, for set_random_states or a checkpoint."""
    import torch

    name, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states = {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": (name, keys.tolist(), *rest)}
    return states | {"python": random.getstate()}


def set_random_states(states: dict) -> None:
    """Put all generators back; of the GPUs those that are here."""
    import torch

    torch.set_rng_state(states["torch"])
    for i, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, i)
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


def processor() -> str:
    """The processor's name and what it computes fast: `AMD EPYC (avx512_bf16)`."""
    import torch

    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or platform.processor()
    return f"{name or 'unknown processor'} ({', '.join(computes_fast()) or 'float32'})"
