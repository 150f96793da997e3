"""Tools for the lessons: python tools/notebooks.py COMMAND [names or arguments].

course      run every lesson in `smoke`, train LeNet-5 on all of MNIST, print a summary, render the lessons
lab         copy the lessons and solutions, without outputs, into work/ and open JupyterLab there (further arguments
            are JupyterLab's)
render      write the committed lessons as HTML to build/
execute     run lessons in `cpu` and commit-ready store outputs, stamp and times (default: all of them)
results     write the ledger's numbers into the lessons' prose and the README
badges      write the Colab badges and set-up cells of lessons and README from pyproject's [project.urls] Repository;
            without one there are no badges, and the set-up cell has no address
"""

import ast
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's package
from course_utils.settings import own_folder, whole  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ROOT / "notebooks"
COLAB = """\
# Only on Colab: fetch the course and what it needs; elsewhere this cell does nothing.
import os
import subprocess
import sys
from importlib.util import find_spec

COURSE = "{url}"  # the address of the course's repository, as git clone takes it
KEEP_IN_DRIVE = False  # True: checkpoints go to your Drive and outlive the machine
if "google.colab" in sys.modules:
    if not COURSE:
        raise ValueError("COURSE is empty. Write the repository's address there and run this again.")
    course = "/content/course"
    if not os.path.isdir(course):
        subprocess.run(["git", "clone", "--depth", "1", COURSE, course], check=True)
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


def solutions() -> list[Path]:
    """The solutions, in order."""
    return sorted((LESSONS / "solutions").glob("*.ipynb"))


def tagged(cell: nbformat.NotebookNode, tag: str) -> bool:
    """Whether a cell has the tag."""
    return tag in cell.metadata.get("tags", [])


def code_sha256(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 over the syntax trees of the code cells, but for the one tagged setup-colab; for all versions of Python."""
    cells = [c for c in notebook.cells if c.cell_type == "code" and not tagged(c, "setup-colab")]
    return hashlib.sha256(json.dumps([tree(ast.parse(c.source)) for c in cells]).encode()).hexdigest()


def tree(node: object) -> object:
    """A syntax tree as lists of text, without what differs between versions: empty fields, empty parts of f-strings."""
    if isinstance(node, list):
        return [tree(part) for part in node]
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.JoinedStr):
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    return [type(node).__name__, *([k, tree(v)] for k, v in fields.items() if v is not None and v != [])]


@contextlib.contextmanager
def own_kernel() -> Iterator[None]:
    """While it lasts the kernel `python3` runs in this environment, whatever else has that name on this machine."""
    from ipykernel.kernelspec import write_kernel_spec

    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        write_kernel_spec(f"{folder}/kernels/python3")
        os.environ["JUPYTER_PATH"] = folder + (os.pathsep + before if before else "")  # is searched first
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH")
            os.environ |= {"JUPYTER_PATH": before} if before else {}


def run(path: Path, profile: str) -> tuple[nbformat.NotebookNode, float]:
    """The lesson run from the top in a fresh kernel with an empty COURSE_RUNS, and the seconds it took."""
    notebook = read(path)
    with tempfile.TemporaryDirectory() as empty, own_kernel():
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
        times = json.loads(times_file.read_text(encoding="utf-8")) if times_file.is_file() else {}
        today = date.today().isoformat()
        took = {"minutes": round(seconds / 60, 1), "processor": processor(), "date": today}
        put_banner(notebook, times.get(path.stem), took)
        notebook.metadata.course = {
            "profile": "cpu",
            "code_sha256": code_sha256(notebook),
            "executed_on": today,
        }
        write(notebook, path)
        for cell in notebook.cells:
            if tagged(cell, "readme-picture"):
                with whole(path.with_suffix(".png")) as part:
                    part.write_bytes(picture(cell))
        write_json(times | {path.stem: took}, times_file)
        print(f"{path.stem}: {seconds / 60:.1f} minutes")


def put_banner(notebook: nbformat.NotebookNode, before: dict | None, now: dict) -> None:
    """Let the banner that a lesson printed name this execution's time and processor, not those of the one before."""
    old, new = (t and f"took {t['minutes']} minutes on {t['processor']}" for t in (before, now))
    for cell in notebook.cells:
        for output in cell.get("outputs", []) if old and tagged(cell, "setup") else []:
            output.text = output.get("text", "").replace(old, new)


