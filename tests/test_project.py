"""The project's files agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "build": "python-build"}


def requirements():
    extras = PROJECT["optional-dependencies"]
    return [*PROJECT["dependencies"], *extras["notebook"], *extras["dev"]]


def test_dependencies_have_lower_bounds_only():
    for requirement in requirements():
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement


def test_conda_environment_holds_what_pyproject_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    listed = {entry.replace(" ", "") for entry in environment["dependencies"] if isinstance(entry, str)}
    asked = {
        CONDA_NAMES.get(name, name) + bound
        for name, bound in (r.split(">=") for r in requirements())
        for bound in [f">={bound}"]
    }
    assert listed == asked | {"pip", f"python{PROJECT['requires-python']}"}
    assert environment["dependencies"][-1] == {"pip": ["--no-deps --editable ."]}


def test_every_line_of_the_conda_environment_has_its_purpose():
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if re.match(r"  - (?!conda-forge|pip:)", line)]
    assert packages and all(re.search(r"# \w", line) for line in packages)


def test_an_address_of_the_course_stands_where_pyproject_names_none():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = PROJECT.get("urls", {}).get("Repository", "")
    badges = re.findall(r"research\.google\.com/github/(.+?)/blob/main/notebooks/([\w.]+)\)", readme)
    assert {where for where, _ in badges} <= {named.removeprefix("https://github.com/")}
    assert "OWNER" not in readme and bool(badges) == named.startswith("https://github.com/")


def test_makefile_has_the_targets_that_the_readme_repeats():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("course", "test", "lab", "results", "notebooks"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE) and f"make {target}" in readme


def test_only_the_sets_that_may_be_shipped_are_committed():
    listed = subprocess.run(["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True, check=True)
    allowed = (
        r"data/(README\.md|FashionMNIST/LICENSE|(Fashion)?MNIST/raw/[\w-]+\.gz|(weights|results)/[\w.-]+)"
    )
    files = listed.stdout.split()
    assert len([file for file in files if file.endswith(".gz")]) == 8
    assert not [file for file in files if not re.fullmatch(allowed, file)]


STUB = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1 $2" in
"-c "*) echo VERSION ;;
"-m venv") [ "$3" != --clear ] || rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
"-m pip") exit $FAILS ;;
esac
"""


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="make is for Linux and macOS")
def test_a_moved_cut_or_other_pythons_environment_is_believed(tmp_path):
    for name, version in (("python3", "3 11"), ("other", "3 13")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(STUB.replace("VERSION", version))
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "the course").mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "the course")

    def made(*arguments, folder="the course", fails=0):
        """How `make lab` sets up: the arguments of venv; None where it does not."""
        log = tmp_path / "log"
        log.write_text("")
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
        env |= {"PATH": path, "LOG": str(log), "FAILS": str(fails)}
        done = subprocess.run(
            ["make", "lab", *arguments], cwd=tmp_path / folder, env=env, capture_output=True
        )
        assert (done.returncode != 0) == bool(fails)
        said = log.read_text().splitlines()
        assert fails or said[-1] == "tools/notebooks.py lab"
        return next((line for line in said if line.startswith("-m venv")), None)

    anew = "-m venv --clear .venv"
    assert made() == anew and made() is None and made("PYTHON=python3") is None
    assert made("PYTHON=other") == anew and made() is None and made("PYTHON=other") is None
    os.utime(tmp_path / "the course" / "pyproject.toml", (2**32, 2**32))
    assert made() == "-m venv .venv"
    os.utime(tmp_path / "the course" / "pyproject.toml", (1, 1))
    (tmp_path / "the course").rename(tmp_path / "moved")
    assert made(folder="moved") == anew and made(folder="moved") is None
    assert made("PYTHON=other", folder="moved", fails=1) == anew
    assert made(folder="moved") == anew and made(folder="moved") is None
