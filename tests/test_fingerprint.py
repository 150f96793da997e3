"""Pairs of runs: what changes what is computed is another run, what does not is the same; a look leaves no trace."""

import collections
import random
import re
import types
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from course_utils import checkpoints, settings, training
from course_utils.data import Arrays, TensorLoader
from course_utils.fingerprint import fingerprint
from course_utils.training import fit

CODE = """
import dataclasses
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 0.5
TABLE = {"gain": [1.0, 2.0]}

def helper(x):
    return x * 0.5

def leaky(slope):
    return lambda x: F.leaky_relu(x, slope)

@dataclasses.dataclass
class Settings:
    scale: float = 1.0

class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * 1.0

class Net(nn.Module):
    kinds = {"a", "b", "c"}

    def __init__(self, width=4, p=0.3, act=torch.relu):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Dropout(p)
        self.act, self.one, self.two = act, leaky(0.1), leaky(0.2)
        self.head = nn.Linear(width * 36, 4)
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.facts, self.added, self.chosen = {"power": 1.0}, [0.0, 0.1], {1, 2}
        self.array, self.settings = np.array([0.0, 1.0]), Settings(1.0)

    @property
    def half(self):
        return 0.5

    def forward(self, x, *, gain=1.0):
        if "abc" in {"abc", "bcd", "cde"}:
            x = self.norm(self.conv(helper(x))) * SLOPE * gain * self.half
        x = self.act(self.two(self.one(x)) + 0.1)
        x = x ** self.facts["power"] + self.added[1] + 0.1 * len(self.chosen) + float(self.array[1])
        return self.head(self.drop(Slope.apply(x * self.settings.scale * TABLE["gain"][0])).flatten(1))
"""


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    for module in (settings, checkpoints, training):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"), raising=False)


def define(code=CODE, name="lesson"):
    module = types.ModuleType(name)
    exec(compile(code, "<cell>", "exec"), vars(module))
    return module.Net


def arrays(pixel=0):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (48, 1, 8, 8), np.uint8), draw.integers(0, 4, 48)
    images[0, 0, 0, 0] = pixel
    return Arrays(images, labels, tuple("abcd"))


def onecycle(optimizer, steps, peak=0.1):
    return OneCycleLR(optimizer, peak, total_steps=steps)


def he(model):
    for layer in (model.conv, model.head):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)


def train(file="a.pt", *, model=None, code=CODE, name="lesson", width=4, p=0.3, act=torch.relu, epochs=3, lr=0.05,
          optimizer=None, schedule=onecycle, loader=None, pixel=0, batch_size=16, seed=0, loader_seed=0, shift=1,
          flip=None, before=None, only=None, **rest):  # fmt: skip
    """What a training cell does: build everything, call fit. Returns the model and the history."""
    settings.seed_all(seed)
    model = model or define(code, name)(width, p, act)
    if before:
        before(model)
    kind = optimizer or partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    optimizer = kind((only(model) if only else model).parameters(), lr=lr)
    if loader is None:
        loader = TensorLoader(arrays(pixel), batch_size, train=True, seed=loader_seed, shift=shift, flip=flip)
    elif isinstance(loader, types.FunctionType):
        loader = loader()
    rest = {"precision": "float32", "val": TensorLoader(arrays(), 20)} | rest
    steps = (
        epochs * len(loader) if hasattr(loader, "__len__") and not hasattr(loader, "endless") else 3 * epochs
    )
    scheduler = schedule(optimizer, steps) if schedule else None
    history = fit(
        model, loader, epochs=epochs, optimizer=optimizer, scheduler=scheduler, checkpoint=file, **rest
    )
    return model, history


def swapped(old, new, count=1):
    assert CODE.count(old) == count
    return {"code": CODE.replace(old, new)}


X = torch.from_numpy(np.random.default_rng(1).standard_normal((48, 1, 8, 8)).astype(np.float32))
Y = torch.arange(48) % 4
Y2 = Y.clone()
Y2[1] = 3  # not among eight rows that are looked at


class Pictures(Dataset):
    """Images computed one by one, of one's own, with an augmentation where `noise` is set."""

    def __init__(self, size=48, times=1.0, noise=0.0):
        self.size, self.times, self.noise = size, times, noise

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return X[i] * self.times + self.noise * torch.rand(1), i % 4

    def __repr__(self):
        return f"Pictures of {self.size} px"


