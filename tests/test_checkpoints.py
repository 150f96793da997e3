"""Every stop can be picked up; nothing damaged is read back; each run finds its own file and touches no other."""

import errno
import hashlib
import os
import pickle
import random
import re
import runpy
import select
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fingerprint import X, Y, arrays, batches, define, freeze, he, onecycle, sgd, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import checkpoints, settings, training
from course_utils.checkpoints import CheckpointError
from course_utils.data import Arrays, TensorLoader
from course_utils.training import fit

KILLS = 12  # moments at which a run is killed; fifty were tried once


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    for module in (settings, checkpoints, training):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"), raising=False)


class Stopping(TensorLoader):
    """A TensorLoader that draws global random numbers, and at whose third batch of one epoch Ctrl-C is pressed."""

    stop_at = None

    def __iter__(self):
        for i, batch in enumerate(super().__iter__()):
            np.random.rand(), random.random()
            if self.epoch == self.stop_at and i == 2:
                raise KeyboardInterrupt
            yield batch


def stopping(at=None):
    loader = Stopping(arrays(), 16, train=True, shift=1)
    loader.stop_at = at
    return loader


def restarted():
    """What a new kernel knows of earlier runs: nothing."""
    checkpoints.LEFT.clear()


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()  # pytest takes minutes to compare long bytes


