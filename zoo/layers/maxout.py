"""Maxout: a unit that is the largest of several linear functions."""

import functools

import keras
from keras import ops

from zoo.layers.pieces import split_neighbours


@keras.saving.register_keras_serializable(package="kerascnn")
class Maxout(keras.layers.Layer):
    """Take the maximum over every `pieces` consecutive values of the last axis.

    y_u = max of x_{u·pieces}, …, x_{u·pieces + pieces - 1}. After a convolution with
    units·pieces filters, or a dense layer with as many units and no activation, each
    output is the largest of `pieces` linear functions: a convex function of the input
    whose shape is learned. The layer has no weights of its own.

    Goodfellow, Warde-Farley, Mirza, Courville, Bengio, "Maxout Networks", ICML 2013,
    arXiv 1302.4389, section 3. Which of the filters share a unit is free; here they are
    neighbours, so that a kernel reshaped to (…, units, pieces) has its units apart.

    Args:
        pieces: number of linear functions of a unit, 1 or more.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, …, units·pieces), channels last. Output: tensor (N, …, units).

    Raises:
        ValueError: `pieces` is not a positive integer, or does not divide the number
            of channels.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(self, pieces, **kwargs):
        if not isinstance(pieces, int) or pieces < 1:
            raise ValueError(f"pieces must be a positive integer; received {pieces!r}")
        super().__init__(**kwargs)
        self.pieces = pieces

    def build(self, input_shape):
        """Check that the channels of `input_shape` fall into units."""
        self._units(input_shape)

    def call(self, inputs):
        """Return the maxima of `inputs` (N, …, units·pieces)."""
        self._units(inputs.shape)
        # Two at a time: the gradient of `ops.max` divides by how many pieces equal the
        # maximum. XLA may compute a value twice, with different rounding, and find
        # none: after batch normalisation the compiled gradient on JAX was NaN.
        return self.elementwise(*split_neighbours(inputs, self.pieces))

    def elementwise(self, *pieces):
        """Return the largest of `pieces`, value by value."""
        return functools.reduce(ops.maximum, pieces)

    def compute_output_shape(self, input_shape):
        """Return `input_shape` with the units for its last axis."""
        return (*input_shape[:-1], self._units(input_shape))

    def window(self):
        """Say for the receptive field that each pixel sees itself alone."""
        return (1, 1), (1, 1)

    def _units(self, shape):
        channels = shape[-1]
        if channels is None or channels % self.pieces:
            raise ValueError(
                f"the last axis must be a multiple of pieces={self.pieces}; received "
                f"{channels} channels: give the layer before it units*{self.pieces}"
            )
        return channels // self.pieces

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "pieces": self.pieces}
