"""python -m course_utils doctor: what this machine has, on one screen."""

import os
import platform
import shutil
import sys
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

NEEDED = "numpy matplotlib tqdm huggingface_hub pyarrow pillow platformdirs safetensors".split()
SETS = ("mnist", "fashion", "cifar100", "cifar10")


def doctor() -> int:
    """Print a line for each check, as it is made; those that begin with ! need mending. Returns 1 if one does."""
    checks = {"packages": packages, "torch": torch_and_torchvision, "device": device, "profile": profile}
    checks |= {name: partial(data_set, name) for name in SETS}
    checks |= {name: partial(folder, name) for name in ("runs", "work", "cache")} | {"disk": disk}
    print(
        f"  Python    {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    )
    wrong = 0
    for name, check in checks.items():
        try:
            print(f"  {name:<10}{check()}", flush=True)
        except Exception as error:  # whatever a check ends in is what it found
            wrong += 1
            print(f"! {name:<10}{(str(error).splitlines() or [type(error).__name__])[0]}", flush=True)
        if name == "torch" and not (find_spec("numpy") and find_spec("platformdirs")):
            print("  The rest can be told when these are installed.")
            break
    print("To mend: the lines with !" if wrong else "All is well.")
    return int(wrong > 0)


def packages() -> str:
    """Whether all packages but torch are here."""
    missing = [name for name in NEEDED if find_spec("PIL" if name == "pillow" else name) is None]
    if missing:
        raise ValueError(f"missing. Install: python -m pip install {' '.join(missing)}")
    return f"all here; JupyterLab {version('jupyterlab') if find_spec('jupyterlab') else 'is not'}"


def torch_and_torchvision() -> str:
    """Their versions, where they are here and fit each other."""
    missing = [name for name in ("torch", "torchvision") if find_spec(name) is None]
    if missing:
        raise ValueError(f"missing. Install: python -m pip install {' '.join(missing)}")
    try:
        import torchvision
    except Exception as error:
        why = "do not fit: both must be of one source" if "nms" in str(error) else f"do not load ({error})"
        again = "python -m pip install --force-reinstall torch torchvision"
        raise ValueError(f"torch and torchvision {why}. Install both anew: {again}") from None
    return f"torch {version('torch')} and torchvision {torchvision.__version__}: they fit each other"


def device() -> str:
    """The device, the precision of training, the processor."""
    import torch

    from course_utils.settings import device, precision, processor

    return f"{device()}, training in {precision()}, {processor()}, {torch.get_num_threads()} threads"


def profile() -> str:
    """The profile, and where it is from."""
    from course_utils import settings

    return f"{settings.profile()} ({'COURSE_PROFILE' if os.environ.get('COURSE_PROFILE') else 'the default'})"


def data_set(name: str) -> str:
    """Where a set was found; its content is read and compared with the published digests."""
    from course_utils import settings
    from course_utils.data import published, sources

    found = [sources.from_folders(name, split) for split in ("train", "test")]
    places = [part[2] for part in found if part is not None]
    if len(places) == 1:
        raise ValueError(f"only one of training and test set is in {places[0]}; put the other beside it.")
    if places:
        return f"whole, as published: {places[0]}"
    decoded = [
        any(settings.cache().glob(f"{digest}*")) for digest in published.PUBLISHED[name].digests.values()
    ]
    return "decoded, in the cache" if all(decoded) else "not here; the lesson that needs it downloads it"


def folder(name: str) -> str:
    """The folder of runs, of the lessons' copies or the cache, which must be writable."""
    from course_utils import settings

    work = (settings.checkout() or Path.cwd()) / "work"
    place = settings.own_folder(work) if name == "work" else getattr(settings, name)()
    if not (nearest(place).is_dir() and os.access(nearest(place), os.W_OK)):
        raise ValueError(f"{place} may not be written; COURSE_RUNS and COURSE_CACHE name other folders.")
    return f"{place} can be written"


def disk() -> str:
    """The free space where sets are kept."""
    from course_utils import settings

    free = shutil.disk_usage(nearest(settings.cache())).free / 1e9
    if free < 2:
        raise ValueError(
            f"{free:.1f} GB free for {settings.cache()}; expected 2, for all sets and runs. Make room."
        )
    return f"{free:.1f} GB free"


def nearest(place: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
