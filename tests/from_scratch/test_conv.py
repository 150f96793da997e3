"""Convolution and pooling in NumPy, over random shapes, against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from course_utils.from_scratch import conv, nn


def tensor(array):
    return torch.tensor(np.ascontiguousarray(array), requires_grad=True)


def same(ours, theirs, rel=1e-6):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=rel, atol=1e-11)


@st.composite
def cases(draw):
    """Images (N, C, H, W), kernel size, stride, padding that fit each other; and the generator."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel, stride, padding = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    side = st.integers(max(1, kernel - 2 * padding), 7)
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(side), draw(side)
    return rng.standard_normal(shape), kernel, stride, padding, rng


@given(cases(), st.integers(1, 4))
def test_a_convolution_or_its_gradients_differ_from_torch(case, outputs):
    x, kernel, stride, padding, rng = case
    layer = conv.Conv2d(x.shape[1], outputs, kernel, rng, stride, padding, dtype=np.float64)
    layer.b += rng.standard_normal(outputs)
    tx, tw, tb = tensor(x), tensor(layer.w), tensor(layer.b)
    y = F.conv2d(tx, tw, tb, stride, padding)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    same(layer.backward(dy), tx.grad)
    same(layer.dw, tw.grad)
    same(layer.db, tb.grad)
    assert y.shape[2:] == tuple(conv.output_size(side, kernel, stride, padding) for side in x.shape[2:])


def test_the_deviation_at_first_is_not_hes():
    w, draw = torch.empty(60, 50, 3, 3), torch.Generator().manual_seed(0)
    he = torch.nn.init.kaiming_normal_(w, nonlinearity="relu", generator=draw).std().item()
    layer = conv.Conv2d(50, 60, 3, np.random.default_rng(0))
    assert layer.w.std() == pytest.approx(he, rel=0.03) and not layer.b.any()
    assert not conv.Conv2d(50, 60, 3, np.random.default_rng(0), std=0).w.any()


@given(cases(), st.integers(1, 2))
def test_the_loops_or_the_einsum_compute_something_else(case, outputs):
    x, kernel, stride, padding, rng = case
    x = x[:1, :2]
    w, b = rng.standard_normal((outputs, x.shape[1], kernel, kernel)), rng.standard_normal(outputs)
    tx, tw, tb = tensor(x), tensor(w), tensor(b)
    y = F.conv2d(tx, tw, tb, stride, padding)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    same(conv.conv_loops(x, w, b, stride, padding), y)
    same(conv.conv_einsum(x, w, b, stride, padding), y)
    for ours, their in zip(conv.conv_loops_backward(dy, x, w, stride, padding), (tx, tw, tb), strict=True):
        same(ours, their.grad)


@given(cases())
def test_a_column_is_not_a_window_or_col2im_is_not_the_way_back(case):
    x, kernel, stride, padding, rng = case
    n, c, h, w = x.shape
    theirs = F.unfold(tensor(x), kernel, padding=padding, stride=stride)  # (N, C K K, H' W')
    cols = conv.im2col(x, kernel, stride, padding)
    same(cols.reshape(c * kernel**2, -1, n).transpose(2, 0, 1), theirs)
    other = rng.standard_normal(cols.shape)
    folded = torch.tensor(other.reshape(c * kernel**2, -1, n).transpose(2, 0, 1))
    back = conv.col2im(other, x.shape, kernel, stride, padding)
    same(back, F.fold(folded, (h, w), kernel, padding=padding, stride=stride))
    assert (cols * other).sum() == pytest.approx((x * back).sum(), abs=1e-9)  # <A x, y> = <x, A'y>


@given(cases(), st.booleans())
def test_max_pooling_or_who_gets_the_gradient_of_equals_differs_from_torch(case, whole_numbers):
    x, kernel, stride, padding, rng = case
    x = rng.integers(0, 3, x.shape).astype(float) if whole_numbers else x
    padding = min(padding, kernel // 2)  # torch allows no more
    if min(x.shape[2:]) + 2 * padding < kernel:
        x = np.tile(x, (1, 1, kernel, kernel))
    layer, tx = conv.MaxPool(kernel, stride, padding), tensor(x)
    y = F.max_pool2d(tx, kernel, stride, padding)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    same(layer.backward(dy), tx.grad)


def test_windows_of_a_pool_are_not_side_by_side_by_default():
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 9))
    same(conv.MaxPool(3).forward(x), F.max_pool2d(tensor(x), 3))


@pytest.mark.parametrize(
    "layer, theirs", [(conv.MapMean(), torch.nn.AdaptiveAvgPool2d(1)), (conv.Flatten(), None)]
)
def test_the_mean_of_a_map_or_the_order_of_a_row_differs_from_torch(layer, theirs):
    rng = np.random.default_rng(0)
    x = conv.images_last(rng.standard_normal((4, 3, 5, 2))).transpose(
        3, 0, 1, 2
    )  # as a convolution leaves it
    tx = tensor(x)
    y = (theirs(tx) if theirs else tx).flatten(1)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    same(layer.backward(dy), tx.grad)


def cnn(rng, dtype):
    layers = [conv.Conv2d(1, 4, 3, rng, padding=1, dtype=dtype), conv.MaxPool(2), nn.ReLU()]
    layers += [conv.Conv2d(4, 5, 3, rng, stride=2, dtype=dtype), nn.Tanh(), conv.MapMean()]
    return nn.Sequential(*layers, nn.Linear(5, 3, rng, dtype=dtype))


def test_a_network_of_them_gives_other_gradients_than_autograd_or_finite_differences():
    rng = np.random.default_rng(0)
    net = cnn(rng, np.float64)
    x, y = rng.standard_normal((6, 1, 10, 10)), rng.integers(0, 3, 6)
    w1, b1, w2, b2, w3, b3 = p = [tensor(w) for w in net.parameters().values()]
    h = F.max_pool2d(F.conv2d(torch.tensor(x), w1, b1, padding=1), 2).relu()
    h = F.conv2d(h, w2, b2, stride=2).tanh().mean((2, 3))
    value = F.cross_entropy(h @ w3 + b3, torch.tensor(y))
    value.backward()
    loss = nn.SoftmaxCrossEntropy()
    assert loss.forward(net.forward(x), y) == pytest.approx(value.item(), rel=1e-12)
    net.backward(loss.backward())
    for ours, their in zip(net.gradients().values(), p, strict=True):
        same(ours, their.grad)
    assert max(nn.gradient_check(net, x, y).values()) < 1e-7


def test_a_network_leaves_float32():
    rng = np.random.default_rng(0)
    net = cnn(rng, np.float32)
    x = rng.standard_normal((6, 1, 10, 10), np.float32)
    for layer in net.layers:
        x = layer.forward(x)
        assert x.dtype == np.float32, type(layer)
    for layer in reversed(net.layers[1:]):
        x = layer.backward(x)
        assert x.dtype == np.float32, type(layer)
    net.layers[0].backward(x)
    assert {g.dtype for g in net.gradients().values()} == {np.dtype(np.float32)}
