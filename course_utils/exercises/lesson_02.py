"""Checks of lesson 02: optimizers."""

import numpy as np

from course_utils.exercises.frame import Check, predict, use
from course_utils.from_scratch.nn import numerical_gradient

__all__ = ["predict", "use", "adam", "check_adam", "check_norm", "check_momentum", "check_steps"]


def vectors(rng, *names):
    """An array of the same few numbers in each of the names."""
    size = rng.integers(2, 5)
    return {name: rng.normal(size=size).round(2) for name in names}


# 02.3: one step with momentum
def with_momentum(w, g, v, lr, momentum):
    v = g + momentum * v
    return w - lr * v, v


def momentum_case(rng):
    return vectors(rng, "w", "g", "v") | {
        "lr": rng.choice([0.01, 0.05, 0.2]),
        "momentum": rng.choice([0.5, 0.8, 0.9]),
    }


check_momentum = Check(
    with_momentum,
    momentum_case,
    names=("w", "v"),
    mistakes={
        "The step uses the new v, not the one that came in.": lambda w, g, v, lr, b: (w - lr * v, b * v + g),
        "The gradient enters v whole: without 1 - momentum.": lambda w, g, v, lr, b: with_momentum(
            w, (1 - b) * g, v, lr, b
        ),
        "The learning rate belongs to the step, not into v.": lambda w, g, v, lr, b: (
            w - b * v - lr * g,
            b * v + lr * g,
        ),
        "Here v sums gradients: lr multiplies the step, and the step is subtracted.": lambda w, g, v, lr, b: (
            w + b * v - lr * g,
            b * v - lr * g,
        ),
        "That is Nesterov's step.": lambda w, g, v, lr, b: (w - lr * (g + b * (b * v + g)), b * v + g),
        "Momentum weakens the old v, not the gradient.": lambda w, g, v, lr, b: (
            w - lr * (v + b * g),
            v + b * g,
        ),
        "The step is lr v alone: g is in v already.": lambda w, g, v, lr, b: (
            w - lr * (g + b * v + g),
            b * v + g,
        ),
    },
    correct="With momentum=0 it is gradient descent; while g stays the same, v grows to g / (1 - momentum).",
)


