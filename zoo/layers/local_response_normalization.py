"""Local response normalization: a channel divided by the energy of its neighbours."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="kerascnn")
class LocalResponseNormalization(keras.layers.Layer):
    """Divide every value by the energy of the neighbouring channels.

    y_c = x_c / (κ + (α/n)·Σ x_j²)^β, the sum over the n channels around c that exist:
    at the first and last channels it has fewer terms. It has no weights.

    Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", NIPS 2012, section 3.3, in the form of Caffe, which divides α by
    n and takes κ = 1 (the paper: α undivided, κ = 2). TensorFlow's
    `local_response_normalization` does not divide α either, and takes (n - 1)/2 for
    its `depth_radius`.

    The sum is a product with a C x C matrix of zeros and ones with a band of n, which
    every backend has; it is computed in float32 under mixed precision too, where
    squares and small α would lose their digits.

    Args:
        size: number of channels n in the sum, odd.
        alpha: α.
        beta: β.
        kappa: κ, above 0.
        **kwargs: arguments of `keras.layers.Layer`.

    Input and output: tensor (N, …, channels), channels last.

    Raises:
        ValueError: `size` is not a positive odd integer, or κ is not above 0.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, size=5, alpha=1e-4, beta=0.75, kappa=1.0, **kwargs):
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(
                f"size must be a positive odd integer, so that a channel has as many "
                f"neighbours on either side; received {size!r}"
            )
        if kappa <= 0:
            raise ValueError(
                f"kappa must be above 0, or an all-zero input divides by zero; "
                f"received {kappa!r}"
            )
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.kappa = kappa

    def build(self, input_shape):
        """Make the band for the number of channels of `input_shape`."""
        channel = np.arange(input_shape[-1])
        apart = np.abs(channel[:, None] - channel[None, :])
        self._band = (apart <= self.size // 2).astype("float32")  # (C, C)

    def call(self, inputs):
        """Normalise `inputs` (N, …, channels)."""
        x = ops.cast(inputs, "float32")
        energy = ops.matmul(ops.square(x), self._band)
        scale = self.kappa + self.alpha / self.size * energy
        # exp and log, forward and backward, cost a third of what a power does.
        factor = ops.exp(-self.beta * ops.log(scale))
        return ops.cast(x * factor, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Return `input_shape`: nothing moves."""
        return input_shape

    def window(self):
        """Say for the receptive field that each pixel sees itself alone."""
        return (1, 1), (1, 1)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "kappa": self.kappa,
        }
