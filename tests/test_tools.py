"""tools/notebooks.py: nothing that a learner did is lost, and what is rendered needs no network."""

import json
import os
import re
import subprocess
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
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
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


def test_the_image_at_the_top_of_a_copy_is_missing(course):
    (course / "notebooks/00_sums.png").write_bytes(b"a picture")
    assert (tools.copies() / "00_sums.png").read_bytes() == b"a picture"


def test_a_copy_that_the_learner_changed_is_never_overwritten(course, capsys):
    copy = tools.copies() / "00_sums.ipynb"
    copy.write_text(copy.read_text().replace("1 + 1", "my answer"))
    put_lesson(course, "2 + 2")
    for _ in range(2):
        tools.copies()
        assert "my answer" in copy.read_text()
        assert "is kept: you have worked in it" in capsys.readouterr().out


def test_outputs_alone_are_work_and_saving_alone_is_not(course):
    copy = tools.copies() / "00_sums.ipynb"
    notebook = tools.read(copy)
    notebook.metadata.language_info = {"name": "python", "version": "3.99"}  # as JupyterLab saves it
    notebook.cells[1].metadata.editable = True
    tools.write(notebook, copy)
    put_lesson(course, "2 + 2")
    tools.copies()
    notebook = tools.read(copy)
    assert notebook.cells[1].source == "2 + 2"
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="4\n")]
    tools.write(notebook, copy)
    put_lesson(course, "3 + 3")
    tools.copies()
    assert tools.read(copy) == notebook


@pytest.mark.parametrize("text", ["", "{", '{"cells": [{"cell_type": "co', "[]", "mine"])
def test_a_cut_notebook_is_taken_for_the_learners_work_or_lost(course, text, capsys):
    copy = tools.copies() / "00_sums.ipynb"
    copy.write_text(text)
    tools.copies()
    assert tools.read(copy).cells[1].source == "1 + 1"
    (aside,) = (f for f in copy.parent.iterdir() if f != copy)
    assert aside.read_text() == text and aside.name in capsys.readouterr().out


@pytest.mark.parametrize("record", [None, 3, [], "x", {}, {"copied": None}])
def test_a_damaged_record_costs_the_learners_work(course, record, capsys):
    copy = tools.copies() / "00_sums.ipynb"
    fresh = json.loads(copy.read_text())
    fresh["metadata"]["course"] = record
    copy.write_text(json.dumps(fresh))
    tools.copies()
    assert not capsys.readouterr().out and json.loads(copy.read_text())["cells"] == fresh["cells"]
    worked = json.loads(json.dumps(fresh).replace("1 + 1", "my answer"))
    worked["metadata"]["course"] = record
    copy.write_text(json.dumps(worked))
    tools.copies()
    assert "my answer" in copy.read_text() and len(list(copy.parent.iterdir())) == 1


def test_a_copy_is_half_written_where_the_disk_is_full(course, monkeypatch):
    copy = tools.copies() / "00_sums.ipynb"
    before = copy.read_bytes()
    put_lesson(course, "2 + 2")

    def full(notebook, part):
        Path(part).write_text("{")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(nbformat, "write", full)
        with pytest.raises(SystemExit, match="cannot be copied: .*No space left on device") as stop:
            tools.lab([])
    assert "\n" not in str(stop.value)
    assert copy.read_bytes() == before and os.listdir(copy.parent) == [copy.name]
    tools.copies()
    assert tools.read(copy).cells[1].source == "2 + 2"


def test_copies_go_nowhere_where_the_course_may_not_be_written(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "mine"))
    assert tools.copies() == tmp_path / "mine" / "work" and not (course / "work").exists()
    assert (tmp_path / "mine" / "work" / "00_sums.ipynb").is_file()
    assert "may not be written" in capsys.readouterr().out


def test_copies_show_an_answer_the_badge_or_the_colab_cell_or_hide_the_learners_outputs(course):
    path = course / "notebooks" / "00_sums.ipynb"
    notebook = tools.read(path)
    new = nbformat.v4.new_code_cell
    folded = {"jupyter": {"source_hidden": True, "outputs_hidden": True}, "collapsed": True}
    notebook.cells += [
        new("colab", metadata={"tags": ["setup-colab"]}),
        new("the answer", metadata={"tags": ["answers"]}),
        new("a figure", metadata=folded),
        new("a prediction", metadata={"jupyter": {"outputs_hidden": True}}),
    ]
    badge = "[![Open in Colab](https://a.org/b.svg)](https://a.org/c.ipynb)"
    notebook.cells[0].source = f"# 00 Sums\n\n{badge}\n\nText."
    tools.write(notebook, path)
    before = path.read_bytes()
    copy = tools.read(tools.copies() / path.name)
    assert copy.cells[0].source == "# 00 Sums\n\nText."
    assert [cell.source for cell in copy.cells[1:]] == ["1 + 1", "the answer", "a figure", "a prediction"]
    hidden = [dict(cell.metadata.get("jupyter", {})) for cell in copy.cells[1:]]
    assert hidden == [{}, {"source_hidden": True}, {"source_hidden": True}, {}]
    assert not any("collapsed" in cell.metadata for cell in copy.cells)
    assert path.read_bytes() == before


