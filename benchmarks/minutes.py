"""What doubling the time buys: test accuracy on CIFAR-100 against minutes of training, from the ledger.

python benchmarks/minutes.py       writes minutes.png and minutes.json; trains nothing

ResNet at five lengths (variants of its recipe, each with a network as wide as its minutes allow), AlexNet, VGG and
GoogLeNet at one. A point is the mean over the seeds, its bar their standard deviation; minutes are those of the runs that
had the machine alone. They contain the validation after each epoch; `long` is scored once.
"""

import statistics

from course_utils import ledger, plots
from course_utils.models import label

LENGTHS = ("four-minutes", "eight-minutes", None, "long", "hour")
OTHERS = ("alexnet", "vgg", "googlenet")


def point(model: str, variant: str | None = None) -> dict | None:
    """Minutes and test top-1 of a recipe's runs in the profile cpu; none where no run had the machine alone."""
    key = "-".join(filter(None, (model, "cifar100", "cpu", variant)))
    runs = ledger.recorded(key)
    alone = [run["minutes"] for run in runs if run.get("alone", True)]
    if not alone:
        return None
    top1 = [run["test"]["top1"] for run in runs]
    return {
        "key": key,
        "label": label(model, runs[0]["recipe"]["network"]),
        "epochs": runs[0]["epochs"],
        "seeds": len(runs),
        "minutes": statistics.mean(alone),
        "top1": statistics.mean(top1),
        "deviation": statistics.stdev(top1) if len(top1) > 1 else None,
        "cpu": sorted({run["machine"]["cpu"] for run in runs if run.get("alone", True)}),
    }


def draw(line: list[dict], others: list[dict], file) -> None:
    """The figure."""
    gain = (line[-1]["top1"] - line[0]["top1"]) * 100
    title = (
        f"From {line[0]['minutes']:.0f} to {line[-1]['minutes']:.0f} minutes ResNet gains {gain:.1f} points"
    )
    with plots.figure(title, size=(8, 4.2), file=file) as ax:
        x, y = ([p[key] for p in line] for key in ("minutes", "top1"))
        ax.plot(x, [100 * value for value in y], color=plots.BLUE, linewidth=1)
        best = max(others, key=lambda p: p["top1"], default=None)
        for p in [*line, *others]:
            of_line = p in line
            color = plots.BLUE if of_line else plots.ORANGE
            bar = 100 * p["deviation"] if p["deviation"] else None
            ax.errorbar(p["minutes"], 100 * p["top1"], yerr=bar, fmt="o", color=color, capsize=3)
            ax.annotate(
                f"{p['label']}, {p['epochs']} epochs",
                (p["minutes"], 100 * p["top1"]),
                xytext=(-6 if of_line else 8, 6 if of_line or p is best else -6),
                textcoords="offset points",
                ha="right" if of_line else "left",
                va="bottom" if of_line or p is best else "top",
                fontsize=7.5,
            )
        ax.set_xscale("log")
        ticks = (4, 8, 15, 30, 60)
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlim(1.1, 110)
        ax.margins(y=0.1)
        ax.set_xlabel("minutes of training on two cores")
        ax.set_ylabel("test top-1 (%)")


def main() -> None:
    """Read, write, draw."""
    line = [found for variant in LENGTHS if (found := point("resnet", variant))]
    others = [found for model in OTHERS if (found := point(model))]
    file = ledger.folder("benchmarks") / "minutes.json"
    ledger.write_json({"resnet": line, "others": others}, file)
    draw(line, others, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
