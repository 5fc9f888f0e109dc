"""The recurrent convolutional layer: a convolution that looks again at what it saw."""

import math

import keras
from keras import ops

from zoo.layers.local_response_normalization import LocalResponseNormalization

NORMALIZATIONS = ("lrn", "batch", None)


@keras.saving.register_keras_serializable(package="kerascnn")
class RecurrentConv2D(keras.layers.Layer):
    """Convolve the input once, and the result of it `steps` times more.

    With the input u, which stays the same, and the state x, both "same" convolutions
    of stride 1,

        x(0) = g(f(W_f * u + b))
        x(t) = g(f(W_f * u + W_r * x(t - 1) + b)),   t = 1 … steps

    and x(steps) is the output. f is the activation. g is local response normalization
    over n channels. W_f * u is computed once; the weights are those of two convolutions
    for any number of steps, the depth that of steps + 1.

    Liang and Hu, "Recurrent Convolutional Neural Network for Object Recognition", CVPR
    2015, section 3.1, equations 1 to 3; the paper's T is `steps`, which leaves out the
    feed-forward pass: it counts T + 1 layers for each of these.

    `normalization="batch"` is a later form: f(B_t(…)), batch normalisation before the
    activation, one with weights of its own for each time step, since the statistics of
    the steps differ (as in the Torch code of the first author, `rcl.lua`).

    Args:
        filters: channels K of the output and of the state.
        kernel_size: height and width of both windows, or one number for both.
        steps: recurrent passes T; 0 is a convolution.
        activation: f, a name or a function.
        normalization: g: "lrn", "batch" or None.
        lrn_size: n, odd; default the largest odd number that is not above the paper's
            K/8 + 1, the same wherever K is a multiple of 16.
        lrn_alpha: α of the local response normalization, divided by n.
        lrn_beta: its β.
        kernel_initializer: of W_f. The default, variance 1/fan-in for either kernel,
            makes their sum keep the scale of a signal as He's 2/fan-in does for one.
        recurrent_initializer: of W_r.
        bias_initializer: of b.
        kernel_regularizer: of W_f.
        recurrent_regularizer: of W_r.
        **kwargs: arguments of `keras.layers.Layer`.

    Input: tensor (N, height, width, channels), channels last.
    Output: tensor (N, height, width, filters).

    Raises:
        ValueError: `filters` or a side of `kernel_size` is not a positive integer,
            `steps` is negative or no integer, or `normalization` is unknown.
    """

    kerascnn_costs = True  # said below, for `kerascnn.summarize`

    def __init__(
        self,
        filters,
        kernel_size=3,
        steps=3,
        *,
        activation="relu",
        normalization="lrn",
        lrn_size=None,
        lrn_alpha=1e-3,
        lrn_beta=0.75,
        kernel_initializer="lecun_normal",
        recurrent_initializer="lecun_normal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        **kwargs,
    ):
        if isinstance(kernel_size, int):
            kernel_size = (kernel_size, kernel_size)
        kernel_size = tuple(kernel_size)
        sizes = (filters, *kernel_size)
        if len(sizes) != 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ValueError(
                "filters and the two sides of kernel_size must be positive integers; "
                f"received filters={filters!r}, kernel_size={kernel_size!r}"
            )
        if not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps must be an integer of 0 or more; received {steps}")
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization must be 'lrn', 'batch' or None; received "
                f"{normalization!r}"
            )
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.steps = steps
        self.activation = keras.activations.get(activation)
        self.normalization = normalization
        self.lrn_size = lrn_size
        self.lrn_alpha = lrn_alpha
        self.lrn_beta = lrn_beta
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.normalizations = self._normalizations()

    def _normalizations(self):
        """Make the layers g, one for each time step or one for all."""
        if self.normalization == "lrn":
            odd = 2 * (self.filters // 16) + 1
            size = odd if self.lrn_size is None else self.lrn_size
            return [
                LocalResponseNormalization(
                    size,
                    alpha=self.lrn_alpha,
                    beta=self.lrn_beta,
                    dtype=self.dtype_policy,
                    name="lrn",
                )
            ]
        if self.normalization == "batch":
            return [
                keras.layers.BatchNormalization(
                    epsilon=1e-5, momentum=0.9, dtype=self.dtype_policy, name=f"bn{t}"
                )
                for t in range(self.steps + 1)
            ]
        return []

    def build(self, input_shape):
        """Create the two kernels and the bias for the channels of `input_shape`."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.steps:
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=(*self.kernel_size, self.filters, self.filters),
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
            )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer=self.bias_initializer
        )
        for layer in self.normalizations:
            layer.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        """Pass `inputs` (N, height, width, channels) through all steps."""
        # The part of the input, (N, height, width, filters), is that of every step.
        fed = ops.add(_convolve(inputs, self.kernel), self.bias)
        state = self._state(fed, 0, training)
        for step in range(1, self.steps + 1):
            back = _convolve(state, self.recurrent_kernel)
            state = self._state(ops.add(fed, back), step, training)
        return state

    def _state(self, x, step, training):
        if self.normalization == "batch":
            return self.activation(self.normalizations[step](x, training=training))
        x = self.activation(x)
        return self.normalizations[0](x) if self.normalization == "lrn" else x

    def compute_output_shape(self, input_shape):
        """Return (N, height, width, filters)."""
        return (*input_shape[:-1], self.filters)

    def macs(self, input_shape, output_shape):
        """Return height · width · window · filters · (channels + steps · filters)."""
        places = math.prod(output_shape[1:-1])
        channels = input_shape[-1] + self.steps * self.filters
        return places * math.prod(self.kernel_size) * self.filters * channels

    def parameter_expression(self):
        """Return the sum behind the number of weights: "3·3·96·96 + 3·3·96·96 + 96"."""
        kernels = [tuple(self.kernel.shape)]
        if self.steps:
            kernels.append(tuple(self.recurrent_kernel.shape))
        terms = ["·".join(map(str, shape)) for shape in kernels] + [str(self.filters)]
        if self.normalization == "batch":
            # γ, β, mean and variance of each step
            terms.append(f"{self.steps + 1}·4·{self.filters}")
        return " + ".join(terms)

    def window(self):
        """Return the window that an output pixel has seen after all steps, stride 1.

        Of kernels of even size it lies half a pixel a step further down and right.
        """
        return tuple(n + self.steps * (n - 1) for n in self.kernel_size), (1, 1)

    def get_config(self):
        """Return the arguments that make this layer again."""
        initializer = keras.initializers.serialize
        regularizer = keras.regularizers.serialize
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "steps": self.steps,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "lrn_size": self.lrn_size,
            "lrn_alpha": self.lrn_alpha,
            "lrn_beta": self.lrn_beta,
            "kernel_initializer": initializer(self.kernel_initializer),
            "recurrent_initializer": initializer(self.recurrent_initializer),
            "bias_initializer": initializer(self.bias_initializer),
            "kernel_regularizer": regularizer(self.kernel_regularizer),
            "recurrent_regularizer": regularizer(self.recurrent_regularizer),
        }


def _convolve(x, kernel):
    return ops.conv(x, kernel, padding="same", data_format="channels_last")
