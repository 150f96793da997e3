import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as v2

from course_utils.data import load_folder, make_loaders
from course_utils.data.sources import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(file, image=None, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (8, 8), RED)).save(file, **options)


def tree(root, **counts):
    """Files of one colour each: 0.png, 1.png ... for each class; the colour is the number of the file."""
    for label, count in counts.items():
        for i in range(count):
            save(root / label / f"{i}.png", Image.new("RGB", (8, 8), (i, 100 + i, 200 - i)))


def one(folder, file, image, size=4, **options):
    """The pixels (3, size, size) to which one image is read, in a folder of nine others."""
    save(folder / "mine" / file, image, **options)
    for i in range(1, 5):
        save(folder / "mine" / f"z{i}.png")
    return load_folder(folder, size)[0].images[0]


def error_of(folder, kind=DataError, size=4):
    with pytest.raises(kind) as error:
        load_folder(folder, size)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_test_set_is_not_every_fifth_file_by_name(tmp_path):
    tree(tmp_path, dog=11, cat=5, ant=3)
    train, test = load_folder(tmp_path, 8)
    assert train.classes == test.classes == ("ant", "cat", "dog")
    assert np.bincount(train.labels).tolist() == [3, 4, 9] and test.labels.tolist() == [1, 2, 2]
    # by name: 0, 1, 10, 2, 3, 4, ...: the fifth is 3.png, the tenth 8.png
    assert test.images[:, 0, 0, 0].tolist() == [4, 3, 8]
    assert set(train.images[train.labels == 2][:, 0, 0, 0].tolist()) == {*range(11)} - {3, 8}
    facts = [(part.split, part.complete, part.published, part.digest) for part in (train, test)]
    assert facts == [("train", True, False, None), ("test", True, False, None)]
    assert train.name == tmp_path.name and str(tmp_path.parent) not in train.source


def test_train_and_test_folders_taken_for_classes_or_mixed(tmp_path):
    tree(tmp_path / "train", cat=2, dog=3)
    tree(tmp_path / "test", dog=4)
    train, test = load_folder(tmp_path, 8)
    assert (train.classes, train.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1, 1])
    assert (test.classes, test.labels.tolist()) == (("cat", "dog"), [1, 1, 1, 1])


def test_own_images_cannot_be_trained_on(tmp_path):
    tree(tmp_path, cat=30, dog=30)
    loaders = make_loaders(load_folder(str(tmp_path), 8), 8)
    assert [len(part.arrays) for part in loaders] == [44, 4, 12]
    assert next(iter(loaders.train))[0].shape == (8, 3, 8, 8)


def test_image_not_cut_to_its_central_square_or_squashed(tmp_path):
    wide = Image.new("RGB", (16, 8), BLUE)
    wide.paste(RED, (4, 0, 8, 8))
    wide.paste(GREEN, (8, 0, 12, 8))
    found = one(tmp_path, "a.png", wide, size=8)
    assert found[:, 4].T.tolist() == [list(RED)] * 4 + [list(GREEN)] * 4


def test_image_of_the_right_size_changed_or_others_resized_otherwise_than_by_torchvision(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    assert np.array_equal(one(tmp_path, "a.png", Image.fromarray(pixels), size=32), pixels.transpose(2, 0, 1))
    found = load_folder(tmp_path, 16)[0].images[0]
    theirs = v2.resize(torch.from_numpy(pixels.transpose(2, 0, 1)), [16, 16], antialias=True).numpy()
    assert np.abs(found.astype(int) - theirs).max() <= 2


def test_transparent_image_on_black(tmp_path):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 2, 4))
    for file, kind in (("a.png", "RGBA"), ("b.png", "P"), ("c.png", "LA"), ("d.webp", "RGBA")):
        options = {"lossless": True} if file.endswith("webp") else {}
        found = one(tmp_path / file, file, image.convert(kind), **options)
        assert found[:, 0, 3].tolist() == list(WHITE), kind
        if kind != "LA":
            assert found[:, 0, 0].tolist() == list(BLUE), kind


