"""The lessons as committed: hygiene, the guard (what a lesson teaches is what the package holds), markers, links."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from prose import rewrite  # noqa: E402

import notebooks as tools  # noqa: E402

LESSONS, SOLUTIONS = tools.lessons(), tools.solutions()
HOME = re.compile(r"# (course_utils/[\w/]+\.py)\n")
MACHINE_PATH = re.compile(r"/(home|root|Users|tmp|work|content)/|[A-Z]:\\")


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    notebook = tools.read(request.param)
    notebook.path = request.param
    return notebook


def code_cells(lesson):
    return [cell for cell in lesson.cells if cell.cell_type == "code"]


def test_there_are_lessons():
    assert LESSONS


def test_lesson_is_valid_and_its_headings_are_in_order(lesson):
    nbformat.validate(nbformat.from_dict({k: v for k, v in lesson.items() if k != "path"}))
    text = "\n".join(c.source for c in lesson.cells if c.cell_type == "markdown")
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), "a heading skips a level"
    assert lesson.cells[0].source.startswith(f"# {lesson.path.stem[:2]} ")
    numbers = [int(n) for n in re.findall(r"^## (\d+) ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)), "sections are not numbered 1..n"
    assert "## What you have seen" in text and "## Further reading" in text


def test_no_cell_is_empty(lesson):
    assert all(cell.source.strip() for cell in lesson.cells)


def test_cells_fit_a_screen(lesson):
    for cell in code_cells(lesson):
        if not tools.tagged(cell, "setup-colab"):
            lines = cell.source.splitlines()
            assert len(lines) <= (46 if HOME.match(cell.source) else 25), lines[0]
            assert max(map(len, lines)) <= 110, max(lines, key=len)


def test_lesson_is_committed_as_it_ran(lesson):
    assert [c.execution_count for c in code_cells(lesson)] == list(range(1, len(code_cells(lesson)) + 1))
    outputs = [output for cell in code_cells(lesson) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert lesson.metadata.course.profile == "cpu"
    assert lesson.metadata.course.code_sha256 == tools.code_sha256(lesson), "code changed: make notebooks"


def test_lesson_names_no_machine_and_is_small(lesson):
    assert lesson.path.stat().st_size <= 1.5e6
    for cell in lesson.cells:
        if not tools.tagged(cell, "setup-colab"):
            found = cell.source + "".join(o.get("text", "") for o in cell.get("outputs", []))
            assert not MACHINE_PATH.search(found), MACHINE_PATH.search(found)


def test_every_picture_has_a_text_for_those_who_do_not_see_it(lesson):
    for cell in code_cells(lesson):
        if any("image/png" in o.get("data", {}) for o in cell.outputs):
            assert len(cell.metadata.get("alt", "")) > 20, cell.source[:80]


def test_an_image_that_a_lesson_shows_is_not_beside_it(lesson):
    for cell in lesson.cells:
        for file in re.findall(r"!\[[^\]]*\]\((?!https?:)([^)]+)\)", cell.source):
            assert file == Path(file).name and (lesson.path.parent / file).is_file(), file


def test_the_readmes_picture_is_the_lessons(lesson):
    for cell in code_cells(lesson):
        if tools.tagged(cell, "readme-picture"):
            assert lesson.path.with_suffix(".png").read_bytes() == tools.picture(cell)


def test_colab_cell_and_badge_come_from_the_repository_in_pyproject(lesson):
    badge = tools.badge(lesson.path)
    assert badge in lesson.cells[0].source and bool(badge) == ("Open in Colab" in lesson.cells[0].source)
    colab = [cell for cell in lesson.cells if tools.tagged(cell, "setup-colab")]
    assert [c.source for c in colab] == [tools.COLAB.format(url=tools.repository()).rstrip()]
    assert code_cells(lesson)[0] is colab[0] and tools.tagged(code_cells(lesson)[1], "setup")


def definitions(source):
    """The classes and functions at the top of a source, as syntax trees without docstrings."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for part in ast.walk(node):
                body = getattr(part, "body", None)
                if isinstance(part, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(part) is not None:
                    del body[0]
            found[node.name] = ast.dump(node)
    return found


def test_what_a_lesson_teaches_is_what_the_package_holds(lesson):
    for cell in code_cells(lesson):
        if home := HOME.match(cell.source):
            taught, held = definitions(cell.source), definitions((ROOT / home[1]).read_text(encoding="utf-8"))
            assert taught, f"a cell names {home[1]} and defines nothing"
            for name, tree in taught.items():
                assert held.get(name) == tree, f"{name} differs from {home[1]}"


def test_a_home_is_named_in_a_cells_first_line_or_nowhere(lesson):
    for cell in code_cells(lesson):
        assert not HOME.search(cell.source + "\n", 1), cell.source[:80]


@pytest.mark.parametrize(
    ("there", "here"),
    [("return x + 1", "return x + 2"), ("return x", "return (x)"), ("'''Doc.'''; return x", "return x")],
)
def test_the_guard_sees_a_changed_operation_and_only_that(there, here):
    a, b = (definitions(f"def f(x):\n    {body}\n") for body in (there, here))
    assert (a == b) == ("+" not in there)


def test_every_number_in_a_lessons_prose_is_its_files(lesson):
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            assert rewrite(cell.source) == cell.source


def test_every_number_in_the_readme_is_its_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert rewrite(text) == text, "make results"


@pytest.mark.parametrize(
    "path", ["README.md", "data/README.md", *(str(p.relative_to(ROOT)) for p in (*LESSONS, *SOLUTIONS))]
)
def test_links_lead_somewhere(path):
    file = ROOT / path
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in tools.read(file).cells if cell.cell_type == "markdown")
    for target in re.findall(r"(?<!`)\]\(([^)\s]+)\)", text):
        if "://" in target:
            assert re.match(r"https://[\w.-]+\.[a-z]+/", target), target
        else:
            assert (file.parent / target.split("#")[0]).exists(), target
