"""Five optimizers compared fairly, schedules, batch norm, random search against grid: what lesson 02 reads.

python benchmarks/optimizers.py [PART ...]   writes optimizers.json and optimizers.md after each part and leaves out
                                             what is there; named parts are run anew; some minutes on one core
Task: an MLP 196-64-64-10 reads MNIST at 14 x 14 pixels; 10,000 training images, 3 epochs, batch 64, float32, NumPy.
Judged by the validation loss (5,000 images). Each side is run at every declared rate with the seeds CHOOSE, the rate
with the smallest mean loss is its own, and at it the seeds REPORT are measured on 10,000 images that chose nothing.
Only the rate is tuned: momentum is 0.9, Adam's and RMSprop's betas are torch's defaults. The test set is not read.
A run that broke (its loss is not finite) counts as worst; the file holds null for it, and for a mean that contains it.
`origins` says for each part at which commit and on which machine it was run.
"""

import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np

from course_utils import ledger
from course_utils.data import Arrays, load_arrays, validation_split
from course_utils.from_scratch.nn import (
    BatchNorm,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    logits,
    train,
)
from course_utils.from_scratch.optim import SGD, Adam, RMSprop, cosine, one_cycle, step_decay, warm_up

RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
CHOOSE, REPORT, AGAIN = range(3), range(3, 11), range(11, 27)
EPOCHS, BATCH, TRIALS, SIDE, DRAWS = 3, 64, 16, 4, range(10)
BOX = ((-3.0, 0.0), (-6.0, -2.0))  # log10 of the learning rate and of the weight decay
momentum = functools.partial(SGD, momentum=0.9)
OPTIMIZERS = {
    "SGD": SGD,
    "momentum": momentum,
    "Nesterov": functools.partial(SGD, momentum=0.9, nesterov=True),
    "RMSprop": RMSprop,
    "Adam": Adam,
}


def fall(t: int, steps: int) -> float:
    """1, then in a line almost to 0 over the last fifth of the steps."""
    return min(1, (steps - t) / (0.2 * steps))


SCHEDULES = {"warm-up": warm_up, "step": step_decay, "cosine": cosine, "one-cycle": one_cycle}


