"""The benchmark of AlexNet's recipe: which runs it takes from the ledger, and what it calls a difference."""

import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from course_utils import ledger, settings
from course_utils.data import load_arrays
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
    assert found["of_minutes"] == 4.5
    assert (found["of_top1"], found["against_top1"]) == pytest.approx((0.61, 0.585))


def test_a_verdict_does_not_come_from_the_spread_pooled_over_all_runs(bench):
    runs = {"short": (0.55, 0.55), "short-no-flip": (0.54, 0.55), "short-no-shift": (0.57, 0.57)}
    runs |= {bench.WILD: (0.40, 0.50), "plain-lrn": (0.50, 0.51), "plain": (0.49, 0.50)}
    for variant, values in runs.items():
        for seed, top1 in enumerate(values):
            put(variant, seed, top1)
    levers = {
        name: bench.difference("short", name) for name in ("short-no-flip", "short-no-shift", bench.WILD)
    }
    out = {
        "levers": levers,
        "claims": {"plain-lrn": {"against": "plain"} | bench.difference("plain-lrn", "plain")},
    }
    bench.judge(out)
    pooled = (0.5 * 3 / 5) ** 0.5  # three of five variants differ by one point between their two seeds
    assert out["spread"] == pytest.approx(pooled)
    assert levers["short-no-shift"]["error"] == pytest.approx(pooled)
    assert levers[bench.WILD]["error"] == pytest.approx(((50 + pooled**2) / 2) ** 0.5)
    verdicts = [row["verdict"] for row in (levers | out["claims"]).values()]
    assert verdicts == ["not distinguished", "differs", "not distinguished", "not distinguished"]


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


# The engine for experiments: benchmarks/claims.py


def side(**network):
    return {"network": {"width": 1 / 16} | network}


TINY = {
    "name": "tiny", "question": "Which?", "measure": "validation top-1", "paper": "none",
    "recipe": {"data": "fashion", "limit": 200, "epochs": 1, "sizes": 16, "shift": 1},
    "rates": (0.01, 0.03, 0.1), "sides": {"one": side(), "two": side(batch_norm=False)}, "pairs": (("one", "two"),),
}  # fmt: skip


@pytest.fixture
def claims(monkeypatch, checkout):
    """benchmarks/claims.py with an empty ledger and one small comparison."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("claims")
    monkeypatch.setitem(module.TABLES, "vgg", (TINY,))
    return module


def finished(claims, runs, side, lr, seed, top1, comparison=TINY, **changes):
    """Put a run into the ledger's memory."""
    made = {"spec": claims.name(claims.spec("vgg", comparison, side)), "lr": lr, "seed": seed, "seconds": 60}
    made |= {"workers": 1, "precision": "bfloat16", "device": "cpu", "left_chance": 70, "parameters": 5}
    made |= {"train": [0.5], "validation": [top1], "diverged": False}
    runs.all["runs"].append(made | changes)


def tuned(claims, runs, best):
    for name, rate in best.items():
        for lr in TINY["rates"]:
            finished(claims, runs, name, lr, 100, 0.6 if lr == rate else 0.2)


def test_a_side_runs_at_anothers_rate_or_its_choice_counts(claims):
    runs = claims.Runs("vgg", None)
    assert claims.lacking(runs, TINY, set()) == [
        (name, lr, 100) for name in ("one", "two") for lr in TINY["rates"]
    ]
    tuned(claims, runs, {"one": 0.1, "two": 0.03})
    expected = [("one", 0.1, s) for s in (0, 1, 2)] + [("two", 0.03, s) for s in (0, 1, 2)]
    assert claims.lacking(runs, TINY, set()) == expected
    finished(claims, runs, "one", 0.1, 0, 0.5)
    assert [run["seed"] for run in runs.counted(TINY, "one")] == [0]
    assert claims.lacking(runs, TINY, set()) == expected[1:]
    key = claims.name(claims.spec("vgg", TINY, "two"))
    assert claims.lacking(runs, TINY, {(key, 0.03, 1)}) == [*expected[1:4], expected[5]]


def test_seeds_stop_while_the_difference_is_unsure_or_go_on_when_it_is_sure(claims):
    values = {"one": (0.50, 0.52, 0.51), "two": (0.50, 0.44, 0.41)}
    runs = claims.Runs("vgg", None)
    tuned(claims, runs, {"one": 0.1, "two": 0.03})
    for name, lr in (("one", 0.1), ("two", 0.03)):
        for seed, top1 in enumerate(values[name]):
            finished(claims, runs, name, lr, seed, top1)
    assert claims.lacking(runs, TINY, set()) == [("one", 0.1, 3), ("two", 0.03, 3)]
    capped = TINY | {"most": 3}
    assert claims.lacking(runs, capped, set()) == []
    runs.all["runs"][-1]["seconds"] = 3600
    assert claims.lacking(runs, TINY, set()) == []  # the hour is over
    runs.all["runs"][-1]["seconds"] = 60
    for run in runs.all["runs"]:
        if run["seed"] != 100:
            run["validation"] = [0.5 + 0.001 * run["seed"]]
    assert claims.lacking(runs, TINY, set()) == []


