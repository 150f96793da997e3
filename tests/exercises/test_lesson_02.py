"""The checks of lesson 02: right answers in several styles pass, wrong ones hear their mistake; references are torch's."""

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.exercises import lesson_02 as lesson
from course_utils.from_scratch.optim import Adam

TIMES = 20


def said(capsys, check, answer):
    check(answer)
    return " ".join(capsys.readouterr().out.splitlines())


def momentum_in_place(w, g, v, lr, momentum):
    w, v = w.copy(), v.copy()
    v *= momentum
    v += g
    w -= lr * v
    return w, v


def momentum_one_line(w, g, v, lr, momentum):
    return w - lr * (momentum * v + g), momentum * v + g


def momentum_loop(weights, slope, speed, rate, keep):
    pairs = [(a - rate * (keep * c + b), keep * c + b) for a, b, c in zip(weights, slope, speed, strict=True)]
    return tuple(np.array(part) for part in zip(*pairs, strict=True))


def adam_of_the_paper(w, g, m, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    s_hat = s / (1 - beta2**t)
    return w - lr * m_hat / (np.sqrt(s_hat) + eps), m, s


def adam_in_place(w, g, m, s, t, lr, beta1, beta2, eps):
    w, m, s = w.copy(), m.copy(), s.copy()
    m += (1 - beta1) * (g - m)
    s += (1 - beta2) * (np.square(g) - s)
    w -= lr * (m / (1 - beta1**t)) / (eps + (s / (1 - beta2**t)) ** 0.5)
    return [w, m, s]


def adam_with_lists(w, g, m, s, t, lr, beta1, beta2, eps):
    parts = [
        adam_of_the_paper(*numbers, t, lr, beta1, beta2, eps) for numbers in zip(w, g, m, s, strict=True)
    ]
    return tuple(np.array(part) for part in zip(*parts, strict=True))


def backward_of_the_paper(dy, xhat, std, gamma):
    n, dxhat = len(dy), dy * gamma
    dx = (n * dxhat - dxhat.sum(axis=0) - xhat * (dxhat * xhat).sum(axis=0)) / (n * std)
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def backward_step_by_step(dy, xhat, std, gamma):
    dxhat, centred, n = dy * gamma, xhat * std, len(dy)
    dvar = (dxhat * centred * -0.5 * std**-3).sum(axis=0)
    dmean = (-dxhat / std).sum(axis=0) + dvar * -2 * centred.mean(axis=0)
    return dxhat / std + dvar * 2 * centred / n + dmean / n, np.sum(dy * xhat, 0), np.sum(dy, 0)


def backward_by_matrix(dy, xhat, std, gamma):
    dx = np.empty_like(dy)
    n = len(dy)
    for j in range(dy.shape[1]):
        dx[:, j] = (np.eye(n) - 1 / n - np.outer(xhat[:, j], xhat[:, j]) / n) @ dy[:, j] * gamma[j] / std[j]
    return dx, np.einsum("nf,nf->f", dy, xhat), dy.sum(axis=0)


class OwnAdam:
    def __init__(self, lr, beta1=0.9, beta2=0.999, eps=1e-8):
        self.lr, self.betas, self.eps = lr, (beta1, beta2), eps
        self.m, self.s, self.t = {}, {}, {}

    def step(self, parameters, gradients):
        for name in parameters:
            self.t[name] = self.t.get(name, 0) + 1
            arguments = self.m.get(name, 0), self.s.get(name, 0), self.t[name], self.lr, *self.betas, self.eps
            w, self.m[name], self.s[name] = adam_of_the_paper(parameters[name], gradients[name], *arguments)
            parameters[name] -= parameters[name] - w


class AdamFromNought(OwnAdam):
    def __init__(self, lr):
        super().__init__(lr)
        self.t = 0

    def step(self, parameters, gradients):
        self.t = self.t + 1
        for name, w in parameters.items():
            m, s = self.m.get(name, np.zeros_like(w)), self.s.get(name, np.zeros_like(w))
            w[:], self.m[name], self.s[name] = adam_of_the_paper(w, gradients[name], m, s, self.t, self.lr)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (lesson.check_momentum, momentum_in_place),
        (lesson.check_momentum, momentum_one_line),
        (lesson.check_momentum, momentum_loop),
        (lesson.check_adam, adam_of_the_paper),
        (lesson.check_adam, adam_in_place),
        (lesson.check_adam, adam_with_lists),
        (lesson.check_steps, Adam),
        (lesson.check_steps, OwnAdam),
        (lesson.check_steps, AdamFromNought),
        (lesson.check_norm, backward_of_the_paper),
        (lesson.check_norm, backward_step_by_step),
        (lesson.check_norm, backward_by_matrix),
    ],
)
def test_a_right_answer_is_refused(check, answer, capsys):
    for _ in range(TIMES):
        assert said(capsys, check, answer).startswith("Correct. ")


