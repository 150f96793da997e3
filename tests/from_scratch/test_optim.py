"""Optimizers in NumPy, ten steps of each against torch.optim; schedules against torch's or by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.from_scratch import optim

RATES = st.floats(1e-4, 1.0)
SHARES = st.floats(0.0, 0.99)
DECAYS = st.sampled_from([0.0, 1e-4, 0.1])
EPS = st.sampled_from([1e-8, 1e-3])
SEEDS = st.integers(0, 2**32 - 1)


def ten_steps_agree(ours, theirs, seed):
    """Two parameters, ten steps with gradients of changing size, the learning rate halved on the way."""
    rng = np.random.default_rng(seed)
    parameters = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(4)}
    tensors = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in parameters.items()}
    theirs = theirs(tensors.values())
    for step in range(10):
        gradients = {
            name: 10.0 ** rng.integers(-3, 2) * rng.standard_normal(w.shape) for name, w in parameters.items()
        }
        for name, t in tensors.items():
            t.grad = torch.tensor(gradients[name])
        ours.step(parameters, gradients)
        theirs.step()
        for name, w in parameters.items():
            np.testing.assert_allclose(w, tensors[name].detach().numpy(), rtol=1e-10, atol=1e-10)
        if step == 4:
            ours.lr /= 2
            theirs.param_groups[0]["lr"] /= 2


@given(SEEDS, RATES, SHARES, st.booleans(), DECAYS)
def test_sgd_momentum_nesterov_or_its_decay_differ_from_torch(seed, lr, momentum, nesterov, decay):
    nesterov = nesterov and momentum > 0  # torch refuses the other
    arguments = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    ten_steps_agree(optim.SGD(lr, **arguments), lambda p: torch.optim.SGD(p, lr, **arguments), seed)


@given(SEEDS, RATES, SHARES, EPS, DECAYS)
def test_rmsprop_differs_from_torch(seed, lr, beta, eps, decay):
    ours = optim.RMSprop(lr, beta, eps, decay)
    ten_steps_agree(ours, lambda p: torch.optim.RMSprop(p, lr, beta, eps, weight_decay=decay), seed)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@given(seed=SEEDS, lr=RATES, beta1=SHARES, beta2=SHARES, eps=EPS, decay=DECAYS)
def test_adam_or_its_decoupled_decay_differ_from_torch(name, seed, lr, beta1, beta2, eps, decay):
    ours = getattr(optim, name)(lr, beta1, beta2, eps, decay)
    theirs = getattr(torch.optim, name)
    ten_steps_agree(ours, lambda p: theirs(p, lr, (beta1, beta2), eps, decay), seed)


@pytest.mark.parametrize("name, lr", [("SGD", 0.1), ("RMSprop", 0.01), ("Adam", 1e-3), ("AdamW", 1e-3)])
def test_a_default_argument_differs_from_torch(name, lr):
    ten_steps_agree(getattr(optim, name)(lr), lambda p: getattr(torch.optim, name)(p, lr), 0)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_a_step_changes_the_gradients_or_leaves_float32_or_makes_a_new_array(name):
    w, g = np.ones(3, np.float32), np.full(3, 0.5, np.float32)
    optimizer = getattr(optim, name)(0.1, weight_decay=0.1)
    parameters = {"w": w}
    for _ in range(2):
        optimizer.step(parameters, {"w": g})
    assert parameters["w"] is w and w.dtype == np.float32 and (w < 1).all() and (g == 0.5).all()
    states = [state["w"] for state in vars(optimizer).values() if isinstance(state, dict)]
    assert states and all(state.dtype == np.float32 for state in states)


def torch_rates(schedule, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule, rates = schedule(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step(), schedule.step()
    return rates


SCHEDULES = torch.optim.lr_scheduler
AS_IN_TORCH = {
    "warm_up": lambda o: SCHEDULES.LinearLR(o, start_factor=1 / 4, total_iters=3),
    "step_decay": lambda o: SCHEDULES.MultiStepLR(o, [20, 30], 0.1),
    "cosine": lambda o: SCHEDULES.CosineAnnealingLR(o, 40),
}


@pytest.mark.parametrize("name", AS_IN_TORCH)
def test_a_schedule_differs_from_torch(name):
    ours = [getattr(optim, name)(t, 40) for t in range(40)]
    assert ours == pytest.approx(torch_rates(AS_IN_TORCH[name], 40), rel=1e-6, abs=1e-12)


def test_one_cycle_does_not_climb_for_a_fifth_and_fall_to_almost_zero():
    expected = [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [optim.one_cycle(t, 10) for t in range(10)] == pytest.approx(expected)
    assert [optim.one_cycle(t, 4, share=0.5) for t in range(4)] == [0.5, 1, 1, 0.5]


@pytest.mark.parametrize("name", ["warm_up", "step_decay", "cosine", "one_cycle"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_schedule_of_few_steps_leaves_the_range_from_0_to_1(name, steps):
    rates = [getattr(optim, name)(t, steps) for t in range(steps)]
    assert min(rates) > 0 and max(rates) <= 1
