"""The papers' claims, compared as benchmarks/tables.py declares: runs what is missing, judges, writes.

python benchmarks/claims.py vgg --list            what would run
python benchmarks/claims.py vgg                   one run a core, each with one thread; stop it and start it anywhere
python benchmarks/claims.py vgg --workers 12      so many processes on one graphics card
python benchmarks/claims.py vgg --out FOLDER      writes there, on another machine, whose runs are then taken over by
python benchmarks/claims.py vgg --merge FOLDER

Every run goes to data/results/claims-NETWORK.json at once; after each comparison benchmarks/claims-NETWORK.json, .md and
.png follow. Each side runs at its own best of three learning rates, chosen on seed 100, which then does not count. A
difference is measured on seeds 0, 1, 2, then more until its standard error is below 0.4 points or an hour is over. It
"differs" from two standard errors on. Runs of one comparison have one precision and one kind of device. Seconds of runs
side by side are no claim about speed.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

from one_run import worker
from tables import BASE, TABLES

from course_utils import ledger, settings
from course_utils.data import load_arrays

TUNING, SEEDS, MOST, ENOUGH, HOUR = 100, (0, 1, 2), 10, 0.4, 3600


def spec(network: str, comparison: dict, side: str) -> dict:
    """Every value of a side's training but the learning rate and the seed, as JSON has it."""
    values = BASE | {"model": network} | comparison["recipe"] | comparison["sides"][side]
    values.pop("rates", None)
    values |= {"trace": comparison["trace"]} if "trace" in comparison else {}
    return json.loads(json.dumps(values))


def name(values: dict) -> str:
    """Eight hex digits for a spec."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def precision(comparison: dict) -> str:
    """In which a comparison computes on this machine."""
    return settings.precision(comparison.get("precision", "auto"))


def rates(comparison: dict, side: str) -> tuple[float, ...]:
    """The learning rates that a side may choose from."""
    return comparison["sides"][side].get("rates") or comparison["rates"]


def points(comparison: dict, run: dict) -> float:
    """What a comparison measures in one run, in points."""
    if comparison["measure"] == "training error":
        return 100 * (1 - run["train"][-1])
    return 100 * run["validation"][-1]


class Runs:
    """The runs of one network: data/results/claims-NETWORK.json, in memory and on the disk."""

    def __init__(self, network: str, out: Path | None):
        home = ledger.folder("results") / f"claims-{network}.json"
        self.network, self.file = network, out / "results" / home.name if out else home
        self.all = {"specs": {}, "machines": {}, "runs": []}
        for file in dict.fromkeys((home, self.file)):
            self.take(file)

    def take(self, file: Path) -> int:
        """Add the runs of a file, but those that are here; how many."""
        if not file.is_file():
            return 0
        other = json.loads(file.read_text(encoding="utf-8"))
        known = {self.key(run) for run in self.all["runs"]}
        new = [run for run in other["runs"] if self.key(run) not in known]
        self.all["specs"] |= other["specs"]
        self.all["machines"] |= other["machines"]
        self.all["runs"] += new
        return len(new)

    @staticmethod
    def key(run: dict) -> tuple:
        """What tells one run from another."""
        return run["spec"], run["lr"], run["seed"]

    def write(self) -> None:
        """The file, whole or not at all; a line a run."""
        parts = [f'"{part}": {json.dumps(self.all[part])}' for part in ("specs", "machines")]
        parts.append('"runs": [\n' + ",\n".join(map(json.dumps, self.all["runs"])) + "\n]")
        with settings.whole(self.file) as part:
            part.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")

    def of(self, comparison: dict, side: str) -> list[dict]:
        """The runs of a side."""
        wanted = name(spec(self.network, comparison, side))
        return [run for run in self.all["runs"] if run["spec"] == wanted]

    def kinds(self, comparison: dict) -> set[tuple[str, str]]:
        """Precision and device of a comparison's runs."""
        runs = [run for side in comparison["sides"] for run in self.of(comparison, side)]
        return {(run["precision"], run["device"]) for run in runs}

    def best(self, comparison: dict, side: str) -> float | None:
        """The learning rate with the best result on seed 100; None before there is one."""
        tried = [run for run in self.of(comparison, side) if run["seed"] == TUNING]
        tried = [run for run in tried if run["lr"] in rates(comparison, side)]
        sign = 1 if comparison["measure"] == "training error" else -1
        return min(tried, key=lambda run: sign * points(comparison, run))["lr"] if tried else None

    def counted(self, comparison: dict, side: str) -> list[dict]:
        """The runs that count: at the side's best rate, by seed, without seed 100."""
        lr = self.best(comparison, side)
        runs = [run for run in self.of(comparison, side) if run["lr"] == lr and run["seed"] != TUNING]
        return sorted(runs, key=lambda run: run["seed"])


