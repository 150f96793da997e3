"""The checks of lesson 04: what a learner reads for right and for wrong answers."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_utils.exercises.lesson_04 import PREDICTIONS, check_accuracy, check_net, check_step, predict


def verdicts(check, answer, capsys, times=8):
    """What a check prints, called so many times: its cases are random."""
    capsys.readouterr()
    said = []
    for _ in range(times):
        check(answer)
        said.append(" ".join(capsys.readouterr().out.splitlines()))
    return said


def clear_last(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    net.zero_grad()
    return loss.detach()  # a tensor with one number and no record


def clear_first(model, images, labels, opt):
    opt.zero_grad(set_to_none=False)
    loss = torch.nn.CrossEntropyLoss()(model(images), labels)
    loss.backward()
    opt.step()
    return float(loss)


def by_logarithms(net, x, y, optimizer):
    loss = -net(x).log_softmax(1)[range(len(y)), y].mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach().numpy()


@pytest.mark.parametrize("answer", [clear_last, clear_first, by_logarithms])
def test_a_right_step_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_step, answer, capsys))


def never_cleared(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def cleared_too_late(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def step_before_backward(net, x, y, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    optimizer.step()
    loss.backward()
    return loss.item()


def no_step(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def probabilities(net, x, y, optimizer):
    p = F.softmax(net(x), dim=1)
    loss = F.cross_entropy(p, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def no_return(net, x, y, optimizer):
    optimizer.zero_grad()
    F.cross_entropy(net(x), y).backward()
    optimizer.step()


def the_tensor(net, x, y, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    return loss


def stepped_first(net, x, y, optimizer):
    loss = F.cross_entropy(net(x), y)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def share_of_hits(net, x, y, optimizer):
    scores = net(x)
    optimizer.zero_grad()
    F.cross_entropy(scores, y).backward()
    optimizer.step()
    return (scores.argmax(1) == y).sum().item() / len(y)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (never_cleared, "The gradients of the previous step are still there: clear them."),
        (cleared_too_late, "The weights do not move: call backward after zero_grad and before step."),
        (step_before_backward, "The weights do not move: call backward after zero_grad and before step."),
        (no_step, "The weights do not move: call backward after zero_grad and before step."),
        (probabilities, "F.cross_entropy applies the softmax itself: give it the logits."),
        (no_return, "The weights are right; the loss is not returned."),
        (the_tensor, "The weights are right; return `loss.item()`, a plain number, not the tensor."),
        (
            stepped_first,
            "step comes after backward: it uses the gradients of this batch, not of the last one.",
        ),
        (share_of_hits, "That is the accuracy; return the loss."),
    ],
)
def test_a_wrong_step_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_step, answer, capsys):
        assert text.startswith("Not yet: for ") and text.endswith(sentence), text


def blank(net, x, y, optimizer): ...


def test_an_unwritten_step_is_called_wrong(capsys):
    assert verdicts(check_step, blank, capsys, 1) == ["Not attempted yet."]


def one_tensor(net, batches):
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return (net(x).argmax(1) == y).float().mean().item()


def counting(net, batches):
    right = total = 0
    for x, y in batches:
        for image, label in zip(x, y, strict=True):
            right += int(net(image[None])[0].argmax() == label)
            total += 1
    return right / total


def weighted(net, batches):
    shares = [((net(x).max(1).indices == y).float().mean() * len(y), len(y)) for x, y in batches]
    return sum(s for s, _ in shares) / sum(n for _, n in shares)  # a tensor with one number


@pytest.mark.parametrize("answer", [one_tensor, counting, weighted])
def test_a_right_accuracy_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_accuracy, answer, capsys))


def planted(net, batches):  # the lesson's cell
    shares = []
    with torch.no_grad():
        for x, y in batches:
            hits = net(x).argmax(1) == y
            shares.append(hits.float().mean().item())
    return sum(shares) / len(shares)


def by_batches(net, batches):
    right = 0
    for x, y in batches:
        right += (net(x).argmax(1) == y).sum()
    return right.item() / len(batches)


def as_if_full(net, batches):
    right = sum(int((net(x).argmax(1) == y).sum()) for x, y in batches)
    return right / (len(batches[0][0]) * len(batches))


def only_counted(net, batches):
    return sum(int((net(x).argmax(1) == y).sum()) for x, y in batches)


def in_percent(net, batches):
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return (net(x).argmax(1) == y).float().mean().item() * 100


def floor_division(net, batches):
    return only_counted(net, batches) // sum(len(y) for _, y in batches)


def return_in_the_loop(net, batches):
    right = total = 0
    for x, y in batches:
        right += (net(x).argmax(1) == y).sum().item()
        total += len(y)
        return right / total


def length_of_the_last(net, batches):
    right = 0
    for x, y in batches:
        right += (net(x).argmax(1) == y).sum().item()
    return right / len(y)


def without_the_last(net, batches):
    return one_tensor(net, batches[:-1])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (in_percent, "This is a percentage; return a share, from 0 to 1."),
        (floor_division, "`//` rounds down to a whole number: use `/`."),
        (return_in_the_loop, "You stop after the first batch: `return` comes after the loop."),
        (length_of_the_last, "Add up the images of all batches: len(y) is that of the last one."),
        (without_the_last, "The last batch is left out; its images count, too."),
        (planted, "The bug is still there."),
        (by_batches, "Divide by the number of images, not of batches."),
        (as_if_full, "The last batch is smaller than the first."),
        (only_counted, "This is the count of right answers, not their share."),
    ],
)
def test_a_wrong_accuracy_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_accuracy, answer, capsys):
        assert text.startswith("Not yet: for batch_sizes=[") and text.endswith(sentence), text


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(1568, 10)
        self.filters = nn.Conv2d(1, 8, kernel_size=(3, 3), padding="same")

    def forward(self, images):
        maps = F.max_pool2d(self.filters(images), kernel_size=2).clamp(min=0)
        return self.out(maps.reshape(len(images), -1))


class InARow(nn.Module):
    def __init__(self):
        super().__init__()
        self.all = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 14 * 14, 10),
        )

    def forward(self, x):
        return self.all(x)


def a_function():
    return InARow().all


@pytest.mark.parametrize("answer", [Functional, InARow, a_function])
def test_a_right_network_in_another_style_is_refused(answer, capsys):
    assert all(text.startswith("Correct. ") for text in verdicts(check_net, answer, capsys))


class Straight(InARow):
    def forward(self, x):
        return self.all[4](self.all[3](self.all[2](self.all[0](x))))


class Averages(InARow):
    def forward(self, x):
        return self.all[4](F.avg_pool2d(F.relu(self.all[0](x)), 2).flatten(1))


class Probabilities(InARow):
    def forward(self, x):
        return F.softmax(self.all(x), dim=-1)


class ReLUs(InARow):
    def forward(self, x):
        return F.relu(self.all(x))


class Narrow(InARow):
    def __init__(self):
        super().__init__()
        self.all[0] = nn.Conv2d(1, 8, 3)
        self.all[4] = nn.Linear(1352, 10)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Straight, "The ReLU is missing."),
        (Averages, "Max pooling keeps the largest number of each square, not the mean."),
        (Probabilities, "Return the logits: F.cross_entropy applies the softmax itself."),
        (ReLUs, "No ReLU after the last layer: a logit may be negative."),
        (Narrow, "With padding=1 the convolution keeps 28 x 28."),
    ],
)
def test_a_wrong_network_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_net, answer, capsys):
        assert text.startswith("Not yet: for x of shape (") and text.endswith(sentence), text


class Unwritten(nn.Module):
    def __init__(self):
        super().__init__()
        ...

    def forward(self, x): ...


def test_an_unwritten_network_is_called_wrong(capsys):
    assert verdicts(check_net, Unwritten, capsys, 1) == ["Not attempted yet: `forward` is still `...`."]


ANSWERS = {
    "04.1": (2.326, 0.0),
    "04.2": {"conv1": (6, 28, 28), "conv2": (16, 10, 10), "conv1 parameters": 456, "numbers at fc1": 256},
    "04.4": 55,
    "04.5": {"softmax": "overfit", "labels": "input", "pixels": "loss", "no relu": "none"},
}


def told(label, guess, capsys, details=()):
    capsys.readouterr()
    predict(label, guess, ANSWERS[label], details)
    return " ".join(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("guess", [
    (torch.tensor(10.0).log(), 0), (np.float32(2.3), -2.3e-10), (np.log(10), torch.tensor(-2.3e-10)), [2.3, 1e-9],
])  # fmt: skip
def test_a_right_guess_as_tensor_numpy_scalar_or_with_a_rounding_error_is_refused(guess, capsys):
    assert "You are right." in told("04.1", guess, capsys)


def test_a_guess_that_forgot_something_is_not_told_what(capsys):
    assert told("04.1", (1, 0), capsys).endswith("1 of 2 are right. Ten equal classes cost ln 10 = 2.303 nats; the "
        "weights are small, not zero, hence the rest. The rows of p and of t both sum to 1. "
        "1 would be log to the base 10.")  # fmt: skip
    assert told("04.1", (3.3219, 1), capsys).count("bits, not nats. The row of p sums to 1") == 1
    wrong = ANSWERS["04.2"] | {"conv1": (6, 14, 14), "conv1 parameters": 450}
    assert told("04.2", wrong, capsys).endswith(
        "(6, 14, 14) is after the pooling. The six biases are missing."
    )
    assert told("04.4", 45, capsys).endswith("The first step already moves it by 1.")
    text = told("04.5", ANSWERS["04.5"] | {"pixels": "input"}, capsys)
    assert "3 of 4 are right." in text and text.endswith("check 1 comes first.")


def test_the_four_programs_losses_are_shown_before_a_guess(capsys):
    blank = dict.fromkeys(ANSWERS["04.5"], ...)
    assert "Not attempted yet" in (text := told("04.5", blank, capsys, ["pixels 7.6"])) and "7.6" not in text
    assert told("04.5", ANSWERS["04.5"], capsys, ["softmax 2.3", "pixels 7.6"]).endswith(
        "softmax 2.3 pixels 7.6"
    )


@pytest.mark.parametrize("label", ANSWERS)
def test_a_right_guess_is_told_a_mistake(label, capsys):
    parts = PREDICTIONS[label]["mistakes"].values()
    sentences = [t for part in parts for t in (part.values() if isinstance(part, dict) else [part])]
    text = told(label, ANSWERS[label], capsys)
    assert "You are right." in text and not [sentence for sentence in sentences if sentence in text]
