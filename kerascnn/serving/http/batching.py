"""Requests put together: one queue for each signature of each version.

While a batch is computed the images of other requests gather; when it is done they
are the next batch. So a lone client waits for nobody, and many clients share the
cost of a call. Large requests are cut into batches, and wait in a queue of their own:
no small one waits for them.
"""

import asyncio
import re
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from kerascnn.serving.http.limits import (
    Limits,
    RequestError,
    invalid,
    overloaded,
    pixels,
)


@dataclass(eq=False)
class Job:
    """A part of a request, not larger than a batch."""

    arrays: dict[str, np.ndarray]
    first: int  # place of its first image in the request
    count: int  # images
    weight: int  # pixels of encoded images
    key: tuple  # jobs of the same key can be put together
    since: float
    answer: asyncio.Future = field(repr=False)


# The input of the signature `serve_bytes`.
ENCODED = "image_bytes"

# Pixels of encoded images, in `Limits.pixels`: the most of a request, the most that
# wait; and the part of it above which a request is a large one.
REQUEST, QUEUED, LARGE = 4, 8, 20


class Batcher:
    """The queue of one signature. Lives in one event loop.

    Args:
        signature: a `version.Signature`.
        pool: runs the batches, one at a time of this signature.
        limits: `images`, `queue`, `batch`, `batch_wait` and `pixels` are read.
        observe: called with the number of images of each batch.
        large: the `Batcher` that takes what is more than a batch, or has more than a
            twentieth of its pixels; default: this one.
    """

    def __init__(
        self, signature, pool: Executor, limits: Limits, observe=None, large=None
    ):
        self.signature = signature
        self.pool = pool
        self.limits = limits
        self.observe = observe or (lambda images: None)
        self.jobs: deque[Job] = deque()
        self.large = large or self
        self.waiting = 0  # images in the queue
        self.weight = 0  # pixels of encoded images, in the queue and in the batch
        self.running = False
        self.alarm: asyncio.TimerHandle | None = None

    async def infer(self, arrays, places) -> tuple[dict[str, np.ndarray], int]:
        """Check the inputs of a request, and compute its outputs.

        Args:
            arrays: for each input of the signature an array.
            places: for each input how messages name one of its images:
                "instances[{}]".

        Returns:
            The outputs by name, and the number of images.

        Raises:
            RequestError: 400 for a wrong shape or a hostile image, 413 for too many
                images; see `submit`.
        """
        for name, array in arrays.items():
            self.signature.inputs[name].fit(array)
        count = 1
        if self.signature.batched:
            counts = {name: len(array) for name, array in arrays.items()}
            count = next(iter(counts.values()))
            if len(set(counts.values())) > 1:
                raise invalid(f"the inputs have different numbers of images: {counts}")
            if not count:
                raise invalid("the request has no images; send one or more")
            if count > self.limits.images:
                raise RequestError(
                    413,
                    f"a request has at most {self.limits.images:,} images; received "
                    f"{count:,}: send them in several requests",
                )
        weights = None
        for name, array in arrays.items():
            if array.dtype.kind == "O" and name == ENCODED:
                weights = [
                    pixels(encoded, places[name].format(number), self.limits.pixels)
                    for number, encoded in enumerate(array.ravel())
                ]
        small = count <= self.limits.batch
        if weights:
            total = sum(weights)
            if total > REQUEST * self.limits.pixels:
                raise RequestError(
                    413,
                    f"the images of a request have at most "
                    f"{REQUEST * self.limits.pixels:,} pixels together; received "
                    f"{total:,}: send them in several requests",
                )
            small = small and LARGE * total <= self.limits.pixels
        queue = self if small else self.large
        return await queue.submit(arrays, weights), count

    async def submit(self, arrays, weights=None) -> dict[str, np.ndarray]:
        """Compute the outputs of a request.

        Args:
            arrays: for each input of the signature an array, which fits it.
            weights: pixels of each image, for encoded ones.

        Raises:
            RequestError: 503: the queue is full; 400: the graph refuses the input.
        """
        count = len(next(iter(arrays.values()))) if self.signature.batched else 1
        self._tidy()
        if self.waiting and self.waiting + count > self.limits.queue:
            raise overloaded(
                f"{self.waiting} images wait already; the queue holds "
                f"{self.limits.queue}"
            )
        total = sum(weights) if weights else 0
        if self.weight and self.weight + total > QUEUED * self.limits.pixels:
            raise overloaded("too many pixels of other requests wait already")
        loop = asyncio.get_running_loop()
        jobs = [
            Job(
                arrays=part,
                first=first,
                count=n,
                weight=weight,
                key=tuple(array.shape[1:] for array in part.values()),
                since=loop.time(),
                answer=loop.create_future(),
            )
            for part, first, n, weight in self._parts(arrays, count, weights)
        ]
        self.jobs.extend(jobs)
        self.waiting += count
        self.weight += total
        self._start()
        try:
            answers = await asyncio.gather(*(job.answer for job in jobs))
        finally:
            # After a failure or at the time limit nobody waits for the others.
            for job in jobs:
                if not job.answer.done():
                    job.answer.cancel()
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    def _parts(self, arrays, count, weights):
        """Cut a request into parts of at most `batch` images and `pixels` pixels."""
        total = sum(weights) if weights else 0
        if not self.signature.batched or (
            count <= self.limits.batch and total <= self.limits.pixels
        ):
            yield arrays, 0, count, total
            return
        begin = 0
        while begin < count:
            end, weight = begin, 0
            while end < count and end - begin < self.limits.batch:
                more = weights[end] if weights else 0
                if end > begin and weight + more > self.limits.pixels:
                    break
                weight += more
                end += 1
            part = {name: array[begin:end] for name, array in arrays.items()}
            yield part, begin, end - begin, weight
            begin = end

    def _start(self) -> None:
        """Send the next batch to the pool, unless one is there."""
        if self.running or not self._tidy():
            return
        loop = asyncio.get_running_loop()
        rest = self.jobs[0].since + self.limits.batch_wait - loop.time()
        if rest > 0 and self.waiting < self.limits.batch:
            if self.alarm is None:
                self.alarm = loop.call_later(rest, self._ring)
            return
        batch = self._take()
        self.running = True
        self.observe(sum(job.count for job in batch))
        done = loop.run_in_executor(self.pool, compute, self.signature, batch)
        done.add_done_callback(lambda future: self._answer(batch, future))

    def _ring(self) -> None:
        self.alarm = None
        self._start()

    def _tidy(self) -> bool:
        """Drop the jobs at the front for which nobody waits; is one left?"""
        while self.jobs and self.jobs[0].answer.cancelled():
            job = self.jobs.popleft()
            self.waiting -= job.count
            self.weight -= job.weight
        return bool(self.jobs)

    def _take(self) -> list[Job]:
        batch = [self.jobs.popleft()]
        count, weight = batch[0].count, batch[0].weight
        while self.signature.batched and self._tidy():
            job = self.jobs[0]
            if (
                job.key != batch[0].key
                or count + job.count > self.limits.batch
                or weight + job.weight > self.limits.pixels
            ):
                break
            count, weight = count + job.count, weight + job.weight
            batch.append(self.jobs.popleft())
        self.waiting -= count
        return batch

    def _answer(self, batch: list[Job], done: asyncio.Future) -> None:
        self.running = False
        self.weight -= sum(job.weight for job in batch)
        error = done.exception()
        answers = [error] * len(batch) if error else done.result()
        for job, answer in zip(batch, answers, strict=True):
            if job.answer.done():  # cancelled
                continue
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)
        self._start()


