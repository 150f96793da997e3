"""Convolution in NumPy: by loops, by a strided view, by one matrix product; pooling (lesson 03).

Images are (N, C, H, W), kernels (F, C, K, K). In memory the layers put the images *last*, (C, H, W, N), as
Krizhevsky did for AlexNet: what one place of the window meets lies together, and a batch is one matrix.
"""

import numpy as np

from course_utils.from_scratch.nn import he


def output_size(n, kernel, stride=1, padding=0):
    """How many places a window has on n pixels (Dumoulin & Visin 2016, relationship 6)."""
    return (n + 2 * padding - kernel) // stride + 1


def padded(x, p):
    """Images with p rows and columns of zeros on each side: (N, C, H + 2 p, W + 2 p)."""
    return np.pad(x, [(0, 0), (0, 0), (p, p), (p, p)])


def conv_loops(x, w, b, stride=1, padding=0):
    """y[n,f,i,j] = b[f] + sum over c, u, v of w[f,c,u,v] x[n,c,stride i + u,stride j + v], one by one."""
    height, width = (output_size(side, w.shape[2], stride, padding) for side in x.shape[2:])
    x, y = padded(x, padding), np.zeros((len(x), len(w), height, width), x.dtype)  # (N, F, H', W')
    for n, f, i, j in np.ndindex(y.shape):
        y[n, f, i, j] = b[f]
        for c, u, v in np.ndindex(w[f].shape):
            y[n, f, i, j] += w[f, c, u, v] * x[n, c, stride * i + u, stride * j + v]
    return y


def conv_loops_backward(dy, x, w, stride=1, padding=0):
    """(dx, dw, db): each product w x of the forward pass gives dy x to dw and dy w to dx."""
    height, width = x.shape[2:]
    x = padded(x, padding)  # (N, C, H + 2P, W + 2P)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), dy.sum(axis=(0, 2, 3))  # as x, as w, (F,)
    for n, f, i, j in np.ndindex(dy.shape):
        for c, u, v in np.ndindex(w[f].shape):
            dw[f, c, u, v] += dy[n, f, i, j] * x[n, c, stride * i + u, stride * j + v]
            dx[n, c, stride * i + u, stride * j + v] += dy[n, f, i, j] * w[f, c, u, v]
    return dx[:, :, padding : padding + height, padding : padding + width], dw, db  # as x, as w, (F,)