class Listed(Dataset):
    """Images with a list of targets, as torchvision keeps them."""

    def __init__(self, targets):
        self.targets = targets.tolist()

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return X[i], self.targets[i]


class Own:
    """A loader of one's own."""

    def __init__(self, x, y):
        self.x, self.y, self.passes = x, y, 0

    def __len__(self):
        return 3

    def __iter__(self):
        self.passes += 1
        return iter([(self.x[i : i + 16], self.y[i : i + 16]) for i in (0, 16, 32)])


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(X[i], i % 4) for i in range(48)])


def loaded(data, batch=16, **facts):
    return {
        "loader": lambda: DataLoader(data() if isinstance(data, types.FunctionType) else data, batch, **facts)
    }


def part_of(data, seed=0):
    return lambda: random_split(data, [32, 16], torch.Generator().manual_seed(seed))[0]


def batches(x=X, y=Y):
    return {"loader": [(x[i : i + 16], y[i : i + 16]) for i in (0, 16, 32)]}


def mixed(rows):
    x, y = torch.utils.data.default_collate(rows)
    return (x + x.flip(0)) / 2, y


def endless():
    loader = DataLoader(Endless(), 16)
    loader.endless = True
    return loader


class Weighted:
    """A criterion that is no Module, and counts."""

    def __init__(self, weight):
        self.weight, self.calls = weight, 0

    def __call__(self, z, y):
        self.calls += 1
        return self.weight * F.cross_entropy(z, y)


def with_tensor(weight):
    weight = torch.tensor(weight)
    return lambda z, y: F.cross_entropy(z, y, weight=weight)


def with_module(**facts):
    inner = nn.CrossEntropyLoss(**facts)
    return lambda z, y: inner(z, y)


def named_otherwise(logits, labels):
    return F.cross_entropy(logits, labels)


def smooth(eps):
    return nn.CrossEntropyLoss(label_smoothing=eps)


def weighted(*weight):
    return nn.CrossEntropyLoss(weight=torch.tensor(weight))


class Hinge(torch.autograd.Function):
    """The loss itself is the input; its slope is multiplied."""

    @staticmethod
    def forward(ctx, x, times):
        ctx.times = times
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * ctx.times, None


def steep(times):
    return lambda z, y: Hinge.apply(F.cross_entropy(z, y), times)


def sgd(**facts):
    return lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, **facts)


def decay_of_biases(value):
    def make(parameters, lr):
        parameters = list(parameters)
        groups = [{"params": [p for p in parameters if p.ndim > 1]}]
        return torch.optim.SGD(
            [*groups, {"params": [p for p in parameters if p.ndim < 2], "weight_decay": value}], lr
        )

    return make


def sequence(at):
    def make(optimizer, steps):
        parts = [LinearLR(optimizer, total_iters=2), ExponentialLR(optimizer, 0.9)]
        return SequentialLR(optimizer, parts, [at])

    return make


def many(milestone):
    return {
        "loader": batches()["loader"][:1] * 202,  # means over two steps each
        "lr": 0.005,
        "schedule": lambda o, n: MultiStepLR(o, [milestone]),
    }