def small_rows(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Images at half their side as rows of 196 numbers, about of mean 0 and deviation 1; labels."""
    x = arrays.images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)
    return ((x / 255 - 0.13) / 0.3).astype(np.float32), arrays.labels


@functools.cache
def sets() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Training, validation and report: images as rows, labels."""
    rest, validation = validation_split(load_arrays("mnist", "train"))
    x, y = small_rows(rest)
    return (x[:10_000], y[:10_000]), small_rows(validation), (x[10_000:20_000], y[10_000:20_000])


def network(seed: int, norm: bool = False) -> Sequential:
    """The MLP, with batch norm before each ReLU where `norm`."""
    rng, layers = np.random.default_rng(seed), []
    for inputs in (196, 64):
        layers += [Linear(inputs, 64, rng), *([BatchNorm(64)] if norm else []), ReLU()]
    return Sequential(*layers, Linear(64, 10, rng))


def scores(net: Sequential, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Loss (infinite where it is no number) and top-1."""
    z = logits(net, x)  # (N, 10)
    loss = float(SoftmaxCrossEntropy().forward(z, y))
    return {"loss": loss if math.isfinite(loss) else math.inf, "top1": float((z.argmax(axis=1) == y).mean())}


def run(optimizer: Callable, lr: float, seed: int, report: bool = False, norm: bool = False, epochs: int = EPOCHS,
        **how) -> dict:  # fmt: skip
    """Train at this rate; scores on validation (or the report's images), and the loss of each twentieth of the steps."""
    (x, y), validation, held_out = sets()
    net = network(seed, norm)
    history = train(net, optimizer(lr), x, y, epochs, BATCH, seed, **how)
    curve = [float(part.mean()) for part in np.array_split(history["loss"], 20)]
    return scores(net, *(held_out if report else validation)) | {"curve": curve}


def side(optimizer: Callable, rates: Iterable[float] = RATES, **how) -> dict:
    """One side of a comparison: its losses at every rate, its own rate, and what that gives on the report's seeds."""
    found = {lr: [run(optimizer, lr, seed, **how) for seed in CHOOSE] for lr in rates}
    mean = {lr: statistics.mean(r["loss"] for r in runs) for lr, runs in found.items()}
    best = min(mean, key=mean.get)
    out = {"rates": list(found), "loss": [[r["loss"] for r in runs] for runs in found.values()]}
    out |= {"mean": list(mean.values()), "curve": [runs[0]["curve"] for runs in found.values()]}
    return out | {"at_edge": best in (min(rates), max(rates))} | final(optimizer, best, **how)


def final(optimizer: Callable, lr: float, seeds: Iterable[int] = REPORT, **how) -> dict:
    """Loss and top-1 of these seeds on the report's images at this rate, their means and deviations."""
    runs, out = [run(optimizer, lr, seed, report=True, **how) for seed in seeds], {"best": lr}
    for key in ("loss", "top1"):
        values = [r[key] for r in runs]
        out[f"final_{key}"], out[f"final_{key}_mean"] = values, statistics.mean(values)
        out[f"final_{key}_sd"] = statistics.stdev(values)
    return out


def against_best(sides: dict[str, dict]) -> dict[str, dict]:
    """Adds to each side how far its final loss lies above the smallest, in losses and in standard errors."""
    best = min(sides.values(), key=lambda s: s["final_loss_mean"])
    for s in sides.values():
        s["above"] = s["final_loss_mean"] - best["final_loss_mean"]
        error = math.hypot(s["final_loss_sd"], best["final_loss_sd"]) / math.sqrt(len(s["final_loss"]))
        s["errors"] = s["above"] / error
    return sides


def optimizers() -> dict:
    """Each optimizer, constant rate."""
    return against_best({name: side(optimizer) for name, optimizer in OPTIMIZERS.items()})


def stored() -> dict:
    """What the file holds, {} without one."""
    file = ledger.folder("benchmarks") / "optimizers.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def safer() -> dict:
    """Each optimizer at the declared rate below its own, on the report's seeds.

    Added after the first run, in which SGD's own rate, the best on three seeds, failed on some of the others.
    """
    own = stored()["optimizers"]
    rates = {name: RATES[RATES.index(own[name]["best"]) - 1] for name in OPTIMIZERS}
    return against_best({name: final(OPTIMIZERS[name], lr) for name, lr in rates.items()})


def cycle() -> dict:
    """Each optimizer under one cycle. Added after the first run: the end of a constant rate is a lottery."""
    return against_best({name: side(make, schedule=one_cycle) for name, make in OPTIMIZERS.items()})


def cycle_again() -> dict:
    """The five under one cycle at their own rates, on 16 more seeds. Added after `cycle`, whose first was so narrowly."""
    own = stored()["cycle"]
    sides = {name: final(f, own[name]["best"], AGAIN, schedule=one_cycle) for name, f in OPTIMIZERS.items()}
    return against_best(sides)


def ends() -> dict:
    """SGD at its own constant rate, with only the cycle's rise, and with only a fall in the last fifth of the steps.

    Added after `cycle`, to see which part of it helps SGD.
    """
    lr = stored()["optimizers"]["SGD"]["best"]
    parts = {"constant": {}, "rise": {"schedule": functools.partial(warm_up, share=0.2)}}
    return against_best(
        {name: final(SGD, lr, **how) for name, how in (parts | {"fall": {"schedule": fall}}).items()}
    )


def schedules() -> dict:
    """Momentum under each schedule, at its own peak rate; with the constant one for comparison."""
    sides = {"constant": side(momentum)}
    return against_best(sides | {name: side(momentum, schedule=f) for name, f in SCHEDULES.items()})


def falls() -> dict:
    """Momentum under falls that come later than `step`'s or stop above zero, with `step` and `cosine` for comparison.

    Added after `schedules`, to see why `step` helps less than `cosine`, and after `ends`, for momentum beside SGD.
    """
    known = {name: stored()["schedules"][name] for name in ("step", "cosine")}
    shapes = {
        "late-step": functools.partial(step_decay, times=(0.8, 0.9)),
        "held-cosine": lambda t, steps: max(0.01, cosine(t, steps)),
        "last-fifth": fall,
    }
    return against_best(known | {name: side(momentum, schedule=f) for name, f in shapes.items()})


def batch_norm() -> dict:
    """Plain SGD with and without batch norm."""
    return against_best({"without": side(SGD), "with": side(SGD, norm=True)})


def batch_norm_cycle() -> dict:
    """The same under one cycle. Added after the first run, like `cycle`; two larger rates after 3 was the best."""
    how = {"rates": (*RATES, 10.0, 30.0), "schedule": one_cycle}
    return against_best({"without": side(SGD, **how), "with": side(SGD, norm=True, **how)})


def search() -> dict:
    """Learning rate and weight decay of momentum in one epoch: a 4 x 4 grid against 16 random trials, ten times.

    The grid's points are the centres of 4 x 4 equal cells of the box of logarithms; random trials are uniform in it.
    Repeat i uses seed i for the networks and for the draws. What each finds is judged by the report's images.
    """
    low, high = np.array(BOX).T
    cells = (np.stack(np.meshgrid(*[np.arange(SIDE)] * 2), -1).reshape(-1, 2) + 0.5) / SIDE  # (16, 2)
    out = {"grid": [], "random": []}
    for seed in DRAWS:
        for name, places in (("grid", cells), ("random", np.random.default_rng(seed).random((TRIALS, 2)))):
            trials = []
            for lr, decay in 10 ** (low + places * (high - low)):
                how = {"epochs": 1, "lr": lr, "seed": seed}
                optimizer = functools.partial(momentum, weight_decay=decay)
                trials.append({"lr": lr, "decay": decay, "loss": run(optimizer, **how)["loss"]})
            best = min(trials, key=lambda t: t["loss"])
            final = run(
                functools.partial(momentum, weight_decay=best["decay"]), best["lr"], seed, True, epochs=1
            )
            out[name].append({"trials": trials, "best": best, "final": final["loss"]})
    finals = {name: [r["final"] for r in out[name]] for name in ("grid", "random")}
    out["random_wins"] = sum(r < g for r, g in zip(finals["random"], finals["grid"], strict=True))
    for name, values in finals.items():
        out[f"{name}_mean"], out[f"{name}_sd"] = statistics.mean(values), statistics.stdev(values)
    return out | {"repeats": len(DRAWS), "trials": TRIALS}


PARTS = {
    work.__name__: work
    for work in (optimizers, safer, cycle, cycle_again, ends, schedules, falls, batch_norm, batch_norm_cycle)
}


def strict(value: object) -> object:
    """The same with None for each number that is not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: strict(part) for key, part in value.items()}
    if isinstance(value, list):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(out: dict) -> str:
    """optimizers.md."""
    lines = [f"Rate chosen on {len(CHOOSE)} seeds by validation loss; means over {len(REPORT)} other seeds"]
    lines[0] += f" ({len(AGAIN)} in `cycle again`), 10,000 other images."
    lines[0] += " Errors: the difference from the smallest loss in standard errors.\n"
    for part in PARTS:
        if part in out:
            lines += [
                f"| {part.replace('_', ' ')} | own rate | loss | sd | top-1 | errors |",
                "|---|---|---|---|---|---|",
            ]
            for name, s in out[part].items():
                edge = " (edge)" if s.get("at_edge") else ""
                lines += [
                    f"| {name} | {s['best']:g}{edge} | {s['final_loss_mean']:.4f} | {s['final_loss_sd']:.4f} "
                ]
                lines[-1] += f"| {s['final_top1_mean']:.2%} | {s['errors']:.1f} |"
            lines += [""]
    if part := out.get("search"):
        lines += [
            f"Best of {TRIALS}, {part['repeats']} repeats: grid {part['grid_mean']:.4f} (sd {part['grid_sd']:.4f}),"
        ]
        lines[-1] += f" random {part['random_mean']:.4f} ({part['random_sd']:.4f}); random is better in "
        lines[-1] += f"{part['random_wins']} repeats.\n"
    where = {}
    for name, origin in out["origins"].items():
        cpu, version = origin["machine"]["cpu"], origin["machine"]["numpy"]
        line = f"{cpu}; NumPy {version}; commit {origin['commit']}, {origin['date']}"
        where.setdefault(line, []).append(name.replace("_", " "))
    return "\n".join([*lines, *(f"{line}: {', '.join(names)}." for line, names in where.items()), ""])


def main() -> None:
    """Measure what is asked for or lacking; write after each part."""
    np.seterr(all="ignore")  # too large a rate ends in NaN: that is a result
    works = PARTS | {"search": search}
    file, out = ledger.folder("benchmarks") / "optimizers.json", stored()
    origin = {"machine": ledger.machine() | {"numpy": np.__version__}, **ledger.today_and_commit()}
    for name in sys.argv[1:] or [name for name in works if name not in out]:
        began = time.perf_counter()
        out["origins"] = out.get("origins", {}) | {name: origin}
        out[name] = strict(works[name]())
        print(f"{name}, {time.perf_counter() - began:.0f} s", flush=True)
        ledger.write_json(out, file)
        file.with_suffix(".md").write_text(table(out), encoding="utf-8")
    print(table(out))


if __name__ == "__main__":
    main()
