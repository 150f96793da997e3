"""The figure of accuracy against minutes: which runs make a point."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def put(folder, variant, seed, top1, minutes, alone):
    stored = json.loads((ROOT / "data/results/resnet-cifar100-cpu-s0.json").read_text(encoding="utf-8"))
    stored |= {"variant": variant, "seed": seed, "minutes": minutes, "alone": alone}
    stored["test"] = stored["test"] | {"top1": top1}
    name = f"resnet-cifar100-cpu{f'-{variant}' if variant else ''}-s{seed}"
    (folder / "data/results" / f"{name}.json").write_text(json.dumps(stored))


def test_minutes_of_a_shared_machine_count_or_its_accuracy_does_not(checkout, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    bench = importlib.import_module("minutes")
    put(checkout, None, 0, 0.70, 15.0, True)
    put(checkout, None, 1, 0.72, 40.0, False)
    put(checkout, "four-minutes", 0, 0.60, 4.0, True)
    put(checkout, "hour", 0, 0.76, 120.0, False)
    bench.main()
    found = json.loads((checkout / "benchmarks/minutes.json").read_text())
    assert [(p["minutes"], p["seeds"]) for p in found["resnet"]] == [(4.0, 1), (15.0, 2)]
    assert [p["top1"] for p in found["resnet"]] == [0.60, pytest.approx(0.71)]
    assert found["others"] == [] and (checkout / "benchmarks/minutes.png").stat().st_size > 10_000
