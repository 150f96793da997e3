import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import socket
import struct
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from PIL import Image
from torchvision import datasets

from course_utils.data import sources
from course_utils.data.arrays import load_arrays
from course_utils.data.published import CIFAR10_CLASSES, CIFAR100_CLASSES, FASHION_CLASSES, PUBLISHED
from course_utils.data.sources import DataError, content_digest

COMMITTED = Path(__file__).parents[2] / "data"
MD5 = {  # as published by their authors
    "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "FashionMNIST/raw/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "FashionMNIST/raw/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "FashionMNIST/raw/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
DIGESTS = {
    ("mnist", "train"): "54e1ab866c9484947dd4821c52bb7a43938f555d6b046be6af55247f8e6ffc64",
    ("mnist", "test"): "97b756d55950f1841ebd48df7379b9b2fc87a10d63e08d6213dad41d564e8508",
    ("fashion", "train"): "fb88a2f5c1b590c907f860b47803d006e4fa7b276cdb551799af9d443accdff7",
    ("fashion", "test"): "0b381379398a0943a88bf3864ff3f5177903dcf178030b4b74c495294b38fa7c",
}
FORMS = {"gz": "mnist", "idx": "mnist", "grey parquet": "mnist", "pickle": "cifar100", "parquet": "cifar100"}
TORONTO = "/cifar-100-python.tar.gz"
HUB = "/datasets/uoft-cs/cifar100/resolve/main/cifar100/{}"


def md5(data):
    return hashlib.md5(data).hexdigest()


def slow_digest(images, labels):
    """The published recipe, sample by sample."""
    samples = [hashlib.sha256(x.tobytes() + bytes([y])).digest() for x, y in zip(images, labels, strict=True)]
    return hashlib.sha256(b"".join(sorted(samples))).hexdigest()


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(file, "png")
    return file.getvalue()


def containers(name, split, images, labels):
    """A split in every form: {form: {file below a folder's root: bytes}}, the file with the images first."""
    image, label = PUBLISHED[name].columns
    file, rows = io.BytesIO(), [{"bytes": png(x), "path": None} for x in images]
    pyarrow.parquet.write_table(pyarrow.table({image: rows, label: labels}), file)
    parquet = {f"hub/{PUBLISHED[name].hub}/{split}-00000-of-00001.parquet": file.getvalue()}
    if name == "cifar100":
        batch = pickle.dumps({"data": images.reshape(len(images), -1), "fine_labels": labels.tolist()})
        return {"parquet": parquet, "pickle": {f"cifar-100-python/{split}": batch}}
    prefix = f"MNIST/raw/{'train' if split == 'train' else 't10k'}"
    files = {f"{prefix}-images-idx3-ubyte": idx(images[:, 0])}
    files |= {f"{prefix}-labels-idx1-ubyte": idx(labels.astype(np.uint8))}
    packed = {f"{file}.gz": gzip.compress(data) for file, data in files.items()}
    return {"grey parquet": parquet, "idx": files, "gz": packed}


def tar_gz(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, data in files.items():
            member = tarfile.TarInfo(file)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Plays the hub and a plain host on 127.0.0.1: files by path; `broken`: path to how."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.asked = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body, broken = self.server.files.get(self.path), self.server.broken.get(self.path)
        self.server.asked.append((self.command, self.path))
        if body is None or broken in ("missing", "busy"):
            return self.send_error(503 if broken == "busy" else 404)
        sent = body[: len(body) // 2] if broken else body
        cut = broken == "truncated" and self.command == "GET"
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent if cut else body)))
        self.send_header("ETag", f'"{md5(body)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)
            if broken == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed():
    """The address of a port at which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A machine of its own: empty COURSE_DATA, checkout and cache in tmp_path, profile cpu, no stand-in."""
    for folder in ("named", "checkout/data", "cache"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("COURSE_STANDIN", raising=False)
    monkeypatch.setattr(sources, "checkout", lambda: tmp_path / "checkout")
    return tmp_path


@pytest.fixture
def tiny(monkeypatch, place, server):
    """MNIST and CIFAR-100 of 20 + 10 random images, "published": .sets by name and split, .files by form.

    The server has them, and is the only hub, mirror and Toronto.
    """
    rng = np.random.default_rng(0)
    files, sets = {form: {} for form in FORMS}, {}
    for name in ("mnist", "cifar100"):
        for split, n in (("train", 20), ("test", 10)):
            images = rng.integers(256, size=(n, *PUBLISHED[name].shape), dtype=np.uint8)
            sets[name, split] = images, rng.integers(len(PUBLISHED[name].classes), size=n)
            for form, data in containers(name, split, *sets[name, split]).items():
                files[form] |= data
        digests = {split: slow_digest(*sets[name, split]) for split in ("train", "test")}
        facts = PUBLISHED[name]._replace(sizes={"train": 20, "test": 10}, digests=digests)
        monkeypatch.setitem(PUBLISHED, name, facts)
    files["pickle"]["cifar-100-python/meta"] = pickle.dumps({"fine_label_names": list(CIFAR100_CLASSES)})

    raw = {Path(file).name: data for file, data in files["gz"].items()}
    toronto = tar_gz(files["pickle"])
    server.files = {f"/mnist/{file}": data for file, data in raw.items()} | {TORONTO: toronto}
    server.files |= {HUB.format(Path(file).name): data for file, data in files["parquet"].items()}
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.url}/mnist/"])
    monkeypatch.setattr(datasets.MNIST, "resources", [(file, md5(data)) for file, data in raw.items()])
    checked = {Path(file).name: md5(data) for file, data in files["pickle"].items()}
    monkeypatch.setattr(datasets.CIFAR100, "url", server.url + TORONTO)
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", md5(toronto))
    for split in ("train", "test"):
        monkeypatch.setattr(datasets.CIFAR100, f"{split}_list", [(split, checked[split])])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": checked["meta"]}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    point_hub_at(monkeypatch, server.url)
    return SimpleNamespace(files=files, sets=sets)


def point_hub_at(monkeypatch, url):
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def put(root, files):
    for file, data in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)


