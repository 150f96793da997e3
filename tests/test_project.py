"""The project's files agree with each other."""

import re
import subprocess
import tomllib
from pathlib import Path

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


def test_repository_stands_once_and_badges_follow_it():
    url = PROJECT["urls"]["Repository"]
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    badges = re.findall(r"research\.google\.com/github/(.+?)/blob/main/notebooks/([\w.]+)\)", readme)
    assert badges and {where for where, _ in badges} == {url.removeprefix("https://github.com/")}
    assert all((ROOT / "notebooks" / name).is_file() for _, name in badges)


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