def difference(comparison: dict, of: list[dict], against: list[dict]) -> dict | None:
    """Mean of `of` minus mean of `against` in points, its standard error, a verdict; None below two runs a side."""
    if min(len(of), len(against)) < 2:
        return None
    a, b = ([points(comparison, run) for run in side] for side in (of, against))
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    mean = statistics.mean(a) - statistics.mean(b)
    differs = abs(mean) >= 2 * error and mean != 0
    return {"points": mean, "error": error, "verdict": "differs" if differs else "not distinguished"}


def lacking(runs: Runs, comparison: dict, failed: set) -> list[tuple]:
    """The jobs (side, lr, seed) that a comparison needs next: rates first, then seeds, then more seeds where unsure."""
    jobs, first = [], comparison.get("seeds", SEEDS)

    def add(side, lrs, seeds):
        wanted = name(spec(runs.network, comparison, side))
        done = {(run["lr"], run["seed"]) for run in runs.of(comparison, side)}
        done |= {(lr, seed) for key, lr, seed in failed if key == wanted}
        new = [(side, lr, seed) for seed in seeds for lr in lrs if (lr, seed) not in done]
        jobs.extend(new)
        return bool(new)

    for side in comparison["sides"]:
        if comparison.get("every_rate"):
            add(side, rates(comparison, side), first)
        elif not add(side, rates(comparison, side), (TUNING,)):
            lr = runs.best(comparison, side)
            add(side, (lr,) if lr else (), first)
    if jobs or comparison.get("every_rate"):
        return jobs
    spent = sum(
        r["seconds"] / r["workers"] for side in comparison["sides"] for r in runs.of(comparison, side)
    )
    for pair in comparison["pairs"] if spent < HOUR else ():
        found = difference(comparison, *(runs.counted(comparison, side) for side in pair))
        if found and found["error"] >= ENOUGH:
            seed = min(len(runs.counted(comparison, side)) for side in pair)
            for side in pair if seed < comparison.get("most", MOST) else ():
                add(side, (runs.best(comparison, side),), (seed,))
    return list(dict.fromkeys(jobs))


def waiting(runs: Runs, comparisons: tuple, failed: set, busy: set) -> list[tuple]:
    """All jobs that can start now, in the order of the table: (comparison, side, lr, seed, key)."""
    here, jobs = settings.device().type, {}
    for comparison in comparisons:
        if runs.kinds(comparison) - {(precision(comparison), here)}:
            continue
        for side, lr, seed in lacking(runs, comparison, failed):
            key = (name(spec(runs.network, comparison, side)), lr, seed)
            if key not in busy:
                jobs.setdefault(key, (comparison, side, lr, seed, key))
    return list(jobs.values())


