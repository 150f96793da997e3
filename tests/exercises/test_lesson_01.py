"""The checks of lesson 01: right answers in several styles pass, a classmate's mistakes are named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.exercises import lesson_01
from course_utils.exercises.lesson_01 import check_layer, check_linear, check_loss, check_slopes
from course_utils.from_scratch.nn import Linear, gradient_check

TIMES = 6  # cases are random


def verdict(check, answer, capsys):
    check(answer)
    return " ".join(capsys.readouterr().out.splitlines())


# 01.1
def by_loops(x, w, b):
    y = np.zeros((len(x), w.shape[1]))
    for i, j in np.ndindex(y.shape):
        y[i, j] = b[j] + sum(x[i, k] * w[k, j] for k in range(len(w)))
    return y


def by_broadcasting(x, w, b):
    return (x[:, :, None] * w[None]).sum(axis=1) + b


def no_bias(x, w, b):
    return np.dot(x, w)


def bias_in_the_inner_loop(x, w, b):
    y = np.zeros((len(x), w.shape[1]))
    for i, j in np.ndindex(y.shape):
        for k in range(len(w)):
            y[i, j] += x[i, k] * w[k, j] + b[j]
    return y


def rows_added_up(x, w, b):
    return np.ones(len(x)) @ x @ w + b


# 01.3
class MyLinear:
    def __init__(self, inputs, outputs, rng, std=1.0):
        self.w, self.b = std * rng.standard_normal((inputs, outputs)), np.zeros(outputs)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dy):
        self.dw = self.x.T @ dy
        self.db = dy.sum(axis=0)
        return dy @ self.w.T


class ByEinsum(MyLinear):
    def backward(self, dy):
        self.dw = np.einsum("ik,ij->kj", self.x, dy)
        self.db = np.ones(len(dy)) @ dy
        return np.einsum("ij,kj->ik", dy, self.w)


class RowByRow(MyLinear):
    def backward(self, dy):
        self.dw, self.db = np.zeros_like(self.w), np.zeros_like(self.b)
        for x, d in zip(self.x, dy, strict=True):
            self.dw += np.outer(x, d)
            self.db += d
        return np.array([self.w @ d for d in dy])


class BiasNotSummed(MyLinear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.db = dy
        return dx


class BiasMean(MyLinear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.db = np.mean(dy, 0)
        return dx


class MeanInWeights(MyLinear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw = self.x.T @ dy / len(self.x)
        return dx


class WrongWay(MyLinear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw = dy.T @ self.x
        return dx


class DividedAgain(MyLinear):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dw, self.db = self.x.T @ dy / len(dy), dy.mean(0)
        return dx


class NotTransposed(MyLinear):
    def backward(self, dy):
        super().backward(dy)
        return dy @ self.w


class NothingSet(MyLinear):
    def backward(self, dy):
        return dy @ self.w.T


# 01.4
def from_outputs(x, dy):
    t, s = np.tanh(x), 1 / (1 + np.exp(-x))
    return dy * (x > 0), dy * (1 - t**2), dy * s * (1 - s)


def otherwise_written(x, dy):
    s = np.exp(x) / (1 + np.exp(x))
    return [np.where(x > 0, dy, 0), dy / np.cosh(x) ** 2, dy * (s - s * s)]


def by_torch(x, dy):
    def back(f):
        t = torch.tensor(x, requires_grad=True)
        f(t).backward(torch.tensor(dy))
        return t.grad.numpy()

    return back(torch.relu), back(torch.tanh), back(torch.sigmoid)


def slopes_alone(x, dy):
    return tuple(part / dy for part in from_outputs(x, dy))


def sign_of_dy(x, dy):
    return np.maximum(dy, 0), *from_outputs(x, dy)[1:]


def slope_of_relu_alone(x, dy):
    return np.heaviside(x, 0), *from_outputs(x, dy)[1:]


def relu_as_a_question(x, dy):
    return x > 0, *from_outputs(x, dy)[1:]


def square_of_x(x, dy):
    relu, _, sigmoid = from_outputs(x, dy)
    return relu, dy - dy * x * x, sigmoid


def x_in_sigmoid(x, dy):
    return *from_outputs(x, dy)[:2], dy * (x - x**2)


def no_square(x, dy):
    relu, _, sigmoid = from_outputs(x, dy)
    return relu, dy * (1 - np.tanh(x)), sigmoid


# 01.5
def stable(z, y):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    dz = p.copy()
    dz[np.arange(len(y)), y] -= 1
    log_p = z - z.max(axis=1, keepdims=True) - np.log(e.sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(y)), y].mean(), dz / len(y)


def row_by_row(z, y):
    loss, dz = 0.0, np.zeros_like(z)
    for i, (row, label) in enumerate(zip(z, y, strict=True)):
        rest = row - max(row)
        total = sum(np.exp(rest))
        loss += (np.log(total) - rest[label]) / len(y)
        dz[i] = np.exp(rest) / total / len(y)
        dz[i, label] -= 1 / len(y)
    return loss, dz


def loss_by_torch(z, y):
    t = torch.tensor(z, requires_grad=True)
    loss = F.cross_entropy(t, torch.tensor(y))
    loss.backward()
    return loss.item(), t.grad.numpy()


def as_defined(z, y):
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return -np.log(p[range(len(y)), y]).mean(), (p - np.eye(z.shape[1])[y]) / len(y)


def largest_of_all(z, y):
    e = np.exp(z - z.max())
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(p[range(len(y)), y]).mean(), (p - np.eye(z.shape[1])[y]) / len(y)


def logarithm_of_p(z, y):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return np.mean([-np.log(p[i, k]) for i, k in enumerate(y)]), stable(z, y)[1]


def logarithm_of_nearly_p(z, y):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return -np.log(p[range(len(y)), y] + 1e-12).mean(), stable(z, y)[1]


def largest_of_all_in_logarithms(z, y):
    z = z - np.max(z)
    log_p = z - np.log(np.sum(np.exp(z), axis=1))[:, None]
    dz = np.exp(log_p)
    dz[range(len(y)), y] -= 1
    return -log_p[range(len(y)), y].mean(), dz / len(y)


def no_mean_in_dz(z, y):
    loss, dz = stable(z, y)
    return loss, len(y) * dz


def no_mean(z, y):
    loss, dz = stable(z, y)
    return len(y) * loss, len(y) * dz


def no_target(z, y):
    loss, dz = stable(z, y)
    dz[np.arange(len(y)), y] += 1 / len(y)
    return loss, dz


RIGHT = {
    check_linear: (by_loops, by_broadcasting, lambda x, w, b: x @ w + b, lambda x, w, b: b + np.dot(x, w)),
    check_layer: (MyLinear, ByEinsum, RowByRow, Linear),
    check_slopes: (from_outputs, otherwise_written, by_torch),
    check_loss: (stable, row_by_row, loss_by_torch),
}


@pytest.mark.parametrize(("check", "answer"), [(c, a) for c, answers in RIGHT.items() for a in answers])
def test_a_right_answer_in_another_style_is_refused(check, answer, capsys):
    for _ in range(3):
        assert verdict(check, answer, capsys) == f"Correct. {check.correct}"


@pytest.mark.parametrize(
    ("check", "answer", "sentence"),
    [
        (check_linear, no_bias, "The bias b is missing."),
        (check_linear, bias_in_the_inner_loop, "not once for each input."),
        (check_linear, rows_added_up, "each row of x is a sample of its own."),
        (check_layer, BiasNotSummed, "its gradient is the sum over the rows."),
        (check_layer, BiasMean, "A sum, not a mean"),
        (check_layer, DividedAgain, "Sums, not means"),
        (check_layer, WrongWay, "it is transposed"),
        (check_layer, NotTransposed, "w has to be transposed"),
        (check_layer, NothingSet, "has no attribute 'dw'"),
        (check_slopes, slopes_alone, "multiply them by dy."),
        (check_slopes, sign_of_dy, "not whether dy is."),
        (check_slopes, square_of_x, "y is tanh(x), not x."),
        (check_slopes, no_square, "The square in tanh's slope is missing."),
        (check_slopes, x_in_sigmoid, "y is sigmoid(x), not x."),
        (check_loss, as_defined, "take the largest logit of the row out first."),
        (check_loss, largest_of_all, "Take out the largest logit of each row"),
        (check_loss, logarithm_of_p, "not as the logarithm of p."),
        (check_loss, logarithm_of_nearly_p, "A small number added to p caps the loss"),
        (check_loss, largest_of_all_in_logarithms, "Take out the largest logit of each row"),
        (check_linear, lambda x, w, b: w @ x + b, "its inner sizes agree"),
        (check_linear, lambda x, w, b: x @ w.T + b, "its inner sizes agree"),
        (check_linear, lambda x, w, b: x @ w + b[:, None], "b is added as it is."),
        (check_slopes, slope_of_relu_alone, "This is ReLU's slope alone: multiply it by dy."),
        (check_slopes, relu_as_a_question, "This is ReLU's slope alone; multiply it by dy."),
        (check_layer, MeanInWeights, "A sum, not a mean"),
        (check_loss, no_mean_in_dz, "1/N is missing in dz."),
        (check_loss, no_mean, "The loss is a mean over the rows, and so dz has 1/N."),
        (check_loss, no_target, "the right class's logit is also in the loss"),
    ],
)
def test_a_classmates_mistake_is_not_named(check, answer, sentence, capsys):
    with np.errstate(all="ignore"):
        missed = {text for _ in range(TIMES) if sentence not in (text := verdict(check, answer, capsys))}
    assert not missed


def test_a_scaffold_without_its_backward_pass_is_called_wrong(capsys):
    class Unfinished:
        __init__, forward = MyLinear.__init__, MyLinear.forward

        def backward(self, dy):
            """Set self.dw and self.db, return dx."""
            ...

    assert verdict(check_layer, Unfinished, capsys) == "Not attempted yet: `backward` is still `...`."


def test_a_patient_has_another_disease_than_its_diagnosis():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 4)), rng.integers(0, 3, 8)
    errors = {name: gradient_check(net, x, y) for name, net in lesson_01.patients().items()}
    ill = {name: {part for part, error in e.items() if error > 1e-3} for name, e in errors.items()}
    assert ill == {
        "A": {"0.b", "2.b", "4.b"},
        "B": {"0.w", "0.b", "2.w", "2.b", "4.w", "4.b"},
        "C": set(),
        "D": {"0.w", "0.b"},
    }
    assert max(errors["C"].values()) < 1e-7
    assert all(error == pytest.approx(7 / 8, abs=1e-5) for error in errors["B"].values())
    assert lesson_01.diagnoses == {"A": "db", "B": "loss", "C": "none", "D": "tanh"}


def test_the_lesson_in_numpy_imports_torch_when_it_begins():
    root = Path(__file__).resolve().parents[2]
    lesson = (root / "notebooks/01_neural_networks_in_numpy.ipynb").read_text(encoding="utf-8")
    cells = json.loads(lesson)["cells"]
    (setup,) = ("".join(c["source"]) for c in cells if "setup" in c["metadata"].get("tags", []))
    code = f"import sys\nsys.path.insert(0, {str(root)!r})\n{setup}\nprint('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "False"
