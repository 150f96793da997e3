"""How fast the four networks train: the whole loop, the precision, the usual code, and images/s by width and size.

python benchmarks/networks.py                 on an idle machine with CIFAR-100; about 15 minutes on two cores; writes
                                              networks.json and networks.md
python benchmarks/networks.py --only ones     a minute: GoogLeNet with its 1 x 1 convolutions one by one

Each network as in its recipe of `cpu` for CIFAR-100, batches of 128. Bare step: forward, backward and optimizer step on
one fixed batch. Whole loop: `fit` on TensorLoader with shift and flip. Usual code: torchvision's CIFAR100, RandomCrop
and RandomHorizontalFlip on PIL pictures, ToTensor, Normalize, DataLoader (the faster of no and two workers), float32,
no channels_last. Bare step and loop take turns; a figure is the median of the rounds, a ratio that of the round's pairs.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from course_utils import ledger, settings
from course_utils.data import TensorLoader, make_loaders
from course_utils.data.arrays import Arrays, take
from course_utils.data.sources import folders
from course_utils.models import MODELS, label
from course_utils.models.googlenet import Inception, convolution
from course_utils.recipes import fit_arguments, recipe
from course_utils.settings import autocast
from course_utils.training import fit

NETWORKS = ("alexnet", "vgg", "googlenet", "resnet")
BATCH, STEPS, ROUNDS, WARM = 128, 30, 6, 3
WIDTHS = {
    "alexnet": [{"width": w} for w in (1 / 4, 1 / 3, 3 / 8, 1 / 2, 3 / 4)],
    "vgg": [{"width": w} for w in (1 / 4, 3 / 8, 1 / 2, 3 / 4)],
    "googlenet": [{"width": w} for w in (1 / 8, 1 / 4, 3 / 8, 1 / 2)],
    "resnet": [{"width": 1}, {"width": 2}, {"depth": 8, "width": 2}, {"depth": 8, "width": 4}],
}
SIZES = (20, 24, 28, 32)


def bare_steps(net: nn.Module, values: dict, x: torch.Tensor, y: torch.Tensor, precision: str):
    """A function that trains `net` for n steps on one batch and returns the images/s."""
    net.to(settings.device(), memory_format=torch.channels_last).train()
    fitting = fit_arguments(net, values, 10**6)
    criterion, optimizer = fitting["criterion"], fitting["optimizer"]

    def run(n: int) -> float:
        began = time.perf_counter()
        for _ in range(n):
            with autocast(precision):
                loss = criterion(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits for a graphics card
        return n * len(y) / (time.perf_counter() - began)

    run(WARM)
    return run


def whole_loop(net: nn.Module, values: dict, loader: TensorLoader, precision: str):
    """A function that runs `fit` for one epoch and returns its images/s."""

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            fitting = fit_arguments(net, values | {"epochs": 1}, len(loader))
            history = fit(net, loader, precision=precision, **fitting)
        return history["images_per_second"][0]

    run()
    return run


def usual_loop(
    net: nn.Module, batches: Iterable, steps: int, layout=torch.contiguous_format, precision="float32"
) -> float:
    """The plain training loop, usually in float32 and NCHW: images/s over `steps` batches after a few uncounted."""
    net.to(settings.device(), memory_format=layout).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    criterion, images = nn.CrossEntropyLoss(), 0
    for i, (x, y) in enumerate(itertools.islice(batches, WARM + steps)):
        if i == WARM:
            began = time.perf_counter()
        x, y = x.to(settings.device()), y.to(settings.device())
        optimizer.zero_grad()
        with autocast(precision):
            loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
        images += len(y) if i >= WARM else 0
    return images / (time.perf_counter() - began)


def usual_loaders(mean: tuple, std: tuple) -> list[DataLoader]:
    """The usual code's loaders, without and with two workers."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    root = next(folder for folder in folders() if (folder / "cifar-100-python").is_dir())
    cifar = datasets.CIFAR100(root, transform=transforms.Compose(steps))
    return [DataLoader(cifar, BATCH, shuffle=True, num_workers=n) for n in (0, 2)]


def matrix_rates(precision: str, side: int = 4096) -> dict[str, float]:
    """GFLOP/s of a product of two square matrices, and of the same product as a 1 x 1 convolution.

    torch leaves float32 products to MKL and convolutions to oneDNN: one machine, two rates.
    """
    kind = getattr(torch, precision)
    a, b = (torch.randn(side, side, dtype=kind, device=settings.device()) for _ in range(2))
    image = a.view(1, side, -1, 64).contiguous(memory_format=torch.channels_last)
    kernel = b.view(side, side, 1, 1)
    work = {"product": lambda: a @ b, "convolution": lambda: torch.nn.functional.conv2d(image, kernel)}
    rates = {}
    for name, multiply in work.items():
        times = []
        for _ in range(7):
            began = time.perf_counter()
            multiply()[..., 0, 0].sum().item()
            times.append(time.perf_counter() - began)
        rates[name] = 2 * side**3 / statistics.median(times[2:]) / 1e9
    return rates


