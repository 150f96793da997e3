"""doctor: one screen that names what is amiss."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils import doctor, settings

ROOT = Path(__file__).resolve().parents[1]
ROWS = "Python packages torch device profile mnist fashion cifar100 cifar10 runs work cache disk".split()


def command(tmp_path, *words, fakes=(), **environment):
    """Exit code, output and errors of `python -m course_utils`, with fake modules before the real ones."""
    (tmp_path / "fakes").mkdir(exist_ok=True)
    for name, code in fakes:
        (tmp_path / "fakes" / f"{name}.py").write_text(code)
    kept = {k: v for k, v in os.environ.items() if k not in ("COURSE_DATA", "COURSE_PROFILE")}
    env = kept | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "fakes"), str(ROOT)])} | environment
    done = subprocess.run(
        [sys.executable, "-m", "course_utils", *words], env=env, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_a_sound_machine_is_called_ill_or_needs_two_screens(monkeypatch, capsys):
    monkeypatch.delenv("COURSE_PROFILE")
    code = doctor.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert code == 0 and lines[-1] == "All is well."
    assert [line[2:12].strip() for line in lines[:-1]] == ROWS and all(
        line[:2] == "  " for line in lines[:-1]
    )
    said = dict(zip(ROWS, (line[12:] for line in lines), strict=False))
    assert said["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert "they fit each other" in said["torch"] and settings.precision() in said["device"]
    assert said["profile"] == "cpu (the default)" and "whole, as published: folder" in said["mnist"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder with MNIST, which is looked at first."""
    shutil.copytree(
        ROOT / "data" / "MNIST", tmp_path / "mine" / "MNIST", ignore=shutil.ignore_patterns("*-ubyte")
    )
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "mine"))
    return tmp_path / "mine" / "MNIST" / "raw"


def test_a_cut_file_is_called_whole_and_the_next_checks_are_not_made(data, monkeypatch, capsys):
    file = data / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    monkeypatch.setenv("COURSE_RUNS", str(file))
    assert doctor.doctor() == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = {line[2:12].strip(): line[12:] for line in lines if line.startswith("! ")}
    assert [line[2:12].strip() for line in lines[:-1]] == ROWS and lines[-1] == "To mend: the lines with !"
    assert sorted(wrong) == ["mnist", "profile", "runs"]
    assert str(file) in wrong["mnist"] and "COURSE_PROFILE is 'fast'" in wrong["profile"]
    assert "may not be written" in wrong["runs"]


def test_half_a_set_is_called_whole(data, monkeypatch):
    for file in data.glob("t10k*"):
        file.unlink()
    monkeypatch.setattr(settings, "checkout", lambda: None)
    monkeypatch.setattr("course_utils.data.sources.checkout", lambda: None)
    with pytest.raises(ValueError, match="only one of training and test set is in folder mine"):
        doctor.data_set("mnist")


def test_a_full_disk_goes_unnoticed(monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**11, 10**11 - 10**9, 10**9)
    )
    with pytest.raises(ValueError, match="1.0 GB free .*expected 2"):
        doctor.disk()


def test_a_missing_torch_is_a_traceback(tmp_path):
    hide = (
        "sitecustomize",
        "import sys\nsys.modules |= dict.fromkeys(('torch', 'torchvision', 'numpy', 'tqdm'))\n",
    )
    code, out, err = command(tmp_path, "doctor", fakes=[hide])
    assert code == 1 and err == ""
    assert "! packages  missing. Install: python -m pip install numpy tqdm\n" in out
    assert "! torch     missing. Install: python -m pip install torch torchvision\n" in out
    assert len(out.splitlines()) == 5


def test_torch_and_torchvision_of_two_sources_are_not_recognised(tmp_path):
    broken = ("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    code, out, err = command(tmp_path, "doctor", fakes=[broken])
    (line,) = (line for line in out.splitlines() if line.startswith("! torch"))
    assert (
        code == 1 and err == "" and "do not fit: both must be of one source" in line and "pip install" in line
    )
    assert "  mnist     whole" in out


@pytest.mark.parametrize("module", ["matplotlib", "torch", "platformdirs"])
def test_ctrl_c_while_the_command_still_imports_is_a_traceback(tmp_path, module):
    words = "train --model lenet --data mnist".split()
    code, out, err = command(tmp_path, *words, fakes=[(module, "raise KeyboardInterrupt")])
    assert (code, out) == (1, "")
    assert err == "course_utils: stopped; the same command goes on where it was.\n"
