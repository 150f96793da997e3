"""The computed stand-in for CIFAR: Fashion-MNIST's garments in ten tints on textured grounds, 100 classes.

Integer arithmetic from the index alone: the same pixels on every machine. It is no benchmark; it lets every cell
of a lesson run where CIFAR cannot be had.
"""

import numpy as np

NAME = "tinted_fashion_100"
TINTS = {
    **{"red": (224, 48, 48), "orange": (232, 136, 32), "yellow": (224, 208, 56), "lime": (136, 208, 48)},
    **{"green": (40, 144, 72), "cyan": (56, 200, 208), "blue": (48, 88, 216), "violet": (136, 72, 208)},
    **{"pink": (232, 112, 176), "white": (232, 232, 232)},
}
DIGESTS = {
    "train": "dd269bcb88cd359f788b4ff6fd232effecc7f9383db41d4bb2f4e3e2080f1acf",
    "test": "81b1a3f18a49b784cde7cd9cf4dddc74e21c7e6d3c2dc8bc83db1cef72c3b565",
}


def mix(x: np.ndarray) -> np.ndarray:
    """Scramble uint32 values: multiply, xor, shift (the finalizer of MurmurHash3, Appleby 2011)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def tint(garments: np.ndarray, labels: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Tinted garments on textured grounds.

    garments: uint8 (N, 1, 28, 28); labels: (N,) in 0..9; first: index of the first image (0, or 60,000 for the test
    set). Returns images uint8 (N, 3, 32, 32) and labels int64 (N,): 10 * garment + tint. The k-th image of a garment
    has tint k mod 10.
    """
    tints = np.empty(len(labels), np.int64)
    for garment in range(10):
        here = np.flatnonzero(labels == garment)
        tints[here] = np.arange(len(here)) % 10
    images = np.empty((len(labels), 3, 32, 32), np.uint8)
    for start in range(0, len(labels), 2000):
        part = slice(start, start + 2000)
        index = np.arange(first + start, first + start + len(labels[part]), dtype=np.uint32)
        images[part] = paint(garments[part], tints[part], index)
    return images, 10 * labels + tints


def paint(garments: np.ndarray, tints: np.ndarray, index: np.ndarray) -> np.ndarray:
    """One chunk of `tint`: uint8 (n, 3, 32, 32) from garments (n, 1, 28, 28), tints (n,) and index, uint32 (n,)."""
    y, x = np.meshgrid(np.arange(32, dtype=np.uint32), np.arange(32, dtype=np.uint32), indexing="ij")
    h = mix(index)[:, None, None]
    wave = (h & 7) * x + ((h >> np.uint32(3)) & 7) * y + ((h >> np.uint32(6)) & 31)  # (n, 32, 32)
    stripe = (wave >> (2 + ((h >> np.uint32(11)) & 1))) & 1  # (n, 32, 32), 0 or 1
    grain = mix(index[:, None, None] * np.uint32(1024) + 32 * y + x)  # (n, 32, 32)
    alpha = np.pad(garments[:, 0], ((0, 0), (2, 2), (2, 2))).astype(np.int64)  # (n, 32, 32)
    colours = np.array(list(TINTS.values()))[tints]  # (n, 3)
    out = np.empty((len(index), 3, 32, 32), np.uint8)
    for channel in range(3):
        pair = mix(2 * index + np.uint32(0x9E3779B9) + np.uint32(channel))[:, None, None]
        ground = np.where(stripe == 1, pair & 127, (pair >> np.uint32(8)) & 127) + 48  # 48..175
        ground = ground.astype(np.int64) + ((grain >> np.uint32(8 * channel)) & 31)  # 48..206
        shade = ((pair >> np.uint32(16)) & 31).astype(np.int64) - 16  # the tint of this image, a little off
        cloth = np.clip(colours[:, channel, None, None] + shade, 0, 255)
        out[:, channel] = (alpha * cloth + (255 - alpha) * ground) // 255
    return out
