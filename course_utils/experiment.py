"""python -m course_utils train: one network on one set by its recipe, to a result file."""

import copy
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from course_utils import explain, ledger, plots, settings
from course_utils.data import Arrays, Loaders, TensorLoader, load_arrays, make_loaders, standin
from course_utils.models import MODELS, label
from course_utils.recipes import fit_arguments, he, recipe
from course_utils.training import evaluate, fit, train_epoch


def train(model: str, data: str, variant: str | None = None, seed: int = 0, record: bool = False) -> dict:
    """Train `model` on `data` by its recipe for settings.profile(); write result, curve and weights to runs().

    record: also to the ledger, with the weights of seed 0. Goes on from the checkpoint of a run that was cut.
    Returns the result (see ledger.py); raises ValueError for what the table of recipes does not have, and
    where `record` is refused: smoke, the stand-in, a part of a set.
    """
    profile = settings.profile()
    values = recipe(model, data, profile, variant)
    arrays = arrays_for(data, profile, record)
    run = {"model": model, "dataset": arrays[0].name, "profile": profile, "variant": variant, "seed": seed}
    name = ledger.run_name(*run.values())
    origin = {"machine": ledger.machine(), "alone": alone(), **ledger.today_and_commit()}
    settings.seed_all(seed)
    net, network = build(model, values, arrays[0])
    augmentation = {key: values[key] for key in ("limit", "shift", "flip", "sizes")}
    loaders = make_loaders(arrays, values["batch_size"], seed=seed, **augmentation)
    title = f"{label(model, values['network'])} on {arrays[0].name}"
    images = f"{len(loaders.train.arrays):,} training images"
    print(f"{name}: {title}, {explain.parameters(net):,} parameters, {images}")
    earlier = stored_result(settings.runs() / f"{name}.json", values)
    if not earlier:
        minutes = expected_minutes(net, loaders, values)
        print(
            f"Whole training: about {minutes:.1f} minutes for {values['epochs']} epochs, by a few timed steps."
        )
    fitting = fit_arguments(net, values, len(loaders.train))
    val = loaders.val if values.get("validate") != "once" else None
    history = fit(net, loaders.train, val=val, checkpoint=f"{name}.pt", **fitting)
    if not history["complete"]:
        raise KeyboardInterrupt
    if val is None:
        loaders.val.set_epoch(values["epochs"] - 1)  # at the last size
        scores = evaluate(net, loaders.val)
        history["val_top1"][-1], history["val_loss"][-1] = scores["top1"], scores["loss"]
    result = run | facts(net, values, arrays[0], loaders, history)
    if earlier.get("history") == history:  # a finished run: its test set is read, its origin is known
        result |= {key: earlier[key] for key in ("test", *origin) if key in earlier}
    else:
        final = variant is None or values.get("final", False)
        scores = test_scores(net, loaders.test, values["flip"] is not None) if final else None
        result |= {"test": scores} | origin
    seen = f"{title}, seed {seed}: validation {result['val']['top1']:.2%} after {values['epochs']} epochs"
    plots.show_history(history, seen, settings.runs() / f"{name}.png")
    ledger.save_weights(net, settings.runs() / f"{name}.safetensors", weight_facts(result, network))
    ledger.write_json(result, settings.runs() / f"{name}.json")
    if record:
        ledger.write_json(result, ledger.folder("results") / f"{name}.json")
        if variant is None and profile == "cpu" and seed == 0:
            ship(net, network, result, loaders.test)
    return result


def arrays_for(data: str, profile: str, record: bool) -> tuple[Arrays, Arrays]:
    """Training and test set. Raises ValueError where the ledger takes no run of them."""
    if record and profile == "smoke":
        raise ValueError(
            "--record with the profile smoke: the ledger takes whole runs; use --profile cpu or full."
        )
    arrays = tuple(load_arrays(data, split) for split in ("train", "test"))
    if record and (arrays[0].name == standin.NAME or not all(a.complete for a in arrays)):
        raise ValueError(f"--record with {arrays[0].name}: the ledger takes whole published sets.")
    if record:
        ledger.folder("results")  # raises outside a checkout
    return arrays


def alone() -> bool:
    """Whether a run has all cores: one that is pinned to some of them shares the machine, its minutes are no claim."""
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))
    return len(allowed(0)) == os.cpu_count()


