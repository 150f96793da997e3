"""Checks of lesson 05."""

import torch
from torch import nn

from course_utils.exercises.frame import Check, predict, same_weights, use

__all__ = ["check_batch_norm", "check_lrn", "check_refill", "predict", "use"]


# 05.1: local response normalization


def channels(rng):
    """Maps with one to eight channels, and constants that show."""
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 9)), 2, 3)
    n, k = int(rng.choice((3, 5))), float(rng.integers(1, 4))
    a = torch.from_numpy(rng.normal(size=shape).round(2)).float()
    return {"a": a, "n": n, "k": k, "alpha": 0.5, "beta": float(rng.choice((0.5, 0.75, 1)))}


def windowed(sums):
    """LRN, given which channels are added up: sums(squares, i, half) is their sum for channel i."""

    def answer(a, n, k, alpha, beta):
        added = torch.stack([sums(a**2, i, n // 2) for i in range(a.shape[1])], 1)  # (N, C, H, W)
        return a / (k + alpha * added) ** beta

    return answer


lrn = windowed(lambda squares, i, half: squares[:, max(0, i - half) : i + half + 1].sum(1))


def places(a, n, k, alpha, beta):
    """The window runs along a row of the image."""
    return lrn(a.transpose(1, 3), n, k, alpha, beta).transpose(1, 3)


def overwritten(a, n, k, alpha, beta):
    """Each channel is replaced before the next one looks at it."""
    b = a.clone()
    for i in range(a.shape[1]):
        b[:, i] = lrn(b, n, k, alpha, beta)[:, i]
    return b


check_lrn = Check(
    lrn,
    channels,
    always=({"a": torch.ones(1, 6, 1, 1), "n": 5, "k": 2.0, "alpha": 1.0, "beta": 1.0},),
    tolerance=1e-4,
    mistakes={
        "The formula takes alpha as it is: only PyTorch divides it by n.": lambda a, n, k, alpha, beta: lrn(
            a, n, k, alpha / n, beta
        ),
        "Both ends of the window count, so a slice ends at i + n // 2 + 1.": windowed(
            lambda squares, i, half: squares[:, max(0, i - half) : i + half].sum(1)
        ),
        "A slice must not begin below 0: max(0, ...).": windowed(
            lambda squares, i, half: squares[:, i - half : i + half + 1].sum(1)
        ),
        "Square the numbers before you add them up.": lambda a, n, k, alpha, beta: (
            a * lrn(a.abs().sqrt(), n, k, alpha, beta) / a.abs().sqrt()
        ),
        "The whole bracket is raised to beta, k included.": lambda a, n, k, alpha, beta: (
            a / (k + (a / lrn(a, n, 0, alpha, 1)) ** beta)
        ),
        "The formula sums, it does not average.": windowed(
            lambda squares, i, half: squares[:, max(0, i - half) : i + half + 1].mean(1)
        ),
        "You overwrite channels that their neighbours still need: write into a new tensor.": overwritten,
        "The power beta is missing.": lambda a, n, k, alpha, beta: lrn(a, n, k, alpha, 1.0),
        "The window runs over channels (dimension 1), not over places.": places,
        "Divide by the bracket, do not multiply.": lambda a, n, k, alpha, beta: lrn(a, n, k, alpha, -beta),
    },
    correct="With k = 2 and beta = 0.75, and numbers of about 1, it divides by 1.68: almost only k counts.",
)


# 05.4: batch norm, in training and afterwards


def batches(rng):
    """A batch to train on, and a new one to evaluate."""
    size = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    first, second = (torch.from_numpy(rng.normal(3, 2, (*size, 2, 3))).float() for _ in range(2))
    return {"x": first, "x_new": second}


def both_modes(answer, first, second):
    """Output in training, in evaluation, and in evaluation after one more pass."""
    layer = same_weights(answer(first.shape[1]))
    with torch.no_grad():
        training = layer.train()(first)
        evaluation = layer.eval()(second)
        return training, evaluation, layer(second)


class BatchNorm(nn.Module):
    """Batch norm with switches for what goes wrong."""

    def __init__(self, channels, batch_always=False, correction=1, share=0.1, swapped=False, unbiased=0):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.mean, self.variance = torch.zeros(channels), torch.ones(channels)
        self.batch_always, self.correction, self.share = batch_always, correction, share
        self.swapped, self.unbiased = swapped, unbiased

    def forward(self, x):
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=self.unbiased)
        if self.training:
            kept = x.var((0, 2, 3), correction=self.correction)
            self.mean = (1 - self.share) * self.mean + self.share * mean
            self.variance = (1 - self.share) * self.variance + self.share * kept
        if self.training == self.swapped and not self.batch_always:
            mean, variance = self.mean, self.variance
        column = (-1, 1, 1)
        normal = (x - mean.view(column)) / (variance.view(column) + 1e-5).sqrt()
        return self.gamma.view(column) * normal + self.beta.view(column)


def with_(**switches):
    return lambda channels: BatchNorm(channels, **switches)


check_batch_norm = Check(
    nn.BatchNorm2d,
    batches,
    call=both_modes,
    names=("output in training", "output in evaluation", "output in evaluation, once more"),
    tolerance=1e-4,
    mistakes={
        "The bug is still there.": with_(batch_always=True),
        "The variance that is kept is the unbiased one: correction=1.": with_(correction=0),
        "A tenth of the new and nine tenths of the old, not the other way round.": with_(share=0.9),
        "`self.training` is True in training: your branches are swapped.": with_(swapped=True),
        "The batch is divided by the root of its biased variance: correction=0.": with_(unbiased=1),
    },
    correct="Now an image gets the same answer whatever else is in its batch.",
)


# 05.7: other running statistics, the same weights


def sizes(rng):
    return {"batch_sizes": [int(rng.integers(2, 6))] * int(rng.integers(2, 5))}


def refilled(answer, batch_sizes):
    """The statistics of a small network that had others, its weights and mode, after an answer."""
    norm = nn.BatchNorm2d(4)
    net = same_weights(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()), nn.Flatten()))
    with torch.no_grad():
        net.train()(5 + 3 * torch.randn(6, 3, 4, 4))
    net.eval()
    answer(net, [(1 + torch.randn(size, 3, 4, 4), torch.zeros(size).long()) for size in batch_sizes])
    weights = torch.cat([p.flatten() for p in net.parameters()])
    return norm.running_mean, norm.running_var, weights, float(net.training)


