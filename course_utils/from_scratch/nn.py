"""A neural network in NumPy: layers, loss, gradient check, training (lesson 01); batch norm (lesson 02).

A layer has forward(x) and backward(dy). backward takes the gradient of the loss with respect to the output of
the last forward and returns that with respect to its input. `names` lists what the layer learns; the gradient
of `w` is `dw`. Rows are samples.
"""

import math
import time

import numpy as np


def he(fan_in):
    """Standard deviation of the weights of a unit with fan_in inputs, before a ReLU (He et al. 2015)."""
    return math.sqrt(2 / fan_in)


def xavier(fan_in, fan_out):
    """Standard deviation of the weights before a tanh (Glorot & Bengio 2010)."""
    return math.sqrt(2 / (fan_in + fan_out))


class Linear:
    """y = x w + b for each row x. Initialization: w normal with standard deviation std (default: He's), b 0.

    Source: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
    """

    names = ("w", "b")
    first = False  # the first layer of a network: nobody asks for the gradient of its input

    def __init__(self, inputs, outputs, rng, std=None, dtype=np.float32):
        std = he(inputs) if std is None else std
        self.w = (std * rng.standard_normal((inputs, outputs))).astype(dtype)  # (inputs, outputs)
        self.b = np.zeros(outputs, dtype)  # (outputs,)

    def forward(self, x):  # (N, inputs)
        self.x = x
        return x @ self.w + self.b  # (N, outputs)

    def backward(self, dy):  # (N, outputs)
        self.dw = self.x.T @ dy  # (inputs, outputs)
        self.db = dy.sum(axis=0)  # (outputs,)
        return None if self.first else dy @ self.w.T  # (N, inputs)


class ReLU:
    """y = max(x, 0); its slope at 0 is taken as 0 (Nair & Hinton 2010)."""

    names = ()

    def forward(self, x):  # any shape
        self.y = np.maximum(x, 0)  # as x
        return self.y

    def backward(self, dy):
        return dy * (self.y > 0)  # as x


class Tanh:
    """y = tanh(x), with the slope 1 - y^2."""

    names = ()

    def forward(self, x):  # any shape
        self.y = np.tanh(x)  # as x
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y**2)  # as x


class Sigmoid:
    """y = 1 / (1 + exp(-x)), with the slope y (1 - y); through log(1 + exp(-x)), which no x overflows."""

    names = ()

    def forward(self, x):  # any shape
        self.y = np.exp(-np.logaddexp(0, -x))  # as x
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)  # as x