def test_the_standard_error_is_not_welchs_or_two_of_them_are_no_difference(claims):
    from scipy import stats

    a, b = (50.0, 52.0, 51.0), (48.0, 44.0, 45.5, 47.0)
    runs = [[{"validation": [v / 100], "train": [v / 100]} for v in values] for values in (a, b)]
    found = claims.difference(TINY, *runs)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found["points"] / found["error"] == pytest.approx(expected.statistic)
    assert found["points"] == pytest.approx(4.875) and found["verdict"] == "differs"
    errors = claims.difference(TINY | {"measure": "training error"}, *runs)
    assert errors["points"] == pytest.approx(-4.875)
    near = claims.difference(TINY, runs[0], [{"validation": [v]} for v in (0.505, 0.48, 0.52)])
    assert near["verdict"] == "not distinguished"
    assert claims.difference(TINY, runs[0], runs[1][:1]) is None


def test_two_kinds_of_runs_are_compared_or_merged(claims, checkout, monkeypatch, tmp_path):
    runs = claims.Runs("vgg", None)
    finished(claims, runs, "one", 0.1, 0, 0.5)
    runs.write()
    other = claims.Runs("vgg", tmp_path / "there")
    assert other.take(runs.file) == 0  # it begins with the ledger's
    finished(claims, other, "two", 0.1, 0, 0.5, device="cuda")
    other.write()
    monkeypatch.setattr("sys.argv", ["claims.py", "vgg", "--merge", str(tmp_path / "there")])
    said = claims.main()
    assert "tiny: runs in bfloat16 on cpu and bfloat16 on cuda; expected one" in said and "\n" not in said
    assert len(claims.Runs("vgg", None).all["runs"]) == 1
    other.all["runs"][-1]["device"] = "cpu"
    other.write()
    assert claims.main() == 0 and len(claims.Runs("vgg", None).all["runs"]) == 2
    assert claims.main() == 0 and len(claims.Runs("vgg", None).all["runs"]) == 2  # once


def test_a_failed_run_ends_the_others_or_a_finished_one_runs_again(claims, monkeypatch, capsys, tmp_path):
    broken = TINY | {"sides": {"one": side(), "two": side(nonsense=1)}, "rates": (0.03,), "seeds": (0,)}
    monkeypatch.setitem(claims.TABLES, "vgg", (broken,))
    monkeypatch.setenv("COURSE_DATA", str(ROOT / "data"))
    monkeypatch.setattr("sys.argv", ["claims.py", "vgg", "--workers", "1", "--out", str(tmp_path)])
    assert claims.main() == 0
    said = capsys.readouterr().out
    assert "FAILED tiny: two, lr 0.03, seed 100: TypeError" in said and "tiny: one, lr 0.03, seed 0" in said
    runs = claims.Runs("vgg", tmp_path)
    assert [(run["lr"], run["seed"]) for run in runs.all["runs"]] == [(0.03, 100), (0.03, 0)]
    assert runs.all["specs"][runs.all["runs"][0]["spec"]] == claims.spec("vgg", broken, "one")
    for kind in ("json", "md", "png"):
        assert (tmp_path / f"benchmarks/claims-vgg.{kind}").stat().st_size > 100
    monkeypatch.setattr(claims, "start", lambda core: (None, SimpleNamespace(send=None)))
    monkeypatch.setitem(claims.TABLES, "vgg", (broken | {"sides": {"one": side()}, "pairs": ()},))
    claims.work(runs, claims.TABLES["vgg"], 0, float("inf"), None)  # no worker is asked for anything
    assert len(runs.all["runs"]) == 2


def test_a_declared_comparison_cannot_be_built_or_a_lesson_has_more_than_five(claims, monkeypatch):
    monkeypatch.undo()
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    one_run, tables = importlib.import_module("one_run"), importlib.import_module("tables")
    for network, comparisons in tables.TABLES.items():
        assert len(comparisons) <= 5
        for one in comparisons:
            assert {name for pair in one["pairs"] for name in pair} <= set(one["sides"])
            for name in one["sides"]:
                rates = sorted(claims.rates(one, name))
                assert len(rates) == (2 if one.get("every_rate") else 3)
                assert all(2 <= b / a <= 3.5 or one.get("every_rate") for a, b in itertools.pairwise(rates))
                values = claims.spec(network, one, name)
                with torch.device("meta"):
                    monkeypatch.setattr(one_run.settings, "device", lambda: torch.device("meta"))
                    one_run.build(values, {"num_classes": 10, "in_channels": 1})


