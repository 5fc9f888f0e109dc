"""Encoded images, looked at before they are decoded.

A PNG file of some kilobytes may declare an image that takes gigabytes. Pillow reads
the header alone; the pixels are decoded by the graph of the SavedModel.
"""

import io
import warnings

from kerascnn.serving.http.errors import invalid

KINDS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}

# A progressive JPEG file goes over all pixels in each scan. Encoders write about ten.
SCANS = 100
SCAN = b"\xff\xda"  # start of scan; inside the compressed data 0xff is always escaped


def pixels(encoded: bytes, place: str, limit: int) -> int:
    """Return width times height of a JPEG or PNG file, from its header.

    Args:
        encoded: the bytes of the file.
        place: where it stands in the request, for messages: "instances[0]".
        limit: the most pixels that are allowed.

    Raises:
        RequestError: 400: it is no JPEG or PNG file, its header cannot be read, or it
            has more pixels than the limit.
    """
    from PIL import Image

    kind = next((k for magic, k in KINDS.items() if encoded.startswith(magic)), None)
    if kind is None:
        raise invalid(
            f"{place} is neither a JPEG nor a PNG file, but {len(encoded):,} bytes that"
            f" begin with {encoded[:8].hex(' ') or 'nothing'}"
        )
    if kind == "JPEG" and encoded.count(SCAN) > SCANS:
        raise invalid(
            f"{place} is a JPEG file of more than {SCANS} scans; save it anew"
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on; here the limit decides.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=(kind,)) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise invalid(f"{place} has more than {limit:,} pixels; make it smaller") from (
            error
        )
    # What Pillow raises for damaged headers: its own errors are OSErrors and
    # SyntaxErrors, and the fields it reads beyond the end are IndexErrors, struct.error
    # (a ValueError it is not), ….
    except Exception as error:
        raise invalid(f"{place}: the header of the {kind} file is damaged") from error
    if width * height > limit:
        raise invalid(
            f"{place} is an image of {width} x {height} pixels, more than {limit:,}; "
            "make it smaller"
        )
    return width * height
