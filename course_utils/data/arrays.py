"""Data sets as arrays in memory: the published ones, checked, and the stand-in."""

import contextlib
import dataclasses
import os

import numpy as np

from course_utils import settings
from course_utils.data import sources, standin
from course_utils.data.published import PUBLISHED
from course_utils.data.sources import DataError


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A set of labelled images in memory.

    images: uint8 (N, C, H, W); labels: int64 (N,), each below len(classes); complete: the whole published set or
    split of it; source: where it came from; digest: its content digest where it is a published set.
    Raises ValueError where these do not fit each other.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "arrays"
    split: str = "train"
    complete: bool = False
    source: str = "memory"
    digest: str | None = None

    def __post_init__(self):
        x, y = self.images, self.labels
        if x.dtype != np.uint8 or x.ndim != 4:
            raise ValueError(f"{self.name}: images are {x.dtype} {x.shape}; expected uint8 (N, C, H, W).")
        if y.dtype != np.int64 or y.shape != x.shape[:1]:
            raise ValueError(f"{self.name}: labels are {y.dtype} {y.shape}; expected int64 ({len(x)},).")
        if len(y) and not 0 <= y.min() <= y.max() < len(self.classes):
            raise ValueError(
                f"{self.name}: labels are {y.min()}..{y.max()}; expected 0..{len(self.classes) - 1}."
            )

    def __len__(self):
        return len(self.labels)


def take(arrays: Arrays, index: np.ndarray, *, complete: bool = False) -> Arrays:
    """The samples at `index`, in that order."""
    return dataclasses.replace(
        arrays,
        images=arrays.images[index],
        labels=arrays.labels[index],
        complete=complete and arrays.complete,
    )


def validation_split(arrays: Arrays) -> tuple[Arrays, Arrays]:
    """(rest, validation): of each class the images whose SHA-256 is smallest, whatever the order of the set.

    A complete set gives 5,000 images, as many of each class; another gives a tenth of each class, at least one.
    """
    digests = np.array(
        [int.from_bytes(d[:8], "big") for d in sources.sample_digests(arrays.images, arrays.labels)],
        np.uint64,
    )
    chosen = np.zeros(len(arrays), bool)
    for label in range(len(arrays.classes)):
        here = np.flatnonzero(arrays.labels == label)
        count = 5000 // len(arrays.classes) if arrays.complete else max(1, len(here) // 10)
        chosen[here[np.argsort(digests[here], kind="stable")[:count]]] = True
    rest, validation = (take(arrays, np.flatnonzero(rows), complete=True) for rows in (~chosen, chosen))
    return rest, dataclasses.replace(validation, split="validation")


def first_of_each(arrays: Arrays, limit: int) -> Arrays:
    """The first `limit` images with as many of each class, in their order. Raises ValueError below one a class."""
    per_class = limit // len(arrays.classes)
    if per_class < 1:
        raise ValueError(f"limit is {limit}; expected at least {len(arrays.classes)}, one image a class.")
    rows = [np.flatnonzero(arrays.labels == label)[:per_class] for label in range(len(arrays.classes))]
    index = np.sort(np.concatenate(rows))
    return take(arrays, index, complete=len(index) == len(arrays))


def load_arrays(name: str, split: str) -> Arrays:
    """The whole published split `train` or `test` of mnist, fashion, cifar100, cifar10 or tinted_fashion_100.

    Looked for in the cache, the folders (COURSE_DATA, the checkout's data/, the user's cache) and, but for the
    profile `smoke`, the network; its content is checked against the published digest. Where CIFAR is missing, the
    profile `smoke` and COURSE_STANDIN=1 give the stand-in under its own name. Raises ValueError, DataError.
    """
    if name not in (*PUBLISHED, standin.NAME):
        raise ValueError(f"no data set {name!r}; expected one of {', '.join((*PUBLISHED, standin.NAME))}.")
    if split not in ("train", "test"):
        raise ValueError(
            f"no split {split!r}; expected 'train' or 'test' (validation_split divides the first)."
        )
    if name == standin.NAME:
        return load_standin(split)
    known = PUBLISHED[name]
    facts = {
        "classes": known.classes,
        "name": name,
        "split": split,
        "complete": True,
        "digest": known.digests[split],
    }
    found = from_cache(known.digests[split], known.sizes[split], known.shape) or sources.from_folders(
        name, split
    )
    smoke = settings.profile() == "smoke"
    if found is None and known.shape[0] == 3 and (smoke or os.environ.get("COURSE_STANDIN") == "1"):
        print(
            f"{name} is not here: {standin.NAME}, computed from Fashion-MNIST, takes its place and its own name."
        )
        return load_standin(split)
    if found is None and smoke:
        raise DataError(
            f"{name} is in no folder, and the profile smoke downloads nothing. Set COURSE_PROFILE=cpu."
        )
    images, labels, source = found or sources.download(name, split)
    to_cache(known.digests[split], images, labels)
    return Arrays(images, labels, source=source, **facts)


def load_standin(split: str) -> Arrays:
    """The split of tinted_fashion_100, from the cache or computed from Fashion-MNIST and checked."""
    garments = PUBLISHED["fashion"].classes
    names = tuple(f"{tint} {garment}" for garment in garments for tint in standin.TINTS)
    size, digest = PUBLISHED["fashion"].sizes[split], standin.DIGESTS[split]
    found = from_cache(digest, size, (3, 32, 32))
    if found is None:
        fashion = load_arrays("fashion", split)
        first = 0 if split == "train" else PUBLISHED["fashion"].sizes["train"]
        images, labels = standin.tint(fashion.images, fashion.labels, first)
        if sources.content_digest(images, labels) != digest:
            raise DataError(
                f"{standin.NAME}: computed pixels differ from the committed digest; please report it."
            )
        to_cache(digest, images, labels)
        found = images, labels, "computed"
    images, labels, source = found
    return Arrays(images, labels, names, standin.NAME, split, True, source, digest)


def from_cache(
    digest: str, size: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Images and labels from the cache's file of that digest; None without it or where its size is wrong."""
    file, pixels = settings.cache() / f"{digest}.bin", size * int(np.prod(shape))
    if not file.is_file() or file.stat().st_size != pixels + size:
        return None
    data = np.fromfile(file, np.uint8)
    return data[:pixels].reshape(size, *shape), data[pixels:].astype(np.int64), "cache"


def to_cache(digest: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images, then labels, one byte each, to the cache; nothing where the cache cannot be written."""
    file = settings.cache() / f"{digest}.bin"
    if file.is_file() and file.stat().st_size == images.size + labels.size:
        return
    with contextlib.suppress(OSError), settings.whole(file) as part:
        part.write_bytes(images.tobytes() + labels.astype(np.uint8).tobytes())


def mean_and_std(arrays: Arrays) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, pixels in 0..1."""
    means, stds = [], []
    for channel in range(arrays.images.shape[1]):
        counts = np.bincount(arrays.images[:, channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = float((counts * values).sum() / counts.sum())
        means.append(mean)
        stds.append(float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())))
    return tuple(means), tuple(stds)
