"""Layers, loss, gradient check and training in NumPy, against torch, SciPy and scikit-learn."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from course_utils.from_scratch import nn
from course_utils.from_scratch.optim import SGD

SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**32 - 1)


def tensor(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def same(ours, theirs, rel=1e-6):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, rtol=rel, atol=1e-12)


def network(rng, dtype=np.float64):
    layers = [nn.Linear(5, 8, rng, dtype=dtype), nn.BatchNorm(8, dtype=dtype), nn.ReLU()]
    layers += [
        nn.Linear(8, 6, rng, dtype=dtype),
        nn.Tanh(),
        nn.Linear(6, 4, rng, std=0.3, dtype=dtype),
        nn.Sigmoid(),
    ]
    return nn.Sequential(*layers, nn.Linear(4, 3, rng, std=nn.xavier(4, 3), dtype=dtype))


def torch_network(net):
    """The same network in torch, with copies of the arrays."""
    kinds = {nn.ReLU: torch.nn.ReLU, nn.Tanh: torch.nn.Tanh, nn.Sigmoid: torch.nn.Sigmoid}
    layers = []
    for layer in net.layers:
        if isinstance(layer, nn.Linear):
            layers.append(torch.nn.Linear(*layer.w.shape).double())
            layers[-1].load_state_dict({"weight": torch.tensor(layer.w.T), "bias": torch.tensor(layer.b)})
        elif isinstance(layer, nn.BatchNorm):
            layers.append(torch.nn.BatchNorm1d(len(layer.gamma)).double())
        else:
            layers.append(kinds[type(layer)]())
    return torch.nn.Sequential(*layers)


def weights(net):
    """The parameters in torch's order and shape."""
    return [w.T if w.ndim == 2 else w for w in net.parameters().values()]


@given(SEEDS, SIZES, SIZES, SIZES)
def test_a_linear_layer_or_its_gradients_differ_from_torch(seed, n, inputs, outputs):
    rng = np.random.default_rng(seed)
    layer = nn.Linear(inputs, outputs, rng, dtype=np.float64)
    layer.b += rng.standard_normal(outputs)
    x, dy = rng.standard_normal((n, inputs)), rng.standard_normal((n, outputs))
    tx, tw, tb = tensor(x), tensor(layer.w), tensor(layer.b)
    y = tx @ tw + tb
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    same(layer.backward(dy), tx.grad)
    same(layer.dw, tw.grad)
    same(layer.db, tb.grad)


@pytest.mark.parametrize("name", ["ReLU", "Tanh", "Sigmoid"])
@given(seed=SEEDS)
def test_an_activation_or_its_slope_differs_from_torch(name, seed):
    rng = np.random.default_rng(seed)
    x, dy = np.append(3 * rng.standard_normal((4, 5)), [[0.0] * 5], axis=0), rng.standard_normal((5, 5))
    layer, tx = getattr(nn, name)(), tensor(x)
    y = getattr(torch, name.lower())(tx)
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    same(layer.backward(dy), tx.grad)


def test_the_sigmoid_warns_or_overflows_for_large_numbers():
    x = np.array([-1000.0, -100.0, -30.0, 30.0, 1000.0])
    with np.errstate(over="raise", invalid="raise"):
        same(nn.Sigmoid().forward(x), scipy.special.expit(x))
        assert nn.Sigmoid().forward(x.astype(np.float32)).dtype == np.float32


@given(SEEDS, st.integers(2, 9), SIZES)
def test_batch_norm_or_its_gradients_differ_from_torch(seed, n, features):
    rng = np.random.default_rng(seed)
    layer, theirs = nn.BatchNorm(features, dtype=np.float64), torch.nn.BatchNorm1d(features).double()
    layer.gamma += rng.standard_normal(features)
    layer.beta += rng.standard_normal(features)
    theirs.load_state_dict(
        theirs.state_dict() | {"weight": torch.tensor(layer.gamma), "bias": torch.tensor(layer.beta)}
    )
    x, dy = 2 * rng.standard_normal((n, features)) + 3, rng.standard_normal((n, features))
    tx = tensor(x)
    y = theirs(tx)
    y.backward(torch.tensor(dy))
    same(layer.forward(x), y)
    np.testing.assert_allclose(layer.backward(dy), tx.grad.numpy(), rtol=1e-6, atol=1e-9)  # n = 2: all but 0
    same(layer.dgamma, theirs.weight.grad)
    same(layer.dbeta, theirs.bias.grad)


