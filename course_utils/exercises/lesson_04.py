"""Checks of lesson 04."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises import frame
from course_utils.exercises.compare import holds_ellipsis
from course_utils.exercises.frame import Check, same_weights, use

__all__ = ["check_accuracy", "check_net", "check_step", "predict", "use"]

# fmt: off
PREDICTIONS = {  # why the answer is the answer, and what wrong guesses forgot, by part
    "04.1": {
        "because": "Ten equal classes cost ln 10 = 2.303 nats; the weights are small, not zero, hence the rest. "
                   "The rows of p and of t both sum to 1.",
        "mistakes": {
            0: {1: "1 would be log to the base 10.", 3.32: "3.32 is the logarithm to the base 2: bits, not nats.",
                0.1: "0.1 is the probability of each class.", -2.303: "The loss is *minus* the logarithm."},
            1: {1: "The row of p sums to 1; the row of t is subtracted."},
        },
    },
    "04.2": {
        "because": "So an image of 28 x 28 pixels with padding=0 raises an error at fc1.",
        "mistakes": {
            "conv1": {(6, 14, 14): "(6, 14, 14) is after the pooling.",
                      (6, 32, 32): "Without padding conv1 loses 4 rows and 4 columns.",
                      (18, 28, 28): "A filter adds up its three channels to one map."},
            "conv2": {(16, 5, 5): "(16, 5, 5) is after the pooling.",
                      (16, 24, 24): "Between conv1 and conv2 there is a pooling."},
            "conv1 parameters": {156: "156 is with one channel.", 450: "The six biases are missing.",
                                 468: "A filter has one bias, not one for each channel."},
            "numbers at fc1": {400: "400 is with padding=2.", 1024: "1,024 is before the last pooling.",
                               16: "Each of the 16 maps still has 4 x 4 numbers."},
        },
    },
    "04.4": {
        "because": "Every step repeats all gradients that came before it.",
        "mistakes": {10: "10 is with zero_grad.", 20: "The gradient does not double: it grows by 1 in each step.",
                     45: "The first step already moves it by 1.", 100: "Only the last step moves it by 10.",
                     1023: "The gradient does not double: it grows by 1 in each step."},
    },
    "04.5": {
        "because": "Pixels of 0 to 255 are about 80 times too large, and so are the logits' differences: check 1 "
                   "finds that before you look. A second softmax leaves no loss below 1.46. Memorizing works with "
                   "wrong labels, and without ReLU.",
        "mistakes": {"softmax": {"loss": "Ten equal probabilities still cost ln 10."},
                     "labels": {"overfit": "32 wrong labels are as easy to memorize as right ones."},
                     "pixels": {"input": "Check 2 finds the pixels, too; check 1 comes first."}},
        "choices": ("loss", "input", "overfit", "none"),
    },
}
# fmt: on


def predict(label, guess, answer, details=()):
    """frame.predict with what this lesson says to it; after a guess also the lines of details."""
    frame.predict(label, guess, answer, **PREDICTIONS[label])
    if details and not holds_ellipsis(guess):
        print(*details, sep="\n")


# 04.3: a module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 14 * 14, 10)

    def forward(self, x):
        return self.fc(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))


class NetNoReLU(Net):
    def forward(self, x):
        return self.fc(F.max_pool2d(self.conv(x), 2).flatten(1))


class NetMeans(Net):
    def forward(self, x):
        return self.fc(F.avg_pool2d(F.relu(self.conv(x)), 2).flatten(1))


class NetSoftmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)


class NetReLUAtTheEnd(Net):
    def forward(self, x):
        return F.relu(super().forward(x))


class NetNoPadding(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8 * 13 * 13, 10)


def images(rng):
    return {"x": torch.from_numpy(rng.normal(size=(int(rng.integers(1, 4)), 1, 28, 28)).astype(np.float32))}


def logits(answer, x):
    """The parameters of an answer's network, counted, and its logits with weights that are the same for everybody."""
    net = same_weights(answer())
    return sum(p.numel() for p in net.parameters()), net(x)


check_net = Check(
    Net,
    images,
    call=logits,
    names=("number of parameters", "result"),
    mistakes={
        "The ReLU is missing.": NetNoReLU,
        "Max pooling keeps the largest number of each square, not the mean.": NetMeans,
        "Return the logits: F.cross_entropy applies the softmax itself.": NetSoftmax,
        "No ReLU after the last layer: a logit may be negative.": NetReLUAtTheEnd,
        "With padding=1 the convolution keeps 28 x 28.": NetNoPadding,
    },
    correct="Of its 15,770 parameters 80 are in the convolution; the rest is one linear layer.",
)


# 04.4: one step of training


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
    recorded = isinstance(losses[-1], torch.Tensor) and losses[-1].requires_grad
    return net.weight, net.bias, "a tensor with its record" if recorded else losses[-1]


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


def moved_first(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def nothing_returned(net, x, y, optimizer):
    step(net, x, y, optimizer)


def tensor_returned(net, x, y, optimizer):
    step(net, x, y, optimizer)
    return F.cross_entropy(net(x), y)


def hits_returned(net, x, y, optimizer):
    hits = net(x).argmax(1) == y
    step(net, x, y, optimizer)
    return hits.float().mean().item()


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
        "step comes after backward: it uses the gradients of this batch, not of the last one.": moved_first,
        "The weights are right; the loss is not returned.": nothing_returned,
        "The weights are right; return `loss.item()`, a plain number, not the tensor.": tensor_returned,
        "That is the accuracy; return the loss.": hits_returned,
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
        "This is a percentage; return a share, from 0 to 1.": lambda net, b: 100 * accuracy(net, b),
        "`//` rounds down to a whole number: use `/`.": lambda net, b: (
            hits_only(net, b) // sum(len(y) for _, y in b)
        ),
        "You stop after the first batch: `return` comes after the loop.": lambda net, b: accuracy(net, b[:1]),
        "Add up the images of all batches: len(y) is that of the last one.": lambda net, b: (
            hits_only(net, b) / len(b[-1][1])
        ),
        "The last batch is left out; its images count, too.": lambda net, b: accuracy(net, b[:-1]),
    },
    correct="`evaluate` and `fit` count in the same way: 5,000 images in batches of 128 leave a batch of 8.",
)
