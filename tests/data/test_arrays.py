import dataclasses
import io
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.data import arrays
from course_utils.data.arrays import Arrays, load_arrays, mean_and_std, take
from course_utils.data.published import PUBLISHED
from course_utils.data.sources import DataError

STANDIN = "tinted_fashion_100"


def no_network(*args):
    raise OSError("no network in this test")


@pytest.fixture
def no_cifar(monkeypatch):
    """CIFAR-100 lies nowhere on this machine and no source answers; the committed sets are here."""
    nowhere = {"folder": "nowhere", "hub": "no/where/here", "digests": {"train": "no", "test": "no"}}
    monkeypatch.setitem(PUBLISHED, "cifar100", PUBLISHED["cifar100"]._replace(**nowhere))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.delenv("COURSE_STANDIN", raising=False)
    monkeypatch.setattr(arrays.sources, "checkout", lambda: Path(__file__).parents[2])


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 3, 3)), np.zeros(2, np.int64), "images are float64 .2, 1, 3, 3.; expected uint8"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64), r"\(2, 3, 3\); expected uint8 \(N, C, H, W\)"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(3, np.int64), r"\(3,\); expected int64 \(2,\)"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2), r"labels are float64 \(2,\); expected int64 \(2,\)"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros((2, 1), int), r"labels are int64 \(2, 1\)"),
        (np.zeros((2, 1, 3, 3), np.uint8), ["a", "b"], "labels are <U1"),
        (np.zeros((2, 28, 28, 3), np.uint8), np.zeros(2, int), r"images\.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 40, 30, 3), np.uint8), np.zeros(2, int), r"images\.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, int), r"images\.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 3, 40, 30), np.uint8), np.zeros(2, int), "crop"),
        (np.zeros((2, 1, 0, 0), np.uint8), np.zeros(2, int), "expected uint8"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 2]), r"labels are 0\.\.2; expected 0\.\.1"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.array([-1, 0]), r"labels are -1\.\.0"),
    ],
)
def test_arrays_that_do_not_fit_accepted(images, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        Arrays(images, labels, ("a", "b"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint64, list])
def test_labels_of_another_integer_kind_refused(kind):
    labels = [1, 0, 1] if kind is list else np.array([1, 0, 1], kind)
    arrays = Arrays(np.zeros((3, 1, 4, 4), np.uint8), labels, ("a", "b"))
    assert arrays.labels.dtype == np.int64 and arrays.labels.tolist() == [1, 0, 1]


def test_two_sets_compared_pixel_by_pixel():
    one, other = (Arrays(np.zeros((3, 1, 4, 4), np.uint8), np.arange(3), tuple("abc")) for _ in range(2))
    assert one == one and one != other and len({one, other}) == 2


def test_arrays_changed_in_place_or_a_part_called_complete():
    whole = Arrays(
        np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2), np.arange(3), tuple("abc"), complete=True
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole.name = "other"
    part = take(whole, np.array([2, 0]))
    assert (len(whole), len(part), part.complete) == (3, 2, False)
    assert part.images[:, 0, 0, 0].tolist() == [8, 0] and part.labels.tolist() == [2, 0]


@pytest.mark.parametrize(("name", "split"), [("cifar", "train"), ("mnist", "validation")])
def test_unknown_name_or_split_gives_something_else(name, split):
    with pytest.raises(ValueError, match="expected") as error:
        load_arrays(name, split)
    assert "\n" not in str(error.value)


def test_smoke_opens_a_socket_or_hides_the_standin(monkeypatch, no_cifar, capsys):
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("looked up a host"))
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("opened a socket"))
    found = load_arrays("cifar100", "test")
    assert (found.name, len(found), len(found.classes)) == (STANDIN, 10_000, 100)
    assert STANDIN in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["cpu", "full"])
def test_missing_cifar_trains_on_the_standin_unasked(monkeypatch, no_cifar, capsys, profile):
    monkeypatch.setenv("COURSE_PROFILE", profile)
    monkeypatch.setenv("COURSE_STANDIN", "0")
    with pytest.raises(DataError, match="COURSE_STANDIN=1") as error:
        load_arrays("cifar100", "test")
    assert "\n" not in str(error.value)
    monkeypatch.setenv("COURSE_STANDIN", "1")
    capsys.readouterr()
    assert load_arrays("cifar100", "test").name == STANDIN
    assert STANDIN in capsys.readouterr().out


def test_smoke_without_mnist_downloads_it(monkeypatch, cache, no_cifar):
    monkeypatch.setattr(arrays.sources, "checkout", lambda: None)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("opened a socket"))
    with pytest.raises(DataError, match="COURSE_PROFILE=cpu"):
        load_arrays("mnist", "test")


@pytest.mark.parametrize("name", ["mnist", STANDIN])
def test_second_load_differs_or_is_not_from_the_cache(cache, name):
    first, second = load_arrays(name, "test"), load_arrays(name, "test")
    assert (cache / f"{first.digest}.bin").stat().st_size == first.images.size + len(first) + 32
    assert (first.source != "cache", second.source) == (True, "cache")
    for array in ("images", "labels"):
        np.testing.assert_array_equal(getattr(first, array), getattr(second, array))
    for field in ("classes", "name", "split", "complete", "published", "digest"):
        assert getattr(first, field) == getattr(second, field)
    assert second.published and second.complete


@pytest.mark.parametrize(
    "damage",
    {
        "empty": lambda data: b"",
        "cut short": lambda data: data[:-1],
        "too long": lambda data: data + b"0",
        "all zeros": lambda data: bytes(len(data)),
        "a pixel": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        "a label": lambda data: data[:7_845_000] + bytes([data[7_845_000] ^ 1]) + data[7_845_001:],
        "without a checksum": lambda data: data[:-32],
    }.items(),
    ids=lambda case: case[0],
)
def test_damaged_cache_file_read_or_kept(cache, damage):
    file = cache / f"{load_arrays('mnist', 'test').digest}.bin"
    good = file.read_bytes()
    assert len(good) == 10_000 * 784 + 10_000 + 32
    file.write_bytes(damage[1](good))
    found = load_arrays("mnist", "test")
    assert found.source != "cache"
    assert arrays.sources.content_digest(found.images, found.labels) == PUBLISHED["mnist"].digests["test"]
    assert load_arrays("mnist", "test").source == "cache" and file.read_bytes() == good


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_interrupted_cache_write_leaves_a_file_to_be_read(monkeypatch, cache, error):
    class Full(io.FileIO):
        def write(self, data):
            super().write(memoryview(data).cast("B")[:1000])
            raise error

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode))
    if isinstance(error, OSError):
        assert len(load_arrays("mnist", "test")) == 10_000
    else:
        with pytest.raises(KeyboardInterrupt):
            load_arrays("mnist", "test")
    assert list(cache.iterdir()) == []


def test_unwritable_cache_stops_a_load(cache):
    cache.write_text("a file, not a folder")
    assert len(load_arrays("mnist", "test")) == 10_000
    assert cache.read_text() == "a file, not a folder"


shapes = st.builds(lambda n, c, s: (n, c, s, s), *3 * (st.integers(1, 6),))


@given(hnp.arrays(np.uint8, shapes, elements=st.integers(0, 255)))
def test_mean_and_std_differ_from_numpys(images):
    mean, std = mean_and_std(Arrays(images, np.zeros(len(images), np.int64), ("a",)))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), atol=1e-7)
