"""The checks of lesson 05: what a learner reads for right and for wrong answers."""

import copy

import pytest
import torch
from torch import nn

from course_utils.exercises.lesson_05 import check_batch_norm, check_lrn, check_refill


def verdicts(check, answer, capsys, times=8):
    """What a check prints, called so many times: its cases are random."""
    capsys.readouterr()
    found = []
    for _ in range(times):
        check(answer)
        found.append(" ".join(capsys.readouterr().out.split()))  # a verdict may fill several lines
    return found


# 05.1


def by_torch(a, n, k, alpha, beta):
    return nn.LocalResponseNorm(n, alpha=alpha * n, beta=beta, k=k)(a)


def by_loops(a, size=5, constant=2.0, alpha=1e-4, power=0.75):
    b = torch.empty_like(a)
    for i in range(a.shape[1]):
        total = sum(a[:, j] ** 2 for j in range(a.shape[1]) if abs(i - j) <= size // 2)
        b[:, i] = a[:, i] / (constant + alpha * total).pow(power)
    return b


def by_matrix(a, n, k, alpha, beta):
    channel = torch.arange(a.shape[1])
    near = ((channel[:, None] - channel).abs() <= n // 2).float()
    return a * (k + alpha * torch.einsum("ij,njhw->nihw", near, a.square())) ** -beta


@pytest.mark.parametrize("answer", [by_torch, by_loops, by_matrix])
def test_a_right_lrn_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_lrn, answer, capsys))


def torchs_alpha(a, n, k, alpha, beta):
    return nn.LocalResponseNorm(n, alpha=alpha, beta=beta, k=k)(a)