def test_running_statistics_are_biased_or_not_used_or_learned_in_evaluation():
    rng = np.random.default_rng(0)
    layer, theirs = nn.BatchNorm(4, dtype=np.float64), torch.nn.BatchNorm1d(4).double()
    for n in (2, 5, 16):
        x = 2 * rng.standard_normal((n, 4)) + 1
        layer.forward(x), theirs(torch.tensor(x))
        same(layer.running_mean, theirs.running_mean)
        same(layer.running_var, theirs.running_var)
    nn.set_training(nn.Sequential(layer), False)
    x = rng.standard_normal((1, 4))
    same(layer.forward(x), theirs.eval()(torch.tensor(x)))
    same(layer.running_var, theirs.running_var)


def test_batch_norm_divides_by_zero_for_a_batch_of_one():
    with pytest.raises(ValueError, match="the batch has 1 row; expected 2 or more"):
        nn.BatchNorm(3).forward(np.ones((1, 3), np.float32))


@given(SEEDS, SIZES, st.integers(2, 7), st.sampled_from([1.0, 1000.0]))
def test_the_loss_or_its_gradient_differs_from_torch_or_large_logits_overflow(seed, n, classes, scale):
    rng = np.random.default_rng(seed)
    z, y = scale * rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    tz, loss = tensor(z), nn.SoftmaxCrossEntropy()
    value = F.cross_entropy(tz, torch.tensor(y))
    value.backward()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        same(loss.forward(z, y), value)
        same(loss.backward(), tz.grad)
        same(nn.log_sum_exp(z), scipy.special.logsumexp(z, axis=1, keepdims=True))


def test_a_network_gives_other_gradients_than_autograd():
    rng = np.random.default_rng(0)
    net = network(rng)
    x, y = rng.standard_normal((16, 5)), rng.integers(0, 3, 16)
    theirs = torch_network(net)
    value = F.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
    value.backward()
    loss = nn.SoftmaxCrossEntropy()
    same(loss.forward(net.forward(x), y), value)
    net.backward(loss.backward())
    for (name, ours), their in zip(net.gradients().items(), theirs.parameters(), strict=True):
        rel = np.abs(ours - their.grad.numpy().T).max() / np.abs(ours).max()
        assert rel < 1e-6 or name == "0.b", name  # before batch norm: 0
    assert list(net.parameters()) == list(net.gradients())
    assert list(net.parameters())[:4] == ["0.w", "0.b", "1.gamma", "1.beta"]


def test_the_deviations_at_first_are_not_those_of_he_and_glorot():
    w, draw = torch.empty(400, 700), torch.Generator().manual_seed(0)  # 700 inputs, 400 outputs
    he = torch.nn.init.kaiming_normal_(w, nonlinearity="relu", generator=draw).std().item()
    layer = nn.Linear(700, 400, np.random.default_rng(0))
    assert layer.w.std() == pytest.approx(he, rel=0.02) and not layer.b.any()
    glorot = torch.nn.init.xavier_normal_(w, generator=draw).std().item()
    assert nn.xavier(700, 400) == pytest.approx(glorot, rel=0.02)
    assert not nn.Linear(700, 400, np.random.default_rng(0), std=0).w.any()


def test_the_numerical_gradient_is_wrong_or_moves_the_weights():
    w = np.random.default_rng(0).standard_normal((3, 4))
    before = w.copy()
    same(nn.numerical_gradient(lambda: (w**3).sum(), w), 3 * w**2)
    assert np.array_equal(w, before)


def test_differences_are_taken_in_float32():
    with pytest.raises(ValueError, match="w is float32; expected float64"):
        nn.numerical_gradient(lambda: 0.0, np.ones(2, np.float32))


