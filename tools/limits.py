"""What a lesson may hold: `python tools/limits.py [names]` counts each lesson and says what it breaks.

An exercise is a Markdown cell that begins `**05.2 Write** ★ 5 minutes. ` (star: core) and the code cell that
belongs to it, if any, right after it; both are tagged `exercise`. Its solution is a section `## 05.2 Write: ...`
of the notebook with the lesson's name in notebooks/solutions/.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

LESSONS = Path(__file__).resolve().parents[1] / "notebooks"
WORDS = {"04": 4000, "06": 4000, "07": 4000, "08": 4000}  # of prose; every other lesson:
MOST_WORDS, MOST_CELLS, CELL_WORDS, EXERCISE_WORDS = 4500, 65, 200, 900
KINDS = ("Predict", "Write", "Find the bug", "Try", "Explain")
NEEDED = KINDS[:4]  # at least once each
MARKER = re.compile(rf"\*\*(\d\d\.\d+) ({'|'.join(KINDS)})\*\*( ★)? (\d+) minutes?\. ")
LIKE_A_MARKER = re.compile(rf"[>\s]*\*\*(\d\d\.\d|{'|'.join(KINDS)})\b")
CHECKED = re.compile(r"^(check_\w+\([mM]y\w+\)|predict\(.+\))\s*$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> list[dict]:
    """The cells of a notebook, each with its source as one string and its tags as a list."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [plain(cell) for cell in cells]


def plain(cell: dict) -> dict:
    """A cell of the file: kind, source, tags, and what it printed."""
    printed = "".join("".join(output.get("text", "")) for output in cell.get("outputs", []))
    return {
        "code": cell["cell_type"] == "code",
        "source": "".join(cell["source"]),
        "tags": cell["metadata"].get("tags", []),
        "printed": printed,
    }


def words(text: str) -> int:
    """Words of a Markdown text; a formula is one; comments, tags and addresses are none."""
    text = re.sub(r"<!--.*?-->|</?\w[^>]*>", " ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\$\$.+?\$\$|\$[^$\n]+\$", " formula ", text, flags=re.DOTALL)
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def parts(cells: list[dict]) -> tuple[list[dict], list[dict], list[dict]]:
    """The cells up to the references: all, those of prose, and the exercises' Markdown."""
    end = next((i for i, c in enumerate(cells) if re.search(r"^## Further reading", c["source"], re.M)), None)
    cells = cells[:end]
    texts = [cell for cell in cells if not cell["code"]]
    return (
        cells,
        [c for c in texts if "exercise" not in c["tags"]],
        [c for c in texts if "exercise" in c["tags"]],
    )


def counts(cells: list[dict]) -> dict[str, int]:
    """Words of prose, cells, exercises and their words."""
    cells, prose, exercises = parts(cells)
    return {
        "words": sum(words(cell["source"]) for cell in prose),
        "cells": sum("exercise" not in cell["tags"] for cell in cells),
        "exercises": len(exercises),
        "exercise words": sum(words(cell["source"]) for cell in exercises),
    }


def problems(cells: list[dict], number: str) -> list[str]:
    """What a lesson's cells break; number: the two digits of its file's name."""
    found, have = [], counts(cells)
    most = {"words": WORDS.get(number, MOST_WORDS), "cells": MOST_CELLS, "exercise words": EXERCISE_WORDS}
    found += [f"{have[what]:,} {what}, at most {n:,}" for what, n in most.items() if have[what] > n]
    for cell in parts(cells)[1]:
        if (n := words(cell["source"])) > CELL_WORDS:
            found.append(f"a cell of {n} words, at most {CELL_WORDS}: {cell['source'][:40]!r}")
    return found + rules(cells, number) + sections(cells)


