"""What each part of AlexNet's recipe buys on CIFAR-100, and the paper's own claims, on a short schedule.

python benchmarks/alexnet.py       on an idle machine with CIFAR-100; hours on two cores; in the background:
nohup python benchmarks/alexnet.py > levers.log &

Each run is `python -m course_utils train --model alexnet --data cifar100 --profile cpu --variant NAME --seed S --record`:
a result in data/results/, scored on validation; what is there in this version of the recipe is not run again. Only runs
of one precision are compared. First of all the speed of the loop, from the usual code to ours in steps. alexnet.json is
written after each comparison, alexnet.png when the levers are through, alexnet.md after each claim. Two seeds tell little
about their own spread: the standard error of every difference comes from the spread pooled over all runs. The paper's
claims are measured anew, each side at a rate of its own, by claims.py.
"""

import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Iterable

import matplotlib
import numpy as np
import torch
from networks import BATCH, ROUNDS, STEPS, usual_loaders, usual_loop

from course_utils import ledger, plots, settings
from course_utils.data import TensorLoader, make_loaders
from course_utils.data.arrays import take
from course_utils.experiment import train
from course_utils.explain import feature_maps
from course_utils.models import MODELS
from course_utils.recipes import recipe

SEEDS = (0, 1)
LEVERS = {  # variant: what the recipe has and the variant has not
    "short-no-batch-norm": "batch norm (without it He's init, lr 0.05)",
    "short-quarter-width": "half of the channels, not a quarter; equal epochs",
    "short-three-eighths-width": "half of the channels, not three eighths; equal epochs",
    "short-constant-lr": "triangular lr, not constant (0.05)",
    "short-no-smoothing": "label smoothing 0.1",
    "short-decay-all": "no decay on norms and biases",
    "short-one-size": "small images first; equal minutes",
    "short-no-shift": "shift by 3 pixels",
    "short-random-flip": "alternating flips, not random ones",
    "short-no-flip": "alternating flips, not none",
}
CLAIMS = {  # variant: what it is compared with, run in the same precision
    "plain-tanh-he": "short-no-batch-norm",
    "plain-tanh": "short-no-batch-norm",
    "plain-torch-init": "short-no-batch-norm",
    "plain-separate-pools": "plain",
    "plain-dropout": "plain",
    "plain-lrn": "plain",
}
WILD = "short-constant-lr"
SEARCH = ("paper-lr-0.02", "paper-lr-0.05", "paper-lr-0.1")  # the learning rate of the paper's form, one seed
NOTES = """\
**What the bars hold.** The triangular rate is compared with one constant rate, 0.05, alone. Batch norm stands there with
the rate that it permits: without it the peak is 0.05 and the initialization He's. Widths are compared at equal epochs.
With small images first ten epochs take as long as six at 32 pixels. The shift costs in ten epochs; whether it pays in
36, where the network overfits, `--variant no-shift` would tell. The flips alternate: which way round an image begins is
drawn once, and every epoch turns it.

**The paper's recipe beside ours.**

| | paper (section 5) | ours, CIFAR-100 |
|---|---|---|
| batch, momentum | 128, 0.9 | 128, 0.9 (Nesterov) |
| rate | 0.01, divided by 10 three times | triangular, peak 0.2 |
| weight decay | 0.0005 | 0.0005, none on biases and norms |
| epochs | about 90 | 36 |
| initialization | deviation 0.01, biases 1 in five layers, else 0 | PyTorch's, batch norm |
| at test time | ten views averaged | one; with flips two |

**The paper's blocks in our recipe** are the variant `paper`: no batch norm, LRN, dropout 0.5, He's initialization, the
best of three rates in a short search (below), 12 epochs. Blocks, rate and epochs differ from ours all at once, so its
result tells what such a training gives, and of no single block what it is worth.

**LRN as a division.** LRN divides by (k + alpha sum a^2)^beta. Where the sum is small that is c = k^beta. For the layer
after it, dividing its input by c is the same as dividing its weights W by c: it applies V = W / c. The gradient reaches W
divided by c, and a step of W reaches V divided by c again. So V learns as if its rate were divided by c^2, about 2.8,
from an initialization divided by c, while weight decay takes the same share of it."""


def run(variant: str, seed: int) -> dict:
    """The result of a variant and seed, from the ledger where it is there, else trained now."""
    key = f"alexnet-cifar100-cpu-{variant}"
    version = recipe("alexnet", "cifar100", "cpu", variant)["version"]
    for record in ledger.recorded(key):
        if (record["seed"], record["recipe"]["version"]) == (seed, version):
            return record
    print(f"== {variant}, seed {seed}", flush=True)
    return train("alexnet", "cifar100", variant, seed, record=True)