def test_solutions_do_not_lie_beside_the_copies(course):
    (course / "notebooks" / "solutions").mkdir()
    solution = course / "notebooks" / "solutions" / "00_sums.ipynb"
    tools.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 2")]), solution)
    copy = tools.copies() / "solutions" / "00_sums.ipynb"
    assert tools.read(copy).cells[0].source == "x = 2"
    assert [path.parent.name for path in tools.lessons()] == ["notebooks"]


def test_what_jupyter_keeps_in_ipynb_checkpoints_is_taken_for_a_lesson(course):
    for folder in ("notebooks", "notebooks/solutions"):
        (course / folder / ".ipynb_checkpoints").mkdir(parents=True)
        (course / folder / ".ipynb_checkpoints" / "00_sums-checkpoint.ipynb").write_text("{")
    assert [path.name for path in (*tools.lessons(), *tools.solutions())] == ["00_sums.ipynb"]
    collected = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "-q",
        "--collect-only",
        "-p",
        "no:cacheprovider",
    ]
    out = subprocess.run([*collected, "notebooks"], cwd=course, capture_output=True, text=True).stdout
    assert "00_sums.ipynb::" in out and "checkpoint" not in out


@pytest.fixture
def another_kernel(tmp_path, monkeypatch):
    """A home folder with a kernel `python3` that does not run, in a place that is searched first."""
    spec = {
        "argv": [sys.executable, "-c", "raise SystemExit('another')"],
        "display_name": "x",
        "language": "python",
    }
    for folder in ("data", "path"):
        (tmp_path / folder / "kernels" / "python3").mkdir(parents=True)
        (tmp_path / folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "path"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


def test_a_lesson_is_run_or_opened_in_another_environments_kernel(course, another_kernel):
    put_lesson(course, "import sys; print(sys.executable)")
    notebook, _ = tools.run(course / "notebooks" / "00_sums.ipynb", "smoke")
    assert notebook.cells[1].outputs[0].text.strip() == sys.executable
    listed = [
        sys.executable,
        "-m",
        "jupyter_client.kernelspecapp",
        "list",
        "--json",
    ]  # what JupyterLab starts
    with tools.own_kernel():
        specs = json.loads(subprocess.run(listed, capture_output=True, check=True).stdout)["kernelspecs"]
    assert specs["python3"]["spec"]["argv"][0] == sys.executable
    assert os.environ["JUPYTER_PATH"].endswith("path")


def test_the_tests_run_a_lesson_in_another_environments_kernel(course, another_kernel):
    put_lesson(course, f"import sys; assert sys.executable == {sys.executable!r}")
    options = "--nbval-lax --nbval-current-env --nbval-cell-timeout=60 -p no:cacheprovider"
    assert f'addopts = "{options.replace("=60", "=120")}"' in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )
    done = subprocess.run([sys.executable, "-m", "pytest", *options.split(), "notebooks"], cwd=course)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "address", ["https://github.com/a/b", "https://github.com/a/b.git", "https://c.org/a/b", ""]
)
def test_badges_and_addresses_are_not_those_of_the_project_file(course, address):
    path, readme = course / "notebooks" / "00_sums.ipynb", course / "README.md"
    notebook = tools.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell("old", metadata={"tags": ["setup-colab"]}))
    tools.write(notebook, path)
    plain = "| [00 Sums](notebooks/00_sums.ipynb) | adds |\n"
    readme.write_text(plain)
    for named in ("https://github.com/x/y", "", address, address):
        urls = f'[project.urls]\nRepository = "{named}"\n' if named else ""
        (course / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}')
        tools.badges([])
    colab, where = "https://colab.research.google.com", "github/a/b/blob/main/notebooks/00_sums.ipynb"
    badge = (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/{where})" if "github" in address else ""
    )
    first, *_, last = tools.read(path).cells
    title, *rest = notebook.cells[0].source.split("\n")
    assert first.source.split("\n") == [title, *(["", badge] if badge else []), *rest]
    assert f'COURSE = "{address.removesuffix(".git")}"' in last.source
    assert readme.read_text() == (plain.replace(".ipynb)", f".ipynb) {badge}") if badge else plain)


def test_the_colab_cell_acts_elsewhere_or_clones_from_nowhere(monkeypatch):
    exec(tools.COLAB.format(url=""), {})
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    with pytest.raises(ValueError, match="COURSE is empty. Write the repository"):
        exec(tools.COLAB.format(url=""), {})


