"""What benchmarks/claims.py compares: for each network at most five comparisons, declared before they are run.

A comparison: name; question; sides (name -> what is changed); pairs (of, against: the difference is measured);
measure ("validation top-1", "training error"); paper: the figure there and where it stands. The values of a side are
BASE, changed by the comparison's `recipe`, changed by the side's own. rates: three peak learning rates, of which each
side takes its own best (seed 100); rates of a side replace the comparison's. seeds: the first ones (0, 1, 2); most: no
seed beyond so many. every_rate: no choice, every side runs at each rate. trace: steps at which the spread of the logits
and the gradient norm by layer are kept. first: what is otherwise in a network that is trained before, whose layers this
one starts from. edit: a change of the finished network (one_run.py). No value here follows the recipes: what was
declared stays.
"""

BASE = {
    "data": "cifar100",
    "batch_size": 128,
    "weight_decay": 5e-4,
    "label_smoothing": 0.1,
    "shift": 3,
    "flip": "alternating",
    "limit": None,
    "sizes": (20, 24, 32),
    "init": None,
}
PLAIN_RATES, NORM_RATES = (0.01, 0.03, 0.1), (0.1, 0.2, 0.4)


def net(**network) -> dict:
    """A side that changes the network alone."""
    return {"network": network}


def depth_sides() -> dict:
    """VGG A, B, D, E with and without batch norm, from PyTorch's initialization and from He's."""
    sides = {}
    for norm, init in ((False, None), (False, "He"), (True, None), (True, "He")):
        for layers in "ABDE":
            name = f"{layers}{' + BN' * norm}, {init or 'PyTorch'}"
            rates = NORM_RATES if norm else PLAIN_RATES
            sides[name] = net(layers=layers, width=1 / 4, batch_norm=norm) | {"init": init, "rates": rates}
    return sides


def riddle(data: str, channels_and_classes: str, **recipe) -> dict:
    """What lands below 15 %: the same candidates on both sets, at a usual rate and at ten times that."""
    paper = {"width": 1, "dropout": 0.4, "stem_224": True}
    return {
        "name": f"riddle on {data}",
        "question": f"Which networks stay below 15 % on {channels_and_classes}?",
        "measure": "validation top-1",
        "precision": "float32",
        "recipe": {"data": data, "sizes": 32, "schedule": "constant", "label_smoothing": 0.0} | recipe,
        "rates": (0.01, 0.1),
        "every_rate": True,
        "seeds": (0, 1),
        "trace": (1, 10, 30, 100, 300, 1000, 1700),
        "sides": {
            "LeNet-5, 32 pixels": {"model": "lenet"} | net(padding=0),
            "GoogLeNet, stem for 224, PyTorch": net(batch_norm=False, **paper),
            "GoogLeNet, stem for 224, He": net(batch_norm=False, **paper) | {"init": "He"},
            "GoogLeNet + BN, stem for 224": net(batch_norm=True, **paper),
        },
        "pairs": (),
        "paper": "the original of 2021: below 15 % on both sets; what it trained is not known",
    }


