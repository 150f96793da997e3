"""How each network is trained on each set: values in one table, and the optimizer and schedule made from them."""

import torch
from torch import nn

from course_utils.models import network_defaults
from course_utils.models.googlenet import with_heads
from course_utils.variants import VARIANTS

MNIST = {
    "version": 1,
    "batch_size": 128,
    "peak_lr": 0.05,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "shift": 2,
    "flip": None,
    "sizes": 28,
    "limit": None,
    "network": {},
}
FASHION = MNIST | {"peak_lr": 0.2, "weight_decay": 5e-4, "label_smoothing": 0.1, "flip": "alternating"}
CIFAR = FASHION | {"shift": 3, "sizes": 32}
SMOKE = {"epochs": 3, "limit": 1000, "batch_size": 64}
FASHION_SMOKE, CIFAR_SMOKE = (SMOKE | {"sizes": (20, 24, size)} for size in (28, 32))

VGG_CIFAR = {
    "every profile": CIFAR,
    "smoke": CIFAR_SMOKE | {"network": {"width": 1 / 8}},
    "cpu": {"epochs": 44, "sizes": (20, 24, 32), "network": {"width": 1 / 2}},
    "full": {"epochs": 30, "network": {"width": 1}},
}
RESNET_CIFAR = {
    "every profile": CIFAR,
    "smoke": CIFAR_SMOKE | {"network": {"depth": 8, "width": 1 / 2}},
    "cpu": {
        "version": 4,
        "epochs": 14,
        "sizes": (20, 24, 32),
        "peak_lr": 0.3,
        "network": {"depth": 14, "width": 3, "shortcut": "B"},
    },
    "full": {"epochs": 30, "network": {"depth": 20, "width": 4}},
}

RECIPES = {
    ("lenet", "mnist"): {
        "every profile": MNIST,
        "smoke": {"epochs": 3, "limit": 3000, "batch_size": 32},
        "cpu": {"epochs": 16},
        "full": {"epochs": 30},
    },
    ("alexnet", "cifar100"): {
        "every profile": CIFAR | {"version": 2},
        "smoke": CIFAR_SMOKE | {"network": {"width": 1 / 8, "hidden": 128}},
        "cpu": {"epochs": 36, "sizes": (20, 24, 32), "network": {"width": 1 / 2, "hidden": 512}},
        "full": {"epochs": 30, "network": {"width": 1, "hidden": 1024}},
    },
    ("alexnet", "fashion"): {
        "every profile": FASHION,
        "smoke": FASHION_SMOKE | {"network": {"width": 1 / 8, "hidden": 128}},
        "cpu": {"epochs": 14, "sizes": (20, 24, 28), "network": {"width": 3 / 8, "hidden": 256}},
        "full": {"epochs": 30, "network": {"width": 1, "hidden": 1024}},
    },
    ("vgg", "cifar100"): VGG_CIFAR,
    ("vgg", "cifar10"): VGG_CIFAR,
    ("vgg", "fashion"): {
        "every profile": FASHION | {"version": 2, "shift": 1},
        "smoke": FASHION_SMOKE | {"network": {"width": 1 / 8}},
        "cpu": {"epochs": 15, "sizes": (20, 24, 28), "network": {"width": 1 / 2}},
        "full": {"epochs": 30, "network": {"width": 1}},
    },
    ("googlenet", "cifar100"): {
        "every profile": CIFAR,
        "smoke": CIFAR_SMOKE | {"network": {"width": 1 / 8}},
        "cpu": {"epochs": 21, "sizes": (20, 24, 32), "network": {"width": 1 / 4}},
        "full": {"epochs": 30, "network": {"width": 1}},
    },
    ("googlenet", "fashion"): {
        "every profile": FASHION | {"version": 2, "shift": 1},
        "smoke": FASHION_SMOKE | {"network": {"width": 1 / 8}},
        "cpu": {"epochs": 8, "sizes": (20, 24, 28), "network": {"width": 1 / 4}},
        "full": {"epochs": 30, "network": {"width": 1}},
    },
    ("resnet", "cifar100"): RESNET_CIFAR,
    ("resnet", "cifar10"): RESNET_CIFAR,
    ("resnet", "fashion"): {
        "every profile": FASHION | {"version": 2, "shift": 1},
        "smoke": FASHION_SMOKE | {"network": {"depth": 8, "width": 1 / 2}},
        "cpu": {"epochs": 8, "sizes": (20, 24, 28), "network": {"depth": 14, "width": 2}},
        "full": {"epochs": 30, "network": {"depth": 20, "width": 4}},
    },
}