@pytest.mark.parametrize("name, factor, error", [("w", 2.0, 0.5), ("b", -1.0, 2.0)])
def test_a_wrong_gradient_passes_or_a_right_one_fails(monkeypatch, name, factor, error):
    rng = np.random.default_rng(0)
    net = network(rng)
    x, y = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    nn.accuracy(net, x, y)  # leaves batch norm in evaluation
    found = nn.gradient_check(net, x, y)
    assert list(found) == list(net.parameters())
    assert max(e for key, e in found.items() if key != "0.b") < 1e-7
    right = nn.Linear.backward

    def wrong(self, dy):
        dx = right(self, dy)
        setattr(self, "d" + name, factor * getattr(self, "d" + name))
        return dx

    monkeypatch.setattr(nn.Linear, "backward", wrong)
    assert nn.gradient_check(net, x, y)[f"7.{name}"] == pytest.approx(error, rel=1e-6)


def test_the_relative_error_of_zeros_is_not_zero():
    assert nn.relative_error(np.zeros(3), np.zeros(3)) == 0
    assert nn.relative_error(np.array([1.0, -4.0]), np.array([1.0, -3.0])) == 0.25


def test_accuracy_forgets_the_last_batch_or_trains_or_differs_from_scikit_learn():
    rng = np.random.default_rng(0)
    net = network(rng)
    x, y = rng.standard_normal((2345, 5)), rng.integers(0, 3, 2345)
    theirs = torch_network(net).eval()(torch.tensor(x))
    same(nn.logits(net, x), theirs)
    assert nn.accuracy(net, x, y) == pytest.approx(accuracy_score(y, theirs.argmax(1)))


def test_training_differs_from_the_same_loop_in_torch():
    rng = np.random.default_rng(1)
    net = network(rng)
    x, y = rng.standard_normal((50, 5)), rng.integers(0, 3, 50)
    theirs = torch_network(net)
    rates = {"schedule": lambda t, steps: 1 / (steps + t)}
    history = nn.train(net, SGD(0.1, 0.9), x, y, epochs=3, batch_size=16, seed=5, val=(x, y), **rates)
    optimizer, order, losses = torch.optim.SGD(theirs.parameters(), 0.1, 0.9), np.random.default_rng(5), []
    for _ in range(3):
        rows = order.permutation(50)
        for start in range(0, 50, 16):
            part = rows[start : start + 16]
            optimizer.param_groups[0]["lr"] = 0.1 / (12 + len(losses))
            loss = F.cross_entropy(theirs(torch.tensor(x[part])), torch.tensor(y[part]))
            optimizer.zero_grad(), loss.backward(), optimizer.step()
            losses.append(loss.item())
    assert history["loss"] == pytest.approx(losses, rel=1e-10) and len(history["seconds"]) == 3
    for ours, their in zip(weights(net), theirs.parameters(), strict=True):
        np.testing.assert_allclose(ours, their.detach().numpy(), rtol=1e-8, atol=1e-10)


def test_training_leaves_float32_or_keeps_the_changed_learning_rate(capsys):
    rng = np.random.default_rng(0)
    net, optimizer = network(rng, np.float32), SGD(0.1, 0.9, True, 1e-4)
    x, y = rng.standard_normal((60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    seen = []

    def augment(batch, rng):
        seen.append(len(batch))
        return batch + rng.standard_normal(batch.shape, np.float32)

    history = nn.train(net, optimizer, x, y, 2, 32, augment=augment, schedule=lambda t, n: t / n, val=(x, y))
    assert seen == [32, 28, 32, 28] and optimizer.lr == 0.1
    values = [*net.parameters().values(), *net.gradients().values(), *optimizer.v.values(), net.forward(x)]
    assert {value.dtype for value in [*values, net.layers[1].running_var]} == {np.dtype(np.float32)}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch 2/2: loss ")
    assert lines[1].endswith(f"validation {history['val_top1'][1]:.2%}")


@pytest.mark.parametrize("dy, dx", [(0, 0), (2, -3), (-1, 1), (0, 4), (9, -8)])
def test_images_are_shifted_the_other_way_or_around_the_edge(dy, dx):
    x = np.random.default_rng(0).integers(1, 9, (5, 2, 6, 7))
    assert np.array_equal(
        nn.shifted(x, dy, dx), scipy.ndimage.shift(x, (0, 0, dy, dx), order=0, mode="nearest")
    )
    assert np.array_equal(nn.shifted(x[0, 0], dy, dx), nn.shifted(x, dy, dx)[0, 0])
