"""The search for recipes: one-seed trials, judged on validation; no test image is scored.

python benchmarks/search.py        runs the trials that search.json lacks, then writes search.md; stop it anywhere

A trial is the cpu recipe of its network and set, changed. Not a recipe's: shares, of the epochs at 20 and 24 pixels;
dropout before VGG's last layer; zero_norm, the last batch-norm weight of each residual block at zero; norm_bias, a factor
of the learning rate of batch norm's biases; cutout, the side (of 32 pixels) of a square set to the mean in each image;
mean, the factor of the past in a running mean of the weights (and of batch norm's statistics), which is what is scored.
"""

import json
from datetime import date

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_utils import ledger, settings
from course_utils.data import make_loaders
from course_utils.experiment import build
from course_utils.explain import parameters
from course_utils.models import label
from course_utils.models.resnet import BasicBlock
from course_utils.recipes import fit_arguments, recipe
from course_utils.training import evaluate, fit

V50, V36, V26 = ({"epochs": e, "network": {"width": w / 8}} for e, w in ((50, 4), (36, 5), (26, 6)))
G28 = {"epochs": 28, "network": {"width": 1 / 4}, "peak_lr": 0.2}
G12 = G28 | {"epochs": 12}
R26, R20 = (
    {"epochs": 26, "network": {"depth": d, "width": 2, "shortcut": "A"}, "peak_lr": 0.2} for d in (14, 20)
)
F9 = R26 | {"epochs": 9, "network": R26["network"] | {"shortcut": "B"}, "shift": 1}
TRIALS = {
    "vgg-cifar100-half-50": V50, "vgg-cifar100-half-50-dropout-3": V50 | {"dropout": 0.3},
    "vgg-cifar100-half-50-decay-1e-3": V50 | {"weight_decay": 1e-3},
    "vgg-cifar100-half-50-dropout-5-smoothing-2": V50 | {"dropout": 0.5, "label_smoothing": 0.2},
    "vgg-cifar100-half-50-cutout-8-decay-1e-3": V50 | {"cutout": 8, "weight_decay": 1e-3},
    "vgg-cifar100-five-eighths-36-decay-1e-3": V36 | {"weight_decay": 1e-3},
    "vgg-cifar100-three-quarters-26": V26, "vgg-cifar10-half-45": V50 | {"epochs": 45},
    "vgg-cifar100-three-quarters-26-dropout-3-decay-1e-3": V26 | {"dropout": 0.3, "weight_decay": 1e-3},
    "vgg-cifar100-half-30-at-32": V50 | {"epochs": 30, "sizes": (32,) * 30},
    "vgg-cifar100-half-50-mean": V50 | {"mean": 0.999},
    "vgg-fashion-half-20-shift-1": V50 | {"epochs": 20, "shift": 1},
    "vgg-fashion-half-20-shift-2": V50 | {"epochs": 20, "shift": 2},
    "googlenet-cifar100-quarter-28": G28, "googlenet-cifar100-quarter-28-shift-2": G28 | {"shift": 2},
    "googlenet-cifar100-quarter-12": G12, "googlenet-cifar100-quarter-12-lr-4": G12 | {"peak_lr": 0.4},
    "googlenet-cifar100-quarter-12-decay-2e-4": G12 | {"weight_decay": 2e-4},
    "googlenet-cifar100-quarter-12-batch-64": G12 | {"batch_size": 64},
    "googlenet-fashion-quarter-11-shift-1": G28 | {"epochs": 11, "shift": 1},
    "googlenet-fashion-quarter-11-shift-2": G28 | {"epochs": 11, "shift": 2},
    "resnet-cifar100-14x2-26": R26, "resnet-cifar100-14x2-52": R26 | {"epochs": 52},
    "resnet-cifar100-14x2-26-decay-1e-3": R26 | {"weight_decay": 1e-3},
    "resnet-cifar100-14x2-26-norm-bias-16": R26 | {"norm_bias": 16},
    "resnet-cifar100-14x2-26-shift-2": R26 | {"shift": 2}, "resnet-cifar10-14x2-24": R26 | {"epochs": 24},
    "resnet-cifar100-14x2-26-zero-norm": R26 | {"zero_norm": True},
    "resnet-cifar100-14x2-28-shares-6-2": R26 | {"epochs": 28, "shares": (0.6, 0.2)},
    "resnet-cifar100-14x3-25": R26 | {"epochs": 25, "network": R26["network"] | {"width": 3}},
    "resnet-cifar100-14x4-30": R26 | {"epochs": 30, "network": R26["network"] | {"width": 4}},
    "resnet-cifar100-20x2-18": R20 | {"epochs": 18}, "resnet-cifar100-20x2-36": R20 | {"epochs": 36},
    "resnet-fashion-8x2-18-shift-2": R26 | {"epochs": 18, "network": R26["network"] | {"depth": 8}, "shift": 2},
    "resnet-fashion-14x2-9-shift-1": R26 | {"epochs": 9, "shift": 1},
    "resnet-fashion-14x2-9-projections": F9,
    "resnet-fashion-14x2-9-lr-4": F9 | {"peak_lr": 0.4}, "resnet-fashion-14x2-9-mean": F9 | {"mean": 0.998},
    "resnet-fashion-14x2-9-shift-2": R26 | {"epochs": 9, "shift": 2},
}  # fmt: skip
NOTE = """Top-1 on the 5,000 validation images, one seed: differences below about a point say nothing. All stored trials but the
one at 32 pixels alone, GoogLeNet's of 12 epochs, those with a mean and ResNet's with shortcut B were run by an earlier
form of this script with the same values (its learning rate began at 0, not at a twenty-fifth of the peak). A row is the
recipe of `cpu` (CIFAR-10: CIFAR-100's) but for what it names; `search.py` says what the names mean. Training: in the
last epoch, as the weights changed. With zero_norm the channels that shortcut A pads with zeros begin at 0, where ReLU's
gradient is 0: they never learn.
"""