def flops_an_image(net: nn.Module, x: torch.Tensor) -> float:
    """Floating-point operations of one training step, forward and backward, for one image."""
    counter = FlopCounterMode(display=False)
    with counter:
        net.to(x.device)(x).sum().backward()
    return counter.get_total_flops() / len(x)


def measure(name: str, loader: TensorLoader, usual: list[DataLoader], precisions: list[str]) -> dict:
    """One network's row."""
    values = recipe(name, "cifar100", "cpu")
    network = {"num_classes": 100, "in_channels": 3, **values["network"]}
    x, y = next(iter(loader))
    row = {
        "label": label(name, values["network"]),
        "gflop_an_image": flops_an_image(MODELS[name](**network), x) / 1e9,
    }
    for precision in precisions:
        bare = bare_steps(MODELS[name](**network), values, x, y, precision)
        loop = whole_loop(MODELS[name](**network), values, loader, precision)
        rounds = []
        for i in range(ROUNDS):  # in turn, who is first
            pair = [bare(STEPS), loop()] if i % 2 else [loop(), bare(STEPS)][::-1]
            rounds.append(pair)
        row[precision] = {
            "bare": statistics.median(b for b, _ in rounds),
            "loop": statistics.median(w for _, w in rounds),
            "loop_ratio": statistics.median(w / b for b, w in rounds),
            "loop_ratio_rounds": [round(w / b, 3) for b, w in rounds],
        }
        row[precision]["gflops"] = row[precision]["bare"] * row["gflop_an_image"]
    runs = [[usual_loop(MODELS[name](**network), batches, STEPS) for _ in range(3)] for batches in usual]
    row["usual"] = max(statistics.median(rates) for rates in runs)
    row["usual_ratio"] = row[precisions[-1]]["loop"] / row["usual"]
    row["usual_ratio_float32"] = row["float32"]["loop"] / row["usual"]
    row["precision_ratio"] = row[precisions[-1]]["bare"] / row["float32"]["bare"]
    return row


def by_width(precisions: list[str]) -> list[dict]:
    """Images/s of the bare step by network, width, size and precision."""
    rows = []
    for name, network in ((n, network) for n in NETWORKS for network in WIDTHS[n]):
        for precision in precisions:
            row = {"label": label(name, network), "network": network, "model": name, "precision": precision}
            for size in SIZES:
                values = recipe(name, "cifar100", "cpu") | {"network": network}
                x = torch.randn(BATCH, 3, size, size).to(settings.device(), memory_format=torch.channels_last)
                y = (torch.arange(BATCH) % 100).to(settings.device())
                run = bare_steps(MODELS[name](**network), values, x, y, precision)
                row[str(size)] = round(statistics.median(run(3) for _ in range(ROUNDS)))
            rows.append(row)
            print(row, flush=True)
    return rows


class OneByOne(nn.Module):
    """An Inception module whose 1 x 1 convolutions of the same input are computed one by one, as the paper draws it."""

    def __init__(self, module: Inception):
        super().__init__()
        channels = module.ones[0].in_channels
        self.ones = nn.ModuleList(convolution(channels, c, 1, batch_norm=True) for c in module.widths)
        self.branch3, self.branch5 = module.branch3, module.branch5
        self.branch_pool = module.branch_pool

    def forward(self, x):
        one, into_3, into_5 = (block(x) for block in self.ones)
        return torch.cat([one, self.branch3(into_3), self.branch5(into_5), self.branch_pool(x)], dim=1)


def ones_as_one(precision: str) -> dict:
    """GoogLeNet's bare step, the 1 x 1 convolutions that share an input as one and one by one: images/s by size."""
    values = recipe("googlenet", "cifar100", "cpu")
    rows = {}
    for size in SIZES:
        x = torch.randn(BATCH, 3, size, size).to(settings.device(), memory_format=torch.channels_last)
        y = (torch.arange(BATCH) % 100).to(settings.device())
        as_one, apart = (MODELS["googlenet"](100, 3, **values["network"]) for _ in range(2))
        for name, module in apart.inception.items():
            apart.inception[name] = OneByOne(module)
        runs = [bare_steps(net, values, x, y, precision) for net in (as_one, apart)]
        pairs = [[run(5) for run in runs] for _ in range(ROUNDS)]
        ratios = [a / b for a, b in pairs]
        rows[str(size)] = {
            "as_one": statistics.median(a for a, _ in pairs),
            "one_by_one": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(ratios),
            "rounds": [round(ratio, 3) for ratio in ratios],
        }
    return {"sizes": rows, "precision": precision, "machine": ledger.machine(), **ledger.today_and_commit()}


