"""The ledger, the numbers in prose, and shipped networks."""

import errno
import json
import os
import subprocess
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from course_utils import ledger, recipes, settings
from course_utils.data import Arrays
from course_utils.models import MODELS


def record(seed, top1, **changes):
    machine = {"cpu": "Some CPU", "cores": 2, "device": "cpu", "torch": "2", "python": "3"}
    return {"model": "lenet", "dataset": "mnist", "profile": "cpu", "variant": None, "seed": seed,
            "parameters": 61706, "recipe": recipes.recipe("lenet", "mnist", "cpu"), "val": {"top1": 0.5, "loss": 1.0}, "test": {"top1": top1, "loss": 0.0321},
            "minutes": 1.25, "precision": "float32", "machine": machine, "images_per_second": 8000 + seed,
            "history": {"val_top1": [0.1, 0.987]}, "against_top1": 0.5504, **changes}  # fmt: skip


def put(folder, *records):
    for r in records:
        stem = ledger.run_name(r["model"], r["dataset"], r["profile"], r["variant"], r["seed"])
        ledger.write_json(r, folder / f"{stem}.json")


def test_a_run_has_another_file_name_than_agreed():
    assert ledger.run_name("vgg", "cifar100", "cpu", None, 3) == "vgg-cifar100-cpu-s3"
    assert ledger.run_name("vgg", "cifar100", "full", "no-flip", 0) == "vgg-cifar100-full-no-flip-s0"


def test_a_failed_write_leaves_half_a_file(tmp_path, monkeypatch):
    file = tmp_path / "new" / "a.json"
    ledger.write_json({"x": [1, 2.5, None]}, file)
    assert json.loads(file.read_text()) == {"x": [1, 2.5, None]}

    def fails(*paths):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "replace", fails)
        ledger.write_json({"x": 0}, file)
    with pytest.raises(TypeError):
        ledger.write_json({"x": torch.zeros(1)}, file)
    assert json.loads(file.read_text()) == {"x": [1, 2.5, None]} and os.listdir(file.parent) == ["a.json"]


def test_a_full_disk_at_weights_or_a_result_ends_in_a_librarys_words_or_leaves_half_a_file(
    tmp_path, monkeypatch
):
    def full(part, content, **_):
        part.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    for write, name in (
        (lambda file: ledger.save_weights(torch.nn.Linear(2, 2), file, {}), "a.safetensors"),
        (lambda file: ledger.write_json({}, file), "a.json"),
    ):
        with pytest.raises(OSError) as error:
            write(tmp_path / name)
        start = f"{tmp_path / name} cannot be written (No space left on device). Make room, or "
        assert str(error.value).startswith(start) and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_runs_do_not_come_before_the_ledger_or_variants_mix(checkout, capsys):
    with pytest.raises(
        FileNotFoundError, match="no result lenet-mnist-cpu. Make one: python -m course_utils train"
    ):
        ledger.read_results("lenet-mnist-cpu")
    put(checkout / "data/results", *(record(seed, 0.9) for seed in (10, 2)))
    put(checkout / "data/results", record(0, 0.1, variant="no-shift"), record(0, 0.1, variant="s1"))
    assert [r["seed"] for r in ledger.read_results("lenet-mnist-cpu")] == [2, 10]
    put(settings.runs(), record(0, 0.8), record(2, 0.7))
    assert [r["test"]["top1"] for r in ledger.read_results("lenet-mnist-cpu")] == [0.8, 0.7, 0.9]
    assert [r["seed"] for r in ledger.recorded("lenet-mnist-cpu")] == [2, 10]
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "lenet-mnist-cpu: seeds 2, 10 from the ledger.",
        "lenet-mnist-cpu: seeds 0, 2 from your runs; seed 10 from the ledger.",
    ]


