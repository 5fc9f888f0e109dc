"""What layers share whose neighbouring channels belong together."""

from keras import ops


def split_neighbours(x, number):
    """Split each run of `number` neighbouring channels into its pieces.

    The pieces are moved first, so that each is one run of memory: the gradient of a
    slice with gaps took half of a training step on a CPU.

    Args:
        x: tensor (N, …, units·number).
        number: of channels in a run.

    Returns:
        List of `number` tensors (N, …, units): the first channels of all runs, the
        second ones, …
    """
    # Through sizes known before the first batch, but for that of the batch.
    shape = ops.shape(x)[:-1]
    runs = ops.reshape(x, (*shape, x.shape[-1] // number, number))
    return ops.unstack(ops.moveaxis(runs, -1, 0), number)