VGG = (
    {
        "name": "depth",
        "question": "Which depths leave chance, and after how many steps?",
        "measure": "training error",
        "recipe": {"epochs": 5, "sizes": 20},
        "trace": (1,),
        "most": 3,
        "sides": depth_sides(),
        "pairs": tuple(
            (f"{layers}{rest}", f"A{rest}")
            for rest in (", PyTorch", ", He", " + BN, PyTorch", " + BN, He")
            for layers in "BDE"
        ),
        "paper": "A 29.6, B 28.7, D 27.0 (single scale), E 27.3: top-1 error on ImageNet, table 3",
    },
    {
        "name": "5x5 for pairs",
        "question": "Two 3 x 3 or one 5 x 5, at equal channels?",
        "measure": "validation top-1",
        "recipe": {"epochs": 8},
        "sides": {
            "B, He": net(layers="B", width=1 / 4, batch_norm=False) | {"init": "He", "rates": PLAIN_RATES},
            "B5, He": net(layers="B5", width=1 / 4, batch_norm=False) | {"init": "He", "rates": PLAIN_RATES},
            "B + BN": net(layers="B", width=1 / 4, batch_norm=True) | {"rates": NORM_RATES},
            "B5 + BN": net(layers="B5", width=1 / 4, batch_norm=True) | {"rates": NORM_RATES},
        },
        "pairs": (("B, He", "B5, He"), ("B + BN", "B5 + BN")),
        "paper": "+7 points on ImageNet, section 4.1",
    },
    {
        "name": "start from A",
        "question": "Does D begun from a trained A learn where D alone stalls, at equal steps?",
        "measure": "training error",
        "recipe": {"epochs": 10, "sizes": 20},
        "rates": PLAIN_RATES,
        "sides": {
            "D, PyTorch": net(layers="D", width=1 / 4, batch_norm=False),
            "D from A": net(layers="D", width=1 / 4, batch_norm=False)
            | {"first": {"network": {"layers": "A"}, "epochs": 5}, "epochs": 5},
            "D, He": net(layers="D", width=1 / 4, batch_norm=False) | {"init": "He"},
        },
        "pairs": (("D from A", "D, PyTorch"), ("D, He", "D from A")),
        "most": 5,
        "paper": "the first four convolutions and the linear layers of A start the deeper ones, section 3.1",
    },
    {
        "name": "start from an A that learned",
        "question": "And begun from an A that has left chance, by He's initialization?",
        "measure": "training error",
        "recipe": {"epochs": 8, "sizes": 20},
        "rates": PLAIN_RATES,
        "sides": {
            "D, PyTorch": net(layers="D", width=1 / 4, batch_norm=False),
            "D from A, He": net(layers="D", width=1 / 4, batch_norm=False)
            | {"first": {"network": {"layers": "A"}, "init": "He", "epochs": 4}, "epochs": 4},
        },
        "pairs": (("D from A, He", "D, PyTorch"),),
        "most": 3,
        "paper": "as above; there A learned from a normal distribution of variance 0.01",
    },
)

GOOGLENET = (
    riddle("cifar100", "100 classes", epochs=5),
    riddle("fashion", "10 classes", epochs=4, shift=2),
    {
        "name": "1x1 reductions",
        "question": "With or without, 9 and 7 epochs: equal minutes of a core?",
        "measure": "validation top-1",
        "recipe": {"sizes": 20},
        "rates": NORM_RATES,
        "sides": {
            "with": net(width=1 / 4) | {"epochs": 9},  # as many minutes on one core
            "without": net(width=1 / 4, reduce=False) | {"epochs": 7},
        },
        "pairs": (("with", "without"),),
        "paper": "computation stays affordable, section 4; no figure",
    },
    {
        "name": "auxiliary heads",
        "question": "Do two auxiliary heads help, with and without batch norm?",
        "measure": "validation top-1",
        "recipe": {"epochs": 6, "sizes": 20},
        "trace": (1,),
        "sides": {
            "none, He": net(width=1 / 4, batch_norm=False) | {"init": "He", "rates": PLAIN_RATES},
            "heads, He": net(width=1 / 4, batch_norm=False, heads=True)
            | {"init": "He", "rates": PLAIN_RATES},
            "none, PyTorch": net(width=1 / 4, batch_norm=False) | {"rates": PLAIN_RATES},
            "heads, PyTorch": net(width=1 / 4, batch_norm=False, heads=True) | {"rates": PLAIN_RATES},
            "none + BN": net(width=1 / 4) | {"rates": NORM_RATES},
            "heads + BN": net(width=1 / 4, heads=True) | {"rates": NORM_RATES},
        },
        "pairs": (
            ("heads, He", "none, He"),
            ("heads, PyTorch", "none, PyTorch"),
            ("heads + BN", "none + BN"),
        ),
        "paper": "about half a point on ImageNet, section 5; one head does as much",
    },
    {
        "name": "average pooling",
        "question": "The mean of each map, or a linear layer over it all?",
        "measure": "validation top-1",
        "recipe": {"epochs": 6, "sizes": 28},  # the last map is 4 x 4
        "rates": NORM_RATES,
        "sides": {"average": net(width=1 / 4), "linear layer": net(width=1 / 4, average=False)},
        "pairs": (("average", "linear layer"),),
        "paper": "+0.6 points on ImageNet, section 5",
    },
)

