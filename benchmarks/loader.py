"""TensorLoader against torch's DataLoader with the same augmentation by PIL: the loader alone, the whole loop, accuracy.

python benchmarks/loader.py        on an idle machine; about 8 minutes on two cores; writes loader.json and loader.md

The usual code: torchvision's MNIST, RandomCrop(28, padding=2) on PIL pictures, ToTensor, Normalize, DataLoader. It
draws the same shifts by up to two pixels as TensorLoader. Both sides train LeNet-5 by the recipe of `cpu`, same split,
same precision, same loop.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision import datasets, transforms

from course_utils import ledger, settings
from course_utils.data import Loaders, make_loaders
from course_utils.data.arrays import Arrays
from course_utils.models import MODELS
from course_utils.recipes import fit_arguments, recipe
from course_utils.training import evaluate, fit, train_epoch

SEEDS = (0, 1)
RECIPE = recipe("lenet", "mnist", "cpu")


def usual_set(arrays: Arrays, steps: list) -> datasets.MNIST:
    """torchvision's MNIST, unpacked from the committed files, cut to the training split of the course."""
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "MNIST", "raw")
        raw.mkdir(parents=True)
        for file in (settings.checkout() / "data/MNIST/raw").glob("*.gz"):
            (raw / file.name).write_bytes(file.read_bytes())
        mnist = datasets.MNIST(root, download=True, transform=transforms.Compose(steps))
    mnist.data, mnist.targets = torch.from_numpy(arrays.images[:, 0]), torch.from_numpy(arrays.labels)
    return mnist


def seconds(work, repeats: int) -> float:
    """The median of `repeats` times."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def stages(mnist: datasets.MNIST, steps: list) -> dict[str, float]:
    """Milliseconds for a batch of 128 that each stage of the usual code takes."""
    pictures = [Image.fromarray(image.numpy()) for image in mnist.data[:128]]
    cut = [steps[0](picture) for picture in pictures]
    tensors = [steps[1](picture) for picture in cut]
    normal = [(steps[2](tensor), 0) for tensor in tensors]
    work = {
        "array to PIL": lambda: [Image.fromarray(image.numpy()) for image in mnist.data[:128]],
        "shift": lambda: [steps[0](picture) for picture in pictures],
        "to tensor": lambda: [steps[1](picture) for picture in cut],
        "normalise": lambda: [steps[2](tensor) for tensor in tensors],
        "batch": lambda: default_collate(normal),
    }
    return {name: 1000 * seconds(do, 30) for name, do in work.items()}


def train(train_loader, loaders: Loaders, seed: int) -> dict:
    """LeNet-5 by the recipe on batches from `train_loader`, scored on validation."""
    settings.seed_all(seed)
    net = MODELS["lenet"]()
    history = fit(net, train_loader, val=loaders.val, **fit_arguments(net, RECIPE, len(train_loader)))
    scores = evaluate(net, loaders.val)
    found = {
        "correct": scores["correct"],
        "total": scores["total"],
        "images_per_second": history["images_per_second"],
    }
    return found | {"minutes": sum(history["seconds"]) / 60}


def training_step(loaders: Loaders):
    """A function that trains LeNet-5 for one step on one fixed batch."""
    net = MODELS["lenet"]()
    fitting = fit_arguments(net, RECIPE, 1000)
    batch = [next(iter(loaders.train))]
    precision = settings.precision()
    return lambda: train_epoch(net, batch, fitting["criterion"], fitting["optimizer"], precision=precision)


def main() -> None:
    """Measure and write."""
    loaders = make_loaders("mnist", RECIPE["batch_size"], shift=RECIPE["shift"])
    mean, std = loaders.train.mean, loaders.train.std
    steps = [transforms.RandomCrop(28, padding=2), transforms.ToTensor(), transforms.Normalize(mean, std)]
    mnist = usual_set(loaders.train.arrays, steps)
    usual = {
        workers: DataLoader(mnist, RECIPE["batch_size"], shuffle=True, num_workers=workers)
        for workers in (0, 2)
    }
    images = len(mnist)
    out = {
        "what": "LeNet-5 on MNIST",
        "images": images,
        "precision": settings.precision(),
        "seeds": len(SEEDS),
    }
    out |= {"machine": ledger.machine()} | ledger.today_and_commit()
    out["stages_ms"] = stages(mnist, steps)
    alone = {
        f"dataloader_{workers}": images / seconds(lambda d=d: list(d), 3) for workers, d in usual.items()
    }
    alone["tensorloader"] = images / seconds(lambda: list(loaders.train), 3)
    out["alone"] = {name: {"images_per_second": round(rate)} for name, rate in alone.items()}
    out["alone_ratio"] = alone["tensorloader"] / max(alone["dataloader_0"], alone["dataloader_2"])
    out["step_ms"] = 1000 * seconds(training_step(loaders), 50)
    for name, make in (("dataloader", lambda seed: usual[0]), ("tensorloader", None)):
        made = make or (lambda seed: make_loaders("mnist", RECIPE["batch_size"], seed=seed, shift=2).train)
        runs = [train(made(seed), loaders, seed) for seed in SEEDS]
        correct, total = statistics.mean(run["correct"] for run in runs), runs[0]["total"]
        low, high = ledger.wilson(correct, total)
        rate = float(np.median([run["images_per_second"] for run in runs]))
        out[name] = {
            "correct": correct,
            "total": total,
            "top1": correct / total,
            "top1_low": low,
            "top1_high": high,
        }
        out[name] |= {
            "minutes": statistics.mean(r["minutes"] for r in runs),
            "images_per_second": round(rate),
        }
    out["loop_ratio"] = out["tensorloader"]["images_per_second"] / out["dataloader"]["images_per_second"]
    folder = ledger.folder("benchmarks")
    ledger.write_json(out, folder / "loader.json")
    lines = [
        "| loader | alone, images/s | whole loop, images/s | minutes | validation top-1, 95 % interval |",
        "|" + "---|" * 5,
    ]
    for name, key in (("DataLoader, no workers", "dataloader"), ("TensorLoader", "tensorloader")):
        row, first = (
            out[key],
            out["alone"]["dataloader_0" if key == "dataloader" else key]["images_per_second"],
        )
        interval = f"{100 * row['top1_low']:.2f} to {100 * row['top1_high']:.2f} %"
        lines.append(
            f"| {name} | {first:,} | {row['images_per_second']:,} | {row['minutes']:.1f} | {row['top1']:.2%}, {interval} |"
        )
    workers = out["alone"]["dataloader_2"]["images_per_second"]
    where = f"{out['machine']['cpu']}, {out['machine']['cores']} cores, {out['precision']}, {out['date']}"
    lines += [
        "",
        f"With two workers the DataLoader alone gives {workers:,} images/s. Seeds: {len(SEEDS)}. {where}.",
    ]
    (folder / "loader.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