def old_velocity(w, g, v, lr, momentum):
    step = lr * v
    return w - step, momentum * v + g


def running_mean(w, g, v, lr, momentum):
    v = momentum * v + (1 - momentum) * g
    return w - lr * v, v


def rate_in_velocity(w, g, v, lr, momentum):
    v = momentum * v + lr * g
    return w - v, v


def uphill(w, g, v, lr, momentum):
    v = momentum * v + g
    return w + lr * v, v


def without_correction(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    return w - lr * m / (np.sqrt(s) + eps), m, s


def corrected_kept(w, g, m, s, t, lr, beta1, beta2, eps):
    m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
    s = (beta2 * s + (1 - beta2) * g**2) / (1 - beta2**t)
    return w - lr * m / (np.sqrt(s) + eps), m, s


def no_root(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    return w - lr * (m / (1 - beta1**t)) / (s / (1 - beta2**t) + eps), m, s


def eps_inside(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    return w - lr * (m / (1 - beta1**t)) / np.sqrt(s / (1 - beta2**t) + eps), m, s


def betas_mixed(w, g, m, s, t, lr, beta1, beta2, eps):
    return adam_of_the_paper(w, g, m, s, t, lr, beta2, beta1, eps)


def from_nought(w, g, m, s, t, lr, beta1, beta2, eps):
    return adam_of_the_paper(w, g, m, s, t - 1, lr, beta1, beta2, eps)


class CountedInTheLoop(OwnAdam):
    def __init__(self, lr):
        super().__init__(lr)
        self.t = 0

    def step(self, parameters, gradients):
        for name, w in parameters.items():
            self.t += 1
            m, s = self.m.get(name, 0), self.s.get(name, 0)
            w[:], self.m[name], self.s[name] = adam_of_the_paper(w, gradients[name], m, s, self.t, self.lr)


class CountedTooLate(CountedInTheLoop):
    def step(self, parameters, gradients):
        for name, w in parameters.items():
            m, s = self.m.get(name, 0), self.s.get(name, 0)
            w[:], self.m[name], self.s[name] = adam_of_the_paper(w, gradients[name], m, s, self.t, self.lr)
        self.t += 1


class AlwaysFirst(CountedInTheLoop):
    def step(self, parameters, gradients):
        for name, w in parameters.items():
            m, s = self.m.get(name, 0), self.s.get(name, 0)
            w[:], self.m[name], self.s[name] = adam_of_the_paper(w, gradients[name], m, s, 1, self.lr)


def constants(dy, xhat, std, gamma):
    return dy * gamma / std, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def mean_alone(dy, xhat, std, gamma):
    return (dy - dy.mean(axis=0)) * gamma / std, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def sums(dy, xhat, std, gamma):
    dx = (dy - dy.sum(axis=0) - xhat * (dy * xhat).sum(axis=0)) * gamma / std
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def averaged(dy, xhat, std, gamma):
    dx, _, _ = backward_of_the_paper(dy, xhat, std, gamma)
    return dx, (dy * xhat).mean(axis=0), dy.mean(axis=0)


def velocity_of_sutskever(w, g, v, lr, momentum):
    v = momentum * v - lr * g
    return w + v, v


def nesterov(w, g, v, lr, momentum):
    v = momentum * v + g
    return w - lr * (g + momentum * v), v


def not_a_mean(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + g
    s = beta2 * s + g**2
    return w - lr * (m / (1 - beta1**t)) / (np.sqrt(s / (1 - beta2**t)) + eps), m, s


def along_g(w, g, m, s, t, lr, beta1, beta2, eps):
    _, m, s = adam_of_the_paper(w, g, m, s, t, lr, beta1, beta2, eps)
    return w - lr * g / (np.sqrt(s / (1 - beta2**t)) + eps), m, s


def without_t(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    return w - lr * (m / (1 - beta1)) / (np.sqrt(s / (1 - beta2)) + eps), m, s


def fast_form_of_the_paper(w, g, m, s, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    rate = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return w - rate * m / (np.sqrt(s) + eps), m, s


class NewArrays(OwnAdam):
    def step(self, parameters, gradients):
        super().step({name: w.copy() for name, w in parameters.items()}, gradients)


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (lesson.check_momentum, old_velocity, "the new v"),
        (lesson.check_momentum, running_mean, "without 1 - momentum"),
        (lesson.check_momentum, rate_in_velocity, "not into v"),
        (lesson.check_adam, without_correction, "Nothing corrects the start"),
        (lesson.check_adam, corrected_kept, "uncorrected"),
        (lesson.check_adam, no_root, "by the root of s^"),
        (lesson.check_adam, eps_inside, "outside it"),
        (lesson.check_adam, betas_mixed, "beta1 belongs to m"),
        (lesson.check_momentum, velocity_of_sutskever, "v sums gradients"),
        (lesson.check_momentum, nesterov, "Nesterov"),
        (lesson.check_adam, not_a_mean, "m and s are means"),
        (lesson.check_adam, along_g, "along m_hat"),
        (lesson.check_adam, without_t, "from step to step"),
        (lesson.check_adam, fast_form_of_the_paper, "before the correction"),
        (lesson.check_steps, NewArrays, "change them in place"),
        (lesson.check_steps, CountedInTheLoop, "The bug is still there."),
        (lesson.check_steps, AlwaysFirst, "t must count the steps."),
        (lesson.check_norm, constants, "mean and variance depend on x"),
        (lesson.check_norm, mean_alone, "The variance depends on x"),
        (lesson.check_norm, sums, "means, not sums"),
    ],
)
def test_a_mistake_is_not_named(check, answer, words, capsys):
    for _ in range(TIMES):
        text = said(capsys, check, answer)
        assert text.startswith("Not yet: ") and words in text


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (lesson.check_momentum, uphill),
        (lesson.check_adam, from_nought),
        (lesson.check_steps, CountedTooLate),
        (lesson.check_norm, averaged),
    ],
)
def test_a_wrong_answer_passes(check, answer, capsys):
    for _ in range(TIMES):
        assert said(capsys, check, answer).startswith("Not yet: ")


def test_the_references_are_not_torchs():
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=4), rng.normal(size=(3, 4))
    for mine, theirs in (
        (lambda w, g, state, t: lesson.with_momentum(w, g, *state[:1], 0.1, 0.9), {"momentum": 0.9}),
        (lambda w, g, state, t: lesson.adam(w, g, *state, t, 0.1, 0.8, 0.95, 1e-3), None),
    ):
        p = torch.tensor(w, requires_grad=True)
        sgd = torch.optim.SGD([p], 0.1, **theirs) if theirs else None
        other = sgd or torch.optim.Adam([p], 0.1, betas=(0.8, 0.95), eps=1e-3)
        ours, state = w, [np.zeros(4), np.zeros(4)]
        for t, g in enumerate(gradients, 1):
            ours, *state = mine(ours, g, state, t)
            p.grad = torch.tensor(g)
            other.step()
        np.testing.assert_allclose(ours, p.detach().numpy(), rtol=1e-9)


def test_the_gradients_of_batch_norm_are_not_torchs():
    case = lesson.batch(np.random.default_rng(1))
    norm = nn.BatchNorm1d(case["dy"].shape[1], eps=1e-5, dtype=torch.float64)
    norm.weight.data = torch.tensor(case["gamma"])
    x = torch.tensor(case["xhat"] * case["std"], requires_grad=True)
    norm(x).backward(torch.tensor(case["dy"]))
    expected = x.grad, norm.weight.grad, norm.bias.grad
    for ours, theirs in zip(lesson.batch_norm_gradients(**case), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-8)
