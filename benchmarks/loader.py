"""TensorLoader against torch's DataLoader with the same augmentation by PIL: the loader alone, the whole loop, accuracy.

python benchmarks/loader.py        on an idle machine; about 15 minutes on two cores; writes loader.json and loader.md

The usual code: torchvision's MNIST, RandomCrop(28, padding=2) on PIL images, ToTensor, Normalize, DataLoader, without
workers and with two. It draws the same shifts by up to two pixels as TensorLoader. All train LeNet-5 by the recipe of
`cpu`, same split, same precision, same loop. loop_ratio: TensorLoader's loop against the faster of the usual ones.

Time to 99.0 % of validation, in one run. The usual program: that set without shifts, the faster DataLoader in batches of
64, Adam at 0.001, float32, an epoch at a time until it is there. Ours: TensorLoader without shifts, the recipe's
optimizer and schedule over OUR_EPOCHS epochs with the peak at OUR_LR (chosen on two other seeds). Seconds of training, without validation and without reading the set.
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
TARGET, TARGET_SEEDS, OUR_EPOCHS, OUR_LR, USUAL_EPOCHS = 0.99, (0, 1, 2), 4, 0.1, 20


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


def usual_program(mnist: datasets.MNIST, loaders: Loaders, seed: int, workers: int) -> dict:
    """Seconds of training and epochs until validation is at TARGET, by the usual code; null where it is never."""
    settings.seed_all(seed)
    net, spent = MODELS["lenet"]().to(settings.device()), 0.0
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=0.001), torch.nn.CrossEntropyLoss()
    batches = DataLoader(mnist, 64, shuffle=True, num_workers=workers)
    for epoch in range(1, USUAL_EPOCHS + 1):
        began = time.perf_counter()
        for x, y in batches:
            x, y = x.to(settings.device()), y.to(settings.device())
            optimizer.zero_grad()
            criterion(net(x), y).backward()
            optimizer.step()
        spent += time.perf_counter() - began
        top1 = evaluate(net, loaders.val)["top1"]
        net.train().to(memory_format=torch.contiguous_format)
        if top1 >= TARGET:
            return {"seconds": spent, "epochs": epoch, "top1": top1}
    return {"seconds": None, "epochs": USUAL_EPOCHS, "top1": top1}


def our_program(loaders: Loaders, seed: int) -> dict:
    """The same by `fit`: all of its epochs count, for its schedule needs them all."""
    settings.seed_all(seed)
    net = MODELS["lenet"]()
    train_loader = make_loaders("mnist", RECIPE["batch_size"], seed=seed).train
    fitting = fit_arguments(net, RECIPE | {"peak_lr": OUR_LR, "epochs": OUR_EPOCHS}, len(train_loader))
    history = fit(net, train_loader, **fitting)
    spent = sum(len(train_loader.arrays) / rate for rate in history["images_per_second"])
    top1 = evaluate(net, loaders.val)["top1"]
    return {"seconds": spent if top1 >= TARGET else None, "epochs": OUR_EPOCHS, "top1": top1}


def time_to_target(loaders: Loaders, workers: int) -> dict:
    """Both programs in turn, seed by seed; ratio: of the medians, null where a run never got there."""
    norm = transforms.Normalize(loaders.train.mean, loaders.train.std)
    mnist = usual_set(loaders.train.arrays, [transforms.ToTensor(), norm])
    pairs = [
        (usual_program(mnist, loaders, seed, workers), our_program(loaders, seed)) for seed in TARGET_SEEDS
    ]
    usual, ours = ([pair[i] for pair in pairs] for i in (0, 1))
    found = {"target": TARGET, "workers": workers, "usual": usual, "ours": ours, "ratio": None}
    if all(run["seconds"] for run in usual + ours):
        medians = [statistics.median(run["seconds"] for run in runs) for runs in (usual, ours)]
        found |= {"usual_seconds": medians[0], "our_seconds": medians[1], "ratio": medians[0] / medians[1]}
    return found


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
    sides = {"dataloader": lambda seed: usual[0], "dataloader_workers": lambda seed: usual[2]}
    sides["tensorloader"] = lambda seed: make_loaders("mnist", RECIPE["batch_size"], seed=seed, shift=2).train
    for name, make in sides.items():
        runs = [train(make(seed), loaders, seed) for seed in SEEDS]
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
    rates = {name: out[name]["images_per_second"] for name in sides}
    out["loop_ratio"] = rates["tensorloader"] / max(rates["dataloader"], rates["dataloader_workers"])
    out["to_target"] = time_to_target(loaders, 2 if rates["dataloader_workers"] > rates["dataloader"] else 0)
    folder = ledger.folder("benchmarks")
    ledger.write_json(out, folder / "loader.json")
    lines = [
        "| loader | alone, images/s | whole loop, images/s | minutes | validation top-1, 95 % interval |",
        "|" + "---|" * 5,
    ]
    titles = {
        "DataLoader, no workers": ("dataloader", "dataloader_0"),
        "DataLoader, two workers": ("dataloader_workers", "dataloader_2"),
        "TensorLoader": ("tensorloader", "tensorloader"),
    }
    for name, (key, first) in titles.items():
        row = out[key]
        interval = f"{100 * row['top1_low']:.2f} to {100 * row['top1_high']:.2f} %"
        lines.append(
            f"| {name} | {out['alone'][first]['images_per_second']:,} | {row['images_per_second']:,} "
            f"| {row['minutes']:.1f} | {row['top1']:.2%}, {interval} |"
        )
    lines += [
        "",
        f"| to {TARGET:.1%} of validation | seconds of training, by seed | epochs |",
        "|" + "---|" * 3,
    ]
    for name, key in (("the usual program", "usual"), ("TensorLoader and the recipe", "ours")):
        runs = out["to_target"][key]
        seconds_by_seed = ", ".join(f"{run['seconds']:.1f}" if run["seconds"] else "never" for run in runs)
        lines.append(f"| {name} | {seconds_by_seed} | {', '.join(str(run['epochs']) for run in runs)} |")
    if out["to_target"]["ratio"]:
        lines += ["", f"Medians: {out['to_target']['ratio']:.1f} times as fast."]
    where = f"{out['machine']['cpu']}, {out['machine']['cores']} cores, {out['precision']}, {out['date']}"
    lines += ["", f"Seeds of the loop: {len(SEEDS)}. {where}."]
    (folder / "loader.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
