"""What layers share that look at other rows and columns of every image."""

from keras import ops


def pick(x, rows, columns):
    """Pick rows and columns of images, others in each image where asked to.

    The shapes are static but for the batch, so that XLA compiles it. A row of the
    index is a pixel with all its channels, which lie side by side in memory: the way
    forward is one gather of such rows, the way back one addition of them.

    Args:
        x: tensor (N, height, width, channels).
        rows: int32 tensor (N, P), rows of each image, from 0 to height - 1; (1, P)
            where all images have the same.
        columns: int32 tensor (N, Q), or (1, Q) like `rows`.

    Returns:
        Tensor (N, P, Q, channels): pixel (p, q) of image n is x[n, rows[n, p],
        columns[n, q]].
    """
    if rows.shape[0] == 1 and columns.shape[0] == 1:
        return ops.take(ops.take(x, rows[0], axis=1), columns[0], axis=2)
    _, height, width, channels = x.shape
    image = ops.reshape(ops.arange(ops.shape(x)[0], dtype="int32"), (-1, 1, 1))
    place = (image * height + rows[:, :, None]) * width + columns[:, None, :]
    return ops.take(ops.reshape(x, (-1, channels)), place, axis=0)
