"""Figures: shown or written, and looked at by people."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_utils import plots


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(len(plt.gcf().axes)))
    yield calls
    plt.close("all")


def test_a_figure_is_neither_shown_nor_written(shown, tmp_path):
    with plots.figure("a title", 1, 2) as (left, right):
        left.plot([1, 2])
    assert shown == [2] and right.figure.get_suptitle() == "a title"
    file = tmp_path / "a.png"
    with plots.figure("a title", file=file) as ax:
        ax.plot([1, 2])
    assert shown == [2] and [f.name for f in tmp_path.iterdir()] == ["a.png"]
    assert plt.imread(file).shape[2] == 4 and not plt.fignum_exists(ax.figure.number)


def test_the_curves_are_not_the_historys(shown):
    history = {
        "epoch": [1, 2],
        "loss": [2.0, 1.0],
        "val_loss": [2.5, 1.5],
        "top1": [0.5, 0.75],
        "val_top1": [0.25, 0.5],
    }
    plots.show_history(history, "a title")
    left, right = plt.gcf().axes
    assert [list(line.get_ydata()) for line in left.lines] == [[2, 1], [2.5, 1.5]]
    assert [list(line.get_ydata()) for line in right.lines] == [[50, 25], [75, 50]]
    said = [text.get_text() for text in left.get_legend().get_texts()]
    assert said == ["training", "validation (cross-entropy)"]
    assert [line.get_label() for line in right.lines] == ["training", "validation"]
    assert left.get_yscale() == right.get_yscale() == "linear"
    plots.show_history(history | {"val_loss": [2.5, 0.1]}, "more than a decade")
    assert [ax.get_yscale() for ax in plt.gcf().axes] == ["log", "linear"]


def draw(file):
    history = {
        "epoch": [1, 2],
        "loss": [2, 1],
        "val_loss": [3, 2],
        "top1": [0.5, 0.7],
        "val_top1": [0.2, 0.5],
    }
    plots.show_history(history, "a title", file)
    return plt.imread(file)


def test_a_figure_takes_colours_or_sizes_from_the_readers_style(tmp_path):
    plain = draw(tmp_path / "a.png")
    styles = [
        "dark_background",
        {"font.size": 20, "savefig.dpi": 30, "lines.linewidth": 9, "axes.grid.axis": "x"},
    ]
    with plt.style.context(styles):
        before = dict(plt.rcParams)
        assert np.array_equal(draw(tmp_path / "b.png"), plain)
        assert dict(plt.rcParams) == before
    assert plain[0, 0].tolist() == [1, 1, 1, 1]


def test_maps_without_titles_stop_the_lesson(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    plots.show_maps(np.ones((3, 4, 4)), [], "Three maps without a word", columns=2)
    drawn = [image for ax in plt.gcf().axes for image in ax.images]
    assert len(drawn) == 3
    plt.close("all")
