"""The benchmark of AlexNet's recipe: which runs it takes from the ledger, and what it calls a difference."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from course_utils import ledger, settings
from course_utils.models import MODELS
from course_utils.recipes import recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """benchmarks/alexnet.py with an empty ledger."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("alexnet")
    monkeypatch.setattr(settings, "checkout", lambda: tmp_path)
    return module


def put(variant, seed, top1, precision="bfloat16", version=None):
    values = recipe("alexnet", "cifar100", "cpu", variant)
    record = {"model": "alexnet", "dataset": "cifar100", "profile": "cpu", "variant": variant, "seed": seed}
    record |= {
        "precision": precision,
        "minutes": 4.0 + seed,
        "val": {"top1": top1},
        "test": None,
        "history": {},
    }
    record["recipe"] = values | ({"version": version} if version else {})
    name = ledger.run_name("alexnet", "cifar100", "cpu", variant, seed)
    ledger.write_json(record, ledger.folder("results") / f"{name}.json")


def test_a_run_is_repeated_or_one_of_another_kind_is_taken(bench, monkeypatch):
    trained = []
    monkeypatch.setattr(bench, "train", lambda *asked, record: trained.append((*asked, record)) or "new")
    put("short", 0, 0.6)
    assert bench.run("short", 0)["val"]["top1"] == 0.6 and trained == []
    put("short-no-shift", 0, 0.5, version=1)
    asked = [("short", 1), ("short-no-shift", 0)]
    assert [bench.run(*one) for one in asked] == ["new"] * 2
    assert trained == [("alexnet", "cifar100", *one, True) for one in asked]


def test_a_difference_is_not_that_of_the_pairs_of_seeds(bench):
    for seed, (full, less) in enumerate([(0.60, 0.57), (0.62, 0.60)]):
        put("short", seed, full)
        put("short-no-flip", seed, less)
    found = bench.difference("short", "short-no-flip")
    assert [found[k] for k in ("points", "low", "high")] == pytest.approx([2.5, 2.0, 3.0])
    assert found["verdict"] == "" and found["of_minutes"] == 4.5
    assert (found["of_top1"], found["against_top1"]) == pytest.approx((0.61, 0.585))
    put("short-no-flip", 1, 0.6301)
    assert bench.difference("short", "short-no-flip")["verdict"] == "not distinguished"


def test_runs_of_two_precisions_are_compared(bench):
    for seed in bench.SEEDS:
        put("short", seed, 0.6)
        put("short-no-flip", seed, 0.5, precision="float32")
    with pytest.raises(SystemExit, match="short and short-no-flip ran in bfloat16 and float32"):
        bench.difference("short", "short-no-flip")


def test_a_variant_of_the_benchmark_is_not_in_the_recipes(bench):
    for variant in (*bench.LEVERS, *bench.CLAIMS, *bench.SEARCH):
        recipe("alexnet", "cifar100", "cpu", variant)
    assert len(bench.CLAIMS) * len(bench.SEEDS) <= 12


def test_the_loop_is_timed_twice_on_one_machine_or_taken_from_another(bench, monkeypatch):
    def timed(*args, **kwargs):
        raise InterruptedError

    monkeypatch.setattr(bench, "make_loaders", timed)
    found = {"machine": ledger.machine(), "precision": settings.precision(), "steps": []}
    assert bench.speed(found) is found
    for other in ({}, found | {"precision": "float16"}, found | {"machine": {"cpu": "another"}}):
        with pytest.raises(InterruptedError):
            bench.speed(other)


@pytest.mark.parametrize("size", [1e-2, 1e4])
def test_the_divisors_are_not_those_of_the_layers(bench, monkeypatch, size):
    assert bench.lrn_divisors([1.0, 2.0]) == [1.0, 2.0]
    model = MODELS["alexnet"](width=1 / 8, lrn=True, batch_norm=False)
    few = [(size * torch.randn(4, 3, 20, 20, generator=torch.Generator().manual_seed(0)), None)]
    monkeypatch.setattr(ledger, "load_weights", lambda name: model)
    monkeypatch.setattr(bench, "make_loaders", lambda *args: SimpleNamespace(val=few))
    low, high = bench.lrn_divisors([])
    assert low == pytest.approx(2**0.75, rel=1e-3) if size < 1 else high > 10
    assert low < high
