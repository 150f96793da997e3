"""The ledger of measured results, the numbers in prose that come from it, and the networks that are shipped."""

import json
import math
import platform
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import torch
from torch import nn

from course_utils import settings
from course_utils.data.arrays import Arrays
from course_utils.models import MODELS


def folder(kind: str) -> Path:
    """`results`, `weights` (in the checkout's data/) or `benchmarks`. Raises FileNotFoundError outside a checkout."""
    if settings.checkout() is None:
        raise FileNotFoundError(
            f"the {kind} lie in a checkout of the course; the installed package has none."
        )
    return settings.checkout() / ("benchmarks" if kind == "benchmarks" else f"data/{kind}")


def run_name(model: str, dataset: str, profile: str, variant: str | None, seed: int) -> str:
    """The stem of a run's files: {model}-{dataset}-{profile}[-{variant}]-s{seed}."""
    return "-".join(filter(None, (model, dataset, profile, variant, f"s{seed}")))


def machine() -> dict:
    """What a time was measured on: cpu, cores, device, torch, python."""
    device = settings.device()
    return {
        "cpu": settings.processor(),
        "cores": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def today_and_commit() -> dict:
    """The date and the checkout's commit (+: tracked files have changed); `unknown` without one."""
    command, said = ["git", "describe", "--always", "--dirty=+", "--exclude=*"], ""
    if settings.checkout() and shutil.which("git"):
        said = subprocess.run(command, cwd=settings.checkout(), capture_output=True, text=True).stdout
    return {"date": date.today().isoformat(), "commit": said.strip() or "unknown"}


def write_json(value: dict, file: Path) -> None:
    """Write to a temporary name, then rename."""
    text = json.dumps(value, indent=1) + "\n"
    with settings.whole(file) as part:
        part.write_text(text, encoding="utf-8")


def recorded(key: str) -> list[dict]:
    """The ledger's results of `key`, {model}-{dataset}-{profile}[-{variant}], by seed."""
    return stored(key, folder("results"))


ledger = recorded  # its name in lesson 05


def read_results(key: str) -> list[dict]:
    """The results of `key` by seed, each from runs() where it is there, else from the ledger; says which.

    Raises FileNotFoundError where neither has one.
    """
    found, words = {}, []
    for place in ("your runs", "the ledger")[: 2 if settings.checkout() else 1]:
        new = stored(key, settings.runs() if place == "your runs" else folder("results"))
        new = {record["seed"]: record for record in new if record["seed"] not in found}
        found |= new
        words += [f"seed{'s' * (len(new) > 1)} {', '.join(map(str, new))} from {place}"] if new else []
    if not found:
        raise FileNotFoundError(f"no result {key}. Make one: python -m course_utils train (see --help).")
    print(f"{key}: {'; '.join(words)}.")
    return [found[seed] for seed in sorted(found)]


def stored(key: str, where: Path) -> list[dict]:
    """The results of `key` in a folder, by seed."""
    files = [
        file for file in where.glob(f"{key}-s*.json") if re.fullmatch(re.escape(key) + r"-s\d+", file.stem)
    ]
    return sorted((json.loads(file.read_text(encoding="utf-8")) for file in files), key=lambda r: r["seed"])


def banner(lesson: str, *arrays: Arrays) -> str:
    """The first line that a lesson prints: profile, device, precision, data, and in `cpu` how long it took."""
    sets = []
    for name in dict.fromkeys(a.name for a in arrays):
        parts = [a for a in arrays if a.name == name]
        whole = "complete" if all(a.complete for a in parts) else "PARTIAL"
        sets.append(f"{name} {whole} ({' + '.join(f'{len(a):,}' for a in parts)} images)")
    words = [
        f"profile {settings.profile()}",
        f"device {settings.device()}",
        f"precision {settings.precision()}",
    ]
    file = settings.checkout() and folder("results") / "lessons.json"
    times = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if settings.profile() == "cpu" and lesson in times:
        words.append(f"took {times[lesson]['minutes']} minutes on {times[lesson]['processor']}")
    return ", ".join([*words, *sets])


def wilson(correct: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a proportion (Wilson 1927), as two numbers in 0..1."""
    z, p = 1.959964, correct / total
    middle = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def save_weights(model: nn.Module, file: Path, facts: dict[str, str]) -> None:
    """Write the weights with their facts to a safetensors file: to a temporary name, then renamed."""
    from safetensors.torch import save_file

    with settings.whole(file) as part:
        save_file({key: t.cpu().contiguous() for key, t in model.state_dict().items()}, part, facts)


def load_weights(name: str) -> nn.Module:
    """A shipped network ("lenet-mnist"), else one of runs() ("lenet-mnist-cpu-s0"), by its file's name.

    In float32 and evaluation mode, its facts in the attribute `facts`. Raises FileNotFoundError with the names there
    are.
    """
    from safetensors import safe_open

    places = ([folder("weights")] if settings.checkout() else []) + [settings.runs()]
    files = {f.stem: f for place in reversed(places) for f in place.glob("*.safetensors")}
    file = files.get(name)
    if file is None:
        known = ", ".join(sorted(files))
        raise FileNotFoundError(f"no network {name!r}; expected one of: {known}.")
    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    model = MODELS[facts["model"]](**json.loads(facts["network"]))
    model.load_state_dict({k: t.float() if t.is_floating_point() else t for k, t in tensors.items()})
    model.facts = facts
    return model.eval()
