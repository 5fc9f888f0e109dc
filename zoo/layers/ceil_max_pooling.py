"""Max pooling that rounds the number of its windows up, as cuda-convnet does."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerascnn")
class CeilMaxPooling2D(keras.layers.Layer):
    """Take the maximum of windows that start at the first pixel and cover the last.

    A side of n pixels has ⌈(n - k)/s⌉ + 1 windows of k pixels with stride s, and at
    least one; the last is cut off at the border where it does not fit. This is the
    pooling of cuda-convnet, on which pylearn2 and the networks of 2012 to 2014 ran, and
    Caffe's. Keras' "valid" rounds down, and leaves the last pixels out. Its "same" puts
    half of what is missing before the first pixel: with k = 3 and s = 2 that agrees
    with this layer at even n, with k = 4 and s = 2 it does not. The layer has no
    weights.

    Args:
        pool_size: height and width k of a window.
        strides: pixels s from one window to the next, at most k: beyond that a window
            could start outside the image. None for `pool_size`.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels) of known height and width. Output:
    tensor (N, rows, columns, channels).

    Raises:
        ValueError: a size that is not a positive integer, or strides above it.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`
    padding = "ceil"  # for its receptive fields: no cell before the first pixel

    def __init__(self, pool_size=2, strides=None, **kwargs):
        strides = pool_size if strides is None else strides
        for name, value in (("pool_size", pool_size), ("strides", strides)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer, the same in both directions; "
                    f"received {value!r}"
                )
        if strides > pool_size:
            raise ValueError(
                f"strides must be at most pool_size={pool_size}, or a window could "
                f"start outside the image; received {strides}"
            )
        super().__init__(**kwargs)
        self.pool_size = pool_size
        self.strides = strides

    def build(self, input_shape):
        """Check that height and width are known."""
        if len(input_shape) != 4 or None in input_shape[1:3]:
            raise ValueError(
                "pooling that rounds up needs maps (N, height, width, channels) of "
                f"known height and width; received shape {tuple(input_shape)}"
            )

    def call(self, inputs):
        """Pool `inputs` (N, height, width, channels)."""
        # The last window covers the last pixel, so nothing here is below 0.
        below, right = (
            (self._windows(n) - 1) * self.strides + self.pool_size - n
            for n in inputs.shape[1:3]
        )
        # A cell of -∞ is the maximum of no window, for each holds one of the image.
        padded = ops.pad(
            inputs,
            [(0, 0), (0, below), (0, right), (0, 0)],
            constant_values=-float("inf"),
        )
        return ops.max_pool(
            padded, self.pool_size, self.strides, "valid", "channels_last"
        )

    def compute_output_shape(self, input_shape):
        """Return (N, rows, columns, channels): as many as there are windows."""
        batch, *sides, channels = input_shape
        rows, columns = (None if n is None else self._windows(n) for n in sides)
        return batch, rows, columns, channels

    def window(self):
        """Return the window and the step from one to the next, for receptive fields."""
        return (self.pool_size,) * 2, (self.strides,) * 2

    def _windows(self, pixels):
        return max(0, -((self.pool_size - pixels) // self.strides)) + 1

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
        }
