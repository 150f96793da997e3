"""Device, precision, profile, seeds, and where things are."""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import platformdirs
import torch

PROFILES = ("smoke", "cpu", "full")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def checkout() -> Path | None:
    """The folder above the package that holds pyproject.toml and data/; None where the package is installed."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "data").is_dir() else None


def runs() -> Path:
    """Where training runs live: COURSE_RUNS, else the checkout's runs/, else ./runs."""
    if os.environ.get("COURSE_RUNS"):
        return Path(os.environ["COURSE_RUNS"]).expanduser()
    return (checkout() or Path.cwd()) / "runs"


def cache() -> Path:
    """Where decoded data sets live: COURSE_CACHE, else the user's cache folder of this system."""
    if os.environ.get("COURSE_CACHE"):
        return Path(os.environ["COURSE_CACHE"]).expanduser()
    return Path(platformdirs.user_cache_dir("deep-dive-into-cnns"))


def profile() -> str:
    """`smoke`, `cpu` or `full`: COURSE_PROFILE, else `full` where CUDA is found, else `cpu`."""
    name = os.environ.get("COURSE_PROFILE") or ("full" if torch.cuda.is_available() else "cpu")
    if name not in PROFILES:
        raise ValueError(
            f"COURSE_PROFILE is {name!r}; expected one of {', '.join(PROFILES)}. Set it to one of them."
        )
    return name


def device() -> torch.device:
    """CUDA, then Apple's mps, then the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(name: str = "auto") -> str:
    """The precision of the forward pass in training: `bfloat16`, `float16` or `float32`.

    name: one of them, or `auto`: bfloat16 where the hardware computes in it, float16 on older CUDA, else float32.
    Raises ValueError for another name.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise ValueError(f"precision is {name!r}; expected 'auto' or one of {', '.join(PRECISIONS)}.")
    if device().type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device().type == "cpu":
        flags = getattr(torch.cpu, "get_capabilities", dict)()
        return "bfloat16" if flags.get("avx512_bf16") or flags.get("amx_bf16") else "float32"
    return "float32"


def autocast(name: str) -> contextlib.AbstractContextManager:
    """The context in which a forward pass computes in the precision `name` (a result of `precision`)."""
    if name == "float32":
        return torch.autocast(device().type, enabled=False)
    return torch.autocast(device().type, dtype=PRECISIONS[name])


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def processor() -> str:
    """The processor's name as the system gives it, and the cores that torch computes with."""
    name = getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or "unknown processor"
    return f"{name}, {torch.get_num_threads()} cores"