def table(out: dict) -> str:
    """networks.md."""
    best = out["precisions"][-1]
    lines = [
        f"| network (CIFAR-100, 32 pixels, batch 128) | bare step, {best}, images/s | whole loop / bare step, range"
        f" | the same in float32 | {best} / float32 | GFLOP/s in {best}, float32 | share of the product rate "
        "| whole loop / usual code | in float32 alike |",
        "|" + "---|" * 9,
    ]
    for row in out["networks"].values():
        fast, plain = row[best], row["float32"]
        ratios = [
            f"{r['loop_ratio']:.3f}, {min(r['loop_ratio_rounds']):.3f} to {max(r['loop_ratio_rounds']):.3f}"
            for r in (fast, plain)
        ]
        shares = [
            f"{row[p]['gflops'] / max(out['matrix_gflops'][p].values()):.0%}" for p in (best, "float32")
        ]
        lines.append(
            f"| {row['label']} | {fast['bare']:,.0f} | {ratios[0]} | {ratios[1]} | {row['precision_ratio']:.2f} "
            f"| {fast['gflops']:,.0f}, {plain['gflops']:,.0f} | {', '.join(shares)} | {row['usual_ratio']:.2f} | {row['usual_ratio_float32']:.2f} |"
        )
    rates = "; ".join(
        f"{name}: {rate['product']:,.0f} as a product, {rate['convolution']:,.0f} as a 1 x 1 convolution"
        for name, rate in out["matrix_gflops"].items()
    )
    lines += ["", f"Two 4096 x 4096 matrices are multiplied at (GFLOP/s) {rates}."]
    lines += [
        "torch leaves float32 products to MKL and convolutions to oneDNN, hence two rates. Shares: of the larger.",
        "",
    ]
    lines += [
        "Ratios a little above 1 are as measured; their cause was not looked for (the bare step sees one batch, the loop many).",
        "",
    ]
    lines += ["| bare step, images/s | precision | 20 px | 24 px | 28 px | 32 px |", "|" + "---|" * 6]
    for row in out["by_width"]:
        lines.append(
            f"| {row['label']} | {row['precision']} | " + " | ".join(f"{row[str(s)]:,}" for s in SIZES) + " |"
        )
    lines += ["", f"{where(out)}. Medians of {ROUNDS} rounds; one run of the script.", ""]
    ones = out["ones"]
    lines += [
        "GoogLeNet's bare step, the three 1 x 1 convolutions of an Inception module that see the same input computed "
        f"as one against one by one, {ones['precision']}, images/s:",
        "",
        "| | " + " | ".join(f"{size} px" for size in ones["sizes"]) + " |",
        "|" + "---|" * (1 + len(ones["sizes"])),
    ]
    for key, name in (("as_one", "as one"), ("one_by_one", "one by one")):
        lines.append(f"| {name} | " + " | ".join(f"{row[key]:,.0f}" for row in ones["sizes"].values()) + " |")
    ratios = (
        f"{row['ratio']:.2f}, {min(row['rounds']):.2f} to {max(row['rounds']):.2f}"
        for row in ones["sizes"].values()
    )
    lines.append(f"| ratio, range | {' | '.join(ratios)} |")
    return "\n".join([*lines, "", f"{where(ones)}.", ""])


def where(out: dict) -> str:
    """The machine and the day of a measurement."""
    machine = out["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, {out['date']}"


def everything() -> dict:
    """All but the 1 x 1 convolutions one by one."""
    loaders = make_loaders("cifar100", BATCH, shift=3, flip="alternating")
    train = loaders.train
    few: Arrays = take(train.arrays, np.arange(STEPS * BATCH), complete=False)
    loader = TensorLoader(few, BATCH, train=True, shift=3, flip="alternating", mean=train.mean, std=train.std)
    precisions = list(dict.fromkeys(["float32", settings.precision()]))
    usual = usual_loaders(train.mean, train.std)
    out = {"precisions": precisions, "machine": ledger.machine(), **ledger.today_and_commit()}
    out["matrix_gflops"] = {precision: matrix_rates(precision) for precision in precisions}
    out["networks"] = {}
    for name in NETWORKS:
        out["networks"][name] = measure(name, loader, usual, precisions)
        print(name, out["networks"][name], flush=True)
    return out | {"by_width": by_width(precisions)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("ones",), help="measure this again, keep the rest")
    asked = parser.parse_args()
    os.environ["CI"] = "1"  # no progress bar
    file = ledger.folder("benchmarks") / "networks.json"
    out = json.loads(file.read_text(encoding="utf-8")) if asked.only else everything()
    out["ones"] = ones_as_one(settings.precision())
    ledger.write_json(out, file)
    file.with_suffix(".md").write_text(table(out), encoding="utf-8")


if __name__ == "__main__":
    main()
