"""Mixed pooling: a learned mixture of the maximum and the mean."""

import keras
from keras import ops

from zoo.layers.generalized_pooling import DEVIATION, GeneralizedPooling2D


@keras.saving.register_keras_serializable(package="kerascnn")
class MixedPooling2D(GeneralizedPooling2D):
    """Pool to a·max + (1 - a)·mean of each window; a is learned.

    a is the same for every window: one number for the layer, or one for each channel.
    The weight is its logit, a = 1/(1 + exp(-w)), which keeps a between 0 and 1 without
    a constraint; w starts from N(0, 0.1), that is, from about half of each.

    Lee, Gallagher, Tu, arXiv 1509.08985, section 3.1, "mixed max-average pooling".

    Args:
        pool_size: height and width of a window.
        strides: pixels from one window to the next; None for `pool_size`.
        padding: "same" (cells beyond the border are left out) or "valid".
        per_channel: one a for each channel; default one for the layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels). Output: tensor (N, rows, columns,
    channels), one value for each window.

    Raises:
        ValueError: a size that is not a positive integer, or another padding.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def build(self, input_shape):
        """Add the logit of a, of shape () or (channels,)."""
        super().build(input_shape)
        self.logit = self.add_weight(
            name="logit",
            shape=(self._channels,) if self.per_channel else (),
            initializer=keras.initializers.RandomNormal(stddev=DEVIATION),
        )

    def call(self, inputs):
        """Pool `inputs` (N, height, width, channels)."""
        a = ops.sigmoid(ops.cast(self.logit, inputs.dtype))
        return a * self.maxima(inputs) + (1 - a) * self.means(inputs)

    def parameter_expression(self):
        """Say where the number of weights comes from."""
        return f"{self._channels if self.per_channel else 1}"