# 02.5: one step of Adam, in the order of computation that Kingma & Ba 2015 call more efficient (section 2)
def adam(w, g, m, s, t, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step, t = 1 for the first. Returns w, m and s."""
    m = m + (1 - beta1) * (g - m)
    s = s + (1 - beta2) * (g * g - s)
    root = np.sqrt(1 - beta2**t)
    return w - lr * root / (1 - beta1**t) * m / (np.sqrt(s) + eps * root), m, s


def adam_case(rng):
    case = vectors(rng, "w", "g", "m", "s")
    case["s"] = np.abs(case["s"])
    case |= {"t": rng.integers(1, 6), "lr": rng.choice([0.01, 0.1]), "beta1": rng.choice([0.8, 0.9])}
    return case | {"beta2": rng.choice([0.99, 0.95]), "eps": rng.choice([0.01, 0.1])}


def uncorrected(w, g, m, s, t, lr, b1, b2, eps):
    _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
    return w - lr * m / (np.sqrt(s) + eps), m, s


def late_correction(w, g, m, s, t, lr, b1, b2, eps):
    return adam(w, g, m, s, t + 1, lr, b1, b2, eps)


def corrected(then):
    """A wrong Adam that uses the corrected m and s in its own way: then(w, lr, m_hat, s_hat, eps, m, s)."""

    def step(w, g, m, s, t, lr, b1, b2, eps):
        _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
        return then(w, lr, m / (1 - b1**t), s / (1 - b2**t), eps, m, s)

    return step


def not_squared(w, g, m, s, t, lr, b1, b2, eps):
    _, m, _ = adam(w, g, m, s, t, lr, b1, b2, eps)
    s = b2 * s + (1 - b2) * g
    return w - lr * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps), m, s


def only_one(w, g, m, s, t, lr, b1, b2, eps):
    _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
    return w - lr * m / (1 - b1**t) / (np.sqrt(s) + eps), m, s


def sums(w, g, m, s, t, lr, b1, b2, eps):
    m, s = b1 * m + g, b2 * s + g**2
    return w - lr * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps), m, s


def without_m(w, g, m, s, t, lr, b1, b2, eps):
    _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
    return w - lr * g / (np.sqrt(s / (1 - b2**t)) + eps), m, s


def eps_first(w, g, m, s, t, lr, b1, b2, eps):
    _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
    return w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(s) + eps), m, s


def same_correction(w, g, m, s, t, lr, b1, b2, eps):
    _, m, s = adam(w, g, m, s, t, lr, b1, b2, eps)
    return w - lr * m / (1 - b1) / (np.sqrt(s / (1 - b2)) + eps), m, s


check_adam = Check(
    adam,
    adam_case,
    names=("w", "m", "s"),
    mistakes={
        "Nothing corrects the start at 0: divide m by 1 - beta1^t and s by 1 - beta2^t.": uncorrected,
        "s is corrected too, by 1 - beta2^t.": only_one,
        "The first step is t = 1: the exponent is t.": late_correction,
        "Return m and s as they are, uncorrected: the correction is for this step alone.": corrected(
            lambda w, lr, m_hat, s_hat, eps, m, s: (w - lr * m_hat / (np.sqrt(s_hat) + eps), m_hat, s_hat)
        ),
        "eps is added to the root, outside it.": corrected(
            lambda w, lr, m_hat, s_hat, eps, m, s: (w - lr * m_hat / np.sqrt(s_hat + eps), m, s)
        ),
        "The step is divided by the root of s^, not by s^.": corrected(
            lambda w, lr, m_hat, s_hat, eps, m, s: (w - lr * m_hat / (s_hat + eps), m, s)
        ),
        "s is a mean of squares: g^2.": not_squared,
        "m and s are means: the new g has the weight 1 - beta.": sums,
        "The step goes along m_hat, not along g.": without_m,
        "The correction changes from step to step: 1 - beta^t.": same_correction,
        "eps is added to the root of s_hat; here it is added before the correction.": eps_first,
        "beta1 belongs to m, beta2 to s.": lambda w, g, m, s, t, lr, b1, b2, eps: adam(
            w, g, m, s, t, lr, b2, b1, eps
        ),
    },
    correct="Each weight's first step has length lr, whatever its gradient: the corrected m^ is g, the root of s^ is |g|.",
)


# 02.6: Adam as a class, which must count steps and not parameters
class Counted:
    """Adam for a dictionary of arrays."""

    def __init__(self, lr):
        self.lr, self.state, self.t = lr, {}, 0

    def step(self, parameters, gradients):
        self.t += 1
        for name, w in parameters.items():
            w[...] = self.one(name, w, gradients[name])

    def one(self, name, w, g):
        w, m, s = adam(w, g, *self.state.get(name, (0, 0)), self.t, self.lr)
        self.state[name] = m, s
        return w


class CountsParameters(Counted):
    def step(self, parameters, gradients):
        for name, w in parameters.items():
            self.t += 1
            w[...] = self.one(name, w, gradients[name])


class NeverCounts(Counted):
    def one(self, name, w, g):
        self.t = 1
        return super().one(name, w, g)


class Rebinds(Counted):
    def step(self, parameters, gradients):
        super().step({name: w.copy() for name, w in parameters.items()}, gradients)


def some_steps(answer, steps, w, b):
    parameters, optimizer = {"w": w.copy(), "b": b.copy()}, answer(0.1)
    for _ in range(steps):
        optimizer.step(parameters, {"w": 2 * parameters["w"], "b": parameters["b"] - 1})
    return parameters["w"], parameters["b"]


def two_arrays(rng):
    return {"steps": rng.integers(1, 5)} | vectors(rng, "w", "b")


check_steps = Check(
    Counted,
    two_arrays,
    always=({"steps": 1, "w": np.array([1.0, -2.0]), "b": np.array([0.5])},),
    mistakes={
        "The bug is still there.": CountsParameters,
        "t must count the steps.": NeverCounts,
        "The arrays are still what they were: change them in place, w -= ... or w[...] = ...": Rebinds,
    },
    names=("w", "b"),
    call=some_steps,
    correct="One clock for all arrays. On the ravine, one array, nobody would have noticed.",
)


# 02.9: batch norm backward, against finite differences of the forward pass
def batch_norm_gradients(dy, xhat, std, gamma):
    x, beta, eps = xhat * std, np.zeros_like(gamma), (std**2 - (xhat * std).var(axis=0))
    gamma = gamma.copy()

    def f():
        y = gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta
        return (dy * y).sum()

    return tuple(numerical_gradient(f, w) for w in (x, gamma, beta))


def batch(rng):
    n, features = rng.integers((3, 1), (6, 4))
    x = rng.normal(size=(n, features)) * 3
    std = np.sqrt(x.var(axis=0) + 1e-5)
    dy, gamma = rng.normal(size=(n, features)), rng.normal(size=features)
    return {"dy": dy, "xhat": (x - x.mean(axis=0)) / std, "std": std, "gamma": gamma}


def norm_mistake(dx):
    return lambda dy, xhat, std, gamma: (dx(dy, xhat, gamma / std), (dy * xhat).sum(axis=0), dy.sum(axis=0))


check_norm = Check(
    batch_norm_gradients,
    batch,
    names=("dx", "dgamma", "dbeta"),
    mistakes={
        "The batch's mean and variance depend on x too.": norm_mistake(lambda dy, xhat, k: k * dy),
        "The variance depends on x too.": norm_mistake(lambda dy, xhat, k: k * (dy - dy.mean(axis=0))),
        "The mean depends on x too.": norm_mistake(
            lambda dy, xhat, k: k * (dy - xhat * (dy * xhat).mean(axis=0))
        ),
        "Along the batch these are means, not sums.": norm_mistake(
            lambda dy, xhat, k: k * (dy - dy.sum(axis=0) - xhat * (dy * xhat).sum(axis=0))
        ),
        "Divide by std: x was divided by it.": norm_mistake(
            lambda dy, xhat, k: dy - dy.mean(axis=0) - xhat * (dy * xhat).mean(axis=0)
        ),
    },
    correct="dx has mean 0 and nothing along xhat: to shift or stretch the batch changes nothing.",
)
