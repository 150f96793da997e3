"""The networks: counted by hand from the papers' tables, computed again with torch's functions, compared with torchvision."""

import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from course_utils import explain
from course_utils.models import MODELS, label, network_defaults
from course_utils.models import alexnet as alexnet_module
from course_utils.models.alexnet import alexnet, small_alexnet
from course_utils.models.googlenet import Inception, googlenet, small_googlenet, with_heads
from course_utils.models.lenet import LeNet5
from course_utils.models.resnet import BasicBlock, Bottleneck, resnet, small_resnet
from course_utils.models.vgg import small_vgg, vgg
from course_utils.recipes import sgd
from course_utils.training import fit

NARROW = {
    "alexnet": {"width": 1 / 8, "hidden": 64},
    "vgg": {"width": 1 / 8},
    "googlenet": {"width": 1 / 16},
    "resnet": {"depth": 8, "width": 1 / 2},
}
PAPERS = {
    "alexnet": (alexnet, 227),
    "vgg": (vgg, 224),
    "googlenet": (googlenet, 224),
    "resnet": (resnet, 224),
}


# Counts by hand: a convolution of side k from i to o channels, a linear layer, a batch norm.


def conv(i, o, k, groups=1, bias=True):
    return i // groups * k * k * o + (o if bias else 0)


def linear(i, o):
    return i * o + o


def norm(channels):
    return 2 * channels


def count_alexnet(widths, groups):
    c1, c2, c3, c4, c5 = widths
    convolutions = conv(3, c1, 11) + conv(c1, c2, 5, groups) + conv(c2, c3, 3)
    convolutions += conv(c3, c4, 3, groups) + conv(c4, c5, 3, groups)
    return convolutions + linear(c5 * 6 * 6, 4096) + linear(4096, 4096) + linear(4096, 1000)


