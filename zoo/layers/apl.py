"""Adaptive piecewise linear units: activation functions that are learned."""

import keras
from keras import ops

SHARING = ("channel", "unit")


@keras.saving.register_keras_serializable(package="kerascnn")
class APL(keras.layers.Layer):
    """Apply ReLU and add hinges whose slopes and places are learned.

    h(x) = max(0, x) + Σ_s a_s · max(0, b_s - x), the sum over s = 1 … S: linear from
    the largest b_s on (ReLU, where all are below 0), with S bends more and the slope
    -Σ a_s far below 0. Either each channel has such a function, or each unit, which is
    a channel at one place of the image: the form of the authors' code, for images of
    one size.

    Agostinelli, Hoffman, Sadowski, Baldi, "Learning Activation Functions to Improve
    Deep Neural Networks", ICLR 2015 workshop, arXiv 1412.6830, equation 1.

    The authors decay both weights: give the regularizers `keras.regularizers.L2(5e-4)`
    for their 1e-3, or train with a weight decay that takes in all but biases.

    Args:
        pieces: number of hinges S.
        sharing: "channel" or "unit". Of vectors (N, units) they are the same.
        slope_initializer: of the slopes a; default uniform in ±0.5/S.
        hinge_initializer: of the places b; default normal with deviation 0.5.
        slope_regularizer: of the slopes.
        hinge_regularizer: of the places.
        **kwargs: arguments of `keras.layers.Layer`.

    Input and output: tensor (N, …, channels), channels last. The weights `slopes` and
    `hinges` are (S, channels), or (S, …, channels) with sharing="unit".

    Raises:
        ValueError: `pieces` is not a positive integer, `sharing` is unknown, or, when
            it is built with sharing="unit", a size of the input is open.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(
        self,
        pieces=1,
        sharing="channel",
        *,
        slope_initializer=None,
        hinge_initializer=None,
        slope_regularizer=None,
        hinge_regularizer=None,
        **kwargs,
    ):
        if not isinstance(pieces, int) or pieces < 1:
            raise ValueError(f"pieces must be a positive integer; received {pieces!r}")
        if sharing not in SHARING:
            raise ValueError(
                f"sharing must be one of {', '.join(SHARING)}; received {sharing!r}"
            )
        super().__init__(**kwargs)
        self.pieces = pieces
        self.sharing = sharing
        random = keras.initializers
        if slope_initializer is None:
            slope_initializer = random.RandomUniform(-0.5 / pieces, 0.5 / pieces)
        if hinge_initializer is None:
            hinge_initializer = random.RandomNormal(stddev=0.5)
        self.slope_initializer = random.get(slope_initializer)
        self.hinge_initializer = random.get(hinge_initializer)
        self.slope_regularizer = keras.regularizers.get(slope_regularizer)
        self.hinge_regularizer = keras.regularizers.get(hinge_regularizer)

    def build(self, input_shape):
        """Create slopes and hinges for the units or channels of `input_shape`."""
        units = tuple(input_shape[1:] if self.sharing == "unit" else input_shape[-1:])
        if None in units:
            raise ValueError(
                "APL with sharing='unit' has weights for every place of the input, "
                f"whose sizes must be known; received {tuple(input_shape)}. Fix the "
                "input's shape, or use sharing='channel'"
            )
        self.slopes = self.add_weight(
            name="slopes",
            shape=(self.pieces, *units),
            initializer=self.slope_initializer,
            regularizer=self.slope_regularizer,
        )
        self.hinges = self.add_weight(
            name="hinges",
            shape=(self.pieces, *units),
            initializer=self.hinge_initializer,
            regularizer=self.hinge_regularizer,
        )
        self._places = len(input_shape) - 2

    def call(self, inputs):
        """Apply the learned functions to `inputs` (N, …, channels)."""
        # What shares a function in one axis: gradients are sums over it.
        units = ops.reshape(inputs, (-1, *self.slopes.shape[1:]))
        y = self.elementwise(units, self.slopes.value, self.hinges.value)
        return ops.reshape(y, ops.shape(inputs))

    def elementwise(self, inputs, slopes, hinges):
        """Apply the functions of these weights, value by value."""
        y = ops.relu(inputs)
        # One hinge after the other: a tensor of all would be S times the input.
        for piece in range(self.pieces):
            y = y + slopes[piece] * ops.relu(hinges[piece] - inputs)
        return y

    def compute_output_shape(self, input_shape):
        """Return `input_shape`: nothing moves."""
        return input_shape

    def macs(self, input_shape, output_shape):
        """Return 0: an activation is no product with a kernel."""
        return 0

    def parameter_expression(self):
        """Return the product behind the number of weights: "2·5·96"."""
        return "·".join(map(str, (2, *self.slopes.shape)))

    def window(self):
        """Say for the receptive field that each pixel sees itself alone."""
        return (1,) * self._places, (1,) * self._places

    def get_config(self):
        """Return the arguments that make this layer again."""
        initializer = keras.initializers.serialize
        regularizer = keras.regularizers.serialize
        return {
            **super().get_config(),
            "pieces": self.pieces,
            "sharing": self.sharing,
            "slope_initializer": initializer(self.slope_initializer),
            "hinge_initializer": initializer(self.hinge_initializer),
            "slope_regularizer": regularizer(self.slope_regularizer),
            "hinge_regularizer": regularizer(self.hinge_regularizer),
        }
