"""What layers share that look at other rows and columns of every image."""

from keras import ops


def pick(x, rows, columns):
    """Pick rows and columns of images: [n, p, q] is x[n, rows[n, p], columns[n, q]].

    `rows` are int32 (N, P), or (1, P) where all images have the same, `columns`
    likewise (N, Q). The shapes are static but for the batch, so that XLA compiles it.
    """
    if rows.shape[0] == 1 and columns.shape[0] == 1:
        return ops.take(ops.take(x, rows[0], axis=1), columns[0], axis=2)
    _, height, width, channels = x.shape
    # A row of the index is a pixel with all its channels, side by side in memory: the
    # way forward is one gather of such rows, the way back one addition of them.
    image = ops.reshape(ops.arange(ops.shape(x)[0], dtype="int32"), (-1, 1, 1))
    rows, columns = map(ops.convert_to_tensor, (rows, columns))
    place = (image * height + rows[:, :, None]) * width + columns[:, None, :]
    return ops.take(ops.reshape(x, (-1, channels)), place, axis=0)
