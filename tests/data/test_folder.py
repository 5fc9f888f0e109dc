import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kerascnn.data import DataError, load_data, read_image


def picture(width=20, height=12, mode="RGB", seed=0):
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(pixels)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(root, number=10, classes=("cat", "ant", "bee"), suffix=".png"):
    for label, name in enumerate(classes):
        for index in range(number):
            image = picture(8, 8, seed=100 * label + index)
            save(root / name / f"{index:02d}{suffix}", image)
    return root


# ---- One image ----------------------------------------------------------------------


def test_an_image_of_the_size_comes_as_it_is(tmp_path):
    image = picture(24, 16)
    read = read_image(save(tmp_path / "a.png", image), (16, 24))
    assert read.dtype == np.uint8
    assert (read == np.asarray(image)).all()


@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60)])
def test_a_longer_image_is_cut_to_its_centre(tmp_path, width, height):
    pixels = np.zeros((height, width, 3), np.uint8)
    # The centre square and a little more, which the bicubic filter reads.
    pixels[max(0, height // 2 - 15) :, max(0, width // 2 - 15) :][:30, :30] = 200
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    assert (read_image(path, (10, 10)) == 200).all()


def test_resizing_does_not_alias(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    path = save(tmp_path / "a.png", Image.fromarray(stripes))
    inner = read_image(path, (8, 8))[:, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() < 6  # grey, and no stripes


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_colour_become_rgb(tmp_path, mode):
    image = picture(8, 8, mode)
    read = read_image(save(tmp_path / "a.png", image), (8, 8))
    expected = np.asarray(image).reshape(8, 8, -1)
    assert (read == np.broadcast_to(expected, (8, 8, 3))).all()


def test_transparency_becomes_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255  # black above, transparent black below
    path = save(tmp_path / "a.png", Image.fromarray(pixels))
    read = read_image(path, (8, 8))
    assert (read[:4] == 0).all()
    assert (read[4:] == 255).all()
    palette = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    path = save(tmp_path / "b.gif", palette, transparency=0)
    assert (read_image(path, (8, 8)) == 255).all()


def test_sixteen_bits_become_eight(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    path = save(tmp_path / "a.png", Image.fromarray(ramp))
    assert (read_image(path, (16, 16))[..., 0] == np.arange(256).reshape(16, 16)).all()


def test_sixteen_bits_of_colour_become_eight(tmp_path):
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    row = b"\0" + struct.pack(">3H", 65535, 32896, 0) * 4
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 4))
        + chunk(b"IEND", b"")
    )
    assert (read_image(path, (4, 4)) == [255, 128, 0]).all()


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".jpeg", ".JPG", ".png", ".webp"])
def test_every_format_is_read(tmp_path, suffix):
    image = Image.new("RGB", (8, 8), (200, 100, 0))
    read = read_image(save(tmp_path / f"a{suffix}", image), (8, 8))
    assert np.abs(read.astype(int) - [200, 100, 0]).max() <= 6


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 0, 0, 255)))
    assert (read_image(path, (8, 8)) < 20).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    upright = np.zeros((40, 40, 3), np.uint8)
    upright[:20, :20] = (255, 0, 0)  # red above left
    upright[:20, 20:] = (0, 255, 0)  # green above right
    # How a camera in each orientation stores it: the inverse of what EXIF says to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save(tmp_path / "a.jpg", image, exif=exif, quality=95, subsampling=0)
    read = read_image(path, (4, 4)).astype(int)
    assert np.abs(read[0, 0] - [255, 0, 0]).max() < 30
    assert np.abs(read[0, 3] - [0, 255, 0]).max() < 30
    assert read[3].max() < 30


def test_large_photographs_keep_their_look(tmp_path):
    """They are decoded at a fraction of their size: hardly another picture."""
    smooth = picture(16, 16).resize((800, 800), Image.Resampling.BICUBIC)
    path = save(tmp_path / "a.jpg", smooth, quality=95)
    exact = smooth.resize((32, 32), Image.Resampling.BICUBIC)
    difference = read_image(path, (32, 32)).astype(int) - np.asarray(exact)
    assert np.abs(difference).mean() < 2


