"""The networks."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_utils import explain
from course_utils.models import MODELS
from course_utils.models.lenet import LeNet5

WEIGHTS = (6 * 1 * 25, 16 * 6 * 25, 400 * 120, 120 * 84, 84 * 10)
OUTPUTS = (28 * 28, 10 * 10, 1, 1, 1)  # places at which each layer's weights are used


def test_lenet_has_other_layers_than_the_paper():
    assert sum(WEIGHTS) + (6 + 16 + 120 + 84 + 10) == 61_706
    assert explain.parameters(LeNet5()) == 61_706
    assert sum(w * n for w, n in zip(WEIGHTS, OUTPUTS, strict=True)) == 416_520
    assert explain.macs(LeNet5(), (1, 28, 28)) == 416_520


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
def test_a_network_has_wrong_shapes_or_starts_far_from_chance(name, classes, channels):
    torch.manual_seed(0)
    size = 28 if name == "lenet" else 32
    net = MODELS[name](num_classes=classes, in_channels=channels).eval()
    logits = net(torch.randn(64, channels, size, size))
    assert logits.shape == (64, classes)
    loss = F.cross_entropy(logits, torch.arange(64) % classes).item()
    assert loss == pytest.approx(math.log(classes), rel=0.15)
