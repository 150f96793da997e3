"""Checks of lesson 03. The references walk over windows and pixels one by one, or use the definition alone."""

import numpy as np

from course_utils.exercises.frame import Check, predict, use

__all__ = ["predict", "use", "check_columns", "check_back", "check_pool", "check_field"]


# 03.3: images to the matrix of their windows
def images_case(rng):
    n, c, kernel = rng.choice((1, 2, 3), 3)
    stride, padding = rng.integers((1, 0), (3, 3))
    h, w = rng.choice(np.arange(kernel, kernel + 4), 2, replace=False)
    return {"x": rng.normal(size=(n, c, h, w)), "kernel": kernel, "stride": stride, "padding": padding}


def windows(x, kernel, stride, padding):
    """The windows (N, C, H', W', K, K), cut out one by one."""
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    tops, lefts = (range(0, side - kernel + 1, stride) for side in x.shape[2:])
    rows = [[x[:, :, i : i + kernel, j : j + kernel] for j in lefts] for i in tops]
    return np.array(rows).transpose(2, 3, 0, 1, 4, 5)


def columns(x, kernel, stride, padding, order=(1, 4, 5, 2, 3, 0), rows=3):
    found = windows(x, kernel, stride, padding).transpose(order)
    return found.reshape(int(np.prod(found.shape[:rows])), -1)


def flipped(x, kernel, stride, padding):
    found = windows(x, kernel, stride, padding)[..., ::-1, ::-1].transpose(1, 4, 5, 2, 3, 0)
    return found.reshape(int(np.prod(found.shape[:3])), -1)


def stride_forgotten(x, kernel, stride, padding):
    h, w = windows(x, kernel, stride, padding).shape[2:4]
    found = windows(x, kernel, 1, padding)[:, :, :h, :w].transpose(1, 4, 5, 2, 3, 0)
    return found.reshape(int(np.prod(found.shape[:3])), -1)


check_columns = Check(
    columns,
    images_case,
    always=(
        {"x": np.arange(9.0).reshape(1, 1, 3, 3), "kernel": 2, "stride": 1, "padding": 0},
        {"x": np.arange(48.0).reshape(2, 2, 3, 4), "kernel": 2, "stride": 2, "padding": 1},
    ),
    mistakes={
        "Along a row, the image n has to change fastest: the order is (i, j, n).": lambda *a: columns(
            *a, order=(1, 4, 5, 0, 2, 3)
        ),
        "Down a column the order is (c, u, v), as in w: the channel changes slowest.": lambda *a: columns(
            *a, order=(4, 5, 1, 2, 3, 0)
        ),
        "u counts the window's rows and v its columns: yours are swapped.": lambda *a: columns(
            *a, order=(1, 5, 4, 2, 3, 0)
        ),
        "i counts the stops downward and j to the right: yours are swapped.": lambda *a: columns(
            *a, order=(1, 4, 5, 3, 2, 0)
        ),
        "The window moves by `stride` pixels at a time, not by one.": stride_forgotten,
        "The window is turned by 180 degrees: cross-correlation does not flip.": flipped,
        "This is the matrix transposed: a window is a column.": lambda *a: columns(*a).T,
    },
    correct="Each pixel appears once for each window that covers it: up to K x K times.",
)


# 03.4: the way back, by its definition <A x, y> = <x, A' y>
def columns_case(rng):
    case = images_case(rng)
    x, *how = case.values()
    cols = rng.normal(size=columns(x, *how).shape)
    return {"cols": cols, "shape": x.shape} | dict(zip(("kernel", "stride", "padding"), how, strict=True))


def sources(shape, kernel, stride, padding):
    """Which pixel stands at each entry of im2col's matrix: its number from 1 on, 0 for padding."""
    pixels = np.arange(1, np.prod(shape) + 1).reshape(shape)
    return columns(pixels, kernel, stride, padding).ravel()


def by_definition(cols, shape, *how):
    """<A x, y> is the sum of x[source of the entry] y[entry] over all entries; pixel p gets what x[p] meets."""
    size = int(np.prod(shape)) + 1
    return np.bincount(sources(shape, *how), cols.ravel(), size)[1:].reshape(shape)