def same(found, expected):
    """Whether found, Arrays, has the images and labels of expected, in their order."""
    return np.array_equal(found.images, expected[0]) and np.array_equal(found.labels, expected[1])


def error_of(name, split="train"):
    """The one line of the DataError that loading raises."""
    with pytest.raises(DataError) as error:
        load_arrays(name, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def no_network(*args):
    raise AssertionError("a socket was opened")


@pytest.mark.parametrize("file", MD5)
def test_committed_file_is_not_the_published_one(file):
    assert md5((COMMITTED / file).read_bytes()) == MD5[file]


@pytest.mark.parametrize(("name", "split"), DIGESTS)
def test_committed_set_decoded_wrongly(monkeypatch, place, name, split):
    monkeypatch.setenv("COURSE_DATA", str(COMMITTED))
    monkeypatch.setattr(socket.socket, "connect", no_network)
    found = load_arrays(name, split)
    assert found.digest == slow_digest(found.images, found.labels) == DIGESTS[name, split]
    assert (found.name, found.split, found.complete, found.source) == (name, split, True, "folder data")
    assert (
        found.labels[0]
        == {"train": {"mnist": 5, "fashion": 9}, "test": {"mnist": 7, "fashion": 9}}[split][name]
    )


@pytest.mark.parametrize("reader", [datasets.MNIST, datasets.FashionMNIST])
def test_torchvision_cannot_unpack_the_committed_files_without_a_network(monkeypatch, tmp_path, reader):
    folder = f"{reader.__name__}/raw"
    shutil.copytree(
        COMMITTED / folder, tmp_path / folder, ignore=lambda _, all: [f for f in all if f[-3:] != ".gz"]
    )
    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert [len(reader(tmp_path, train=train, download=True)) for train in (True, False)] == [60_000, 10_000]


def test_class_names_differ_from_torchvisions():
    assert tuple(datasets.FashionMNIST.classes) == FASHION_CLASSES
    assert (len(set(CIFAR100_CLASSES)), len(set(CIFAR10_CLASSES))) == (100, 10)


def test_read_only_folder_refused_or_written_to(place):
    raw = place / "named" / "MNIST" / "raw"
    shutil.copytree(
        COMMITTED / "MNIST" / "raw", raw, ignore=lambda _, all: [f for f in all if f[:4] != "t10k"]
    )
    raw.chmod(0o555)
    before = files_below(place / "named")
    assert len(load_arrays("mnist", "test")) == 10_000
    assert files_below(place / "named") == before
    raw.chmod(0o755)


@pytest.mark.parametrize("form", FORMS)
def test_container_gives_other_content(monkeypatch, place, tiny, form):
    put(place / "named", tiny.files[form])
    monkeypatch.setattr(socket.socket, "connect", no_network)
    for split in ("train", "test"):
        assert same(load_arrays(FORMS[form], split), tiny.sets[FORMS[form], split])


def test_archive_ignored_or_unpacked_into_a_read_only_folder(monkeypatch, place, tiny):
    monkeypatch.setattr(socket.socket, "connect", no_network)
    put(place / "named", {"cifar-100-python.tar.gz": tar_gz(tiny.files["pickle"])})
    (place / "named").chmod(0o555)
    for split in ("train", "test"):
        found = load_arrays("cifar100", split)
        assert same(found, tiny.sets["cifar100", split]) and found.source == "folder named"
    assert files_below(place / "named") == ["cifar-100-python.tar.gz"]
    (place / "named").chmod(0o755)


def test_archives_checked_by_another_md5_than_the_published():
    archives = {reader.filename: reader.tgz_md5 for reader in (datasets.CIFAR10, datasets.CIFAR100)}
    assert archives == {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    }


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data + b"0", lambda data: b"<html>"])
def test_damaged_archive_unpacked_or_gives_a_traceback(place, tiny, damage):
    archive = place / "checkout" / "data" / "cifar-100-python.tar.gz"
    put(archive.parent, {archive.name: damage(tar_gz(tiny.files["pickle"]))})
    message = error_of("cifar100")
    assert str(archive) in message and "md5" in message and "Delete it" in message
    archive.unlink()
    assert load_arrays("cifar100", "train").source.startswith("hub")