def test_an_open_file_will_do():
    file = io.BytesIO()
    picture(8, 8).save(file, "PNG")
    assert read_image(file, (8, 8)).shape == (8, 8, 3)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path / "a.png", picture(20, 20))
    with pytest.raises(Image.DecompressionBombError):
        read_image(path)


# ---- A folder -----------------------------------------------------------------------


def test_one_subfolder_a_class_and_a_fifth_to_test_on(tmp_path):
    data = load_data(fill(tmp_path / "my pets"))
    assert (data.name, data.title) == ("my-pets", "my pets")
    assert data.labels == ("ant", "bee", "cat")
    assert data.input_shape == (32, 32, 3)
    assert np.bincount(data.test.y).tolist() == [2, 2, 2]
    assert (len(data.train), len(data.validation)) == (22, 2)
    assert "a fifth of every class is the test part" in str(data)


def test_every_image_has_the_class_of_its_folder(tmp_path):
    for label, name in enumerate(["dark", "light"]):
        for index in range(10):
            image = Image.new("RGB", (9, 7), (100 * label + index,) * 3)
            save(tmp_path / name / f"{index}.png", image)
    data = load_data(tmp_path, image_size=4, validation=4)
    seen = []
    for part in (data.train, data.validation, data.test):
        assert part.x.shape[1:] == (4, 4, 3)
        values = part.x[:, 0, 0, 0].astype(int)
        assert (values // 100 == part.y).all()
        seen += values.tolist()
    assert sorted(seen) == [*range(10), *range(100, 110)]
    again = load_data(tmp_path, image_size=4, validation=4)
    assert again.fingerprint == data.fingerprint
    assert (again.test.x == data.test.x).all()
    assert load_data(tmp_path, image_size=(3, 5)).input_shape == (3, 5, 3)


def test_train_test_and_validation_folders(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", number=3)
    data = load_data(tmp_path, validation=6)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [24, 6, 9]
    note, read = data.notes  # the parts of this test are made alike
    assert read == "Images are turned upright, cut to their centre, resized to 32x32."
    assert "9 of 9 test images are among the training images" in note
    fill(tmp_path / "val", number=2)
    data = load_data(tmp_path)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [30, 6, 9]
    with pytest.raises(ValueError, match="val has validation images: leave"):
        load_data(tmp_path, validation=6)
    fill(tmp_path / "valid", number=2)
    with pytest.raises(DataError, match="both val and valid"):
        load_data(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    assert load_data(fill(tmp_path, classes=("bus", "train"))).labels == (
        "bus",
        "train",
    )


def test_what_is_passed_over_is_said(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "extra", number=1)
    for name in ("notes.txt", "list.csv", ".hidden.png"):
        (tmp_path / "train" / "ant" / name).touch()
    (tmp_path / "train" / ".git").mkdir()
    data = load_data(tmp_path)
    assert "Folders passed over: extra." in data.notes
    assert "Files passed over as no images: list.csv, notes.txt." in data.notes
    assert data.classes == 3


def test_the_order_of_files_is_that_of_their_names(tmp_path):
    first = load_data(fill(tmp_path / "a"))
    for path in sorted((fill(tmp_path / "b")).rglob("*.png"), reverse=True):
        path.write_bytes(path.read_bytes())
    assert load_data(tmp_path / "b").fingerprint == first.fingerprint


def test_broken_images_are_counted_and_the_first_ones_named(tmp_path):
    fill(tmp_path)
    whole = (tmp_path / "ant" / "00.png").read_bytes()
    (tmp_path / "ant" / "00.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "ant" / "01.png").write_bytes(b"")
    (tmp_path / "bee" / "00.png").write_text("no image")
    (tmp_path / "cat" / "00.png").write_bytes(whole[:20])
    with pytest.raises(DataError, match="4 of 30 images cannot be read") as caught:
        load_data(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "ant" / "00.png") in message
    assert f"{tmp_path / 'ant' / '01.png'} (no image of a known format)" in message
    assert "and 1 more" in message


def test_a_bomb_in_a_folder_is_named(tmp_path, monkeypatch):
    save(fill(tmp_path) / "ant" / "huge.png", picture(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"huge\.png.*decompression bomb"):
        load_data(tmp_path)


def test_folders_without_what_it_takes_are_named(tmp_path):
    with pytest.raises(DataError, match="has no subfolders: put each class's"):
        load_data(tmp_path)
    (tmp_path / "ant").mkdir()
    (tmp_path / "bee").mkdir()
    with pytest.raises(DataError, match=r"subfolders but no images.*\.jpg"):
        load_data(tmp_path)
    fill(tmp_path, classes=("ant",))
    with pytest.raises(DataError, match=r"no images in .*bee: add some"):
        load_data(tmp_path)
    (tmp_path / "bee").rmdir()
    with pytest.raises(DataError, match="one class, 'ant': a classifier needs two"):
        load_data(tmp_path)


def test_classes_of_test_must_be_those_of_train(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", classes=("cat", "ant", "dog"))
    with pytest.raises(
        DataError, match=r"must have the same classes.*train lacks dog.*test lacks bee"
    ):
        load_data(tmp_path)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    fill(tmp_path)
    fill(tmp_path, number=1, classes=("dog",))
    with pytest.raises(DataError, match="dog has one image: without a test folder"):
        load_data(tmp_path)
    fill(tmp_path, number=2, classes=("dog",))
    data = load_data(tmp_path, validation=0)
    assert np.bincount(data.test.y).tolist() == [2, 2, 2, 1]


# ---- What lies elsewhere ------------------------------------------------------------


def test_images_in_folders_within_a_class_are_read(tmp_path):
    fill(tmp_path / "all", number=5)
    save(tmp_path / "all" / "cat" / "more" / "x.png", picture(8, 8))
    save(tmp_path / "all" / "cat" / "more" / "2023" / "y.jfif", picture(8, 8))
    (tmp_path / "all" / "ant" / "linked").symlink_to(tmp_path / "all" / "bee")
    data = load_data(tmp_path / "all", validation=0)
    assert len(data.train) + len(data.test) == 15 + 2 + 5


def test_what_is_passed_over_is_told(tmp_path):
    fill(tmp_path, number=5)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "dog").symlink_to(tmp_path / "nowhere")
    save(tmp_path / "stray.png", picture(8, 8))
    (tmp_path / "ant" / "deeper").mkdir()
    (tmp_path / "ant" / "deeper" / "list.txt").touch()
    notes = " ".join(load_data(tmp_path, validation=0).notes)
    for name in ("gone.png", "stray.png", "dog", "deeper/list.txt"):
        assert name in notes


@pytest.mark.parametrize(
    "names", [("Train", "Test", "Val"), ("training", "testing", "validation")]
)
def test_parts_by_their_other_names(tmp_path, names):
    for name in names:
        fill(tmp_path / name, number=len(name))
    data = load_data(tmp_path)
    sizes = [len(part) for part in (data.train, data.test, data.validation)]
    assert sizes == [3 * len(name) for name in names]
    assert len(load_data(tmp_path, validation=0).validation) == 0


def test_names_and_links_that_cannot_be_are_refused(tmp_path):
    fill(tmp_path / "loop", number=2)
    (tmp_path / "loop" / "cat" / "again").symlink_to(tmp_path / "loop" / "cat")
    with pytest.raises(DataError, match="again is a link that leads back to"):
        load_data(tmp_path / "loop")
    fill(tmp_path / "name", number=2)
    os.rename(tmp_path / "name" / "cat", os.fsencode(tmp_path / "name") + b"/caf\xe9")
    with pytest.raises(DataError, match="is no UTF-8: rename it"):
        load_data(tmp_path / "name")