def conv_einsum(x, w, b, stride=1, padding=0):
    """The same sum, over a view that shows each window without copying it."""
    windows = np.lib.stride_tricks.sliding_window_view(padded(x, padding), w.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # (N, C, H', W', K, K)
    return np.einsum("ncijuv,fcuv->nfij", windows, w, optimize=True) + b[:, None, None]  # (N, F, H', W')


def images_last(x, padding=0, value=0):
    """(N, C, H, W) as (C, H + 2 padding, W + 2 padding, N), contiguous."""
    n, c, h, w = x.shape
    out = np.full((c, h + 2 * padding, w + 2 * padding, n), value, x.dtype)  # (C, H + 2P, W + 2P, N)
    out[:, padding : padding + h, padding : padding + w] = x.transpose(1, 2, 3, 0)
    return out


def places(kernel, stride, height, width):
    """Each (u, v) of the window, with the image's rows and columns that it meets in height x width stops."""
    for u, v in np.ndindex(kernel, kernel):
        yield u, v, slice(u, u + stride * height, stride), slice(v, v + stride * width, stride)


def im2col(x, kernel, stride=1, padding=0):
    """The windows of images (N, C, H, W) as columns: (C K K, H' W' N) (Chellapilla et al. 2006)."""
    n, c, h, w = x.shape
    out_h, out_w = (output_size(side, kernel, stride, padding) for side in (h, w))
    x = images_last(x, padding)  # (C, H + 2P, W + 2P, N)
    cols = np.empty((c, kernel, kernel, out_h, out_w, n), x.dtype)  # (C, K, K, H', W', N)
    for u, v, rows, columns in places(kernel, stride, out_h, out_w):
        cols[:, u, v] = x[:, rows, columns]
    return cols.reshape(c * kernel * kernel, out_h * out_w * n)  # (C K K, H' W' N)


def col2im(cols, shape, kernel, stride=1, padding=0):
    """im2col's transpose: each pixel of images (N, C, H, W) = shape adds up its entries in the matrix."""
    n, c, h, w = shape
    out_h, out_w = (output_size(side, kernel, stride, padding) for side in (h, w))
    cols = cols.reshape(c, kernel, kernel, out_h, out_w, n)  # (C, K, K, H', W', N)
    x = np.zeros((c, h + 2 * padding, w + 2 * padding, n), cols.dtype)  # (C, H + 2P, W + 2P, N)
    for u, v, rows, columns in places(kernel, stride, out_h, out_w):
        x[:, rows, columns] += cols[:, u, v]
    return x[:, padding : padding + h, padding : padding + w].transpose(3, 0, 1, 2)  # (N, C, H, W)


class Conv2d:
    """Cross-correlation of images with `outputs` kernels, as one product of w and im2col's matrix.

    Initialization: w normal with standard deviation std (default: He's), b 0.
    Source: LeCun et al. 1998; Chellapilla et al. 2006, "High performance convolutional neural networks".
    """

    names = ("w", "b")
    first = False

    def __init__(self, inputs, outputs, kernel, rng, stride=1, padding=0, std=None, dtype=np.float32):
        std = he(inputs * kernel * kernel) if std is None else std
        self.w = (std * rng.standard_normal((outputs, inputs, kernel, kernel))).astype(dtype)  # (F, C, K, K)
        self.b = np.zeros(outputs, dtype)  # (F,)
        self.window = kernel, stride, padding

    def forward(self, x):  # (N, C, H, W)
        self.shape = x.shape
        height, width = (output_size(side, *self.window) for side in x.shape[2:])
        self.cols = im2col(x, *self.window)  # (C K K, H' W' N)
        y = self.w.reshape(len(self.w), -1) @ self.cols  # (F, H' W' N)
        y += self.b[:, None]
        return y.reshape(-1, height, width, len(x)).transpose(3, 0, 1, 2)  # (N, F, H', W')

    def backward(self, dy):  # (N, F, H', W')
        dy = dy.transpose(1, 2, 3, 0).reshape(len(self.w), -1)  # (F, H' W' N)
        self.dw = (self.cols @ dy.T).T.reshape(self.w.shape)  # (F, C, K, K): dy @ cols.T, in the faster order
        self.db = dy.sum(axis=1)  # (F,)
        if self.first:
            return None
        cols = self.w.reshape(len(self.w), -1).T @ dy  # (C K K, H' W' N)
        return col2im(cols, self.shape, *self.window)  # (N, C, H, W)


class MaxPool:
    """The largest value of each window (default: windows side by side); the padding is -infinity.

    Of equal values the first, row by row, gets the gradient, as in torch.
    """

    names = ()

    def __init__(self, kernel, stride=None, padding=0):
        self.window = kernel, kernel if stride is None else stride, padding

    def forward(self, x):  # (N, C, H, W)
        (kernel, stride, padding), (n, c, h, w) = self.window, x.shape
        self.shape, (h, w) = x.shape, (output_size(side, *self.window) for side in (h, w))
        x = images_last(x, padding, -np.inf)  # (C, H + 2P, W + 2P, N)
        y = np.full((c, h, w, n), -np.inf, x.dtype)  # (C, H', W', N)
        self.winner = np.zeros(y.shape, np.int16)  # (C, H', W', N): which place of the window
        for u, v, rows, columns in places(kernel, stride, h, w):
            candidate = x[:, rows, columns]  # (C, H', W', N)
            np.maximum(self.winner, np.int16(u * kernel + v) * (candidate > y), out=self.winner)
            np.maximum(y, candidate, out=y)
        return y.transpose(3, 0, 1, 2)  # (N, C, H', W')

    def backward(self, dy):  # (N, C, H', W')
        (kernel, stride, padding), (n, c, h, w) = self.window, self.shape
        dy = dy.transpose(1, 2, 3, 0)  # (C, H', W', N)
        dx = np.zeros((c, h + 2 * padding, w + 2 * padding, n), dy.dtype)  # (C, H + 2P, W + 2P, N)
        for u, v, rows, columns in places(kernel, stride, *dy.shape[1:3]):
            dx[:, rows, columns] += dy * (self.winner == u * kernel + v)
        return dx[:, padding : padding + h, padding : padding + w].transpose(3, 0, 1, 2)  # (N, C, H, W)


class MapMean:
    """Global average pooling: the mean of each map (Lin et al. 2013, "Network in network", section 3.2)."""

    names = ()

    def forward(self, x):  # (N, C, H, W)
        self.shape = x.shape
        return x.mean(axis=(2, 3))  # (N, C)

    def backward(self, dy):  # (N, C)
        h, w = self.shape[2:]
        return np.broadcast_to(dy[:, :, None, None] / (h * w), self.shape)  # (N, C, H, W)


class Flatten:
    """The maps of each image as one row."""

    names = ()

    def forward(self, x):  # (N, C, H, W)
        self.shape = x.shape
        return x.reshape(len(x), -1)  # (N, C H W)

    def backward(self, dy):  # (N, C H W)
        return dy.reshape(self.shape)  # (N, C, H, W)
