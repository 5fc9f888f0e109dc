"""Encoded images to pixels, as operations of a TensorFlow graph.

The graph does what `kerascnn.data.read_image` does with a file, so that a network is
served what it was trained on. Where TensorFlow's decoders and Pillow part, the graph
follows Pillow.
"""

import tensorflow as tf

# Weights of ITU-R BT.601 in 16-bit fixed point, as Pillow's convert("L") has them.
RED, GREEN, BLUE, HALF = 19595, 38470, 7471, 1 << 15

EXIF = b"Exif\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0"
ORIENTATION = 0x0112
ENTRIES = 512  # of a TIFF directory; a camera's first has about a dozen


def decode(encoded, shape: tuple[int, int, int]):
    """Decode one JPEG or PNG file into the pixels that a network takes.

    The image is turned upright (EXIF, XMP); transparency becomes white, or stays where
    the network has four channels; the largest window of the network's aspect ratio is
    cut from the centre and resized, bicubic with antialiasing.

    `encoded` is a scalar string tensor, returned is a uint8 tensor of `shape`: (height,
    width, channels) with 1, 3 or 4 channels, and with 4 only of PNG files.
    """
    if shape[2] == 4:
        return _fit_transparent(_png(encoded), shape)

    def jpeg():
        # The default inverse cosine transform, the fast one, is up to twelve grey
        # levels off Pillow's; this one agrees with it exactly.
        pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return _upright(pixels, *_jpeg_metadata(encoded))

    def on_white():
        # In integers of 16 bits: a file of many pixels takes a third of the memory
        # that it takes as float32. This division by 255 rounds as it should.
        colour, alpha = tf.split(_png(encoded), [3, 1], axis=-1)
        white = tf.cast(255 - alpha, tf.uint16) * 255 + 128
        mixed = tf.cast(colour, tf.uint16) * tf.cast(alpha, tf.uint16) + white
        return tf.cast(_upper(_upper(mixed) + mixed), tf.uint8)

    pixels = tf.cond(tf.io.is_jpeg(encoded), jpeg, on_white)
    if shape[2] == 1:
        # The luma exactly as Pillow computes it; the decoders' own conversions differ
        # from it by up to five grey levels.
        red, green, blue = tf.split(pixels, 3, axis=-1)
        levels = tf.cast(red, tf.int32) * RED + HALF
        levels += tf.cast(green, tf.int32) * GREEN
        levels += tf.cast(blue, tf.int32) * BLUE
        pixels = tf.cast(tf.bitwise.right_shift(levels, 16), tf.uint8)
    return _fit(pixels, shape)


def _png(encoded):
    """Decode a PNG file: (height, width, 4), upright."""
    rgba = tf.io.decode_png(encoded, channels=4)
    exif, xmp, transparent = _png_metadata(encoded)
    depth, kind = tf.unstack(_bytes(tf.strings.substr(encoded, 24, 2)), 2)

    def mended():
        # Of grey images Pillow compares the pixel, 0…255, with the transparent level
        # of so many bits, and leaves 16 bits out. What has no transparency and 1, 2 or
        # 4 bits, gets the alpha 1, 3 or 15 from TensorFlow, instead of 255.
        level = tf.where(depth == 1, tf.minimum(transparent * 255, 255), transparent)
        known = (level >= 0) & (level <= 255) & (depth < 16)
        clear = (rgba[..., :1] == tf.cast(level, tf.uint8)) & known
        grey = tf.where(clear, tf.constant(0, tf.uint8), 255)
        other = tf.where(transparent >= 0, rgba[..., 3:], 255)
        return tf.concat([rgba[..., :3], tf.where(kind == 0, grey, other)], axis=-1)

    # Of the kinds 4 and 6 each pixel has its alpha.
    return _upright(tf.cond(kind >= 4, lambda: rgba, mended), exif, xmp)


def _jpeg_metadata(encoded):
    """Walk through a JPEG file's segments: its EXIF, a TIFF file, and its XMP."""
    size = tf.strings.length(encoded)

    def step(place, exif, xmp):
        marker = _number(encoded, place, 2)
        kind = marker - 0xFF00
        fill = kind == 0xFF  # a byte that only fills
        bare = (kind == 1) | ((kind >= 0xD0) & (kind <= 0xD9))  # no segment follows
        length = tf.where(fill, -1, tf.where(bare, 0, _number(encoded, place + 2, 2)))
        # Pixels follow the marker 0xDA, and no metadata them.
        end = (kind < 0) | (kind == 0xDA) | (length < -1)
        body = _part(encoded, place + 4, tf.maximum(length - 2, 0))
        body = tf.where(kind == 0xE1, body, b"")
        # One that is longer than a segment goes on in the next.
        exif = tf.where(_starts(body, EXIF), exif + _part(body, 6, size), exif)
        xmp = tf.where(_starts(body, XMP), _part(body, len(XMP), size), xmp)
        return tf.where(end, size, place + 2 + length), exif, xmp

    empty = tf.constant(b"")
    _, exif, xmp = tf.while_loop(
        lambda at, *_: at + 4 <= size, step, (2, empty, empty), maximum_iterations=500
    )
    return exif, xmp


