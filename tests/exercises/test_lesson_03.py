"""The checks of lesson 03: right answers in several styles pass, a classmate's mistakes are named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.exercises.lesson_03 import check_back, check_columns, check_field, check_pool
from course_utils.from_scratch.conv import MaxPool, col2im, im2col

TIMES = 6  # cases are random
torch.zeros(1, requires_grad=True).backward(torch.ones(1))  # the first imports for seconds


def verdict(check, answer, capsys):
    check(answer)
    return " ".join(capsys.readouterr().out.splitlines())


# 03.3
def by_places(x, kernel, stride=1, padding=0, flip=1, walk=lambda i, j, n: (i, j, n)):
    n, c, h, w = x.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    h, w = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    stops = [(i, j, k) for i in range(h) for j in range(w) for k in range(n)]
    stops.sort(key=lambda stop: walk(*stop))
    found = []
    for i, j, k in stops:
        window = x[k, :, stride * i : stride * i + kernel, stride * j : stride * j + kernel]
        found.append(window[:, ::flip, ::flip].ravel())
    return np.array(found).T


def by_torch(x, kernel, stride, padding):
    cols = F.unfold(torch.tensor(x), kernel, padding=padding, stride=stride).numpy()  # (N, C K K, H' W')
    return cols.transpose(1, 2, 0).reshape(cols.shape[1], -1)


def by_weights(x, kernel, stride=1, padding=0, channels_last=False, wrong_stride=False, border=0, swap=False):
    n, c, h, w = x.shape
    x = np.pad(x, [(0, 0)] * 2 + [(padding, padding)] * 2, constant_values=border)
    h, w = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    s = 1 if wrong_stride else stride
    parts = [x[:, :, u : u + s * h : s, v : v + s * w : s] for u in range(kernel) for v in range(kernel)]
    parts = [parts[v * kernel + u] for u in range(kernel) for v in range(kernel)] if swap else parts
    cols = np.stack(parts).transpose((0, 2, 3, 4, 1) if channels_last else (2, 0, 3, 4, 1))
    return cols.reshape(c * kernel**2, -1)


# 03.4
def back_by_weights(cols, shape, kernel, stride=1, padding=0, add=True, cut=True, first=None, swap=False,
                    from_end=False, reshape=None):  # fmt: skip
    n, c, h, w = shape
    tall, wide = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    cols = (
        reshape(cols, n, c, kernel, tall, wide) if reshape else cols.reshape(c, kernel, kernel, tall, wide, n)
    )
    x = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    for u in range(kernel):
        for v in range(kernel):
            place = np.s_[:, :, u : u + stride * tall : stride, v : v + stride * wide : stride]
            part = (cols[:, v, u] if swap else cols[:, u, v]).transpose(3, 0, 1, 2)
            x[place] = x[place] + part if add else part
    p = padding if first is None else first
    if from_end:
        return x[:, :, padding:-padding, padding:-padding]
    return x[:, :, p : p + h, p : p + w] if cut else x


def back_by_torch(cols, shape, kernel, stride, padding):
    n, c, h, w = shape
    cols = torch.tensor(cols.reshape(len(cols), -1, n).transpose(2, 0, 1).copy())
    return F.fold(cols, (h, w), kernel, padding=padding, stride=stride).numpy()


def images_first(cols, n, c, kernel, tall, wide):
    return np.moveaxis(cols.reshape(n, c, kernel, kernel, tall, wide), 0, -1)


def images_before_places(cols, n, c, kernel, tall, wide):
    return np.moveaxis(cols.reshape(c, kernel, kernel, n, tall, wide), 3, -1)


def inverse(cols, shape, *how):
    return back_by_torch(cols, shape, *how) / np.maximum(back_by_torch(np.ones_like(cols), shape, *how), 1)


# 03.5
def planted(x, dy, kernel):
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // kernel, kernel, w // kernel, kernel)
    largest = windows.max(axis=(3, 5), keepdims=True)
    return ((windows == largest) * dy[:, :, :, None, :, None]).reshape(x.shape)


def shared(x, dy, kernel):
    dx = planted(x, dy, kernel)
    many = planted(x, np.ones_like(dy), kernel)
    n, c, h, w = x.shape
    count = many.reshape(n, c, h // kernel, kernel, w // kernel, kernel).sum(axis=(3, 5), keepdims=True)
    return dx / np.broadcast_to(count, (n, c, h // kernel, kernel, w // kernel, kernel)).reshape(x.shape)


def pool_by_torch(x, dy, kernel):
    t = torch.tensor(x, requires_grad=True)
    F.max_pool2d(t, kernel).backward(torch.tensor(dy))
    return t.grad.numpy()


def pool_by_layer(x, dy, kernel):
    layer = MaxPool(kernel)
    layer.forward(x)
    return layer.backward(dy)


def pool_by_argmax(x, dy, kernel, last=False):
    dx = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*dy.shape):
        window = x[n, c, i * kernel : i * kernel + kernel, j * kernel : j * kernel + kernel].ravel()
        at = kernel**2 - 1 - window[::-1].argmax() if last else window.argmax()
        dx[n, c, i * kernel + at // kernel, j * kernel + at % kernel] += dy[n, c, i, j]
    return dx


def pool_last(x, dy, kernel):
    return pool_by_argmax(x, dy, kernel, last=True)


def pool_by_columns(x, dy, kernel):
    dx = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*dy.shape):
        window = x[n, c, i * kernel : i * kernel + kernel, j * kernel : j * kernel + kernel]
        v, u = divmod(int(window.T.ravel().argmax()), kernel)
        dx[n, c, i * kernel + u, j * kernel + v] = dy[n, c, i, j]
    return dx


def pool_without_way_out(x, dy, kernel):
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // kernel, kernel, w // kernel, kernel).transpose(0, 1, 2, 4, 3, 5)
    winners = np.eye(kernel**2)[windows.reshape(*dy.shape, -1).argmax(-1)]
    return (winners * dy[..., None]).reshape(x.shape)


def pool_without_transpose(x, dy, kernel):
    return (np.eye(kernel**2)[x.reshape(*dy.shape, kernel**2).argmax(-1)] * dy[..., None]).reshape(x.shape)


# 03.6
def from_the_input(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side


def from_the_output(layers):
    side = 1
    for kernel, stride in layers[::-1]:
        side = (side - 1) * stride + kernel
    return side


def by_slopes(layers):
    """Which pixels move one value of a chain of torch's means: by autograd."""
    n = from_the_input(layers) + 20
    x = torch.ones(1, 1, n, dtype=torch.float64, requires_grad=True)
    y = x
    for kernel, stride in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    y[0, 0, 0].backward()
    seen = np.flatnonzero(x.grad.numpy())
    return int(seen.max() - seen.min() + 1)


