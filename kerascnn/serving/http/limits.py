"""What a request may ask for, how it is read within that, and how it is refused."""

import asyncio
import contextlib
import heapq
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

from starlette.requests import ClientDisconnect
from starlette.responses import Response


class RequestError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status, 400…599.
        message: what was received and what is expected; becomes {"error": message}.
        retry_after: seconds until the client may try again, if it may.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self):  # it may come from the process that reads
        return RequestError, (self.status, self.message, self.retry_after)


def invalid(message: str) -> RequestError:
    """Return the error of a request that no repetition makes right."""
    return RequestError(400, message)


def overloaded(message: str) -> RequestError:
    """Return the error of a server that has no room now: status 503, Retry-After."""
    return RequestError(503, message, retry_after=1)


def in_ascii(value, status: int = 200, headers=None) -> Response:
    """Return an answer in JSON; what it repeats may be half a character, or no text."""
    return Response(json.dumps(value), status, headers, media_type="application/json")


# How zlib is told of a coding: gzip's frame, or zlib's own, which HTTP calls deflate.
WINDOWS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
MEMBERS = 1000  # of a gzip body
SMALL = 2**16  # bytes of text that are parsed in the event loop: a millisecond or two
LIST = 8  # values whose memory and time an empty list or object takes


@dataclass(frozen=True)
class Limits:
    """What the server takes before it refuses; ValueError for a limit that is none."""

    body: int = 32 * 2**20  # bytes of a request's body, after decompression
    bodies: int = 128 * 2**20  # bytes of all bodies that are in memory at once
    images: int = 1024  # of a request
    # Numbers and texts of a request in JSON; a list or an object counts as eight. The
    # usual lists of integers 0…255 cost less and are not counted.
    values: int = 4_000_000
    # Width times height of an encoded image; a PNG file takes 20 bytes a pixel while
    # TensorFlow decodes it. A request may have four times as many, eight times as many
    # wait, and an eighth is decoded at once, or one image that has more.
    pixels: int = 12_500_000
    queue: int = 1024  # images that wait for a signature; if none waits, any number may
    batch: int = 128  # images that are computed at once
    # Seconds that the first image of a batch waits for others. With 0 a batch is what
    # has gathered while the last one was computed.
    batch_wait: float = 0.0
    timeout: float = 30.0  # seconds from the beginning of a request to its answer

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "batch_wait" else 1e-9
            if isinstance(value, bool) or not least <= value < float("inf"):
                raise ValueError(
                    f"the limit {field.name} is a positive number; received {value!r}"
                )


class Bodies:
    """Reads the bodies of requests, and counts what they take together."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.used = 0  # bytes
        self.unpacker = ThreadPoolExecutor(1, "kerascnn-unpack", _come_last)
        self.asker = ThreadPoolExecutor(1, "kerascnn-read")
        self.turns: list[tuple[int, int, asyncio.Future]] = []  # a heap of who waits
        self.places = itertools.count()  # among equal ones the first
        self.reading = False
        self.reader: subprocess.Popen | None = None

    @contextlib.asynccontextmanager
    async def read(self, request) -> AsyncIterator[bytes]:
        """Read the body of a Starlette request, gzip and deflate decompressed.

        It counts until the context is left. What is done inside is ended at the time
        limit, with a RequestError (504), and with a ClientDisconnect when the client
        leaves; what TensorFlow computes just then it computes to the end.

        Raises RequestError: 413 for a body over the limit, before it is read where its
        length is declared; 415 for another compression; 400 for a broken one; 503 where
        all bodies together are over their limit.
        """
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", *WINDOWS):
            told = f"the body is compressed with {coding[:40]!r}; send it with gzip or "
            raise RequestError(415, told + "deflate, or as it is")
        task, left, watching = asyncio.current_task(), False, None
        taken, chunks, length = 0, [], 0

        async def watch():
            nonlocal left
            while (await request.receive())["type"] != "http.disconnect":
                pass
            left = True
            task.cancel()

        try:
            async with asyncio.timeout(self.limits.timeout):
                declared = request.headers.get("content-length", "")
                if declared.isascii() and declared.isdigit() and len(declared) < 20:
                    self._check(int(declared), int(declared))
                async for chunk in request.stream():
                    length += len(chunk)
                    self._check(length, len(chunk), taken)
                    taken += len(chunk)
                    self.used += len(chunk)
                    chunks.append(chunk)
                body = b"".join(chunks)
                del chunks
                if coding != "identity":
                    body = await asyncio.get_running_loop().run_in_executor(
                        self.unpacker, self._unpack, body, coding
                    )
                    self._check(len(body), len(body), taken)
                    taken += len(body)
                    self.used += len(body)
                watching = asyncio.ensure_future(watch())
                yield body
        except TimeoutError as error:
            limit = f"{self.limits.timeout:g} seconds"
            raise RequestError(504, f"Timed out: no answer within {limit}") from error
        except asyncio.CancelledError:
            if left and not task.uncancel():
                raise ClientDisconnect from None
            raise
        finally:
            self.used -= taken
            if watching:
                watching.cancel()

    def _check(self, length: int, more: int = 0, own: int = 0) -> None:
        """Refuse a body of this length, or more bytes than others leave room for."""
        if length > self.limits.body:
            raise RequestError(
                413,
                f"the body of a request has at most {self.limits.body:,} bytes; send "
                "fewer images, or binary tensors (/v2/…/infer)",
            )
        if self.used > own and self.used + more > self.limits.bodies:
            raise overloaded("the requests in progress take all memory for bodies")

    def _unpack(self, body: bytes, coding: str) -> bytes:
        pieces, length, rest = [], 0, body
        while rest or not pieces:  # gzip: member by member
            unpacker = zlib.decompressobj(WINDOWS[coding])
            try:
                piece = unpacker.decompress(rest, self.limits.body + 1 - length)
            except zlib.error as error:
                raise invalid(f"the body is no {coding}: {error}") from error
            length += len(piece)
            self._check(length, own=len(body))
            if not unpacker.eof:
                raise invalid(f"the body is no complete {coding}: it ends too early")
            pieces.append(piece)
            rest = unpacker.unused_data
            if len(pieces) > MEMBERS or (rest and coding == "deflate"):
                raise invalid(f"{len(rest):,} bytes are left behind the {coding} body")
        return b"".join(pieces)

    async def work(self, size: int, function: Callable, *arguments):
        """Call a function that parses `size` bytes: large ones in another process.

        A parser holds Python's lock, and nothing ends it: in a thread it would keep
        small requests waiting, and one that takes too long all large ones.
        """
        if size <= SMALL:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        # The smallest first: who sends large ones makes others wait for one of them.
        turn = loop.create_future()
        heapq.heappush(self.turns, (size, next(self.places), turn))
        self._next()
        try:
            await turn
            try:
                asked = (self.asker, self._ask, function, arguments)
                return await loop.run_in_executor(*asked)
            except asyncio.CancelledError:
                self.close()
                raise
        finally:
            if not turn.cancelled():
                self.reading = False
                self._next()

    def _next(self) -> None:
        """Give the turn to the smallest request that waits, if none is read."""
        while self.turns and not self.reading:
            turn = heapq.heappop(self.turns)[-1]
            if not turn.done():  # cancelled
                self.reading = True
                turn.set_result(None)

    def _ask(self, function: Callable, arguments: tuple):
        """Let the reading process call a function; blocks."""
        reader = self.reader
        if reader is None or reader.poll() is not None:
            # Not `multiprocessing`, which runs a program's main module again. Ctrl-C
            # at a terminal is for this process alone.
            reader = self.reader = subprocess.Popen(
                [sys.executable, "-c", READER.format(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            pickle.dump((function, arguments), reader.stdin, 5)
            reader.stdin.flush()
            answer = pickle.load(reader.stdout)
        except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
            self.close()
            raise overloaded("the process that reads large requests ended") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the reading process; the next large body starts another one."""
        reader, self.reader = self.reader, None
        if reader:
            reader.kill()