@pytest.mark.parametrize("kind", ["L", "1", "CMYK", "YCbCr", "P", "I;16"])
def test_grey_16_bit_or_cmyk_image_refused_or_of_other_values(tmp_path, kind):
    if kind == "I;16":
        image, expected = Image.fromarray(np.full((8, 8), 150 * 257, np.uint16)), 150
    else:
        image, expected = Image.new("L", (8, 8), 255 if kind == "1" else 150).convert(kind), 150
    found = one(tmp_path, "a.tif" if kind in ("CMYK", "YCbCr") else "a.png", image)
    assert found.shape == (3, 4, 4)
    assert np.abs(found.astype(int) - (255 if kind == "1" else expected)).max() <= 2


def test_photograph_lies_on_its_side(tmp_path):
    image = Image.new("RGB", (8, 8), RED)
    image.paste(
        GREEN, (4, 0, 8, 8)
    )  # on the right; orientation 6: turn by 90 degrees clockwise to see it upright
    exif = Image.Exif()
    exif[0x0112] = 6
    found = one(tmp_path, "a.png", image, size=8, exif=exif)
    assert found[:, 0, 0].tolist() == list(RED) and found[:, 7, 0].tolist() == list(GREEN)


def test_animation_gives_another_image_than_its_first(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, BLUE)]
    found = one(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert found[:, 0, 0].tolist() == list(GREEN)


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: b"<html>", lambda d: d[: len(d) // 2]])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_broken_image_gives_a_traceback_or_no_name(tmp_path, ending, damage):
    tree(tmp_path, cat=5)
    file = tmp_path / "cat" / f"broken.{ending}"
    save(file, Image.effect_noise((64, 64), 50))
    file.write_bytes(damage(file.read_bytes()))
    message = error_of(tmp_path)
    assert str(file) in message and "Replace or delete it" in message


@pytest.mark.parametrize("what", ["cat/3.png", "cat"])
def test_unreadable_image_said_to_be_broken(shared, another_user, what):
    tree(shared, cat=5)
    load_folder(shared, 4)
    before = (shared / what).stat().st_mode
    (shared / what).chmod(0)
    with another_user:
        message = error_of(shared)
    (shared / what).chmod(before)
    assert "may not be read" in message and str(shared / what) in message and "elete" not in message


def test_file_that_is_no_image_left_out_silently(tmp_path, capsys):
    tree(tmp_path, cat=5)
    for file in ("notes.txt", "photo.heic", ".DS_Store", "._0.png"):
        (tmp_path / "cat" / file).write_bytes(b"no image")
    (tmp_path / ".cache" / "0").mkdir(parents=True)
    (tmp_path / "readme.txt").write_text("beside the classes")
    train, _ = load_folder(tmp_path, 4)
    assert (train.classes, len(train)) == (("cat",), 4)
    assert re.search(r"2 files, as notes\.txt", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("classes", "kind", "words"),
    [
        (("missing", {}), FileNotFoundError, "no folder"),
        (("", {}), DataError, "holds no folder"),
        (("", {"cat": 5, "empty": 0}), DataError, "empty holds no image"),
        (("", {"cat": 4, "dog": 2}), DataError, "no class has five images"),
        (("", {"train/cat": 4}), DataError, "holds train/ alone"),
        (("", {"train/cat": 4, "test/cat": 1, "test/cow": 1}), DataError, "cow is a class without training"),
    ],
)
def test_folder_that_cannot_be_used_gives_a_traceback(tmp_path, classes, kind, words):
    below, counts = classes
    for label in counts:
        (tmp_path / label).mkdir(parents=True)
    tree(tmp_path, **counts)
    message = error_of(tmp_path / below, kind)
    assert words in message and str(tmp_path) in message


def test_size_of_no_pixel_gives_a_traceback(tmp_path):
    assert "size is 0; expected at least 1" in error_of(tmp_path, ValueError, size=0)
