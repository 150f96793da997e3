"""Loaders: a data set as batches on the device, shifted and mirrored."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from course_utils import settings
from course_utils.data.arrays import Arrays, first_of_each, load_arrays, mean_and_std, validation_split


class TensorLoader:
    """Batches (x, y) of a set that lies on the device whole, as uint8; no Python per image, no worker processes.

    x: float32 (B, C, S, S), channels_last, normalised with mean and std (pixels in 0..1; default: the set's own);
    y: int64 (B,). train: order, shifts and flips are drawn, a function of (seed, epoch, position) alone.
    shift: by up to so many pixels of the current size, grey sets padded with 0, colour sets reflected.
    flip: None, "random", or "alternating" (each image mirrored every other epoch; Jordan 2024, airbench).
    sizes: S, or one S an epoch (a longer training stays at the last), selected by set_epoch; default: the set's own.
    Raises ValueError for arguments that do not fit the set.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int = 128,
        *,
        train: bool = False,
        seed: int = 0,
        shift: int = 0,
        flip: str | None = None,
        sizes: int | tuple[int, ...] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        device: torch.device | str | None = None,
    ):
        if batch_size < 1 or not len(arrays):
            raise ValueError(
                f"batch_size is {batch_size}, images {len(arrays)}; expected at least 1 of each."
            )
        if flip not in (None, "random", "alternating"):
            raise ValueError(f"flip is {flip!r}; expected None, 'random' or 'alternating'.")
        if flip and arrays.name == "mnist":
            raise ValueError("flip is set for mnist; expected None: a mirrored 2 is no digit.")
        own = arrays.images.shape[2]
        self.sizes = (own,) if sizes is None else (sizes,) if isinstance(sizes, int) else tuple(sizes)
        smallest = min(self.sizes, default=0)
        if not 0 <= shift < smallest:
            raise ValueError(f"shift is {shift}, the smallest size {smallest}; expected 0 <= shift < size.")
        self.arrays, self.batch_size, self.train, self.seed = arrays, batch_size, train, seed
        self.shift, self.flip = shift if train else 0, flip if train else None
        self.device = torch.device(device or settings.device())
        if mean is None or std is None:
            own_mean, own_std = mean_and_std(arrays)
        self.mean = tuple(own_mean if mean is None else mean)
        self.std = tuple(own_std if std is None else std)
        channels = arrays.images.shape[1]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise ValueError(
                f"mean is {self.mean}, std {self.std}; expected {channels} of each, std above 0."
            )
        self.labels = torch.from_numpy(arrays.labels).to(self.device)
        self.size = None
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.arrays) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Select the order, shifts, flips and image size of that epoch, counted from 0."""
        self.epoch = epoch
        size = self.sizes[min(epoch, len(self.sizes) - 1)]
        if size != self.size:
            self.size = size
            self.pixels = resized_pixels(self.arrays.images, size).to(
                self.device
            )  # (N * size**2 + 1, C), last: black

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        n, device = len(self.arrays), self.device
        rng = np.random.default_rng([self.seed, self.epoch])
        order = torch.from_numpy(rng.permutation(n) if self.train else np.arange(n)).to(device)  # (N,)
        shifts = torch.from_numpy(rng.integers(-self.shift, self.shift + 1, (n, 2))).to(
            device
        )  # (N, 2): dy, dx
        flips = torch.from_numpy(self.mirrored(rng)).to(device)  # (N,)
        grid = torch.arange(self.size, device=device)  # (S,)
        scale = 255 * torch.tensor(self.std, device=device).view(1, -1, 1, 1)
        mean = 255 * torch.tensor(self.mean, device=device).view(1, -1, 1, 1)
        for start in range(0, n, self.batch_size):
            rows = order[start : start + self.batch_size]  # (B,)
            dy, dx = shifts[start : start + len(rows)].T.unsqueeze(2)  # (B, 1) each
            x = torch.where(flips[rows, None], self.size - 1 - grid, grid)  # (B, S)
            pixels = self.pixels.index_select(0, self.pixel_index(rows, grid + dy, x + dx))  # (B * S * S, C)
            images = pixels.view(len(rows), self.size, self.size, -1).permute(0, 3, 1, 2)  # (B, C, S, S)
            yield images.float().sub_(mean).div_(scale), self.labels[rows]

    def mirrored(self, rng: np.random.Generator) -> np.ndarray:
        """Which images are mirrored in this epoch: bool (N,), by image."""
        if self.flip == "alternating":
            return (np.random.default_rng(self.seed).integers(2, size=len(self.arrays)) + self.epoch) % 2 == 1
        return rng.random(len(self.arrays)) < (0.5 if self.flip == "random" else 0)

    def pixel_index(self, rows: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Row in self.pixels of each pixel (B * S * S,): image rows (B,), its lines y (B, S) and columns x (B, S)."""
        black = len(self.pixels) - 1
        edge = self.size - 1
        if self.pixels.shape[1] > 1:
            y, x = (edge - (edge - i.abs()).abs() for i in (y, x))  # reflect
        index = (rows[:, None, None] * self.size + y[:, :, None]) * self.size + x[:, None, :]  # (B, S, S)
        if self.shift and self.pixels.shape[1] == 1:
            y_outside, x_outside = ((i < 0) | (i > edge) for i in (y, x))
            index = index.masked_fill(y_outside[:, :, None] | x_outside[:, None, :], black)
        return index.flatten()

    def fingerprint(self) -> str:
        """Everything that the batches depend on, the pixels included, as text."""
        pixels = hashlib.sha256(self.arrays.images.tobytes() + self.arrays.labels.tobytes()).hexdigest()
        facts = ("batch_size", "train", "seed", "shift", "flip", "sizes", "mean", "std")
        return "\n".join(
            [f"{len(self.arrays)} images {pixels[:16]}", *(f"{k} {getattr(self, k)}" for k in facts)]
        )