def compute(signature, batch: list[Job]) -> list:
    """Run a batch; blocks.

    Returns:
        For each job its outputs, or the exception that it causes. A job does not fail
        for another one's fault: after a failure each is computed alone.
    """
    if len(batch) == 1:
        return [_alone(signature, batch[0])]
    together = {
        name: np.concatenate([job.arrays[name] for job in batch])
        for name in batch[0].arrays
    }
    try:
        outputs = signature.run(together)
    except Exception:  # of any kind: the graph is the user's
        return [_alone(signature, job) for job in batch]
    ends = np.cumsum([job.count for job in batch])
    if any(len(array) != ends[-1] for array in outputs.values()):
        return [_alone(signature, job) for job in batch]
    return [
        {name: array[end - job.count : end] for name, array in outputs.items()}
        for job, end in zip(batch, ends, strict=True)
    ]


def _alone(signature, job: Job):
    try:
        return signature.run(job.arrays)
    except Exception as error:  # handed to the request, which answers with it
        return _told(signature, job, error)


def _told(signature, job: Job, error: Exception) -> Exception:
    """Turn what TensorFlow raises into what the client is told."""
    from tensorflow.errors import InvalidArgumentError, ResourceExhaustedError

    if isinstance(error, ResourceExhaustedError):
        return RequestError(429, "out of memory; send fewer images", retry_after=1)
    if not isinstance(error, InvalidArgumentError):
        return error
    encoded = any(tensor.dtype.kind == "O" for tensor in signature.inputs.values())
    if encoded and signature.batched and job.count > 1:
        for row in range(job.count):
            part = {name: array[row : row + 1] for name, array in job.arrays.items()}
            try:
                signature.run(part)
            except InvalidArgumentError as fault:
                place = f"image {job.first + row} of the request"
                return invalid(f"{place}: {_said(fault)}")
    return invalid(_said(error))


# Lines around what an operation says: where in the program the graph was traced.
FRAME = re.compile(
    r"Graph execution error|Detected at node|<stack traces|File |\[\[|"
    r".* error\(s\) found"
)


def _said(error: Exception) -> str:
    """Return what the operation that failed says, one line."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    said = [line for line in lines if line and not FRAME.match(line)] or lines
    return (said or [type(error).__name__])[0].removeprefix("(0) ")[:500]