def put_back(cols, shape, kernel, stride, padding, add=True, start=None, step=None):
    """Window after window; start: the first row and column of the image, step: how far a window moves."""
    n, c, h, w = shape
    start, step = padding if start is None else start, step or stride
    x = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    out = [(side + 2 * padding - kernel) // stride + 1 for side in (h, w)]
    parts = cols.reshape(c, kernel, kernel, *out, n).transpose(5, 0, 3, 4, 1, 2)
    for i, j in np.ndindex(*out):
        place = np.s_[:, :, step * i : step * i + kernel, step * j : step * j + kernel]
        x[place] = parts[:, :, i, j] + add * x[place]
    return x[:, :, start : start + h, start : start + w]


def weight_after_weight(cols, shape, *how):
    x = np.zeros(int(np.prod(shape)) + 1)
    x[sources(shape, *how)] = cols.ravel()  # of several, the last stays
    return x[1:].reshape(shape)


def averaged(cols, shape, *how):
    often = by_definition(np.ones_like(cols), shape, *how)
    return by_definition(cols, shape, *how) / np.maximum(often, 1)


check_back = Check(
    by_definition,
    columns_case,
    mistakes={
        "Windows overlap: a pixel adds up what comes back (+=); yours keeps only what the last window sends.":
        lambda *a: put_back(*a, add=False),
        "Windows overlap: a pixel adds up what comes back (+=); yours keeps only what the last weight sends.":
        weight_after_weight,
        "You divide by how often a pixel was used: that would undo im2col, but a gradient is a sum.": averaged,
        "The image begins at row and column `padding` of the padded one.": lambda *a: put_back(*a, start=0),
        "The windows are `stride` pixels apart, not one.": lambda *a: put_back(*a, step=1),
        "The padding is still there: cut it off.": lambda cols, shape, kernel, stride, padding: put_back(
            cols, (*shape[:2], shape[2] + 2 * padding, shape[3] + 2 * padding), kernel, stride, 0
        ),
    },
    correct="<A x, y> = <x, A' y> holds: this is im2col's matrix transposed, not its inverse.",
)  # fmt: skip


# 03.5: the backward pass of max pooling, where values are equal
def pool_case(rng):
    n, c, kernel = rng.choice((1, 2, 3), 3)
    h, w = rng.choice((1, 2, 3), 2, replace=False)
    x = rng.integers(0, 3, (n, c, kernel * h, kernel * w)).astype(float)
    return {"x": x, "dy": rng.normal(size=(n, c, h, w)), "kernel": kernel}


def pool_backward(x, dy, kernel, share=lambda best: np.arange(len(best)) == np.argmax(best)):
    """Window after window; share: which part of dy each place gets, from where the largest value stands."""
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(dy.shape):
        place = np.s_[n, c, i * kernel : (i + 1) * kernel, j * kernel : (j + 1) * kernel]
        best = (x[place] == x[place].max()).ravel()
        dx[place] = dy[n, c, i, j] * share(best).reshape(kernel, kernel)
    return dx


check_pool = Check(
    pool_backward,
    pool_case,
    always=(
        {"x": np.zeros((1, 1, 2, 2)), "dy": np.full((1, 1, 1, 1), 3.0), "kernel": 2},
        {"x": np.array([[[[0.0, 2.0], [1.0, 2.0]]]]), "dy": np.full((1, 1, 1, 1), 3.0), "kernel": 2},
    ),
    mistakes={
        "The bug is still there.": lambda x, dy, kernel: pool_backward(x, dy, kernel, lambda best: best),
        "Sharing equally is a possible rule, but not ours: the first of them gets it all.": lambda x, dy, kernel: (
            pool_backward(x, dy, kernel, lambda best: best / best.sum())
        ),
        "That is the last of them; the first, row by row, gets all.": lambda x, dy, kernel: pool_backward(
            x, dy, kernel, lambda best: np.arange(len(best)) == len(best) - 1 - np.argmax(best[::-1])
        ),
        "Now windows with equal values get nothing at all.": lambda x, dy, kernel: pool_backward(
            x, dy, kernel, lambda best: best * (best.sum() == 1)
        ),
    },
    correct="The gradient of each window arrives once, whatever its values: dx and dy have the same sum.",
)  # fmt: skip


# 03.6: the receptive field
def layers_case(rng):
    return {"layers": [tuple(map(int, rng.integers(1, 4, 2))) for _ in range(rng.integers(1, 5))]}


def field(layers):
    """Side of the input that one output sees, by looking up which pixels it reads."""
    seen = {0}
    for kernel, stride in reversed(layers):
        seen = {stride * place + u for place in seen for u in range(kernel)}
    return max(seen) - min(seen) + 1


def grown(layers, own=False, add=False):
    """From the input on; own: a layer's own stride already counts for its window, add: strides are added up."""
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step * (stride if own else 1)
        step = step + stride - 1 if add else step * stride
    return side


check_field = Check(
    field,
    layers_case,
    always=({"layers": []}, {"layers": [(3, 1), (3, 1)]}, {"layers": [(3, 1), (2, 2), (3, 1), (2, 2)]}),
    mistakes={
        "After a stride of 2, a step to the next place is 2 pixels of the input.": lambda layers: (
            1 + sum(kernel - 1 for kernel, _ in layers)
        ),
        "A layer's own stride does not widen its window; it widens those of the layers after it.": lambda layers: (
            grown(layers, own=True)
        ),
        "Strides multiply: two strides of 2 make steps of 4 pixels.": lambda layers: grown(layers, add=True),
        "Windows overlap: 3 and 3 make 5, not 9.": lambda layers: int(np.prod([k for k, _ in layers])),
        "Windows overlap: 3 and 3 make 5, not 6.": lambda layers: sum(k for k, _ in layers),
    },
    correct="Two 3x3 layers see 5x5 pixels; lesson 06 builds on that.",
)