def difference(of: str, against: str) -> dict:
    """Validation top-1 of `of` minus that of `against`, in points: mean and range over the seeds, seed by seed.

    Stops where the runs are not of one precision.
    """
    pairs = [(run(of, seed), run(against, seed)) for seed in SEEDS]
    precisions = {record["precision"] for pair in pairs for record in pair}
    if len(precisions) > 1:
        sys.exit(
            f"{of} and {against} ran in {' and '.join(sorted(precisions))}; expected one precision. "
            f"Delete the results of one of them from data/results/ and run both on one machine."
        )
    points = [100 * (a["val"]["top1"] - b["val"]["top1"]) for a, b in pairs]
    mean = statistics.mean(points)
    return {
        "points": mean,
        "low": min(points),
        "high": max(points),
        "precision": precisions.pop(),
        "of_minutes": statistics.mean(a["minutes"] for a, _ in pairs),
        "against_minutes": statistics.mean(b["minutes"] for _, b in pairs),
        "of_top1": statistics.mean(a["val"]["top1"] for a, _ in pairs),
        "against_top1": statistics.mean(b["val"]["top1"] for _, b in pairs),
    }


def spread(variants: Iterable[str]) -> float:
    """How much a run varies from seed to seed, in points: the deviation, pooled over variants."""
    values = [[100 * run(variant, seed)["val"]["top1"] for seed in SEEDS] for variant in variants]
    return math.sqrt(statistics.mean(statistics.variance(v) for v in values))


def judge(out: dict) -> None:
    """Add the pooled spread, and to each row the standard error of its points and a verdict.

    A run with a constant rate varies far more than the others: it counts with its own spread.
    """
    rows = out["levers"] | out["claims"]
    variants = {"short"} | set(rows) | {row["against"] for row in out["claims"].values()}
    out["spread"] = spread(sorted(variants - {WILD}))
    for name, row in rows.items():
        own = spread([name]) if name == WILD else out["spread"]
        row["error"] = math.sqrt((own**2 + out["spread"] ** 2) / len(SEEDS))
        row["verdict"] = "differs" if abs(row["points"]) >= 2 * row["error"] else "not distinguished"


def speed(found: dict) -> dict:
    """Images/s of one plain training loop at 32 pixels, from the usual code to ours; `found` if it is this machine's.

    The usual code is the faster of no and two workers. ratio: to the step before.
    """
    here = {"machine": ledger.machine(), "precision": settings.precision()}
    if {key: found.get(key) for key in here} == here:
        return found
    values = recipe("alexnet", "cifar100", "cpu")
    network = {"num_classes": 100, "in_channels": 3, **values["network"]}
    loaders = make_loaders("cifar100", BATCH, shift=3, flip="alternating")
    mean, std = loaders.train.mean, loaders.train.std
    few = take(loaders.train.arrays, np.arange(STEPS * BATCH), complete=False)
    fast = TensorLoader(few, BATCH, train=True, shift=3, flip="alternating", mean=mean, std=std)
    epochs = itertools.chain.from_iterable(itertools.repeat(fast))
    plain = ((x.contiguous(), y) for x, y in epochs)

    def rate(batches, **how):
        net = MODELS["alexnet"](**network)
        return statistics.median(usual_loop(net, batches, STEPS, **how) for _ in range(ROUNDS))

    precision, last = here["precision"], torch.channels_last
    rows = {
        "torchvision's set, PIL pictures, DataLoader": max(rate(b) for b in usual_loaders(mean, std)),
        "the set as one tensor on the device": rate(plain),
        "channels_last": rate(epochs, layout=last),
    }
    if precision != "float32":
        rows[precision] = rate(epochs, layout=last, precision=precision)
    steps, before = [], None
    for name, images in rows.items():
        steps.append({"step": name, "images_per_second": round(images), "ratio": images / (before or images)})
        before = images
    return here | ledger.today_and_commit() | {"steps": steps}