def start(core: int | None):
    """A worker: its process and our end of its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=worker, args=(theirs, core), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def work(runs: Runs, comparisons: tuple, workers: int, deadline: float, commit: str | None) -> None:
    """Keep the workers busy until nothing is missing or no time is left; store each run as it ends."""
    here = settings.device().type
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    about = (
        {"device": here, "workers": workers}
        | ledger.today_and_commit()
        | ({"commit": commit} if commit else {})
    )
    machine = ledger.machine() | {"cores": os.cpu_count()}
    about["machine"] = name(machine)
    runs.all["machines"][about["machine"]] = machine
    place = [None if here == "cuda" else cores[i % len(cores)] for i in range(workers)]
    pool = {i: start(core) for i, core in enumerate(place)}
    doing, failed, done, deaths = {}, set(), 0, 0
    began = time.monotonic()
    while True:
        for i in pool:
            if i in doing or time.monotonic() > deadline or deaths > 2 * workers:
                continue
            jobs = waiting(runs, comparisons, failed, {job[-1] for job in doing.values()})
            if not jobs:
                break
            comparison, side, lr, seed, _ = doing[i] = jobs[0]
            pool[i][1].send((spec(runs.network, comparison, side), lr, seed, precision(comparison)))
        if not doing:
            break
        for pipe in wait([pool[i][1] for i in doing], timeout=60):
            i = next(i for i in doing if pool[i][1] is pipe)
            comparison, side, lr, seed, key = doing.pop(i)
            try:
                said, record = pipe.recv()
            except (EOFError, OSError):
                said, record, deaths = "failed", "its process died", deaths + 1
                pool[i] = start(place[i])
            minutes = (time.monotonic() - began) / 60
            if said == "failed":
                failed.add(key)
                print(
                    f"{minutes:5.1f} FAILED {comparison['name']}: {side}, lr {lr:g}, seed {seed}: {record}",
                    flush=True,
                )
                continue
            done += 1
            runs.all["specs"][key[0]] = spec(runs.network, comparison, side)
            runs.all["runs"].append(
                {"spec": key[0], "lr": lr, "seed": seed, "precision": precision(comparison)} | about | record
            )
            runs.write()
            print(
                f"{minutes:5.1f} {done:3} {comparison['name']}: {side}, lr {lr:g}, seed {seed}: "
                f"{points(comparison, runs.all['runs'][-1]):.2f} ({record['seconds']:.0f} s)",
                flush=True,
            )
            if not lacking(runs, comparison, failed):
                try:
                    write_summary(runs)
                except Exception as error:  # a figure must not end the trainings
                    print(f"no summary: {type(error).__name__}: {error}", flush=True)
    for process, pipe in pool.values():
        pipe.close()
        process.join(5)
        process.kill()


def summary(runs: Runs, comparison: dict) -> dict:
    """One comparison: its sides and pairs, with what was measured."""
    sides = {}
    for side in comparison["sides"]:
        if comparison.get("every_rate"):
            groups = {f"{side}, lr {lr:g}": lr for lr in rates(comparison, side)}
            counted = {k: [r for r in runs.of(comparison, side) if r["lr"] == lr] for k, lr in groups.items()}
        else:
            groups, counted = {side: runs.best(comparison, side)}, {side: runs.counted(comparison, side)}
        for title, lr in groups.items():
            if not (these := counted[title]):
                continue
            values = [points(comparison, run) for run in these]
            edge = lr in (min(rates(comparison, side)), max(rates(comparison, side)))
            sides[title] = {
                "lr": lr,
                "at_the_edge": edge and not comparison.get("every_rate"),
                "seeds": [run["seed"] for run in these],
                "points": [round(v, 3) for v in values],
                "mean": statistics.mean(values),
                "sd": statistics.stdev(values) if len(values) > 1 else None,
                "left_chance": [run["left_chance"] for run in these],
                "diverged": sum(run["diverged"] for run in these),
                "parameters": these[0]["parameters"],
                "trace": these[0].get("trace"),
                "loss_by_20_steps": these[0].get("loss_by_20_steps"),
            }
    pairs = []
    for of, against in comparison["pairs"]:
        found = difference(comparison, runs.counted(comparison, of), runs.counted(comparison, against))
        if found:
            pairs.append({"of": of, "against": against} | found)
    keys = ("question", "measure", "paper")
    facts = {key: comparison[key] for key in keys} | {"recipe": BASE | comparison["recipe"]}
    kinds = sorted(runs.kinds(comparison))
    return facts | {"precision_and_device": list(kinds[0]) if kinds else None, "sides": sides, "pairs": pairs}


def first_step(trace: dict | None) -> str:
    """What a trace keeps of step 1, in one cell: spread, gradient norm, and what the logits and the heads give alone."""
    if not trace:
        return ""
    kept = trace["1"]
    words = f"{kept['spread']:.2g}, {next(iter(kept['gradients'].values())):.2g}"
    if "heads_at_stem" in kept:
        words += f" (logits {kept['logits_at_stem']:.2g}, heads {kept['heads_at_stem']:.2g})"
    return words


def table(network: str, found: dict) -> str:
    """claims-NETWORK.md."""
    lines = [f"What benchmarks/claims.py {network} found; declared in benchmarks/tables.py.", ""]
    lines += ["Each side at its best of three learning rates; *: the best lies at the edge of the three.", ""]
    for title, one in found.items():
        if not one["sides"]:
            continue
        kind, device = one["precision_and_device"]
        recipe = ", ".join(f"{key} {value}" for key, value in one["recipe"].items())
        lines += [f"## {title}", "", f"{one['question']} The paper: {one['paper']}.", ""]
        lines += [f"{kind} on {device}; {recipe}.", ""]
        traced = any(row["trace"] for row in one["sides"].values())
        lines += [
            f"| side | {one['measure']}, % | deviation | seeds | lr | left chance at step |"
            + " logits' spread, gradient at the first layer (step 1) |" * traced,
            "|" + "---|" * (6 + traced),
        ]
        for side, row in one["sides"].items():
            sd = "" if row["sd"] is None else f"{row['sd']:.2f}"
            left = ", ".join("never" if step is None else f"{step:,}" for step in row["left_chance"])
            left += f"; {row['diverged']} NaN" if row["diverged"] else ""
            star = "*" if row["at_the_edge"] else ""
            lines.append(
                f"| {side} | {row['mean']:.2f} | {sd} | {len(row['seeds'])} | {row['lr']:g}{star} | {left} |"
                + f" {first_step(row['trace'])} |" * traced
            )
        if one["pairs"]:
            lines += ["", "| of | against | points | standard error | verdict |", "|" + "---|" * 5]
        for row in one["pairs"]:
            lines.append(
                f"| {row['of']} | {row['against']} | {row['points']:+.2f} | {row['error']:.2f} | {row['verdict']} |"
            )
        lines.append("")
    return "\n".join(lines)


def draw(found: dict, file: Path) -> None:
    """A panel a comparison: each run a dot, each side's mean a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from course_utils import plots

    shown = {title: one for title, one in found.items() if one["sides"]}
    heights = [len(one["sides"]) + 2 for one in shown.values()]
    size, ratios = (8, 0.28 * sum(heights) + 0.6), {"height_ratios": heights}
    title = "The papers' claims, measured: each dot is one training"
    with plots.figure(title, len(shown), 1, size, file, squeeze=False, gridspec_kw=ratios) as axes:
        for ax, (name, one) in zip(axes.flat, shown.items(), strict=True):
            for i, row in enumerate(one["sides"].values()):
                ax.plot(row["points"], [i] * len(row["points"]), "o", color=plots.BLUE, markersize=4)
                ax.plot([row["mean"]] * 2, [i - 0.35, i + 0.35], color=plots.RED)
            ax.set_yticks(range(len(one["sides"])), list(one["sides"]))
            ax.invert_yaxis()
            ax.set_title(f"{name}: {one['question']}", fontsize=9, loc="left")
            ax.set_xlabel(f"{one['measure']} (%)")