def for_learners(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A lesson without outputs, badge and Colab cell, folded where a definition answers an exercise; its digest inside."""
    notebook.cells = [cell for cell in notebook.cells if not tagged(cell, "setup-colab")]
    notebook.cells[0].source = with_badge(notebook.cells[0].source, "")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            folded = cell.metadata.pop("jupyter", {}).get("source_hidden") or tagged(cell, "answers")
            cell.metadata.pop("collapsed", None)  # the learner's own outputs are to be seen
            if folded:
                cell.metadata.jupyter = {"source_hidden": True}
    notebook.metadata.course = {"copied": content(notebook)}
    return notebook


def content(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 over what a learner may have put into a copy: sources and outputs."""
    cells = [[cell.cell_type, cell.source, cell.get("outputs", [])] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def copies() -> Path:
    """Put lessons and solutions, for learners, into work/; a copy that the learner has changed stays as it is.

    What is no readable notebook is set aside. Returns the folder. Raises OSError where a copy cannot be written.
    """
    folder = own_folder(ROOT / "work")
    for path in [*lessons(), *solutions()]:
        target, new = folder / path.relative_to(LESSONS), for_learners(read(path))
        if target.exists():
            try:
                old = read(target)
                course = old.metadata.get("course")
                made = course.get("copied") if isinstance(course, dict) else None
                changed = content(old) not in (made, new.metadata.course.copied)
            except OSError:
                raise
            except Exception:  # nbformat raises many kinds for what is no notebook
                aside = target.with_name(f"{target.stem}-unreadable-{time.time_ns()}{target.suffix}")
                target.rename(aside)
                print(
                    f"{target} is no readable notebook: it is now {aside.name}, and a new copy takes its place."
                )
                changed = False
            if changed:
                if made != new.metadata.course.copied:
                    print(f"{target} is kept: you have worked in it. Rename it to get the newer one.")
                continue
        write(new, target)
    for picture in LESSONS.glob("*.png"):
        with whole(folder / picture.name) as part:
            part.write_bytes(picture.read_bytes())
    return folder


def lab(arguments: list[str]) -> None:
    """Open JupyterLab on the copies."""
    try:
        folder = copies()
    except OSError as error:
        sys.exit(
            f"The lessons cannot be copied: {error}. Mend that and run it again; nothing is half-written."
        )
    print(f"Open the lessons in {folder}: yours to change; git pull never touches them.")
    with own_kernel():
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *arguments], cwd=folder)
        while server.returncode is None:
            with contextlib.suppress(KeyboardInterrupt):  # JupyterLab gets it too, and asks
                server.wait()
    sys.exit(server.returncode)


def data_uri(path: Path) -> str:
    """A PNG file as an address that holds it. (nbconvert's embed_images takes formulas apart.)"""
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"


FOLDED = """\
{% extends "lab/index.html.j2" %}
{% macro folded(hidden, words, text) -%}
{% if hidden %}<details><summary class="jp-RenderedHTMLCommon folded">{{ words }}</summary>{% endif %}{{ text }}{% if hidden %}</details>{% endif %}
{%- endmacro %}
{% block html_head_css %}{{ super() }}<style>.folded {padding-left: 80px}</style>{% endblock %}
{% block input_group %}{{ folded(cell.metadata.get("jupyter", {}).source_hidden, "Show the code", super()) }}{% endblock %}
{% block output_group %}{{ folded(cell.metadata.get("jupyter", {}).outputs_hidden, "Show the output", super()) }}{% endblock %}
"""


def render(names: list[str]) -> None:
    """Write lessons as HTML to build/: formulas as MathML, pictures with their alt text, nothing from a network.

    What is hidden in Jupyter is folded.
    """
    from jinja2 import DictLoader
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", extra_loaders=[DictLoader({"folded.html.j2": FOLDED})])
    exporter.template_file = "folded.html.j2"
    (ROOT / "build").mkdir(exist_ok=True)
    for path in lessons(names):
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                pieces = re.split(r"(`+.*?`+|\\\$)", cell.source, flags=re.DOTALL)  # code is no formula
                for i in range(0, len(pieces), 2):
                    text = re.sub(
                        r"\$\$(.+?)\$\$", lambda m: convert(m[1], display="block"), pieces[i], flags=re.DOTALL
                    )
                    text = re.sub(r"\$(.+?)\$", lambda m: convert(m[1]), text)
                    pieces[i] = re.sub(
                        r"(?<=\]\()[\w-]+\.png(?=\))", lambda m: data_uri(LESSONS / m[0]), text
                    )
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
    text = rewrite(readme.read_text(encoding="utf-8"))
    with whole(readme) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    for path in lessons():
        notebook = read(path)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = rewrite(cell.source)
        write(notebook, path)


def repository() -> str:
    """The address under [project.urls] Repository in pyproject; empty until there is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").removesuffix("/").removesuffix(".git")


def badge(path: Path) -> str:
    """The Markdown of a lesson's Colab badge; empty without a repository that Colab opens."""
    where, service = repository(), "https://colab.research.google.com"
    if not where.startswith("https://github.com/"):
        return ""
    link = where.replace("https://github.com", f"{service}/github")
    return f"[![Open in Colab]({service}/assets/colab-badge.svg)]({link}/blob/main/notebooks/{path.name})"


BADGE = r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)"


def with_badge(text: str, badge: str) -> str:
    """A lesson's first cell with this badge below its title, or, where it is empty, with none."""
    title, _, rest = re.sub(rf"\n*{BADGE}", "", text).partition("\n")
    return "\n".join([title, *(["", badge] if badge else []), *([rest] if rest else [])])


def badges(_: list[str]) -> None:
    """Write each lesson's Colab badge and set-up cell, and the README's badges, each after its link to the lesson."""
    readme = ROOT / "README.md"
    text = re.sub(rf" *{BADGE}", "", readme.read_text(encoding="utf-8"))
    link = re.compile(r"\]\(notebooks/(\w+\.ipynb)\)")
    text = link.sub(lambda m: f"{m[0]} {badge(LESSONS / m[1])}".rstrip(), text)
    with whole(readme) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    for path in lessons():
        notebook = read(path)
        notebook.cells[0].source = with_badge(notebook.cells[0].source, badge(path))
        for cell in notebook.cells:
            if tagged(cell, "setup-colab"):
                cell.source = COLAB.format(url=repository()).rstrip()
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
    print("\n" + "\n".join(f"{left:<32}{right}" for left, right in rows))
    print(f"{'Read the lessons':<32}build/*.html\n{'Work in them':<32}make lab")


if __name__ == "__main__":
    commands = {f.__name__: f for f in (course, lab, render, execute, results, badges)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    try:
        commands[sys.argv[1]](sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit("Stopped; what is written is whole.")
