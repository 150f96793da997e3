"""Every stop can be picked up; nothing damaged is read back; each run finds its own file and touches no other."""

import errno
import hashlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fingerprint import X, Y, arrays, batches, define, freeze, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import checkpoints, settings, training
from course_utils.checkpoints import CheckpointError
from course_utils.data import Arrays, TensorLoader
from course_utils.training import fit

KILLS = 8  # moments at which a run is killed; fifty were tried once


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


SCRIPT = """
import os
import sys
import numpy as np
import torch
from torch import nn
from course_utils import settings
from course_utils.data import Arrays, TensorLoader
from course_utils.training import fit

def cell(file, epochs=6, lr=0.05, loader=TensorLoader):
    settings.seed_all(0)
    draw = np.random.default_rng(0)
    arrays = Arrays(draw.integers(0, 256, (48, 1, 8, 8), np.uint8), draw.integers(0, 4, 48), tuple("abcd"))
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2 * lr, total_steps=3 * epochs)
    history = fit(model, loader(arrays, 16, train=True, shift=1), epochs=epochs, optimizer=optimizer,
                  scheduler=scheduler, checkpoint=file, precision="float32")
    return model, history
"""
KILLED = (
    SCRIPT
    + """
import hashlib
import select
import signal
import threading
from pathlib import Path
from tqdm import tqdm
from course_utils import training
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)

def die(*_):
    os.kill(os.getpid(), KILL)

def arm(moment, count):
    # kill this process at the count-th save, in one of three moments of it
    place, name = {"in": (Path, "write_bytes"), "before": (os, "replace"), "after": (os, "replace")}[moment]
    real, calls = getattr(place, name), []
    def patched(first, second):
        calls.append(0)
        if len(calls) < count:
            return real(first, second)
        if moment == "in":
            real(first, second[: len(second) // 2])
        if moment == "after":
            real(first, second)
        die()
    setattr(place, name, patched)

def train_in_child(folder, moment, value):
    # a child trains; returns what it wrote about its end, and whether it was killed
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        os.environ["COURSE_RUNS"] = folder
        sys.stdout = open(os.devnull, "w")
        tqdm.set_lock(threading.RLock())  # its own lock is all children's: who is killed may hold it for ever
        if moment in ("in", "before", "after"):
            arm(moment, value)
        model, history = cell("a.pt")
        content = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
        rows = [history[k] for k in ("epoch", "lr", "loss", "top1")]
        os.write(theirs, (hashlib.sha256(content).hexdigest() + repr(rows) + str(os.listdir(folder))).encode())
        os._exit(0)
    os.close(theirs)
    if moment == "any" and not select.select([ours], [], [], value)[0]:
        os.kill(child, KILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return os.read(ours, 100_000).decode(), killed

if __name__ == "__main__":
    import random, time
    torch.set_num_threads(1)
    os.environ["COURSE_RUNS"] = sys.argv[1] + "/warm"
    cell("a.pt")  # imports what the children need
    began = time.perf_counter()
    expected, _ = train_in_child(sys.argv[1] + "/whole", "never", 0)
    duration, draw, kills = time.perf_counter() - began, random.Random(), 0
    left = []
    while kills < int(sys.argv[2]):
        folder = f"{sys.argv[1]}/{kills}"
        moment = draw.choice(["any", "any", "in", "before", "after"])
        value = draw.uniform(0, duration) if moment == "any" else draw.randint(1, 7)
        _, killed = train_in_child(folder, moment, value)
        left += [f for f in os.listdir(folder) if f.endswith(".part")] if os.path.isdir(folder) else []
        ended, _ = train_in_child(folder, "never", 0)
        assert ended == expected, (moment, value, ended, expected)
        kills += killed
    print(kills, "kills,", len(left), "half-written files removed")
"""
)


def in_a_process(script, tmp_path, *arguments, **environment):
    file = tmp_path / "script.py"
    file.write_text(script)
    return subprocess.Popen([sys.executable, "-u", file, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                            stdin=subprocess.PIPE, env=os.environ | environment)  # fmt: skip


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="Windows has no fork; the next test kills a process there"
)
def test_a_process_killed_at_any_moment_ends_with_other_weights_or_leaves_half_a_file(tmp_path):
    process = in_a_process(KILLED, tmp_path, tmp_path, KILLS)
    out, _ = process.communicate()
    assert process.returncode == 0 and f"\n{KILLS} kills, " in out, out


