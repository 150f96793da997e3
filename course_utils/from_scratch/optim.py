"""Optimizers and learning-rate schedules in NumPy (lesson 02).

An optimizer's step(parameters, gradients) takes two dicts of arrays with the same names and changes the
parameters in place. A schedule (t, steps) gives the factor of the learning rate at step t = 0 ... steps - 1.
"""

import math

import numpy as np


class SGD:
    """v = momentum v + g, w -= lr v; with Nesterov w -= lr (g + momentum v).

    Source: Polyak 1964; Sutskever et al. 2013, "On the importance of initialization and momentum".
    """

    def __init__(self, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self.v = {}

    def step(self, parameters, gradients):
        for name, w in parameters.items():
            g = gradients[name] + self.weight_decay * w  # as w
            v = self.v[name] = self.momentum * self.v.get(name, 0) + g  # as w
            w -= self.lr * (g + self.momentum * v if self.nesterov else v)


class RMSprop:
    """s = beta s + (1 - beta) g^2, w -= lr g / (sqrt(s) + eps).

    Source: Tieleman & Hinton 2012, slides 6e; beta is 0.9 there, 0.99 in torch.
    """

    def __init__(self, lr, beta=0.99, eps=1e-8, weight_decay=0.0):
        self.lr, self.beta, self.eps, self.weight_decay = lr, beta, eps, weight_decay
        self.s = {}

    def step(self, parameters, gradients):
        for name, w in parameters.items():
            g = gradients[name] + self.weight_decay * w  # as w
            s = self.s[name] = self.beta * self.s.get(name, 0) + (1 - self.beta) * g**2  # as w
            w -= self.lr * g / (np.sqrt(s) + self.eps)


class Adam:
    """w -= lr m_hat / (sqrt(s_hat) + eps): running means of g and g^2, corrected for their start at 0.

    Source: Kingma & Ba 2015, "Adam", algorithm 1.
    """

    def __init__(self, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
        self.lr, self.beta1, self.beta2, self.eps, self.weight_decay = lr, beta1, beta2, eps, weight_decay
        self.m, self.s, self.t = {}, {}, 0

    def step(self, parameters, gradients):
        self.t += 1
        for name, w in parameters.items():
            g = gradients[name] + self.weight_decay * w  # as w
            m = self.m[name] = self.beta1 * self.m.get(name, 0) + (1 - self.beta1) * g  # as w
            s = self.s[name] = self.beta2 * self.s.get(name, 0) + (1 - self.beta2) * g**2  # as w
            m_hat = m / (1 - self.beta1**self.t)  # as w
            s_hat = s / (1 - self.beta2**self.t)  # as w
            w -= self.lr * m_hat / (np.sqrt(s_hat) + self.eps)


class AdamW(Adam):
    """Adam whose weight decay shrinks w by itself and stays out of m and s.

    Source: Loshchilov & Hutter 2019; as in torch, lr multiplies the decay (in the paper only the schedule).
    """

    def __init__(self, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        super().__init__(lr, beta1, beta2, eps)
        self.decoupled = weight_decay

    def step(self, parameters, gradients):
        for w in parameters.values():
            w *= 1 - self.lr * self.decoupled  # as w
        super().step(parameters, gradients)


def warm_up(t, steps, share=0.1):
    """Climbs in a line to 1 over the first share of the steps, then stays (Goyal et al. 2017)."""
    return min(1, (t + 1) / (share * steps))


def step_decay(t, steps, times=(0.5, 0.75), factor=0.1):
    """1, times `factor` from each of these shares of the steps on."""
    return factor ** sum(t >= share * steps for share in times)


def cosine(t, steps):
    """Half a cosine wave from 1 to 0 (Loshchilov & Hutter 2017, without restarts)."""
    return (1 + math.cos(math.pi * t / steps)) / 2


def one_cycle(t, steps, share=0.2):
    """Climbs in a line to 1 over the first share, then falls almost to 0.

    After Smith & Topin 2019, whose peak is in the middle, with a short end far below the start.
    """
    up = share * steps
    return min(1, (t + 1) / up, (steps - t) / (steps - up))
