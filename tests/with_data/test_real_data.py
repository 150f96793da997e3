import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from sklearn.preprocessing import StandardScaler
from torchvision import datasets

from course_utils.data import sources, validation_split
from course_utils.data.arrays import load_arrays, mean_and_std
from course_utils.data.published import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    CIFAR100_COARSE,
    CIFAR100_COARSE_CLASSES,
)

ROOT = Path(os.environ["COURSE_DATA"])
PARQUET = {
    "mnist": "hub/ylecun/mnist/mnist",
    "fashion": "hub/zalando-datasets/fashion_mnist/fashion_mnist",
    "cifar100": "hub/uoft-cs/cifar100/cifar100",
    "cifar10": "hub/uoft-cs/cifar10/plain_text",
}
DIGESTS = {
    ("mnist", "train"): "54e1ab866c9484947dd4821c52bb7a43938f555d6b046be6af55247f8e6ffc64",
    ("mnist", "test"): "97b756d55950f1841ebd48df7379b9b2fc87a10d63e08d6213dad41d564e8508",
    ("fashion", "train"): "fb88a2f5c1b590c907f860b47803d006e4fa7b276cdb551799af9d443accdff7",
    ("fashion", "test"): "0b381379398a0943a88bf3864ff3f5177903dcf178030b4b74c495294b38fa7c",
    ("cifar100", "train"): "eb2821554fda8c7f4668a001ee774fc1a64e3583c2729a86c673281a0c1943b1",
    ("cifar100", "test"): "ed2f54d86be17f2d8cf60b6023ddd15bfdc63dc3aaf9ac4aae466fb982227a9c",
    ("cifar10", "train"): "fc36ff26702a9efdf08d3de274034c378032d3423bf7dd6c1022bebe6a7b810a",
    ("cifar10", "test"): "11be7cf3ed0bf1df2a473c0d4d3db6eafcac4518b49a5b4224077d754106b38d",
}


def table(name, split):
    return ROOT / PARQUET[name] / f"{split}-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def cifar100():
    return load_arrays("cifar100", "train")


@pytest.mark.parametrize(("name", "split"), DIGESTS)
def test_hubs_parquet_decoded_to_other_content(name, split):
    images, labels, _ = sources.read_parquet(name, table(name, split))
    assert sources.content_digest(images, labels) == DIGESTS[name, split]


@pytest.mark.parametrize(("name", "split"), [("cifar100", "test"), ("cifar10", "train"), ("cifar10", "test")])
def test_cifar_differs_when_loaded_again(name, split):
    first, second = load_arrays(name, split), load_arrays(name, split)
    assert first.digest == DIGESTS[name, split] and first.name == name and second.source == "cache"
    assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
    assert np.bincount(first.labels).tolist() == [len(first) // len(first.classes)] * len(first.classes)


def test_cifar100_not_in_torchvisions_order(cifar100):
    theirs = datasets.CIFAR100(ROOT)
    assert np.array_equal(cifar100.images.transpose(0, 2, 3, 1), theirs.data)
    assert cifar100.labels.tolist() == theirs.targets
    assert cifar100.classes == CIFAR100_CLASSES == tuple(theirs.classes)
    assert sources.content_digest(cifar100.images, cifar100.labels) == DIGESTS["cifar100", "train"]


def test_coarse_labels_or_class_names_differ_from_the_published_ones():
    columns = pyarrow.parquet.read_table(table("cifar100", "train"), columns=["fine_label", "coarse_label"])
    pairs = set(zip(*(columns[c].to_pylist() for c in ("fine_label", "coarse_label")), strict=True))
    assert pairs == set(enumerate(CIFAR100_COARSE))
    meta = np.load(ROOT / "cifar-100-python" / "meta", allow_pickle=True, encoding="latin1")
    assert tuple(meta["coarse_label_names"]) == CIFAR100_COARSE_CLASSES
    assert tuple("airplane automobile bird cat deer dog frog horse ship truck".split()) == CIFAR10_CLASSES


def test_mean_and_std_of_cifar_differ_from_scikit_learns_and_the_published(cifar100):
    mean, std = mean_and_std(cifar100)
    assert [round(value, 6) for value in mean] == [0.507075, 0.486549, 0.440918]
    assert [round(value, 6) for value in std] == [0.267334, 0.256438, 0.276150]
    mean, std = mean_and_std(load_arrays("cifar10", "train"))
    assert [round(value, 4) for value in mean] == [0.4914, 0.4822, 0.4465]
    assert [round(value, 4) for value in std] == [0.2470, 0.2435, 0.2616]
    red = StandardScaler().fit(load_arrays("cifar10", "train").images[:, :1].reshape(-1, 1) / 255)
    assert abs(red.mean_[0] - mean[0]) < 1e-6 and abs(red.scale_[0] - std[0]) < 1e-6


def test_validation_split_of_cifar100_depends_on_the_container(cifar100):
    rest, validation = validation_split(cifar100)
    assert (len(rest), len(validation)) == (45_000, 5_000)
    assert np.bincount(validation.labels).tolist() == [50] * 100
    images, labels, _ = sources.read_parquet("cifar100", table("cifar100", "train"))
    order = np.random.default_rng(0).permutation(50_000)
    other = type(cifar100)(images[order], labels[order], cifar100.classes, complete=True, published=True)
    assert sources.content_digest(
        *[getattr(validation_split(other)[1], f) for f in ("images", "labels")]
    ) == (sources.content_digest(validation.images, validation.labels))
