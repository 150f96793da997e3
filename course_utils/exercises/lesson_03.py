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


def windows(x, kernel, stride, padding, border=0):
    """The windows (N, C, H', W', K, K), cut out one by one."""
    x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=border)
    tops, lefts = (range(0, side - kernel + 1, stride) for side in x.shape[2:])
    rows = [[x[:, :, i : i + kernel, j : j + kernel] for j in lefts] for i in tops]
    return np.array(rows).transpose(2, 3, 0, 1, 4, 5)


def columns(x, kernel, stride, padding, order=(1, 4, 5, 2, 3, 0), border=0):
    found = windows(x, kernel, stride, padding, border).transpose(order)
    return found.reshape(int(np.prod(found.shape[:3])), -1)


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
        "The padding is missing: H' counts H + 2 padding pixels.": lambda x, kernel, stride, padding: columns(
            x, kernel, stride, 0
        ),
        "The padding consists of zeros.": lambda *a: columns(*a, border=1),
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


def put_back(cols, shape, kernel, stride, padding, add=True, start=None, step=None, order="cuvijn"):
    """Window after window; start: the first row and column of the image, step: how far a window moves.

    order: of the axes in cols, u and v in the window, i and j the place.
    """
    n, c, h, w = shape
    start, step = padding if start is None else start, step or stride
    x = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    out = [(side + 2 * padding - kernel) // stride + 1 for side in (h, w)]
    sides = {"c": c, "u": kernel, "v": kernel, "i": out[0], "j": out[1], "n": n}
    parts = np.einsum(f"{order}->ncijuv", cols.reshape([sides[axis] for axis in order]))
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


def minus_padding(cols, shape, kernel, stride, padding):
    x = put_back(cols, shape, kernel, stride, padding)
    return x if padding else x[:, :, 0:-0, 0:-0]


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
        "u counts rows and v columns: yours are swapped.": lambda *a: put_back(*a, order="cvuijn"),
        "In cols the image n changes fastest: the order is (C, K, K, H', W', N).": lambda *a: put_back(
            *a, order="ncuvij"
        ),
        "Along a row of cols, the image n changes fastest: the order is (i, j, n).": lambda *a: put_back(
            *a, order="cuvnij"
        ),
        "`-0` is 0, so this is empty: cut up to `padding + h`, not up to `-padding`.": minus_padding,
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


def by_neighbours(x, dy, kernel, cut=True):
    """Transposed on the way in or on the way out alone; cut: on the way in the windows are cut out."""
    n, c, h, w = dy.shape
    order, inside, outside = (0, 1, 2, 4, 3, 5), (n, c, h, kernel, w, kernel), (n, c, h, w, kernel**2)
    windows = x.reshape(inside).transpose(order) if cut else x
    first = windows.reshape(outside).argmax(axis=-1)[..., None]
    return ((np.arange(kernel**2) == first) * dy[..., None]).reshape(x.shape)


def by_columns(x, dy, kernel):
    return pool_backward(x.swapaxes(2, 3), dy.swapaxes(2, 3), kernel).swapaxes(2, 3)


check_pool = Check(
    pool_backward,
    pool_case,
    always=(
        {"x": np.zeros((1, 1, 2, 2)), "dy": np.full((1, 1, 1, 1), 3.0), "kernel": 2},
        {"x": np.array([[[[0.0, 2.0], [1.0, 2.0]]]]), "dy": np.full((1, 1, 1, 1), 3.0), "kernel": 2},
    ),
    mistakes={
        "The bug is still there.": lambda *a: pool_backward(*a, lambda best: best),
        "Sharing equally is a possible rule, but not ours: the first of them gets it all.": lambda *a: (
            pool_backward(*a, lambda best: best / best.sum())
        ),
        "That is the last of them; the first, row by row, gets all.": lambda *a: pool_backward(
            *a, lambda best: np.arange(len(best)) == len(best) - 1 - np.argmax(best[::-1])
        ),
        "Row by row, not column by column: that is the first from above.": by_columns,
        "Undo the transpose, too, before the last reshape.": by_neighbours,
        "These are K K neighbours of one row, not a window: transpose before the reshape.": lambda *a: (
            by_neighbours(*a, cut=False)
        ),
        "Now windows with equal values get nothing at all.": lambda *a: pool_backward(
            *a, lambda best: best * (best.sum() == 1)
        ),
    },
    correct="The gradient of each window arrives once, whatever its values: dx and dy have the same sum.",
)  # fmt: skip


# 03.6: the receptive field
def layers_case(rng):
    return {"layers": [tuple(map(int, rng.integers(1, 4, 2))) for _ in range(rng.integers(1, 5))]}


def field(layers, order=reversed):
    """Side of the input that one output sees, by looking up which pixels it reads."""
    seen = {0}
    for kernel, stride in order(layers):
        seen = {stride * place + u for place in seen for u in range(kernel)}
    return max(seen) - min(seen) + 1


def grown(layers, own=False, add=False):
    """From the input on; own: a layer's own stride already counts for its window, add: strides are added up."""
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step * (stride if own else 1)
        step = step + stride - 1 if add else step * stride
    return side


def one_step_too_many(layers, less=0):
    side = 1
    for kernel, stride in reversed(layers):
        side = side * stride + kernel - less
    return side


check_field = Check(
    field,
    layers_case,
    always=({"layers": [(3, 1), (3, 1)]}, {"layers": [(3, 1), (2, 2), (3, 1), (2, 2)]}, {"layers": []}),
    mistakes={
        "After a stride of 2, a step to the next place is 2 pixels of the input.": lambda layers: (
            1 + sum(kernel - 1 for kernel, _ in layers)
        ),
        "A layer's own stride does not widen its window; it widens those of the layers after it.": lambda a: (
            grown(a, own=True)
        ),
        "This walks from the input, but (r - 1) s + K starts at the output: `reversed(layers)`.": lambda a: (
            field(a, iter)
        ),
        "The first and the last of r windows start r - 1 steps apart, not r.": one_step_too_many,
        "After the last window no further step follows: (r - 1) s + K.": lambda layers: one_step_too_many(
            layers, less=1
        ),
        "Strides multiply: two strides of 2 make steps of 4 pixels.": lambda layers: grown(layers, add=True),
        "Windows overlap: 3 and 3 make 5, not 9.": lambda layers: int(np.prod([k for k, _ in layers])),
        "Windows overlap: 3 and 3 make 5, not 6.": lambda layers: sum(k for k, _ in layers),
    },
    correct="Two 3x3 layers see 5x5 pixels; lesson 06 builds on that.",
)