def build(model: str, values: dict, arrays: Arrays) -> tuple[torch.nn.Module, dict]:
    """The recipe's network for a set, initialized, and its arguments."""
    shape = {"num_classes": len(arrays.classes), "in_channels": arrays.images.shape[1]}
    network = shape | values["network"]
    net = MODELS[model](**network)
    if values.get("init") == "He":
        he(net)
    return net, network


def facts(net: torch.nn.Module, values: dict, arrays: Arrays, loaders: Loaders, history: dict) -> dict:
    """The part of a result that the training itself gives."""
    shape = (arrays.images.shape[1], loaders.test.size, loaders.test.size)
    whole = values["limit"] is None and arrays.complete
    return {
        "recipe": values,
        "parameters": explain.parameters(net),
        "macs": explain.macs(net, shape),
        "epochs": values["epochs"],
        "val": {"top1": history["val_top1"][-1], "loss": history["val_loss"][-1]},
        "minutes": round(sum(history["seconds"]) / 60, 3),
        "images_per_second": round(sum(history["images_per_second"]) / len(history["epoch"])),
        "precision": settings.precision(),
        "data": {"digest": arrays.digest, "complete": whole, "train_size": len(loaders.train.arrays)},
        "history": history,
    }


def stored_result(file: Path, values: dict) -> dict:
    """The result that lies in `file` if it is one of this recipe, else an empty one. Raises ValueError, as read_result."""
    result = ledger.read_result(file) if file.exists() else {}
    return result if result.get("recipe") == json.loads(json.dumps(values)) else {}


def expected_minutes(net: torch.nn.Module, loaders: Loaders, values: dict) -> float:
    """Minutes of a whole training, validation as in `train`, from steps timed at each size on a copy of the network."""
    x, y = next(iter(loaders.train))
    seen, labels = next(iter(loaders.val))
    seconds, sizes = 0.0, loaders.train.sizes
    with torch.random.fork_rng():
        twin = copy.deepcopy(net).to(settings.device(), memory_format=torch.channels_last)
        fitting = fit_arguments(twin, values, len(loaders.train))
        how = (fitting["criterion"], fitting["optimizer"])
        epochs_at = Counter(sizes[min(epoch, len(sizes) - 1)] for epoch in range(values["epochs"]))
        for size, epochs in epochs_at.items():
            batch = [(F.interpolate(x, (size, size)), y)]
            held_out = [(F.interpolate(seen, (size, size)), labels)]
            step = median_seconds(lambda b=batch: train_epoch(twin, b, *how, precision=settings.precision()))
            seconds += epochs * len(loaders.train) * step
            if values.get("validate") != "once":
                seconds += epochs * len(loaders.val) * median_seconds(lambda b=held_out: evaluate(twin, b))
    return seconds / 60


def median_seconds(work: Callable, warm: int = 2, repeats: int = 5) -> float:
    """The median time of `work`, after a few calls that do not count."""
    times = []
    for _ in range(warm + repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[warm:])


def test_scores(net: torch.nn.Module, loader: TensorLoader, flip: bool) -> dict:
    """The test part of a result; top1_flip: with the mirror image, null where mirrored images were not trained on."""
    scores = evaluate(net, loader)
    scores.pop("confusion")
    return scores | {"top1_flip": evaluate(net, loader, flip=True)["top1"] if flip else None}


def weight_facts(result: dict, network: dict) -> dict[str, str]:
    """What a file of weights says about them, as text."""
    facts = {key: str(result[key]) for key in ("model", "dataset", "profile", "seed", "commit", "date")}
    facts |= {key: json.dumps(value) for key, value in (("network", network), ("recipe", result["recipe"]))}
    return facts | {"digest": result["data"]["digest"], "val_top1": str(result["val"]["top1"])}


def ship(net: torch.nn.Module, network: dict, result: dict, loader: TensorLoader) -> None:
    """Round the weights to float16, count what the rounded network gets right, and ship it in data/weights/."""
    net.half().float()
    facts = weight_facts(result, network) | {"test_correct": str(evaluate(net, loader)["correct"])}
    file = ledger.folder("weights") / f"{result['model']}-{result['dataset']}.safetensors"
    ledger.save_weights(net.half(), file, facts)