def recipe(model: str, data: str, profile: str, variant: str | None = None) -> dict:
    """Every value of a training: the table's for the profile, changed by the variant's; in `network` every argument.

    Raises ValueError for a pair or variant that the table does not have.
    """
    if (model, data) not in RECIPES:
        known = ", ".join(f"{m} on {d}" for m, d in RECIPES)
        raise ValueError(f"no recipe for {model} on {data}; expected one of: {known}.")
    variants = VARIANTS.get((model, data), {})
    if variant is not None and variant not in variants:
        known = f"expected one of: {', '.join(variants)}" if variants else "it has none"
        raise ValueError(f"no variant {variant!r} of {model} on {data}; {known}.")
    table, change = RECIPES[model, data], variants[variant] if variant else {}
    values = table["every profile"] | table[profile]
    network = network_defaults(model) | values["network"] | change.get("network", {})
    values = values | change | {"network": network}
    if isinstance(values.get("sizes"), tuple):
        values["sizes"] = by_epoch(values["sizes"], values["epochs"])
    return values


def by_epoch(sizes: tuple[int, int, int], epochs: int) -> tuple[int, ...]:
    """Image sizes by epoch: the first for half of the epochs, the second for a quarter, the last for the rest."""
    half, quarter = epochs // 2, epochs // 4
    return (sizes[0],) * half + (sizes[1],) * quarter + (sizes[2],) * (epochs - half - quarter)


def he(model: nn.Module) -> None:
    """He's initialization for ReLU (2015), in place: deviation sqrt(2 / inputs of a unit), biases 0."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def sgd(model, peak_lr, weight_decay):
    """Nesterov SGD, momentum 0.9; weight decay, but not on biases and normalization (one dimension)."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=peak_lr, momentum=0.9, nesterov=True)


def triangular(optimizer, peak_lr, steps):
    """The learning rate climbs to its peak over the first fifth of the steps, then falls to zero."""
    climb = 0.2 if steps > 5 else 0.0  # too few steps to climb
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        peak_lr,
        total_steps=max(steps, 2),
        pct_start=climb,
        anneal_strategy="linear",
        cycle_momentum=False,
    )


def fit_arguments(model: nn.Module, recipe: dict, steps_an_epoch: int) -> dict:
    """What `fit` takes beside the network and the loaders: epochs, optimizer, scheduler, criterion.

    Beside the table's values a variant may set schedule to "constant" and decay to "all" (biases and norms, too); init
    ("He" instead of torch's initialization) and validate ("once") are train's.
    """
    optimizer = sgd(model, recipe["peak_lr"], recipe["weight_decay"])
    if recipe.get("decay") == "all":
        optimizer.param_groups[1]["weight_decay"] = recipe["weight_decay"]
    scheduler = None
    if recipe.get("schedule") != "constant":
        scheduler = triangular(optimizer, recipe["peak_lr"], recipe["epochs"] * steps_an_epoch)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe["label_smoothing"])
    return {
        "epochs": recipe["epochs"],
        "optimizer": optimizer,
        "scheduler": scheduler,
        "criterion": with_heads(criterion) if recipe["network"].get("heads") else criterion,
    }
