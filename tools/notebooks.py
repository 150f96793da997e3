"""Tools for the lessons: python tools/notebooks.py COMMAND [names or arguments].

course      run every lesson in `smoke`, train LeNet-5 on all of MNIST, print a summary, render the lessons
lab         copy the lessons without outputs into work/ and open JupyterLab there (further arguments are JupyterLab's)
render      write the committed lessons as HTML to build/
execute     run lessons in `cpu` and commit-ready store outputs, stamp and times (default: all of them)
results     write the ledger's numbers into the lessons' prose and the README
badges      write each lesson's Colab badge and set-up cell, and the README's badges, from pyproject's repository
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from base64 import b64decode
from datetime import date
from pathlib import Path

import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's package
from course_utils.settings import whole  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
COLAB = """\
# Only on Colab: fetch the course and what it needs; elsewhere this cell does nothing.
import os
import subprocess
import sys
from importlib.util import find_spec

KEEP_IN_DRIVE = False  # True: checkpoints go to your Drive and outlive the machine
if "google.colab" in sys.modules:
    course = "/content/{name}"
    if not os.path.isdir(course):
        subprocess.run(["git", "clone", "--depth", "1", "{url}", course], check=True)
    needed = ("huggingface_hub", "platformdirs", "pyarrow", "safetensors")
    missing = [p for p in needed if find_spec(p) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing], check=True)
    sys.path.insert(0, course)
    os.chdir(course + "/notebooks")
    if KEEP_IN_DRIVE:
        from google.colab import drive

        drive.mount("/content/drive")
        os.environ["COURSE_RUNS"] = "/content/drive/MyDrive/deep-dive-into-cnns"
    print("Edit > Clear all outputs hides what the stored run printed.")
"""


def read(path: Path) -> nbformat.NotebookNode:
    """A lesson."""
    return nbformat.read(path, as_version=4)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a lesson to a temporary name, then rename."""
    with whole(path) as part:
        nbformat.write(notebook, part)


def lessons(names: list[str] = ()) -> list[Path]:
    """The lessons whose file names begin with one of `names`, in order; all of them without names."""
    found = sorted(p for p in LESSONS.glob("*.ipynb") if not names or p.name.startswith(tuple(names)))
    return found or sys.exit(
        f"no lesson begins with {' or '.join(names)}; there are {[p.stem for p in lessons()]}"
    )


def repository() -> str:
    """The address in pyproject, OWNER/REPO until the repository is named."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]


def code_sha256(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 over the syntax trees of the code cells, but for the one tagged setup-colab."""
    cells = [
        c for c in notebook.cells if c.cell_type == "code" and "setup-colab" not in c.metadata.get("tags", [])
    ]
    return hashlib.sha256("\n".join(ast.dump(ast.parse(c.source)) for c in cells).encode()).hexdigest()


def run(path: Path, profile: str) -> tuple[nbformat.NotebookNode, float]:
    """The lesson run from the top in a fresh kernel with an empty COURSE_RUNS, and the seconds it took."""
    notebook = read(path)
    with tempfile.TemporaryDirectory() as empty:
        env = os.environ | {"COURSE_PROFILE": profile, "COURSE_RUNS": empty, "CI": "1"}
        client = NotebookClient(
            notebook,
            timeout=None,
            coalesce_streams=True,
            kernel_name="python3",
            resources={"metadata": {"path": str(LESSONS)}},
        )
        began = time.perf_counter()
        client.execute(env=env)
    return notebook, time.perf_counter() - began


def picture(cell: nbformat.NotebookNode) -> bytes:
    """The PNG that a cell drew."""
    return b64decode(next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})))


def execute(names: list[str]) -> None:
    """Run lessons in `cpu` and store them with their outputs, stamp and times."""
    from course_utils.ledger import folder, write_json
    from course_utils.settings import processor

    times_file = folder("results") / "lessons.json"
    for path in lessons(names):
        print(f"{path.stem} ...", flush=True)
        notebook, seconds = run(path, "cpu")
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        today = date.today().isoformat()
        notebook.metadata.course = {
            "profile": "cpu",
            "code_sha256": code_sha256(notebook),
            "executed_on": today,
        }
        write(notebook, path)
        for cell in notebook.cells:
            if "readme-picture" in cell.metadata.get("tags", []):
                path.with_suffix(".png").write_bytes(picture(cell))
        times = json.loads(times_file.read_text(encoding="utf-8")) if times_file.is_file() else {}
        times[path.stem] = {"minutes": round(seconds / 60, 1), "processor": processor(), "date": today}
        write_json(times, times_file)
        print(f"{path.stem}: {seconds / 60:.1f} minutes")


