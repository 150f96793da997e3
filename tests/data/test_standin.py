import numpy as np
import pytest

from course_utils.data import sources, standin
from course_utils.data.arrays import load_arrays
from course_utils.data.standin import NAME, TINTS

WORD = 0xFFFFFFFF
DIGESTS = {  # committed with the recipe
    "train": "dd269bcb88cd359f788b4ff6fd232effecc7f9383db41d4bb2f4e3e2080f1acf",
    "test": "81b1a3f18a49b784cde7cd9cf4dddc74e21c7e6d3c2dc8bc83db1cef72c3b565",
}


def mix(x):
    """MurmurHash3's 32-bit finalizer in Python's own integers."""
    x = ((x ^ x >> 16) * 0x85EBCA6B) & WORD
    x = ((x ^ x >> 13) * 0xC2B2AE35) & WORD
    return x ^ x >> 16


def pixel(alpha, colour, index, channel, y, x):
    """One value of the stand-in in Python integers. alpha: the garment's pixel, 0..255."""
    h = mix(index)
    wave = (h & 7) * x + (h >> 3 & 7) * y + (h >> 6 & 31)
    stripe = wave >> (2 + (h >> 11 & 1)) & 1
    pair = mix((2 * index + 0x9E3779B9 + channel) & WORD)
    ground = 48 + (pair & 127 if stripe else pair >> 8 & 127)
    ground += mix((1024 * index + 32 * y + x) & WORD) >> 8 * channel & 31
    cloth = min(max(colour + (pair >> 16 & 31) - 16, 0), 255)
    return (alpha * cloth + (255 - alpha) * ground) // 255


@pytest.mark.parametrize(("x", "expected"), [(0, 0), (1, 0x514E28B7), (0xFFFFFFFF, 0x81F16F39)])
def test_hash_is_murmurs_finalizer(x, expected):  # known values of fmix32
    assert int(standin.mix(np.array([x], np.uint32))[0]) == mix(x) == expected


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 60_000)])
def test_pixels_and_labels_differ_from_the_recipe_in_plain_integers(split, first):
    fashion, ours = load_arrays("fashion", split), load_arrays(NAME, split)
    for i in (0, 1, 1999, 2000, len(fashion) - 1):  # both sides of a chunk's edge
        garment = int(fashion.labels[i])
        tint = int((fashion.labels[:i] == garment).sum()) % 10
        assert ours.labels[i] == 10 * garment + tint
        colour = list(TINTS.values())[tint]
        alpha = np.zeros((32, 32), int)
        alpha[2:30, 2:30] = fashion.images[i, 0]
        where = [(c, y, x) for c in range(3) for y in range(32) for x in range(32)]
        expected = [pixel(int(alpha[y, x]), colour[c], first + i, c, y, x) for c, y, x in where]
        assert ours.images[i].ravel().tolist() == expected


@pytest.mark.parametrize("split", DIGESTS)
def test_standin_changed_or_out_of_balance(split):
    arrays = load_arrays(NAME, split)
    per_class = {"train": 600, "test": 100}[split]
    assert np.bincount(arrays.labels).tolist() == [per_class] * 100
    assert arrays.images.shape == (100 * per_class, 3, 32, 32)
    assert arrays.digest == sources.content_digest(arrays.images, arrays.labels) == DIGESTS[split]
    assert (arrays.name, arrays.split, arrays.complete) == (NAME, split, True)
    assert len(set(arrays.classes)) == 100
    assert arrays.classes[13] == "lime Trouser"  # garment 1, tint 3