def test_archive_unpacked_onto_a_full_disk_gives_a_traceback(monkeypatch, place, tiny):
    put(place / "named", {"cifar-100-python.tar.gz": tar_gz(tiny.files["pickle"])})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.utils, "extract_archive", full)
    assert "No space left on device" in error_of("cifar100")


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("form", [*FORMS, "archive"])
def test_unreadable_file_said_to_be_damaged_or_passed_over(
    monkeypatch, place, tiny, shared, another_user, form, what
):
    name, files = FORMS.get(form, "cifar100"), tiny.files.get(form)
    files = files or {"cifar-100-python.tar.gz": tar_gz(tiny.files["pickle"])}
    monkeypatch.setenv("COURSE_DATA", str(shared / "data"))
    put(shared / "data", files)
    load_arrays(name, "train")  # imports what another user may not read
    for file in (place / "cache").glob("*.bin"):
        file.unlink()
    closed = shared / "data" / next(iter(files))
    closed = closed if what == "file" else closed.parent
    before = closed.stat().st_mode
    closed.chmod(0)
    with another_user:
        message = error_of(name)
    closed.chmod(before)
    assert "may not be read" in message and str(closed) in message and "elete" not in message


@pytest.mark.parametrize("what", ["file", "folder"])
def test_unreadable_cache_stops_a_load(monkeypatch, place, tiny, shared, another_user, what):
    monkeypatch.setenv("COURSE_CACHE", str(shared / "cache"))
    monkeypatch.setenv("COURSE_DATA", str(shared / "data"))
    monkeypatch.setattr(sources, "checkout", lambda: None)
    put(shared / "data", tiny.files["gz"])
    digest = load_arrays("mnist", "train").digest
    closed = shared / "cache" / (f"{digest}.bin" if what == "file" else "")
    before = closed.stat().st_mode
    closed.chmod(0)
    with another_user:
        found = load_arrays("mnist", "train")
        assert same(found, tiny.sets["mnist", "train"]) and found.source == "folder data"
    closed.chmod(before)
    assert load_arrays("mnist", "train").source == "cache"


def test_unreadable_cache_named_as_the_reason_for_a_missing_set(
    monkeypatch, place, tiny, shared, another_user, closed
):
    monkeypatch.setenv("COURSE_CACHE", str(shared / "cache"))
    (shared / "cache").mkdir(mode=0)
    monkeypatch.delenv("COURSE_DATA")
    monkeypatch.setattr(sources, "checkout", lambda: None)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{closed}/"])
    with another_user:
        assert "no source gave it" in error_of("mnist")
    (shared / "cache").chmod(0o755)


