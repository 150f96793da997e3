"""The training loop, evaluation, and what `fit` does around them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import checkpoints, settings, training
from course_utils.training import evaluate, fit, train_epoch

LINES = {"train_epoch": (train_epoch, 25), "evaluate": (evaluate, 25), "fit": (fit, 45)}


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CI", "1")
    for module in (settings, checkpoints, training):
        monkeypatch.setattr(module, "device", lambda: torch.device("cpu"))


class TwoHeads(nn.Module):
    """Logits and, in training, a second head's."""

    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        self.main, self.side = nn.Linear(144, classes), nn.Linear(144, classes)

    def forward(self, x):
        x = self.body(x)
        return (self.main(x), self.side(x)) if self.training else self.main(x)


def network(classes=10, kind=nn.Sequential):
    torch.manual_seed(1)
    if kind is TwoHeads:
        return TwoHeads(classes)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Dropout(0.5 * (kind is nn.Dropout)),
        nn.Flatten(),
        nn.Linear(144, classes),
    )


def batches(count=6, classes=10, size=16):
    draw = torch.Generator().manual_seed(0)
    sizes = [size] * (count - 1) + [size // 2]  # a last batch that is smaller
    return [
        (torch.randn(n, 1, 8, 8, generator=draw), torch.randint(classes, (n,), generator=draw)) for n in sizes
    ]


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)


