"""NumPy against loops, torch and scikit-learn; and what the networks of lessons 01 and 03 reach on MNIST.

python benchmarks/from_scratch.py [PART ...]   on an idle machine with Linux; about 8 minutes on two cores

Parts: linear, convolution, memory, epoch, race; numpy_mlp and numpy_cnn, three seeds each, into the ledger
(a seed that is there with the same recipe is not repeated). Writes from_scratch.json and from_scratch.md
after each part. What is there is left out; a part that is named is measured anew.

All in float32. Contestants take turns; a time is the median of the rounds. Loops are timed on one image or
two rows; all times are per image or row. Images lie in memory as the layer before leaves them: (C, H, W, N)
for NumPy, (N, C, H, W) for torch. Memory: how much a process grows in one forward pass over 512 images.
OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, where they are set, slow a current NumPy: both are removed first.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_info

from course_utils import ledger
from course_utils.data import Arrays, load_arrays, mean_and_std, validation_split
from course_utils.from_scratch.conv import (
    Conv2d,
    Flatten,
    MaxPool,
    conv_einsum,
    conv_loops,
    conv_loops_backward,
    images_last,
)
from course_utils.from_scratch.nn import Linear, ReLU, Sequential, SoftmaxCrossEntropy, logits, shifted, train
from course_utils.from_scratch.optim import SGD, one_cycle

SLOW = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
SEEDS, ROUNDS, BATCH, TARGET = range(3), 5, 32, 0.98
MAPS, KERNELS, SIDE, KERNEL = 16, 32, 14, 3  # the second convolution of the CNN, padded by 1
RECIPES = {
    "numpy_mlp": {
        "version": 1,
        "title": "MLP in NumPy",
        "network": {"hidden": 512},
        "batch_size": 128,
        "peak_lr": 0.1,
        "weight_decay": 1e-4,
        "shift": 1,
        "epochs": 12,
    },
    "numpy_cnn": {
        "version": 1,
        "title": "CNN in NumPy",
        "network": {"maps": [16, 32], "kernel": 3},
        "batch_size": 32,
        "peak_lr": 0.03,
        "weight_decay": 1e-4,
        "shift": 1,
        "epochs": 6,
    },
}


def build(model: str, network: dict, rng: np.random.Generator) -> Sequential:
    """The network of a recipe, for 28 x 28 pixels and 10 classes; the MLP takes rows."""
    if model == "numpy_mlp":
        return Sequential(Linear(784, network["hidden"], rng), ReLU(), Linear(network["hidden"], 10, rng))
    (a, b), k = network["maps"], network["kernel"]
    first = [Conv2d(1, a, k, rng, padding=k // 2), MaxPool(2), ReLU()]  # (N, a, 14, 14): ReLU sees a quarter
    second = [Conv2d(a, b, k, rng, padding=k // 2), MaxPool(2), ReLU()]  # (N, b, 7, 7)
    return Sequential(*first, *second, Flatten(), Linear(49 * b, 10, rng))


def macs(net: Sequential, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one image (1, *shape) in the layers with weights."""
    x, total = np.zeros((1, *shape), np.float32), 0
    for layer in net.layers:
        x = layer.forward(x)
        total += layer.w.size * x[0, 0].size if layer.names else 0
    return total