def test_folders_searched_in_another_order(place, tiny):
    images, labels = tiny.sets["mnist", "train"]
    order = {"named": 0, "checkout/data": 5, "cache": 9}
    for folder, first in order.items():  # the same content, told apart by its order
        rolled = np.roll(images, -first, axis=0), np.roll(labels, -first)
        put(place / folder, containers("mnist", "train", *rolled)["gz"])
    for folder, first in order.items():
        found = load_arrays("mnist", "train")
        assert (
            np.array_equal(found.images[0], images[first]) and found.source == f"folder {Path(folder).name}"
        )
        shutil.rmtree(place / folder / "MNIST")
        (place / "cache" / f"{found.digest}.bin").unlink()


def test_course_data_that_is_no_folder_passed_over(monkeypatch, place, tiny):
    monkeypatch.setenv("COURSE_DATA", str(place / "typo"))
    assert "COURSE_DATA" in error_of("mnist") and "typo" in error_of("mnist")


@pytest.mark.parametrize("how", ["wrong pixel", "truncated"])
@pytest.mark.parametrize("form", FORMS)
def test_damaged_file_accepted_or_its_removal_no_cure(place, tiny, form, how):
    name, root = FORMS[form], place / "checkout" / "data"
    put(root, tiny.files[form])
    images, labels = tiny.sets[name, "train"]
    changed = images ^ (np.arange(images.size) == 4321).reshape(images.shape).astype(np.uint8)
    file, data = next(iter(containers(name, "train", changed, labels)[form].items()))
    (root / file).write_bytes(data if how == "wrong pixel" else data[: len(data) // 2])
    message = error_of(name)
    assert str((root / file).parent) in message and (root / file).name in message
    if "Delete that folder" in message:
        shutil.rmtree((root / file).parent)
    else:
        assert "Delete it and run again" in message
        (root / file).unlink()
    found = load_arrays(name, "train")
    assert same(found, (images, labels)) and not found.source.startswith("folder")


@pytest.mark.parametrize("labels", ["of the test set", "out of range", "with two axes", "of another kind"])
def test_wrong_label_file_gives_a_traceback(place, tiny, labels):
    put(place / "named", tiny.files["gz"])
    file = place / "named" / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    test, train = (tiny.sets["mnist", split][1].astype(np.uint8) for split in ("test", "train"))
    data = {
        "of the test set": idx(test),
        "out of range": idx(train + 9),
        "with two axes": idx(train[:, None]),
    }
    file.write_bytes(gzip.compress(data.get(labels, b"<html>")))
    assert str(place / "named") in error_of("mnist")


@pytest.mark.parametrize("form", ["gz", "idx", "parquet", "grey parquet"])
def test_flipped_byte_gives_other_content_or_a_traceback(place, tiny, form):
    name, root = FORMS[form], place / "named"
    put(root, tiny.files[form])
    file, data = next(iter(tiny.files[form].items()))
    for position in [*range(0, 20), *range(20, len(data) - 200, 1009), *range(len(data) - 200, len(data), 7)]:
        (root / file).write_bytes(data[:position] + bytes([data[position] ^ 0x41]) + data[position + 1 :])
        try:
            images, labels, _ = sources.from_folders(name, "train")
            assert slow_digest(images, labels) == PUBLISHED[name].digests["train"]
        except DataError as error:
            assert file.split("/")[-1] in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("checkout", [True, False])
def test_missing_mnist_not_downloaded_or_half_of_it_lost(monkeypatch, place, tiny, server, checkout):
    root = place / "checkout" / "data" if checkout else place / "cache"
    if not checkout:
        monkeypatch.setattr(sources, "checkout", lambda: None)
    put(root, tiny.files["gz"])
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz").unlink()
    assert same(load_arrays("mnist", "train"), tiny.sets["mnist", "train"])
    asked = len(server.asked)
    assert same(load_arrays("mnist", "test"), tiny.sets["mnist", "test"])
    assert len(server.asked) == asked
    expected = {Path(f).name for f in tiny.files["gz"] | tiny.files["idx"]}
    assert {path.name for path in (root / "MNIST" / "raw").iterdir()} == expected
    assert [path for path in root.iterdir() if path.suffix != ".bin"] == [
        root / "MNIST"
    ]  # no temporary folder


def test_good_hub_not_asked_first(place, tiny, server):
    for split in ("train", "test"):
        found = load_arrays("cifar100", split)
        assert same(found, tiny.sets["cifar100", split]) and found.source == "hub uoft-cs/cifar100"
    assert not [path for _, path in server.asked if path == TORONTO]
    for file in (place / "cache").glob("*.bin"):
        file.unlink()
    server.asked.clear()
    assert same(load_arrays("cifar100", "train"), tiny.sets["cifar100", "train"])
    assert not server.asked  # the hub's own cache serves


@pytest.mark.parametrize("hub", ["dead", "offline", "missing", "busy", "truncated", "reset"])
def test_failing_hub_asked_twice_or_not_passed_over(monkeypatch, place, tiny, server, closed, capsys, hub):
    server.broken = {HUB.format("train-00000-of-00001.parquet"): hub}
    if hub == "dead":
        point_hub_at(monkeypatch, closed)
    if hub == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = load_arrays("cifar100", "train")
    assert same(found, tiny.sets["cifar100", "train"]) and found.source == "torchvision's download"
    assert "169 MB" in capsys.readouterr().out
    hub_asked = [command for command, path in server.asked if path.startswith("/datasets")]
    assert hub_asked.count("GET") == (hub in ("truncated", "reset"))
    assert hub_asked.count("HEAD") == {"dead": 0, "offline": 0, "missing": 1, "busy": 1}.get(hub, 2)
    assert same(load_arrays("cifar100", "test"), tiny.sets["cifar100", "test"])
    assert server.asked[-1][1] == TORONTO  # the test set lies in the folder now


@pytest.mark.parametrize("toronto", ["dead", "missing", "truncated", "reset", "wrong content"])
def test_failing_sources_end_without_the_ways_out(monkeypatch, place, tiny, server, closed, toronto):
    point_hub_at(monkeypatch, closed)
    server.broken = {TORONTO: toronto} if toronto != "wrong content" else {}
    if toronto == "dead":
        monkeypatch.setattr(datasets.CIFAR100, "url", closed + TORONTO)
    if toronto == "wrong content":
        server.files[TORONTO] = tar_gz(tiny.files["pickle"] | {"cifar-100-python/train": b"x"})
    message = error_of("cifar100")
    ways = ("hub: ", "torchvision: ", "COURSE_DATA", "COURSE_STANDIN=1", "download it by hand")
    assert all(
        way in message for way in (*ways, "cifar-100-python", str(place / "named"), str(place / "cache"))
    )
    assert not files_below(place / "checkout") and not files_below(place / "cache")
    assert socket.getdefaulttimeout() is None


def test_dead_mirror_of_mnist_offers_the_standin(monkeypatch, place, tiny, closed):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{closed}/"])
    message = error_of("mnist")
    assert "torchvision: " in message and "COURSE_STANDIN" not in message and "hub: " not in message


@pytest.mark.parametrize("hub", [True, False])
def test_wrong_content_from_a_source_accepted_or_its_removal_no_cure(
    monkeypatch, place, tiny, server, closed, hub
):
    images, labels = tiny.sets["cifar100", "train"]
    wrong = containers("cifar100", "train", images[::-1], labels)
    path, good = (HUB.format("train-00000-of-00001.parquet") if hub else TORONTO), dict(server.files)
    server.files[path] = next(iter(wrong["parquet"].values()))
    if not hub:
        files = tiny.files["pickle"] | wrong["pickle"]
        server.files[path] = tar_gz(files)
        for attribute, value in (
            ("tgz_md5", md5(server.files[path])),
            ("train_list", [("train", md5(files["cifar-100-python/train"]))]),
        ):
            monkeypatch.setattr(datasets.CIFAR100, attribute, value)
        point_hub_at(monkeypatch, closed)
    message = error_of("cifar100")
    named = Path(message.removeprefix("cifar100: ").split(" has other pixels")[0])
    assert named.exists() and "Delete it and run again" in message
    named.unlink() if hub else shutil.rmtree(named)
    point_hub_at(monkeypatch, server.url)
    server.files = good
    assert same(load_arrays("cifar100", "train"), (images, labels))


def test_content_digest_depends_on_the_order_or_misses_a_change():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(9, 3, 4, 5), dtype=np.uint8), np.arange(9)
    order = rng.permutation(9)
    digest = content_digest(images, labels)
    assert digest == slow_digest(images, labels) == content_digest(images[order], labels[order])
    assert digest == content_digest(np.asfortranarray(images), labels)
    assert digest not in (content_digest(images[order], labels), content_digest(images ^ 1, labels))
    assert content_digest(images, labels + 256) != content_digest(images, labels + 512)