def draw_traces(found: dict, file: Path) -> None:
    """Loss, spread of the logits and gradient of the first layer by step, for the comparisons that keep them (seed 0)."""
    from course_utils import plots

    shown = {
        title: {side: row for side, row in one["sides"].items() if row["loss_by_20_steps"]}
        for title, one in found.items()
    }
    shown = {title: sides for title, sides in shown.items() if sides}
    if not shown:
        return
    panels = ("cross-entropy (nats)", "spread of the logits", "gradient norm, first layer")
    size = (11, 3.4 * len(shown) + 1)
    with plots.figure(
        "Loss, logits and gradients by step, seed 0", len(shown), 3, size, file, squeeze=False
    ) as axes:
        for row, (title, sides) in zip(axes, shown.items(), strict=True):
            for i, (side, one) in enumerate(sides.items()):
                style = {"color": f"C{i // 2}", "linestyle": ("-", "--")[i % 2], "label": side}
                losses = one["loss_by_20_steps"]
                row[0].plot(
                    [20 * k + 10 for k in range(len(losses))], [v or math.nan for v in losses], **style
                )
                steps = [int(step) for step in one["trace"]]
                first = [next(iter(kept["gradients"].values()), None) for kept in one["trace"].values()]
                spread = [kept["spread"] for kept in one["trace"].values()]
                for ax, values in ((row[1], spread), (row[2], first)):
                    ax.loglog(steps, [v or math.nan for v in values], marker="o", markersize=3, **style)
            for ax, words in zip(row, panels, strict=True):
                ax.set_xlabel("step")
                ax.set_ylabel(words)
            row[0].set_title(title, fontsize=9, loc="left")
            row[0].set_ylim(0, 8)
        names = dict(
            reversed(pair) for row in axes for pair in zip(*row[0].get_legend_handles_labels(), strict=True)
        )
        columns = {"loc": "outside lower center", "ncols": 4 if len(names) > 4 else 2, "fontsize": 8}
        axes[0, 0].figure.legend(names.values(), names.keys(), **columns)