def sliced(a, n, k, alpha, beta, low=lambda i: max(0, i), extra=1):
    b = torch.empty_like(a)
    for i in range(a.shape[1]):
        near = a[:, low(i - n // 2) : i + n // 2 + extra]
        b[:, i] = a[:, i] / (k + alpha * (near**2).sum(1)) ** beta
    return b


def too_short(a, n, k, alpha, beta):
    return sliced(a, n, k, alpha, beta, extra=0)


def from_the_end(a, n, k, alpha, beta):
    return sliced(a, n, k, alpha, beta, low=lambda i: i)


def no_power(a, n, k, alpha, beta):
    return sliced(a, n, k, alpha, 1)


def no_squares(a, n, k, alpha, beta):
    b = torch.empty_like(a)
    for i in range(a.shape[1]):
        b[:, i] = a[:, i] / (k + alpha * a[:, max(0, i - n // 2) : i + n // 2 + 1].abs().sum(1)) ** beta
    return b


def k_outside(a, n, k, alpha, beta):
    b = torch.empty_like(a)
    for i in range(a.shape[1]):
        near = a[:, max(0, i - n // 2) : i + n // 2 + 1]
        b[:, i] = a[:, i] / (k + (alpha * (near**2).sum(1)) ** beta)
    return b


def averaged(a, n, k, alpha, beta):
    b = torch.empty_like(a)
    for i in range(a.shape[1]):
        near = a[:, max(0, i - n // 2) : i + n // 2 + 1]
        b[:, i] = a[:, i] / (k + alpha * (near**2).mean(1)) ** beta
    return b


def overwriting(a, n, k, alpha, beta):
    a = a.clone()
    for i in range(a.shape[1]):
        near = a[:, max(0, i - n // 2) : i + n // 2 + 1]
        a[:, i] = a[:, i] / (k + alpha * (near**2).sum(1)) ** beta
    return a


def multiplied(a, n, k, alpha, beta):
    return a * (a / sliced(a, n, k, alpha, beta))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (torchs_alpha, "only PyTorch divides it by n."),
        (too_short, "so a slice ends at i + n // 2 + 1."),
        (from_the_end, "A slice must not begin below 0: max(0, ...)."),
        (averaged, "The formula sums, it does not average."),
        (overwriting, "write into a new tensor."),
        (no_power, "The power beta is missing."),
        (no_squares, "Square the numbers before you add them up."),
        (k_outside, "The whole bracket is raised to beta, k included."),
        (multiplied, "Divide by the bracket, do not multiply."),
    ],
)
def test_a_wrong_lrn_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    found = verdicts(check_lrn, answer, capsys)
    assert all(text.startswith("Not yet: for ") for text in found)
    assert sum(text.endswith(sentence) for text in found) >= 7, found


# 05.4


class Planted(nn.Module):  # the lesson's cell
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def statistics(self, x):
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        if self.training:
            self.keep(x, mean)
        return mean, var

    def keep(self, x, mean):
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * x.var((0, 2, 3))

    def forward(self, x):
        mean, var = (s[:, None, None] for s in self.statistics(x))
        normal = (x - mean) / (var + 1e-5).sqrt()
        return self.gamma[:, None, None] * normal + self.beta[:, None, None]


class Mended(Planted):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return (mean, var) if self.training else (self.running_mean, self.running_var)


class InPlace(Mended):
    def keep(self, x, mean):
        with torch.no_grad():
            self.running_mean += 0.1 * (mean - self.running_mean)
            self.running_var.lerp_(x.transpose(0, 1).flatten(1).var(1), 0.1)


class ByTorch(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize("answer", [Mended, InPlace, ByTorch])
def test_a_right_batch_norm_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_batch_norm, answer, capsys))


class Biased(Mended):
    def keep(self, x, mean):
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean
        self.running_var = 0.9 * self.running_var + 0.1 * x.var((0, 2, 3), correction=0)


class Swapped(Mended):
    def keep(self, x, mean):
        self.running_mean = 0.1 * self.running_mean + 0.9 * mean
        self.running_var = 0.1 * self.running_var + 0.9 * x.var((0, 2, 3))


class Unbiased(Mended):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return (mean, x.var((0, 2, 3))) if self.training else (mean, var)


class Inverted(Planted):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return (self.running_mean, self.running_var) if self.training else (mean, var)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Planted, "The bug is still there."),
        (Biased, "The variance that is kept is the unbiased one: correction=1."),
        (Swapped, "A tenth of the new and nine tenths of the old, not the other way round."),
        (Inverted, "your branches are swapped."),
        (Unbiased, "The batch is divided by the root of its biased variance: correction=0."),
    ],
)
def test_a_wrong_batch_norm_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_batch_norm, answer, capsys):
        assert text.startswith("Not yet: for ") and sentence in text, text


# 05.7


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def pass_through(net, batches):
    net.train()
    with torch.no_grad():
        for x, _ in batches:
            net(x)
    net.eval()


def plain_mean(net, batches):
    for norm in norms(net):
        norm.reset_running_stats()
        norm.momentum = None
    pass_through(net, batches)


def growing_share(net, batches):
    for number, batch in enumerate(batches):
        for norm in norms(net):
            norm.momentum = 1 / (number + 1)
        pass_through(net, [batch])


@torch.no_grad()
def by_hand(net, batches):
    kept = []
    for batch in batches:
        for norm in norms(net):
            norm.momentum = 1.0
        pass_through(net, [batch])
        kept.append([(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms(net)])
    for i, norm in enumerate(norms(net)):
        norm.running_mean.copy_(sum(row[i][0] for row in kept) / len(kept))
        norm.running_var.copy_(sum(row[i][1] for row in kept) / len(kept))
    return net


@pytest.mark.parametrize("answer", [plain_mean, growing_share, by_hand])
def test_a_right_refill_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_refill, answer, capsys))


def nothing_set(net, batches):
    pass_through(net, batches)


def not_reset(net, batches):
    for norm in norms(net):
        norm.momentum = None
    pass_through(net, batches)


def a_tenth(net, batches):
    for norm in norms(net):
        norm.reset_running_stats()
    pass_through(net, batches)


def last_batch(net, batches):
    for norm in norms(net):
        norm.momentum = 1.0
    pass_through(net, batches)


def one_batch(net, batches):
    plain_mean(net, batches[:1])


def on_a_copy(net, batches):
    plain_mean(copy.deepcopy(net), batches)


def still_training(net, batches):
    plain_mean(net, batches)
    net.train()


def in_evaluation(net, batches):
    for norm in norms(net):
        norm.reset_running_stats()
        norm.momentum = None
    net.eval()
    for x, _ in batches:
        net(x)


def on_the_surface(net, batches):
    for layer in net.children():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    pass_through(net, batches)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            nothing_set,
            "No batch norm was changed: net.modules() looks inside layers, net.children() does not.",
        ),
        (on_the_surface, "net.modules() looks inside layers, net.children() does not."),
        (not_reset, "The old statistics are still mixed in: reset_running_stats()."),
        (a_tenth, "None takes a plain mean."),
        (last_batch, "With momentum=1 the last batch alone counts."),
        (one_batch, "Only the first batch was seen."),
        (on_a_copy, "Change the network that you are given, not a copy."),
        (still_training, "Leave the network in evaluation mode."),
        (in_evaluation, "In evaluation mode the statistics do not move: net.train() before the batches."),
    ],
)
def test_a_wrong_refill_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_refill, answer, capsys):
        assert text.startswith("Not yet: for ") and text.endswith(sentence), text


def test_a_refill_that_trains_is_called_correct(capsys):
    def trained(net, batches):
        plain_mean(net, batches)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(0.9)

    assert all("weights" in text for text in verdicts(check_refill, trained, capsys))


def test_an_unwritten_answer_is_called_wrong(capsys):
    def blank(a, n=5, k=2.0, alpha=1e-4, beta=0.75): ...

    for check in (check_lrn, check_refill):
        assert verdicts(check, copy.copy(blank), capsys, 1) == ["Not attempted yet."]
