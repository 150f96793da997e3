"""The course's figures: one style, a sentence as title that says what to see."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from course_utils.settings import whole

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
STYLE = {  # colours of Okabe & Ito 2008, told apart by colour-blind readers; a white ground in light and dark pages
    **{"figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white"},
    **{"font.size": 10, "axes.titlesize": 11, "figure.titlesize": 11, "figure.dpi": 100},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3},
    **{
        "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, GREY]),
        "legend.frameon": False,
    },
}


@contextlib.contextmanager
def figure(
    title: str,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] = (6, 3.6),
    file: Path | None = None,
    **kwargs,
) -> Iterator:
    """A figure in the course's style with its axes, shown at the end of the block; size in inches.

    file: written as PNG there in the place of being shown. kwargs: plt.subplots'. The title is a sentence that
    says what to see. Nothing is taken from the reader's own rcParams or style: both begin at matplotlib's defaults.
    """
    with plt.style.context(["default", STYLE]):
        fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **kwargs)
        fig.suptitle(title)
        yield axes
        if file is None:
            plt.show()
            return
        with whole(file) as part:
            fig.savefig(part, format="png")
        plt.close(fig)


def show_images(
    images: np.ndarray, titles: Sequence[str], title: str, columns: int = 8, side: float = 1.1
) -> None:
    """Pictures in a grid. images: (N, H, W) or (N, H, W, 3), uint8 or floats 0..1; side: inches of one picture."""
    rows = -(-len(images) // columns)
    lines = max((len(text.splitlines()) for text in titles), default=0)
    height = rows * (1.05 * side + 0.17 * lines) + 0.45
    with figure(title, rows, columns, (side * columns, height), squeeze=False) as axes:
        for ax in axes.flat:
            ax.axis("off")
        for ax, image, text in zip(axes.flat, images, titles, strict=False):
            low_high = (0, 255) if image.dtype == np.uint8 else (0, 1)
            ax.imshow(image, cmap="gray", vmin=low_high[0], vmax=low_high[1])
            ax.set_title(text, fontsize=9)


def show_maps(
    maps: np.ndarray, titles: Sequence[str], title: str, columns: int = 8, side: float = 1.1
) -> None:
    """Filters or feature maps (N, H, W) in a grid on one colour scale, symmetric about white, with its bar.

    titles: one a map, or none at all: [].
    """
    rows, limit = -(-len(maps) // columns), float(np.abs(maps).max()) or 1.0
    height = rows * side * (1.25 if any(titles) else 1.05) + 0.45
    with figure(title, rows, columns, (side * columns + 0.8, height), squeeze=False) as axes:
        for ax in axes.flat:
            ax.axis("off")
        for ax, picture, text in zip(axes.flat, maps, titles or [""] * len(maps), strict=False):
            drawn = ax.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit)
            ax.set_title(text, fontsize=9)
        axes[0, 0].figure.colorbar(drawn, ax=axes, shrink=0.8, label="value")


def show_history(history: dict, title: str, file: Path | None = None) -> None:
    """Loss and error (the images whose top-1 is wrong) of training and validation by epoch; file: as in figure.

    The training loss is the criterion's (label smoothing and auxiliary heads raise it), validation's is cross-entropy.
    """
    with figure(title, 1, 2, (9, 3.4), file) as (left, right):
        for prefix, name, marker in (("", "training", "o"), ("val_", "validation", "s")):
            top1 = np.array(history[prefix + "top1"], dtype=float)
            for ax, values in ((left, history[prefix + "loss"]), (right, 100 * (1 - top1))):
                ax.plot(history["epoch"], values, marker=marker, markersize=3, label=name)
        for ax, label in ((left, "loss (nats)"), (right, "error (% of images wrong)")):
            low, high = ax.dataLim.intervaly
            if 0 < 10 * low < high:
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter("{x:g}")
            ax.set_xlabel("epoch")
            ax.set_ylabel(label)
            ax.legend()
        left.legend(["training", "validation (cross-entropy)"])


def show_confusion(confusion: np.ndarray, classes: Sequence[str], title: str) -> None:
    """How many images of each true class (rows) were taken for another one (columns); right answers left out."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    side = 1.6 + 0.36 * len(classes)
    with figure(title, size=(side, side)) as ax:
        ax.imshow(wrong, cmap="Oranges")
        ax.grid(False)
        slanted = {"rotation": 45, "ha": "right"} if max(map(len, classes)) > 3 else {}
        ax.set_xticks(range(len(classes)), classes, **slanted)
        ax.set_yticks(range(len(classes)), classes)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        for i, j in np.argwhere(wrong > 0):
            dark = wrong[i, j] > 0.6 * wrong.max()
            ax.text(
                j, i, wrong[i, j], ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )
