"""What the learned poolings share: their windows, and the masks laid over them."""

import keras
from keras import ops

from zoo.layers.average_pooling import LAST, average_pool
from zoo.layers.pieces import split_neighbours

# The masks of the authors' model definitions start from N(0, 0.1).
DEVIATION = 0.1


class GeneralizedPooling2D(keras.layers.Layer):
    """The windows of mixed, gated and tree pooling; a base class, no layer by itself.

    Lee, Gallagher, Tu, "Generalizing Pooling Functions in Convolutional Neural
    Networks: Mixed, Gated, and Tree", AISTATS 2016, arXiv 1509.08985. A window holds
    pool_size x pool_size values of one channel. With padding "same", windows at the
    border reach over it: cells beyond it count as 0 in a product with a mask, and not
    at all in the maximum and in the mean, as in the authors' Caffe layers. Caffe rounds
    the number of windows up; at an even size, a pooling of 3 with stride 2 and padding
    "same" has the same windows.

    Args:
        pool_size: height and width of a window, 1 or more.
        strides: pixels from one window to the next; default `pool_size`.
        padding: "same" or "valid".
        per_channel: one set of weights for each channel; default one for the layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        ValueError: a size that is not a positive integer, or another padding.
    """

    def __init__(
        self, pool_size=3, strides=2, padding="same", per_channel=False, **kwargs
    ):
        strides = pool_size if strides is None else strides
        for name, value in (("pool_size", pool_size), ("strides", strides)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer, the same in both directions; "
                    f"received {value!r}"
                )
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same' or 'valid'; received {padding!r}")
        super().__init__(**kwargs)
        self.pool_size = pool_size
        self.strides = strides
        self.padding = padding
        self.per_channel = per_channel

    def maxima(self, inputs):
        """Return the maximum of each window (N, rows, columns, channels)."""
        return ops.max_pool(inputs, self.pool_size, self.strides, self.padding, LAST)

    def means(self, inputs):
        """Return the mean of each window, over the cells within the image."""
        return average_pool(inputs, self.pool_size, self.strides, self.padding)

    def add_masks(self, name, number):
        """Add `number` masks of the size of a window, shape (k, k, [C,] number)."""
        channels = (self._channels,) if self.per_channel else ()
        return self.add_weight(
            name=name,
            shape=(self.pool_size, self.pool_size, *channels, number),
            initializer=keras.initializers.RandomNormal(stddev=DEVIATION),
        )

    def products(self, inputs, masks):
        """Multiply each window of (N, height, width, C) with each mask, and sum.

        `masks` are (k, k, number), the same for all channels, or (k, k, C, number);
        returns `number` tensors (N, rows, columns, C).
        """
        channels, number = inputs.shape[-1], masks.shape[-1]
        masks = ops.cast(masks, inputs.dtype)
        if len(masks.shape) == 3:
            masks = ops.broadcast_to(
                ops.expand_dims(masks, 2), (*masks.shape[:2], channels, number)
            )
        # A depthwise convolution has the windows of a pooling of the same padding.
        y = ops.depthwise_conv(inputs, masks, self.strides, self.padding, LAST)
        return split_neighbours(y, number)

    def build(self, input_shape):
        """Note the number of channels of `input_shape`."""
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "pooling needs maps (N, height, width, channels) of known channels; "
                f"received shape {tuple(input_shape)}"
            )
        self._channels = input_shape[-1]

    def compute_output_shape(self, input_shape):
        """Return (N, rows, columns, channels): as many as there are windows."""
        batch, *sides, channels = input_shape
        reach = self.pool_size if self.padding == "valid" else 1
        rows, columns = (
            None if side is None else -(-(side - reach + 1) // self.strides)
            for side in sides
        )
        return batch, rows, columns, channels

    def window(self):
        """Return the window and the step from one to the next, for receptive fields."""
        return (self.pool_size,) * 2, (self.strides,) * 2

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "per_channel": self.per_channel,
        }

    def _masks_macs(self, output_shape, number):
        """Multiply-accumulates of `number` masks over one image."""
        _, rows, columns, channels = output_shape
        return rows * columns * channels * self.pool_size**2 * number

    def _mask_expression(self):
        """Say where the number of weights of a mask comes from: "3·3", "3·3·96"."""
        channels = f"·{self._channels}" if self.per_channel else ""
        return f"{self.pool_size}·{self.pool_size}{channels}"
