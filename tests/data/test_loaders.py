import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as v2

from course_utils.data.arrays import Arrays, load_arrays, mean_and_std, take, validation_split
from course_utils.data.loaders import TensorLoader, make_loaders, resized_pixels

RAW = {1: {"mean": (0,), "std": (1,)}, 3: {"mean": (0, 0, 0), "std": (1, 1, 1)}}  # batches are pixels / 255


def random_arrays(n, channels=3, size=8, classes=None, seed=0, **facts):
    """n random images; without `classes` a label is the image's own number."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(n, channels, size, size), dtype=np.uint8)
    labels = rng.integers(classes, size=n) if classes else np.arange(n)
    return Arrays(images, labels, tuple(map(str, range(classes or n))), **facts)


def loader(arrays, batch_size=4, **arguments):
    return TensorLoader(arrays, batch_size, device="cpu", **(RAW[arrays.images.shape[1]] | arguments))


def pixels(loader):
    """(images uint8, labels) of one epoch of a loader with mean 0 and deviation 1."""
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    return (255 * x).round().to(torch.uint8).numpy(), y.numpy()


def views(image, shift, mirrored):
    """Every shifted view of one image (C, S, S), {(dy, dx): view}, padded by NumPy: zeros or reflection."""
    size = image.shape[1]
    pad = ((0, 0), (shift, shift), (shift, shift))
    padded = np.pad(image, pad, mode="constant" if len(image) == 1 else "reflect")
    steps = range(2 * shift + 1)
    crops = {(y, x): padded[:, y : y + size, x : x + size] for y in steps for x in steps}
    return {step: crop[:, :, ::-1] if mirrored else crop for step, crop in crops.items()}


@given(st.data())
def test_batch_is_no_shifted_and_flipped_view_of_its_images(data):
    size, n = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    arrays = random_arrays(n, data.draw(st.sampled_from([1, 3])), size, seed=data.draw(st.integers(0, 99)))
    shift, flip = (
        data.draw(st.integers(0, size - 1)),
        data.draw(st.sampled_from([None, "random", "alternating"])),
    )
    facts = {"train": True, "seed": data.draw(st.integers(0, 99)), "shift": shift, "flip": flip}
    ours = loader(arrays, data.draw(st.integers(1, 12)), **facts)
    ours.set_epoch(data.draw(st.integers(0, 9)))
    images, labels = pixels(ours)
    assert sorted(labels) == list(range(n))
    for image, label in zip(images, labels, strict=True):
        allowed = [
            v for m in {False, flip is not None} for v in views(arrays.images[label], shift, m).values()
        ]
        assert any(np.array_equal(image, view) for view in allowed)


@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_and_flips_not_drawn_evenly(channels):
    image = np.arange(channels * 49, dtype=np.uint8).reshape(1, channels, 7, 7) + 1
    n = 5000
    arrays = Arrays(np.repeat(image, n, axis=0), np.zeros(n, np.int64), ("a",))
    images, _ = pixels(loader(arrays, 500, train=True, shift=2, flip="random"))
    found = np.unique(images.reshape(n, -1), axis=0, return_counts=True)
    assert {row.tobytes() for row in found[0]} == {
        view.tobytes() for mirrored in (False, True) for view in views(image[0], 2, mirrored).values()
    }
    assert found[1].min() > 50  # 100 expected of each of the 50, deviation 10


def test_epoch_depends_on_more_than_seed_and_epoch():
    arrays = random_arrays(40)
    arguments = {"train": True, "seed": 3, "shift": 2, "flip": "random"}
    ours, batches_of_another_size = loader(arrays, 7, **arguments), loader(arrays, 16, **arguments)
    first, again = pixels(ours), pixels(ours)
    ours.set_epoch(1)
    second = pixels(ours)
    torch.manual_seed(1)
    np.random.seed(1)
    ours.set_epoch(0)
    for other in (again, pixels(ours), pixels(batches_of_another_size)):
        assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    other_seed = pixels(loader(arrays, 7, **arguments | {"seed": 4}))
    for other in (second, other_seed):
        assert not np.array_equal(first[1], other[1])
        order = [np.argsort(labels) for labels in (first[1], other[1])]
        assert not np.array_equal(first[0][order[0]], other[0][order[1]])  # shifts and flips, too


def test_alternating_flip_does_not_mirror_each_image_every_other_epoch():
    arrays = random_arrays(100)
    ours, epochs = loader(arrays, 32, train=True, flip="alternating"), []
    for epoch in range(4):
        ours.set_epoch(epoch)
        images, labels = pixels(ours)
        epochs.append(images[np.argsort(labels)])
    mirrored = [(e == arrays.images[..., ::-1]).all((1, 2, 3)) for e in epochs]
    for epoch in range(3):
        np.testing.assert_array_equal(epochs[epoch], epochs[epoch + 1][..., ::-1])
        np.testing.assert_array_equal(mirrored[epoch], ~mirrored[epoch + 1])
    assert 30 < mirrored[0].sum() < 70


def test_evaluation_reorders_shifts_or_flips():
    arrays = random_arrays(10)
    images, labels = pixels(loader(arrays, shift=2, flip="random"))
    np.testing.assert_array_equal(images, arrays.images)
    np.testing.assert_array_equal(labels, np.arange(10))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_resized_differs_from_torchvision(old, new, channels):
    arrays = random_arrays(3, channels, old)
    ours = resized_pixels(arrays.images, new)
    assert (ours.dtype, ours.shape) == (torch.uint8, (3 * new * new + 1, channels))
    ours = ours[:-1].view(3, new, new, channels).permute(0, 3, 1, 2)
    x = torch.from_numpy(arrays.images)
    theirs = v2.resize(x, [new, new], interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    exact = torch.nn.functional.interpolate(x.double(), (new, new), mode="bilinear", antialias=True)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours.double() - exact).abs().max() <= 0.501


def test_sizes_not_selected_by_epoch_or_test_not_at_the_last():
    pair = random_arrays(40, classes=4), random_arrays(20, classes=4)
    ours = make_loaders(pair, 8, sizes=(4, 6, 10))
    for epoch, size in ((0, 4), (1, 6), (2, 10), (7, 10), (0, 4)):
        for part in ours:
            part.set_epoch(epoch)
        shapes = [next(iter(part))[0].shape[1:] for part in ours]
        assert shapes == [(3, size, size), (3, size, size), (3, 10, 10)]
    assert next(iter(make_loaders(pair, sizes=5).test))[0].shape[2:] == (5, 5)
    assert next(iter(make_loaders(pair).train))[0].shape[2:] == (8, 8)


def test_batch_not_float32_int64_channels_last_or_not_normalised():
    arrays = random_arrays(10)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    x, y = next(iter(TensorLoader(arrays, 4, mean=mean, std=std, device="cpu")))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = v2.normalize(torch.from_numpy(arrays.images[:4]) / 255, mean, std)
    torch.testing.assert_close(x, expected, check_stride=False)
    x = torch.cat([x for x, _ in TensorLoader(arrays, device="cpu")])  # by the set's own mean and deviation
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 11, 12, 100])
def test_number_of_batches_differs_from_torchs(batch_size):
    arrays = random_arrays(11)
    torchs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(11)), batch_size)
    ours = loader(arrays, batch_size)
    assert len(ours) == len(torchs)
    assert [len(y) for _, y in ours] == [len(y) for (y,) in torchs]


@pytest.mark.parametrize(
    ("facts", "arguments", "message"),
    [
        ({"name": "mnist"}, {"train": True, "flip": "random"}, "mnist"),
        ({}, {"flip": "vertical"}, "'vertical'"),
        ({}, {"shift": 8}, "shift is 8"),
        ({}, {"shift": -1}, "shift is -1"),
        ({}, {"shift": 4, "sizes": (4, 8)}, "smallest size 4"),
        ({}, {"sizes": ()}, "size"),
        ({}, {"batch_size": 0}, "batch_size is 0"),
        ({}, {"mean": (0.5,)}, "expected 3 of each"),
        ({}, {"std": (1, 1, 0)}, "above 0"),
    ],
)
def test_argument_that_does_not_fit_the_set_accepted(facts, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        loader(random_arrays(5, **facts), **arguments)
    assert "\n" not in str(error.value)


def test_fingerprint_blind_to_an_argument_or_a_pixel():
    arrays = random_arrays(10, classes=6)
    base = {"batch_size": 4, "train": True, "seed": 0, "shift": 1, "flip": None, "sizes": 8}
    changes = {"batch_size": 5, "train": False, "seed": 1, "shift": 2, "flip": "random", "sizes": (8, 9)}
    changes |= {"mean": (0, 0, 0.1), "std": (1, 1, 2)}
    loaders = [loader(arrays, **base), loader(arrays, **base | {"flip": "alternating"})]
    loaders += [loader(arrays, **base | {name: value}) for name, value in changes.items()]
    for field in ("images", "labels"):
        changed = getattr(arrays, field).copy()
        changed.flat[-1] ^= 1
        loaders.append(loader(dataclasses.replace(arrays, **{field: changed}), **base))
    loaders.append(loader(take(arrays, np.arange(9)), **base))
    assert len({ours.fingerprint() for ours in loaders}) == len(loaders)
    same = loader(random_arrays(10, classes=6), **base)
    same.set_epoch(3)
    assert same.fingerprint() == loaders[0].fingerprint()


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("mnist", 0.130660, 0.308108), ("fashion", 0.286041, 0.353024)]
)
def test_default_mean_and_std_are_not_the_whole_training_sets(name, mean, std):
    for part in make_loaders(name, limit=10):
        assert (round(part.mean[0], 6), round(part.std[0], 6)) == (mean, std)


def samples(arrays):
    return sorted(x.tobytes() + bytes([y]) for x, y in zip(arrays.images, arrays.labels, strict=True))


@given(st.integers(0, 9))
def test_validation_split_depends_on_the_order_or_loses_images(seed):
    arrays = random_arrays(60, classes=3, size=2, seed=seed)
    rest, validation = validation_split(arrays)
    assert sorted(samples(rest) + samples(validation)) == samples(arrays)
    counts = np.bincount(arrays.labels, minlength=3)
    np.testing.assert_array_equal(np.bincount(validation.labels, minlength=3), counts // 10 + (counts < 10))
    shuffled = validation_split(take(arrays, np.random.default_rng(seed).permutation(60)))
    assert [samples(part) for part in shuffled] == [samples(rest), samples(validation)]
    assert (rest.split, validation.split, validation.complete) == ("train", "validation", False)


@pytest.mark.parametrize(("name", "per_class"), [("mnist", 500), ("tinted_fashion_100", 50)])
def test_validation_of_a_complete_set_not_5000_with_the_smallest_hashes(name, per_class):
    arrays = load_arrays(name, "train")
    rest, validation = validation_split(arrays)
    assert (len(rest), len(validation), rest.complete) == (55_000, 5_000, True)
    assert np.bincount(validation.labels).tolist() == [per_class] * len(arrays.classes)
    of_class_3 = arrays.images[arrays.labels == 3]
    hashes = sorted((hashlib.sha256(x.tobytes() + b"\3").hexdigest(), x.tobytes()) for x in of_class_3)
    chosen = {x.tobytes() for x in validation.images[validation.labels == 3]}
    assert chosen == {x for _, x in hashes[:per_class]}


def test_limit_takes_other_images_than_the_first_of_each_class():
    train, test = (random_arrays(n, classes=4, seed=n, size=2, complete=True) for n in (400, 90))
    train = dataclasses.replace(train, complete=False)
    rest, validation = validation_split(train)
    ours = make_loaders((train, test), limit=10)
    for part, whole in zip(ours, (rest, validation, test), strict=True):
        kept, seen = [], [0] * 4
        for row, label in enumerate(whole.labels):
            seen[label] += 1
            kept += [row] if seen[label] <= 2 else []
        assert samples(part.arrays) == samples(take(whole, np.array(kept)))
        np.testing.assert_array_equal(part.arrays.labels, whole.labels[kept])
        assert not part.arrays.complete
    whole = make_loaders((train, test), limit=5000)
    assert [len(part.arrays) for part in whole] == [len(rest), len(validation), 90]
    with pytest.raises(ValueError, match="limit is 3; expected at least 4"):
        make_loaders((train, test), limit=3)


def test_mean_and_std_of_a_pair_taken_from_a_part():
    pair = random_arrays(40, classes=4), random_arrays(20, classes=4, seed=1)
    mean, std = mean_and_std(pair[0])
    assert {(part.mean, part.std) for part in make_loaders(pair, limit=8)} == {(mean, std)}
    half = make_loaders(pair, mean=(0.5, 0.5, 0.5))
    assert {(part.mean, part.std) for part in half} == {((0.5, 0.5, 0.5), std)}
