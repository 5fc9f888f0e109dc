"""Gated pooling: each window decides how much maximum and how much mean it is."""

import keras
from keras import ops

from zoo.layers.generalized_pooling import GeneralizedPooling2D


@keras.saving.register_keras_serializable(package="kerascnn")
class GatedPooling2D(GeneralizedPooling2D):
    """Pool to g·max + (1 - g)·mean of each window x, with g = σ(ωᵀx).

    σ is the logistic function. The mask ω is learned: one for the layer, shared by all
    channels, or one for each channel; there is no bias. It starts from N(0, 0.1).

    Lee, Gallagher, Tu, arXiv 1509.08985, section 3.1, "gated max-average pooling".

    Args:
        pool_size: height and width k of a window.
        strides: pixels from one window to the next; None for `pool_size`.
        padding: "same" or "valid"; with "same", cells beyond the border count as 0 in
            ωᵀx and are left out of the maximum and of the mean.
        per_channel: one mask for each channel; default one for the layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels). Output: tensor (N, rows, columns,
    channels), one value for each window.

    Raises:
        ValueError: a size that is not a positive integer, or another padding.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def build(self, input_shape):
        """Add the mask ω, of shape (k, k, 1) or (k, k, channels, 1)."""
        super().build(input_shape)
        self.gate = self.add_masks("gate", 1)

    def call(self, inputs):
        """Pool `inputs` (N, height, width, channels)."""
        (response,) = self.products(inputs, self.gate)
        g = ops.sigmoid(response)
        return g * self.maxima(inputs) + (1 - g) * self.means(inputs)

    def macs(self, input_shape, output_shape):
        """Multiply-accumulates of ωᵀx over one image."""
        return self._masks_macs(output_shape, 1)

    def parameter_expression(self):
        """Say where the number of weights comes from."""
        return self._mask_expression()