WAITING = (
    SCRIPT
    + """
class Waiting(TensorLoader):
    def __iter__(self):
        if self.epoch:
            sys.stdin.readline()
        return super().__iter__()

cell("a.pt", loader=Waiting)
"""
)


def test_a_second_process_overwrites_or_stops_another_run_and_a_killed_one_bars_it(tmp_path, capsys):
    exec(SCRIPT, space := {"__name__": "lesson"})
    whole, _ = space["cell"]("whole.pt")
    process = in_a_process(WAITING, tmp_path)
    assert process.stdout.readline().startswith("epoch  1/6")  # it waits in its second epoch
    with pytest.raises(CheckpointError, match="^a.pt: another process trains this run.*[^\n]$"):
        space["cell"]("a.pt")
    _, history = space["cell"]("a.pt", lr=0.06)
    assert history["complete"] and "a.pt holds another run" in capsys.readouterr().out
    process.kill()
    process.wait()
    process.stdout.close(), process.stdin.close()
    model, history = space["cell"]("a.pt")
    assert same_weights(model, whole) and "Picked up from a.pt: 1 of 6" in capsys.readouterr().out


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
def test_a_damaged_checkpoint_is_read_or_overwritten_or_bars_a_run(damage, tmp_path, capsys):
    model, _ = train()
    file, out = tmp_path / "runs" / "a.pt", capsys.readouterr().out.splitlines()
    DAMAGE[damage](file)
    before = digest(file)
    again, _ = train()  # whose file that was, nobody can tell
    said, *lines = capsys.readouterr().out.splitlines()
    (own,) = [other for other in file.parent.iterdir() if other != file]
    assert (
        said == f"{file} is cut short or no checkpoint of `fit`: this one has a file of its own, {own.name}."
    )
    assert same_weights(again, model) and len(lines) == len(out)
    train()
    assert f"Picked up from {own.name}: 3 of 3" in capsys.readouterr().out
    DAMAGE[damage](own)
    with pytest.raises(CheckpointError, match=f"{own.name} is cut short .*fresh=True") as error:
        train()
    assert "\n" not in str(error.value) and not (tmp_path / "runs" / "planted").exists()
    again, history = train(fresh=True)
    assert history["complete"] and same_weights(again, model)
    assert same_weights(torch.load(own, weights_only=True)["model"], model)
    assert digest(file) == before and len(os.listdir(file.parent)) == 2


def test_a_checkpoint_that_may_not_be_read_is_called_cut_short_or_bars_a_run(tmp_path, capsys, monkeypatch):
    train(epochs=1)
    file, real = tmp_path / "runs" / "a.pt", zipfile.ZipFile
    before = digest(file)

    def refused(opened, *rest):
        if opened in closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(opened, *rest)

    closed = [file]
    monkeypatch.setattr(zipfile, "ZipFile", refused)  # root may read all that chmod closes
    capsys.readouterr()
    train(epochs=1)
    said, *_ = capsys.readouterr().out.splitlines()
    (own,) = [other for other in file.parent.iterdir() if other != file]
    assert said == f"{file} cannot be read (Permission denied): this one has a file of its own, {own.name}."
    closed.append(own)
    with pytest.raises(CheckpointError, match=f"{own.name} cannot be read .Permission denied..[^\n]*$"):
        train(epochs=1)
    assert digest(file) == before


def test_random_damage_is_read_or_bars_a_run(tmp_path):
    model, _ = train(epochs=1)
    file, draw = tmp_path / "runs" / "a.pt", np.random.default_rng(0)
    good = file.read_bytes()
    for _ in range(100):
        data = bytearray(good)
        at = int(draw.integers(len(good)))
        data[at : at + 8] = draw.bytes(8)
        file.write_bytes(data[: draw.integers(at + 1, len(good) + 1)] if draw.random() < 0.3 else data)
        assert same_weights(
            train(epochs=1)[0], model
        )  # trained in a file of its own, or damaged in the padding