def test_rendered_lesson_needs_no_network_and_keeps_formulas_code_and_alt_text(course):
    tools.render([])
    html = (course / "build" / "00_sums.html").read_text(encoding="utf-8")
    assert html.count("<math") == 2 and html.count('display="block"') == 1 and "cost: $5, $6" in html
    assert 'alt="A picture of a sum"' in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=[\"']?(https?:)?//", html)


def test_a_rendered_lesson_takes_its_formulas_apart_or_lacks_its_image(course):
    path = course / "notebooks" / "00_sums.ipynb"
    path.with_suffix(".png").write_bytes(b"a picture")
    notebook = tools.read(path)
    notebook.cells[0].source += "\n\n![Three sums](00_sums.png)"
    tools.write(notebook, path)
    tools.render([])
    html = (course / "build" / "00_sums.html").read_text(encoding="utf-8")
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in re.sub("</?mrow>", "", html)
    assert re.search('<img (src="data:image/png;base64,YSBwaWN0dXJl"|alt="Three sums"| )+', html)


def test_rendering_loses_formulas_in_hints_or_takes_prices_for_formulas(course):
    path = course / "notebooks" / "00_sums.ipynb"
    notebook = tools.read(path)
    notebook.cells[0].source = (
        "# 00 Sums\n\n**Write** 5 minutes. How large is $a * b * c$?\n\n"
        "<details><summary>Hint 1: $x_1 < x_2$</summary>Use $w_{ij}$ and `a$b$`.</details>\n"
        "<details><summary>Hint 2</summary>\n\n- **bold** $y_i * z_i$ \n\n$$\\sum_i x_i$$\n\n</details>\n\n"
        "It costs \\$5, or \\$6."
    )
    tools.write(notebook, path)
    tools.render([])
    html = (course / "build" / "00_sums.html").read_text(encoding="utf-8")
    body = html[html.index("5 minutes") :]
    assert body.count("<math") == body.count("</math>") == 5 and body.count("<em>") == 0
    assert body.count("<details>") == body.count("</details>") == 2 and "<strong>bold</strong>" in body
    assert "a$b$" in body and re.search(r"costs \$5, or \$6", body)


def test_what_jupyter_hides_stands_open_on_the_rendered_page(course):
    path = course / "notebooks" / "00_sums.ipynb"
    notebook = tools.read(path)
    for hidden in ("source_hidden", "outputs_hidden"):
        output = nbformat.v4.new_output("stream", text=f"printed by {hidden}")
        cell = nbformat.v4.new_code_cell(f"{hidden}_code", outputs=[output], execution_count=1)
        cell.metadata.jupyter = {hidden: True}
        notebook.cells.append(cell)
    tools.write(notebook, path)
    tools.render([])
    html = (course / "build" / "00_sums.html").read_text(encoding="utf-8")
    folded = re.findall(
        r"<details><summary[^>]*>Show the (code|output)</summary>(.*?)</details>", html, re.DOTALL
    )
    assert [word for word, _ in folded] == ["code", "output"]
    (_, source), (_, output) = folded
    assert "source_hidden_code" in source and "printed by" not in source
    assert "printed by outputs_hidden" in output and "_code" not in output
    outside = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    for shown in ("printed by source_hidden", "outputs_hidden_code", "A picture of a sum"):
        assert shown in outside


def test_a_stored_banner_names_the_execution_before(course):
    banner = "profile cpu, device cpu, took 0.8 minutes on AMD EPYC, 2 cores, mnist complete\n"
    old, new = ({"minutes": m, "processor": p} for m, p in ((0.8, "AMD EPYC, 2 cores"), (1.2, "Intel Xeon")))
    for before, expected in (
        (old, banner.replace("0.8", "1.2").replace("AMD EPYC, 2 cores", "Intel Xeon")),
        (None, banner),
    ):
        cells = [
            nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=banner)])
            for _ in "ab"
        ]
        cells[0].metadata.tags = ["setup"]
        tools.put_banner(nbformat.v4.new_notebook(cells=cells), before, new)
        assert [cell.outputs[0].text for cell in cells] == [expected, banner]


def test_the_code_hash_differs_between_versions_of_python():
    code = (ROOT / "tests" / "hashed.txt").read_text(encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert (
        tools.code_sha256(notebook) == "5c0ad5b4086cf74db5d62be7894fdbf494db377652c0ca5067c5a5766807a7d2"
    )  # by 3.11, 3.12 and 3.13


@pytest.mark.parametrize("a, b", [
    ("f'{x}'", "f'{x} '"), ("None", "()"), ("x[None]", "x[0]"), ("f(1)", "f(a=1)"), ("1", "1.0"), ("'1'", "1"),
    ("lambda a: a", "lambda *a: a"), ("{**a}", "{a: a}"), ("f'{x!r}'", "f'{x!s}'"), ("x = ''", "x = None"),
])  # fmt: skip
def test_the_code_hash_does_not_see_a_change(a, b):
    hashes = [
        tools.code_sha256(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c)])) for c in (a, b)
    ]
    assert hashes[0] != hashes[1]


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