class BatchNorm:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, each feature of a batch for itself.

    In training with the batch's mean and variance, in evaluation with running averages of them (of the
    unbiased variance, as in torch). backward belongs to a forward in training; one row is a ValueError.
    Source: Ioffe & Szegedy 2015, "Batch normalization", algorithm 1.
    """

    names = ("gamma", "beta")
    training = True

    def __init__(self, features, momentum=0.1, eps=1e-5, dtype=np.float32):
        self.gamma, self.beta = np.ones(features, dtype), np.zeros(features, dtype)  # (F,) each
        self.running_mean, self.running_var = np.zeros(features, dtype), np.ones(features, dtype)  # (F,) each
        self.momentum, self.eps = momentum, eps

    def forward(self, x):  # (N, F)
        if self.training:
            n = len(x)
            if n < 2:
                raise ValueError("the batch has 1 row; expected 2 or more: one row has no variance.")
            mean, var = x.mean(axis=0), x.var(axis=0)  # (F,) each
            self.running_mean += self.momentum * (mean - self.running_mean)  # (F,)
            self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)  # (F,)
        else:
            mean, var = self.running_mean, self.running_var  # (F,) each
        self.std = np.sqrt(var + self.eps)  # (F,)
        self.xhat = (x - mean) / self.std  # (N, F)
        return self.gamma * self.xhat + self.beta  # (N, F)

    def backward(self, dy):  # (N, F)
        self.dgamma = (dy * self.xhat).sum(axis=0)  # (F,)
        self.dbeta = dy.sum(axis=0)  # (F,)
        along = dy.mean(axis=0) + self.xhat * (dy * self.xhat).mean(axis=0)  # (N, F): what mean and var undo
        return self.gamma / self.std * (dy - along)  # (N, F)


class Sequential:
    """Layers one after another: forward from the first to the last, backward from the last to the first."""

    def __init__(self, *layers):
        self.layers = layers
        layers[0].first = True

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy):
        for layer in reversed(self.layers):
            dy = layer.backward(dy)

    def parameters(self, d=""):
        """{"0.w": array, "0.b": array, ...}: the layer's place and the parameter's name."""
        return {f"{i}.{n}": getattr(layer, d + n) for i, layer in enumerate(self.layers) for n in layer.names}

    def gradients(self):
        """The same names, with what the last backward found."""
        return self.parameters("d")


def set_training(net, training):
    """Tell each layer whether the network learns now (batch norm asks)."""
    for layer in net.layers:
        layer.training = training


def log_sum_exp(z):
    """log(sum(exp(z))) of each row (N, K), as (N, 1); without the largest, exp cannot overflow."""
    largest = z.max(axis=1, keepdims=True)  # (N, 1)
    return largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True))  # (N, 1)


class SoftmaxCrossEntropy:
    """The mean of -log p[y] over the rows, p = softmax(z) (Bishop 2006, section 4.3.4)."""

    def forward(self, z, y):  # logits (N, K), labels (N,)
        log_p = z - log_sum_exp(z)  # (N, K)
        self.p, self.y = np.exp(log_p), y  # (N, K), (N,)
        return -log_p[np.arange(len(y)), y].mean()  # ()

    def backward(self):
        dz = self.p.copy()  # (N, K)
        dz[np.arange(len(dz)), self.y] -= 1  # p - onehot(y)
        return dz / len(dz)  # (N, K)


def numerical_gradient(f, w, h=1e-5):
    """The gradient of the number f() with respect to the array w, by central differences.

    f reads w, which is moved by h in one place after another. Raises ValueError where w is not float64.
    """
    if w.dtype != np.float64:
        raise ValueError(f"w is {w.dtype}; expected float64: smaller ones lose the difference in rounding.")
    dw = np.zeros_like(w)  # as w
    for i in np.ndindex(w.shape):
        kept = w[i]
        w[i] = kept + h
        above = f()
        w[i] = kept - h
        below = f()
        w[i] = kept
        dw[i] = (above - below) / (2 * h)
    return dw


def relative_error(a, b):
    """The largest difference of two arrays, divided by their largest entry; 0 where both are 0."""
    return np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-300)


def gradient_check(net, x, y, h=1e-5):
    """{parameter: relative error of its gradient}, for a network and a batch in float64.

    1e-7 or less is right, 1e-2 or more is wrong; between them a ReLU may have met its corner (CS231n,
    "Gradient checks"). The gradient 0 of a bias before batch norm drowns in rounding: any error is right.
    """
    loss = SoftmaxCrossEntropy()

    def f():
        return loss.forward(net.forward(x), y)

    set_training(net, True)
    f()
    net.backward(loss.backward())
    parameters, gradients = net.parameters(), net.gradients()
    return {
        name: relative_error(gradients[name], numerical_gradient(f, w, h)) for name, w in parameters.items()
    }


def logits(net, x, batch_size=1000):
    """What the network answers, in evaluation: (N, K)."""
    set_training(net, False)
    z = [net.forward(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]  # (batch_size, K) each
    return np.concatenate(z)  # (N, K)


def accuracy(net, x, y):
    """The share of the rows whose largest logit is the label's."""
    return (logits(net, x).argmax(axis=1) == y).mean()


def shifted(x, dy, dx):
    """Images (..., H, W), all moved down by dy and to the right by dx pixels; their edge is repeated."""
    (h, w), p = x.shape[-2:], max(abs(dy), abs(dx))
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(p, p), (p, p)], "edge")  # (..., H + 2P, W + 2P)
    return x[..., p - dy : p - dy + h, p - dx : p - dx + w]  # (..., H, W)


def train(net, optimizer, x, y, epochs, batch_size=128, seed=0, val=None,
          schedule=lambda t, steps: 1, augment=lambda x, rng: x):  # fmt: skip
    """Mini-batch descent on cross-entropy; x float32 (N, ...), y int (N,).

    val: (x, y), whose accuracy is printed after each epoch. schedule(t, steps): factor of the learning rate.
    augment(x, rng): a changed batch. Returns a dict of lists: loss by step; val_top1 and seconds by epoch.
    """
    loss, rng, lr = SoftmaxCrossEntropy(), np.random.default_rng(seed), optimizer.lr
    history = {"loss": [], "val_top1": [], "seconds": []}
    cuts = range(batch_size, len(x), batch_size)
    steps = len(cuts) + 1  # an epoch
    for epoch in range(epochs):
        began = time.perf_counter()
        set_training(net, True)
        for rows in np.split(rng.permutation(len(x)), cuts):
            optimizer.lr = lr * schedule(len(history["loss"]), epochs * steps)
            z = net.forward(augment(x[rows], rng))  # (batch_size, K)
            history["loss"].append(float(loss.forward(z, y[rows])))
            net.backward(loss.backward())
            optimizer.step(net.parameters(), net.gradients())
        history["seconds"].append(time.perf_counter() - began)
        if val is not None:
            history["val_top1"].append(float(accuracy(net, *val)))
            mean = np.mean(history["loss"][-steps:])
            print(f"epoch {epoch + 1}/{epochs}: loss {mean:.4f}, validation {history['val_top1'][-1]:.2%}")
    optimizer.lr = lr
    return history