def resized_pixels(images: np.ndarray, size: int) -> torch.Tensor:
    """The pixels of uint8 images (N, C, H, W) at (size, size), one a row, and a black one: uint8 (N * size**2 + 1, C).

    Bilinear with antialias, rounded to uint8.
    """
    channels = images.shape[1]
    chunks = []
    for start in range(0, len(images), 5000):
        x = torch.from_numpy(images[start : start + 5000])
        if x.shape[2:] != (size, size):
            x = (
                F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)
                .round_()
                .to(torch.uint8)
            )
        chunks.append(x.permute(0, 2, 3, 1).reshape(-1, channels))
    return torch.cat([*chunks, torch.zeros(1, channels, dtype=torch.uint8)])


class Loaders(NamedTuple):
    """Three loaders of one data set."""

    train: TensorLoader
    val: TensorLoader
    test: TensorLoader


def make_loaders(
    data: str | tuple[Arrays, Arrays],
    batch_size: int = 128,
    *,
    seed: int = 0,
    limit: int | None = None,
    shift: int = 0,
    flip: str | None = None,
    sizes: int | tuple[int, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Loaders:
    """Loaders for training, validation (validation_split) and test.

    data: a name that load_arrays knows, or a pair (training, test) of Arrays. limit: at most so many images in each
    of the three, the first ones, as many of each class. mean, std: default to those of the whole training set.
    The test loader has the last of the sizes. The other arguments are TensorLoader's.
    """
    train, test = (load_arrays(data, split) for split in ("train", "test")) if isinstance(data, str) else data
    own_mean, own_std = mean_and_std(train) if mean is None or std is None else (mean, std)
    facts = {"mean": own_mean if mean is None else mean, "std": own_std if std is None else std}
    rest, validation = validation_split(train)
    if limit is not None:
        rest, validation, test = (
            part if limit >= len(part) else first_of_each(part, limit) for part in (rest, validation, test)
        )
    last = sizes if sizes is None or isinstance(sizes, int) else sizes[-1:]
    return Loaders(
        TensorLoader(rest, batch_size, train=True, seed=seed, shift=shift, flip=flip, sizes=sizes, **facts),
        TensorLoader(validation, 500, sizes=sizes, **facts),
        TensorLoader(test, 500, sizes=last, **facts),
    )
