"""Requests put together: one queue for each signature of each version.

While a batch is computed the images of other requests gather; when it is done they
are the next batch. So a lone client waits for nobody, and many clients share the
cost of a call. Large requests are cut into batches, and wait in a queue of their own:
no small one waits for them.
"""

import asyncio
import contextlib
import re
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from kerascnn.serving.http.limits import Limits, RequestError, invalid, overloaded


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


# Pixels of encoded images, as multiples of `Limits.pixels` and as parts of it: the most
# that wait; the most of a batch of several images; from which on a request is large.
QUEUED, BATCH, LARGE = 8, 8, 20


class Batcher:
    """The queue of one signature; its batches run in a pool, one at a time.

    `observe` is called with the number of images of each batch; `large` is the queue
    of what is more than a batch, or has more than a twentieth of the pixels.
    """

    def __init__(
        self, signature, pool: Executor, limits: Limits, observe=None, large=None
    ):
        self.signature = signature
        self.pool = pool
        self.limits = limits
        self.observe = observe or (lambda images: None)
        self.large = large or self
        self.jobs: deque[Job] = deque()
        self.waiting = 0  # images in the queue
        self.weight = 0  # pixels of encoded images, in the queue and in the batch
        self.full = asyncio.Event()  # a batch need not wait for others
        self.running: asyncio.Task | bool = False

    async def submit(self, arrays, weights=None) -> dict[str, np.ndarray]:
        """Compute the outputs of a request, which has been checked.

        `weights` are the pixels of each image, where they are encoded. RequestError:
        503: the queue is full; 400: the graph refuses the input.
        """
        limits, batched = self.limits, self.signature.batched
        count = len(next(iter(arrays.values()))) if batched else 1
        weights = weights or [0] * count
        total, most = sum(weights), limits.pixels / BATCH
        is_large = count > limits.batch or LARGE * total > limits.pixels
        if is_large and self.large is not self:
            return await self.large.submit(arrays, weights)
        if self.waiting and self.waiting + count > limits.queue:
            raise overloaded(
                f"{self.waiting} images wait already; the queue holds {limits.queue}"
            )
        if self.weight and self.weight + total > QUEUED * limits.pixels:
            raise overloaded("too many pixels of other requests wait already")
        loop = asyncio.get_running_loop()
        jobs, begin = [], 0
        while begin < count:
            part, end = arrays, begin + 1
            weight = weights[begin] if batched else total
            while end < count and end - begin < limits.batch:
                if weight + weights[end] > most:
                    break
                weight += weights[end]
                end += 1
            if batched and end - begin < count:
                part = {name: array[begin:end] for name, array in arrays.items()}
            key = tuple(array.shape[1:] for array in part.values())
            answer = loop.create_future()
            jobs.append(Job(part, begin, end - begin, weight, key, loop.time(), answer))
            begin = end
        self.jobs.extend(jobs)
        self.waiting += count
        self.weight += total
        if self.waiting >= limits.batch:
            self.full.set()
        if not self.running:
            self.running = loop.create_task(self._run())
        try:
            answers = await asyncio.gather(*(job.answer for job in jobs))
        finally:
            # After a failure or at the time limit nobody waits for the others.
            for job in jobs:
                job.answer.cancel()
                if job.answer.cancelled() and job in self.jobs:
                    self.jobs.remove(job)
                    self.waiting -= job.count
                    self.weight -= job.weight
        if len(answers) == 1:
            return answers[0]
        return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}

    async def _run(self) -> None:
        """Compute batch after batch, until no job is left."""
        loop, limits = asyncio.get_running_loop(), self.limits
        while self.jobs:
            first = self.jobs[0]
            rest = first.since + limits.batch_wait - loop.time()
            if rest > 0 and self.waiting < limits.batch:
                self.full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.full.wait(), rest)
                continue
            batch, count, weight = [], 0, 0
            while self.jobs:
                job = self.jobs[0]
                if batch and (
                    not self.signature.batched
                    or job.key != first.key
                    or count + job.count > limits.batch
                    or weight + job.weight > limits.pixels / BATCH
                ):
                    break
                count, weight = count + job.count, weight + job.weight
                batch.append(self.jobs.popleft())
            self.waiting -= count
            self.observe(count)
            try:
                answers = await loop.run_in_executor(
                    self.pool, compute, self.signature, batch
                )
            except Exception as error:  # such as a pool that was shut down
                answers = [error] * len(batch)
            self.weight -= weight
            for job, answer in zip(batch, answers, strict=True):
                if job.answer.done():  # cancelled
                    continue
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result(answer)
        self.running = False


def compute(signature, batch: list[Job]) -> list:
    """Run a batch; return for each job its outputs, or the exception it causes.

    No job fails for another one's fault: after a failure each is computed alone.
    """
    if len(batch) > 1:
        parts = {name: [job.arrays[name] for job in batch] for name in batch[0].arrays}
        try:
            outputs = signature.run({k: np.concatenate(v) for k, v in parts.items()})
        except Exception:  # of any kind: the graph is the user's
            outputs = {"": ()}
        ends = np.cumsum([job.count for job in batch])
        if all(len(array) == ends[-1] for array in outputs.values()):
            return [
                {name: array[end - job.count : end] for name, array in outputs.items()}
                for job, end in zip(batch, ends, strict=True)
            ]
    answers = []
    for job in batch:
        try:
            answers.append(signature.run(job.arrays))
        except Exception as error:  # handed to the request, which answers with it
            answers.append(_told(signature, job, error))
    return answers


def _told(signature, job: Job, error: Exception) -> Exception:
    """Turn what TensorFlow raises into what the client is told."""
    from tensorflow import errors

    refused = (errors.InvalidArgumentError, errors.DataLossError)
    if isinstance(error, errors.ResourceExhaustedError):
        return RequestError(429, "out of memory; send fewer images", retry_after=1)
    if not isinstance(error, refused):
        return error
    encoded = any(tensor.dtype.kind == "O" for tensor in signature.inputs.values())
    if encoded and signature.batched and job.count > 1:
        for row in range(job.count):
            part = {name: array[row : row + 1] for name, array in job.arrays.items()}
            try:
                signature.run(part)
            except refused as fault:
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