def count_vgg(per_stage, batch_norm=False):
    total, i = linear(512 * 7 * 7, 4096) + linear(4096, 4096) + linear(4096, 1000), 3
    for count, o in zip(per_stage, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            total += conv(i, o, 3) + (norm(o) if batch_norm else 0)
            i = o
    return total


MODULES = (  # Szegedy et al. 2014, table 1: input; 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection
    (192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128),
)  # fmt: skip


def count_googlenet(heads, torchvisions=False):
    """torchvision's form: batch norm for biases, 3x3 where the paper has 5x5."""
    extra = (lambda o: norm(o)) if torchvisions else (lambda o: o)
    layers = [(3, 64, 7), (64, 64, 1), (64, 192, 3)]
    for i, c1, r3, c3, r5, c5, cp in MODULES:
        layers += [(i, c1, 1), (i, r3, 1), (r3, c3, 3), (i, r5, 1), (r5, c5, 3 if torchvisions else 5)]
        layers += [(i, cp, 1)]
    if heads:
        layers += [(512, 128, 1), (528, 128, 1)]
    total = sum(conv(i, o, k, bias=False) + extra(o) for i, o, k in layers) + linear(1024, 1000)
    return total + (2 * (linear(4 * 4 * 128, 1024) + linear(1024, 1000)) if heads else 0)


def plain(i, o, k):
    return conv(i, o, k, bias=False) + norm(o)


def count_resnet(per_stage, bottleneck):
    total, i = plain(3, 64, 7), 64
    for stage, (count, c) in enumerate(zip(per_stage, (64, 128, 256, 512), strict=True)):
        o = 4 * c if bottleneck else c
        for block in range(count):
            total += (
                plain(i, c, 1) + plain(c, c, 3) + plain(c, o, 1)
                if bottleneck
                else plain(i, c, 3) + plain(c, c, 3)
            )
            if block == 0 and (stage > 0 or i != o):
                total += plain(i, o, 1)
            i = o
    return total + linear(i, 1000)


def count_small_resnet(depth, classes, shortcut="A"):
    n = (depth - 2) // 6
    total = plain(3, 16, 3) + 2 * n * plain(16, 16, 3) + linear(64, classes)
    for i, o in ((16, 32), (32, 64)):
        total += plain(i, o, 3) + (2 * n - 1) * plain(o, o, 3) + (plain(i, o, 1) if shortcut == "B" else 0)
    return total


def count_googlenet_for_experiments(stem_224=False, reduce=True, average=True):
    """Width 1, 100 classes, biases and no batch norm."""
    layers = [(3, 64, 7), (64, 64, 1), (64, 192, 3)] if stem_224 else [(3, 192, 3)]
    for i, c1, r3, c3, r5, c5, cp in MODULES:
        layers += [(i, c1, 1), (i, cp, 1)]
        layers += [(i, r3, 1), (r3, c3, 3), (i, r5, 1), (r5, c5, 5)] if reduce else [(i, c3, 3), (i, c5, 5)]
    return sum(conv(*layer) for layer in layers) + linear(1024 * (1 if average else 16), 100)


def plain_googlenet(**changes):
    return lambda: small_googlenet(width=1, batch_norm=False, **changes)


REDUCED = [(r5, c5) for _, _, _, _, r5, c5, _ in MODULES]
COUNTS = {  # the syllabus's number; by hand; the network
    "AlexNet": (60_965_224, count_alexnet((96, 256, 384, 384, 256), 2), alexnet),
    "AlexNet, torchvision": (
        61_100_840, count_alexnet((64, 192, 384, 256, 256), 1), torchvision.models.alexnet),
    "VGG-11": (132_863_336, count_vgg((1, 1, 2, 2, 2)), lambda: vgg("A")),
    "VGG-13": (133_047_848, count_vgg((2, 2, 2, 2, 2)), lambda: vgg("B")),
    "VGG-16": (138_357_544, count_vgg((2, 2, 3, 3, 3)), vgg),
    "VGG-19": (143_667_240, count_vgg((2, 2, 4, 4, 4)), lambda: vgg("E")),
    "VGG-11-BN": (132_868_840, count_vgg((1, 1, 2, 2, 2), True), lambda: vgg("A", batch_norm=True)),
    "VGG-16-BN": (138_365_992, count_vgg((2, 2, 3, 3, 3), True), lambda: vgg("D", batch_norm=True)),
    "GoogLeNet": (6_998_552, count_googlenet(False), lambda: googlenet(heads=False)),
    "GoogLeNet, heads": (13_378_280, count_googlenet(True), googlenet),
    "GoogLeNet, torchvision": (
        6_624_904, count_googlenet(False, True),
        lambda: torchvision.models.googlenet(aux_logits=False, init_weights=False)),
    "GoogLeNet, torchvision, heads": (
        13_004_888, count_googlenet(True, True), lambda: torchvision.models.googlenet(init_weights=False)),
    "GoogLeNet, two 3x3": (
        6_690_456, 6_998_552 - sum(25 * r * c - 9 * r * (r + c) - r for r, c in REDUCED),  # r biases more
        lambda: googlenet(heads=False, two_3x3=True)),
    "GoogLeNet, small, stem for 224 pixels": (
        6_076_052, count_googlenet_for_experiments(stem_224=True), plain_googlenet(stem_224=True)),
    "GoogLeNet, small, no reductions": (
        24_264_404, count_googlenet_for_experiments(reduce=False), plain_googlenet(reduce=False)),
    "GoogLeNet, small, linear layer over the last map": (
        7_493_012, count_googlenet_for_experiments(average=False), plain_googlenet(average=False)),
    "VGG-13, one 5x5 for each pair": (
        10_911_972, sum(conv(i, o, 5) for i, o in itertools.pairwise((3, 64, 128, 256, 512, 512))) + linear(512, 100),
        lambda: small_vgg("B5", width=1, batch_norm=False)),
    "ResNet-20, stem for 224 pixels": (
        271_642, 269_722 - plain(3, 16, 3) + plain(3, 16, 7), lambda: small_resnet(num_classes=10, stem_224=True)),
    "ResNet-18": (11_689_512, count_resnet((2, 2, 2, 2), False), resnet),
    "ResNet-34": (21_797_672, count_resnet((3, 4, 6, 3), False), lambda: resnet(34)),
    "ResNet-50": (25_557_032, count_resnet((3, 4, 6, 3), True), lambda: resnet(50)),
    **{
        f"ResNet-{depth}, {classes} classes, shortcut {kind}": (
            number, count_small_resnet(depth, classes, kind),
            lambda depth=depth, classes=classes, kind=kind: small_resnet(depth, classes, shortcut=kind))
        for classes, kind, numbers in (
            (10, "A", (269_722, 464_154, 853_018)), (100, "A", (275_572, 470_004, 858_868)),
            (100, "B", (278_324, 472_756, 861_620)))
        for depth, number in zip((20, 32, 56), numbers, strict=True)
    },
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTS)
def test_a_network_has_other_parameters_than_its_paper(case):
    number, by_hand, build = COUNTS[case]
    with torch.device("meta"):
        assert (explain.parameters(build()), by_hand) == (number, number)


WEIGHTS = (6 * 1 * 25, 16 * 6 * 25, 400 * 120, 120 * 84, 84 * 10)
OUTPUTS = (28 * 28, 10 * 10, 1, 1, 1)  # places at which each layer's weights are used


def test_lenet_has_other_layers_than_the_paper():
    assert sum(WEIGHTS) + (6 + 16 + 120 + 84 + 10) == 61_706
    assert explain.parameters(LeNet5()) == 61_706
    assert sum(w * n for w, n in zip(WEIGHTS, OUTPUTS, strict=True)) == 416_520
    assert explain.macs(LeNet5(), (1, 28, 28)) == 416_520


def test_lenet_without_padding_does_not_take_32_pixels():
    net, x = LeNet5(padding=0), torch.randn(2, 1, 32, 32)
    same = LeNet5()
    same.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(F.pad(x[:, :, 2:-2, 2:-2], (2,) * 4)), same(x[:, :, 2:-2, 2:-2]))
    assert net(x).shape == (2, 10) and explain.parameters(net) == 61_706


