"""The search for recipes: what a trial trains with, and what of it is stored."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils.data import make_loaders
from course_utils.models import MODELS
from course_utils.recipes import recipe

ROOT = Path(__file__).resolve().parents[1]
FOUND = json.loads((ROOT / "benchmarks/search.json").read_text(encoding="utf-8"))


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/search.py."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("search")


def test_a_stored_trial_is_none_of_the_table_or_has_another_network(bench):
    assert len(FOUND) == len(bench.TRIALS) == 39
    shapes = {"cifar100": (100, 3), "cifar10": (10, 3), "fashion": (10, 1)}
    for name, one in FOUND.items():
        assert one["changes"] == json.loads(json.dumps(bench.TRIALS[name]))
        model, data = name.split("-")[:2]
        classes, channels = shapes[data]
        with torch.device("meta"):
            shape = {"num_classes": classes, "in_channels": channels}
            net = MODELS[model](**shape, **bench.values(name, one["changes"])["network"])
        assert one["parameters"] == sum(p.numel() for p in net.parameters())
        for images in (5000 * one["top1"], 5000 * one["top1_flip"]):
            assert images == pytest.approx(round(images))


def test_a_trial_changes_what_it_does_not_name_or_a_recipe_changed_under_a_stored_one(bench):
    """The second part is what all stored trials were run with; a trial names what is no longer its recipe's."""
    ran = {"batch_size": 128, "peak_lr": 0.2, "weight_decay": 5e-4, "label_smoothing": 0.1, "shift": 3}
    ran |= {"flip": "alternating", "limit": None}
    for name, trial in bench.TRIALS.items():
        model, data = name.split("-")[:2]
        base, made = (
            recipe(model, "cifar100" if data == "cifar10" else data, "cpu"),
            bench.values(name, trial),
        )
        assert {key for key in made if made[key] != base.get(key)} <= {*trial, "sizes"}
        network = {key for key in made["network"] if made["network"][key] != base["network"][key]}
        assert network <= set(trial["network"]) and trial["network"].items() <= made["network"].items()
        assert len(made["sizes"]) == trial["epochs"] and made["sizes"][-1] == (
            28 if data == "fashion" else 32
        )
        assert {key: made[key] for key in ran} == ran | {key: trial[key] for key in ran if key in trial}


def test_the_extra_changes_do_nothing(bench, monkeypatch):
    monkeypatch.setattr(bench, "make_loaders", lambda data, **how: make_loaders(data, **how | {"limit": 40}))
    monkeypatch.setenv("COURSE_DATA", str(ROOT / "data"))
    seen = {}

    def fit(net, loader, **how):
        net.train()
        x, y = next(iter(loader))
        watch = net.register_forward_pre_hook(
            lambda _, x: seen.update(zeros=(x[0] == 0).float().mean().item())
        )
        how["criterion"](net(x), y).backward()
        watch.remove()
        seen.update(net=net, bias=net.bn1.bias.grad.clone() if hasattr(net, "bn1") else None)
        return {"top1": [0.5]}

    monkeypatch.setattr(bench, "fit", fit)
    tiny = {"epochs": 1, "network": {"depth": 8, "width": 1 / 2}}
    bench.run("resnet-fashion-x", tiny)
    plain = seen["bias"]
    assert all(block.bn2.weight.min() == 1 for block in seen["net"].layer2) and seen["zeros"] < 0.01
    bench.run("resnet-fashion-x", tiny | {"norm_bias": 16})
    torch.testing.assert_close(seen["bias"], 16 * plain)
    bench.run("resnet-fashion-x", tiny | {"zero_norm": True, "cutout": 16})
    assert all(block.bn2.weight.max() == 0 for block in seen["net"].layer2)
    assert 0.1 < seen["zeros"] < 0.25  # a quarter less what lies outside
    line = bench.run("vgg-fashion-x", {"epochs": 1, "network": {"width": 1 / 8}, "dropout": 0.3})
    dropout, last = seen["net"].classifier
    assert (dropout.p, type(last)) == (0.3, nn.Linear)
    assert {"changes", "top1", "top1_flip", "train_top1", "device", "precision", "date"} <= set(line)


@torch.no_grad()
def test_the_weights_of_the_last_step_are_scored_in_place_of_their_mean(bench, monkeypatch):
    monkeypatch.setattr(bench, "make_loaders", lambda data, **how: make_loaders(data, **how | {"limit": 40}))
    monkeypatch.setenv("COURSE_DATA", str(ROOT / "data"))
    weights = []

    def fit(net, loader, *, optimizer, **how):
        for value in (1.0, 2.0):
            net.fc.bias.fill_(value)
            optimizer.step()
        return {"top1": [0.5]}

    monkeypatch.setattr(bench, "fit", fit)
    monkeypatch.setattr(
        bench, "evaluate", lambda net, loader, flip: weights.append(net.fc.bias[0].item()) or {"top1": 0}
    )
    for mean in ({"mean": 0.75}, {}):
        bench.run("resnet-fashion-x", {"epochs": 1, "network": {"depth": 8, "width": 1 / 2}} | mean)
    assert weights == pytest.approx([1.25, 1.25, 2.0, 2.0])


def test_a_trial_is_scored_on_images_of_its_first_size(bench, monkeypatch):
    monkeypatch.setattr(bench, "make_loaders", lambda data, **how: make_loaders(data, **how | {"limit": 40}))
    monkeypatch.setenv("COURSE_DATA", str(ROOT / "data"))
    monkeypatch.setattr(bench, "fit", lambda net, loader, **how: {"top1": [0.5]})
    sizes = []
    monkeypatch.setattr(bench, "evaluate", lambda net, loader, flip: sizes.append(loader.size) or {"top1": 0})
    bench.run("resnet-fashion-x", {"epochs": 4, "network": {"depth": 8, "width": 1 / 2}})
    assert sizes == [28, 28]


def test_a_finished_trial_runs_again_or_a_new_one_is_lost(bench, checkout, monkeypatch):
    lacking, ran = "resnet-fashion-14x2-9-shift-1", []
    file = checkout / "benchmarks/search.json"
    file.write_text(json.dumps({name: one for name, one in FOUND.items() if name != lacking}))
    monkeypatch.setattr(bench, "run", lambda name, trial: ran.append((name, trial)) or FOUND[name])
    bench.main()
    assert ran == [(lacking, bench.TRIALS[lacking])] and json.loads(file.read_text()) == FOUND
    assert len(file.read_text().splitlines()) == 39 + 2
    rows = [line for line in file.with_suffix(".md").read_text().splitlines() if "| fashion |" in line]
    shown = [row.split(" | ")[4] for row in rows if "ResNet" in row]
    assert shown == ["94.56 %", "94.54 %", "94.48 %", "94.40 %", "94.32 %", "94.18 %"]
