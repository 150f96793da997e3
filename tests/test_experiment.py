"""python -m course_utils train, and the function behind it."""

import itertools
import json
import math
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from course_utils import __main__ as command_line
from course_utils import experiment, ledger, recipes, settings
from course_utils.data import Arrays, TensorLoader, make_loaders, sources, standin
from course_utils.data.sources import content_digest
from course_utils.training import train_epoch
from course_utils.variants import VARIANTS

COMMAND = "train --model lenet --data mnist --profile smoke --seed 3"
FIELDS = {
    "model": "lenet", "dataset": "mnist", "profile": "smoke", "variant": None, "seed": 0, "parameters": 61_706,
    "macs": 416_520, "epochs": 3,
}  # fmt: skip
OTHER_FIELDS = (
    "recipe history val test minutes images_per_second precision data machine alone commit date".split()
)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    return tmp_path / "runs"


def digits(split, name="mnist", per_class=40, complete=False):
    """Images of ten blurred templates: learnt within an epoch."""
    draw = np.random.default_rng(split == "test")
    labels = np.arange(10 * per_class) % 10
    templates = np.random.default_rng(9).integers(0, 200, (10, 1, 28, 28))
    images = (templates[labels] + draw.integers(0, 56, (len(labels), 1, 28, 28))).astype(np.uint8)
    facts = {
        "name": name,
        "split": split,
        "complete": complete,
        "published": complete,
        "digest": content_digest(images, labels),
    }
    return Arrays(images, labels, tuple("0123456789"), **facts)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(experiment, "load_arrays", lambda name, split: digits(split))


