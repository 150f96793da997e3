"""Recipes: their values, and that none changes under a version that the ledger holds."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from course_utils import recipes
from course_utils.models import MODELS, network_defaults
from course_utils.settings import PROFILES
from course_utils.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data/results"
sys.path.insert(0, str(ROOT / "benchmarks"))
import from_scratch  # noqa: E402


def recorded():
    """The runs of the ledger."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("*-s*.json")]
    return [run for run in found if "recipe" in run]


def unversioned(runs):
    """Runs whose recipe has other values today, under the same version."""
    found = []
    for run in runs:
        model, data, variant = run["model"], run["dataset"], run["variant"]
        if variant is not None and variant not in VARIANTS.get((model, data), ()):
            continue
        if model.startswith("numpy"):  # trained by benchmarks/from_scratch.py
            values, then = from_scratch.RECIPES[model], run["recipe"]
        else:
            values = json.loads(json.dumps(recipes.recipe(model, data, run["profile"], variant)))
            then = run["recipe"] | {"network": network_defaults(model) | run["recipe"]["network"]}
        if values["version"] == then["version"] and values != json.loads(json.dumps(then)):
            found.append((model, data, run["profile"], variant))
    return sorted(set(found), key=str)


def test_a_recipe_that_was_run_changed_without_a_new_version():
    assert len(recorded()) > 50
    assert unversioned(recorded()) == []


def test_a_changed_value_goes_unnoticed(monkeypatch):
    table = recipes.RECIPES["lenet", "mnist"]
    monkeypatch.setitem(table, "cpu", {"epochs": 99})
    expected = [("lenet", "mnist", "cpu", "no-shift"), ("lenet", "mnist", "cpu", None)]
    assert unversioned(recorded()) == sorted(expected, key=str)
    monkeypatch.setitem(table, "every profile", table["every profile"] | {"version": 99})
    assert unversioned(recorded()) == []


def test_a_recipe_is_not_the_table_changed_by_profile_and_variant(monkeypatch):
    every = {"a": 1, "b": 1, "c": 1, "network": {}}
    table = {
        "every profile": every,
        "smoke": {"b": 2, "c": 2, "network": {"depth": 14, "width": 4}},
        "cpu": {},
        "full": {},
    }
    monkeypatch.setitem(recipes.RECIPES, ("resnet", "d"), table)
    monkeypatch.setitem(VARIANTS, ("resnet", "d"), {"v": {"c": 3, "network": {"width": 5}}, "w": {}})
    network = {
        "depth": 14,
        "width": 5,
        "shortcut": "A",
        "stem_224": False,
    }  # the table's, the variant's, the function's default
    assert recipes.recipe("resnet", "d", "smoke", "v") == {"a": 1, "b": 2, "c": 3, "network": network}
    default = every | {"network": {"depth": 20, "width": 1, "shortcut": "A", "stem_224": False}}
    assert recipes.recipe("resnet", "d", "cpu", "w") == recipes.recipe("resnet", "d", "cpu") == default
    with pytest.raises(ValueError, match="no recipe for m on x; expected one of: .*resnet on d"):
        recipes.recipe("m", "x", "cpu")
    with pytest.raises(ValueError, match="no variant 'x' of resnet on d; expected one of: v, w"):
        recipes.recipe("resnet", "d", "cpu", "x")
    with pytest.raises(ValueError, match="no variant 'x' of vgg on fashion; it has none"):
        recipes.recipe("vgg", "fashion", "cpu", "x")


@pytest.mark.parametrize("pair", recipes.RECIPES)
def test_a_recipe_lacks_a_value_or_names_no_network(pair):
    keys = "version batch_size peak_lr weight_decay label_smoothing shift flip sizes limit network epochs".split()
    for profile in PROFILES:
        values = recipes.recipe(*pair, profile)
        assert set(keys) <= set(values) and isinstance(values["version"], int) and pair[0] in MODELS


