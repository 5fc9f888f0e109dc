"""What a request may ask for, and how it is told that it asks for too much.

A PNG file of some kilobytes may declare an image that takes gigabytes: of an encoded
image Pillow reads the header alone; the graph of the SavedModel decodes the pixels.
"""

import asyncio
import contextlib
import io
import warnings
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

from starlette.requests import ClientDisconnect


class RequestError(Exception):
    """A request that is refused: an HTTP status, and a message for the client.

    Args:
        status: HTTP status, 400…599.
        message: what was received and what is expected; becomes {"error": message}.
        retry_after: seconds after which the client may try again, if it may.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def invalid(message: str) -> RequestError:
    """Return the error of a request that no repetition makes right: status 400."""
    return RequestError(400, message)


def overloaded(message: str) -> RequestError:
    """Return the error of a server that has no room now: status 503, Retry-After."""
    return RequestError(503, message, retry_after=1)


# How zlib is told of a coding: gzip's frame, or zlib's own, which HTTP calls deflate.
WINDOWS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
MEMBERS = 1000  # of a gzip body

# Bytes of a body that are read at once in the event loop: a millisecond or two. Larger
# ones are read one after another in a thread, behind which no small one waits.
SMALL = 2**16
LIST = 8  # values whose memory and time an empty list or object takes


@dataclass(frozen=True)
class Limits:
    """What the server takes before it refuses.

    Args:
        body: bytes of a request's body, after decompression.
        bodies: bytes of the bodies of all requests that are in memory at once.
        images: images of a request.
        values: numbers and texts of a request in JSON; a list or an object counts
            as eight. The usual lists of integers 0…255 cost less and are not counted.
        pixels: width times height of an encoded image, and of all those in a batch:
            while TensorFlow decodes a PNG file it takes about 50 bytes a pixel. A
            request may have four times as many, and eight times as many wait.
        queue: images that wait for one signature of one version. A request that
            finds nobody waiting is always taken.
        batch: images that are computed at once.
        batch_wait: seconds that the first image of a batch waits for others. With 0
            a batch is what has gathered while the last one was computed.
        timeout: seconds from the beginning of a request to its answer.

    Raises:
        ValueError: a limit is not positive (`batch_wait`: negative).
    """

    body: int = 32 * 2**20
    bodies: int = 256 * 2**20
    images: int = 1024
    values: int = 4_000_000
    pixels: int = 25_000_000
    queue: int = 1024
    batch: int = 128
    batch_wait: float = 0.0
    timeout: float = 30.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "batch_wait" else 1e-9
            if isinstance(value, bool) or not least <= value < float("inf"):
                raise ValueError(
                    f"the limit {field.name} is a positive number; received {value!r}"
                )


class Bodies:
    """Reads the bodies of requests, and counts what they take together.

    Args:
        limits: `body` and `bodies` are read.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.used = 0  # bytes
        self.reader = ThreadPoolExecutor(1, "kerascnn-read")

    async def work(self, size: int, function: Callable, *arguments):
        """Call a function that reads a body of `size` bytes: large ones in a thread."""
        if size <= SMALL:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.reader, function, *arguments)

    @contextlib.asynccontextmanager
    async def read(self, request) -> AsyncIterator[bytes]:
        """Read the body of a request; it counts until the context is left.

        Args:
            request: a Starlette request. A body that is compressed with gzip (of one
                member or several) or deflate is decompressed.

        Raises:
            RequestError: 413 for a body over the limit, before it is read where its
                length is declared; 415 for another compression; 400 for a broken one;
                503 where all bodies together are over their limit.
        """
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", *WINDOWS):
            raise RequestError(
                415,
                f"the body is compressed with {coding[:40]!r}; send it with gzip or "
                "deflate, or as it is",
            )
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and len(declared) < 20:
            self._allow(int(declared))
            self._room(int(declared))
        taken, chunks, length = 0, [], 0
        try:
            async for chunk in request.stream():
                length += len(chunk)
                self._allow(length)
                self._room(len(chunk))
                taken += len(chunk)
                self.used += len(chunk)
                chunks.append(chunk)
            body = b"".join(chunks)
            del chunks
            if coding != "identity":
                # A thousand times its bytes may come out.
                body = await self.work(1000 * len(body), self._decompress, body, coding)
                self._room(len(body))
                taken += len(body)
                self.used += len(body)
            yield body
        finally:
            self.used -= taken

    def _allow(self, length: int) -> None:
        if length > self.limits.body:
            raise RequestError(
                413,
                f"the body of a request has at most {self.limits.body:,} bytes; send "
                "fewer images, or binary tensors (/v2/…/infer)",
            )

    def _room(self, length: int) -> None:
        if self.used and self.used + length > self.limits.bodies:
            raise overloaded("the requests in progress take all memory for bodies")

    def _decompress(self, body: bytes, coding: str) -> bytes:
        pieces, length, rest = [], 0, body
        while rest or not pieces:  # gzip: member by member
            reader = zlib.decompressobj(WINDOWS[coding])
            try:
                piece = reader.decompress(rest, self.limits.body + 1 - length)
            except zlib.error as error:
                raise invalid(f"the body is no {coding}: {error}") from error
            length += len(piece)
            self._allow(length)
            if not reader.eof:
                raise invalid(f"the body is no complete {coding}: it ends too early")
            pieces.append(piece)
            rest = reader.unused_data
            if len(pieces) > MEMBERS or (rest and coding == "deflate"):
                raise invalid(f"{len(rest):,} bytes are left behind the {coding} body")
        return b"".join(pieces)


@contextlib.asynccontextmanager
async def in_time(limits: Limits) -> AsyncIterator[None]:
    """End what takes longer than `limits.timeout` seconds.

    Raises:
        RequestError: 504: the time was over. What TensorFlow computes just then it
            computes to the end; what waits in a queue is dropped.
    """
    try:
        async with asyncio.timeout(limits.timeout):
            yield
    except TimeoutError as error:
        raise RequestError(
            504, f"Timed out: no answer within {limits.timeout:g} seconds"
        ) from error


@contextlib.asynccontextmanager
async def while_connected(request) -> AsyncIterator[None]:
    """End the work for a request when its client has left; its body has been read.

    Raises:
        starlette.requests.ClientDisconnect: it has.
    """
    task = asyncio.current_task()
    left = False

    async def watch():
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and not task.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


def check_values(body: bytes, limits: Limits) -> None:
    """Check how many values the text of a JSON document may have, before it is parsed.

    Raises:
        RequestError: 413: more than `limits.values`.
    """
    lists = body.count(b"[") + body.count(b"{")
    if body.count(b",") + LIST * lists > limits.values:
        raise RequestError(
            413,
            f"a request in JSON has at most {limits.values:,} values, of which a list "
            f"counts as {LIST}; send fewer images, or binary tensors (/v2/…/infer)",
        )


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
