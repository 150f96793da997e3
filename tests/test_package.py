"""The package as a whole: who imports whom, its size, its annotations, its wheel."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "course_utils"
FILES = {".".join(f.relative_to(PACKAGE).with_suffix("").parts): f for f in sorted(PACKAGE.rglob("*.py"))}
LAYERS = (
    "settings",
    "data",
    "explain plots models from_scratch",
    "probe",
    "fingerprint",
    "checkpoints",
    "checks",
    "training",
    "recipes variants ledger transfer",
    "experiment doctor exercises",
    "__main__",
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names.split()}
TAUGHT = {  # defined in a lesson's cell, word for word: no annotations
    "training": {"train_epoch", "evaluate", "fit"},
    "recipes": {"sgd", "triangular"},
}


def tree(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imported(name):
    """The modules that a module imports, anywhere in it; those of the package without its name."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            inside = node.module == "course_utils"
            found |= {f"course_utils.{alias.name}" for alias in node.names} if inside else {node.module}
    return {module.removeprefix("course_utils.") for module in found}


def roots(name):
    return {module.split(".")[0] for module in imported(name)}


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_one_of_a_higher_layer(name):
    if name == "__init__":
        assert imported(name) == set()
        return
    own = name.split(".")[0]
    assert own in LAYER, f"{name} has no layer: see the design, who may import whom"
    higher = [m for m in roots(name) if m in LAYER and LAYER[m] > LAYER[own]]
    assert higher == []


@pytest.mark.parametrize("name", FILES)
def test_a_network_imports_more_than_torch_or_a_numpy_module_torch(name):
    inside = imported(name) - set(sys.stdlib_module_names)
    if name.startswith("models.") and not name.endswith("__init__"):
        assert {module.split(".")[0] for module in inside} <= {"torch"}
    if name.startswith("from_scratch."):
        assert inside <= {"numpy"} | {m for m in FILES if m.startswith("from_scratch.")}


@pytest.mark.parametrize("name", FILES)
def test_a_module_is_too_long_to_be_read(name):
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300


@pytest.mark.parametrize("name", FILES)
def test_a_public_function_that_is_not_taught_has_no_annotations(name):
    if name.startswith(("models.", "from_scratch.", "exercises.lesson")):
        return
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.ClassDef | ast.Module):
            continue
        for f in node.body:
            taught = isinstance(f, ast.FunctionDef) and f.name in TAUGHT.get(name, ())
            if not isinstance(f, ast.FunctionDef) or f.name.startswith("_"):
                continue
            arguments = [
                a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.arg != "self"
            ]
            annotated = [a.annotation is not None for a in arguments] + [f.returns is not None]
            assert not any(annotated) if taught else all(annotated), f"{name}.{f.name}"
            assert ast.get_docstring(f) or name == "data", f"{name}.{f.name} has no docstring"


def python(code, tmp_path, **environment):
    """Run code in a fresh process, in an empty folder; returns its output and the files it left anywhere there."""
    (tmp_path / "cwd").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    places = {"COURSE_RUNS": str(tmp_path / "runs"), "COURSE_CACHE": str(tmp_path / "cache"), "CI": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "cwd", capture_output=True, text=True,
                          env=kept | places | environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [f for place in ("cwd", "runs", "cache") for f in (tmp_path / place).rglob("*")]
    return done.stdout, done.stderr, left


def test_importing_prints_or_writes_or_draws_or_changes_the_seed(tmp_path):
    names = [
        f"course_utils.{n.removesuffix('.__init__')}" for n in FILES if n not in ("__init__", "__main__")
    ]
    code = f"""
import importlib, random
import numpy as np, torch
random.seed(0), np.random.seed(0), torch.manual_seed(0)
def states(): return str((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))
before = states(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
for name in {names}:
    importlib.import_module(name)
assert before == (states(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
"""
    assert python(code, tmp_path, PYTHONPATH=str(ROOT)) == ("", "", [])


def test_a_lesson_in_numpy_waits_for_torch(tmp_path):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "torch.py").write_text("raise SystemExit('torch is imported')")
    code = """
import numpy as np
from course_utils import doctor, ledger, settings, __main__
from course_utils.data import Arrays, load_arrays, validation_split
print(ledger.banner("01", load_arrays("mnist", "test"), numpy_only=True))
"""
    path = os.pathsep.join([str(tmp_path / "fake"), str(ROOT)])
    out, err, _ = python(code, tmp_path, PYTHONPATH=path)
    assert "mnist complete" in out and "device" not in out and err == ""


def test_the_wheel_lacks_a_module_holds_other_things_or_needs_the_checkout(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "course_utils", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("data", "tests", "runs"):  # must stay out
        (source / name).mkdir()
        (source / name / "x.py").write_text("")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as opened:
        names = {n for n in opened.namelist() if ".dist-info/" not in n}
        opened.extractall(tmp_path / "wheel")
    assert names == {f.relative_to(ROOT).as_posix() for f in FILES.values()}
    code = f"""
import numpy as np, torch
import course_utils
from course_utils import settings
from course_utils.data import Arrays, make_loaders
from course_utils.models import MODELS
from course_utils.recipes import sgd
from course_utils.training import evaluate, fit
assert course_utils.__file__.startswith({str(tmp_path / "wheel")!r}) and settings.checkout() is None
draw = np.random.default_rng(0)
train, test = (Arrays(draw.integers(0, 256, (80, 1, 28, 28), np.uint8), np.arange(80) % 10, tuple("0123456789"))
               for _ in range(2))
loaders, model = make_loaders((train, test), 16), MODELS["lenet"]()
history = fit(model, loaders.train, epochs=2, optimizer=sgd(model, 0.01, 0.0), val=loaders.val, checkpoint="a.pt")
assert history["complete"] and len(history["epoch"]) == 2 and evaluate(model, loaders.test)["total"] == 80
"""
    out, err, left = python(code, tmp_path, PYTHONPATH=str(tmp_path / "wheel"))
    assert len(out.splitlines()) == 2 and err == "" and left == [tmp_path / "runs/a.pt"]