READER = """
import sys
sys.path[:] = {0!r}
from kerascnn.serving.http.limits import read_for_parent
read_for_parent()
"""


def _come_last() -> None:
    """Leave the processors to small requests; on Linux a thread has its own rank."""
    if sys.platform == "linux":
        os.nice(5)


def read_for_parent() -> None:
    """Call the functions that come at standard input, until it ends."""
    _come_last()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.load(sys.stdin.buffer)
            try:
                answer = function(*arguments)
            except Exception as error:  # of any kind: it is raised over there
                answer = error
            del arguments
            pickle.dump(answer, answers, 5)
            answers.flush()
            del answer


KINDS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}

# A progressive JPEG file goes over all pixels in each scan. Encoders write about ten.
SCANS = 100
SCAN = b"\xff\xda"  # start of scan; inside the compressed data 0xff is always escaped
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # one that a segment follows
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0…SOF15: the size
ENDS = (0xD8, 0xD9, 0xDA)  # behind which no size comes
SEGMENTS = 500  # of a JPEG file before its size


def pixels(encoded: bytes, place: str, limit: int) -> int:
    """Return width times height of a JPEG or PNG file, from its header alone.

    A RequestError names `place`, "instances[0]", if it is none, damaged or too large.
    """
    kind = next((k for magic, k in KINDS.items() if encoded.startswith(magic)), None)
    if kind is None:
        raise invalid(
            f"{place} is neither a JPEG nor a PNG file, but {len(encoded):,} bytes that"
            f" begin with {encoded[:8].hex(' ') or 'nothing'}"
        )
    if kind == "JPEG" and encoded.count(SCAN) > SCANS:
        raise invalid(f"{place}: a JPEG file of more than {SCANS} scans; save it anew")
    try:
        if kind == "JPEG":
            height, width = struct.unpack_from(">HH", encoded, _frame(encoded))
        else:
            header, width, height = struct.unpack_from(">4sII", encoded, 12)
            if header != b"IHDR":
                raise ValueError("another chunk comes first")
    except (struct.error, ValueError) as error:
        raise invalid(f"{place}: the header of the {kind} file is damaged") from error
    if width * height > limit:
        size = f"{width} x {height} pixels, more than {limit:,}"
        raise invalid(f"{place} is an image of {size}; make it smaller")
    return width * height


def _frame(jpeg: bytes) -> int:
    """Return where the height of a JPEG file stands (ITU-T T.81, B.2.2)."""
    place = 2
    for _ in range(SEGMENTS):
        marker = MARKER.search(jpeg, place)
        if marker is None or marker[1][0] in ENDS:
            break
        if marker[1][0] in FRAMES:
            return marker.end() + 3  # behind the length and the bits of a sample
        (length,) = struct.unpack_from(">H", jpeg, marker.end())
        place = marker.end() + max(length, 2)
    raise ValueError("no start of frame")