def refilling(reset=True, momentum=None, train=True, evaluate=True, most=None):
    """An answer with one thing left out."""

    def answer(net, batches):
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            if reset:
                norm.reset_running_stats()
            norm.momentum = momentum
        net.train(train)
        with torch.no_grad():
            for x, _ in batches[:most]:
                net(x)
        net.train(not evaluate)

    return answer


check_refill = Check(
    refilling(),
    sizes,
    call=refilled,
    names=("running mean", "running variance", "weights", "training mode (1 is on)"),
    mistakes={
        "The old statistics are still mixed in: reset_running_stats().": refilling(reset=False),
        "With momentum=0.1 much of the starting values remains; None takes a plain mean.": refilling(
            momentum=0.1
        ),
        "No batch norm was changed: net.modules() looks inside layers, net.children() does not.": refilling(
            reset=False, momentum=0.1
        ),
        "With momentum=1 the last batch alone counts.": refilling(momentum=1),
        "Only the first batch was seen.": refilling(most=1),
        "Change the network that you are given, not a copy.": lambda net, batches: net,
        "In evaluation mode the statistics do not move: net.train() before the batches.": refilling(
            train=False
        ),
        "Leave the network in evaluation mode.": refilling(evaluate=False),
    },
    correct="No weight has moved: only what batch norm subtracts and divides by.",
)