def weights(i, o, k):
    return conv(i, o, k, bias=False)


def macs_vgg():
    """VGG-11 at width 3/8 on 32 x 32: sides 32, 16, 8, 8, 4, 4, 2, 2."""
    widths, sides = (3, 24, 48, 96, 96, 192, 192, 192, 192), (32, 16, 8, 8, 4, 4, 2, 2)
    pairs = itertools.pairwise(widths)
    return sum(weights(*pair, 3) * side**2 for pair, side in zip(pairs, sides, strict=True)) + 192 * 100


def macs_googlenet():
    """Width 1/4, at least 8 channels a branch, on 32 x 32: the stem's pool leaves 16, those after 3b and 4e 8 and 4."""
    total, i = weights(3, 48, 3) * 32**2, 48
    for row, side in zip(MODULES, (16, 16, 8, 8, 8, 8, 8, 4, 4), strict=True):
        c1, r3, c3, r5, c5, cp = (max(8, c // 4) for c in row[1:])
        total += side**2 * (weights(i, c1 + r3 + r5 + cp, 1) + weights(r3, c3, 3) + weights(r5, c5, 5))
        i = c1 + c3 + c5 + cp
    return total + i * 100


MACS = {
    "AlexNet, paper": (
        alexnet, 227,
        55**2 * weights(3, 96, 11) + 27**2 * weights(96, 256, 5) // 2 + 13**2 * weights(256, 384, 3)
        + 13**2 * (weights(384, 384, 3) + weights(384, 256, 3)) // 2 + 9216 * 4096 + 4096**2 + 4096 * 1000),
    "AlexNet, small": (
        small_alexnet, 32,
        32**2 * weights(3, 48, 5) + 16**2 * weights(48, 128, 5)
        + 8**2 * (weights(128, 192, 3) + weights(192, 192, 3) + weights(192, 128, 3))
        + 9 * 128 * 512 + 512**2 + 512 * 100),
    "VGG": (small_vgg, 32, macs_vgg()),
    "GoogLeNet": (small_googlenet, 32, macs_googlenet()),
    "ResNet-20": (
        small_resnet, 32,
        32**2 * (weights(3, 16, 3) + 6 * weights(16, 16, 3))
        + 16**2 * (weights(16, 32, 3) + 5 * weights(32, 32, 3))
        + 8**2 * (weights(32, 64, 3) + 5 * weights(64, 64, 3)) + 64 * 100),
}  # fmt: skip


@pytest.mark.parametrize("case", MACS)
def test_the_multiply_adds_differ_from_a_hand_count(case):
    build, size, by_hand = MACS[case]
    with torch.device("meta"):
        net = build()
    assert explain.macs(net, (3, size, size)) == by_hand


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_network_gives_other_shapes_than_logits(name):
    build, size = PAPERS[name]
    for classes, channels in ((1000, 3), (10, 1)):
        with torch.device("meta"):
            net = build(num_classes=classes, in_channels=channels)
            outputs = net(torch.empty(2, channels, size, size))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            assert [tuple(z.shape) for z in outputs] == [(2, classes)] * (3 if name == "googlenet" else 1)
            assert tuple(net.eval()(torch.empty(2, channels, size, size)).shape) == (2, classes)


@pytest.mark.parametrize("name", PAPERS)
def test_a_parameter_of_the_papers_network_gets_no_finite_gradient(name):
    torch.manual_seed(0)
    build, size = PAPERS[name]
    net = build("A") if name == "vgg" else build()
    outputs = net(torch.randn(2, 3, size, size))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(F.cross_entropy(z, torch.tensor([3, 5])) for z in outputs).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_lenet_computes_something_else_than_its_layers():
    torch.manual_seed(0)
    net, x = LeNet5(), torch.randn(3, 1, 28, 28)
    p = net.state_dict()
    z = F.max_pool2d(F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=2).clamp(min=0), 2)
    z = F.max_pool2d(F.conv2d(z, p["conv2.weight"], p["conv2.bias"]).clamp(min=0), 2).reshape(3, 400)
    for name in ("fc1", "fc2"):
        z = (z @ p[f"{name}.weight"].T + p[f"{name}.bias"]).clamp(min=0)
    torch.testing.assert_close(net(x), z @ p["fc3.weight"].T + p["fc3.bias"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes, channels", [(10, 1), (7, 3)])
def test_a_default_network_has_wrong_shapes_or_starts_far_from_chance(name, classes, channels):
    torch.manual_seed(0)
    size = 28 if name == "lenet" else 32
    net = MODELS[name](num_classes=classes, in_channels=channels).eval()
    logits = net(torch.randn(64, channels, size, size))
    assert logits.shape == (64, classes)
    loss = F.cross_entropy(logits, torch.arange(64) % classes).item()
    assert loss == pytest.approx(math.log(classes), rel=0.15)


def small(name, **arguments):
    torch.manual_seed(0)
    return MODELS[name](**NARROW[name] | arguments)


@pytest.mark.parametrize("size", [20, 24, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NARROW)
def test_a_small_network_fails_at_a_size(name, channels, size):
    net, other = small(name, in_channels=channels), MODELS[name](in_channels=channels, **NARROW[name])
    x, y = torch.randn(64, channels, size, size), torch.arange(64) % 100
    logits = net(x)
    assert logits.shape == (64, 100)
    loss = F.cross_entropy(logits, y)
    assert loss.item() == pytest.approx(math.log(100), rel=0.25)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(x), net.eval()(x))


@pytest.mark.parametrize("name", NARROW)
def test_a_family_cannot_learn_32_images_by_heart(name):
    net = small(name, **({"dropout": 0.0} if name in ("alexnet", "vgg") else {}))
    x, y = torch.randn(32, 3, 20, 20), torch.arange(32)
    optimizer, losses = sgd(net, 0.05, 0.0), []
    while len(losses) < 200 and min(losses, default=1) > 0.05:
        loss = F.cross_entropy(net.train()(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05


@pytest.mark.parametrize("name", NARROW)
def test_torch_can_neither_compile_nor_export_a_family(name):
    net, x = small(name).eval(), torch.randn(2, 3, 24, 24)
    expected = net(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)


@pytest.mark.parametrize("ours, torchvisions, size", [
    (lambda: vgg("A"), torchvision.models.vgg11, 224),
    (lambda: vgg("A", batch_norm=True), torchvision.models.vgg11_bn, 96),
    (resnet, torchvision.models.resnet18, 96),
    (lambda: resnet(50), torchvision.models.resnet50, 96),
], ids=["vgg11", "vgg11_bn", "resnet18", "resnet50"])  # fmt: skip
def test_torchvisions_weights_do_not_load_or_give_other_logits(ours, torchvisions, size):
    torch.manual_seed(0)
    theirs = torchvisions()
    for name, buffer in theirs.named_buffers():  # statistics as after training
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    net = ours()
    net.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits = net.eval()(x)
        torch.testing.assert_close(logits, theirs.eval()(x), rtol=1e-5, atol=1e-5)
        assert (logits[0] - logits[1]).abs().max() > 0.01  # they depend on the picture


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d)]


def test_alexnet_differs_from_torchvisions_in_more_than_is_known():
    with torch.device("meta"):
        ours, theirs = alexnet(), torchvision.models.alexnet()
    assert [m.out_channels for m in convolutions(ours)] == [96, 256, 384, 384, 256]
    assert [m.out_channels for m in convolutions(theirs)] == [64, 192, 384, 256, 256]
    assert [m.groups for m in convolutions(ours)] == [1, 2, 1, 2, 2]
    assert [m.groups for m in convolutions(theirs)] == [1] * 5
    assert convolutions(ours)[0].padding == (0, 0) and convolutions(theirs)[0].padding == (
        2,
        2,
    )  # 227 and 224
    kernels = [[(m.kernel_size, m.stride) for m in convolutions(net)] for net in (ours, theirs)]
    assert kernels[0] == kernels[1]
    norms = [sum(isinstance(m, nn.LocalResponseNorm) for m in net.modules()) for net in (ours, theirs)]
    assert norms == [2, 0]
    assert theirs.avgpool.output_size == (6, 6)  # 6 x 6 anyway at 224 pixels
    order = [name for name, _ in ours.named_children() if name[-1] in "678"]
    assert order == [
        "fc6",
        "relu6",
        "drop6",
        "fc7",
        "relu7",
        "drop7",
        "fc8",
    ]  # the paper drops outputs of units
    assert isinstance(theirs.classifier[0], nn.Dropout) and isinstance(
        theirs.classifier[3], nn.Dropout
    )  # inputs
    for kind in (nn.MaxPool2d, nn.Dropout, nn.Linear):
        a, b = ([repr(m) for m in net.modules() if isinstance(m, kind)] for net in (ours, theirs))
        assert [text.split(", dilation")[0] for text in a] == [text.split(", dilation")[0] for text in b]


def test_googlenet_differs_from_torchvisions_in_more_than_is_known():
    with torch.device("meta"):
        ours, theirs = googlenet(), torchvision.models.googlenet(init_weights=False)
    module = (ours.inception["3a"], theirs.inception3a)
    assert [m.kernel_size[0] for m in convolutions(module[0])] == [1, 3, 5, 1]  # the first three 1x1 as one
    assert [m.kernel_size[0] for m in convolutions(module[1])] == [1, 1, 3, 1, 3, 1]  # its "5x5" is one 3x3
    assert all(m.bias is not None for m in convolutions(ours))
    assert all(m.bias is None for m in convolutions(theirs))  # batch norm in their place
    norms = [sum(isinstance(m, nn.LocalResponseNorm) for m in net.modules()) for net in (ours, theirs)]
    assert norms == [2, 0]
    for name, module in ours.inception.items():
        theirs_too = theirs.get_submodule(f"inception{name}")
        one, reduced3, three, reduced5, five, pooled = [m.out_channels for m in convolutions(theirs_too)]
        assert module.widths == (one, reduced3, reduced5)
        assert [m.out_channels for m in convolutions(module)][1:] == [three, five, pooled]
    stem = [theirs.conv1, theirs.conv2, theirs.conv3]
    assert [m.out_channels for m in convolutions(ours.stem)] == [block.conv.out_channels for block in stem]
    assert theirs.dropout.p == 0.2 and ours.classifier[2].p == 0.4  # the paper: 40 %
    assert theirs.aux1.dropout.p == ours.heads["4a"][5].p == 0.7
    side_by_side = theirs.inception3a.branch4[0], ours.inception["3a"].branch_pool[0]
    assert [pool.ceil_mode for pool in side_by_side] == [True, False]  # no effect at stride 1
    pools = [(m.kernel_size, m.stride) for m in (ours.pool3, theirs.maxpool3, ours.pool4, theirs.maxpool4)]
    assert pools == [(3, 2), (3, 2), (3, 2), (2, 2)]
    assert {m.eps for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}
    x = torch.randn(1, 1, 14, 14)  # the heads' windows start at 0, 3, 6, 9; theirs at 0, 3, 7, 10
    assert not torch.equal(ours.heads["4a"][0](x), F.adaptive_avg_pool2d(x, (4, 4)))


def test_the_response_norm_is_not_the_papers():
    torch.manual_seed(0)
    norm1, a = alexnet_module.alexnet().norm1, 30 * torch.rand(2, 8, 3, 3)
    squares = F.pad(a**2, (0, 0, 0, 0, 2, 2))
    total = sum(squares[:, i : i + 8] for i in range(5))
    torch.testing.assert_close(norm1(a), a / (2 + 1e-4 * total) ** 0.75)


def test_the_small_alexnet_ignores_an_argument():
    x = torch.randn(2, 3, 32, 32)
    kinds = {type(m) for m in small("alexnet").modules()}
    assert nn.BatchNorm2d in kinds and nn.LocalResponseNorm not in kinds and nn.ReLU in kinds
    net = small("alexnet", batch_norm=False, lrn=True, overlapping=False, dropout=0.5, activation="Tanh")
    kinds = {type(m) for m in net.modules()}
    assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds and nn.Tanh in kinds
    assert [type(net.get_submodule(f"conv{i}")[-1]) for i in range(1, 6)] == [nn.LocalResponseNorm] * 2 + [
        nn.Tanh
    ] * 3
    assert all(m.bias is not None for m in convolutions(net)) and net.pool1.kernel_size == 2
    assert net.drop6.p == net.drop7.p == 0.5 and net(x).shape == (2, 100)


def test_an_activation_is_no_class_in_the_lesson_or_no_name_in_a_recipe():
    by_class = small_alexnet(10, 1, width=1 / 8, activation=nn.Tanh)
    assert repr(by_class) == repr(MODELS["alexnet"](10, 1, width=1 / 8, activation="Tanh"))
    assert network_defaults("alexnet")["activation"] == "ReLU"
    assert json.loads(json.dumps(network_defaults("alexnet"))) == network_defaults("alexnet")


@pytest.mark.parametrize("side, kernel, stride", [(5, 3, 1), (6, 2, 2), (7, 3, 2), (8, 4, 2), (14, 6, 4)])
def test_the_last_pool_misses_a_pixel_or_differs_between_windows(side, kernel, stride):
    pool, x = alexnet_module.PoolTo3(), torch.randn(1, 1, side, side)
    windows = x.unfold(2, kernel, stride).unfold(3, kernel, stride)
    assert torch.equal(pool(x), windows.amax((4, 5))) and windows.shape[2:4] == (3, 3)
    for place in range(side * side):
        one = torch.zeros(1, 1, side, side)
        one.view(-1)[place] = 1
        assert pool(one).any()


@pytest.mark.parametrize("two_3x3", [False, True])
def test_an_inception_module_is_not_four_branches_side_by_side(two_3x3):
    torch.manual_seed(0)
    module, x = Inception(5, 2, 3, 4, 6, 7, 8, False, two_3x3), torch.randn(2, 5, 9, 9)
    p = module.state_dict()

    def apply(name, z):
        weight = p[f"{name}.0.weight"]
        return F.conv2d(z, weight, p[f"{name}.0.bias"], padding=weight.shape[-1] // 2).relu()

    ones = apply("ones", x)
    one, reduced3, reduced5 = ones[:, :2], ones[:, 2:5], ones[:, 5:]
    wide = apply("branch5.1", apply("branch5.0", reduced5)) if two_3x3 else apply("branch5", reduced5)
    pooled = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 1)
    parts = [one, apply("branch3", reduced3), wide, apply("branch_pool.1", pooled)]
    torch.testing.assert_close(module(x), torch.cat(parts, 1))
    assert [m.kernel_size[0] for m in convolutions(module.branch5)] == ([3, 3] if two_3x3 else [5])
    direct = Inception(5, 2, 3, 4, 6, 7, 8, False, False, reduce=False)
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convolutions(direct)] == [
        (5, 2, 1), (5, 4, 3), (5, 7, 5), (5, 8, 1)]  # fmt: skip
    assert direct(x).shape == module(x).shape


def test_the_heads_are_in_evaluation_or_their_loss_is_not_weighted_by_three_tenths():
    net, x, y = small("googlenet", heads=True), torch.randn(8, 3, 20, 20), torch.arange(8)
    assert net.eval()(x).shape == (8, 100)
    a, b, c = net.train()(x)
    assert a.shape == b.shape == c.shape == (8, 100)
    expected = F.cross_entropy(a, y) + 0.3 * (F.cross_entropy(b, y) + F.cross_entropy(c, y))
    torch.testing.assert_close(with_heads(nn.CrossEntropyLoss())((a, b, c), y), expected)


def test_fit_does_not_train_the_heads():
    net = small("googlenet", heads=True)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    batches = [(torch.randn(16, 3, 20, 20), torch.arange(16)) for _ in range(2)]
    fitting = {"optimizer": sgd(net, 0.05, 0.0), "criterion": with_heads(nn.CrossEntropyLoss())}
    history = fit(net, batches, epochs=1, val=batches, **fitting)
    assert history["complete"] and math.isfinite(history["loss"][0])
    assert all(
        not torch.equal(before[name], p.cpu()) for name, p in net.named_parameters() if "weight" in name
    )


@pytest.mark.parametrize("block, out", [(BasicBlock, 8), (Bottleneck, 32)])
@pytest.mark.parametrize("kind", ["A", "B", False])
def test_a_block_adds_something_else_than_its_shortcut(block, out, kind):
    torch.manual_seed(0)
    made, x = block(4, 8, 2, kind).eval(), torch.randn(2, 4, 7, 7)
    last = made.bn2 if block is BasicBlock else made.bn3
    nn.init.zeros_(last.weight)  # the residual branch adds nothing
    zeros = torch.zeros(2, out, 4, 4)
    if kind == "A":
        expected = torch.cat([x[:, :, ::2, ::2], zeros[:, : out - 4]], 1)
        assert sum(p.numel() for p in made.downsample.parameters()) == 0
    elif kind == "B":
        expected = F.conv2d(x, made.downsample[0].weight, stride=2) / math.sqrt(1 + 1e-5)
    else:
        expected = zeros
    torch.testing.assert_close(made(x), expected.relu())
    same = block(out, out // block.expansion, 1, kind).eval()  # no change of shape: the identity
    nn.init.zeros_((same.bn2 if block is BasicBlock else same.bn3).weight)
    z = torch.randn(2, out, 5, 5)
    torch.testing.assert_close(same(z), z.relu() if kind else torch.zeros_like(z))


def test_a_plain_network_has_a_shortcut_or_other_weights_than_the_residual_one():
    residual, without = small_resnet(20), small_resnet(20, shortcut=False)
    assert {n: p.shape for n, p in residual.named_parameters()} == {
        n: p.shape for n, p in without.named_parameters()
    }
    assert all(m.downsample is None for m in without.modules() if isinstance(m, BasicBlock))


@pytest.mark.parametrize("call, said", [
    (lambda: resnet(20), "depth is 20; expected one of 18, 34, 50"),
    (lambda: small_resnet(18), "depth is 18; expected 6n"),
    (lambda: small_resnet(20, shortcut="C"), "shortcut is 'C'; expected 'A'"),
    (lambda: vgg("C"), "layers is 'C'; expected one of A, B, D, E, B5"),
])  # fmt: skip
def test_a_network_that_does_not_exist_is_built(call, said):
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        call()


@pytest.mark.parametrize("name, network, expected", [
    ("lenet", {}, "LeNet-5"),
    ("alexnet", {"width": 3 / 8}, "AlexNet + BN, width 3/8, hidden layers of 512"),
    ("alexnet", {"width": 1, "batch_norm": False, "lrn": True}, "AlexNet + LRN, hidden layers of 512"),
    ("vgg", {"layers": "D", "head": (64,)}, "VGG-16 + BN, width 3/8, head 64"),
    ("vgg", {"head": []}, "VGG-11 + BN, width 3/8, one linear layer"),
    ("vgg", {}, "VGG-11 + BN, width 3/8, one linear layer"),
    ("googlenet", {"heads": True}, "GoogLeNet + BN, width 1/4, auxiliary heads"),
    ("googlenet", {"two_3x3": True}, "GoogLeNet + BN, width 1/4, two 3x3 for 5x5"),
    ("alexnet", {"batch_norm": False, "activation": "Tanh", "overlapping": False, "dropout": 0.5},
     "AlexNet, width 1/2, hidden layers of 512, Tanh, separate pools, dropout 0.5"),
    ("resnet", {}, "ResNet-20"),
    ("resnet", {"depth": 56, "shortcut": "B", "width": 2}, "ResNet-56, width 2, projections"),
    ("resnet", {"shortcut": False}, "plain-20"),
    ("resnet", {"stem_224": True}, "ResNet-20, stem for 224 pixels"),
    ("vgg", {"layers": "B5", "batch_norm": False}, "VGG-13, width 3/8, one linear layer, 5x5 for each pair"),
    ("googlenet", {"reduce": False, "average": False},
     "GoogLeNet + BN, width 1/4, no 1x1 reductions, linear layer over the last map"),
])  # fmt: skip
def test_a_table_calls_a_network_by_another_name(name, network, expected):
    assert label(name, network) == expected