def _png_metadata(encoded):
    """Walk through a PNG file's chunks: its EXIF, XMP, and transparent level or -1.

    They stand before or behind the pixels, and EXIF as its bytes or as their
    hexadecimal digits in a text.
    """
    size = tf.strings.length(encoded)
    empty = tf.constant(b"")
    names = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")

    def text(kind, body, name):
        """Return the text of this name in a chunk of text; empty if it has another."""
        rest = _part(body, len(name), size)
        flags = _bytes(rest + b"\0\0")
        # iTXt: whether it is packed, how, language, zero, translated name, zero.
        parts = tf.strings.split(_part(rest, 2, size), b"\0", maxsplit=2)
        long = tf.concat([parts, [b"", b"", b""]], axis=0)[2]
        packed = (kind == b"zTXt") | ((kind == b"iTXt") & (flags[0] == 1))
        rest = tf.where(kind == b"zTXt", _part(rest, 1, size), rest)
        rest = tf.where(kind == b"iTXt", long, rest)
        found = _starts(body, name)
        return tf.cond(
            found & packed,
            lambda: tf.io.decode_compressed(_part(rest, 0, 2**14), "ZLIB"),
            lambda: tf.where(found, rest, empty),
        )

    def step(place, exif, profile, xmp, transparent):
        length = _number(encoded, place, 4)
        kind = _part(encoded, place + 4, 4)
        is_text = (kind == b"tEXt") | (kind == b"zTXt") | (kind == b"iTXt")
        wanted = is_text | (kind == b"eXIf")
        body = tf.where(wanted, _part(encoded, place + 8, length), b"")

        def texts():
            found = [text(kind, body, name) for name in names]
            pairs = zip(found, (profile, xmp), strict=True)
            return [tf.where(new == b"", old, new) for new, old in pairs]

        profile, xmp = tf.cond(is_text, texts, lambda: [profile, xmp])
        exif = tf.where(kind == b"eXIf", body, exif)
        # Below zero is a length beyond 31 bits: no such chunk.
        after = tf.where((length < 0) | (length > size), size, place + 12 + length)
        level = _number(encoded, place + 8, 2)
        transparent = tf.where(kind == b"tRNS", level, transparent)
        return after, exif, profile, xmp, transparent

    start = (8, empty, empty, empty, -1)
    _, exif, profile, xmp, transparent = tf.while_loop(
        lambda at, *_: at + 12 <= size, step, start, maximum_iterations=4096
    )
    # Three lines precede the digits: nothing, "exif", the number of bytes.
    lines = tf.strings.split(_part(profile, 0, 2**17), b"\n")[3:]
    digits = _bytes(tf.strings.reduce_join(lines) + b"")
    digits = tf.where(digits <= ord("9"), digits - ord("0"), (digits & 31) + 9)
    digits = tf.reshape(digits[: tf.size(digits) // 2 * 2], (-1, 2))
    codes = tf.gather(BYTES, tf.clip_by_value(digits[:, 0] * 16 + digits[:, 1], 0, 255))
    exif = tf.where(exif == b"", tf.strings.reduce_join(codes), exif)
    return exif, xmp, transparent


def _fit(pixels, shape: tuple[int, int, int]):
    """Cut the centre of an image of any size and resize it; uint8 of `shape`."""
    out = tf.constant(shape[:2], tf.float32)
    size = tf.cast(tf.shape(pixels)[:2], tf.float32)
    scale = tf.reduce_max(out / size)  # the shorter side fits, the longer is cut
    shift = (out - size * scale) / 2  # centre to centre

    def columns(pixels, axis: int):
        resized = tf.raw_ops.ScaleAndTranslate(
            images=pixels[tf.newaxis],
            size=tf.stack([shape[axis], tf.shape(pixels)[1]]),
            scale=tf.stack([scale, 1.0]),
            translation=tf.stack([shift[axis], 0.0]),
            kernel_type="keyscubic",
            antialias=True,  # otherwise a photograph made small keeps one pixel in many
        )[0]
        # Bicubic overshoots at edges; Pillow cuts that off after each direction.
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    # As Pillow the rows first. Laid as columns: the operation begins with these, and
    # keeps what comes of them as float32, which is little then.
    rows = columns(tf.transpose(pixels, (1, 0, 2)), axis=1)
    levels = columns(tf.transpose(rows, (1, 0, 2)), axis=0)
    return tf.ensure_shape(levels, shape)


def _fit_transparent(rgba, shape: tuple[int, int, int]):
    """Do as `_fit`, with colours weighted by their opacity, as Pillow has them.

    The colours of transparent pixels are not seen, and do not bleed into others.
    """
    colour, alpha = tf.split(rgba, [3, 1], axis=-1)
    same = tf.reduce_all(tf.equal(tf.shape(rgba)[:2], shape[:2]))  # nothing is resized
    opacity = tf.where(same, tf.constant(255, tf.uint8), alpha)
    product = tf.cast(colour, tf.uint16) * tf.cast(opacity, tf.uint16) + 128
    product = tf.cast(_upper(_upper(product) + product), tf.uint8)
    fitted = _fit(tf.concat([product, alpha], -1), shape)
    colour, alpha = tf.split(tf.cast(fitted, tf.int32), [3, 1], axis=-1)
    weight = tf.where(same | (alpha == 0), 255, alpha)
    colour = tf.minimum(255 * colour // weight, 255)
    return tf.cast(tf.concat([colour, alpha], -1), tf.uint8)


def _orientation(exif, xmp):
    """Return the orientation, 1…8, that EXIF, otherwise XMP, tells; 1 if none does.

    Source: CIPA DC-008 (Exif 2.32), 4.6.2 (image file directory) and 4.6.4, tag 274;
    XMP as `PIL.Image.getexif` reads it.
    """
    # Zeros behind the bytes: what a damaged file points to is no orientation then.
    begin = tf.where(_starts(exif, EXIF), 6, 0)
    data = _bytes(_part(exif, begin, tf.strings.length(exif)) + bytes(16))
    big = data[0] == ord("M")  # "MM" is big-endian, "II" little-endian

    def number(place, length):
        digits = tf.range(length)
        powers = tf.where(big, length - 1 - digits, digits)
        places = tf.clip_by_value(place[..., None] + digits, 0, tf.size(data) - 1)
        return tf.reduce_sum(tf.gather(data, places) * 256**powers, axis=-1)

    directory = tf.clip_by_value(number(tf.constant(4), 4), 0, tf.size(data))
    rows = tf.range(ENTRIES)
    entries = directory + 2 + 12 * rows
    wanted = (number(entries, 2) == ORIENTATION) & (rows < number(directory, 2))
    kind = number(entries + 2, 2)
    short = (kind == 3) | (kind == 8)  # unsigned and signed; 4, 9 and 13 have 4 bytes
    long = (kind == 4) | (kind == 9) | (kind == 13)
    values = tf.where(short, number(entries + 8, 2), number(entries + 8, 4))
    # Of several values, and of several entries, the first counts.
    count = number(entries + 4, 4)
    known = (count == 1) & (short | long) | (count == 2) & short
    told = tf.boolean_mask(tf.where(known, values, 0), wanted)

    marks = tf.strings.split(xmp, b"tiff:Orientation")[1:] + b"\0\0\0"
    attribute = tf.strings.substr(marks, 0, 2) == b'="'
    element = tf.strings.substr(marks, 0, 1) == b">"
    second, first = (tf.strings.substr(marks, place, 1) for place in (2, 1))
    digit = tf.where(attribute, second, first)
    digit = tf.boolean_mask(digit, attribute | element)
    levels = _bytes(tf.strings.reduce_join(digit) + b"") - ord("0")
    levels = tf.boolean_mask(levels, (levels >= 0) & (levels <= 9))  # the first one

    value = tf.concat([told[:1], levels[:1], [1]], axis=0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _upright(pixels, exif, xmp):
    """Turn an image as its EXIF orientation, 1…8, asks.

    From 5 on rows are columns. The orientations 1 to 4, and 5 to 8 likewise, reverse
    nothing, the columns, both and the rows.
    """
    orientation = _orientation(exif, xmp)

    def turned():
        rows, columns = tf.constant([0, 1, 2]), tf.constant([1, 0, 2])
        turned = tf.transpose(pixels, tf.where(orientation >= 5, columns, rows))
        quarter = (orientation - 1) % 4
        reverse = tf.stack([quarter >= 2, (quarter == 1) | (quarter == 2)])
        return tf.reverse(turned, tf.boolean_mask(tf.constant([0, 1]), reverse))

    return tf.cond(orientation == 1, lambda: pixels, turned)


BYTES = [bytes([number]) for number in range(256)]


def _bytes(string):
    """Return the bytes of a scalar string tensor as int32 (length,)."""
    return tf.cast(tf.io.decode_raw(string, tf.uint8), tf.int32)


def _part(string, place, length):
    """Return a part of a string, shorter where it ends, empty behind its end."""
    place = tf.minimum(place, tf.strings.length(string))
    return tf.strings.substr(string, place, length)


def _upper(values):
    """Return the upper of the two bytes of uint16."""
    return tf.bitwise.right_shift(values, tf.constant(8, tf.uint16))


def _starts(string, prefix: bytes):
    return _part(string, 0, len(prefix)) == prefix


def _number(string, place, length: int):
    """Return the big-endian number in so many bytes of a string; int32."""
    part = _bytes(_part(string, place, length) + bytes(length))[:length]
    return tf.reduce_sum(part * [256**n for n in reversed(range(length))])