def steps_of(**arguments):
    """How many batches were taken before fit raised, and what it said."""
    taken = []

    class Counting(TensorLoader):
        def __iter__(self):
            for batch in super().__iter__():
                taken.append(0)
                yield batch

    with pytest.raises((OSError, ValueError)) as error:
        train(loader=Counting(arrays(), 16, train=True), **arguments)
    assert "\n" not in str(error.value)
    return len(taken), str(error.value)


def test_a_file_is_half_written_or_a_traceback_shown_where_saving_fails(tmp_path, monkeypatch):
    train(loader=stopping(1))
    before = digest(tmp_path / "runs" / "a.pt")

    def fails(part, target):
        os.truncate(part, 4) if os.path.exists(part) else open(part, "wb").close()
        raise OSError(errno.ENOSPC, "disk full")

    for module, name in ((Path, "write_bytes"), (os, "replace")):
        with (
            monkeypatch.context() as patch,
            pytest.raises(OSError, match=r"a.pt cannot be written \(disk full\).*COURSE_RUNS[^\n]*$"),
        ):
            patch.setattr(module, name, fails)
            train(loader=stopping())
    assert os.listdir(tmp_path / "runs") == ["a.pt"] and digest(tmp_path / "runs" / "a.pt") == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of a file's size")
def test_a_full_disk_is_noticed_after_an_epoch_or_in_a_traceback(tmp_path):
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        steps, said = steps_of()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (
        steps == 0
        and re.search("a.pt cannot be written .*too large", said)
        and os.listdir(tmp_path / "runs") == []
    )


def test_a_folder_that_cannot_be_written_is_noticed_after_an_epoch(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "file" / "runs"))
    steps, said = steps_of()
    assert steps == 0 and "a.pt cannot be written" in said
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    train(epochs=1), train(loader=stopping(1), lr=0.04)

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    assert train(epochs=1)[1]["complete"]  # a finished run is read all the same
    taken = []
    monkeypatch.setattr(Stopping, "__iter__", lambda self: taken.append(0))
    with pytest.raises(OSError, match="a-.*cannot be written .Permission denied.[^\n]*$"):
        train(loader=stopping(), lr=0.04)
    assert taken == []


@pytest.mark.parametrize(
    "folder", ["file", "file/deeper"] + ["/proc/none", "/sys"] * (sys.platform == "linux")
)
def test_an_absolute_path_that_cannot_be_written_is_noticed_after_an_epoch(folder, tmp_path):
    (tmp_path / "file").write_text("")
    steps, said = steps_of(file=tmp_path / folder / "a.pt")
    assert steps == 0 and f"{tmp_path / folder / 'a.pt'} cannot be written" in said
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_of_locks_that_is_full_ends_in_a_librarys_words(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "none"))
    steps, said = steps_of()
    assert steps == 0 and re.search(r"course-\w+.lock cannot be written \(No such file", said)


@pytest.mark.parametrize("name", ["", ".", "runs", "folder", "runs/folder", os.devnull, "x" * 300])
def test_a_checkpoint_of_an_impossible_name_replaces_something_or_is_noticed_late(name, tmp_path):
    (tmp_path / "runs" / "folder").mkdir(parents=True)
    (tmp_path / "runs" / "folder" / "inside").write_text("")
    steps, said = steps_of(file=name)
    assert steps == 0 and (name in said)
    assert not os.path.isfile(os.devnull) and (tmp_path / "runs" / "folder" / "inside").exists()


@pytest.mark.parametrize("given, file", [("b.pt", "runs/b.pt"), ("runs/b.pt", "runs/b.pt"),
                                         ("x/b.pt", "runs/x/b.pt"), ("/b.pt", "b.pt")])  # fmt: skip
