"""The training loop, evaluation, and what `fit` does around them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import checkpoints, recipes, settings, training
from course_utils.training import evaluate, fit, train_epoch

LINES = {"train_epoch": (train_epoch, 30), "evaluate": (evaluate, 30), "fit": (fit, 45)}


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
    for shown in (f"lr {0.1:.4f}", f"loss {history['loss'][2]:.4f}", f"{100 * history['top1'][2]:.2f} %",
                  f"{100 * history['val_top1'][2]:.2f} %", "images/s"):  # fmt: skip
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

    with pytest.raises(
        ValueError, match=r"Step 9 got an image that is not finite: number 0 of its 16"
    ) as error:
        run(True)
    assert "\n" not in str(error.value)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert all(t.isfinite().all() for t in saved["model"].values()) and saved["history"]["epoch"] == [1]
    assert run(False)["complete"] and "1 of 2 epochs are done" in capsys.readouterr().out


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


@pytest.mark.parametrize("step", [1, 49, 50, 51, 61, 70])
@pytest.mark.parametrize("pixel", [math.nan, -math.inf])
def test_an_image_that_is_not_finite_is_blamed_on_the_learning_rate_or_another_step(step, pixel):
    data, model = [(x.clone(), y) for x, y in batches(2, size=12)[:1] * 70], network()
    data[step - 1][0][7, 0, 3, 3] = pixel
    with pytest.raises(ValueError, match=f"Step {step} got an image .* number 7 of its 12") as error:
        fit(model, data, epochs=1, optimizer=sgd(model, 0.001))
    assert "lr" not in one_line(error)


@pytest.mark.parametrize(
    "step, cause", [(1, "initialization"), (49, "too large"), (50, "too large"), (66, "too large")]
)
def test_a_loss_that_is_not_finite_is_named_with_another_step_or_learning_rate(step, cause):
    calls = []

    def criterion(z, y):
        calls.append(1)
        return F.cross_entropy(z, y) * (math.inf if len(calls) == step else 1)

    model = network()
    optimizer = sgd(model, 1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 + step)
    with pytest.raises(ValueError, match=f"inf at step {step}, lr {1e-3 * step:.3g}.*{cause}") as error:
        fit(model, batches(1) * 70, epochs=1, optimizer=optimizer, scheduler=schedule, criterion=criterion)
    assert one_line(error)


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


NO_PAIRS = {
    "no batch": (lambda x, y: [], "no batch"),
    "a generator read twice": (lambda x, y: (b for b in [(x, y)]), "no batch.*pass a list"),
    "dicts": (lambda x, y: [{"image": x, "label": y}], "gave a dict.*pairs of tensors"),
    "images alone": (lambda x, y: [x], "gave a Tensor.*pairs of tensors"),
    "three things": (lambda x, y: [(x, y, y)], "gave a tuple of 3.*pairs of tensors"),
    "arrays": (lambda x, y: [(x.numpy(), y.numpy())], "gave a tuple.*pairs of tensors"),
    "float labels": (lambda x, y: [(x, y.float())], "labels of a batch are torch.float32"),
    "labels in a column": (lambda x, y: [(x, y[:, None])], r"shape \(16, 1\); expected .* shape \(16,\)"),
    "one-hot labels": (lambda x, y: [(x, F.one_hot(y, 10))], r"shape \(16, 10\); expected"),
    "bytes as images": (lambda x, y: [(x.byte(), y)], "images are torch.uint8.*/ 255"),
    "float64 images": (lambda x, y: [(x.double(), y)], "images are torch.float64.*x.to"),
    "labels beyond the outputs": (
        lambda x, y: [(x, y + 1)],
        "10 outputs .* labels go up to 10.*at least 11 classes",
    ),
    "labels below 0": (lambda x, y: [(x, y - 10)], "a label is -10; expected 0 to 9"),
    "complex labels": (lambda x, y: [(x, y.to(torch.complex64))], "labels of a batch are torch.complex64"),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", ["loader", "val"])
@pytest.mark.parametrize("case", NO_PAIRS)
def test_a_loader_of_something_else_ends_in_a_traceback_of_torch(case, part, precision):
    x, y = batches(2)[0]
    y[0] = 9
    make, message = NO_PAIRS[case]
    model, given = network(), {"loader": [(x, y)], "val": [(x, y)]} | {part: make(x, y)}
    with pytest.raises(ValueError, match=message) as error:
        fit(model, epochs=2, optimizer=sgd(model), precision=precision, **given)
    assert one_line(error)


def test_int32_labels_train_to_other_weights_or_scores():
    found = []
    for dtype in (torch.int64, torch.int32, torch.uint8):
        model, data = network(), [(x, y.to(dtype)) for x, y in batches()]
        history = fit(model, data, epochs=1, optimizer=sgd(model), val=data, precision="float32")
        found.append((history["loss"], history["val_loss"], evaluate(model, data)["confusion"].tolist()))
    assert found[0] == found[1] == found[2]


class Returns(nn.Module):
    """A network that makes something else of its logits."""

    def __init__(self, make):
        super().__init__()
        self.body, self.make = network(), make

    def forward(self, x):
        return self.make(self.body(x))


OUTPUTS = {
    "a list": (lambda z: [z, z], "a list; expected logits"),
    "a dict": (lambda z: {"logits": z}, "a dict; expected logits"),
    "nothing": (lambda z: None, "a NoneType; expected logits"),
    "a map": (
        lambda z: z[:, :, None, None],
        r"shape \(16, 10, 1, 1\); expected logits of shape \(16, classes\)",
    ),
    "half as many": (
        lambda z: z.reshape(8, 20),
        r"shape \(8, 20\); expected logits of shape \(16, classes\)",
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_that_is_no_logits_ends_in_a_traceback(case):
    make, message = OUTPUTS[case]
    model = Returns(make)
    for call in (
        lambda: fit(model, batches(2), epochs=1, optimizer=sgd(model)),
        lambda: evaluate(model, batches(2)),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert one_line(error)


def test_a_tuple_in_evaluation_ends_in_a_traceback():
    with pytest.raises(ValueError, match="a tuple; expected logits.*in evaluation no tuple") as error:
        evaluate(Returns(lambda z: (z, z)), batches(2))
    assert one_line(error)


def test_three_outputs_for_five_classes_end_in_a_traceback():
    model, data = network(3), batches(4, 5)
    for call in (lambda: fit(model, data, epochs=1, optimizer=sgd(model)), lambda: evaluate(model, data)):
        with pytest.raises(
            ValueError, match="3 outputs and the labels go up to 4, so .*at least 5 classes"
        ) as error:
            call()
        assert one_line(error)


@pytest.mark.parametrize("images, size", [(65, 64), (129, 64), (129, 128)])
def test_a_last_batch_of_one_image_ends_in_a_traceback_of_batch_norm(images, size):
    data = TensorDataset(torch.randn(images, 1, 8, 8), torch.arange(images) % 3)

    def run(**how):
        model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
        return fit(
            model, DataLoader(data, size, **how), epochs=1, optimizer=sgd(model), val=DataLoader(data, size)
        )

    with pytest.raises(ValueError, match="a single image.*drop_last=True") as error:
        run()
    assert one_line(error) and run(drop_last=True)["complete"]


def test_an_error_of_the_network_itself_is_explained_away():
    def broken(z):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        evaluate(Returns(broken), batches(2))


class Viewing(nn.Module):
    """What most tutorials write: `view` flattens, which fails in channels_last; dropout and batch norm before it."""

    def __init__(self, flatten=lambda x: x.view(-1, 80)):
        super().__init__()
        self.conv, self.norm, self.more = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)
        self.drop, self.linear, self.flatten = nn.Dropout(0.3), nn.Linear(80, 10), flatten

    def forward(self, x):
        x = self.drop(F.relu(self.more(F.relu(self.norm(self.conv(x))))))
        return self.linear(self.flatten(x * (1 + 0.1 * np.random.rand())))


@pytest.mark.parametrize("images", [torch.contiguous_format, torch.channels_last])
def test_a_network_that_flattens_with_view_fails_or_draws_or_counts_its_first_batch_twice(images):
    data = [(torch.randn(8, 3, 8, 8).contiguous(memory_format=images), torch.arange(8)) for _ in range(3)]
    settings.seed_all(0)
    model = Viewing()
    optimizer = sgd(model)
    for _ in range(2):
        for x, y in data:
            optimizer.zero_grad()
            F.cross_entropy(model.train()(x.contiguous()), y).backward()
            optimizer.step()
        with torch.no_grad():
            scores = [model.eval()(x.contiguous()) for x, _ in data]
    expected = F.cross_entropy(torch.cat(scores), torch.cat([y for _, y in data])).item()
    draws = torch.rand(2).tolist(), np.random.rand()
    settings.seed_all(0)
    again = Viewing()
    history = fit(again, data, epochs=2, optimizer=sgd(again), val=data, precision="float32")
    assert draws == (torch.rand(2).tolist(), np.random.rand())
    assert history["val_loss"][-1] == pytest.approx(expected) and again.norm.num_batches_tracked == 6
    for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    assert evaluate(Viewing(), data, flip=True)["total"] == 24


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_that_flattens_with_view_fails_where_it_computes_in_bfloat16(channels):
    """Autocast keeps the weights that it has cast, and their memory format, for the whole step."""
    model = Viewing()
    model.conv = nn.Conv2d(channels, 4, 3)
    data = [(torch.randn(8, channels, 8, 8), torch.arange(8))] * 2
    assert fit(model, data, epochs=2, optimizer=sgd(model), val=data, precision="bfloat16")["complete"]


def test_a_network_that_can_take_it_computes_in_the_plain_format():
    seen, model = set(), Viewing(lambda x: x.flatten(1))
    model.more.register_forward_hook(
        lambda layer, inputs, out: seen.add(out.is_contiguous(memory_format=torch.channels_last))
    )
    data = [(torch.randn(8, 3, 8, 8), torch.arange(8))] * 2
    fit(model, data, epochs=1, optimizer=sgd(model), val=data, precision="float32")
    assert seen == {True}


@pytest.mark.parametrize(
    "kind, expected", [("cpu", (True, False)), ("cuda", (True, True)), ("mps", (False, False))]
)
def test_mps_gets_channels_last_or_copies_that_do_not_wait(kind, expected, monkeypatch):
    """No such device here: tensors stay where they are, and what would be asked of the device is noted."""
    copies, formats, to = [], [], torch.Tensor.to

    def noting(tensor, *args, **how):
        copies.append(bool(how.get("non_blocking")))
        return to(tensor, *(a for a in args if a != torch.device(kind)))

    model = Viewing(lambda x: x.flatten(1))
    model.more.register_forward_hook(lambda layer, inputs, out: formats.append(not inputs[0].is_contiguous()))
    data = [(torch.randn(8, 3, 8, 8), torch.arange(8))] * 2
    monkeypatch.setattr(training, "device", lambda: torch.device(kind))
    monkeypatch.setattr(training, "remembered", lambda model: None)  # asks CUDA for its random state
    monkeypatch.setattr(nn.Module, "to", lambda module, *args, **how: plain_to(module, *args, **how))

    def plain_to(module, *args, memory_format=torch.preserve_format):
        for p in module.parameters():
            if p.ndim == 4 and memory_format != torch.preserve_format:
                p.data = p.data.contiguous(memory_format=memory_format)

    monkeypatch.setattr(torch.Tensor, "to", noting)
    train_epoch(model, data, nn.CrossEntropyLoss(), sgd(model))
    assert (set(formats), set(copies)) == ({expected[0]}, {expected[1]})


def test_evaluate_leaves_a_layer_in_another_mode_or_fit_leaves_the_network_in_training(capsys):
    model = network(kind=nn.Dropout).train()
    model[2].eval()  # a layer that stays frozen
    modes = [layer.training for layer in model.modules()]
    evaluate(model, batches(2))
    assert [layer.training for layer in model.modules()] == modes
    with pytest.raises(ValueError):
        evaluate(model, [])
    assert [layer.training for layer in model.modules()] == modes

    optimizer = sgd(model)

    def state(data, **rest):
        model.train()
        fit(model, data, epochs=1, optimizer=optimizer, **rest)
        return {layer.training for layer in model.modules()}

    def stopping():
        yield batches(2)[0]
        raise KeyboardInterrupt

    assert state(batches(2)) == {False} and state(stopping()) == {False}
    assert state(batches(2), checkpoint="a.pt") == {False}
    assert state(batches(2), checkpoint="a.pt") == {False} and "Picked up" in capsys.readouterr().out


def test_evaluate_computes_with_fewer_bits_where_the_user_allows_them_or_forgets_the_users_choice():
    data, model = batches(), nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.Linear(256, 10))
    expected = evaluate(model, data)["loss"]
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    seen = []
    model[1].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    torch.set_float32_matmul_precision("medium")
    try:
        assert evaluate(model, data)["loss"] == expected and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {"ieee"}
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def ctrl_c(**rest):
    def data():
        yield from batches(3)
        raise KeyboardInterrupt

    model = network()
    history = fit(model, data(), epochs=2, optimizer=sgd(model), **rest)
    assert history["complete"] is False and history["epoch"] == []


def test_ctrl_c_without_a_checkpoint_promises_that_the_call_goes_on(capsys):
    ctrl_c()
    said = capsys.readouterr().out
    assert "after 0 of 2 epochs" in said and "no checkpoint" in said and "goes on" not in said
    ctrl_c(checkpoint="a.pt")
    assert "run the same call again" in capsys.readouterr().out


def test_an_optimizer_of_an_earlier_network_trains_nothing_and_the_learning_rate_is_blamed():
    read = []

    def data():
        read.append(1)
        yield from batches(2)

    model, earlier = network(), network()
    part = network()
    half = torch.optim.SGD(part.parameters(), lr=0.1)
    part[4] = nn.Linear(144, 10)  # a head that is replaced after the optimizer was made
    for net, optimizer in ((model, sgd(earlier)), (part, half)):
        with pytest.raises(ValueError, match="not this network's.*Make the optimizer again") as error:
            fit(net, data(), epochs=1, optimizer=optimizer)
        assert one_line(error) and not read
    head_only = torch.optim.SGD(model[4].parameters(), lr=0.1)
    assert fit(model, data(), epochs=1, optimizer=head_only)["complete"]
    criterion = nn.CrossEntropyLoss()
    criterion.scale = nn.Parameter(torch.ones(()))
    both = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    assert fit(model, data(), epochs=1, optimizer=both, criterion=criterion)["complete"]
    with pytest.raises(ValueError, match="no tensor that takes a gradient") as error:
        fit(model.requires_grad_(False), data(), epochs=1, optimizer=sgd(model))
    assert one_line(error)


S = torch.optim.lr_scheduler
MADE_FOR_OTHERS = {  # for 6 batches and 10 epochs, 60 steps
    "twice the steps": lambda o: S.OneCycleLR(o, 0.1, total_steps=120),
    "one step too few": lambda o: S.OneCycleLR(o, 0.1, total_steps=59),
    "epochs for steps": lambda o: S.OneCycleLR(o, 0.1, total_steps=10),
    "a cosine over epochs": lambda o: S.CosineAnnealingLR(o, 10),
    "a cosine of twice the steps": lambda o: S.CosineAnnealingLR(o, 120),
    "a power that ends early": lambda o: S.PolynomialLR(o, 10),
    "a milestone that is never reached": lambda o: S.MultiStepLR(o, [30, 90]),
    "a warm-up, then a cosine too long": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, total_iters=6), S.CosineAnnealingLR(o, 114)], [6]
    ),
    "one of several": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 5), S.CosineAnnealingLR(o, 120)]),
    "another optimizer": lambda o: S.ConstantLR(sgd(network())),
    "a plateau": lambda o: S.ReduceLROnPlateau(o),
}
MADE_FOR_THIS = {
    "none": lambda o: None,
    "one cycle": lambda o: S.OneCycleLR(o, 0.1, total_steps=60),
    "two steps more": lambda o: S.OneCycleLR(o, 0.1, total_steps=62),
    "a cosine": lambda o: S.CosineAnnealingLR(o, 60),
    "a cosine to the last step": lambda o: S.CosineAnnealingLR(o, 59),
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 7),
    "a wave": lambda o: S.CyclicLR(o, 0.01, 0.1, 7),
    "a constant": lambda o: S.ConstantLR(o),
    "a warm-up": lambda o: S.LinearLR(o, total_iters=5),
    "steps": lambda o: S.StepLR(o, 1000),
    "milestones": lambda o: S.MultiStepLR(o, [20, 40]),
    "a power": lambda o: S.PolynomialLR(o, 60),
    "decay": lambda o: S.ExponentialLR(o, 0.99),
    "a function": lambda o: S.LambdaLR(o, lambda step: 0.9**step),
    "a warm-up, then a cosine": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, total_iters=6), S.CosineAnnealingLR(o, 54)], [6]
    ),
    "several": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 5), S.CosineAnnealingLR(o, 60)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's own schedules about their order
@pytest.mark.parametrize("case", [*MADE_FOR_OTHERS, *MADE_FOR_THIS])
def test_a_schedule_for_other_steps_is_found_after_epochs_or_a_right_one_is_refused(case):
    model, read = network(), []

    class Counting(list):
        def __iter__(self):
            read.append(1)
            return super().__iter__()

    optimizer = sgd(model, 0.01)
    given = {
        "epochs": 10,
        "optimizer": optimizer,
        "scheduler": (MADE_FOR_OTHERS | MADE_FOR_THIS)[case](optimizer),
    }
    if case in MADE_FOR_THIS:
        assert fit(model, Counting(batches(size=2)), **given)["complete"]
    else:
        with pytest.raises(ValueError, match="schedule") as error:
            fit(model, Counting(batches(size=2)), **given)
        assert one_line(error) and not read


def test_a_schedule_of_a_loader_without_a_length_or_of_a_second_call_is_refused():
    model = network()
    optimizer = sgd(model, 0.01)
    schedule = S.OneCycleLR(optimizer, 0.1, total_steps=6)
    assert fit(model, (b for b in batches()), epochs=1, optimizer=optimizer, scheduler=schedule)["complete"]
    with pytest.raises(ValueError, match="ends at step 6, this training at step 12"):  # it has no step left
        fit(model, batches(), epochs=1, optimizer=optimizer, scheduler=schedule)
    schedule = S.OneCycleLR(optimizer, 0.1, total_steps=12)
    for _ in range(6):
        optimizer.step(), schedule.step()
    assert fit(model, batches(), epochs=1, optimizer=optimizer, scheduler=schedule)["complete"]


@pytest.mark.parametrize("steps", range(1, 12))
def test_a_schedule_of_few_steps_divides_by_zero_or_trains_at_no_rate(steps):
    model = network()
    before = model[4].weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = recipes.triangular(optimizer, 0.1, steps)
    history = fit(
        model, batches(1), epochs=steps, optimizer=optimizer, scheduler=schedule, precision="float32"
    )
    assert history["complete"] and (model[4].weight - before).abs().max() > 1e-4


def test_a_folder_that_cannot_be_written_is_noticed_after_an_epoch(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    model, read = network(), []

    def data():
        read.append(1)
        yield from batches(2)

    with pytest.raises((OSError, checkpoints.CheckpointError)):
        fit(model, data(), epochs=1, optimizer=sgd(model), checkpoint=tmp_path / "file" / "a.pt")
    assert not read and "epoch" not in capsys.readouterr().out


def test_the_sums_of_an_epoch_or_the_flags_wait_for_the_device_at_every_step(monkeypatch):
    waits, item = [], torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: waits.append(1) or item(tensor))
    model = network()
    fit(model, batches(1) * 100, epochs=1, optimizer=sgd(model), precision="float32")
    assert len(waits) <= 2  # the epoch's two sums


@pytest.mark.parametrize("name", LINES)
def test_a_taught_function_has_outgrown_its_cell(name):
    function, limit = LINES[name]
    function = getattr(function, "__wrapped__", function)
    code = function.__code__
    assert max(line for *_, line in code.co_lines() if line) - code.co_firstlineno < limit