RESNET = (
    {
        "name": "plain against residual",
        "question": "Does depth raise the training error of a plain network, and not of a residual one?",
        "measure": "training error",
        "recipe": {"epochs": 8, "sizes": 20, "init": "He"},
        "rates": (0.03, 0.1, 0.3),
        "sides": {
            "plain-20": net(depth=20, shortcut=False),
            "plain-56": net(depth=56, shortcut=False),
            "ResNet-20": net(depth=20),
            "ResNet-56": net(depth=56),
        },
        "pairs": (
            ("plain-56", "plain-20"),
            ("ResNet-56", "ResNet-20"),
            ("ResNet-56", "plain-56"),
            ("ResNet-20", "plain-20"),
        ),
        "most": 6,
        "paper": "CIFAR-10, 64,000 steps: plain-56 has the higher training error, figures 1 and 6",
    },
    {
        "name": "shortcuts",
        "question": "Zeros (A), projections (B) or none, at 20 layers?",
        "measure": "validation top-1",
        "recipe": {"epochs": 8},
        "rates": NORM_RATES,
        "sides": {"A": net(shortcut="A"), "B": net(shortcut="B"), "none": net(shortcut=False)},
        "pairs": (("A", "none"), ("B", "none"), ("B", "A")),
        "paper": "ResNet-34 on ImageNet, top-1 error: plain 28.54, A 25.03, B 24.52, tables 2 and 3",
    },
    {
        "name": "stem for 224 pixels",
        "question": "What does the stem for 224 pixels cost on 32?",
        "measure": "validation top-1",
        "recipe": {"epochs": 8, "sizes": 32},
        "rates": NORM_RATES,
        "sides": {"3 x 3": net(depth=14), "7 x 7 and pool": net(depth=14, stem_224=True)},
        "pairs": (("3 x 3", "7 x 7 and pool"),),
        "paper": "no figure; elsewhere about 76 against 60 % on CIFAR-100 (weiaicunzai/pytorch-cifar100, issue 17)",
    },
)

SMALL_ALEXNET = {"width": 1 / 4, "hidden": 256, "batch_norm": False}
LRN_RATES = (0.03, 0.06, 0.12)
ALEXNET = (
    {
        "name": "ReLU or tanh",
        "question": "ReLU or tanh, with each initialization?",
        "measure": "validation top-1",
        "recipe": {"epochs": 10},
        "rates": (0.02, 0.05, 0.12),
        "sides": {
            f"{activation}, {init or 'PyTorch'}": net(**SMALL_ALEXNET, activation=activation) | {"init": init}
            for activation in ("ReLU", "Tanh")
            for init in (None, "He")
        },
        "pairs": (
            ("ReLU, PyTorch", "Tanh, PyTorch"),
            ("ReLU, He", "Tanh, He"),
            ("ReLU, He", "Tanh, PyTorch"),
        ),
        "paper": "a network of four convolutions reaches 25 % training error on CIFAR-10 in a sixth of the epochs, figure 1",
    },
    {
        "name": "overlapping pools",
        "question": "Pools of 3 with stride 2, or of 2?",
        "measure": "validation top-1",
        "recipe": {"epochs": 10, "init": "He"},
        "rates": (0.02, 0.05, 0.12),
        "sides": {"overlapping": net(**SMALL_ALEXNET), "separate": net(**SMALL_ALEXNET, overlapping=False)},
        "pairs": (("overlapping", "separate"),),
        "paper": "+0.4 points top-1 on ImageNet, section 3.4",
    },
    {
        "name": "LRN",
        "question": "LRN, no normalization, or a plain division by its constant?",
        "measure": "validation top-1",
        "recipe": {"epochs": 10, "init": "He"},
        "rates": LRN_RATES,
        "sides": {
            "none": net(**SMALL_ALEXNET),
            "LRN": net(**SMALL_ALEXNET, lrn=True),
            "divided by 1.68": net(**SMALL_ALEXNET, lrn=True) | {"edit": "division for LRN"},
        },
        "pairs": (("LRN", "none"), ("divided by 1.68", "none"), ("LRN", "divided by 1.68")),
        "paper": "+1.4 points top-1 on ImageNet, section 3.3",
    },
    {
        "name": "dropout",
        "question": "Dropout where the network overfits: 15,000 images, no augmentation?",
        "measure": "validation top-1",
        "recipe": {"epochs": 30, "sizes": 24, "limit": 15_000, "shift": 0, "flip": None, "init": "He"},
        "rates": (0.02, 0.05, 0.12),
        "sides": {f"dropout {p}": net(**SMALL_ALEXNET | {"hidden": 512}, dropout=p) for p in (0.0, 0.1, 0.5)},
        "pairs": (("dropout 0.1", "dropout 0.0"), ("dropout 0.5", "dropout 0.0")),
        "paper": "without it the network overfits substantially, section 4.2; no figure",
    },
)

TABLES = {"alexnet": ALEXNET, "vgg": VGG, "googlenet": GOOGLENET, "resnet": RESNET}
