"""Requests put together: who shares a batch, who waits, who is refused."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerascnn.serving.http.batching import Batcher
from kerascnn.serving.http.limits import Limits, RequestError
from kerascnn.serving.http.saved_model import Signature, Tensor


class Machine:
    """A signature whose computation waits until it is let go; it doubles numbers."""

    def __init__(self):
        self.go = threading.Event()
        self.batches = []

    def __call__(self, x):
        self.go.wait(10)
        values = x.numpy()
        self.batches.append(values.tolist())
        if (values < 0).any():
            raise RuntimeError("negative")
        import tensorflow as tf

        return {"y": tf.constant(2 * values)}


@pytest.fixture
def machine():
    return Machine()


def run(machine, scenario, batched=True, **limits):
    x = Tensor("x", np.dtype(np.int64), "int64", (None,))
    signature = Signature("s", {"x": x}, {"y": x}, batched, machine)

    async def main():
        with ThreadPoolExecutor(2) as pool:
            batcher = Batcher(signature, pool, Limits(**limits))
            return await scenario(batcher)

    return asyncio.run(main())


def ask(batcher, *values, weights=None):
    arrays = {"x": np.array(values, np.int64)}
    return asyncio.ensure_future(batcher.submit(arrays, weights))


async def soon():
    await asyncio.sleep(0.02)


def test_what_gathers_meanwhile_is_one_batch(machine):
    async def scenario(batcher):
        first = ask(batcher, 1)
        await soon()
        others = [ask(batcher, 2), ask(batcher, 3, 4), ask(batcher, 5)]
        await soon()
        assert batcher.waiting == 4
        machine.go.set()
        answers = await asyncio.gather(first, *others)
        assert [a["y"].tolist() for a in answers] == [[2], [4], [6, 8], [10]]
        assert batcher.waiting == 0

    run(machine, scenario)
    assert machine.batches == [[1], [2, 3, 4, 5]]


def test_large_requests_are_cut(machine):
    machine.go.set()

    async def scenario(batcher):
        answer = await ask(batcher, *range(10))
        assert answer["y"].tolist() == list(range(0, 20, 2))

    run(machine, scenario, batch=4)
    assert [len(batch) for batch in machine.batches] == [4, 4, 2]


def test_pixels_of_encoded_images_bound_a_batch(machine):
    async def scenario(batcher):
        first = ask(batcher, 0, weights=[1])
        await soon()
        others = [ask(batcher, 1, 2, 3, weights=[60, 50, 10])]
        others += [ask(batcher, 4, weights=[30]), ask(batcher, 5, weights=[90])]
        await soon()
        machine.go.set()
        await asyncio.gather(first, *others)

    run(machine, scenario, pixels=800)  # a batch has an eighth
    assert machine.batches == [[0], [1], [2, 3, 4], [5]]


def test_full_queue(machine):
    async def scenario(batcher):
        taken = [ask(batcher, 1)]
        await soon()
        taken.append(ask(batcher, 2, 3, 4))  # nobody waits: taken whatever its size
        await soon()
        with pytest.raises(RequestError, match="3 images wait already") as raised:
            await ask(batcher, 5)
        assert (raised.value.status, raised.value.retry_after) == (503, 1)
        machine.go.set()
        await asyncio.gather(*taken)
        assert (await ask(batcher, 6))["y"].tolist() == [12]

    run(machine, scenario, queue=2)


def test_who_gives_up_makes_room(machine):
    async def scenario(batcher):
        first = ask(batcher, 1)
        await soon()
        second = ask(batcher, 2, 3)
        await soon()
        second.cancel()
        await soon()
        third = ask(batcher, 4, 5)
        await soon()
        machine.go.set()
        await asyncio.gather(first, third)

    run(machine, scenario, queue=2)
    assert machine.batches == [[1], [4, 5]]


def test_a_fault_is_answered_to_its_own_request_only(machine):
    async def scenario(batcher):
        first = ask(batcher, 1)
        await soon()
        good, bad, fine = ask(batcher, 2), ask(batcher, -3), ask(batcher, 4)
        await soon()
        machine.go.set()
        assert (await first)["y"].tolist() == [2]
        assert (await good)["y"].tolist() == [4]
        assert (await fine)["y"].tolist() == [8]
        with pytest.raises(RuntimeError, match="negative"):
            await bad

    run(machine, scenario)


def test_different_shapes_are_not_put_together(machine):
    async def scenario(batcher):
        first = ask(batcher, 1)
        await soon()
        wide = {"x": np.ones((2, 3), np.int64)}
        others = [ask(batcher, 2), asyncio.ensure_future(batcher.submit(wide))]
        await soon()
        machine.go.set()
        await asyncio.gather(first, *others)

    run(machine, scenario)
    assert [np.shape(batch) for batch in machine.batches] == [(1,), (1,), (2, 3)]


def test_a_signature_without_a_batch(machine):
    machine.go.set()

    async def scenario(batcher):
        answers = await asyncio.gather(ask(batcher, 1, 2), ask(batcher, 3))
        assert [a["y"].tolist() for a in answers] == [[2, 4], [6]]

    run(machine, scenario, batched=False, batch=1)
    assert machine.batches == [[1, 2], [3]]


def test_waiting_for_others(machine):
    machine.go.set()

    async def scenario(batcher):
        tasks = [ask(batcher, 1)]
        await soon()
        tasks.append(ask(batcher, 2))
        await asyncio.gather(*tasks)
        full = [ask(batcher, n) for n in range(4)]  # a full batch waits for nobody
        await asyncio.wait_for(asyncio.gather(*full), 0.25)

    run(machine, scenario, batch=4, batch_wait=0.3)
    assert machine.batches == [[1, 2], [0, 1, 2, 3]]


def test_small_requests_wait_for_no_large_ones(machine):
    class Slow(Machine):
        """Does not end before the other one has."""

    x = Tensor("x", np.dtype(np.int64), "int64", (None,))
    slow = Slow()

    async def main():
        limits = Limits(batch=2)
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as second:
            large = Batcher(
                Signature("s", {"x": x}, {"y": x}, True, slow), second, limits
            )
            small = Signature("s", {"x": x}, {"y": x}, True, machine)
            batcher = Batcher(small, pool, limits, large=large)
            machine.go.set()
            many = asyncio.ensure_future(
                batcher.submit({"x": np.arange(5, dtype=np.int64)})
            )
            await soon()
            answer = await batcher.submit({"x": np.array([7])})
            assert answer["y"].tolist() == [14]
            assert not many.done()
            slow.go.set()
            answer = await many
            assert answer["y"].tolist() == [0, 2, 4, 6, 8]

    asyncio.run(main())
    assert machine.batches == [[7]]


def test_pixels_that_wait_are_bounded(machine):
    async def scenario(batcher):
        first = ask(batcher, 1, weights=[800])
        await soon()
        with pytest.raises(RequestError) as raised:
            await ask(batcher, 2, weights=[1])
        assert raised.value.status == 503
        machine.go.set()
        await first
        assert batcher.weight == 0
        await ask(batcher, 3, weights=[1])

    run(machine, scenario, pixels=100)