def mnist(model: str) -> dict:
    """train, val, test: images (float32, normalised, rows for the MLP) and labels; and the digest."""
    whole = load_arrays("mnist", "train")
    rest, validation = validation_split(whole)
    (mean,), (std,) = mean_and_std(whole)
    shape = (-1, 784) if model == "numpy_mlp" else (-1, 1, 28, 28)

    def prepared(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        x = (arrays.images.reshape(shape).astype(np.float32) / 255 - mean) / std
        return x.astype(np.float32), arrays.labels

    parts = {"train": rest, "val": validation, "test": load_arrays("mnist", "test")}
    return {name: prepared(arrays) for name, arrays in parts.items()} | {"digest": whole.digest}


def by_turns(rounds: int = ROUNDS, **works: Callable[[], object]) -> dict[str, float]:
    """The median seconds of each work over the rounds, after one that does not count."""
    times = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def linear_loops(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x w + b, one product after another."""
    y = np.zeros((len(x), len(b)), x.dtype)
    for n, j in np.ndindex(y.shape):
        y[n, j] = b[j]
        for i in range(len(w)):
            y[n, j] += x[n, i] * w[i, j]
    return y


def linear() -> dict:
    """A layer 784 -> 128 by loops (2 rows) and as one matrix product (128 rows): seconds a row."""
    rng = np.random.default_rng(0)
    layer, x = Linear(784, 128, rng), rng.standard_normal((128, 784), np.float32)
    np.testing.assert_allclose(
        linear_loops(x[:2], layer.w, layer.b), layer.forward(x[:2]), rtol=1e-3, atol=1e-4
    )
    loops = by_turns(3, loops=lambda: linear_loops(x[:2], layer.w, layer.b))["loops"] / 2
    product = by_turns(101, product=lambda: layer.forward(x))["product"] / len(x)
    return {"loops": loops, "product": product, "ratio": loops / product}


def convolutions(n: int) -> tuple[Conv2d, np.ndarray, np.ndarray, list[torch.Tensor]]:
    """The layer, n images, the gradient of its output; and in torch images, weights, bias, gradient."""
    rng = np.random.default_rng(0)
    layer = Conv2d(MAPS, KERNELS, KERNEL, rng, padding=KERNEL // 2)
    x, dy = (rng.standard_normal((n, maps, SIDE, SIDE), np.float32) for maps in (MAPS, KERNELS))
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, layer.w, layer.b)]
    x, dy = (images_last(array).transpose(3, 0, 1, 2) for array in (x, dy))
    return layer, x, dy, [*tensors, torch.tensor(np.ascontiguousarray(dy))]


def convolution() -> dict:
    """Seconds an image, forward and forward with backward; what im2col gains on loops and loses on torch."""
    layer, x, dy, (tx, tw, tb, tdy) = convolutions(256)
    layer.forward(x)  # as validation does in training: from then on freed memory of this size stays at hand
    layer, x, dy, (tx, tw, tb, tdy) = convolutions(BATCH)
    how = {"padding": KERNEL // 2}

    def torch_both() -> None:
        torch.autograd.grad(F.conv2d(tx, tw, tb, **how), (tx, tw, tb), tdy)

    forward = by_turns(
        51,
        im2col=lambda: layer.forward(x),
        einsum=lambda: conv_einsum(x, layer.w, layer.b, **how),
        torch=lambda: F.conv2d(tx, tw, tb, **how),
    )
    both = by_turns(51, im2col=lambda: (layer.forward(x), layer.backward(dy)), torch=torch_both)
    loops = by_turns(
        1,
        forward=lambda: conv_loops(x[:1], layer.w, layer.b, **how),
        backward=lambda: conv_loops_backward(dy[:1], x[:1], layer.w, **how),
    )
    out = {"forward": {name: seconds / BATCH for name, seconds in forward.items()}}
    out["both"] = {name: seconds / BATCH for name, seconds in both.items()}
    out["forward"]["loops"], out["both"]["loops"] = loops["forward"], sum(loops.values())
    out["loops_ratio"] = out["both"]["loops"] / out["both"]["im2col"]
    out["torch_ratio"] = out["both"]["im2col"] / out["both"]["torch"]
    return out


def status(field: str) -> int:
    """A size of this process in bytes: VmRSS now, VmHWM at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def grown(name: str) -> int:
    """Bytes by which this process grows at most in one forward pass over 512 images; loops: from 2."""
    n = 2 if name == "loops" else 512
    layer, x, _, (tx, tw, tb, _) = convolutions(n)
    how = {"padding": KERNEL // 2}
    work = {
        "loops": lambda n: conv_loops(x[:n], layer.w, layer.b, **how),
        "im2col": lambda n: layer.forward(x[:n]),
        "einsum": lambda n: conv_einsum(x[:n], layer.w, layer.b, **how),
        "torch": lambda n: F.conv2d(tx[:n], tw, tb, **how),
    }[name]
    work(1)
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is now
    before = status("VmRSS")
    kept = work(n)
    return (status("VmHWM") - before) * 512 // n if len(kept) else 0


def memory() -> dict:
    """Megabytes by which each grows, and those of the images and of the result."""
    out = {"images": 512 * MAPS * SIDE**2 * 4 / 1e6, "result": 512 * KERNELS * SIDE**2 * 4 / 1e6}
    for name in ("loops", "im2col", "einsum", "torch"):
        said = subprocess.run(
            [sys.executable, __file__, "grown", name], capture_output=True, text=True, check=True
        )
        out[name] = int(said.stdout) / 1e6
    return out


def optimizer(values: dict) -> SGD:
    """Nesterov's momentum of 0.9, with the recipe's learning rate and decay."""
    return SGD(values["peak_lr"], momentum=0.9, nesterov=True, weight_decay=values["weight_decay"])


def scikit(values: dict, seed: int) -> MLPClassifier:
    """The MLP of the recipe in scikit-learn."""
    arguments = {
        "solver": "sgd",
        "nesterovs_momentum": True,
        "momentum": 0.9,
        "alpha": values["weight_decay"],
    }
    arguments |= {
        "batch_size": values["batch_size"],
        "learning_rate_init": values["peak_lr"],
        "random_state": seed,
    }
    return MLPClassifier((values["network"]["hidden"],), **arguments)


def torch_epoch(values: dict, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """One epoch of the MLP as a plain loop in torch, the set as one tensor."""
    hidden, x, y = values["network"]["hidden"], torch.from_numpy(x), torch.from_numpy(y)
    net = torch.nn.Sequential(torch.nn.Linear(784, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))
    lr, decay = values["peak_lr"], values["weight_decay"]
    descent = torch.optim.SGD(net.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=decay)

    def run() -> None:
        for rows in torch.randperm(len(x)).split(values["batch_size"]):
            loss = F.cross_entropy(net(x[rows]), y[rows])
            descent.zero_grad()
            loss.backward()
            descent.step()
            loss.item()

    return run


def epoch() -> dict:
    """Seconds of one epoch of the MLP, without shifts and validation: NumPy, torch, scikit-learn."""
    values = RECIPES["numpy_mlp"]
    x, y = mnist("numpy_mlp")["train"]
    net, how = build("numpy_mlp", values["network"], np.random.default_rng(0)), optimizer(values)
    other = scikit(values, 0)
    out = by_turns(
        numpy=lambda: train(net, how, x, y, 1, values["batch_size"]),
        torch=torch_epoch(values, x, y),
        scikit=lambda: other.partial_fit(x, y, classes=np.arange(10)),
    )
    return out | {"torch_ratio": out["numpy"] / out["torch"], "scikit_ratio": out["scikit"] / out["numpy"]}


def augmentation(values: dict) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Shifts each batch as a whole by up to so many pixels."""

    def augment(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        dy, dx = rng.integers(-values["shift"], values["shift"] + 1, 2)
        return shifted(x.reshape(-1, 28, 28), dy, dx).reshape(x.shape)

    return augment


def race() -> dict:
    """Seconds of training until TARGET of the validation set is right, and what is right then, by seed.

    NumPy: the recipe in 4 epochs. scikit-learn, which has neither shifts nor a cycle: with the recipe's rate,
    and with its own defaults (Adam); looked at after each epoch, given up after 20.
    """
    values, data = RECIPES["numpy_mlp"], mnist("numpy_mlp")
    x, y = data["train"]
    found = {"numpy": [], "scikit_sgd": [], "scikit_default": []}
    for seed in SEEDS:
        net = build("numpy_mlp", values["network"], np.random.default_rng(seed))
        how = {"schedule": one_cycle, "augment": augmentation(values), "val": data["val"]}
        history = train(net, optimizer(values), x, y, 4, values["batch_size"], seed, **how)
        found["numpy"].append({"seconds": sum(history["seconds"]), "top1": history["val_top1"][-1]})
        default = MLPClassifier((values["network"]["hidden"],), random_state=seed)
        for name, other in (("scikit_sgd", scikit(values, seed)), ("scikit_default", default)):
            seconds, top1, epochs = 0.0, 0.0, 0
            while top1 < TARGET and epochs < 20:
                began = time.perf_counter()
                other.partial_fit(x, y, classes=np.arange(10))
                seconds += time.perf_counter() - began
                top1, epochs = float(other.score(*data["val"])), epochs + 1
            found[name].append({"seconds": seconds, "top1": top1})
            print(f"{name}, seed {seed}: {top1:.2%} after {epochs} epochs, {seconds:.1f} s", flush=True)
    median = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    ratio = min(median["scikit_sgd"], median["scikit_default"]) / median["numpy"]
    return found | {"median": median, "ratio": ratio}


def scores(net: Sequential, x: np.ndarray, y: np.ndarray) -> dict:
    """loss, top1, top5, correct, total."""
    z = logits(net, x)  # (N, 10)
    best = np.argsort(-z, axis=1)[:, :5] == y[:, None]  # (N, 5)
    found = {"loss": float(SoftmaxCrossEntropy().forward(z, y)), "top1": float(best[:, 0].mean())}
    return found | {"top5": float(best.any(axis=1).mean()), "correct": int(best[:, 0].sum()), "total": len(y)}


def run(model: str, seed: int) -> dict:
    """Train a network by its recipe; its result in the ledger's fields."""
    values, data = RECIPES[model], mnist(model)
    origin = {"machine": machine(), **ledger.today_and_commit()}
    net = build(model, values["network"], np.random.default_rng(seed))
    began, (x, y) = time.perf_counter(), data["train"]
    how = {"schedule": one_cycle, "augment": augmentation(values), "val": data["val"]}
    history = train(net, optimizer(values), x, y, values["epochs"], values["batch_size"], seed, **how)
    minutes = (time.perf_counter() - began) / 60
    result = {"model": model, "dataset": "mnist", "profile": "cpu", "variant": None, "seed": seed}
    result |= {"recipe": values, "parameters": sum(w.size for w in net.parameters().values())}
    result |= {"macs": macs(net, x.shape[1:]), "epochs": values["epochs"]}
    held_out = scores(net, *data["val"])
    result |= {"val": {key: held_out[key] for key in ("top1", "loss")}}
    result |= {"test": scores(net, *data["test"]) | {"top1_flip": None}, "minutes": round(minutes, 3)}
    rates = [len(x) / seconds for seconds in history["seconds"]]
    result |= {"images_per_second": round(statistics.mean(rates)), "precision": "float32"}
    result |= {"data": {"digest": data["digest"], "complete": True, "train_size": len(x)}} | origin
    epochs = {"epoch": list(range(1, values["epochs"] + 1)), "images_per_second": rates, "complete": True}
    losses = [float(part.mean()) for part in np.array_split(history["loss"], values["epochs"])]
    return result | {"history": history | epochs | {"loss": losses}}


def record(model: str) -> dict:
    """The three seeds' results in the ledger, trained where it lacks them: what the table shows of them."""
    there = {r["seed"]: r for r in ledger.recorded(f"{model}-mnist-cpu") if r["recipe"] == RECIPES[model]}
    for seed in SEEDS:
        if seed not in there:
            there[seed] = run(model, seed)
            name = ledger.run_name(model, "mnist", "cpu", None, seed)
            ledger.write_json(there[seed], ledger.folder("results") / f"{name}.json")
    rows = [there[seed] for seed in SEEDS]
    out = {key: [r["test"][key] for r in rows] for key in ("top1", "loss")}
    out |= {"seconds": [60 * r["minutes"] for r in rows]} | {k: rows[0][k] for k in ("parameters", "macs")}
    return out | {"top1_mean": statistics.mean(out["top1"]), "seconds_mean": statistics.mean(out["seconds"])}


def machine() -> dict:
    """The ledger's facts, and NumPy's version."""
    return ledger.machine() | {"numpy": np.__version__}


def kernel() -> str:
    """The library that multiplies NumPy's matrices, its kernel and its threads."""
    (blas,) = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"]]
    words = f"{blas['internal_api']} {blas['version']}, kernel {blas['architecture']}"
    return f"{words}, {blas['num_threads']} threads"


def block(head: list[str], rows: list[list[str]], words: str) -> list[str]:
    """A Markdown table and a line below it."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)] + ["", words, ""]


def table(out: dict) -> str:
    """from_scratch.md: a table for each part that there is."""
    lines = []
    if part := out.get("linear"):
        rows = [
            [name, f"{1e6 * part[key]:,.1f}"] for name, key in (("loops", "loops"), ("x @ w + b", "product"))
        ]
        words = f"Vectorized: {part['ratio']:,.0f} times as fast."
        lines += block(["a layer 784 -> 128", "microseconds a row"], rows, words)
    if (part := out.get("convolution")) and (grown := out.get("memory")):
        title = (
            f"{KERNELS} kernels {MAPS} x {KERNEL} x {KERNEL} on {SIDE} x {SIDE} pixels, padded, batch {BATCH}"
        )
        head = [title, "forward, microseconds an image", "forward and backward", "forward, MB for 512 images"]
        rows = []
        for name in ("loops", "einsum", "im2col", "torch"):
            both = f"{1e6 * part['both'][name]:,.1f}" if name in part["both"] else ""
            rows.append([name, f"{1e6 * part['forward'][name]:,.1f}", both, f"{grown[name]:.0f}"])
        words = f"Forward and backward, im2col is {part['loops_ratio']:,.0f} times as fast as the loops "
        words += f"and takes {part['torch_ratio']:.2f} times torch's time. "
        words += f"The images have {grown['images']:.0f} MB, the result {grown['result']:.0f}."
        lines += block(head, rows, words)
    if part := out.get("epoch"):
        rows = [[name, f"{part[name]:.2f}"] for name in ("numpy", "torch", "scikit")]
        words = f"NumPy takes {part['torch_ratio']:.2f} times torch's time, "
        words += f"scikit-learn {part['scikit_ratio']:.2f} times NumPy's."
        lines += block(["MLP 784-512-10, batch 128: one epoch of 55,000 images", "seconds"], rows, words)
    if part := out.get("race"):
        seeds = {n: [f"{r['seconds']:.1f} ({r['top1']:.2%})" for r in part[n]] for n in part["median"]}
        rows = [[name, f"{part['median'][name]:.1f}", ", ".join(seeds[name])] for name in part["median"]]
        words = f"The faster scikit-learn takes {part['ratio']:.1f} times NumPy's time. "
        words += f"Below {TARGET:.0%} it was given up after 20 epochs. "
        words += "NumPy: 4 epochs with shifts and one cycle, which scikit-learn lacks."
        head = [f"MLP to {TARGET:.0%} of the validation set", "seconds, median", "by seed (validation)"]
        lines += block(head, rows, words)
    rows = []
    for name in (name for name in RECIPES if name in out):
        part = out[name]
        top1, seconds = ([f"{x:.2%}" for x in part["top1"]], [f"{x:.0f}" for x in part["seconds"]])
        cells = [RECIPES[name]["title"], f"{part['parameters']:,}", f"{part['macs']:,}"]
        cells += [
            ", ".join(top1),
            f"{part['top1_mean']:.2%}",
            ", ".join(seconds),
            f"{part['seconds_mean']:.0f}",
        ]
        rows.append(cells)
    where = out["machine"]
    words = f"{where['cpu']}, {where['cores']} cores; NumPy {where['numpy']} with {out['kernel']}; "
    words += (
        f"torch {where['torch']}; {out['date']}. Seconds of training, validation after each epoch included."
    )
    head = ["network", "parameters", "multiply-adds", "test top-1 by seed", "mean", "seconds by seed", "mean"]
    return "\n".join([*lines, *block(head, rows, words)])


def main() -> None:
    """Measure what is asked for or lacking; write after each part."""
    if any(name in os.environ for name in SLOW):
        environment = {name: value for name, value in os.environ.items() if name not in SLOW}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    if sys.argv[1:2] == ["grown"]:
        print(grown(sys.argv[2]))
        return
    works = {work.__name__: work for work in (linear, convolution, memory, epoch, race)}
    works |= {model: functools.partial(record, model) for model in RECIPES}
    file = ledger.folder("benchmarks") / "from_scratch.json"
    out = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    origin = {"machine": machine(), "kernel": kernel(), **ledger.today_and_commit()}
    print(f"NumPy {np.__version__}: {origin['kernel']}", flush=True)
    if unknown := set(sys.argv[1:]) - set(works):
        raise SystemExit(f"no part {', '.join(unknown)}; expected one of: {', '.join(works)}.")
    for name in sys.argv[1:] or [name for name in works if name not in out]:
        began = time.perf_counter()
        out |= origin | {name: works[name]()}
        print(f"{name}, {time.perf_counter() - began:.0f} s: {out[name]}", flush=True)
        ledger.write_json(out, file)
        file.with_suffix(".md").write_text(table(out), encoding="utf-8")
    print(table(out))


if __name__ == "__main__":
    main()