def test_a_checkpoint_lands_elsewhere_than_in_the_runs(given, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(f"{tmp_path}{given}" if given[0] == "/" else given, epochs=1)
    assert (tmp_path / file).is_file() and len(list(tmp_path.rglob("*.pt"))) == 1


def test_a_finished_run_is_not_picked_up_by_the_network_that_it_left(capsys):
    model = define()()

    def decayed(z, y):
        return F.cross_entropy(z, y) + 1e-4 * sum(p.square().sum() for p in model.parameters())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    given = {"model": model, "criterion": decayed, "optimizer": lambda *_, lr: optimizer, "schedule": None}
    _, history = train(**given)
    printed = capsys.readouterr().out.splitlines()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    again, stored = train(**given)
    assert same_weights(again, weights) and stored == history
    out = capsys.readouterr().out.splitlines()
    assert "Picked up from a.pt: 3 of 3" in out[0] and out[1:] == printed
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    _, history = train(**given)  # weights from elsewhere
    out = capsys.readouterr().out.splitlines()
    assert "a.pt holds another run (weights conv.weight differs)" in out[0] and len(out) == 4


def test_a_run_misses_its_own_file_for_what_lies_beside_it(capsys, tmp_path):
    runs = tmp_path / "runs"
    train(epochs=1), train(epochs=1, lr=0.06, schedule=None), train(epochs=1, p=0.4)
    files = {file.name: file.read_bytes() for file in runs.iterdir()}
    assert len(files) == 3
    for damage in (lambda: (runs / "a.pt").write_bytes(b"damaged"), lambda: (runs / "a.pt").unlink()):
        damage()
        for arguments in ({"lr": 0.06, "schedule": None}, {"p": 0.4}):
            capsys.readouterr()
            train(epochs=1, **arguments)
            assert re.match("Picked up from a-[0-9a-f]{8}.pt: 1 of 1", capsys.readouterr().out)
    (runs / "a-12345678.pt").write_bytes(b"damaged")  # a.pt is free, and taken
    (runs / "a-old.pt").write_bytes(b"no candidate")
    train(epochs=1)
    assert "Picked up" not in capsys.readouterr().out and (runs / "a.pt").is_file()
    assert all((runs / name).read_bytes() == data for name, data in files.items() if name != "a.pt")


def test_what_a_killed_process_left_stays_or_what_a_running_one_writes_goes(tmp_path):
    exec(SCRIPT, space := {"__name__": "lesson"})
    process = in_a_process(WAITING, tmp_path)
    assert process.stdout.readline().startswith("epoch  1/6")  # it trains a.pt
    parts = ["a.pt.12.part", "a-0123abcd.pt.99999.part"]
    others = ["b.pt.12.part", "a.pt.12.part.txt", "a.pt.part", "a-old.pt.12.part"]
    for name in (*parts, *others):
        (tmp_path / "runs" / name).write_text("half")
    space["cell"]("a.pt", lr=0.06)
    left = [name for name in os.listdir(tmp_path / "runs") if ".part" in name]
    assert sorted(left) == sorted([parts[0], *others])  # it may be what the process writes just now
    process.kill()
    process.wait()
    process.stdout.close(), process.stdin.close()
    space["cell"]("a.pt", lr=0.06)
    assert not (tmp_path / "runs" / parts[0]).exists()


OF_PYTHON_3_11 = Path(__file__).with_name("checkpoint-of-python-3.11.pt")


def anywhere(file, batches=list):
    """A training that nothing but arithmetic decides, the same under every Python."""
    images = torch.arange(48 * 64.0).view(3, 16, 1, 8, 8) % 11 / 11
    loader = batches(zip(images, (torch.arange(48) % 4).view(3, 16), strict=True))
    return train(file, loader=loader, val=None)


def test_a_checkpoint_of_python_3_11_is_trained_anew_by_another_python_or_with_other_threads(
    tmp_path, capsys
):
    """The file was written by Python 3.11 and PyTorch 2.14, in this folder:

    python -c "import test_checkpoints as t; t.anywhere(t.OF_PYTHON_3_11, t.cut_in_the_second_epoch())"
    """
    saved = torch.load(OF_PYTHON_3_11, weights_only=True)
    (tmp_path / "runs").mkdir()
    shutil.copy(OF_PYTHON_3_11, tmp_path / "runs" / "a.pt")
    number, there = torch.get_num_threads(), int(re.search(r"(\d+) threads", saved["machine"])[1])
    try:
        torch.set_num_threads(there + 1)
        _, history = anywhere("a.pt")
    finally:
        torch.set_num_threads(number)
    out = capsys.readouterr().out
    assert "Picked up from a.pt: 1 of 3 epochs are done." in out and "not bit-identical" in out
    assert history["complete"] and history["loss"][:1] == saved["history"]["loss"]
    assert os.listdir(tmp_path / "runs") == ["a.pt"]
    _, again = anywhere("whole.pt")  # what it ends with is what this Python computes, within rounding
    assert history["loss"] == pytest.approx(again["loss"], rel=1e-3)


def cut_in_the_second_epoch():
    """A kind of list at whose second batch of the second pass Ctrl-C is pressed."""

    class Cut(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            for i, batch in enumerate(super().__iter__()):
                if self.passes == 2 and i == 1:
                    raise KeyboardInterrupt
                yield batch

    return Cut


def test_a_run_of_two_gpus_cannot_be_resumed_on_one(monkeypatch, capsys):
    put = []
    state = torch.zeros(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [state, state])
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, i: put.append(i))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for _ in range(2):
        train(epochs=1)
    assert "Picked up" in capsys.readouterr().out and set(put) == {0}


def test_a_checkpoint_of_an_earlier_course_is_taken_for_this_run(tmp_path, capsys):
    train(epochs=1)
    file = tmp_path / "runs" / "a.pt"
    saved = torch.load(file, weights_only=True)
    saved["fingerprint"] = {"start": "random", "model": "Net()", "code": "[...]", "loader": "48 images"}
    torch.save(saved, file)
    train(epochs=1)
    assert "a.pt holds another run" in capsys.readouterr().out


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


def unfreeze(model):
    model.requires_grad_(True)


def test_layers_unfrozen_under_the_same_name_are_picked_up_and_do_not_move(capsys):
    outs = []
    for _ in range(2):
        model, _ = train(epochs=2, before=freeze)
        before = model.conv.weight.clone()
        train(epochs=2, model=model, before=unfreeze)
        assert not torch.equal(model.conv.weight, before)
        outs.append(capsys.readouterr().out)
        checkpoints.LEFT.clear()  # a new kernel
    assert "Picked up" not in outs[0] and "trains on from the weights of a.pt" in outs[0]
    assert "a.pt holds another run (tensors: conv.weight" in outs[0]
    assert outs[1].count("Picked up from") == 2


def test_the_command_and_a_cell_of_the_same_recipe_are_two_runs(monkeypatch, capsys, tmp_path):
    from course_utils import experiment
    from course_utils.models import MODELS
    from course_utils.recipes import fit_arguments, recipe

    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    data = Arrays(
        np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28), np.uint8),
        np.arange(60) % 10,
        tuple("0123456789"),
        digest="none",
    )
    values = recipe("lenet", "mnist", "smoke") | {"limit": None, "epochs": 1}
    monkeypatch.setattr(experiment, "load_arrays", lambda name, split: data)
    monkeypatch.setattr(experiment, "recipe", lambda *_: values)

    def command():
        experiment.train("lenet", "mnist")

    def cell():
        settings.seed_all(0)
        model = MODELS["lenet"](**values["network"])
        facts = {"shift": values["shift"], "sizes": values["sizes"]}
        loaders = experiment.make_loaders((data, data), values["batch_size"], **facts)
        arguments = fit_arguments(model, values, len(loaders.train))
        fit(model, loaders.train, val=loaders.val, checkpoint="lenet-arrays-smoke-s0.pt", **arguments)

    for first, second in ((command, cell), (cell, command)):
        monkeypatch.setenv("COURSE_RUNS", str(tmp_path / first.__name__))
        first()
        capsys.readouterr()
        second()
        assert "Picked up from lenet-arrays-smoke-s0.pt: 1 of 1" in capsys.readouterr().out


def test_a_pair_of_runs_under_one_name_forgets_the_first_when_the_data_changed(capsys):
    data = {"loader": DataLoader(TensorDataset(X, Y), 16)}
    (
        train(epochs=1, **data),
        train(epochs=1, **batches()),
        train(epochs=1, **data),
        train(epochs=1, **batches()),
    )
    assert capsys.readouterr().out.count("Picked up from a") == 2
