"""tools/notebooks.py: nothing that a learner did is lost, and what is rendered needs no network."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks as tools  # noqa: E402


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A checkout with one small lesson."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.setattr(tools, "LESSONS", tmp_path / "notebooks")
    put_lesson(tmp_path, "1 + 1")
    return tmp_path


def put_lesson(root, code):
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells = [
        nbformat.v4.new_markdown_cell(
            "# 00 Sums\n\nHere $a_1 + b$ is `cost: $5, $6`.\n\n$$\\frac{a}{b}$$", id="a"
        ),
        nbformat.v4.new_code_cell(code, outputs=[picture], execution_count=1, id="b"),
    ]
    cells[1].metadata.alt = "A picture of a sum"
    tools.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks" / "00_sums.ipynb")


def test_copies_have_no_outputs_and_follow_the_course(course):
    copy = tools.copies() / "00_sums.ipynb"
    cell = tools.read(copy).cells[1]
    assert (cell.source, cell.outputs, cell.execution_count) == ("1 + 1", [], None)
    put_lesson(course, "2 + 2")
    tools.copies()
    assert tools.read(copy).cells[1].source == "2 + 2"


def test_a_copy_that_the_learner_changed_is_never_overwritten(course, capsys):
    copy = tools.copies() / "00_sums.ipynb"
    copy.write_text(copy.read_text().replace("1 + 1", "my answer"))
    put_lesson(course, "2 + 2")
    for _ in range(2):
        tools.copies()
        assert "my answer" in copy.read_text()
        assert "is kept" in capsys.readouterr().out


def test_a_file_of_that_name_that_the_course_did_not_write_is_kept(course):
    (course / "work").mkdir()
    (course / "work" / "00_sums.ipynb").write_text("mine")
    tools.copies()
    assert (course / "work" / "00_sums.ipynb").read_text() == "mine"


def test_rendered_lesson_needs_no_network_and_keeps_formulas_code_and_alt_text(course):
    tools.render([])
    html = (course / "build" / "00_sums.html").read_text(encoding="utf-8")
    assert html.count("<math") == 2 and html.count('display="block"') == 1 and "cost: $5, $6" in html
    assert 'alt="A picture of a sum"' in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"']?(https?:)?//", html)


def test_code_hash_sees_code_and_not_comments_prose_or_the_colab_cell(course):
    path = course / "notebooks" / "00_sums.ipynb"
    hashes = []
    for code in ("1 + 1", "1 + 1  # two", "1 + 2"):
        put_lesson(course, code)
        hashes.append(tools.code_sha256(tools.read(path)))
    assert hashes[0] == hashes[1] != hashes[2]
    notebook = tools.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell("anything", metadata={"tags": ["setup-colab"]}))
    assert tools.code_sha256(notebook) == hashes[2]


def test_a_lesson_whose_cell_fails_is_not_stored(course):
    put_lesson(course, "1 / 0")
    before = (course / "notebooks" / "00_sums.ipynb").read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        tools.execute([])
    assert (course / "notebooks" / "00_sums.ipynb").read_bytes() == before
