"""Data sets as arrays in memory: the published ones, checked, and the stand-in."""

import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np

from course_utils import settings
from course_utils.data import sources, standin
from course_utils.data.published import PUBLISHED
from course_utils.data.sources import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A set of labelled images in memory.

    images: uint8 (N, C, H, W), square; labels: int64 (N,), each below len(classes), from whole numbers of any kind;
    complete: the whole of what its source holds, or of a split of that; published: of one of the sets that load_arrays
    knows; source: where it came from; digest: its content digest where it is published.
    Raises ValueError where these do not fit each other.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "arrays"
    split: str = "train"
    complete: bool = False
    published: bool = False
    source: str = "memory"
    digest: str | None = None

    def __post_init__(self):
        x, y = np.asarray(self.images), np.asarray(self.labels)
        if x.dtype != np.uint8 or x.ndim != 4 or 0 in x.shape[1:]:
            raise ValueError(f"{self.name}: images are {x.dtype} {x.shape}; expected uint8 (N, C, H, W).")
        if x.shape[2] != x.shape[3] <= 4 < x.shape[1]:
            raise ValueError(
                f"{self.name}: images are {x.shape}; expected (N, C, H, W): images.transpose(0, 3, 1, 2)."
            )
        if x.shape[2] != x.shape[3]:
            raise ValueError(f"{self.name}: images are {x.shape}; expected squares: crop them to one side.")
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise ValueError(f"{self.name}: labels are {y.dtype} {y.shape}; expected int64 ({len(x)},).")
        if len(y) and not 0 <= y.min() <= y.max() < len(self.classes):
            raise ValueError(
                f"{self.name}: labels are {y.min()}..{y.max()}; expected 0..{len(self.classes) - 1}."
            )
        x, y = (a.copy() if min(a.strides) < 0 else a for a in (x, y))  # reversed
        object.__setattr__(self, "images", np.require(x, requirements="CW"))  # as torch wants them
        object.__setattr__(self, "labels", np.require(y, np.int64, "CW"))

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

    A complete published set gives 5,000 images, as many of each class; another gives a tenth of each class, at least
    one of a class that has two or more. At least half of each class stays.
    """
    digests = np.array(
        [int.from_bytes(d[:8], "big") for d in sources.sample_digests(arrays.images, arrays.labels)],
        np.uint64,
    )
    chosen = np.zeros(len(arrays), bool)
    for label in range(len(arrays.classes)):
        here = np.flatnonzero(arrays.labels == label)
        count = max(1, len(here) // 10)
        if arrays.published and arrays.complete:
            count = 5000 // len(arrays.classes)
        chosen[here[np.argsort(digests[here], kind="stable")[: min(count, len(here) // 2)]]] = True
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
        "published": True,
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
    return Arrays(images, labels, names, standin.NAME, split, True, True, source, digest)


def from_cache(
    digest: str, size: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Images and labels from the cache's file of that digest; None where it is not there, not whole or not readable."""
    pixels = size * int(np.prod(shape))
    try:
        data = np.fromfile(settings.cache() / f"{digest}.bin", np.uint8)
    except OSError:
        return None
    content, checksum = data[: pixels + size], data[pixels + size :]
    if hashlib.sha256(content).digest() != checksum.tobytes():
        return None
    return content[:pixels].reshape(size, *shape), content[pixels:].astype(np.int64), "cache"


def to_cache(digest: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images, then labels, one byte each, then their SHA-256 to the cache; nothing where that cannot be done."""
    checksum = hashlib.sha256()
    file = settings.cache() / f"{digest}.bin"
    with contextlib.suppress(OSError), settings.whole(file) as part, part.open("wb") as opened:
        for content in (np.ascontiguousarray(images), labels.astype(np.uint8)):
            checksum.update(content)
            opened.write(content)
        opened.write(checksum.digest())


def mean_and_std(arrays: Arrays) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, pixels in 0..1."""
    _, channels, height, width = arrays.images.shape
    step, values = max(1, 2**17 // (height * width)), np.arange(256) / 255
    counts = np.zeros((channels, 256), np.int64)  # how often each value occurs
    for start in range(0, len(arrays), step):
        for channel, pixels in enumerate(arrays.images[start : start + step].swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    means = (counts * values).sum(1) / counts.sum(1)  # (C,)
    variances = (counts * (values - means[:, None]) ** 2).sum(1) / counts.sum(1)
    return tuple(means.tolist()), tuple(np.sqrt(variances).tolist())


@sources.readable()
def load_folder(path: str | Path, size: int) -> tuple[Arrays, Arrays]:
    """(training, test): your own images, in one folder a class; test/ beside train/, else every fifth file by name.

    Each image is turned as its EXIF data say, cut to its central square, resized to size x size pixels and made RGB;
    transparent parts become white, of an animation the first image is taken.
    Raises FileNotFoundError, ValueError, and DataError for a folder or an image that cannot be used.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{path} is no folder; expected one that holds a folder of images a class.")
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel.")
    parts = [part for part in (root / "train", root / "test") if part.is_dir()]
    if len(parts) == 2:
        train, test = (files_by_class(part) for part in parts)
    elif parts and any(inside.is_dir() for inside in parts[0].iterdir()):
        raise DataError(
            f"{root} holds {parts[0].name}/ alone; expected train/ and test/, or a folder a class."
        )
    else:
        found = files_by_class(root)
        test = {label: files[4::5] for label, files in found.items() if files[4::5]}
        train = {label: [f for i, f in enumerate(files) if i % 5 != 4] for label, files in found.items()}
    if unknown := sorted({*test} - {*train}):
        raise DataError(
            f"{root / 'test' / unknown[0]} is a class without training images; add some or remove it."
        )
    if not test:
        raise DataError(f"{root}: no class has five images, so that none is left for the test; add some.")
    return (
        decoded(train, size, list(train), root.resolve().name, "train"),
        decoded(test, size, list(train), root.resolve().name, "test"),
    )


def files_by_class(root: Path) -> dict[str, list[Path]]:
    """Class -> its files, by name, of a folder with one folder a class; says which files are no images.

    Raises DataError for a class without images, or no class at all.
    """
    from PIL import Image

    formats = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    found, others = {}, []
    for folder in sorted(root.iterdir(), key=Path.as_posix):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        os.listdir(folder)  # raises PermissionError, which rglob passes over
        files = [f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")]
        images = [f for f in files if f.suffix.lower() in formats]
        if not images:
            raise DataError(f"{folder} holds no image that Pillow can read: add some, or delete it.")
        found[folder.name] = sorted(images, key=Path.as_posix)
        others += sorted(f.name for f in {*files} - {*images})
    if not found:
        raise DataError(f"{root} holds no folder; expected a folder of images for each class.")
    if others:
        print(f"Left out of {root.name}, as Pillow cannot read them: {len(others)} files, as {others[0]}.")
    return found


def decoded(files: dict[str, list[Path]], size: int, classes: list[str], name: str, split: str) -> Arrays:
    """The images of files by class as Arrays."""
    pairs = [(file, classes.index(label)) for label in files for file in files[label]]
    images = np.empty((len(pairs), 3, size, size), np.uint8)
    for i, (file, _) in enumerate(pairs):
        images[i] = sources.read_image(file, size)
    labels = np.array([label for _, label in pairs])
    return Arrays(images, labels, tuple(classes), name, split, complete=True, source=f"folder {name}")