def values(name: str, trial: dict) -> dict:
    """Every value of a trial's training."""
    model, data = name.split("-")[:2]
    base = recipe(model, "cifar100" if data == "cifar10" else data, "cpu")
    at_20, at_24 = (round(share * trial["epochs"]) for share in trial.get("shares", (0.5, 0.25)))
    sizes = (20,) * at_20 + (24,) * at_24 + base["sizes"][-1:] * (trial["epochs"] - at_20 - at_24)
    return base | {"sizes": sizes} | trial | {"network": base["network"] | trial["network"]}


def cut(images: torch.Tensor, share: float) -> torch.Tensor:
    """Images (B, C, S, S), in each a square around a random pixel set to 0, the mean; share: of the image's side."""
    pixels = torch.arange(images.shape[-1], device=images.device)
    middles = torch.randint(len(pixels), (2, len(images), 1), device=images.device)
    row, column = (pixels - middles).abs() < share * len(pixels) / 2  # (B, S) each
    return images.masked_fill((row[:, :, None] & column[:, None])[:, None], 0.0)


def run(name: str, trial: dict) -> dict:
    """Train as the trial says; its line in search.json."""
    (model, data), v = name.split("-")[:2], values(name, trial)
    settings.seed_all(0)
    loaders = make_loaders(data, **{k: v[k] for k in ("batch_size", "limit", "shift", "flip", "sizes")})
    net, _ = build(model, v, loaders.train.arrays)
    for layer in net.modules():
        if "zero_norm" in v and isinstance(layer, BasicBlock):
            torch.nn.init.zeros_(layer.bn2.weight)
        if "norm_bias" in v and isinstance(layer, torch.nn.BatchNorm2d):
            layer.bias.register_hook(lambda g: v["norm_bias"] * g)  # without decay a larger learning rate
    if "dropout" in v:
        net.classifier.insert(0, torch.nn.Dropout(v["dropout"]))
    if "cutout" in v:
        net.register_forward_pre_hook(lambda net, x: cut(x[0], v["cutout"] / 32) if net.training else x)
    fitting = fit_arguments(net, v, len(loaders.train))
    if "mean" in v:
        net.to(settings.device())
        mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(v["mean"]), use_buffers=True)
        fitting["optimizer"].register_step_post_hook(lambda *_: mean.update_parameters(net))
    history = fit(net, loaders.train, **fitting)
    net = mean.module if "mean" in v else net
    loaders.val.set_epoch(v["epochs"] - 1)  # at the last size
    top1, top1_flip = (evaluate(net, loaders.val, flip=flip)["top1"] for flip in (False, True))
    line = {"changes": trial, "top1": top1, "top1_flip": top1_flip}
    line |= {"train_top1": round(history["top1"][-1], 4), "parameters": parameters(net)}
    device, cpu = (ledger.machine()[key] for key in ("device", "cpu"))
    line |= {"device": cpu if device == "cpu" else device, "precision": settings.precision()}
    return line | {"date": date.today().isoformat()}


def table(found: dict) -> str:
    """search.md: by network and set, the best on validation first."""
    head = "network|set|epochs|changed|validation|with flips|training|parameters|run on".split("|")
    lines = [NOTE, f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, one in sorted(found.items(), key=lambda item: (item[0].split("-")[:2], -item[1]["top1"])):
        (model, data), trial = name.split("-")[:2], one["changes"]
        changed = [
            f"{k} {c[0] if k == 'sizes' else c}" for k, c in trial.items() if k not in ("epochs", "network")
        ]
        row = [label(model, values(name, trial)["network"]), data, str(trial["epochs"]), ", ".join(changed)]
        row += [f"{100 * one[key]:.2f} %" for key in ("top1", "top1_flip", "train_top1")]
        row += [f"{one['parameters']:,}", f"{one['device']}, {one['precision']}, {one['date']}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what search.json lacks, one trial after another."""
    file = ledger.folder("benchmarks") / "search.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in [name for name in TRIALS if name not in found]:
        print(f"== {name}", flush=True)
        found[name] = run(name, TRIALS[name])
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(one)}" for key, one in found.items())
        with settings.whole(file) as part:
            part.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    file.with_suffix(".md").write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main()