@pytest.mark.parametrize("change", [{"version": 0}, {"epochs": 99}, {"network": {"width": 2}}])
def test_a_run_by_an_older_recipe_is_averaged_with_the_ledgers(checkout, capsys, change):
    old = recipes.recipe("lenet", "mnist", "cpu") | change
    put(checkout / "data/results", record(0, 0.9), record(1, 0.9))
    put(settings.runs(), record(1, 0.1, recipe=old), record(2, 0.1, recipe=old), record(3, 0.8))
    assert [r["test"]["top1"] for r in ledger.read_results("lenet-mnist-cpu")] == [0.9, 0.9, 0.8]
    left, said = capsys.readouterr().out.splitlines()
    assert left == ("lenet-mnist-cpu: left out, of another recipe than today's: seeds 1, 2 in your runs. "
                    "Train again, or delete them.")  # fmt: skip
    assert said == "lenet-mnist-cpu: seed 3 from your runs; seeds 0, 1 from the ledger."
    put(checkout / "data/results", record(0, 0.2, recipe=old), record(1, 0.2, recipe=old))
    assert [r["test"]["top1"] for r in ledger.read_results("lenet-mnist-cpu")] == [0.8]
    assert "seeds 1, 2 in your runs; seeds 0, 1 in the ledger" in capsys.readouterr().out
    (settings.runs() / "lenet-mnist-cpu-s3.json").unlink()
    assert [r["test"]["top1"] for r in ledger.read_results("lenet-mnist-cpu")] == [0.2, 0.2]
    assert "seeds 0, 1 from the ledger, of an older recipe." in capsys.readouterr().out


def test_a_run_from_before_an_argument_was_added_is_left_out(checkout):
    values = recipes.recipe("resnet", "fashion", "cpu")
    shorter = values | {
        "network": {key: values["network"][key] for key in ("depth", "width")}
    }  # the other arguments have their defaults
    run = record(0, 0.8, model="resnet", dataset="fashion", recipe=shorter)
    put(settings.runs(), run)
    assert len(ledger.read_results("resnet-fashion-cpu")) == 1


def test_a_run_whose_recipe_is_gone_or_of_the_stand_in_is_mistaken(checkout):
    values = recipes.recipe("vgg", "cifar100", "smoke")
    standin = record(0, 0.1, model="vgg", dataset="tinted_fashion_100", profile="smoke", recipe=values)
    put(settings.runs(), record(0, 0.1, variant="gone"), standin)
    assert len(ledger.read_results("vgg-tinted_fashion_100-smoke")) == 1
    with pytest.raises(FileNotFoundError, match="no result lenet-mnist-cpu-gone"):
        ledger.read_results("lenet-mnist-cpu-gone")


@pytest.mark.parametrize("text, why", [
    ("", "Expecting value"), ('{"model": "le', "Unterminated string"), ("[]", "no model, dataset"), ("3", "int"),
    ('{"epoch": [1]}', "no model, dataset"), (json.dumps(record(5, 0.9)), "it is lenet-mnist-cpu-s5"), ("\xff", "utf-8"),
    (json.dumps(record(0, 0.9, model=None)), "it is mnist-cpu-s0"), (json.dumps(record(0, 0.9, model=[1])), "list"),
    (json.dumps(record(0, 0.9) | {"seed": "0"}), "it is lenet-mnist-cpu-s0"),
])  # fmt: skip
def test_a_damaged_or_foreign_result_gives_a_traceback_that_names_no_file(checkout, text, why):
    put(checkout / "data/results", record(0, 0.9))
    file = settings.runs() / "lenet-mnist-cpu-s0.json"
    file.parent.mkdir()
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"{file} is not the result of its name .*{why}.*Delete it") as error:
        ledger.read_results("lenet-mnist-cpu")
    assert "\n" not in str(error.value)


def test_an_unreadable_result_is_called_damaged(checkout, monkeypatch):
    put(settings.runs(), record(0, 0.9))

    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ValueError, match="lenet-mnist-cpu-s0.json cannot be read .Permission denied."):
        ledger.read_results("lenet-mnist-cpu")


def test_the_ledger_is_not_listed_whole(checkout):
    put(checkout / "data/results", record(10, 0.9), record(2, 0.9), record(0, 0.9, variant="s1"))
    ledger.write_json({}, checkout / "data/results/lessons.json")
    names = ["lenet-mnist-cpu-s10", "lenet-mnist-cpu-s1-s0", "lenet-mnist-cpu-s2"]
    assert list(ledger.all_recorded()) == sorted(names)
    assert ledger.all_recorded()["lenet-mnist-cpu-s1-s0"]["variant"] == "s1"


def test_own_runs_cannot_be_read_outside_a_checkout(checkout, monkeypatch):
    put(settings.runs(), record(0, 0.8))
    monkeypatch.setattr(settings, "checkout", lambda: None)
    assert len(ledger.read_results("lenet-mnist-cpu")) == 1
    with pytest.raises(FileNotFoundError, match="no result x-y-cpu"):
        ledger.read_results("x-y-cpu")
    for kind in ("results", "weights", "benchmarks"):
        with pytest.raises(FileNotFoundError, match="checkout"):
            ledger.folder(kind)


