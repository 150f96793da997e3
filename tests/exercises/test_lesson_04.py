"""The checks of lesson 04: what a learner reads for right and for wrong answers."""

import pytest
import torch
from torch.nn import functional as F

from course_utils.exercises.lesson_04 import check_accuracy, check_step


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
    return loss  # a tensor with one number


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


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (never_cleared, "The gradients of the step before are still there: clear them."),
        (cleared_too_late, "The weights do not move: backward comes between zero_grad and step."),
        (step_before_backward, "The weights do not move: backward comes between zero_grad and step."),
        (no_step, "The weights do not move: backward comes between zero_grad and step."),
        (probabilities, "F.cross_entropy applies the softmax itself: give it the logits."),
        (no_return, "The weights are right; the loss is not returned."),
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


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (planted, "The bug is still there."),
        (by_batches, "Divide by the number of images, not of batches."),
        (as_if_full, "The last batch is smaller than the first."),
        (only_counted, "This is the count of right answers, not their share."),
    ],
)
def test_a_wrong_accuracy_is_called_correct_or_its_mistake_not_named(answer, sentence, capsys):
    for text in verdicts(check_accuracy, answer, capsys):
        assert text.startswith("Not yet: for batch_sizes=[") and text.endswith(sentence), text
