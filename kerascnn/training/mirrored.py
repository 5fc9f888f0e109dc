"""Several devices with TensorFlow: tf.distribute.MirroredStrategy."""

import functools

import tensorflow as tf

from kerascnn.training.strategy import Place


def devices() -> list[str]:
    """Return the names of the GPUs, or else of what there is of the processor."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return [f"{kind}:{i}" for i in range(len(tf.config.list_logical_devices(kind)))]


class Mirrored(Place):
    """Several devices of one machine.

    The strategy divides a batch evenly and adds up the gradients. A batch that does
    not divide would fail or, where a device gets no image at all, abort the process:
    every batch is filled up, and brings weights.
    """

    weighted = True

    def __init__(self, number: int):
        super().__init__(number)
        self._strategy = _strategy(tuple(devices()[:number]))

    def scope(self):
        """Return the context in which variables are mirrored on all devices."""
        return self._strategy.scope()

    def add_up(self, gradients: list) -> list:
        """Return the sums of the gradients of all devices; within a step."""
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)


@functools.cache
def _strategy(names: tuple[str, ...]):
    # One for all trainings of a process: a second one of the same devices would take
    # the keys of the first one's collective operations. On processors there are none.
    own = tf.distribute.ReductionToOneDevice() if names[0].startswith("CPU") else None
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=own)
