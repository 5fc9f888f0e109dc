"""Pixels read from text, arrays from lists, headers of images."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kerascnn.serving.http import limits, tensors
from kerascnn.serving.http.limits import RequestError
from kerascnn.serving.http.saved_model import Signature, Tensor

BYTE = Tensor("image", np.dtype(np.uint8), "uint8", (None, 2, 3))
NAMES = ("serving_default", "a", "b")
SIGNATURES = {n: Signature(n, {"image": BYTE}, {}, True, None) for n in NAMES}


def quickly(text):
    """Key, name of the signature, and array of what is read the fast way, or None."""
    if found := tensors.integers(text.encode(), SIGNATURES):
        key, signature, arrays = found
        return key, signature.name, arrays["image"]
    return None


@given(
    st.lists(
        st.lists(st.integers(0, 255), min_size=6, max_size=6), min_size=1, max_size=4
    ),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.sampled_from(["instances", "inputs"]),
)
def test_pixels_are_read(values, separators, key):
    x = np.array(values, np.uint8).reshape(-1, 2, 3)
    text = json.dumps({key: x.tolist()}, separators=separators)
    found, name, read = quickly(text)
    assert (found, name) == (key, "serving_default")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, x)


@settings(max_examples=200)
@given(st.data())
def test_what_the_fast_way_takes_json_reads_alike(data):
    """A text with a few characters changed is read as `json` reads it, or declined."""
    text = list(json.dumps([[[0, 10, 255], [7, 99, 100]]]))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.sampled_from('0123456789[], .-e"\n\0'))
    text = "".join(text)
    if found := quickly(f'{{"instances": {text}}}'):
        np.testing.assert_array_equal(found[2], np.array(json.loads(text)))


@pytest.mark.parametrize(
    "text",
    [
        "[[[0,1,2],[3,4,256]]]",
        "[[[0,1,2],[3,4,1000]]]",
        "[[[0,1,2],[3,4,01]]]",
        "[[[0,1,2],[3,4,]]]",
        "[[[0,1,2],[3,4]]]",
        "[[[0,1,2],1[3,4,5]]]",
        "[[[0,1,2],[3,4,5]2]]",
        "[[[0,1,2]1,[3,4,5]]]",
        "[[[0,1,2],[3,4,5]],]",
        "[[[0,1,2],[3,4,1 2]]]",
        "[[[0,1,2],[3,4,-1]]]",
        "[[[0,1,2],[3,4,1.0]]]",
        "[]",
    ],
)
def test_what_the_fast_way_declines(text):
    assert quickly(f'{{"inputs": {text}}}') is None


def test_frames():
    one = "[[[0,1,2],[3,4,5]]]"
    assert quickly(f'{{"signature_name": "a", "instances": {one}}}')[:2] == (
        "instances",
        "a",
    )
    for name, called in (("b", "b"), ("", "serving_default")):
        text = f'{{"inputs":{one},"signature_name":"{name}"}}'
        assert quickly(text)[:2] == ("inputs", called)
    for text in (
        '{"instances": {"b64": ""}}',
        f'{{"instances": {one}, "more": [1]}}',
        f'{{"signature_name":"a","instances":{one},"signature_name":"b"}}',
        f'{{"signature_name":"other","instances":{one}}}',
        f'[{{"instances": {one}}}]',
        f'{{"instances": {one}}} x',
        f'{{"instances": {one}',
        "",
    ):
        assert quickly(text) is None, text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        ),
        max_leaves=12,
    ),
    st.sampled_from(["uint8", "int64", "float32", "float64", "bool", "string"]),
)
def test_any_value_is_read_exactly_or_refused(value, kind):
    dtype = np.dtype(object if kind == "string" else kind)
    tensor = Tensor("x", dtype, kind, None)
    try:
        array = tensors.read(value, tensor, "inputs")
    except RequestError as error:
        assert error.status == 400
        json.dumps(error.message)
        return
    assert array.dtype == dtype
    if kind in ("uint8", "int64", "bool"):
        assert array.tolist() == value


def test_nesting_has_a_limit():
    value = 1
    for _ in range(50):
        value = [value]
    with pytest.raises(RequestError, match="nested deeper than 16 lists"):
        tensors.read(value, BYTE, "inputs")


def test_echo_is_cut():
    assert tensors.echo([1, 2]) == "[1, 2]"
    assert len(tensors.echo("x" * 10**6)) == tensors.ECHO + 3
    assert len(tensors.echo([0] * 10**6)) == tensors.ECHO + 3
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert len(tensors.echo(deep)) <= tensors.ECHO + 3


@given(st.floats(width=32))
def test_floats_are_written_as_the_shortest_that_is_the_same(value):
    written = tensors.dumps(tensors.write("x", np.array([value], np.float32)))
    text = written.decode().strip("[]")
    read = np.float32(json.loads(text))
    assert read == np.float32(value) or np.isnan(value)
    digits = text.split("e")[0].replace(".", "").strip("-0")
    assert len(digits) <= 9 or not np.isfinite(value)


def test_image_headers(png, image):
    for kind in ("PNG", "JPEG"):
        assert limits.pixels(png(image, kind), "i", 1024) == 1024
        with pytest.raises(RequestError, match="i is an image of 32 x 32 pixels, more"):
            limits.pixels(png(image, kind), "i", 1023)


@pytest.mark.parametrize(
    ("mode", "kind", "more"),
    [
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"comment": b"\xff\xc0" * 30_000, "restart_marker_rows": 1}),
        ("RGB", "JPEG", {"exif": b"Exif\0\0" + bytes(60_000), "dpi": (300, 300)}),
        ("RGB", "JPEG", {"icc_profile": bytes(200_000)}),
        ("1", "PNG", {}),
        ("P", "PNG", {}),
        ("LA", "PNG", {}),
        ("I;16", "PNG", {"compress_level": 0}),
    ],
)
def test_sizes_are_those_that_pillow_reads(mode, kind, more):
    file = io.BytesIO()
    Image.new(mode, (300, 170)).save(file, kind, **more)
    assert limits.pixels(file.getvalue(), "i", 10**6) == 300 * 170
    filled = file.getvalue()
    if kind == "JPEG":  # bytes that only fill stand before any marker
        filled = filled[:2] + b"\xff" * 9 + filled[2:]
        assert limits.pixels(filled, "i", 10**6) == 300 * 170


@pytest.mark.parametrize(
    "file",
    [
        b"\xff\xd8\xff" + b"\xff" * 10**6,
        b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6,
        b"\xff\xd8" + b"\xff\0" * 10**6 + b"\xff\xc0",
        b"\xff\xd8\xff\xe0\xff\xff" + bytes(10**6),
        b"\xff\xd8\xff\xd9\xff\xc0\0\x11\x08\0\1\0\1",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0",
    ],
)
def test_headers_without_a_size_are_soon_refused(file):
    with pytest.raises(RequestError, match=r"i: the header of the .* is damaged"):
        limits.pixels(file, "i", 10**6)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats(png, image, kind):
    with pytest.raises(RequestError, match="i is neither a JPEG nor a PNG file"):
        limits.pixels(png(image, kind), "i", 10**6)


def bomb(side):
    """A PNG file of a few kilobytes that declares side x side grey pixels."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = side.to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 10**6))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_base64_as_tensorflow_serving_reads_it():
    """absl::Base64Unescape skips white space and needs no padding (escaping.cc)."""
    raw = bytes(range(256)) + b"x"
    text = base64.b64encode(raw).decode()
    lines = base64.encodebytes(raw).decode()
    blanks = (lines, lines.replace("\n", "\r\n"), f" {text}\t")
    for form in (text, text.rstrip("="), lines.rstrip("=\n"), *blanks):
        assert tensors.unbase64(form) == raw == tensors.unbase64(form.encode())
    for form in ("A", "_-8=", "#", text.rstrip("=") + "===", "AA=A"):
        assert tensors.unbase64(form) is None


