"""The ledger of measured results, the numbers in prose that come from it, and the networks that are shipped."""

import json
import math
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from course_utils import settings
from course_utils.data import standin
from course_utils.data.arrays import Arrays

if TYPE_CHECKING:  # the lessons in NumPy print their banner without torch
    from torch import nn

FIELDS = (
    "model",
    "dataset",
    "profile",
    "variant",
    "seed",
    "recipe",
    "history",
    "val",
    "test",
)  # of a result, at least


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
    import torch

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


def all_recorded() -> dict[str, dict]:
    """Every result of the ledger, by the stem of its file."""
    return {file.stem: read_result(file) for file in sorted(folder("results").glob("*-s*.json"))}


def read_results(key: str) -> list[dict]:
    """The results of `key` by seed, each from runs() where it is there, else from the ledger; says which.

    Results of another recipe than today's are left out of runs(), and of the ledger where runs() has today's; said,
    too. Raises FileNotFoundError where there is none, ValueError for a damaged file.
    """
    found, words, old = {}, [], []
    places = {"your runs": settings.runs()} | (
        {"the ledger": folder("results")} if settings.checkout() else {}
    )
    for place, where in places.items():
        records = {record["seed"]: record for record in stored(key, where) if record["seed"] not in found}
        outdated = [seed for seed, record in records.items() if not todays_recipe(record)]
        if outdated and (found or place == "your runs"):
            old.append(f"{seeds(outdated)} in {place}")
            records = {seed: record for seed, record in records.items() if seed not in outdated}
        elif outdated:
            place += ", of an older recipe"
        found |= records
        words += [f"{seeds(records)} from {place}"] if records else []
    if old:
        print(
            f"{key}: left out, of another recipe than today's: {'; '.join(old)}. Train again, or delete them."
        )
    if not found:
        raise FileNotFoundError(f"no result {key}. Make one: python -m course_utils train (see --help).")
    print(f"{key}: {'; '.join(words)}.")
    return [found[seed] for seed in sorted(found)]


def seeds(numbers: Iterable[int]) -> str:
    """`seed 0`, `seeds 0, 1`."""
    listed = [str(number) for number in numbers]
    return f"seed{'s' * (len(listed) > 1)} {', '.join(listed)}"


def stored(key: str, where: Path) -> list[dict]:
    """The results of `key` in a folder, by seed. Raises ValueError for a damaged file."""
    pattern = re.compile(re.escape(key) + r"-s\d+")
    files = [file for file in where.glob(f"{key}-s*.json") if pattern.fullmatch(file.stem)]
    return sorted(map(read_result, files), key=lambda record: record["seed"])


def read_result(file: Path) -> dict:
    """A result. Raises ValueError, one line that names the file, for what is unreadable, damaged or another thing."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in FIELDS if key not in record]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        name = run_name(*(record[key] for key in FIELDS[:5]))
        if name != file.stem or type(record["seed"]) is not int:
            raise ValueError(f"it is {name}")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}). Let it be read, or delete it.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not the result of its name ({error}). Delete it and run again."
        ) from None
    return record


def todays_recipe(record: dict) -> bool:
    """Whether a result was made by the recipe, version and values, that the table has today.

    An argument of the network that the result does not know has its default.
    """
    from course_utils.models import network_defaults
    from course_utils.recipes import recipe

    data = "cifar100" if record["dataset"] == standin.NAME else record["dataset"]
    try:
        today = recipe(record["model"], data, record["profile"], record["variant"])
        then = record["recipe"] | {"network": network_defaults(record["model"]) | record["recipe"]["network"]}
    except (ValueError, KeyError, TypeError):  # the table does not have it any more, or it is no recipe
        return False
    return json.loads(json.dumps(today)) == json.loads(json.dumps(then))


def banner(lesson: str, *arrays: Arrays, numpy_only: bool = False) -> str:
    """The first line that a lesson prints: profile, device, precision, data, and in `cpu` how long it took.

    numpy_only: the lesson computes without torch, and no device is named.
    """
    sets = []
    for name in dict.fromkeys(a.name for a in arrays):
        parts = [a for a in arrays if a.name == name]
        whole = "complete" if all(a.complete for a in parts) else "PARTIAL"
        sets.append(f"{name} {whole} ({' + '.join(f'{len(a):,}' for a in parts)} images)")
    words = [f"profile {settings.profile()}"]
    if not numpy_only:
        words += [f"device {settings.device()}", f"precision {settings.precision()}"]
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


def save_weights(model: "nn.Module", file: Path, facts: dict[str, str]) -> None:
    """Write the weights with their facts to a safetensors file: to a temporary name, then renamed."""
    from safetensors.torch import save

    with settings.whole(file) as part:
        part.write_bytes(save({key: t.cpu().contiguous() for key, t in model.state_dict().items()}, facts))


def load_weights(name: str) -> "nn.Module":
    """A shipped network ("lenet-mnist"), else one of runs() ("lenet-mnist-cpu-s0"), by its file's name.

    In float32 and evaluation mode, its facts in the attribute `facts`. Raises FileNotFoundError with the names there
    are, ValueError for a file that holds no such network.
    """
    from safetensors import safe_open

    from course_utils.models import MODELS

    places = ([folder("weights")] if settings.checkout() else []) + [settings.runs()]
    files = {f.stem: f for place in reversed(places) for f in place.glob("*.safetensors")}
    file = files.get(name)
    if file is None:
        known = ", ".join(sorted(files))
        raise FileNotFoundError(f"no network {name!r}; expected one of: {known}.")
    try:
        with safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        if facts.get("model") not in MODELS:
            raise ValueError("it does not say which network it is")
        model = MODELS[facts["model"]](**json.loads(facts["network"]))
        model.load_state_dict({k: t.float() if t.is_floating_point() else t for k, t in tensors.items()})
    except Exception as error:  # safetensors, torch and a network's arguments each have their own
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(
            f"{file} holds no network of the course ({reason}). Delete it and train anew."
        ) from None
    model.facts = facts
    return model.eval()