def halving(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def summed(outputs, y):
    return F.cross_entropy(outputs[0], y) + 0.3 * F.cross_entropy(outputs[1], y)


@pytest.mark.parametrize("kind, criterion", [(nn.Sequential, nn.CrossEntropyLoss()), (TwoHeads, summed)])
def test_train_epoch_is_not_the_plain_loop(kind, criterion):
    data = batches()
    expected, model = network(kind=kind).train(), network(kind=kind)
    momentum, loss_sum, correct, lr = {}, 0.0, 0, 0.1
    for x, y in data:
        output = expected(x)
        loss = criterion(output, y)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(expected.parameters(), gradients, strict=True)):
                g = g + 1e-3 * p
                momentum[i] = 0.9 * momentum[i] + g if i in momentum else g
                p -= lr * momentum[i]
        lr *= 0.5
        loss_sum += loss.item() * len(y)
        correct += ((output[0] if kind is TwoHeads else output).argmax(1) == y).sum().item()
    optimizer = sgd(model)
    loss, top1, seen = train_epoch(model, data, criterion, optimizer, halving(optimizer))
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    assert (loss, top1, seen) == (pytest.approx(loss_sum / 88, rel=1e-5), correct / 88, 88)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("classes", [10, 3])
def test_evaluate_differs_from_scikit_learn(classes, flip):
    data, model = batches(9, classes), network(classes, nn.Dropout).train()
    result = evaluate(model, data, flip=flip)
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    with torch.no_grad():
        p = model.eval()(x).double().softmax(1)
        if flip:
            p = (p + model(x.flip(-1)).double().softmax(1)) / 2
    p, labels = p.numpy(), range(classes)
    assert result["top1"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert result["correct"] == accuracy_score(y, p.argmax(1), normalize=False)
    assert result["loss"] == pytest.approx(log_loss(y, p, labels=labels), rel=1e-5)
    top5 = top_k_accuracy_score(y, p, k=5, labels=labels) if classes > 5 else 1.0
    assert result["top5"] == pytest.approx(top5)
    assert result["total"] == len(y) and result["confusion"].dtype == torch.int64
    np.testing.assert_array_equal(result["confusion"], confusion_matrix(y, p.argmax(1), labels=labels))


def test_evaluate_computes_in_bfloat16_within_an_outer_autocast():
    data, model = batches(), network()
    expected = evaluate(model, data)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(data[0][0]).dtype == torch.bfloat16
        assert evaluate(model, data)["loss"] == expected


@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_fit_ignores_the_precision_in_training_or_keeps_it_in_evaluation(precision, dtype):
    model, seen = network(), set()
    model[4].register_forward_hook(lambda layer, inputs, output: seen.add((layer.training, output.dtype)))
    fit(model, batches(2), epochs=1, optimizer=sgd(model), val=batches(2), precision=precision)
    assert seen == {(True, dtype), (False, torch.float32)}


def test_a_torch_dataloader_trains_otherwise_than_a_list_of_pairs():
    x, y = (torch.cat(part) for part in zip(*batches(), strict=True))
    losses = []
    for loader in (DataLoader(TensorDataset(x, y), 16), batches()):
        model = network()
        history = fit(model, loader, epochs=2, optimizer=sgd(model), val=loader, precision="float32")
        losses.append((history["loss"], history["val_loss"]))
    assert losses[0] == losses[1]


class Noting(list):
    """Batches, or a sampler, that note the epochs they are told."""

    def __init__(self, items=(), sampler=None):
        super().__init__(items)
        self.epochs, self.sampler = [], sampler

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def test_set_epoch_misses_a_loader_or_a_sampler():
    train, val = (Noting(batches(2), Noting()) for _ in range(2))
    sampled = DataLoader([(torch.zeros(1, 8, 8), 0)] * 4, sampler=(sampler := Noting(range(4))))
    model = network()
    fit(model, train, epochs=3, optimizer=sgd(model), val=val)
    fit(model, sampled, epochs=2, optimizer=sgd(model))
    told = [thing.epochs for thing in (train, train.sampler, val, val.sampler)]
    assert told == [[0, 1, 2]] * 4 and sampler.epochs == [0, 1]


def test_the_history_lacks_a_key_or_holds_another_value():
    data, val, model = batches(), batches(3), network()
    model_again = network()
    optimizer, again = sgd(model), sgd(model_again)
    history = fit(model, data, epochs=2, optimizer=optimizer, scheduler=halving(optimizer), val=val,
                  precision="float32")  # fmt: skip
    schedule = halving(again)
    expected = [train_epoch(model_again, data, nn.CrossEntropyLoss(), again, schedule)[:2] for _ in range(2)]
    keys = "epoch lr loss top1 val_loss val_top1 images_per_second seconds complete"
    assert sorted(history) == sorted(keys.split()) and history["complete"] is True
    assert history["epoch"] == [1, 2] and history["lr"] == pytest.approx([0.1, 0.1 * 0.5**6])
    assert history["loss"] == pytest.approx([e[0] for e in expected], rel=1e-5)
    assert history["top1"] == [e[1] for e in expected]
    x, y = (torch.cat(part) for part in zip(*val, strict=True))
    assert history["val_loss"][-1] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
    assert history["val_top1"][-1] == accuracy_score(y, model(x).argmax(1))
    assert all(
        88 / s < speed for s, speed in zip(history["seconds"], history["images_per_second"], strict=True)
    )
    assert fit(model, data, epochs=1, optimizer=sgd(model))["val_top1"] == [None]


def test_an_epoch_is_more_than_a_line_or_writes_to_stderr_under_ci(capfd, monkeypatch):
    model = network()
    history = fit(model, batches(), epochs=3, optimizer=sgd(model), val=batches(2))
    out, err = capfd.readouterr()
    assert err == "" and [line.split()[:2] for line in out.splitlines()] == [
        ["epoch", f"{i}/3"] for i in (1, 2, 3)
    ]
    last = out.splitlines()[-1]
    for shown in (f"lr {0.1:.4f}", f"loss {history['loss'][2]:.4f}", f"{history['top1'][2]:.2%}",
                  f"{history['val_top1'][2]:.2%}", "images/s"):  # fmt: skip
        assert shown in last
    monkeypatch.delenv("CI")
    fit(model, batches(), epochs=1, optimizer=sgd(model))
    assert "epoch 1/1" in capfd.readouterr().err  # the bar


class Spoilt(Noting):
    """Batches of which one holds infinite pixels in the second epoch."""

    def __iter__(self):
        for i, (x, y) in enumerate(list.__iter__(self)):
            yield (x / 0 if self.spoilt and self.epochs[-1:] == [1] and i == 2 else x), y


def test_a_loss_that_is_not_finite_goes_unnoticed_or_spoils_the_checkpoint(tmp_path, capsys):
    def run(spoilt):
        data, model = Spoilt(batches()), network()
        data.spoilt = spoilt
        return fit(model, data, epochs=2, optimizer=sgd(model, 0.125), checkpoint=tmp_path / "a.pt")

    with pytest.raises(ValueError, match=r"nan at step 9, lr 0.125.*learning rate is too large") as error:
        run(True)
    assert "\n" not in str(error.value)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert all(t.isfinite().all() for t in saved["model"].values()) and saved["history"]["epoch"] == [1]
    assert run(False)["complete"] and "1 of 2 epochs are done" in capsys.readouterr().out


def test_images_that_are_not_finite_are_blamed_on_the_learning_rate():
    model = network()
    with pytest.raises(ValueError, match="step 1, .*images"):
        fit(
            model,
            [(torch.full((4, 1, 8, 8), math.nan), torch.zeros(4, dtype=int))],
            epochs=1,
            optimizer=sgd(model),
        )


@pytest.mark.parametrize("scale, warns", [(0.985, True), (0.975, False)])
def test_the_warning_at_chance_has_another_threshold_or_window(scale, warns, capsys):
    # A network of constant logits (a, 0, ..., 0) and labels 0 has the loss -ln softmax_0, here scale * ln 10.
    share = math.exp(-scale * math.log(10))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()[0] = math.log(9 * share / (1 - share))
    good = (torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=int))
    odd = (good[0], torch.arange(8, 10))  # another loss: must not count, as it is outside steps 150 to 200
    data = [odd] * 149 + [good] * 51 + [odd] * 10

    def run(data, strict=False):
        frozen = torch.optim.SGD(model.parameters(), lr=0.0)
        fit(
            model,
            data,
            epochs=1,
            optimizer=frozen,
            criterion=lambda z, y: 7 * F.cross_entropy(z, y),
            strict=strict,
        )
        return capsys.readouterr().out

    out = run(data)
    assert ("not learning" in out) == warns and len(out.splitlines()) == 1 + warns
    assert "not learning" not in run(data[:199])
    if warns:
        with pytest.raises(ValueError, match="not learning"):
            run(data, strict=True)


def test_a_network_that_learns_is_warned_about(capsys):
    model = network()
    fit(model, batches(1) * 210, epochs=1, optimizer=sgd(model, 0.05), strict=True)
    assert "not learning" not in capsys.readouterr().out


@pytest.mark.parametrize("part", ["loader", "val"])
def test_an_empty_loader_ends_in_a_traceback_of_torch(part):
    model = network()
    given = {"loader": batches(2), "val": batches(2)} | {part: (b for b in batches(0)[:0])}
    with pytest.raises(ValueError, match="no batch"):
        fit(model, epochs=1, optimizer=sgd(model), **given)


@pytest.mark.parametrize("name", LINES)
def test_a_taught_function_has_outgrown_its_cell(name):
    function, limit = LINES[name]
    function = getattr(function, "__wrapped__", function)
    code = function.__code__
    assert max(line for *_, line in code.co_lines() if line) - code.co_firstlineno < limit
