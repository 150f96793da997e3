import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as v2

from course_utils.data.arrays import Arrays, load_arrays, mean_and_std, take, validation_split
from course_utils.data.loaders import TensorLoader, make_loaders, resized

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


def epoch_digest(loader, epoch, border=0):
    """SHA-256 of the batches of one epoch, all bits of them, without a border of each image."""
    loader.set_epoch(epoch)
    digest = hashlib.sha256()
    for x, y in loader:
        inner = slice(border, x.shape[2] - border)
        digest.update(x[:, :, inner, inner].contiguous().numpy().tobytes() + y.numpy().tobytes())
    return digest.hexdigest()[:16]


def test_batches_differ_from_those_that_the_committed_results_were_trained_on():
    """The digests are those of the first version of TensorLoader, which gathered pixels in another layout."""
    fashion, colour = load_arrays("fashion", "test"), random_arrays(500, classes=100)
    drawn = {"train": True, "device": "cpu"}
    grey = {"mean": (0.25,), "std": (0.5,)}
    garments = TensorLoader(fashion, 128, seed=3, shift=2, flip="alternating", **drawn, **grey)
    digests = [epoch_digest(garments, epoch) for epoch in (0, 1, 5)]
    assert digests == ["b44b382705579f18", "448aca60af5f16bc", "77d3374b0877f6eb"]
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    colours = TensorLoader(colour, 64, shift=3, flip="random", **drawn, **statistics)
    digests = [epoch_digest(colours, epoch) for epoch in (0, 1, 5)]
    assert digests == ["21c37f4fdeee9523", "a259462b2282dddd", "a74b9e94a9540074"]
    half = TensorLoader(fashion, 128, seed=1, flip="random", sizes=14, **drawn, **grey)
    assert epoch_digest(half, 2, border=1) == "3c9d4d97e7a00390"  # inside the border in exact fractions
    assert epoch_digest(TensorLoader(fashion, 500, device="cpu", **grey), 2) == "0b13ce2e97bc02c4"


def test_loop_without_set_epoch_repeats_the_order_shifts_or_flips():
    arguments = {"train": True, "seed": 3, "shift": 2, "flip": "alternating", "sizes": (8, 4)}
    ours, named, again = (loader(random_arrays(40), 7, **arguments | {"sizes": 8}) for _ in range(3))
    passes = [pixels(ours) for _ in range(3)]
    for epoch, found in enumerate(passes):
        named.set_epoch(epoch)
        for other in (pixels(named), pixels(again)):  # a function of seed and pass
            assert all(np.array_equal(a, b) for a, b in zip(found, other, strict=True))
    in_order = [images[np.argsort(labels)] for images, labels in passes]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(passes[i][1], passes[j][1]) and not np.array_equal(in_order[i], in_order[j])
    ours.set_epoch(1)
    assert np.array_equal(pixels(ours)[1], passes[1][1])
    sized = loader(random_arrays(40), 7, **arguments)
    assert [next(iter(sized))[0].shape[2] for _ in range(3)] == [8, 8, 8]  # set_epoch alone selects a size


def test_pass_that_is_broken_off_begins_again_with_the_same_images():
    ours = loader(random_arrays(40), 10, train=True)
    first = [next(iter(ours))[1].tolist() for _ in range(3)]
    assert len({tuple(labels) for labels in first}) == 3
    ours.set_epoch(0)
    assert next(iter(ours))[1].tolist() == first[0]


def test_evaluation_changes_from_pass_to_pass():
    ours = loader(random_arrays(10), shift=2, flip="random")
    first = pixels(ours)
    assert all(np.array_equal(a, b) for a, b in zip(first, pixels(ours), strict=True))


def test_epoch_depends_on_more_than_seed_and_epoch():
    arrays = random_arrays(40)
    arguments = {"train": True, "seed": 3, "shift": 2, "flip": "random"}
    ours, batches_of_another_size = loader(arrays, 7, **arguments), loader(arrays, 16, **arguments)
    first = pixels(ours)
    ours.set_epoch(0)
    again = pixels(ours)
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


@given(st.integers(1, 40), st.integers(2, 40), st.sampled_from([1, 3]))  # torch fails on uint8 at 1 pixel
def test_resized_differs_from_torchvision(old, new, channels):
    arrays = random_arrays(3, channels, old)
    x = torch.from_numpy(arrays.images)
    ours = resized(x, new)
    assert (ours.dtype, ours.shape) == (torch.uint8, (3, channels, new, new))
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


def test_images_of_several_megabytes_resized_otherwise_than_one_by_one():
    x = torch.from_numpy(random_arrays(7, 3, 400).images)  # two images fit into one step
    assert torch.equal(resized(x, 100), torch.cat([resized(x[i : i + 1], 100) for i in range(7)]))


