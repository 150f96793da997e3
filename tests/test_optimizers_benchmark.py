"""The benchmark of lesson 02: how a side's rate is chosen, and what its distance from the best one is."""

import importlib
import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/optimizers.py, which trains nothing here."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("optimizers")


def test_a_rate_is_chosen_by_the_seeds_that_report_or_one_that_breaks_wins(bench, monkeypatch):
    """0.1 is best for the seeds that choose, 0.3 for the others; at 1 one seed in three breaks."""
    asked = []

    def run(optimizer, lr, seed, report=False):
        asked.append((lr, seed, report))
        chooses = seed in bench.CHOOSE
        loss = {0.1: 1.0 if chooses else 5.0 + seed, 0.3: 2.0 if chooses else 1.0, 1.0: 0.1}[lr]
        return {"loss": math.inf if (lr, seed) == (1.0, 1) else loss, "top1": 0.5, "curve": [loss]}

    monkeypatch.setattr(bench, "run", run)
    found = bench.side(None, rates=(0.1, 0.3, 1.0))
    assert found["best"] == 0.1 and found["at_edge"] and found["mean"] == [1.0, 2.0, math.inf]
    assert found["final_loss"] == [5.0 + seed for seed in range(3, 11)]
    assert [call for call in asked if call[2]] == [(0.1, seed, True) for seed in range(3, 11)]
    assert not {seed for _, seed, report in asked if not report} & set(range(3, 11))


def test_a_difference_is_counted_in_one_sides_deviations(bench):
    sides = {
        "a": {"final_loss_mean": 0.2, "final_loss_sd": 0.03, "final_loss": [0.2] * 8},
        "b": {"final_loss_mean": 0.25, "final_loss_sd": 0.04, "final_loss": [0.25] * 8},
    }
    found = bench.against_best(sides)
    assert found["a"]["errors"] == 0
    assert found["b"]["errors"] == pytest.approx(0.05 / (0.05 / math.sqrt(8)))


def test_the_committed_results_lie_at_the_edge_of_what_was_tried(bench):
    out = committed()
    for part in ("optimizers", "cycle", "schedules", "falls", "batch_norm", "batch_norm_cycle"):
        assert not any(side["at_edge"] for side in out[part].values())


def committed():
    """The benchmark's file, read as strict JSON: NaN and Infinity are none."""

    def refuse(constant):
        raise ValueError(f"{constant} in optimizers.json; expected null")

    text = (ROOT / "benchmarks/optimizers.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


def test_the_committed_results_do_not_say_where_each_part_was_run(bench):
    out = committed()
    assert set(out) == {"origins", "search", *bench.PARTS} == {"origins", *out["origins"]}
    assert not any(origin["commit"].endswith("+") for origin in out["origins"].values())


def test_a_run_that_broke_is_written_as_a_number(bench):
    found = bench.strict({"loss": [[1.5, math.inf], [math.nan]], "best": 3, "name": "a"})
    assert found == {"loss": [[1.5, None], [None]], "best": 3, "name": "a"}