@pytest.mark.parametrize("side", [5001, 20_000, 2**31 - 1])
def test_bombs(client, b64, side):
    request = {"signature_name": "serve_bytes", "instances": [b64(bomb(side))]}
    answer = client.post("/v1/models/cnn:predict", json=request)
    assert answer.status_code == 400
    assert "instances[0]" in answer.json()["error"]


def test_packed_text_that_is_damaged(client, b64, png, image):
    file = png(image)
    body = b"zTXtRaw profile type exif\0\0no zlib"
    told = (len(body) - 4).to_bytes(4, "big") + body
    told += zlib.crc32(body).to_bytes(4, "big")
    damaged = file[:33] + told + file[33:]
    rows = [b64(png(image, "JPEG")), b64(damaged)]
    request = {"signature_name": "serve_bytes", "instances": rows}
    answer = client.post("/v1/models/cnn:predict", json=request)
    assert answer.status_code == 400
    assert "image 1 of the request" in answer.json()["error"]


def test_many_scans(png, image):
    file = png(image, "JPEG") + limits.SCAN * (limits.SCANS + 1)
    with pytest.raises(RequestError, match="more than 100 scans"):
        limits.pixels(file, "i", 10**6)


@settings(max_examples=100)
@given(st.data())
def test_damaged_headers(png, image, data):
    file = bytearray(png(image, data.draw(st.sampled_from(["PNG", "JPEG"]))))
    file = file[: data.draw(st.integers(0, len(file)))]
    for _ in range(data.draw(st.integers(0, 4)) if file else 0):
        place = data.draw(st.integers(0, min(len(file), 200) - 1))
        file[place] = data.draw(st.integers(0, 255))
    try:
        assert limits.pixels(bytes(file), "i", 10**6) <= 10**6
    except RequestError as error:
        assert error.status == 400


def test_the_damaged_image_is_named(client, png, image, b64):
    files = [b64(png(image)), b64(png(image)[:-200]), b64(png(image))]
    request = {"signature_name": "serve_bytes", "instances": files}
    answer = client.post("/v1/models/cnn:predict", json=request)
    assert answer.status_code == 400
    message = answer.json()["error"]
    assert message.startswith("image 1 of the request: ")
    assert "PNG" in message or "png" in message, message
