"""Encoded images to pixels, as operations of a TensorFlow graph.

The graph does what `kerascnn.data.read_image` does with a file, so that a network is
served what it was trained on. Where TensorFlow's decoders and Pillow part, the graph
follows Pillow.
"""

import tensorflow as tf

# Weights of ITU-R BT.601 in 16-bit fixed point, as Pillow's convert("L") has them.
RED, GREEN, BLUE, HALF = 19595, 38470, 7471, 1 << 15

EXIF = b"Exif\0\0"
EXIF_WITHIN = 65536  # bytes; the segment stands at the beginning of a JPEG file
ORIENTATION = 0x0112


def decode(encoded, shape: tuple[int, int, int]):
    """Decode one JPEG or PNG file into the pixels that a network takes.

    The image is turned upright (EXIF); transparency becomes white, or stays where the
    network has four channels; the largest window of the network's aspect ratio is cut
    from the centre and resized, bicubic with antialiasing.

    Args:
        encoded: scalar string tensor, the bytes of the file.
        shape: (height, width, channels) of the network; 1, 3 or 4 channels, and with
            4 only PNG files.

    Returns:
        uint8 tensor of that shape.
    """
    if shape[2] == 4:
        pixels = _png(encoded)
    else:
        pixels = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: _jpeg(encoded),
            lambda: _on_white(_png(encoded)),
        )
    if shape[2] == 1:
        pixels = _grey(pixels)
    return _fit(pixels, shape)


def _jpeg(encoded):
    """Decode a JPEG file: (height, width, 3), upright.

    The default inverse cosine transform, the fast one, is up to twelve grey levels
    off Pillow's; this one agrees with it exactly.
    """
    pixels = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return _upright(pixels, _orientation(encoded))


def _png(encoded):
    """Decode a PNG file: (height, width, 4)."""
    rgba = tf.io.decode_png(encoded, channels=4)
    # An image without transparency and of 1, 2 or 4 bits a pixel gets the alpha 1, 3
    # or 15 from TensorFlow, the largest value of so many bits, instead of 255.
    depth = _bytes(tf.strings.substr(encoded, 24, 1))[0]  # in the header, IHDR
    largest = tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1
    opaque = tf.reduce_all(tf.cast(rgba[..., 3], tf.int32) == largest)
    alpha = tf.where(opaque, tf.constant(255, tf.uint8), rgba[..., 3:])
    return tf.concat([rgba[..., :3], alpha], axis=-1)


def _on_white(rgba):
    """Lay an image (height, width, 4) on white: (height, width, 3), uint8."""
    colour, alpha = tf.split(tf.cast(rgba, tf.float32), [3, 1], axis=-1)
    alpha /= 255
    return tf.cast(tf.round(colour * alpha + 255 * (1 - alpha)), tf.uint8)


def _grey(rgb):
    """Return the luma (height, width, 1) of an image, exactly as Pillow computes it.

    The decoders' own conversions differ from it by up to five grey levels.
    """
    levels = tf.cast(rgb, tf.int32) * tf.constant([RED, GREEN, BLUE])
    levels = tf.reduce_sum(levels, axis=-1, keepdims=True) + HALF
    return tf.cast(tf.bitwise.right_shift(levels, 16), tf.uint8)


def _fit(pixels, shape: tuple[int, int, int]):
    """Cut the centre of an image of any size and resize it; uint8 of `shape`."""
    out = tf.constant(shape[:2], tf.float32)
    size = tf.cast(tf.shape(pixels)[:2], tf.float32)
    scale = tf.reduce_max(out / size)  # the shorter side fits, the longer is cut
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[tf.newaxis],
        size=shape[:2],
        scale=tf.stack([scale, scale]),
        translation=(out - size * scale) / 2,  # centre to centre
        kernel_type="keyscubic",
        antialias=True,  # without it a photograph made small keeps one pixel in many
    )[0]
    # Bicubic overshoots at edges; grey levels, as a client would send them.
    levels = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return tf.ensure_shape(levels, shape)


def _orientation(encoded):
    """Read the orientation, 1…8, from the EXIF segment of a JPEG file; 1 if none.

    Source: CIPA DC-008 (Exif 2.32), 4.6.2 (image file directory) and 4.6.4, tag 274.
    """
    head = tf.strings.substr(encoded, 0, EXIF_WITHIN)
    tiff = tf.concat([tf.strings.split(head, EXIF, maxsplit=1), [b""]], axis=0)[1]
    # Zeros behind the bytes: what a damaged file points to is no orientation then.
    data = tf.concat([_bytes(tiff), tf.zeros([16], tf.int32)], axis=0)
    big = data[0] == ord("M")  # "MM" is big-endian, "II" little-endian

    def number(place, length):
        digits = tf.range(length)
        powers = tf.where(big, length - 1 - digits, digits)
        places = tf.clip_by_value(place[..., None] + digits, 0, tf.size(data) - 1)
        return tf.reduce_sum(tf.gather(data, places) * 256**powers, axis=-1)

    directory = tf.clip_by_value(number(tf.constant(4), 4), 0, EXIF_WITHIN)
    # 64 entries at most: a camera's first directory has about a dozen.
    entries = directory + 2 + 12 * tf.range(64)
    wanted = (number(entries, 2) == ORIENTATION) & (tf.range(64) < number(directory, 2))
    value = tf.reduce_max(tf.where(wanted, number(entries + 8, 2), 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _upright(pixels, orientation):
    """Turn an image as its EXIF orientation, 1…8, asks.

    From 5 on rows are columns. The orientations 1 to 4, and 5 to 8 likewise, reverse
    nothing, the columns, both and the rows.
    """
    rows, columns = tf.constant([0, 1, 2]), tf.constant([1, 0, 2])
    pixels = tf.transpose(pixels, tf.where(orientation >= 5, columns, rows))
    quarter = (orientation - 1) % 4
    reverse = tf.stack([quarter >= 2, (quarter == 1) | (quarter == 2)])
    return tf.reverse(pixels, tf.boolean_mask(tf.constant([0, 1]), reverse))


def _bytes(string):
    """Return the bytes of a scalar string tensor as int32 (length,)."""
    return tf.cast(tf.io.decode_raw(string, tf.uint8), tf.int32)