def rules(cells: list[dict], number: str) -> list[str]:
    """What the exercises of a lesson break."""
    found, marks = [], []
    everything = "\n".join(cell["source"] for cell in cells if cell["code"])
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        tagged, text = "exercise" in cell["tags"], cell["source"]
        mark = None if cell["code"] else MARKER.match(text)
        if not cell["code"] and bool(mark) != tagged:
            found.append(
                f"an exercise has a tag `exercise` and begins '**05.2 Write** ★ 5 minutes. ': {text[:40]!r}"
            )
        elif not cell["code"] and not tagged and LIKE_A_MARKER.match(text):
            found.append(f"looks like an exercise and is none: {text[:40]!r}")
        if not mark:
            continue
        marks.append(mark)
        label, kind = mark[1], mark[2]
        answer = after["source"] if after and after["code"] and "exercise" in after["tags"] else ""
        hints, least = (
            len(re.findall(r"<details><summary>", text)),
            2 if kind in ("Write", "Find the bug") else 1,
        )
        if not least <= hints <= 3 or len(re.findall("</details>", text)) != hints:
            found.append(f"{label} has {hints} folded hints, expected {least} to 3")
        if kind in ("Predict", "Write") and "..." not in answer:
            found.append(f"{label} has no cell tagged `exercise` with `...` after it")
        if kind == "Write" and not CHECKED.search(answer):
            found.append(f"{label} does not end in check_...(my_...)")
        if kind == "Predict" and f'predict("{label}"' not in everything:
            found.append(f'{label} is never revealed by predict("{label}", ...)')
        if after and answer and re.search("^Correct|You are right", after["printed"], re.M):
            found.append(f"{label} is committed solved")
    labels, kinds = [mark[1] for mark in marks], Counter(mark[2] for mark in marks)
    if labels != [f"{number}.{i + 1}" for i in range(len(marks))]:
        found.append(f"exercises are numbered {', '.join(labels)}")
    if not 5 <= len(marks) <= 9:
        found.append(f"{len(marks)} exercises, expected five to nine")
    if 2 * kinds["Write"] > len(marks):
        found.append(f"{kinds['Write']} of {len(marks)} exercises are Write, at most half")
    if (starred := sum(bool(mark[3]) for mark in marks)) != 3:
        found.append(f"{starred} exercises are starred, expected three")
    return found + [f"no exercise of the kind {kind}" for kind in NEEDED if not kinds[kind]]


def sections(cells: list[dict]) -> list[str]:
    """Where more than two numbered sections pass without an exercise."""
    has = {}
    section = None
    for cell in parts(cells)[0]:
        if "exercise" in cell["tags"] and section:
            has[section] = True
        for section in re.findall(r"^## (\d+) ", "" if cell["code"] else cell["source"], re.M):
            has[section] = False
    run = "".join("x" if exercise else "-" for exercise in has.values())
    return [f"sections {m.start() + 1} to {m.end()} have no exercise" for m in re.finditer("-{3,}", run)]


def solution_problems(cells: list[dict], solutions: list[dict]) -> list[str]:
    """What the solutions' notebook breaks: a section for each exercise, explained, its check saying Correct."""
    expected = [
        m[1] + " " + m[2] for c in cells if "exercise" in c["tags"] and (m := MARKER.match(c["source"]))
    ]
    found, sections = [], {}
    for cell in solutions[1:]:
        if not cell["code"] and (
            head := re.match(rf"## (\d\d\.\d+ ({'|'.join(KINDS)})): \S", cell["source"])
        ):
            sections[head[1]] = []
        if sections:
            list(sections.values())[-1].append(cell)
    if list(sections) != expected:
        return [f"solutions of {', '.join(sections)}; exercises {', '.join(expected)}"]
    for label, own in sections.items():
        asked = [cell for cell in own if cell["code"] and CHECKED.search(cell["source"])]
        if sum(words(cell["source"]) for cell in own if not cell["code"]) < 20:
            found.append(f"{label} is not explained")
        if not asked and label.split(" ", 1)[1] in ("Predict", "Write"):
            found.append(f"{label} is not checked")
        for cell in asked:
            checks = "check_" in cell["source"]
            if checks and "nbval-check-output" not in cell["tags"]:
                found.append(
                    f"{label}: the check's cell has no tag `nbval-check-output`, nobody would notice"
                )
            if not re.search("^Correct" if checks else r"You\sare\sright", cell["printed"], re.M):
                found.append(f"{label} is not right: {cell['printed'][:80]!r}")
    return found


def report(path: Path) -> list[str]:
    """All that a lesson and its solutions break."""
    cells, solutions = read(path), path.parent / "solutions" / path.name
    found = problems(cells, path.name[:2])
    if solutions.is_file():
        return found + solution_problems(cells, read(solutions))
    return found + ["no solutions"] * bool(counts(cells)["exercises"])


if __name__ == "__main__":
    for lesson in sorted(LESSONS.glob("*.ipynb")):
        if not sys.argv[1:] or lesson.name.startswith(tuple(sys.argv[1:])):
            print(
                lesson.stem, ", ".join(f"{n:,} {what}" for what, n in counts(read(lesson)).items()), sep=": "
            )
            print(*(f"  {problem}" for problem in report(lesson)), sep="\n")