def test_enlarged_set_held_in_memory_or_another_than_the_enlarged_images():
    arrays = random_arrays(6, 3, 8)
    ours = loader(arrays, 4, train=True, shift=3, flip="random", sizes=(4, 32))
    ours.set_epoch(1)
    held = [value.nbytes for value in vars(ours).values() if isinstance(value, torch.Tensor)]
    assert sum(held) <= arrays.images.nbytes + arrays.labels.nbytes
    images, labels = pixels(ours)
    large = v2.resize(torch.from_numpy(arrays.images), [32, 32], antialias=True).numpy()
    for image, label in zip(images, labels, strict=True):
        allowed = [v for mirrored in (False, True) for v in views(large[label], 3, mirrored).values()]
        assert min(np.abs(image.astype(int) - view).max() for view in allowed) <= 1
    pair = random_arrays(6, 3, 8, classes=2), arrays
    assert next(iter(make_loaders(pair, sizes=(4, 32)).test))[0].shape == (6, 3, 32, 32)


def test_batch_depends_on_torchs_default_type_or_memory_format():
    arrays = random_arrays(10)
    expected = next(iter(TensorLoader(arrays, 4, device="cpu", **mean_and_std_of_numpy(arrays))))[0]
    try:
        torch.set_default_dtype(torch.float16)
        found = next(iter(TensorLoader(arrays, 4, device="cpu")))[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def mean_and_std_of_numpy(arrays):
    """As float64 scalars, of which torch makes float64 tensors, which MPS has not."""
    return dict(zip(("mean", "std"), (tuple(map(np.float64, v)) for v in mean_and_std(arrays)), strict=True))


def test_batch_not_float32_int64_contiguous_or_not_normalised():
    arrays = random_arrays(10)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    x, y = next(iter(TensorLoader(arrays, 4, mean=mean, std=std, device="cpu")))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.is_contiguous() and x.view(4, -1).shape == (4, 192)
    expected = v2.normalize(torch.from_numpy(arrays.images[:4]) / 255, mean, std)
    torch.testing.assert_close(x, expected)
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
    ("n", "batch_size", "lengths"),
    [(9, 4, [4, 5]), (5, 2, [2, 3]), (1, 4, [1]), (4, 4, [4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1])],
)
def test_last_batch_of_training_is_a_single_image(n, batch_size, lengths):
    ours = loader(random_arrays(n), batch_size, train=True)
    batches = [y.tolist() for _, y in ours]
    assert [len(y) for y in batches] == lengths and len(ours) == len(lengths)
    assert sorted(sum(batches, [])) == list(range(n))
    if n == 9:
        assert [len(y) for _, y in loader(random_arrays(9), 4)] == [4, 4, 1]  # evaluation averages over none


def test_batch_norm_fails_on_the_last_of_65_images():
    norm = torch.nn.BatchNorm2d(3)
    for x, _ in loader(random_arrays(65, size=1), 64, train=True):
        norm(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_reversed_read_only_or_transposed_images_give_a_traceback(channels):
    arrays = random_arrays(6)
    arrays = dataclasses.replace(arrays, images=arrays.images[:, :channels])  # one: NumPy calls it contiguous
    read_only = arrays.images.copy()
    read_only.flags.writeable = False
    for images in (
        arrays.images[:, ::-1],
        arrays.images[..., ::-1],
        read_only,
        arrays.images.transpose(0, 1, 3, 2),
    ):
        ours = loader(Arrays(images, arrays.labels[::-1], arrays.classes), 4)
        found, labels = pixels(ours)
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(labels, arrays.labels[::-1])
        assert ours.fingerprint()


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
    shuffled = validation_split(take(arrays, np.random.default_rng(seed).permutation(60)))
    assert [samples(part) for part in shuffled] == [samples(rest), samples(validation)]
    assert (rest.split, validation.split, validation.complete) == ("train", "validation", False)


@pytest.mark.parametrize("complete", [True, False])
def test_validation_of_a_set_of_ones_own_not_a_tenth_of_each_class(complete):
    labels = np.repeat(np.arange(6), [300, 19, 10, 2, 1, 0])
    images = np.random.default_rng(0).integers(256, size=(332, 1, 4, 4), dtype=np.uint8)
    rest, validation = validation_split(Arrays(images, labels, tuple("abcdef"), complete=complete))
    assert np.bincount(validation.labels, minlength=6).tolist() == [30, 1, 1, 1, 0, 0]
    assert np.bincount(rest.labels, minlength=6).tolist() == [270, 18, 9, 1, 1, 0]


def test_600_images_of_two_classes_cannot_be_split():
    labels = np.arange(600) % 2
    arrays = Arrays(random_arrays(600).images, labels, ("cat", "dog"), complete=True)
    train, val, _ = make_loaders((arrays, arrays))
    assert [np.bincount(part.arrays.labels).tolist() for part in (train, val)] == [[270, 270], [30, 30]]


def test_part_of_a_published_set_asked_for_5000_or_half_of_a_class_lost():
    arrays = take(load_arrays("mnist", "train"), np.arange(1000))
    assert arrays.published and not arrays.complete
    counts = np.bincount(arrays.labels)
    assert np.bincount(validation_split(arrays)[1].labels).tolist() == (counts // 10).tolist()
    claimed = dataclasses.replace(arrays, complete=True)  # 5,000 of 1,000
    assert np.bincount(validation_split(claimed)[1].labels).tolist() == (counts // 2).tolist()


def test_set_with_one_image_a_class_gives_a_traceback_for_validation():
    with pytest.raises(ValueError, match="no image for validation; expected at least 1") as error:
        make_loaders((random_arrays(5), random_arrays(5)))
    assert "\n" not in str(error.value)


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
