"""Checks of lesson 04."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.frame import Check, predict, same_weights, use

__all__ = ["check_accuracy", "check_step", "predict", "use"]


# 04.3: one step of training


def batch(rng):
    m = int(rng.integers(2, 6))
    return {
        "x": torch.from_numpy(rng.normal(size=(m, 4)).astype(np.float32)),
        "y": torch.from_numpy(rng.integers(0, 3, m)),
    }


def two_steps(answer, x, y):
    """Weight, bias and last loss after two steps of an answer with momentum."""
    net = same_weights(nn.Linear(4, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = [answer(net, x, y, optimizer) for _ in range(2)]
    return net.weight, net.bias, losses[-1]


def step(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def no_zero_grad(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def no_move(net, x, y, optimizer):
    return F.cross_entropy(net(x), y).item()


def softmax_twice(net, x, y, optimizer):
    return step(lambda x: net(x).softmax(1), x, y, optimizer)


def summed(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def nothing_returned(net, x, y, optimizer):
    step(net, x, y, optimizer)


def loss_afterwards(net, x, y, optimizer):
    step(net, x, y, optimizer)
    return F.cross_entropy(net(x), y).item()


check_step = Check(
    step,
    batch,
    always=({"x": torch.tensor([[1.0, -2.0, 0.5, 3.0]]), "y": torch.tensor([2])},),
    call=two_steps,
    names=("weight", "bias", "loss"),
    mistakes={
        "The gradients of the previous step are still there: clear them.": no_zero_grad,
        "The weights do not move: call backward after zero_grad and before step.": no_move,
        "F.cross_entropy applies the softmax itself: give it the logits.": softmax_twice,
        "The loss is the mean over the batch, not the sum.": summed,
        "The weights are right; the loss is not returned.": nothing_returned,
        "Return the loss from before the step.": loss_afterwards,
    },
    correct="zero_grad may also come last, or before the loss: anywhere but between backward and step.",
)


# 04.6: the share of right answers, over batches that are not equally large


def sizes(rng):
    full = int(rng.integers(3, 9))
    return {"batch_sizes": [full] * int(rng.integers(1, 4)) + [int(rng.integers(1, full))]}


def scored(answer, batch_sizes):
    """The answer's accuracy of a small network on batches of these sizes; those of the last batch are all right."""
    net = same_weights(nn.Linear(6, 3))
    batches = [(torch.randn(size, 6), torch.randint(0, 3, (size,))) for size in batch_sizes]
    last = batches[-1][0]
    batches[-1] = (last, net(last).argmax(1))
    return answer(net, batches)


def accuracy(net, batches):
    hits = [(net(x).argmax(1) == y).sum().item() for x, y in batches]
    return sum(hits) / sum(len(y) for _, y in batches)


def mean_of_means(net, batches):
    shares = [(net(x).argmax(1) == y).float().mean().item() for x, y in batches]
    return sum(shares) / len(shares)


def hits_a_batch(net, batches):
    return sum((net(x).argmax(1) == y).sum().item() for x, y in batches) / len(batches)


def full_batches(net, batches):
    hits = sum((net(x).argmax(1) == y).sum().item() for x, y in batches)
    return hits / (len(batches) * len(batches[0][1]))


def hits_only(net, batches):
    return sum((net(x).argmax(1) == y).sum().item() for x, y in batches)


check_accuracy = Check(
    accuracy,
    sizes,
    always=({"batch_sizes": [4, 4, 1]},),
    call=scored,
    mistakes={
        "The bug is still there.": mean_of_means,
        "Divide by the number of images, not of batches.": hits_a_batch,
        "The last batch is smaller than the first.": full_batches,
        "This is the count of right answers, not their share.": hits_only,
    },
    correct="`evaluate` and `fit` count in the same way: 5,000 images in batches of 128 leave a batch of 8.",
)
