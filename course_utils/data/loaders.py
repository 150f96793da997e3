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

    x: float32 (B, C, S, S), contiguous, normalised with mean and std (pixels in 0..1; default: the set's own);
    y: int64 (B,). train: order, shifts and flips are drawn, a function of (seed, epoch, position) alone: of the epoch
    that set_epoch names, and of one more in each pass that follows without it. A last batch of a single image, over
    which batch norm cannot average, joins the one before it.
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
        if not len(arrays):
            raise ValueError(
                f"{arrays.name}: no image for {arrays.split}; expected at least 1. "
                "Validation takes a tenth of each class that has two or more."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
        if flip not in (None, "random", "alternating"):
            raise ValueError(f"flip is {flip!r}; expected None, 'random' or 'alternating'.")
        if flip and arrays.name == "mnist":
            raise ValueError("flip is set for mnist; expected None: a mirrored 2 is no digit.")
        _, channels, self.own, _ = arrays.images.shape
        self.sizes = tuple(int(size) for size in np.ravel(self.own if sizes is None else sizes))
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
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise ValueError(
                f"mean is {self.mean}, std {self.std}; expected {channels} of each, std above 0."
            )
        self.labels = torch.from_numpy(arrays.labels).to(self.device)
        self.pixels = None
        self.set_epoch(0)

    def __len__(self) -> int:
        n, size = len(self.arrays), self.batch_size
        joined = self.train and n > size > 1 and n % size == 1
        return -(-n // size) - joined

    def set_epoch(self, epoch: int) -> None:
        """Select the order, shifts, flips and image size of that epoch, counted from 0."""
        size = self.sizes[min(epoch, len(self.sizes) - 1)]
        kept = min(size, self.own)  # larger copies of a set do not fit in memory: batch by batch
        if self.pixels is None or kept != self.pixels.shape[2]:
            self.pixels = resized(torch.from_numpy(self.arrays.images), kept).to(self.device)  # (N, C, s, s)
        self.epoch, self.passes, self.size = epoch, 0, size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        n, device, epoch = len(self.arrays), self.device, self.epoch + self.passes
        self.passes += 1
        rng = np.random.default_rng([self.seed, epoch])
        order = torch.from_numpy(rng.permutation(n) if self.train else np.arange(n)).to(device)  # (N,)
        shifts = torch.from_numpy(rng.integers(-self.shift, self.shift + 1, (n, 2))).to(device)  # (N, 2)
        flips = torch.from_numpy(self.mirrored(rng, epoch)).to(device)  # (N,)
        mean, scale = (
            255 * torch.tensor(value, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for value in (self.mean, self.std)
        )
        for batch in range(len(self)):
            start = batch * self.batch_size
            stop = start + self.batch_size if batch + 1 < len(self) else n
            rows = order[start:stop]  # (B,)
            x = resized(self.pixels.index_select(0, rows), self.size)  # (B, C, S, S)
            if self.shift or self.flip:
                x = moved(x, shifts[start:stop], flips[rows])
            yield x.float().sub_(mean).div_(scale), self.labels[rows]

    def mirrored(self, rng: np.random.Generator, epoch: int) -> np.ndarray:
        """Which images are mirrored in an epoch: bool (N,), by image."""
        if self.flip == "alternating":
            return (np.random.default_rng(self.seed).integers(2, size=len(self.arrays)) + epoch) % 2 == 1
        return rng.random(len(self.arrays)) < (0.5 if self.flip == "random" else 0)

    def fingerprint(self) -> str:
        """Everything that the batches depend on, the pixels included, as text."""
        pixels = hashlib.sha256(self.arrays.images)
        pixels.update(self.arrays.labels)
        facts = ("batch_size", "train", "seed", "shift", "flip", "sizes", "mean", "std")
        return "\n".join(
            [
                f"{len(self.arrays)} images {pixels.hexdigest()[:16]}",
                *(f"{k} {getattr(self, k)}" for k in facts),
            ]
        )


def moved(images: torch.Tensor, shifts: torch.Tensor, flips: torch.Tensor) -> torch.Tensor:
    """Images (B, C, S, S), each mirrored where flips (B,) is set, then shifted by shifts (B, 2): dy, dx."""
    batch, channels, size, _ = images.shape
    grid = torch.arange(size, device=images.device)  # (S,)
    dy, dx = shifts.T.unsqueeze(2)  # (B, 1) each
    y, x = (
        grid + dy,
        torch.where(flips[:, None], size - 1 - grid, grid) + dx,
    )  # (B, S) each: where a pixel is from
    row, column = (size - 1 - (size - 1 - i.abs()).abs() for i in (y, x))  # reflected at the edges
    index = (row[:, :, None] * size + column[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
    images = images.flatten(2).gather(2, index).view_as(images)
    if channels == 1:
        images.masked_fill_((y != row)[:, None, :, None] | (x != column)[:, None, None, :], 0)
    return images


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images (N, C, H, W) at (size, size), bilinear with antialias, rounded to uint8, 4 MB of float at a time."""
    if images.shape[2:] == (size, size):
        return images
    out = images.new_empty(*images.shape[:2], size, size)
    step = max(1, 2**20 // images[0].numel())
    for start in range(0, len(images), step):
        part = images[start : start + step].float()
        shrinks = size < images.shape[2]  # antialias changes nothing in an enlargement
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=shrinks)
        out[start : start + step] = part.round_()
    return out


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
