"""The benchmark of the NumPy package: what it counts, which seeds it trains, in which environment."""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from course_utils import ledger

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/from_scratch.py."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("from_scratch")


@pytest.mark.parametrize(
    "model, shape, parameters, macs",
    [
        ("numpy_mlp", (784,), 784 * 512 + 512 + 512 * 10 + 10, 784 * 512 + 512 * 10),
        ("numpy_cnn", (1, 28, 28), 160 + 4640 + 15690, 16 * 9 * 28**2 + 32 * 144 * 14**2 + 1568 * 10),
    ],
)
def test_a_network_has_other_parameters_or_multiply_adds_than_by_hand(bench, model, shape, parameters, macs):
    net = bench.build(model, bench.RECIPES[model]["network"], np.random.default_rng(0))
    assert sum(w.size for w in net.parameters().values()) == parameters
    assert bench.macs(net, shape) == macs


def test_the_scores_are_not_those_of_scikit_learn(bench):
    rng = np.random.default_rng(0)
    net = bench.Sequential(bench.Linear(5, 10, rng))
    x, y = rng.standard_normal((300, 5)).astype(np.float32), np.arange(300) % 10
    z = x @ net.layers[0].w
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    found = bench.scores(net, x, y)
    assert found["loss"] == pytest.approx(log_loss(y, p), rel=1e-5)
    for k in (1, 5):
        assert found[f"top{k}"] == pytest.approx(top_k_accuracy_score(y, z, k=k))
    assert found["correct"] == round(300 * found["top1"]) and found["total"] == 300


def test_a_seed_is_trained_twice_or_taken_from_another_recipe(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "folder", lambda kind: tmp_path)
    trained = []

    def run(model, seed):
        trained.append(seed)
        result = {
            "recipe": bench.RECIPES[model],
            "seed": seed,
            "test": {"top1": 0.9 + seed / 100, "loss": 0.1},
        }
        result |= {
            "model": model,
            "dataset": "mnist",
            "profile": "cpu",
            "variant": None,
            "history": {},
            "val": {},
        }
        return result | {"minutes": 0.5, "parameters": 7, "macs": 6}

    monkeypatch.setattr(bench, "run", run)
    other = run("numpy_mlp", 1) | {"recipe": bench.RECIPES["numpy_cnn"]}
    ledger.write_json(other, tmp_path / "numpy_mlp-mnist-cpu-s1.json")
    ledger.write_json(run("numpy_mlp", 2), tmp_path / "numpy_mlp-mnist-cpu-s2.json")
    found = bench.record("numpy_mlp")
    assert trained == [1, 2, 0, 1] and found == bench.record("numpy_mlp") and len(trained) == 4
    assert found["top1_mean"] == pytest.approx(0.91) and found["seconds_mean"] == pytest.approx(30)
    assert (
        json.loads((tmp_path / "numpy_mlp-mnist-cpu-s1.json").read_text())["recipe"]
        == bench.RECIPES["numpy_mlp"]
    )


def test_the_slow_kernels_variables_stay_set(bench, monkeypatch):
    seen = []

    def execve(program, arguments, environment):
        seen.append((program, arguments, environment))
        raise InterruptedError

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(sys, "argv", ["from_scratch.py", "epoch"])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("KEPT", "1")
    with pytest.raises(InterruptedError):
        bench.main()
    ((program, arguments, environment),) = seen
    assert (program, arguments) == (sys.executable, [sys.executable, "from_scratch.py", "epoch"])
    assert "OPENBLAS_CORETYPE" not in environment and environment["KEPT"] == "1"
