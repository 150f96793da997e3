"""Checks of lesson 01. The references are finite differences, or sums that the lesson does not hand out before."""

import numpy as np

from course_utils.exercises.frame import Check, predict, use
from course_utils.from_scratch.nn import Linear, ReLU, Sequential, Tanh, numerical_gradient

__all__ = [
    "predict",
    "use",
    "check_linear",
    "check_layer",
    "check_slopes",
    "check_loss",
    "diagnoses",
    "patients",
]


# 01.1: a layer of neurons without loops
def layer_input(rng):
    n, inputs, outputs = rng.choice((2, 3, 4, 5, 6), 3, replace=False)
    x, w = rng.normal(size=(n, inputs)), rng.normal(size=(inputs, outputs))
    return {"x": x, "w": w, "b": rng.normal(size=outputs)}


check_linear = Check(
    lambda x, w, b: np.einsum("ik,kj->ij", x, w) + b,
    layer_input,
    mistakes={
        "The bias b is missing.": lambda x, w, b: x @ w,
        "b is added once for each neuron, not once for each input.": lambda x, w, b: x @ w + len(w) * b,
        "This adds up all rows: each row of x is a sample of its own.": lambda x, w, b: x.sum(axis=0) @ w + b,
        "A product `@` fits where its inner sizes agree, (N, inputs) @ (inputs, outputs); b is added as it is.": lambda x, w, b: (
            x * w + b
        ),
    },
    correct="With `@` the loops run inside the library, which multiplies many numbers at a time.",
)


# 01.3: the backward pass of a linear layer
def linear_case(rng):
    n, inputs, outputs = rng.choice((2, 3, 4, 5), 3, replace=False)
    x, w = rng.normal(size=(n, inputs)), rng.normal(size=(inputs, outputs))
    return {"x": x, "w": w, "dy": rng.normal(size=(n, outputs))}


def there_and_back(answer, x, w, dy):
    layer = answer(*w.shape, np.random.default_rng(0))
    layer.w, layer.b = w, np.ones(w.shape[1])
    layer.forward(x)
    dx = layer.backward(dy)
    if not (hasattr(layer, "dw") and hasattr(layer, "db")):
        raise AttributeError("the layer has no attribute 'dw' or 'db': set self.dw and self.db, return dx")
    return dx, layer.dw, layer.db


class ByDifferences(Linear):
    def backward(self, dy):
        x = self.x.copy()

        def loss():  # the number whose gradient at the output is dy
            return (dy * self.forward(x)).sum()

        self.dw, self.db = numerical_gradient(loss, self.w), numerical_gradient(loss, self.b)
        return numerical_gradient(loss, x)


def linear_with(dx=None, dw=None, db=None):
    """A linear layer of which one gradient is replaced; each is a function of (x, w, dy)."""

    class Wrong(Linear):
        def backward(self, dy):
            right = super().backward(dy)
            self.dw = dw(self.x, self.w, dy) if dw else self.dw
            self.db = db(self.x, self.w, dy) if db else self.db
            return dx(self.x, self.w, dy) if dx else right

    return Wrong


class Transposed(Linear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw = self.dw.T
        return dx


class MeanOfRows(Linear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw, self.db = self.dw / len(dy), self.db / len(dy)
        return dx


check_layer = Check(
    ByDifferences,
    linear_case,
    call=there_and_back,
    names=("dx", "dw", "db"),
    mistakes={
        "b is used in every row: its gradient is the sum over the rows.": linear_with(db=lambda x, w, dy: dy),
        "Add up over the rows of the batch, not over the neurons.": linear_with(
            db=lambda x, w, dy: dy.sum(axis=1)
        ),
        "A sum, not a mean: the 1/N of the loss is already in dy.": linear_with(
            db=lambda x, w, dy: dy.mean(axis=0)
        ),
        "A sum, not a mean; the 1/N of the loss is already in dy.": linear_with(
            dw=lambda x, w, dy: x.T @ dy / len(dy)
        ),
        "Sums, not means: the 1/N of the loss is already in dy.": MeanOfRows,
        "dw has the shape of w, (inputs, outputs).": Transposed,
        "dx does not depend on x: a product passes dy times the other factor.": linear_with(
            dx=lambda x, w, dy: x * (dy @ w.T)
        ),
        "w has to be transposed to lead from the outputs back to the inputs.": linear_with(
            dx=lambda x, w, dy: dy @ w
        ),
    },
    correct="Each gradient has the shape of what it belongs to, and one order of the product fits that shape.",
)


# 01.4: the backward passes of the activations
ACTIVATIONS = (lambda x: np.where(x > 0, x, 0.0), np.tanh, lambda x: 1 / (1 + np.exp(-x)))


def slopes_case(rng):
    x = rng.uniform(0.2, 2, size=rng.integers(2, 6)) * rng.choice((-1, 1))
    return {"x": x * rng.choice((-1, 1), size=x.shape), "dy": rng.normal(size=x.shape)}


def slopes_by_differences(x, dy):
    return tuple(numerical_gradient(lambda f=f: (dy * f(x)).sum(), x) for f in ACTIVATIONS)


def slopes_with(relu=None, tanh=None, sigmoid=None):
    def wrong(x, dy):
        right = slopes_by_differences(x, dy)
        return tuple(f(x, dy) if f else r for f, r in zip((relu, tanh, sigmoid), right, strict=True))

    return wrong


check_slopes = Check(
    slopes_by_differences,
    slopes_case,
    names=("ReLU", "tanh", "sigmoid"),
    mistakes={
        "These are the slopes alone: multiply them by dy.": lambda x, dy: slopes_by_differences(
            x, 1 + 0 * dy
        ),
        "This is ReLU's slope alone: multiply it by dy.": slopes_with(relu=lambda x, dy: 1.0 * (x > 0)),
        "This is ReLU's slope alone; multiply it by dy.": slopes_with(relu=lambda x, dy: x > 0),
        "The factor 1 - y of the sigmoid's slope is missing.": slopes_with(
            sigmoid=lambda x, dy: dy * ACTIVATIONS[2](x)
        ),
        "ReLU asks whether x is above 0, not whether dy is.": slopes_with(relu=lambda x, dy: dy * (dy > 0)),
        "That is ReLU's value; its slope is 0 or 1.": slopes_with(relu=lambda x, dy: dy * np.maximum(x, 0)),
        "In 1 - y**2, y is tanh(x), not x.": slopes_with(tanh=lambda x, dy: dy * (1 - x**2)),
        "The square in tanh's slope is missing.": slopes_with(tanh=lambda x, dy: dy * (1 - np.tanh(x))),
        "In y (1 - y), y is sigmoid(x), not x.": slopes_with(sigmoid=lambda x, dy: dy * x * (1 - x)),
        "The sigmoid's slope is tanh's here: it is y (1 - y).": slopes_with(
            sigmoid=lambda x, dy: dy * (1 - ACTIVATIONS[2](x) ** 2)
        ),
    },
    correct="tanh and sigmoid have slopes near 0 for large inputs of either sign; ReLU only below 0.",
)


# 01.5: softmax and cross-entropy that survive 1000
def loss_case(rng):
    n, k = rng.choice((2, 3, 4, 5), 2, replace=False)
    return {"z": rng.normal(scale=3, size=(n, k)), "y": rng.integers(0, k, n)}


def right_loss(z, y):
    return (np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]).mean()


def loss_by_differences(z, y):
    return right_loss(z, y), numerical_gradient(lambda: right_loss(z, y), z)


def loss_by_softmax(z, y, largest=lambda z: 0, n=None, target=1):
    """The loss as it is defined, which overflows where nothing is taken out."""
    e = np.exp(z - largest(z))
    p, n = e / e.sum(axis=1, keepdims=True), n or len(y)
    t = np.eye(z.shape[1])[y]
    return -(t * np.log(np.where(t > 0, p, 1))).sum() / len(y), (p - target * t) / n


def row_largest(z):
    return z.max(axis=1, keepdims=True)


def exponent_kept(z, y):
    e = np.exp(z)
    return (np.log(e.sum(axis=1)) - z[np.arange(len(y)), y]).mean(), loss_by_softmax(z, y)[1]


def log_of_p(z, y, least=0.0):
    p = np.exp(z - row_largest(z))
    p = p / p.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(y)), y] + least).mean(), loss_by_softmax(z, y, row_largest)[1]


