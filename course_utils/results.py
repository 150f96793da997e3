"""The ledger of measured results, the numbers in prose that come from it, and the networks that are shipped."""

import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
from datetime import date
from pathlib import Path

import torch
from torch import nn

from course_utils import settings
from course_utils.arrays import Arrays
from course_utils.models import MODELS, label

MARKER = re.compile(r"<!--(result|bench|table) ([^>]*?)-->(.*?)<!--/-->", re.DOTALL)


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
        "cpu": settings.processor().rsplit(",", 1)[0],
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
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def ledger(key: str) -> list[dict]:
    """The ledger's results of `key`, {model}-{dataset}-{profile}[-{variant}], by seed."""
    return stored(key, folder("results"))


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


def field(record: dict, path: str) -> object:
    """The value at a dotted path: test.top1."""
    for name in path.split("."):
        record = record[int(name) if isinstance(record, list) else name]
    return record


def number(value: object, path: str) -> str:
    """A value as prose shows it: percent for accuracies, thousands for counts, text as it is."""
    if not isinstance(value, (int, float)):
        return str(value)
    name = next(name for name in reversed(path.split(".")) if not name.isdigit())
    if "top1" in name or "top5" in name:
        return f"{100 * value:.2f} %"
    if isinstance(value, int) or name == "images_per_second":
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def result_text(key: str, path: str, statistic: str) -> str:
    """A number of the ledger: mean, sd, min, max, n over the seeds, or one seed's (s0)."""
    records = ledger(key)
    if not records:
        raise FileNotFoundError(f"no result {key} in the ledger.")
    one_kind(key, records)
    if statistic == "n":
        return str(len(records))
    if re.fullmatch(r"s\d+", statistic):
        return number(next(field(r, path) for r in records if f"s{r['seed']}" == statistic), path)
    values = [field(record, path) for record in records]
    functions = {"mean": statistics.mean, "sd": statistics.stdev, "min": min, "max": max}
    text = number(functions[statistic](values), path)
    return text.replace(" %", " points") if statistic == "sd" else text


def one_kind(key: str, records: list[dict]) -> None:
    """Raises ValueError where results of different recipes or precisions would be averaged."""
    kinds = {(r["recipe"].get("version"), r["precision"]) for r in records}
    if len(kinds) > 1:
        raise ValueError(
            f"{key}: recipes and precisions {sorted(kinds, key=str)}; expected one. Record the rest anew."
        )


def bench_text(file: str, path: str) -> str:
    """A number of a benchmark's JSON file."""
    return number(field(json.loads((folder("benchmarks") / file).read_text(encoding="utf-8")), path), path)


def results_table() -> str:
    """Markdown: a row for each headline of the ledger, means over its seeds."""
    head = ["network", "data", "profile", "parameters", "test top-1", "seeds", "minutes", "measured on"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    stems = {file.stem.rsplit("-s", 1)[0] for file in folder("results").glob("*-s*.json")}
    for key in sorted(stems):
        records = [record for record in ledger(key) if record["test"]]
        if not records:
            continue
        one_kind(key, records)
        first, top1 = records[0], [100 * record["test"]["top1"] for record in records]
        spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        computer = first["machine"]
        where = (
            computer["device"]
            if computer["device"] != "cpu"
            else f"{computer['cpu']}, {computer['cores']} cores"
        )
        row = [
            label(first["model"], first["recipe"]["network"]),
            first["dataset"],
            first["profile"],
            f"{first['parameters']:,}",
        ]
        row += [f"{statistics.mean(top1):.2f}{spread} %", str(len(top1))]
        row += [f"{statistics.mean(r['minutes'] for r in records):.2f}", f"{where}, {first['precision']}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def rewrite(text: str) -> str:
    """The text with every marked number and table made anew from its file."""

    def replace(match):
        kind, arguments = match[1], match[2].split()
        if kind == "table":
            return f"<!--table {match[2]}-->\n\n{results_table()}\n\n<!--/-->"
        made = result_text(*arguments) if kind == "result" else bench_text(*arguments)
        return f"<!--{kind} {match[2]}-->{made}<!--/-->"

    return MARKER.sub(replace, text)


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

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    save_file({key: t.cpu().contiguous() for key, t in model.state_dict().items()}, part, facts)
    os.replace(part, file)


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