def own_schedule(gamma):
    class Halving(torch.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            return [g["lr"] * (gamma if self.last_epoch else 1) for g in self.optimizer.param_groups]

    return lambda o, n: Halving(o)


def freeze(model):
    for p in model.conv.parameters():
        p.requires_grad_(False)


def hooked(times):
    return lambda model: model.conv.register_forward_hook(lambda m, i, out: out * times)


def hooked_back(times):
    return lambda model: model.head.register_full_backward_hook(
        lambda m, i, o: tuple(times * g for g in i if g is not None)
    )


def hooked_tensor(times):
    return lambda model: model.conv.weight.register_hook(lambda g: g * times)


def pretrained(model):
    settings.seed_all(5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5).add_(0.05 * torch.randn_like(p))
    settings.seed_all(0)


def constant(name, value):
    return lambda model: nn.init.constant_(model.get_parameter(name), value)


CE = F.cross_entropy
FORWARD = "        x = self.act(self.two(self.one(x)) + 0.1)\n"
OTHER = {  # what changes: (arguments of the first run, of the second, a word of the line that says so)
    "lr": ({"schedule": None}, {"lr": 0.06}, "lr: 0.05 there, 0.06 here"),
    "peak of the schedule": ({}, {"schedule": partial(onecycle, peak=0.2)}, "lr:"),
    "width": ({}, {"width": 5}, "Conv2d"),
    "relu to tanh in forward": (swapped(FORWARD, FORWARD + "        x = F.relu(x)\n"),
                                swapped(FORWARD, FORWARD + "        x = F.tanh(x)\n"), "code"),
    "relu to tanh as an attribute": ({}, {"act": torch.tanh}, "code"),
    "a constant in a helper of forward": ({}, swapped("x * 0.5", "x - 0.6"), "code"),
    "a global that forward reads": ({}, swapped("SLOPE = 0.5", "SLOPE = 0.6"), "code"),
    "a list in a global dict": ({}, swapped('"gain": [1.0', '"gain": [1.1'), "code"),
    "a keyword's default": ({}, swapped("gain=1.0", "gain=1.1"), "code"),
    "a property": ({}, swapped("return 0.5", "return 0.6"), "code"),
    "what the second closure of a kind holds": ({}, swapped("leaky(0.2)", "leaky(0.3)"), "code"),
    "a value in a dict on the network": ({}, swapped('"power": 1.0', '"power": 1.2'), "code"),
    "a list on the network": ({}, swapped("[0.0, 0.1]", "[0.0, 0.2]"), "code"),
    "a set on the network": ({}, swapped("self.chosen = {\"power\": 1.0}, [0.0, 0.1], {1, 2}",
                                         "self.chosen = {\"power\": 1.0}, [0.0, 0.1], {1}"), "code"),
    "an array on the network": ({}, swapped("np.array([0.0, 1.0])", "np.array([0.0, 1.5])"), "code"),
    "a dataclass on the network": ({}, swapped("Settings(1.0)", "Settings(1.2)"), "code"),
    "the backward of an own autograd.Function": ({}, swapped("slope * 1.0", "slope * 1.1"), "code"),
    "a detached layer": ({}, swapped("self.conv(helper(x))", "self.conv(helper(x)).detach()"), "code"),
    "the order of two layers": (swapped(FORWARD, FORWARD + "        x = torch.tanh(x * 0.7)\n"),
                                swapped(FORWARD, FORWARD + "        x = torch.tanh(x) * 0.7\n"), "code"),
    "code for evaluation alone": ({}, swapped("        return self.head(", "        x = x if self.training else x * 2\n"
                                                                          "        return self.head("), "code"),
    "code for training alone": ({}, swapped("        return self.head(", "        x = x * 2 if self.training else x\n"
                                                                        "        return self.head("), "code"),
    "p of a dropout in forward": (swapped(FORWARD, FORWARD + "        x = F.dropout(x, 0.3, self.training)\n"),
                                  swapped(FORWARD, FORWARD + "        x = F.dropout(x, 0.4, self.training)\n"), "code"),
    "the noise that forward draws": (swapped(FORWARD, FORWARD + "        x = x + 0.1 * torch.rand_like(x)\n"),
                                     swapped(FORWARD, FORWARD + "        x = x + 0.2 * torch.rand_like(x)\n"), "code"),
    "a hook": ({"before": hooked(1.0)}, {"before": hooked(1.2)}, "code"),
    "a hook at all": ({}, {"before": hooked(1.2)}, "code"),
    "a hook on gradients of a layer": ({"before": hooked_back(1.0)}, {"before": hooked_back(0.5)}, "code"),
    "a hook on the gradient of a tensor": ({"before": hooked_tensor(1.0)}, {"before": hooked_tensor(0.5)}, "code"),
    "a buffer that no checkpoint holds": ({}, swapped("torch.ones(2)", "torch.zeros(2)"), "scale"),
    "a buffer's first value": (swapped("persistent=False", "persistent=True"),
                               {"code": CODE.replace("persistent=False", "persistent=True").replace("ones(2)", "full((2,), 1.2)")},
                               "scale"),
    "p of dropout": ({}, {"p": 0.4}, "0.3"),
    "a frozen layer": ({}, {"before": freeze}, "conv.weight"),
    "only a part in the optimizer": ({}, {"only": lambda model: model.head}, "optimizer"),
    "He instead of PyTorch's initialization": ({}, {"before": he}, "weights"),
    "pretrained weights": ({}, {"before": pretrained}, "weights"),
    "a batch norm's first scale is 0": ({}, {"before": constant("norm.weight", 0.0)}, "weights"),
    "a first bias of another value": ({"before": constant("conv.bias", 0.1)}, {"before": constant("conv.bias", 0.2)}, "weights"),
    "seed": ({}, {"seed": 1}, "seed"),
    "label smoothing": ({"criterion": smooth(0.1)}, {"criterion": smooth(0.2)}, "criterion loss"),
    "class weights": ({"criterion": weighted(1.0, 1, 1, 1)}, {"criterion": weighted(1.0, 1, 1, 2)}, "criterion"),
    "an ignored class": ({"criterion": nn.CrossEntropyLoss()}, {"criterion": nn.CrossEntropyLoss(ignore_index=3)}, "criterion"),
    "class weights in a closure":
        ({"criterion": with_tensor([1.0, 1, 1, 1])}, {"criterion": with_tensor([1.0, 1, 1, 2])}, "criterion"),
    "a module in a closure":
        ({"criterion": with_module(label_smoothing=0.1)}, {"criterion": with_module(label_smoothing=0.2)}, "criterion"),
    "a partial": ({"criterion": partial(CE, label_smoothing=0.1)}, {"criterion": partial(CE, label_smoothing=0.2)},
                  "criterion"),
    "a criterion that is no Module": ({"criterion": Weighted(1.0)}, {"criterion": Weighted(2.0)}, "criterion"),
    "only the gradient of the loss": ({"criterion": steep(1.0)}, {"criterion": steep(2.0)}, "criterion"),
    "the function of LambdaLR": ({"schedule": lambda o, n: LambdaLR(o, lambda step: 0.9**step)},
                                 {"schedule": lambda o, n: LambdaLR(o, lambda step: 0.8**step)}, "schedule"),
    "no schedule": ({"schedule": lambda o, n: LambdaLR(o, lambda step: 1.0)}, {"schedule": None}, "schedule"),
    "a schedule's gamma": ({"schedule": lambda o, n: StepLR(o, 2, 0.5)}, {"schedule": lambda o, n: StepLR(o, 2, 0.4)},
                           "schedule"),
    "a schedule's lowest value": ({"schedule": lambda o, n: CosineAnnealingLR(o, n)},
                                  {"schedule": lambda o, n: CosineAnnealingLR(o, n, 0.01)}, "schedule"),
    "a milestone one step later": (many(101), many(102), "schedule"),
    "where a sequence changes": ({"schedule": sequence(1)}, {"schedule": sequence(2)}, "schedule"),
    "a schedule of one's own": ({"schedule": own_schedule(0.9)}, {"schedule": own_schedule(0.8)}, "schedule"),
    "momentum that the schedule moves": ({}, {"schedule": lambda o, n: OneCycleLR(o, 0.1, total_steps=n, base_momentum=0.8)},
                                         "momentum"),
    "momentum": ({"optimizer": sgd(momentum=0.9), "schedule": None}, {"optimizer": sgd(momentum=0.8)}, "momentum"),
    "weight decay": ({"optimizer": sgd(momentum=0.9)}, {"optimizer": sgd(momentum=0.9, weight_decay=0.1)}, "weight_decay"),
    "weight decay of biases": ({"optimizer": decay_of_biases(0), "schedule": None}, {"optimizer": decay_of_biases(0.1)},
                               "weight_decay"),
    "nesterov": ({"optimizer": sgd(momentum=0.9)}, {"optimizer": sgd(momentum=0.9, nesterov=True)}, "nesterov"),
    "another optimizer": ({"schedule": None}, {"optimizer": torch.optim.Adam}, "Adam"),
    "epochs": ({}, {"epochs": 2}, "epochs"),
    "precision": ({}, {"precision": "bfloat16"}, "precision"),
    "seed of the loader": ({}, {"loader_seed": 1}, "seed"),
    "batch size": ({}, {"batch_size": 15}, "batch_size"),
    "shift": ({}, {"shift": 2}, "shift"),
    "flip": ({}, {"flip": "random"}, "flip"),
    "one pixel": ({}, {"pixel": 1}, "images"),
    "no validation": ({}, {"val": None}, "validation"),
    "data of validation": ({}, {"val": TensorLoader(arrays(1), 20)}, "validation"),
    "repr of a DataLoader's set": (loaded(Pictures()), loaded(Pictures(9)), "Pictures of 9"),
    "data of a set of one's own": (loaded(Pictures()), loaded(Pictures(times=2.0)), "data"),
    "an augmentation": (loaded(Pictures()), loaded(Pictures(noise=0.5)), "data"),
    "a stronger augmentation": (loaded(Pictures(noise=0.4)), loaded(Pictures(noise=0.5)), "data"),
    "data of a TensorDataset": (loaded(TensorDataset(X, Y)), loaded(TensorDataset(X + 1, Y)), "data"),
    "one label of a TensorDataset": (loaded(TensorDataset(X, Y)), loaded(TensorDataset(X, Y2)), "data"),
    "one label in a list of targets": (loaded(Listed(Y)), loaded(Listed(Y2)), "targets"),
    "a part of another set": (loaded(part_of(Pictures())), loaded(part_of(Pictures(times=2.0))), "data"),
    "another part of a set": (loaded(part_of(Pictures())), loaded(part_of(Pictures(), seed=1)), "data"),
    "shuffle": (loaded(TensorDataset(X, Y), shuffle=True), loaded(TensorDataset(X, Y)), "RandomSampler"),
    "seed of a DataLoader": ({"loader": lambda: DataLoader(TensorDataset(X, Y), 16, True, generator=torch.Generator().manual_seed(1))},
                             {"loader": lambda: DataLoader(TensorDataset(X, Y), 16, True, generator=torch.Generator().manual_seed(2))},
                             "seed"),
    "weights of a sampler": (loaded(TensorDataset(X, Y), sampler=WeightedRandomSampler([1.0] * 48, 48)),
                             loaded(TensorDataset(X, Y), sampler=WeightedRandomSampler([1.0] * 47 + [9.0], 48)), "weights"),
    "batch size of a DataLoader": (loaded(TensorDataset(X, Y), 16) | {"schedule": None}, loaded(TensorDataset(X, Y), 24), "batch_size"),
    "drop_last": (loaded(TensorDataset(X, Y), 20) | {"schedule": None}, loaded(TensorDataset(X, Y), 20, drop_last=True), "drop_last"),
    "a mixing collate_fn": (loaded(Pictures()), loaded(Pictures(), collate_fn=mixed), "data"),
    "data of a list of batches": (batches(), batches(X + 1), "data"),
    "one label of a list of batches": (batches(), batches(y=Y2), "data"),
    "tensors of a loader of one's own": ({"loader": lambda: Own(X, Y)}, {"loader": lambda: Own(X + 1, Y)}, "data"),
    "code where only validation can be looked at": ({"loader": endless}, swapped("SLOPE = 0.5", "SLOPE = 0.6"), "code"),
    "start": ({}, {"start": "imagenet"}, "imagenet"),
}  # fmt: skip


def counting(model):
    code = type(model).forward

    def forward(self, x):
        self.calls, self.kept = getattr(self, "calls", 0) + 1, x
        self.facts.setdefault("seen", []).append(len(x))
        return code(self, x)

    type(model).forward = forward


def with_generator(model):
    model.generator, model.rng, code = torch.Generator(), np.random.default_rng(), type(model).forward
    type(model).forward = lambda self, x: code(
        self, x + torch.rand(1, generator=self.generator) + self.rng.random()
    )


def few(times):
    return lambda model: model.head.bias.data.copy_(times * torch.tensor([0.1, -0.05, 0.02, 0.04]))


def looked_at(model):
    model(torch.rand(5, 1, 8, 8)).sum().backward()
    model.eval().to(memory_format=torch.channels_last)
    settings.seed_all(0)


def keeping(model):
    kept = []
    model.conv.register_forward_hook(lambda m, i, out: kept.append(out))


def threads(model):
    torch.set_num_threads(3 - torch.get_num_threads() if torch.get_num_threads() < 3 else 1)


DOCUMENTED = re.sub(r"(def [\w_]+\(.*\):|class Net.*:)\n( +)", r'\1\n\2"""Says what it does."""\n\2', CODE)
RENAMED = CODE.replace("helper", "halved").replace("leaky(", "slanted(")
SAME = {
    "the cell run again": ({}, {}),
    "docstrings": ({}, {"code": DOCUMENTED}),
    "comments and blank lines": ({}, {"code": "# a comment\n\n\n" + CODE.replace("\n\n", "\n\n\n# and another\n")}),
    "a variable with the name of a method": ({}, {"code": "flatten = 3\n" + CODE}),
    "another module": ({}, {"name": "course_utils.models.lenet"}),
    "functions with other names": ({}, {"code": RENAMED}),
    "the same function, imported in the function": ({}, swapped(
        "return lambda x: F.leaky_relu(x, slope)", "import torch.nn.functional as G\n    return lambda x: G.leaky_relu(x, slope)")),
    "the same computed in another way": ({}, swapped("return x * 0.5", "half = 2\n    return x / half")),
    "another constant that nobody reads": ({}, swapped('kinds = {"a", "b", "c"}', 'kinds = {"a", "d"}')),
    "a module for a function": ({"act": F.relu}, {"act": lambda x: x.clamp(min=0)}),
    "a list instead of a tuple": ({}, swapped("[0.0, 0.1]", "(0.0, 0.1)")),
    "what forward prints": ({}, swapped(FORWARD, FORWARD + "        print(x.shape) if x.sum() == 7 else None\n")),
    "a counter and kept activations": ({"before": counting}, {}),
    "a hook that keeps activations": ({}, {"before": keeping}),
    "generators of its own": ({"before": with_generator}, {}),
    "a forward that draws": (swapped(FORWARD, FORWARD + "        x = x + torch.rand_like(x) + np.random.rand()\n"), {}),
    "dropout in forward": (swapped(FORWARD, FORWARD + "        x = F.dropout(x, 0.3, self.training)\n"), {}),
    "another draw of the same weights": ({}, {"before": lambda model: (torch.rand(7), [m.reset_parameters() for m in (model.conv, model.head)])}),
    "a few numbers that were drawn small by chance": ({"before": few(1.0)}, {"before": few(0.02)}),
    "a network that was looked at before": ({}, {"before": looked_at}),
    "another number of threads": ({}, {"before": threads}),
    "a NumPy number": ({"schedule": None}, {"lr": np.float64(0.05), "schedule": None}),
    "a criterion as a function of another name": ({"criterion": lambda z, y: CE(z, y)}, {"criterion": named_otherwise}),
    "the default criterion, named": ({}, {"criterion": nn.CrossEntropyLoss()}),
    "a criterion that counts": ({"criterion": Weighted(1.0)}, {}),
    "a lambda of the schedule, written otherwise": ({"schedule": lambda o, n: LambdaLR(o, lambda step: 0.9**step)},
                                                    {"schedule": lambda o, n: LambdaLR(o, lambda k: 1 / (1 / 0.9) ** k)}),
    "a schedule of one's own, defined again": ({"schedule": own_schedule(0.9)}, {"schedule": own_schedule(0.9)}),
    "a DataLoader's workers": (loaded(TensorDataset(X, Y)), loaded(TensorDataset(X, Y), num_workers=0, timeout=0, pin_memory=False)),
    "a shuffled DataLoader": (loaded(TensorDataset(X, Y), shuffle=True), loaded(TensorDataset(X.clone(), Y), shuffle=True)),
    "random augmentation": (loaded(Pictures(noise=0.5)), loaded(Pictures(noise=0.5))),
    "a part of a set": (loaded(part_of(Pictures())), loaded(part_of(Pictures()))),
    "an IterableDataset": (loaded(Endless()) | {"loader": endless}, {"loader": endless}),
    "a loader of one's own that counts": ({"loader": Own(X, Y)}, {}),
    "a list of the same batches": (batches(), batches(X.clone())),
    "a tuple of the same batches": (batches(), {"loader": tuple(batches()["loader"])}),
    "a criterion as a module": ({"criterion": nn.CrossEntropyLoss()}, {"criterion": CE}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_the_same_run_is_trained_anew(case, capsys):
    first, second = SAME[case]
    number = torch.get_num_threads()
    model, _ = train(**{"epochs": 1} | first)
    capsys.readouterr()
    again, history = train(**{"epochs": 1} | first | second)
    torch.set_num_threads(number)
    assert "Picked up from a.pt: 1 of 1" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("case", OTHER)
def test_another_run_is_taken_for_the_stored_one_or_overwrites_it(case, capsys, tmp_path):
    first, second, word = OTHER[case]
    train(**{"epochs": 1} | first)
    file = tmp_path / "runs" / "a.pt"
    before = file.read_bytes()
    capsys.readouterr()
    _, history = train(**{"epochs": 1} | first | second)
    said, *lines = capsys.readouterr().out.splitlines()
    assert "Picked up" not in said and word in said and history["complete"]
    assert len(lines) == len(history["epoch"]) and all(line.startswith("epoch") for line in lines)
    (other,) = [found.name for found in file.parent.iterdir() if found.name != "a.pt"]
    assert re.fullmatch(r"a-[0-9a-f]{8}\.pt", other) and other in said
    assert bool(file.read_bytes() == before)
    for arguments, name in ((first, "a.pt"), (first | second, other)):
        train(**{"epochs": 1} | arguments)
        assert f"Picked up from {name}" in capsys.readouterr().out


GLOBAL = []


class Busy(nn.Module):
    """A network that changes all that it can reach, draws from every generator, and prints."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 4)
        self.norm.eval()
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.seen, self.table, self.names, self.queue = 0, {"a": [1]}, {1}, collections.deque([1])
        self.kept, self.array, self.random = torch.zeros(2), np.zeros(2), np.random.default_rng(3)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        self.seen += 1
        self.table["a"].append(len(x))
        self.table[self.seen] = x
        self.names.add(self.seen)
        self.queue.append(x)
        self.kept += 1
        self.array += 1
        self.mask.mul_(2)
        self.other = x
        GLOBAL.append(x)
        x = (
            x
            + self.random.random()
            + torch.rand(1, generator=self.generator)
            + np.random.rand()
            + random.random()
        )
        print("forward of", x.shape)
        return self.head(F.dropout(self.norm(self.conv(x)), 0.1, self.training).flatten(1))


def state(model, hooked):
    """All that a look could have changed, as text, and the addresses of the parameters."""
    plain = {k: str(v) for k, v in vars(model).items() if k != "_modules"}
    return (plain, [(m.training, len(m._forward_hooks)) for m in model.modules()], str(model.state_dict()),
            [(p.data_ptr(), p.stride(), p.grad) for p in model.parameters()], len(GLOBAL), len(hooked),
            model.generator.get_state().tolist(), str(model.random.bit_generator.state), torch.initial_seed(),
            str(random.getstate()), str(np.random.get_state()), torch.get_rng_state().tolist())  # fmt: skip


@pytest.mark.parametrize("broken", [False, True])
def test_a_look_at_a_run_leaves_a_trace(broken, capsys):
    settings.seed_all(7)
    model, hooked = Busy().to(memory_format=torch.channels_last), []
    model.norm.register_forward_hook(lambda m, i, out: hooked.append(out))
    run = checkpoints.Run(
        model, torch.optim.SGD(model.parameters(), 0.1), None, nn.CrossEntropyLoss(), "float32", False
    )
    data = Pictures(noise=1.0)
    loader = DataLoader(data, 16, shuffle=True, generator=torch.Generator().manual_seed(9))
    once = iter(batches()["loader"])
    if broken:
        model.head.register_forward_hook(lambda m, i, out: 1 / 0)
    before = state(model, hooked), loader.generator.get_state().tolist()
    parts = fingerprint(run, loader, once, 2, "random")
    assert (state(model, hooked), loader.generator.get_state().tolist()) == before
    assert len(list(once)) == 3 and capsys.readouterr().out == ""
    assert bool(parts["code"]["in evaluation"]) != broken


def test_a_run_with_a_checkpoint_ends_with_other_weights_than_one_without(tmp_path):
    loader = loaded(Pictures(noise=1.0), shuffle=True)
    (a, _), (b, _) = (train(name, p=0.5, **loader) for name in (None, "a.pt"))
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_a_network_for_224_pixels_or_one_that_cannot_be_looked_at_stops_training(capsys):
    def make():
        return nn.Sequential(
            nn.Conv2d(3, 4, 11, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
        )

    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8)
    data = Arrays(images, np.arange(8) % 4, tuple("abcd"))
    for loader in (
        TensorLoader(data, 4, train=True, sizes=224),
        [(torch.rand(2, 3, 224, 224), torch.tensor([0, 1]))],
    ):
        for _ in range(2):
            train(
                f"{type(loader).__name__}.pt", model=make(), loader=loader, val=None, epochs=1, schedule=None
            )
        assert "Picked up" in capsys.readouterr().out
