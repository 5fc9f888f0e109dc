"""Average pooling over the cells within the image, on every backend."""

import keras
from keras import ops

LAST = "channels_last"


def average_pool(x, pool_size, strides, padding):
    """Return the mean of each window, (N, rows, columns, channels), square windows.

    With padding "same" a window at the border reaches over it; cells beyond it do not
    count. On PyTorch Keras counts some of them: it repeats the last row and column,
    where they are more on one side than on the other.
    """
    if padding == "valid" or keras.config.backend() != "torch":
        return ops.average_pool(x, pool_size, strides, padding, LAST)
    over = [max((-(-n // strides) - 1) * strides + pool_size - n, 0) for n in x.shape]
    pads = [(0, 0), *((n // 2, n - n // 2) for n in over[1:3]), (0, 0)]
    means, shares = (
        ops.average_pool(ops.pad(cells, pads), pool_size, strides, "valid", LAST)
        for cells in (x, ops.ones_like(x[:1, ..., :1]))
    )
    return ops.divide(means, shares)


@keras.saving.register_keras_serializable(package="kerascnn")
class AveragePooling2D(keras.layers.AveragePooling2D):
    """Keras' layer of square windows, channels last, equal on every backend."""

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, pool_size=2, strides=None, padding="valid", **kwargs):
        super().__init__(pool_size, strides, padding, **kwargs)
        sides = {*self.pool_size}, {*self.strides}
        if max(map(len, sides)) > 1 or self.data_format != LAST:
            raise ValueError(
                "the windows are square, and channels last; received "
                f"pool_size={pool_size!r}, strides={strides!r}, {self.data_format!r}"
            )

    def call(self, inputs):
        """Pool images (N, height, width, channels)."""
        return average_pool(inputs, self.pool_size[0], self.strides[0], self.padding)

    def window(self):
        """Say the window for the receptive field."""
        return self.pool_size, self.strides