def same_weights(a, b):
    a, b = (m if isinstance(m, dict) else m.state_dict() for m in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_picked_up_after_ctrl_c_ends_with_other_weights(precision, capsys, tmp_path):
    whole, expected = train("whole.pt", precision=precision, loader=stopping())
    draws = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    model, cut = train("cut.pt", precision=precision, loader=stopping(1))
    assert cut["complete"] is False and cut["epoch"] == [1]
    assert "1 of 3 epochs" in capsys.readouterr().out
    model, history = train("cut.pt", precision=precision, loader=stopping())
    assert same_weights(model, whole) and history["complete"] is True
    for key in ("epoch", "lr", "loss", "top1", "val_loss", "val_top1"):
        assert history[key] == expected[key]
    assert draws == (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    a, b = (torch.load(tmp_path / "runs" / f, weights_only=True) for f in ("whole.pt", "cut.pt"))
    assert str(a["optimizer"]) == str(b["optimizer"]) and a["scaler"] == b["scaler"]
    assert bool(a["scaler"]) == (precision == "float16") and a["step"] == b["step"] == 9


SCRIPT = f"""
import numpy as np
import torch
from course_utils import settings
from course_utils.data import Arrays, TensorLoader
from course_utils.training import fit
{CODE}
settings.seed_all(0)
draw = np.random.default_rng(0)
arrays = Arrays(draw.integers(0, 256, (48, 1, 8, 8), np.uint8), draw.integers(0, 4, 48), tuple("abcd"))
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=900)
fit(model, TensorLoader(arrays, 16, train=True, shift=1), epochs=300, optimizer=optimizer, scheduler=scheduler,
    checkpoint="killed.pt", precision="float32")
print("done", flush=True)
"""


def killed_after(count, command):
    """Start the command, kill it after so many printed epochs; returns what it printed and how it ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sum(line.startswith("epoch") for line in lines[1:]) == count:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    return lines, process.wait()


def test_a_killed_process_leaves_what_cannot_be_picked_up(tmp_path, monkeypatch, capsys):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    whole = runpy.run_path(str(script))["model"]
    expected = [re.sub(r"\s+\S+ images/s", "", line) for line in capsys.readouterr().out.splitlines()]
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "killed"))
    counts = [random.SystemRandom().randrange(1, 90) for _ in range(2)]
    print("killed after", counts)
    assert killed_after(counts[0], [sys.executable, "-u", script])[1] == -signal.SIGKILL
    lines, code = killed_after(counts[0] + counts[1], [sys.executable, "-u", script])
    assert code == -signal.SIGKILL and "Picked up from killed.pt" in lines[0]
    capsys.readouterr()
    assert same_weights(runpy.run_path(str(script))["model"], whole)
    printed = [re.sub(r"\s+\S+ images/s", "", line) for line in capsys.readouterr().out.splitlines()]
    assert "Picked up from killed.pt" in printed[0] and printed[1:] == expected


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["COURSE_RUNS"] + "/planted",)


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 255
    file.write_bytes(data)


DAMAGE = {
    "cut in half": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
    "without its last bytes": lambda f: f.write_bytes(f.read_bytes()[:-10]),
    "empty": lambda f: f.write_bytes(b""),
    "text": lambda f: f.write_text("no checkpoint at all\n"),
    "one byte changed": flipped,
    "a planted pickle": lambda f: f.write_bytes(pickle.dumps(Payload())),
    "a planted payload in torch's format": lambda f: torch.save({"fingerprint": Payload()}, f),
    "weights alone": lambda f: torch.save(nn.Linear(2, 2).state_dict(), f),
    "a tensor": lambda f: torch.save(torch.zeros(3), f),
    "a list": lambda f: torch.save([1], f),
    "a fingerprint of another make": lambda f: torch.save({"fingerprint": "abc"}, f),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_read_or_ends_in_a_traceback(damage, tmp_path):
    model, _ = train()
    file = tmp_path / "runs" / "a.pt"
    DAMAGE[damage](file)
    with pytest.raises(CheckpointError, match="a.pt .*fresh=True") as error:
        train()
    assert "\n" not in str(error.value) and not (tmp_path / "runs" / "planted").exists()
    again, history = train(fresh=True)
    assert history["complete"] and same_weights(again, model)
    assert same_weights(torch.load(file, weights_only=True)["model"], model)
    assert os.listdir(file.parent) == ["a.pt"]


def test_random_damage_is_read_or_ends_in_a_traceback(tmp_path):
    model, _ = train(epochs=1)
    file, draw = tmp_path / "runs" / "a.pt", np.random.default_rng(0)
    good = file.read_bytes()
    for _ in range(100):
        data = bytearray(good)
        at = int(draw.integers(len(good)))
        data[at : at + 8] = draw.bytes(8)
        file.write_bytes(data[: draw.integers(at + 1, len(good) + 1)] if draw.random() < 0.3 else data)
        try:
            assert same_weights(train(epochs=1)[0], model)  # the damage was in the padding
        except CheckpointError as error:
            assert "\n" not in str(error)


def test_a_file_is_half_written_where_saving_fails(tmp_path, monkeypatch):
    train(epochs=3, stop_at=1)
    before = digest(tmp_path / "runs" / "a.pt")

    def fails(saved, target):
        if not target.exists():
            target.write_bytes(b"half")
        raise OSError("disk full")

    for module, name in ((torch, "save"), (os, "replace")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
            patch.setattr(module, name, fails)
            train()
    assert os.listdir(tmp_path / "runs") == ["a.pt"] and digest(tmp_path / "runs" / "a.pt") == before


@pytest.mark.parametrize("given, file", [("b.pt", "runs/b.pt"), ("runs/b.pt", "runs/b.pt"),
                                         ("x/b.pt", "runs/x/b.pt"), ("/b.pt", "b.pt")])  # fmt: skip
def test_a_checkpoint_lands_elsewhere_than_in_the_runs(given, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(f"{tmp_path}{given}" if given[0] == "/" else given, epochs=1)
    assert (tmp_path / file).is_file() and len(list(tmp_path.rglob("*.pt"))) == 1


def test_a_finished_run_is_not_picked_up_whatever_the_model_holds(capsys):
    model = define()()

    def decayed(z, y):
        return F.cross_entropy(z, y) + 1e-4 * sum(p.square().sum() for p in model.parameters())

    _, history = train(model=model, criterion=decayed)
    printed = capsys.readouterr().out.splitlines()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    again, stored = train(model=model.eval(), criterion=decayed)
    assert same_weights(again, weights) and stored == history
    out = capsys.readouterr().out.splitlines()
    assert "Picked up from a.pt: 3 of 3" in out[0] and out[1:] == printed


def test_the_loaders_of_a_run_that_is_picked_up_stay_at_the_first_epochs_size():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), np.uint8)
    arrays = Arrays(images, np.arange(40) % 4, tuple("abcd"), "toys")
    for _ in range(2):
        loaders = [TensorLoader(arrays, 20, train=train, sizes=(8, 12, 16)) for train in (True, False)]
        torch.manual_seed(0)
        model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        fit(model, loaders[0], epochs=3, optimizer=optimizer, val=loaders[1], checkpoint="sizes.pt")
        assert [(loader.size, loader.epoch) for loader in loaders] == [(16, 2), (16, 2)]


def test_numpy_numbers_in_a_recipe_make_a_checkpoint_that_cannot_be_read(capsys):
    for _ in range(2):
        train(lr=np.float64(0.05), epochs=int(np.int64(1)), schedule=None)
    assert "Picked up" in capsys.readouterr().out


def test_the_fingerprint_depends_on_the_hash_seed_of_the_process(tmp_path, monkeypatch, capsys):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("epochs=300", "epochs=1"))
    for seed in "12":
        done = subprocess.run([sys.executable, script], env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
                              capture_output=True, text=True)  # fmt: skip
    assert "Picked up from killed.pt: 1 of 1" in done.stdout
