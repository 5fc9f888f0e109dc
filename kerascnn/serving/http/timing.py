"""The time that a request may take."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kerascnn.serving.http.errors import RequestError
from kerascnn.serving.http.limits import Limits


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