def write_summary(runs: Runs) -> None:
    """JSON, table and figure of all comparisons of the network."""
    found = {one["name"]: summary(runs, one) for one in TABLES[runs.network]}
    out = ledger.folder("benchmarks")
    if runs.file.parent != ledger.folder("results"):
        out = runs.file.parent.parent / "benchmarks"
    file = out / f"claims-{runs.network}.json"
    ledger.write_json({"network": runs.network, "comparisons": found}, file)
    with settings.whole(file.with_suffix(".md")) as part:
        part.write_text(table(runs.network, found), encoding="utf-8")
    if any(one["sides"] for one in found.values()):
        draw(found, file.with_suffix(".png"))
        draw_traces(found, file.with_name(f"claims-{runs.network}-steps.png"))


def mixed(runs: Runs, comparisons: tuple) -> str | None:
    """One line about the first comparison whose runs are of two kinds."""
    for comparison in comparisons:
        if len(kinds := runs.kinds(comparison)) > 1:
            words = " and ".join(sorted(" on ".join(kind) for kind in kinds))
            return f"{comparison['name']}: runs in {words}; expected one precision and one device. Keep one side's runs."
    return None


def listing(runs: Runs, comparisons: tuple) -> str:
    """What would run at least, comparison by comparison."""
    lines = []
    for comparison in comparisons:
        runs_now, epochs = 0, 0
        for side in comparison["sides"]:
            values, have = spec(runs.network, comparison, side), len(runs.of(comparison, side))
            seeds = comparison.get("seeds", SEEDS)
            need = len(rates(comparison, side)) * (len(seeds) if comparison.get("every_rate") else 1)
            need += 0 if comparison.get("every_rate") else len(seeds)
            runs_now += max(0, need - have)
            epochs += max(0, need - have) * (values["epochs"] + values.get("first", {}).get("epochs", 0))
        lines.append(
            f"{comparison['name']}: {runs_now} runs, {epochs} epochs at least; measured: {comparison['measure']}"
        )
    return "\n".join(lines)


def main() -> int | str:
    """The command line; a string is an error's one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=TABLES)
    parser.add_argument("--list", action="store_true", help="print what would run")
    parser.add_argument("--only", help="the comparison of this name alone")
    parser.add_argument("--workers", type=int, help="processes side by side; default: one a core")
    parser.add_argument("--limit-minutes", type=float, default=math.inf, help="start no run after so many")
    parser.add_argument("--out", type=Path, help="write into this folder; default: the checkout")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="take over the runs of these folders (of --out)"
    )
    parser.add_argument("--commit", help="of the code, where git cannot tell")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CI": "1"}
    os.environ["COURSE_PROFILE"] = "cpu"
    deadline = time.monotonic() + 60 * asked.limit_minutes
    runs, comparisons = Runs(asked.network, asked.out), TABLES[asked.network]
    if asked.only:
        comparisons = tuple(one for one in comparisons if one["name"] == asked.only)
    if not comparisons:
        known = ", ".join(one["name"] for one in TABLES[asked.network])
        return f"claims: no comparison {asked.only!r}; expected one of {known}."
    for folder in asked.merge or ():
        print(f"{runs.take(folder / 'results' / runs.file.name)} runs from {folder}")
    if asked.list:
        print(listing(runs, comparisons))
        return 0
    if said := mixed(runs, comparisons):
        return f"claims: {said}"
    if asked.merge:
        runs.write()
    else:
        for data in sorted(
            {spec(asked.network, one, side)["data"] for one in comparisons for side in one["sides"]}
        ):
            load_arrays(data, "train")  # decoded once, before the workers ask for it
        workers = asked.workers or len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0))
        for one in comparisons:
            if runs.kinds(one) - {(precision(one), settings.device().type)}:
                print(
                    f"{one['name']}: its runs are of another precision or device than this machine's; left alone."
                )
        try:
            work(runs, comparisons, workers, deadline, asked.commit)
        except KeyboardInterrupt:
            print("Stopped; the same command goes on.")
    write_summary(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
