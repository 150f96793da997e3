"""The published sets: where they are looked for, how they are read, and whether they are what was published."""

import contextlib
import gzip
import hashlib
import io
import os
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from course_utils.data.published import PUBLISHED
from course_utils.settings import cache, checkout

SOCKET_SECONDS = 20  # torchvision's downloads have no time-out of their own
HUB_SECONDS = 5  # for the hub's first answer


class DataError(Exception):
    """A data set that is missing, cut short or not what was published."""


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """A file or folder that this user may not read is said to be that: a DataError, not PermissionError."""
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"{error.filename or error} may not be read by this user. Ask its owner for the right to read it, or name "
            "another folder."
        ) from None


def sample_digests(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    """SHA-256 of each sample: the bytes of its image, uint8 (C, H, W), then its label in one byte.

    Labels above 255 take as many bytes, low byte first, as they need.
    """
    ends = [int(y).to_bytes((int(y).bit_length() + 7) // 8 or 1, "little") for y in labels]
    return [hashlib.sha256(x.tobytes() + end).digest() for x, end in zip(images, ends, strict=True)]


def content_digest(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 of a set's content, the same for every container and every order.

    images: uint8 (N, C, H, W); labels: (N,).
    """
    return hashlib.sha256(b"".join(sorted(sample_digests(images, labels)))).hexdigest()


def verify(name: str, split: str, images: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Raise a DataError that names `file` unless this is the published split."""
    published, digest = PUBLISHED[name], PUBLISHED[name].digests[split]
    shape = (published.sizes[split], *published.shape)
    if images.shape != shape or labels.shape != shape[:1]:
        found = f"images {images.shape}, labels {labels.shape}, expected {shape}, {shape[:1]}"
    elif not 0 <= labels.min() <= labels.max() < len(published.classes):
        found = f"labels {labels.min()}..{labels.max()}, expected 0..{len(published.classes) - 1}"
    elif (computed := content_digest(images, labels)) != digest:
        found = f"digest {computed[:12]}..., expected {digest[:12]}..."
    else:
        return
    raise DataError(
        f"{name}: {file} has other pixels or labels than the published {split} set ({found}). "
        "Delete it and run again to get it anew."
    )


def folders() -> list[Path]:
    """Where a set is looked for, in this order: COURSE_DATA, the checkout's data/, the user's cache."""
    named = os.environ.get("COURSE_DATA")
    if named and not Path(named).expanduser().is_dir():
        raise DataError(f"COURSE_DATA is {named!r}, which is no folder. Set it to a folder, or unset it.")
    found = [Path(named).expanduser()] if named else []
    return found + ([checkout() / "data"] if checkout() else []) + [cache()]


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; raises PermissionError where this user may not know."""
    try:
        return bool(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in an idx file, packed (.gz) or not. Raises DataError."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if data[:4] != bytes((0, 0, 8, ndim)):
            raise ValueError(f"no idx file of uint8 with {ndim} axes")
        shape = np.frombuffer(data, ">u4", ndim, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape).copy()
    except PermissionError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} is cut short or damaged ({error}). Delete it and run again to get it anew."
        ) from None


def read_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, Path] | None:
    """Images (N, 1, 28, 28), labels (N,) and the image file of MNIST/raw or FashionMNIST/raw; None without the files."""
    prefix = {"train": "train", "test": "t10k"}[split]
    paths = []
    for stem in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        here = [path for path in (folder / stem, folder / f"{stem}.gz") if exists(path)]
        if not here:
            return None
        paths.append(here[0])
    return read_idx(paths[0], 3)[:, None], read_idx(paths[1], 1).astype(np.int64), paths[0]


def read_cifar(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray, Path] | None:
    """Images (N, 3, 32, 32), labels (N,) and the folder or archive, read and checked by torchvision; None without."""
    from torchvision import datasets

    folder, reader = root / PUBLISHED[name].folder, getattr(datasets, PUBLISHED[name].torchvision)
    if not exists(folder):
        archive = root / reader.filename
        return read_archive(name, archive, reader.tgz_md5, split) if exists(archive) else None
    os.listdir(folder)  # raises PermissionError, where torchvision would miss files
    try:
        data = reader(root, train=split == "train")
    except RuntimeError:
        check = datasets.utils.check_integrity
        files = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
        bad = ", ".join(file for file, md5 in files if not check(folder / file, md5))
        raise DataError(
            f"{name}: {bad} in {folder}: missing, or not the published file (md5). "
            "Delete that folder and run again to get it anew."
        ) from None
    images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
    return images, np.array(data.targets, dtype=np.int64), folder


def read_archive(name: str, archive: Path, md5: str, split: str) -> tuple[np.ndarray, np.ndarray, Path]:
    """What read_cifar returns, from the packed archive, which stays as it is: its folder may be read-only."""
    from torchvision.datasets import utils

    if not utils.check_integrity(archive, md5):
        raise DataError(
            f"{name}: {archive} is cut short or not the published file (md5). Delete it and download it anew."
        )
    with tempfile.TemporaryDirectory() as part:
        try:
            utils.extract_archive(archive, part)
        except OSError as error:
            raise DataError(f"{name}: {archive} cannot be unpacked in {part} ({error}).") from None
        images, labels, _ = read_cifar(name, Path(part), split)
    return images, labels, archive


def read_parquet(name: str, path: Path) -> tuple[np.ndarray, np.ndarray, Path]:
    """Images (N, C, H, W) and labels (N,) of one of the hub's parquet files. Raises DataError for a damaged one."""
    import pyarrow.parquet
    from PIL import Image

    (image, label), (channels, *size) = PUBLISHED[name].columns, PUBLISHED[name].shape
    try:
        table = pyarrow.parquet.read_table(path, columns=[image, label])
        encoded = (row["bytes"] for row in table[image].to_pylist())
        images = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in encoded])
        images = images.reshape(-1, *size, channels).transpose(0, 3, 1, 2)
        labels = np.asarray(table[label], dtype=np.int64)
    except PermissionError:
        raise PermissionError(13, "Permission denied", str(path)) from None  # pyarrow's names no file
    except Exception as error:  # pyarrow and Pillow raise many kinds for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: {path} cannot be read ({reason}). Delete it and run again to get it anew."
        ) from None
    return np.ascontiguousarray(images), labels, path


def read_image(file: Path, size: int) -> np.ndarray:
    """The central square of an image of any kind that Pillow reads, upright: uint8 (3, size, size). Raises DataError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # grey in 16 bits, which Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.fit(image.convert("RGBA"), (size, size), Image.Resampling.BILINEAR)
        white = Image.new("RGBA", image.size, "white")
        pixels = np.asarray(Image.alpha_composite(white, image).convert("RGB"))  # (size, size, 3)
    except PermissionError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file} is no image that can be read ({reason}). Replace or delete it.") from None
    return pixels.transpose(2, 0, 1)


@readable()
def from_folders(name: str, split: str) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Images, labels and their folder, from the first of `folders` that has the set, checked; None where none has."""
    for root in folders():
        try:
            found = from_folder(name, root, split)
        except PermissionError:
            if root != cache():  # a cache that may not be read is an empty one
                raise
            continue
        if found is not None:
            verify(name, split, *found)
            return *found[:2], f"folder {root.name}"
    return None


def from_folder(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray, Path] | None:
    """Images, labels and their file or folder, in whichever form `root` has the set; None where it has not."""
    if name in ("mnist", "fashion"):
        found = read_mnist(root / PUBLISHED[name].folder, split)
    else:
        found = read_cifar(name, root, split)
    parquet = root / "hub" / PUBLISHED[name].hub / f"{split}-00000-of-00001.parquet"
    return read_parquet(name, parquet) if found is None and exists(parquet) else found


def from_hub(name: str, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Images and labels from the hub, through its own client, cache and settings; checked."""
    import huggingface_hub as hub

    owner, repository, config = PUBLISHED[name].hub.split("/")
    file = (f"{owner}/{repository}", f"{config}/{split}-00000-of-00001.parquet")
    path = hub.try_to_load_from_cache(*file, repo_type="dataset")
    if not isinstance(path, str):
        # one attempt: hf_hub_download tries a hub that does not answer for 23 seconds and more
        hub.get_hf_file_metadata(hub.hf_hub_url(*file, repo_type="dataset"), token=False, timeout=HUB_SECONDS)
        path = hub.hf_hub_download(*file, repo_type="dataset", token=False)
    found = read_parquet(name, Path(path).resolve())
    verify(name, split, *found)
    return *found[:2], f"hub {owner}/{repository}"


def from_torchvision(name: str, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Images and labels by torchvision's download (CIFAR: Toronto), kept in the checkout's data/ or the cache."""
    from torchvision import datasets

    published = PUBLISHED[name]
    root = checkout() / "data" if checkout() and os.access(checkout() / "data", os.W_OK) else cache()
    root.mkdir(parents=True, exist_ok=True)
    slow = "; its host has been slow since June 2026: 85 kB/s, 40 minutes" if published.shape[0] == 3 else ""
    print(f"{name}: torchvision downloads {published.megabytes} MB{slow}. Interrupt it to take another way.")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_SECONDS)
    try:
        with tempfile.TemporaryDirectory(dir=root) as part:
            getattr(datasets, published.torchvision)(part, download=True)
            (root / published.folder).mkdir(parents=True, exist_ok=True)
            for file in (Path(part) / published.folder).iterdir():
                os.replace(file, root / published.folder / file.name)
    finally:
        socket.setdefaulttimeout(before)
    images, labels, _ = from_folders(name, split)
    return images, labels, "torchvision's download"


def download(name: str, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Images, labels and source from the first source that answers, one attempt each.

    Raises DataError: at once for wrong content, else with every source's reason and the ways out.
    """
    ways = [from_torchvision] if name in ("mnist", "fashion") else [from_hub, from_torchvision]
    reasons = []
    for way in ways:
        try:
            return way(name, split)
        except DataError:
            raise
        except Exception as error:  # the clients' own: OSError, RuntimeError, httpx's, http.client's
            reason = str(error).strip().splitlines() or [""]
            reasons.append(
                f"{way.__name__.removeprefix('from_')}: {type(error).__name__} {reason[0][:120]}".strip()
            )
    standin = (
        "" if name in ("mnist", "fashion") else ", or set COURSE_STANDIN=1 to run on the computed stand-in"
    )
    packed = "" if name in ("mnist", "fashion") else " (its .tar.gz serves)"
    raise DataError(
        f"{name} is in none of {', '.join(str(folder) for folder in folders())} and no source gave it "
        f"({'; '.join(reasons)}). Set COURSE_DATA to a folder that holds {PUBLISHED[name].folder}{packed}, download "
        f"it by hand into data/{standin}."
    )