def no_strides(layers):
    side = 1
    for kernel, _ in layers:
        side += kernel - 1
    return side


def rule_from_the_input(layers):
    side = 1
    for kernel, stride in layers:
        side = (side - 1) * stride + kernel
    return side


def as_many_steps_as_windows(layers, less=0):
    side = 1
    for kernel, stride in layers[::-1]:
        side = side * stride + kernel - less
    return side


def stride_too_early(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        side += (kernel - 1) * step
    return side


def multiplied(layers):
    side = 1
    for kernel, _ in layers:
        side *= kernel
    return side


RIGHT = {
    check_columns: (im2col, by_places, by_torch, by_weights),
    check_back: (col2im, back_by_weights, back_by_torch),
    check_pool: (pool_by_torch, pool_by_layer, pool_by_argmax),
    check_field: (from_the_input, from_the_output, by_slopes),
}


@pytest.mark.parametrize(("check", "answer"), [(c, a) for c, answers in RIGHT.items() for a in answers])
def test_a_right_answer_in_another_style_is_refused(check, answer, capsys):
    for _ in range(3):
        assert verdict(check, answer, capsys) == f"Correct. {check.correct}"


@pytest.mark.parametrize(
    ("check", "answer", "sentence"),
    [
        (
            check_columns,
            lambda *a: by_places(*a, walk=lambda i, j, n: (n, i, j)),
            "the image n has to change fastest",
        ),
        (check_columns, lambda *a: by_weights(*a, channels_last=True), "the channel changes slowest."),
        (check_columns, lambda *a: by_weights(*a, wrong_stride=True), "moves by `stride` pixels at a time"),
        (check_columns, lambda *a: by_places(*a, flip=-1), "cross-correlation does not flip."),
        (
            check_columns,
            lambda *a: by_places(*a, walk=lambda i, j, n: (j, i, n)),
            "i counts the stops downward and j to the right",
        ),
        (check_columns, lambda *a: by_places(*a).T, "transposed"),
        (check_columns, lambda *a: by_weights(*a, swap=True), "u counts the window's rows and v its columns"),
        (check_columns, lambda x, k, s, p: by_places(x, k, s), "The padding is missing"),
        (check_columns, lambda *a: by_weights(*a, border=1), "The padding consists of zeros."),
        (check_back, lambda *a: back_by_weights(*a, add=False), "a pixel adds up what comes back"),
        (check_back, inverse, "but a gradient is a sum."),
        (check_back, lambda *a: back_by_weights(*a, first=0), "begins at row and column `padding`"),
        (check_back, lambda *a: back_by_weights(*a, cut=False), "has shape"),
        (check_back, lambda *a: back_by_weights(*a, swap=True), "u counts rows and v columns"),
        (check_back, lambda *a: back_by_weights(*a, from_end=True), "`-0` is 0"),
        (
            check_back,
            lambda *a: back_by_weights(*a, reshape=images_first),
            "In cols the image n changes fastest",
        ),
        (
            check_back,
            lambda *a: back_by_weights(*a, reshape=images_before_places),
            "Along a row of cols, the image n changes fastest",
        ),
        (check_pool, pool_by_columns, "Row by row, not column by column"),
        (check_pool, pool_without_way_out, "Undo the transpose, too, before the last reshape."),
        (check_pool, pool_without_transpose, "K K neighbours of one row, not a window"),
        (check_pool, planted, "The bug is still there."),
        (check_pool, shared, "Sharing equally is a possible rule, but not ours"),
        (check_pool, pool_last, "That is the last of them"),
        (check_field, no_strides, "a step to the next place is 2 pixels of the input."),
        (check_field, stride_too_early, "A layer's own stride does not widen its window;"),
        (check_field, multiplied, "3 and 3 make 5, not 9."),
        (check_field, lambda layers: sum(kernel for kernel, _ in layers), "3 and 3 make 5, not 6."),
        (check_field, rule_from_the_input, "starts at the output"),
        (check_field, as_many_steps_as_windows, "start r - 1 steps apart"),
        (check_field, lambda layers: as_many_steps_as_windows(layers, less=1), "no further step follows"),
    ],
)
def test_a_classmates_mistake_is_not_named(check, answer, sentence, capsys):
    missed = {text for _ in range(TIMES) if sentence not in (text := verdict(check, answer, capsys))}
    assert not missed


def test_the_planted_bug_is_seen_without_ties():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 3, 6, 4)), rng.normal(size=(2, 3, 3, 2))
    assert np.array_equal(planted(x, dy, 2), pool_by_torch(x, dy, 2))


def test_the_lesson_in_numpy_imports_torch_before_its_bridge():
    root = Path(__file__).resolve().parents[2]
    cells = json.loads((root / "notebooks/03_convolution_in_numpy.ipynb").read_text(encoding="utf-8"))[
        "cells"
    ]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    (bridge,) = (i for i, source in enumerate(code) if "import torch" in source)
    assert bridge > len(code) - 3
    (setup,) = ("".join(c["source"]) for c in cells if "setup" in c["metadata"].get("tags", []))
    program = f"import sys\nsys.path.insert(0, {str(root)!r})\n{setup}\nprint('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "False"