def copies() -> Path:
    """Put the lessons, without outputs, into work/; a copy that the learner has changed stays as it is."""
    folder = ROOT / "work"
    folder.mkdir(exist_ok=True)
    record = folder / ".copies.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for path in lessons():
        notebook, target = read(path), folder / path.name
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        text = nbformat.writes(notebook) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        yours = target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() != known.get(path.name)
        if yours:
            newer = known.get(path.name) != digest
            print(
                f"work/{path.name} is kept: you have worked in it.", "Rename it to get the newer one." * newer
            )
            continue
        target.write_text(text, encoding="utf-8", newline="\n")
        known[path.name] = digest
    record.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return folder


def lab(arguments: list[str]) -> None:
    """Open JupyterLab on the copies."""
    folder = copies()
    print(f"Open the lessons in {folder.name}/: yours to change; git pull never touches them.")
    sys.exit(subprocess.call([sys.executable, "-m", "jupyterlab", *arguments], cwd=folder))


def render(names: list[str]) -> None:
    """Write lessons as HTML to build/: formulas as MathML, pictures with their alt text, nothing from a network."""
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab")
    (ROOT / "build").mkdir(exist_ok=True)
    for path in lessons(names):
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                pieces = re.split(r"(`+.*?`+)", cell.source, flags=re.DOTALL)  # code is no formula
                for i in range(0, len(pieces), 2):
                    text = re.sub(
                        r"\$\$(.+?)\$\$", lambda m: convert(m[1], display="block"), pieces[i], flags=re.DOTALL
                    )
                    pieces[i] = re.sub(r"\$(.+?)\$", lambda m: convert(m[1]), text)
                cell.source = "".join(pieces)
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    png, alt = output.data["image/png"].replace("\n", ""), cell.metadata.get("alt", "")
                    output.data = {"text/html": f'<img alt="{alt}" src="data:image/png;base64,{png}">'}
        html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        html = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
        (ROOT / "build" / f"{path.stem}.html").write_text(html, encoding="utf-8")
        print(f"build/{path.stem}.html")


def results(_: list[str]) -> None:
    """Write the ledger's numbers into the lessons' prose and the README."""
    from prose import rewrite

    readme = ROOT / "README.md"
    readme.write_text(rewrite(readme.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    for path in lessons():
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = rewrite(cell.source)
        write(notebook, path)


def badge(path: Path) -> str:
    """The Markdown of a lesson's Colab badge."""
    where = repository().removeprefix("https://github.com/")
    service = "https://colab.research.google.com"
    link = f"{service}/github/{where}/blob/main/notebooks/{path.name}"
    return f"[![Open in Colab]({service}/assets/colab-badge.svg)]({link})"


def badges(_: list[str]) -> None:
    """Write each lesson's Colab badge and set-up cell, and the README's badges."""
    old = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*?([^/)]*)\)")  # its group: the file name
    readme = ROOT / "README.md"
    text = old.sub(lambda m: badge(LESSONS / m[1]), readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")
    for path in lessons():
        notebook, url = read(path), repository()
        notebook.cells[0].source = old.sub(lambda m, p=path: badge(p), notebook.cells[0].source)
        for cell in notebook.cells:
            if "setup-colab" in cell.metadata.get("tags", []):
                cell.source = COLAB.format(url=url, name=url.split("/")[-1]).rstrip()
        write(notebook, path)


def course(_: list[str]) -> None:
    """Run every lesson in `smoke`, train LeNet-5 on all of MNIST, print a summary, render the lessons."""
    rows = []
    for path in lessons():
        print(f"{path.stem} in smoke ...", flush=True)
        rows.append((path.stem, f"every cell ran, {run(path, 'smoke')[1]:.0f} s in smoke"))
    os.environ["COURSE_PROFILE"] = "cpu"
    from course_utils.experiment import train

    result = train("lenet", "mnist")
    test = result["test"]
    rows.append(("LeNet-5 on MNIST", f"{test['top1']:.2%} of {test['total']:,} test images right"))
    rows.append(
        ("", f"{60 * result['minutes']:.0f} s of training, {result['epochs']} epochs, {result['precision']}")
    )
    render([])
    print("\n" + "\n".join(f"{left:<24}{right}" for left, right in rows))
    print(f"{'Read the lessons':<24}build/*.html\n{'Work in them':<24}make lab")


if __name__ == "__main__":
    commands = {f.__name__: f for f in (course, lab, render, execute, results, badges)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](sys.argv[2:])
