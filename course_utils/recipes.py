"""How each network is trained on each set: values in one table, and the optimizer and schedule made from them."""

import torch
from torch import nn

RECIPES = {
    ("lenet", "mnist"): {
        "every profile": {
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
        },
        "smoke": {"epochs": 3, "limit": 3000, "batch_size": 32},
        "cpu": {"epochs": 16},
        "full": {"epochs": 30},
    }
}
VARIANTS = {("lenet", "mnist"): {"no-shift": {"shift": 0}}}


def recipe(model: str, data: str, profile: str, variant: str | None = None) -> dict:
    """Every value of a training: the table's for the profile, changed by the variant's.

    Raises ValueError for a pair or variant that the table does not have.
    """
    if (model, data) not in RECIPES:
        known = ", ".join(f"{m} on {d}" for m, d in RECIPES)
        raise ValueError(f"no recipe for {model} on {data}; expected one of: {known}.")
    variants = VARIANTS.get((model, data), {})
    if variant is not None and variant not in variants:
        raise ValueError(
            f"no variant {variant!r} of {model} on {data}; expected one of: {', '.join(variants)}."
        )
    table = RECIPES[model, data]
    return table["every profile"] | table[profile] | (variants[variant] if variant else {})


def sgd(model, peak_lr, weight_decay):
    """Nesterov SGD, momentum 0.9; weight decay on weights, none on biases and norms (one dimension)."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=peak_lr, momentum=0.9, nesterov=True)


def triangular(optimizer, peak_lr, steps):
    """The learning rate climbs to its peak over the first fifth of the steps, then falls to zero."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_lr, total_steps=steps, pct_start=0.2, anneal_strategy="linear", cycle_momentum=False
    )


def parts(model: nn.Module, recipe: dict, steps_an_epoch: int) -> dict:
    """What `fit` takes beside the network and the loaders: epochs, optimizer, scheduler, criterion."""
    optimizer = sgd(model, recipe["peak_lr"], recipe["weight_decay"])
    return {
        "epochs": recipe["epochs"],
        "optimizer": optimizer,
        "scheduler": triangular(optimizer, recipe["peak_lr"], recipe["epochs"] * steps_an_epoch),
        "criterion": nn.CrossEntropyLoss(label_smoothing=recipe["label_smoothing"]),
    }