def lrn_divisors(found: list[float]) -> list[float]:
    """The smallest and largest number by which LRN divides in plain-lrn's network, seed 0, on 500 validation pictures.

    `found` where the network is not here: only the runs/ of its training have it.
    """
    try:
        model = ledger.load_weights("alexnet-cifar100-cpu-plain-lrn-s0")
    except FileNotFoundError:
        return found
    x, _ = next(iter(make_loaders("cifar100", BATCH).val))  # (500, 3, 32, 32)
    divisors = []
    with torch.inference_mode():
        for block in ("conv1", "conv2"):
            before, after = (feature_maps(model, x, f"{block}.{layer}") for layer in (1, 2))  # (500, C, S, S)
            divisors.append((before / after)[before > 1e-3])
    divisors = torch.cat(divisors)
    return [divisors.min().item(), divisors.max().item()]


def rows_of(title: str, rows: dict) -> list[str]:
    """A table of differences."""
    lines = ["", f"| {title} | points | standard error | verdict | range over the seeds | precision |"]
    lines.append("|" + "---|" * 6)
    for name, row in rows.items():
        lines.append(
            f"| {row.get('name', name)} | {row['points']:+.2f} | {row['error']:.2f} | {row['verdict']} "
            f"| {row['low']:+.2f} to {row['high']:+.2f} | {row['precision']} |"
        )
    return lines


def table(out: dict) -> str:
    """alexnet.md."""
    whole = next(iter(out["levers"].values()))["of_top1"]
    lines = [
        f"AlexNet on CIFAR-100, {out['epochs']} epochs, validation top-1, {len(SEEDS)} seeds: {100 * whole:.2f} % with "
        f"every part of the recipe. A run varies by {out['spread']:.2f} points from seed to seed (pooled over all runs "
        "but those with a constant rate, which vary more). All rows of a table share their two runs to compare with.",
        *rows_of("part of the recipe: what it buys", out["levers"]),
        *rows_of("without batch norm, lr 0.05 for all: what a change adds", out["claims"]),
        "",
        NOTES,
    ]
    if out["lrn_divisors"]:
        low, high = out["lrn_divisors"]
        lines += [
            "",
            f"plain-lrn, trained: its LRN divides by {low:.3f} to {high:.3f}; $k^\\beta$ is {2**0.75:.3f}.",
        ]
    lines += ["", "| the training loop at 32 pixels | images/s | times the line above |", "|" + "---|" * 3]
    loop = out["speed"]
    for row in loop["steps"]:
        lines.append(f"| {row['step']} | {row['images_per_second']:,} | {row['ratio']:.2f} |")
    machine = loop["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, {loop['date']}"
    lines += ["", f"The loop: {where}, median of {ROUNDS} rounds of {STEPS} batches of {BATCH}."]
    return "\n".join([*lines, "Machine and date of each training: data/results/.", ""])


def draw(levers: list[dict], file) -> None:
    """What each lever bought, with the range over the seeds."""
    rows = sorted(levers, key=lambda row: row["points"])
    title = "What each part of the recipe buys on a short schedule"
    with plots.figure(title, size=(7.5, 4.2), file=file) as ax:
        for i, row in enumerate(rows):
            ax.barh(i, row["points"], color=plots.GREY if row["verdict"] != "differs" else plots.BLUE)
            ax.errorbar(row["points"], i, xerr=2 * row["error"], color="black", capsize=3)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
        ax.set_xlabel("points of validation top-1\nblack: two standard errors; grey: not distinguished")


def main() -> None:
    """Measure and train what is missing."""
    matplotlib.use("Agg")
    os.environ["CI"] = "1"
    os.environ["COURSE_PROFILE"] = "cpu"
    file = ledger.folder("benchmarks") / "alexnet.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    out = {"epochs": recipe("alexnet", "cifar100", "cpu", "short")["epochs"]}
    out |= {part: found.get(part, {}) for part in ("levers", "claims", "search", "lrn_divisors", "speed")}
    out["speed"] = speed(out["speed"])
    ledger.write_json(out, file)
    out["search"] = [{"variant": name, "top1": run(name, 0)["val"]["top1"]} for name in SEARCH]
    for name, text in LEVERS.items():
        out["levers"][name] = {"name": text} | difference("short", name)
        judge(out)
        ledger.write_json(out, file)
    draw(list(out["levers"].values()), file.with_suffix(".png"))
    for name, base in CLAIMS.items():
        out["claims"][name] = {"against": base} | difference(name, base)
        if name == "plain-lrn":
            out["lrn_divisors"] = lrn_divisors(out["lrn_divisors"])
        judge(out)
        ledger.write_json(out, file)
        file.with_suffix(".md").write_text(table(out), encoding="utf-8")


if __name__ == "__main__":
    main()
