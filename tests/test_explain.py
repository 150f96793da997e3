"""The layer table, the counts and the feature maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import explain
from course_utils.models import MODELS


class Shared(nn.Module):
    """One linear layer, used twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(self.linear(x))


# (network, shape of an image, parameters and multiply-adds counted by hand)
COUNTS = {
    "a convolution with stride, padding and groups": (
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False)), (4, 9, 9),
        8 * 2 * 9, 8 * 2 * 9 * 5 * 5,
    ),
    "batch norm counts parameters and no multiply-adds": (
        nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5)), (1, 3, 3),
        (12 + 3) + 6 + (60 + 5), 12 * 4 + 60,
    ),
    "a layer that is used twice": (Shared(), (6,), 42, 2 * 36),
    "a network that is one layer": (nn.Linear(7, 3), (7,), 24, 21),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTS)
def test_parameters_or_multiply_adds_differ_from_a_hand_count(case):
    model, shape, parameters, macs = COUNTS[case]
    assert (explain.parameters(model), explain.macs(model, shape)) == (parameters, macs)
    total = explain.layer_table(model, shape).splitlines()[-1].split()
    assert total == ["total", f"{parameters:,}", f"{macs:,}"]


def test_the_layer_table_has_other_rows_than_the_network_has_layers():
    net = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(96, 10)))
    rows = explain.layers(net, (1, 8, 8))
    assert [tuple(row) for row in rows] == [
        ("0", "Conv2d", (6, 4, 4), 156, 150 * 16),
        ("1", "ReLU", (6, 4, 4), 0, 0),
        ("2.0", "Flatten", (96,), 0, 0),
        ("2.1", "Linear", (10,), 970, 960),
    ]


def test_a_long_name_moves_the_columns_of_the_table():
    net = nn.Sequential()
    net.add_module("a_name_of_more_than_twenty_letters", nn.AdaptiveAvgPool2d(1))
    net.add_module("linear", nn.Sequential(nn.Flatten(), nn.Linear(2, 3)))
    ends = {len(line) for line in explain.layer_table(net, (2, 4, 4)).splitlines()}
    assert len(ends) == 1


def test_looking_changes_the_network():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    explain.layers(net, (1, 5, 5))
    with pytest.raises(RuntimeError):
        explain.layers(net, (3, 5, 5))
    assert net.training and not any(layer._forward_hooks for layer in net.modules())
    explain.feature_maps(net, torch.randn(2, 1, 5, 5), "0")
    with pytest.raises(RuntimeError):
        explain.feature_maps(net, torch.randn(2, 3, 5, 5), "0")
    assert net.training and not any(layer._forward_hooks for layer in net.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_feature_maps_are_not_what_the_layer_gives():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3)), torch.randn(4, 1, 8, 8)
    hidden = F.conv2d(x, net[0].weight, net[0].bias)
    torch.testing.assert_close(explain.feature_maps(net, x, "0"), hidden.detach())
    expected = F.conv2d(hidden.relu(), net[2].weight, net[2].bias).detach()
    torch.testing.assert_close(explain.feature_maps(net, x, "2"), expected)
    with pytest.raises(ValueError, match="no layer 'conv9'; expected one of 0, 1, 2"):
        explain.feature_maps(net, x, "conv9")
    overwritten = nn.Sequential(net[0], nn.ReLU(inplace=True))
    torch.testing.assert_close(explain.feature_maps(overwritten, x, "0"), hidden.detach())


def test_a_layer_that_only_training_runs_ends_in_an_index_error_or_another_mode():
    net = MODELS["googlenet"](heads=True, width=1 / 8).train()
    net.stem.eval()  # frozen, as for fine-tuning
    modes = [module.training for module in net.modules()]
    with pytest.raises(
        ValueError, match="layer 'heads.4a' does not run in evaluation. .*layer_table"
    ) as error:
        explain.feature_maps(net, torch.randn(2, 3, 32, 32), "heads.4a")
    assert "\n" not in str(error.value)
    explain.layers(net, (3, 32, 32))
    assert [module.training for module in net.modules()] == modes and len(set(modes)) == 2
