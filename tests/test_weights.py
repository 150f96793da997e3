"""The shipped networks: each gets as many test images right as its file says."""

import json
import os

import pytest

from course_utils import ledger
from course_utils.data import make_loaders
from course_utils.training import evaluate

FILES = sorted(ledger.folder("weights").glob("*.safetensors"))
HERE = (
    "mnist",
    "fashion",
    *(["cifar100"] if os.environ.get("COURSE_DATA") else []),
)  # sets that need no download


def right(name):
    """Test images that a shipped network gets right here, and by its file."""
    net = ledger.load_weights(name)
    sizes = json.loads(net.facts["recipe"])["sizes"]
    test = make_loaders(net.facts["dataset"], sizes=sizes).test
    assert test.arrays.complete
    return evaluate(net, test)["correct"], int(net.facts["test_correct"])


def test_a_file_is_too_large_or_lacks_a_fact():
    assert sum(file.stat().st_size for file in FILES) <= 30e6
    for file in FILES:
        facts = ledger.load_weights(file.stem).facts
        assert file.stat().st_size <= 5e6
        assert {"dataset", "recipe", "test_correct", "seed", "commit", "digest", "network"} <= set(facts)
        assert file.stem == f"{facts['model']}-{facts['dataset']}"


@pytest.mark.parametrize("name", [file.stem for file in FILES if file.stem.split("-")[1] in HERE])
def test_a_shipped_network_is_not_as_good_as_its_file_says(name):
    here, there = right(name)
    assert abs(here - there) <= 2
