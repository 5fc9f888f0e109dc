"""The shortcut without weights between feature maps of different sizes."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerascnn")
class IdentityShortcut(keras.layers.Layer):
    """Carry feature maps past a block that makes them smaller and more numerous.

    Of the rows and columns every `strides`-th stays, from the first on; channels of
    zeros are added after those of the input until there are `filters`. It has no
    weights and multiplies nothing.

    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
    arXiv 1512.03385, section 3.3, option A. The paper leaves open where the zeros go:
    any place gives the same network with its channels in another order.

    The pixels that stay are 0, 2, 4, … A 3x3 convolution of stride 2 beside it has to
    be centred on the same ones: pad by one on every side and convolve "valid". Keras'
    "same" centres it on 1, 3, 5, … where the side is even.

    Args:
        filters: channels of the output, at least those of the input.
        strides: step between the rows, and between the columns, that stay.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels), channels last.
    Output: tensor (N, ⌈height/strides⌉, ⌈width/strides⌉, filters).

    Raises:
        ValueError: `filters` or `strides` is not a positive integer, or, when it is
            built, the input has more than `filters` channels.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, filters, strides=2, **kwargs):
        for name, value in (("filters", filters), ("strides", strides)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer; received {value}")
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape):
        """Check the number of channels of `input_shape`."""
        if input_shape[-1] > self.filters:
            raise ValueError(
                f"IdentityShortcut can add channels but not take any away: it has "
                f"filters={self.filters}; received {input_shape[-1]} channels. Use a "
                "1x1 convolution (option B)"
            )

    def call(self, inputs):
        """Take pixels out of `inputs` (N, height, width, channels), add channels."""
        # Windows of one pixel: a slice of such steps takes ten times as long.
        x = ops.average_pool(
            inputs, 1, strides=self.strides, data_format="channels_last"
        )
        return ops.pad(x, [[0, 0]] * 3 + [[0, self.filters - inputs.shape[-1]]])

    def compute_output_shape(self, input_shape):
        """Return (N, ⌈height/strides⌉, ⌈width/strides⌉, filters)."""
        images, *size, _ = input_shape
        size = [None if side is None else -(-side // self.strides) for side in size]
        return (images, *size, self.filters)

    def window(self):
        """Say for the receptive field that a pixel sees one, every `strides` pixels."""
        return (1, 1), (self.strides, self.strides)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
        }
