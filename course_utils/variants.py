"""Named changes of a recipe: what an experiment changes, and nothing else."""

SHORT = {"epochs": 10, "sizes": (20, 24, 32)}
PLAIN = SHORT | {"peak_lr": 0.05, "init": "He", "network": {"batch_norm": False}}


def plain(**network) -> dict:
    """The short schedule without batch norm, with another network."""
    return PLAIN | {"network": PLAIN["network"] | network}


def length(epochs: int, **network) -> dict:
    """Another length, small images first, and a network as large as its minutes allow; its test set is read."""
    return {"epochs": epochs, "sizes": (20, 24, 32), "network": network, "final": True}


PAPER = {"init": "He", "network": {"batch_norm": False, "lrn": True, "dropout": 0.5}}  # at our size

VARIANTS = {
    ("lenet", "mnist"): {"no-shift": {"shift": 0}},
    ("alexnet", "cifar100"): {
        "no-shift": {"shift": 0},
        "short": SHORT,
        "short-no-batch-norm": PLAIN,
        "short-quarter-width": SHORT | {"network": {"width": 1 / 4}},
        "short-three-eighths-width": SHORT | {"network": {"width": 3 / 8}},
        "short-constant-lr": SHORT | {"schedule": "constant", "peak_lr": 0.05},
        "short-no-smoothing": SHORT | {"label_smoothing": 0.0},
        "short-decay-all": SHORT | {"decay": "all"},
        "short-one-size": {"epochs": 6, "sizes": 32},  # as many minutes
        "short-no-shift": SHORT | {"shift": 0},
        "short-random-flip": SHORT | {"flip": "random"},
        "short-no-flip": SHORT | {"flip": None},
        "plain": plain(),  # short-no-batch-norm again, for runs in another precision
        "plain-torch-init": plain() | {"init": None},
        "plain-tanh": plain(activation="Tanh") | {"init": None},
        "plain-tanh-he": plain(activation="Tanh"),
        "plain-separate-pools": plain(overlapping=False),
        "plain-dropout": plain(dropout=0.5),
        "plain-lrn": plain(lrn=True),
        **{
            f"paper-lr-{lr}": PAPER | {"epochs": 4, "sizes": (20, 24, 32), "peak_lr": lr}
            for lr in (0.02, 0.05, 0.1)
        },
        "paper": PAPER
        | {"epochs": 12, "sizes": (20, 24, 32), "peak_lr": 0.05, "final": True},  # as many minutes
    },
    ("googlenet", "cifar100"): {"heads": {"network": {"heads": True}}},
    ("resnet", "cifar100"): {  # by minutes on two cores: four, eight, thirty, sixty
        "four-minutes": length(11, depth=8, width=2),
        "eight-minutes": length(13, depth=14, width=2),
        "long": length(29, depth=14, width=3)
        | {"version": 5, "validate": "once"},  # after each epoch, in float32, it takes a tenth of the minutes
        "hour": length(25, depth=20, width=4),
    },
}
