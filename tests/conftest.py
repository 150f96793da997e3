"""The environment of the tests and of the notebooks that they execute; seconds of each notebook at the end."""

import collections
import os
import tempfile

import pytest
from hypothesis import settings

os.environ.setdefault("COURSE_PROFILE", "smoke")
os.environ.setdefault("CI", "1")
FOLDERS = {name: tempfile.TemporaryDirectory(prefix="course-") for name in ("COURSE_RUNS", "COURSE_CACHE")}
os.environ.update({name: folder.name for name, folder in FOLDERS.items()})

settings.register_profile("course", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("course")


def pytest_terminal_summary(terminalreporter):
    seconds = collections.Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        notebook = getattr(report, "nodeid", None) or ""
        if notebook.startswith("notebooks/"):
            seconds[notebook.split("::")[0]] += getattr(report, "duration", 0)
    for notebook, total in sorted(seconds.items()):
        terminalreporter.write_line(f"{total:6.1f} s  {notebook}")


@pytest.fixture(autouse=True)
def environment():
    """What a test sets in the environment ends with it: the notebooks run after the tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout without results, and an empty folder of runs."""
    from course_utils import settings

    monkeypatch.setattr(settings, "checkout", lambda: tmp_path / "checkout")
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    for name in ("data/results", "data/weights", "benchmarks"):
        (tmp_path / "checkout" / name).mkdir(parents=True)
    return tmp_path / "checkout"
