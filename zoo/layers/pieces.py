"""What layers share whose neighbouring channels belong together."""

from keras import ops


def split_neighbours(x, number):
    """Split (N, …, units·number) into `number` tensors (N, …, units).

    They are the first channels of all runs of `number` neighbours, the second ones, …
    The pieces are moved first, so that each is one run of memory: the gradient of a
    slice with gaps took half of a training step on a CPU.
    """
    # Through sizes known before the first batch, but for that of the batch.
    shape = ops.shape(x)[:-1]
    runs = ops.reshape(x, (*shape, x.shape[-1] // number, number))
    return ops.unstack(ops.moveaxis(runs, -1, 0), number)
