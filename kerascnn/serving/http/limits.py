"""How much a request may ask for, and the bodies that are in memory at once."""

import contextlib
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields

from kerascnn.serving.http.errors import RequestError, invalid, overloaded


@dataclass(frozen=True)
class Limits:
    """What the server takes before it refuses.

    Args:
        body: bytes of a request's body, after decompression.
        bodies: bytes of the bodies of all requests that are in memory at once.
        images: images of a request.
        pixels: width times height of an encoded image, and of all those in a batch:
            while TensorFlow decodes a PNG file it takes about 50 bytes a pixel.
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

    @contextlib.asynccontextmanager
    async def read(self, request) -> AsyncIterator[bytes]:
        """Read the body of a request; it counts until the context is left.

        Args:
            request: a Starlette request. A body that is compressed with gzip is
                decompressed.

        Raises:
            RequestError: 413 for a body over the limit, before it is read where its
                length is declared; 415 for another compression; 400 for broken gzip;
                503 where all bodies together are over their limit.
        """
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise RequestError(
                415,
                f"the body is compressed with {coding[:40]!r}; send it with gzip, or as"
                " it is",
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
            if coding == "gzip":
                body = self._decompress(body)
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

    def _decompress(self, body: bytes) -> bytes:
        reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            plain = reader.decompress(body, self.limits.body + 1)
        except zlib.error as error:
            raise invalid(f"the body is no gzip: {error}") from error
        self._allow(len(plain))
        if not reader.eof:
            raise invalid("the body is no complete gzip: it ends too early")
        return plain