def test_d_does_not_begin_with_as_layers(claims):
    one_run = importlib.import_module("one_run")
    a, d = (MODELS["vgg"](layers=layers, width=1 / 8, batch_norm=False) for layers in "AD")
    before = [p.clone() for p in d.parameters()]
    taken = one_run.take_over(d, a).features
    convolutions = [[m for m in net.features if isinstance(m, torch.nn.Conv2d)] for net in (a, d)]
    for i, j in ((0, 0), (1, 2), (2, 4), (3, 5)):  # A: 1, 1, 2 convolutions a stage; D: 2, 2, 3
        assert torch.equal(convolutions[0][i].weight, convolutions[1][j].weight)
    assert torch.equal(a.classifier[0].weight, d.classifier[0].weight) and taken is d.features
    same = [torch.equal(p, q) for p, q in zip(before, d.parameters(), strict=True)]
    assert same.count(False) == 2 * (4 + 1)


def test_what_is_trained_before_has_the_later_networks_layers_epochs_or_first_weights(claims, monkeypatch):
    one_run, seen = importlib.import_module("one_run"), []
    monkeypatch.setenv("COURSE_DATA", str(ROOT / "data"))
    monkeypatch.setattr(one_run, "parts", lambda *_: (*[load_arrays("fashion", "test")] * 2, (0.3,), (0.3,)))
    monkeypatch.setattr(one_run, "trained", lambda net, values, *_: seen.append((net, values)) or (net, None))
    first = {"network": {"layers": "A"}, "init": "He", "epochs": 4}
    values = side(layers="D", width=1 / 8, batch_norm=False) | {"first": first, "epochs": 3}
    one_run.run(claims.spec("vgg", TINY | {"sides": {"one": values}}, "one"), 0.1, 0, "float32")
    (a, before), (d, after) = seen
    assert [sum(isinstance(m, torch.nn.Conv2d) for m in net.features) for net in (a, d)] == [8, 13]
    assert (before["epochs"], after["epochs"]) == (4, 3)
    spread = [a.features[i].weight.std().item() for i in (3, 6)]
    assert spread == pytest.approx(
        [(2 / (9 * c)) ** 0.5 for c in (8, 16)], rel=0.1
    )  # He's; torch's is 2.4 times less
    assert torch.equal(a.features[0].weight, d.features[0].weight)


def test_the_faster_lrn_is_another_function_than_torchs(claims):
    one_run = importlib.import_module("one_run")
    layer = torch.nn.LocalResponseNorm(5, alpha=0.5, beta=0.75, k=2)
    x = torch.randn(2, 7, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours, theirs = one_run.Banded(layer)(x), layer(x)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad((y * y).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_recorder_keeps_other_gradients_than_autograds(claims):
    one_run = importlib.import_module("one_run")
    torch.manual_seed(0)
    net, x, y = torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.randn(8, 4), torch.arange(8) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder = one_run.Recorder((1,)).watch(net, torch.nn.CrossEntropyLoss(), optimizer)
    p = (net(x).softmax(1) - torch.eye(3)[y]) / 8  # the gradient of the logits
    logits = net(x)
    recorder(logits, y).backward()
    optimizer.step()
    row = recorder.rows[1]
    assert row["gradients"]["0"] == pytest.approx((p.T @ x).norm().item(), rel=1e-5)
    assert row["spread"] == pytest.approx(logits.std(0).mean().item(), rel=1e-5)
    losses = torch.tensor([4.6] * 100 + [4.0] * 100).numpy()
    assert one_run.left_chance(losses, 100) == 100 + 19  # 19 of 50 at 4.0 bring the mean below 0.95 ln 100
    assert one_run.left_chance(losses[:120], 10) is None


def test_the_surface_has_another_middle_or_moves_the_network(claims):
    look = importlib.import_module("surface")
    torch.manual_seed(0)
    net = MODELS["resnet"](depth=8, width=1 / 2, num_classes=5).eval()
    x, y = torch.randn(10, 3, 16, 16), torch.arange(10) % 5
    before = {name: t.clone() for name, t in net.state_dict().items()}
    losses = look.surface(net, x, y, points=3)
    assert losses[1, 1] == pytest.approx(torch.nn.functional.cross_entropy(net(x), y).item(), rel=1e-5)
    assert losses.shape == (3, 3) and len(set(losses.flatten().round(6).tolist())) == 9
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    for p, d in zip(net.parameters(), look.direction(net, 1), strict=True):
        if p.ndim == 1:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), p.detach().flatten(1).norm(dim=1))