def batch_largest(z, y):
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(y)), y].mean(), (np.exp(log_p) - np.eye(z.shape[1])[y]) / len(y)


def added_up(z, y):
    return len(y) * right_loss(z, y), loss_by_softmax(z, y, row_largest, n=1)[1]


check_loss = Check(
    loss_by_differences,
    loss_case,
    always=(
        {"z": np.array([[1000.0, 1001.0, 999.0], [-1.0, 0.0, 3.0]]), "y": np.array([0, 2])},
        {"z": np.array([[-1000.0, -1001.0]]), "y": np.array([1])},
        {"z": np.array([[0.0, -1.0], [1000.0, 0.0]]), "y": np.array([0, 1])},
    ),
    names=("loss", "dz"),
    mistakes={
        "exp(1000) is too large for a number: take the largest logit of the row out first.": loss_by_softmax,
        "exp(1000) is too large for a number; take the largest logit of the row out first.": exponent_kept,
        "Take out the largest logit of each row: the largest of the batch turns other rows into exp(-1000) = 0.":
        lambda z, y: loss_by_softmax(z, y, np.max),
        "Take out the largest logit of each row; the largest of the batch turns others into exp(-1000) = 0.":
        batch_largest,
        "A p may round to 0: take log p as z - log(sum of exp(z)), not as the logarithm of p.": log_of_p,
        "A small number added to p caps the loss: take log p as z - log(sum of exp(z)).":
        lambda z, y: log_of_p(z, y, 1e-12),
        "The loss is a mean over N rows: 1/N is missing in dz.":
        lambda z, y: (right_loss(z, y), loss_by_softmax(z, y, row_largest, n=1)[1]),
        "The loss is a mean over the rows, and so dz has 1/N.": added_up,
        "This is p / N: the right class's logit is also in the loss by itself.":
        lambda z, y: (right_loss(z, y), loss_by_softmax(z, y, row_largest, target=0)[1]),
    },
    correct="dz is what the network said minus what is true: each row of it adds up to 0.",
)  # fmt: skip


# 01.6: networks with a wrong backward pass
class WrongTanh(Tanh):
    def backward(self, dy):
        return dy * (1 - self.y)


class WrongLoss(Sequential):
    def backward(self, dy):
        super().backward(len(dy) * dy)  # as a loss without its 1/N sends it


diagnoses = {"A": "db", "B": "loss", "C": "none", "D": "tanh"}


def patients():
    """{name: Linear, Tanh, Linear, ReLU, Linear in float64}: of some, one backward pass is wrong."""
    made = {}
    for name, ill in diagnoses.items():
        rng = np.random.default_rng(0)
        linear = linear_with(db=lambda x, w, dy: dy.mean(axis=0)) if ill == "db" else Linear
        sizes = (4, 6), (6, 5), (5, 3)
        first, second, third = (linear(*size, rng, dtype=np.float64) for size in sizes)
        tanh, whole = WrongTanh if ill == "tanh" else Tanh, WrongLoss if ill == "loss" else Sequential
        made[name] = whole(first, tanh(), second, ReLU(), third)
    return made
