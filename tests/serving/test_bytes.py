"""Encoded images: the graph decodes and resizes as `kerascnn.data.read_image`."""

import functools
import io
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerascnn import serving
from kerascnn.data import read_image


def photograph(height, width, seed=0):
    """Waves, checks and noise: detail that a careless decoder or resize shows in."""
    y, x = np.mgrid[:height, :width]
    red = 127 + 60 * np.sin(x / 9) + 40 * np.sin(y / 5)
    green = 127 + 80 * np.cos((x + y) / 7)
    blue = 255 * ((x // 20 + y // 20) % 2)
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width, 3))
    return (np.stack([red, green, blue], -1) + noise).clip(0, 255).astype(np.uint8)


def encode(pixels, kind, mode=None, **options):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def pillow(encoded, size, mode="RGB"):
    """Read a file as `read_image` does, then in another mode."""
    pixels = read_image(io.BytesIO(encoded), size)
    return np.asarray(Image.fromarray(pixels).convert(mode)).reshape(*size, -1)


def calm(pixels):
    """Halve the contrast, so that no interpolation leaves the range of the levels."""
    return (pixels // 2 + 64).astype(np.uint8)


@pytest.fixture(scope="module")
def looking_glass(tmp_path_factory):
    """Publish networks whose probabilities tell the pixels that reach them.

    They have a class a pixel, plus one: pixel i of channel c is scaled so that the
    probability of class i is proportional to its level.
    """

    @functools.cache
    def publish(height, width, channels):
        image = keras.Input((height, width, channels))
        flat = keras.layers.Flatten()(image)
        numbers = height * width * channels
        level = flat / (512.0 * numbers)
        rest = 1.0 - keras.ops.sum(level, axis=-1, keepdims=True)
        output = keras.layers.Concatenate()([level, rest])
        folder = tmp_path_factory.mktemp("glass")
        version = serving.export(keras.Model(image, output), folder)
        served = serving.open_version(version)

        def look(encoded):
            level = served.ask(encoded)["probabilities"][:, :-1]
            pixels = level.reshape(-1, height, width, channels) * 512 * numbers
            assert np.abs(pixels - pixels.round()).max() < 0.02  # whole grey levels
            return pixels.round().astype(int)

        return look

    return publish


COLOUR = [
    encode(photograph(240, 320), "JPEG", quality=75),
    encode(photograph(240, 320, 1), "JPEG", quality=95, subsampling=0),
    encode(photograph(97, 41), "PNG"),
    encode(photograph(20, 25), "PNG"),
    encode(photograph(240, 320), "JPEG", mode="L"),
    encode(photograph(97, 41), "PNG", mode="L"),
    encode(photograph(97, 41), "PNG", mode="P"),
    encode(photograph(240, 320), "JPEG", progressive=True),
]


@pytest.mark.parametrize("size", [(12, 20), (16, 16)])
def test_pixels_are_those_of_read_image(looking_glass, size):
    seen = looking_glass(*size, 3)(COLOUR)
    expected = np.stack([pillow(encoded, size) for encoded in COLOUR]).astype(int)
    difference = np.abs(seen - expected)
    # Pillow resizes rows, then columns, and rounds to 0…255 in between.
    assert difference.mean(axis=(1, 2, 3)).max() < 0.5
    assert np.quantile(difference, 0.99) <= 3
    stretched = [
        Image.open(io.BytesIO(c)).convert("RGB").resize(size[::-1]) for c in COLOUR
    ]
    assert np.abs(seen - np.stack(stretched)).mean() > 5


def test_pixels_without_overshoot(looking_glass):
    files = [
        encode(calm(photograph(*shape)), kind)
        for shape in [(240, 320), (97, 41), (20, 25), (30, 300)]
        for kind in ("JPEG", "PNG")
    ]
    seen = looking_glass(12, 20, 3)(files)
    expected = np.stack([pillow(encoded, (12, 20)) for encoded in files]).astype(int)
    assert np.abs(seen - expected).max() <= 1


def test_images_of_the_networks_size_are_decoded_exactly(looking_glass):
    pixels = photograph(12, 20)
    files = [
        encode(pixels, "PNG"),
        encode(pixels, "JPEG", quality=60),
        encode(pixels, "JPEG", quality=95),
        encode(pixels, "PNG", mode="1"),
        encode(pixels, "PNG", mode="L"),
        encode(pixels, "PNG", mode="P"),
        encode(pixels // 16 * 16, "PNG", mode="P", bits=8),
    ]
    for colours in (4, 16):  # 2 and 4 bits a pixel
        few = Image.fromarray(pixels).quantize(colours)
        file = io.BytesIO()
        few.save(file, "PNG")
        files.append(file.getvalue())
    seen = looking_glass(12, 20, 3)(files)
    assert np.array_equal(seen[0], pixels)
    for number, encoded in enumerate(files):
        assert np.array_equal(seen[number], pillow(encoded, (12, 20))), number


def test_transparency_becomes_white(looking_glass):
    pixels = photograph(12, 20)
    alpha = np.random.default_rng(0).integers(0, 256, (12, 20, 1), np.uint8)
    alpha[:3] = 0
    palette = Image.fromarray(pixels).quantize(4)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=bytes([0, 3, 128, 255]))
    files = [
        encode(np.concatenate([pixels, alpha], -1), "PNG"),
        encode(np.concatenate([pixels, alpha], -1), "PNG", mode="LA"),
        file.getvalue(),
    ]
    seen = looking_glass(12, 20, 3)(files)
    expected = np.stack([pillow(encoded, (12, 20)) for encoded in files]).astype(int)
    assert np.abs(seen - expected).max() <= 1
    assert (seen[:2, :3] == 255).all()


def turned(orientation, order="<", first=True):
    """Encode an image with an EXIF orientation, in either byte order."""
    tags = [(0x0112, orientation), (0x0128, 2)]
    tags = tags if first else [(0x0100, 6), (0x0101, 8), *tags]
    directory = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        directory += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    start = b"II" if order == "<" else b"MM"
    header = start + struct.pack(order + "HI", 42, 8)
    exif = b"Exif\0\0" + header + directory + b"\0\0\0\0"
    return encode(calm(photograph(30, 52)), "JPEG", exif=exif)


def test_images_are_turned_upright(looking_glass):
    files = [
        turned(orientation, order, first)
        for orientation in range(1, 9)
        for order in "<>"
        for first in (True, False)
    ]
    seen = looking_glass(12, 20, 3)(files)
    expected = np.stack([pillow(encoded, (12, 20)) for encoded in files]).astype(int)
    assert np.abs(seen - expected).max() <= 1
    # The four files of an orientation are one image, and the orientations differ.
    assert np.abs(seen.reshape(8, 4, -1) - seen[::4].reshape(8, 1, -1)).max() == 0
    assert len({image.tobytes() for image in seen}) == 8


def test_exif_that_is_damaged_is_passed_over(looking_glass):
    whole = turned(6)
    at = whole.index(b"Exif\0\0") + 6
    files = [
        turned(0),
        turned(9),
        whole[: at + 4] + b"\xff\xff\xff\xff" + whole[at + 8 :],  # beyond the file
        whole[: at + 4] + b"\x00\x00\xff\x00" + whole[at + 8 :],
    ]
    seen = looking_glass(12, 20, 3)(files)
    level = looking_glass(12, 20, 3)([turned(1)])
    assert np.abs(seen - level).max() == 0


def test_grey_networks(looking_glass):
    look = looking_glass(12, 20, 1)
    exact = [
        encode(photograph(12, 20), "PNG"),
        encode(photograph(12, 20), "JPEG"),
        encode(photograph(12, 20), "PNG", mode="L"),
    ]
    expected = np.stack([pillow(encoded, (12, 20), "L") for encoded in exact])
    assert np.array_equal(look(exact), expected)
    resized = [encode(calm(photograph(*s)), "JPEG") for s in [(240, 320), (20, 25)]]
    expected = np.stack([pillow(encoded, (12, 20), "L") for encoded in resized])
    assert np.abs(look(resized) - expected.astype(int)).max() <= 1


def test_networks_of_four_channels(looking_glass):
    look = looking_glass(12, 20, 4)
    rgba = np.random.default_rng(0).integers(0, 256, (12, 20, 4), np.uint8)
    assert np.array_equal(look([encode(rgba, "PNG")])[0], rgba)
    opaque = look([encode(rgba[..., :3], "PNG")])[0]
    assert np.array_equal(opaque[..., :3], rgba[..., :3])
    assert (opaque[..., 3] == 255).all()
    with pytest.raises(tf.errors.InvalidArgumentError):
        look([encode(rgba[..., :3], "JPEG")])


def test_networks_of_five_channels_take_pixels_only(tiny, tmp_path):
    version = serving.export(tiny(channels=5), tmp_path)
    assert set(tf.saved_model.load(str(version)).signatures) == {"serving_default"}
    images = np.zeros((2, 8, 8, 5), np.uint8)
    assert serving.open_version(version).ask(images)["probabilities"].shape == (2, 3)


def test_probabilities_from_files(version, network):
    """Files and Pillow's pixels agree as closely as one grey level lets them."""
    files = [
        encode(calm(photograph(*shape)), kind)
        for shape in [(240, 320), (97, 41), (20, 25), (500, 333)]
        for kind in ("JPEG", "PNG")
    ]
    pixels = np.stack([pillow(encoded, (32, 32)) for encoded in files])
    expected = network.predict(pixels, verbose=0)
    noise = np.random.default_rng(0).integers(-1, 2, (8, *pixels.shape))
    one_level = max(
        np.abs(network.predict((pixels + n).clip(0, 255), verbose=0) - expected).max()
        for n in noise
    )
    served = serving.open_version(version).ask(files)["probabilities"]
    assert np.abs(served - expected).max() <= one_level < 2e-3


def test_png_of_the_networks_size_gives_the_same_answer(version, images):
    files = [encode(image, "PNG") for image in images]
    by_file = serving.open_version(version).ask(files)["probabilities"]
    by_pixels = serving.open_version(version).ask(images)["probabilities"]
    assert np.array_equal(by_file, by_pixels)


@pytest.mark.parametrize("encoded", [b"", b"no image", COLOUR[0][:200]])
def test_what_is_no_image(version, encoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        serving.open_version(version).ask([COLOUR[2], encoded])


def test_arrays_that_are_not_uint8(version, images):
    with pytest.raises(ValueError, match=r"uint8.*received float32"):
        serving.open_version(version).ask(images.astype(np.float32) / 255)
    with pytest.raises(tf.errors.InvalidArgumentError):
        serving.open_version(version).ask(images[:, :16])