@pytest.mark.parametrize("correct, total", [(0, 10), (10, 10), (59, 100), (9936, 10000), (1, 3)])
def test_the_interval_is_not_wilsons(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert ledger.wilson(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_shipped_network_comes_back_as_another(checkout, monkeypatch):
    torch.manual_seed(0)
    net = MODELS["lenet"](num_classes=7, in_channels=3)
    network = json.dumps({"num_classes": 7, "in_channels": 3})
    facts = {"model": "lenet", "network": network, "test_correct": "12"}
    file = checkout / "data/weights/lenet-x.safetensors"
    ledger.save_weights(net.half(), file, facts)
    assert os.listdir(file.parent) == [file.name]
    assert file.stat().st_size < 2.1 * sum(p.numel() for p in net.parameters()) + 2000  # two bytes a weight
    monkeypatch.setenv("COURSE_RUNS", str(checkout / "runs"))
    ledger.save_weights(net.double(), checkout / "runs/lenet-x-s1.safetensors", facts)
    for name in ("lenet-x", "lenet-x-s1"):
        again = ledger.load_weights(name)
        assert again.facts["test_correct"] == "12" and not again.training
        for p, q in zip(net.parameters(), again.parameters(), strict=True):
            assert q.dtype == torch.float32 and torch.equal(p.float(), q)
    with pytest.raises(FileNotFoundError, match="no network 'vgg-x'; expected one of: lenet-x, lenet-x-s1"):
        ledger.load_weights("vgg-x")


def test_a_damaged_or_foreign_network_gives_a_traceback_that_names_no_file(checkout):
    net, file = MODELS["lenet"](), settings.runs() / "x.safetensors"
    facts = {"model": "lenet", "network": "{}"}
    ledger.save_weights(net, file, facts)
    whole = file.read_bytes()
    bad = {
        "header": b"",
        "erializing": b"\x00" * 99,
        "": whole[:-5],
        "not say which network": (net, {"model": "mine"}),
    }
    bad |= {
        "does not say which": (net, {}),
        "size mismatch": (net, facts | {"network": '{"num_classes": 7}'}),
    }
    bad |= {
        "unexpected keyword": (net, facts | {"network": '{"colour": 7}'}),
        "Expecting": (net, facts | {"network": ""}),
    }
    bad["issing key"] = (torch.nn.Flatten(), facts)
    for why, content in bad.items():
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            ledger.save_weights(content[0], file, content[1] or None)
        with pytest.raises(
            ValueError, match=f"{file} holds no network .*{why}.*Delete it and train"
        ) as error:
            ledger.load_weights("x")
        assert "\n" not in str(error.value)


def test_date_commit_or_machine_are_missing_or_of_another_place(checkout, monkeypatch):
    here = {"cwd": checkout, "check": True, "capture_output": True, "text": True}
    assert ledger.today_and_commit() == {"date": date.today().isoformat(), "commit": "unknown"}
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    (checkout / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", *command], **here)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], **here).stdout.strip()
    (checkout / "new").write_text("untracked")
    said = ledger.today_and_commit()["commit"]
    assert len(said) >= 7 and commit.startswith(said)
    (checkout / "a").write_text("2")
    assert ledger.today_and_commit()["commit"] == said + "+"
    monkeypatch.setattr(settings, "checkout", lambda: None)
    monkeypatch.chdir(checkout)  # another project's repository
    assert ledger.today_and_commit()["commit"] == "unknown"
    assert sorted(ledger.machine()) == ["cores", "cpu", "device", "python", "torch"]


def test_the_banner_hides_the_profile_or_that_data_are_partial(checkout, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    times = {"04": {"minutes": 3.2, "processor": "Zen, 2 cores"}}
    ledger.write_json(times, checkout / "data/results/lessons.json")
    images = np.zeros((1200, 1, 2, 2), np.uint8)
    whole, part = (
        Arrays(images, np.zeros(1200, int), ("a",), n, complete=n == "mnist") for n in ("mnist", "toys")
    )
    line = ledger.banner("04", whole, whole, part)
    for said in ("profile cpu", f"device {settings.device()}", f"precision {settings.precision()}", "took 3.2 minutes",
                 "Zen, 2 cores", "mnist complete (1,200 + 1,200 images)", "toys PARTIAL (1,200 images)"):  # fmt: skip
        assert said in line
    assert "\n" not in line and "took" not in ledger.banner("05", whole)
    numpy_line = ledger.banner("04", whole, numpy_only=True)
    assert "device" not in numpy_line and "precision" not in numpy_line
    assert numpy_line.startswith("profile cpu, took 3.2 minutes") and "1,200 images" in numpy_line
