"""The graph that decodes images does what `read_image` does, file by file."""

import io
import re
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, PngImagePlugin

from kerascnn.data import read_image
from kerascnn.serving.decoding import decode

LEVELS = 1  # of 255, that bicubic resizing may be off; nothing where nothing is resized


def waves(*channels_of, size=(20, 28)):
    """A calm picture (height, width, channels), uint8: neighbours hardly differ."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [127.5 + 127 * np.sin(x / a + y / b) for a, b in channels_of]
    return np.rint(np.stack(waves, -1)).astype(np.uint8)


RGB = waves((9, 7), (5, 11), (13, 6))
RGBA = waves((9, 7), (5, 11), (13, 6), (4, 5))


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def graph():
    """`decode`, once as the operations of a graph: what a server runs."""
    made = {}

    def run(data, shape):
        if shape not in made:
            spec = tf.TensorSpec((), tf.string)
            made[shape] = tf.function(
                lambda b: decode(b, shape), input_signature=[spec]
            )
        return made[shape](tf.constant(data)).numpy()

    return run


@pytest.fixture(scope="module")
def agree(graph):
    def compare(data, shape, levels=LEVELS):
        local = read_image(io.BytesIO(data), shape[:2], shape[2]).astype(int)
        assert np.abs(graph(data, shape) - local).max() <= levels

    return compare


def tiff(value, order="<", kind=3, count=1, before=()):
    """An EXIF directory: other entries, then the orientation."""
    pack = {1: "B", 3: "H", 4: "I", 9: "i"}[kind]
    entries = [struct.pack(order + "HHII", *entry) for entry in before]
    own = struct.pack(order + pack, value).ljust(4, b"\0")
    entries.append(struct.pack(order + "HHI", 0x0112, kind, count) + own)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    body = struct.pack(order + "H", len(entries)) + b"".join(entries)
    return head + body + bytes(4)


def chunk(kind, body):
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body))
    )


def with_chunk(png, made, *, behind=False):
    """A PNG file with another chunk, before or behind the pixels."""
    place = len(png) - 12 if behind else 33  # IEND has 12 bytes, signature and IHDR 33
    return png[:place] + made + png[place:]


def profile(exif):
    """EXIF as ImageMagick writes it into a text."""
    digits = (b"Exif\0\0" + exif).hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return "\n".join(["", "exif", f"{len(digits) // 2:8}", *lines, ""]).encode()


def xmp(orientation, element=False):
    told = (
        f"<tiff:Orientation>{orientation}</tiff:Orientation>"
        if element
        else f'<rdf:Description tiff:Orientation="{orientation}"/>'
    )
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{told}</x:xmpmeta>'.encode()


WAYS = {
    "eXIf": lambda exif, n: chunk(b"eXIf", exif),
    "eXIf with its name": lambda exif, n: chunk(b"eXIf", b"Exif\0\0" + exif),
    "tEXt": lambda exif, n: chunk(b"tEXt", b"Raw profile type exif\0" + profile(exif)),
    "zTXt": lambda exif, n: chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile(exif))
    ),
    "XMP": lambda exif, n: chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(n)),
    "packed XMP": lambda exif, n: chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + zlib.compress(xmp(n, element=True))
    ),
    "comment before": lambda exif, n: (
        chunk(b"tEXt", b"Comment\0eXIf tiff:Orientation")
        + chunk(b"iTXt", "Titel\0\0\0de\0Titel\0Käfer".encode())
        + chunk(b"eXIf", exif)
    ),
}


@pytest.mark.parametrize("orientation", [0, 2, 5, 6, 8])
@pytest.mark.parametrize("way", WAYS)
def test_png_is_turned_upright(agree, way, orientation):
    png = saved(Image.fromarray(RGB))
    made = WAYS[way](tiff(orientation), orientation)
    for behind in (False, True):
        agree(with_chunk(png, made, behind=behind), (20, 28, 3))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_every_kind_of_png_is_turned(agree, mode, orientation):
    png = saved(of_mode(mode))
    data = with_chunk(png, chunk(b"eXIf", tiff(orientation, ">")))
    size = (28, 20) if orientation > 4 else (20, 28)
    for channels in (1, 3, 4):
        agree(data, (*size, channels))


def of_mode(mode):
    if mode == "I;16":
        return Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    image = Image.fromarray(RGBA if "A" in mode else RGB)
    return image.convert(mode)


# Orientations in rare forms

FORMS = {
    "short": tiff(6),
    "big-endian": tiff(6, ">"),
    "long": tiff(6, kind=4),
    "long, big-endian": tiff(6, ">", 4),
    "signed long, big-endian": tiff(6, ">", 9),
    "a byte": tiff(6, kind=1),
    "two of them": tiff(6, count=2),
    "the last of 100 entries": tiff(6, before=[(256 + n, 4, 1, n) for n in range(99)]),
    "twice": tiff(6, before=[(0x0112, 3, 1, 3)]),
    "nine": tiff(9),
    "minus one": tiff(-1, kind=9),
}


def with_segments(*segments):
    jpeg = saved(Image.fromarray(RGB), "JPEG", quality=95)
    made = [
        b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body
        for kind, body in segments
    ]
    return jpeg[:2] + b"".join(made) + jpeg[2:]


@pytest.mark.parametrize("form", FORMS)
def test_rare_forms_of_exif(agree, form):
    exif = b"Exif\0\0" + FORMS[form]
    agree(with_segments((0xE1, exif)), (20, 28, 3))
    png = saved(Image.fromarray(RGB))
    agree(with_chunk(png, chunk(b"eXIf", FORMS[form])), (20, 28, 3))


SEGMENTS = {
    "behind 130 kB": [(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65000))] * 2,
    "behind a comment": [(0xFE, b"Exif\0\0 is text")],
    "behind XMP": [(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(3))],
    "behind an empty segment": [(0xEB, b"")],
}


@pytest.mark.parametrize("where", SEGMENTS)
def test_where_exif_stands(agree, where):
    data = with_segments(*SEGMENTS[where], (0xE1, b"Exif\0\0" + tiff(6)))
    agree(data, (20, 28, 3))
    filled = data.replace(b"\xff\xe1", b"\xff\xff\xff\xe1")  # bytes that only fill
    agree(filled, (20, 28, 3))


@pytest.mark.parametrize("element", [False, True])
@pytest.mark.parametrize("orientation", [0, 1, 2, 6, 9])
def test_xmp_alone(agree, orientation, element):
    body = b"http://ns.adobe.com/xap/1.0/\0" + xmp(orientation, element)
    agree(with_segments((0xE1, body)), (20, 28, 3))


def test_exif_that_is_continued(agree):
    """One longer than a segment, with the orientation in the second."""
    exif = tiff(6, before=[(256 + n, 4, 1, n) for n in range(9)])
    parts = [(0xE1, b"Exif\0\0" + exif[:50]), (0xE1, b"Exif\0\0" + exif[50:])]
    agree(with_segments(*parts), (20, 28, 3))


# Transparency and depth


@pytest.mark.parametrize("size", [(20, 28), (10, 14), (9, 9)])
@pytest.mark.parametrize("hidden", [(255, 0, 0), (0, 0, 0), (255, 255, 255)])
def test_colours_of_transparent_pixels_stay_hidden(agree, graph, size, hidden):
    image = RGBA.copy()
    image[4:12, 6:20] = (*hidden, 0)
    data = saved(Image.fromarray(image))
    local = read_image(io.BytesIO(data), size, 4).astype(float)
    served = graph(data, (*size, 4)).astype(float)
    # A colour that is hardly seen is hardly known.
    opacity = local[..., 3:] / 255
    assert np.abs((served - local)[..., :3] * opacity).max() <= 2
    assert np.abs((served - local)[..., 3]).max() <= LEVELS
    for channels in (1, 3):
        agree(saved(Image.fromarray(image)), (*size, channels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [None, "one", "all"])
def test_few_bits_a_pixel(agree, channels, bits, transparent):
    """Grey images and palettes, with and without a transparent level."""
    levels = (RGB[..., 0] >> (8 - bits)).astype(np.uint8)
    colours = np.random.default_rng(0).integers(0, 256, 3 << bits, np.uint8)
    alphas = {None: None, "one": b"\0", "all": bytes([1]) * (1 << bits)}[transparent]
    image = Image.fromarray(levels, "L")
    image.putpalette(colours.tobytes())
    options = {} if alphas is None else {"transparency": alphas}
    agree(saved(image, bits=bits, **options), (20, 28, channels))
    grey = chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 20, bits, 0, 0, 0, 0))
    rows = np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :]
    packed = np.packbits(rows.reshape(20, -1), axis=1)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    trns = b"" if transparent is None else chunk(b"tRNS", b"\0\1")
    png = b"\x89PNG\r\n\x1a\n" + grey + trns + chunk(b"IDAT", zlib.compress(lines))
    agree(png + chunk(b"IEND", b""), (20, 28, channels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(20, 28), (9, 9)])
def test_bilevel_images(agree, channels, size):
    image = Image.fromarray(RGB).convert("1")
    agree(saved(image), (*size, channels))
    if channels != 4:
        agree(saved(image, "JPEG"), (*size, channels), 2)


def test_text_of_a_picture_is_kept_apart(agree):
    told = PngImagePlugin.PngInfo()
    told.add_text("Author", "Exif\0\0", zip=True)
    told.add_itxt("Title", "tiff:Orientation>6", "en", "Title")
    agree(saved(Image.fromarray(RGB), pnginfo=told), (20, 28, 3))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells memory")
def test_memory_of_many_pixels(graph):
    """It is what a hostile client can make a server take."""

    def told(name):
        (found,) = re.findall(
            rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text()
        )
        return int(found) * 1024

    def ask(side):
        graph(saved(Image.new("RGBA", (side, side))), (32, 32, 3))

    ask(40)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before = told("VmRSS")
    ask(2500)
    assert told("VmHWM") - before < 30 * 2500**2


def test_files_that_are_walked_through_for_long(graph):
    """Nothing that follows within bounds costs more than a small file does."""
    calm = np.asarray(Image.fromarray(RGB).convert("RGB"))
    png = saved(Image.fromarray(calm))
    empty = png[:33] + chunk(b"tEXt", b"") * 50_000 + png[33:]
    text = b"Raw profile type exif\0\0" + zlib.compress(bytes(50_000_000))
    packed = png[:33] + chunk(b"zTXt", text) + png[33:]
    jpeg = saved(Image.fromarray(calm), "JPEG")
    filled = jpeg[:2] + b"\xff" * 200_000 + jpeg[2:]
    graph(png, (20, 28, 3)), graph(jpeg, (20, 28, 3))  # traced before it is timed
    begin = time.perf_counter()
    for file, plain in ((empty, png), (packed, png), (filled, jpeg)):
        assert np.array_equal(graph(file, (20, 28, 3)), graph(plain, (20, 28, 3)))
    assert time.perf_counter() - begin < 20  # without bounds: minutes