def small():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def test_biases_or_norms_are_decayed_or_momentum_is_not_nesterov():
    net = small()
    optimizer = recipes.sgd(net, 0.2, 0.01)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {n: decay[id(p)] for n, p in net.named_parameters()} == {
        "0.weight": 0.01, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.weight": 0.01, "2.bias": 0,
    }  # fmt: skip
    assert all((g["lr"], g["momentum"], g["nesterov"]) == (0.2, 0.9, True) for g in optimizer.param_groups)


def test_hes_weights_have_another_deviation_or_norms_are_changed():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(32, 64, 5), nn.BatchNorm2d(64), nn.Conv2d(64, 8, 3, bias=False), nn.Linear(500, 80)
    )
    recipes.he(net)
    for layer, inputs in ((net[0], 32 * 25), (net[2], 64 * 9), (net[3], 500)):
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
        assert layer.bias is None or not layer.bias.any()
    assert (net[1].weight == 1).all()
    x = torch.randn(64, 512)
    deep = nn.Sequential(*(layer for _ in range(20) for layer in (nn.Linear(512, 512), nn.ReLU())))
    recipes.he(deep)
    assert 0.5 < deep(x).square().mean().item() < 2  # as large behind twenty layers as in front


def test_the_schedule_peaks_elsewhere_or_does_not_end_at_zero():
    optimizer = recipes.sgd(small(), 0.5, 0.01)
    schedule, rates = recipes.triangular(optimizer, 0.5, 50), []
    for step in range(50):
        rates.append(optimizer.param_groups[1]["lr"])
        optimizer.step()
        if step < 49:
            schedule.step()
    peak = rates.index(max(rates))
    assert peak == 50 // 5 - 1 and max(rates) == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-5) and rates[0] < 0.05
    for part in (rates[: peak + 1], rates[peak:]):  # two straight lines
        assert torch.tensor(part, dtype=torch.float64).diff().std().item() == pytest.approx(0, abs=1e-9)


def test_the_parts_of_a_training_ignore_the_recipe():
    values = {"peak_lr": 0.3, "weight_decay": 0.02, "epochs": 4, "label_smoothing": 0.1, "network": {}}
    made = recipes.fit_arguments(small(), values, 5)
    assert made["epochs"] == 4 and made["scheduler"].total_steps == 20
    assert made["optimizer"].param_groups[0]["weight_decay"] == 0.02
    assert made["optimizer"].param_groups[0]["max_lr"] == 0.3
    z, y = torch.randn(5, 3), torch.arange(5) % 3
    smooth = -(0.9 * z.log_softmax(1)[range(5), y] + 0.1 * z.log_softmax(1).mean(1)).mean()
    torch.testing.assert_close(made["criterion"](z, y), smooth)
    changed = recipes.fit_arguments(small(), values | {"decay": "all", "schedule": "constant"}, 5)
    assert changed["scheduler"] is None
    assert [(g["lr"], g["weight_decay"]) for g in changed["optimizer"].param_groups] == [(0.3, 0.02)] * 2
    with_heads = recipes.fit_arguments(small(), values | {"network": {"heads": True}}, 5)["criterion"]
    torch.testing.assert_close(with_heads((z, z, z), y), 1.6 * smooth)


def test_small_images_do_not_come_first():
    assert recipes.by_epoch((20, 24, 32), 8) == (20, 20, 20, 20, 24, 24, 32, 32)
    assert recipes.by_epoch((20, 24, 28), 3) == (20, 28, 28)
    for epochs in range(1, 40):
        sizes = recipes.by_epoch((20, 24, 32), epochs)
        assert len(sizes) == epochs and sizes[-1] == 32 and list(sizes) == sorted(sizes)


@pytest.mark.parametrize("pair", recipes.RECIPES)
def test_the_sizes_of_a_recipe_do_not_match_its_epochs(pair):
    for profile, variant in itertools.product(PROFILES, (None, *VARIANTS.get(pair, ()))):
        values = recipes.recipe(*pair, profile, variant)
        assert isinstance(values["sizes"], int) or len(values["sizes"]) == values["epochs"]