def run(arguments, monkeypatch, capsys):
    """Exit code, stdout and stderr of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["course_utils", *arguments.split()])
    capsys.readouterr()
    said = command_line.main()
    out, err = capsys.readouterr()
    assert err == ""
    return said, out


def test_the_result_file_lacks_a_field_or_holds_another_value(small, runs, capsys):
    made = experiment.train("lenet", "mnist")
    (file,) = runs.glob("*.json")
    stored = json.loads(file.read_text())
    assert file.name == "lenet-mnist-smoke-s0.json" and stored == made
    assert sorted(stored) == sorted([*FIELDS, *OTHER_FIELDS])
    assert {key: stored[key] for key in FIELDS} == FIELDS
    assert stored["recipe"] == recipes.recipe("lenet", "mnist", "smoke")
    assert stored["data"] == {
        "digest": digits("train").digest,
        "complete": False,
        "train_size": 10 * (40 - 4),
    }
    assert sorted(stored["test"]) == sorted("top1 top5 loss correct total top1_flip".split())
    net = experiment.MODELS["lenet"]()
    net.load_state_dict(torch.load(runs / "lenet-mnist-smoke-s0.pt", weights_only=True)["model"])
    x, y = next(iter(make_loaders((digits("train"), digits("test")), 32).test))
    right = (net.eval()(x.cpu()).argmax(1) == y.cpu()).sum().item()
    assert (stored["test"]["correct"], stored["test"]["total"]) == (right, 400)
    assert stored["test"]["top1"] == right / 400 and stored["test"]["top1_flip"] is None
    assert stored["val"]["top1"] == stored["history"]["val_top1"][-1] and len(stored["history"]["epoch"]) == 3
    assert stored["minutes"] == pytest.approx(sum(stored["history"]["seconds"]) / 60, abs=1e-3)


def test_a_run_that_is_finished_trains_again(small, monkeypatch, capsys, runs):
    code, first = run(COMMAND, monkeypatch, capsys)
    assert code == 0 and "test " in first and " of 400)" in first
    code, again = run(COMMAND, monkeypatch, capsys)
    lines = again.splitlines()
    assert "Picked up from lenet-mnist-smoke-s3.pt: 3 of 3" in lines.pop(1)
    assert lines == [line for line in first.splitlines() if not line.startswith("Whole training")]


def test_a_finished_run_reads_the_test_set_again_or_gets_another_origin(small, monkeypatch, capsys, runs):
    first = experiment.train("lenet", "mnist")
    monkeypatch.setattr(ledger, "today_and_commit", lambda: {"date": "2099-01-01", "commit": "another"})
    monkeypatch.setattr(ledger, "machine", lambda: {"cpu": "another"})
    monkeypatch.setattr(experiment, "test_scores", lambda *a: pytest.fail("the test set is read twice"))
    assert experiment.train("lenet", "mnist") == first
    monkeypatch.setattr(experiment, "test_scores", lambda *a: {"correct": 1})
    changed = recipes.RECIPES["lenet", "mnist"]["smoke"] | {"epochs": 2}
    monkeypatch.setitem(recipes.RECIPES["lenet", "mnist"], "smoke", changed)
    again = experiment.train("lenet", "mnist")
    assert (again["commit"], again["test"], again["epochs"]) == ("another", {"correct": 1}, 2)


def test_minutes_of_a_shared_machine_are_taken_for_those_of_one_alone(small, monkeypatch, runs):
    monkeypatch.setattr(experiment.os, "cpu_count", lambda: 4)
    for cores, alone in (({0, 1, 2, 3}, True), ({1}, False)):
        monkeypatch.setattr(experiment.os, "sched_getaffinity", lambda _, c=cores: c, raising=False)
        assert experiment.train("lenet", "mnist", seed=len(cores))["alone"] is alone
    monkeypatch.setattr(experiment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert (
        experiment.train("lenet", "mnist", seed=1)["alone"] is False
    )  # picked up: it was trained beside others


def test_validation_that_is_scored_once_is_scored_at_another_size(monkeypatch, runs):
    monkeypatch.setattr(experiment, "load_arrays", lambda name, split: digits(split, "fashion"))
    each = experiment.train("alexnet", "fashion")
    sizes, scored = [], experiment.evaluate
    monkeypatch.setattr(
        experiment, "evaluate", lambda net, loader: sizes.append(loader.size) or scored(net, loader)
    )
    monkeypatch.setitem(VARIANTS, ("alexnet", "fashion"), {"once": {"validate": "once"}})
    once = experiment.train("alexnet", "fashion", "once")
    assert once["history"]["val_top1"][:-1] == [None, None] and sizes == [28]
    assert once["val"] == each["val"] and once["history"]["loss"] == each["history"]["loss"]


def test_a_variant_reads_the_test_set(small, monkeypatch, capsys, runs):
    code, out = run(COMMAND + " --variant no-shift", monkeypatch, capsys)
    stored = json.loads((runs / "lenet-mnist-smoke-no-shift-s3.json").read_text())
    assert code == 0 and stored["test"] is None and "test set not read" in out
    assert stored["recipe"]["shift"] == 0 and stored["variant"] == "no-shift"
    final = VARIANTS["lenet", "mnist"]["no-shift"] | {"final": True}
    monkeypatch.setitem(VARIANTS["lenet", "mnist"], "no-shift", final)
    assert experiment.train("lenet", "mnist", "no-shift")["test"]["total"] == 400


def test_a_variant_with_hes_first_weights_starts_from_torchs(small, monkeypatch, capsys, runs):
    monkeypatch.setitem(VARIANTS["lenet", "mnist"], "he", {"init": "He", "peak_lr": 0.0})
    experiment.train("lenet", "mnist", "he")  # at rate 0 it ends where it starts
    weights = load_file(runs / "lenet-mnist-smoke-he-s0.safetensors")
    assert weights["fc1.weight"].std().item() == pytest.approx(
        math.sqrt(2 / 400), rel=0.02
    )  # torch: 1 / sqrt(3 * 400)
    assert not weights["fc1.bias"].any()


@pytest.mark.parametrize("name, complete, profile, said", [
    ("mnist", True, "smoke", "--record with the profile smoke"),
    (standin.NAME, True, "cpu", f"--record with {standin.NAME}"),
    ("mnist", False, "cpu", "--record with mnist"),
])  # fmt: skip
def test_the_ledger_takes_smoke_the_stand_in_or_a_part(
    name, complete, profile, said, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(experiment, "load_arrays", lambda _, split: digits(split, name, complete=complete))
    monkeypatch.setattr(settings, "checkout", lambda: tmp_path / "checkout")
    error, out = run(f"train --model lenet --data mnist --profile {profile} --record", monkeypatch, capsys)
    assert said in error and out == "" and list(tmp_path.rglob("*.*")) == []


def test_a_recorded_run_is_not_in_the_ledger_or_ships_other_weights(monkeypatch, tmp_path, capsys, runs):
    parts = {"train": digits("train", per_class=11, complete=True), "test": digits("test", complete=True)}
    monkeypatch.setattr(experiment, "load_arrays", lambda name, split: parts[split])
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(settings, "checkout", lambda: tmp_path / "checkout")
    monkeypatch.setitem(recipes.RECIPES["lenet", "mnist"], "cpu", {"epochs": 1, "batch_size": 10})
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    made = experiment.train("lenet", "mnist", record=True)
    recorded = tmp_path / "checkout/data/results/lenet-mnist-cpu-s0.json"
    assert json.loads(recorded.read_text()) == made == json.loads((runs / recorded.name).read_text())
    assert made["data"]["complete"] is True and made["data"]["train_size"] == 60
    net = ledger.load_weights("lenet-mnist")
    x, y = next(iter(make_loaders(tuple(parts.values()), 10).test))
    assert net.facts["test_correct"] == str((net(x.cpu()).argmax(1) == y.cpu()).sum().item())
    assert net.facts["digest"] == parts["train"].digest and json.loads(net.facts["recipe"]) == made["recipe"]
    trained = torch.load(runs / "lenet-mnist-cpu-s0.pt", weights_only=True)["model"]
    assert all(torch.equal(t, trained[name].half().float()) for name, t in net.state_dict().items())
    shipped = tmp_path / "checkout/data/weights/lenet-mnist.safetensors"
    weights = shipped.read_bytes()
    experiment.train("lenet", "mnist", seed=1, record=True)  # only seed 0 is shipped
    unchanged = (
        shipped.read_bytes() == weights
    )  # outside the assert: pytest takes minutes to compare long bytes
    assert unchanged


@pytest.mark.parametrize("arguments, said", [
    ("train --model lenet --data imagenet", "no recipe for lenet on imagenet; expected one of: lenet on mnist"),
    ("train --model lenet --data mnist --variant x", "no variant 'x' of lenet on mnist"),
    ("train --model lenet --data mnist --seed -1", "eed must be between"),
    ("a damaged result", "lenet-mnist-smoke-s3.json is not the result of its name"),
    ("a file in the place of the runs", "runs"),
    ("Ctrl-C", "stopped; the same command goes on"),
])  # fmt: skip
def test_an_error_is_a_traceback_or_several_lines(small, arguments, said, monkeypatch, capsys, runs):
    if arguments == "a damaged result":
        runs.mkdir()
        (runs / "lenet-mnist-smoke-s3.json").write_text('{"model": "lenet", "hist')
    elif arguments == "a file in the place of the runs":
        runs.write_text("")
    elif arguments == "Ctrl-C":
        monkeypatch.setattr(
            "course_utils.training.set_epoch", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
        )
    error, _ = run(arguments if arguments.startswith("train") else COMMAND, monkeypatch, capsys)
    assert error.startswith("course_utils: ") and said in error and "\n" not in error


def test_an_error_ends_with_exit_code_0_or_on_stdout():
    command = [sys.executable, "-m", "course_utils", "train", "--model", "lenet", "--data", "imagenet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=settings.checkout())
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith("course_utils: no recipe for lenet on imagenet")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("model, data", [("lenet", "mnist"), ("alexnet", "fashion")])
def test_a_killed_command_ends_with_other_weights_than_an_uninterrupted_one(
    model, data, tmp_path, monkeypatch, capsys
):
    command_line_words = f"train --model {model} --data {data} --profile smoke --seed 3"

    def weights(folder):
        return load_file(tmp_path / folder / f"{model}-{data}-smoke-s3.safetensors")

    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "whole"))
    code, expected = run(command_line_words, monkeypatch, capsys)
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "killed"))
    count = random.SystemRandom().randrange(1, 6)  # lines: the network's, the time's, then one an epoch
    command = [sys.executable, "-u", "-m", "course_utils", *command_line_words.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=settings.checkout()) as process:
        for _ in range(count):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    code, out = run(command_line_words, monkeypatch, capsys)
    said = [text.splitlines()[-1].split(",")[:2] for text in (out, expected)]
    assert code == 0 and said[0] == said[1], f"killed after {count} lines"
    a, b = weights("whole"), weights("killed")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("model", ["alexnet", "vgg", "googlenet", "resnet"])
@pytest.mark.parametrize("data, name, classes", [("cifar100", standin.NAME, 100), ("fashion", "fashion", 10)])
def test_the_command_fails_for_a_network_or_writes_less_than_result_curve_and_weights(
    model, data, name, classes, monkeypatch, capsys, runs
):
    monkeypatch.setattr(
        sources, "folders", lambda: [settings.checkout() / "data"] if data == "fashion" else []
    )
    code, out = run(f"train --model {model} --data {data} --profile smoke", monkeypatch, capsys)
    stem = f"{model}-{name}-smoke-s0"
    assert code == 0 and sorted(f.name for f in runs.iterdir()) == [
        f"{stem}.{kind}" for kind in ("json", "png", "pt", "safetensors")
    ]
    stored = json.loads((runs / f"{stem}.json").read_text())
    values = recipes.recipe(model, data, "smoke")
    assert stored["recipe"] == json.loads(json.dumps(values)) and stored["epochs"] == 3
    assert stored["test"]["total"] == 1000 and 0 <= stored["test"]["top1_flip"] <= 1
    assert (runs / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    trained = torch.load(runs / f"{stem}.pt", weights_only=True)["model"]
    again = ledger.load_weights(stem)
    assert all(torch.equal(t, trained[key]) for key, t in again.state_dict().items())
    loader = make_loaders(data, 64, limit=1000, sizes=values["sizes"]).test
    assert loader.size == values["sizes"][-1] and len(loader.arrays.classes) == classes
    right = sum((again(x.cpu()).argmax(1) == y.cpu()).sum().item() for x, y in loader)
    assert right == pytest.approx(stored["test"]["correct"], abs=2)


def test_the_variant_with_heads_does_not_train_them(monkeypatch, capsys, runs):
    monkeypatch.setattr(sources, "folders", lambda: [settings.checkout() / "data"])
    code, out = run(
        "train --model googlenet --data cifar100 --profile smoke --variant heads", monkeypatch, capsys
    )
    assert code == 0 and "auxiliary heads" in out and "test set not read" in out
    again = ledger.load_weights(f"googlenet-{standin.NAME}-smoke-heads-s0")
    settings.seed_all(0)
    first = dict(
        experiment.MODELS["googlenet"](**json.loads(again.facts["network"])).heads.named_parameters()
    )
    trained = dict(again.heads.named_parameters())
    assert len(again.heads) == 2 and first.keys() == trained.keys()
    assert all(p.isfinite().all() and not torch.equal(p, first[name]) for name, p in trained.items())


@pytest.mark.parametrize("pair", recipes.RECIPES, ids="-".join)
def test_a_full_recipe_cannot_be_trained(pair):
    values = recipes.recipe(*pair, "full")
    grey = not pair[1].startswith("cifar")
    classes, size = 100 if pair[1] == "cifar100" else 10, 28 if grey else 32
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (256, 1 if grey else 3, size, size), np.uint8)
    arrays = Arrays(images, np.arange(256) % classes, tuple(map(str, range(classes))), pair[1])
    loader = TensorLoader(arrays, values["batch_size"], train=True, shift=values["shift"], flip=values["flip"],
                          sizes=values["sizes"])  # fmt: skip
    net = experiment.MODELS[pair[0]](num_classes=classes, in_channels=images.shape[1], **values["network"])
    net.to(settings.device(), memory_format=torch.channels_last)
    fitting = recipes.fit_arguments(net, values, len(loader))
    before = [p.detach().clone() for p in net.parameters()]
    batches = list(itertools.islice(itertools.chain(loader, loader), 3))
    how = {"scheduler": fitting["scheduler"], "precision": settings.precision()}
    loss, _, images = train_epoch(net, batches, fitting["criterion"], fitting["optimizer"], **how)
    assert len(batches) == 3 and math.isfinite(loss) and images == sum(len(y) for _, y in batches)
    assert all(
        p.isfinite().all() and not torch.equal(p, old)
        for p, old in zip(net.parameters(), before, strict=True)
    )


def test_the_expected_time_is_not_steps_by_their_time_or_disturbs_the_training(small, monkeypatch):
    values = recipes.recipe("alexnet", "fashion", "smoke") | {"epochs": 4, "sizes": (20, 20, 24, 28)}
    net = experiment.MODELS["alexnet"](num_classes=10, in_channels=1, **values["network"])
    loaders = make_loaders((digits("train"), digits("test")), 32, sizes=values["sizes"])
    calls, seconds = (
        [],
        iter([1.0, 0.5, 10.0, 0.7, 100.0, 0.9]),
    )  # training and validation at 20, 24, 28 pixels

    def timed(work, **_):
        work()
        calls.append(work)
        return next(seconds)

    monkeypatch.setattr(experiment, "median_seconds", timed)
    torch.manual_seed(5)
    before = torch.get_rng_state(), {name: t.clone() for name, t in net.state_dict().items()}
    minutes = experiment.expected_minutes(net, loaders, values)
    assert len(calls) == 2 * 3
    train_steps, val_steps = len(loaders.train), len(loaders.val)
    assert 60 * minutes == pytest.approx(train_steps * (2 * 1 + 10 + 100) + val_steps * (2 * 0.5 + 0.7 + 0.9))
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(before[1][name], t) for name, t in net.state_dict().items())


def test_the_median_counts_the_warm_up(monkeypatch):
    clock = iter([0, 90, 100, 190, 200, 203, 300, 301, 400, 402])
    monkeypatch.setattr(experiment.time, "perf_counter", lambda: next(clock))
    assert experiment.median_seconds(lambda: None, warm=2, repeats=3) == 2
