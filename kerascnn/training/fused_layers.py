"""How layers compute while they are trained, where TensorFlow has a better way.

On a processor each operation is a pass over memory, and the passes are what a step
waits for. TensorFlow has one kernel for what Keras does in a dozen operations; the
results are the same but for rounding. On a GPU, where XLA fuses the operations, and
with other backends everything is Keras' own.
"""

import contextlib
import functools
import math
from unittest import mock

import keras

from kerascnn.environment import resolve_precision
from zoo.layers.compiling import compiled_by_xla

# Where the gradient of a convolution's filters is computed as one too: positions of a
# map at most, channels at least, and images at a time.
SMALL_MAP, MANY_CHANNELS, PIECE = 64, 64, 128


@contextlib.contextmanager
def fused_layers(model):
    """Let layers of a model compute in the better way, for a while.

    Batch normalisations and GELUs take a quarter of the time, or less; convolutions of
    small maps make a step of airbench94 a sixth shorter; biases have true gradients.
    """
    layers, instructions = [], resolve_precision("auto") != "float32"  # of bfloat16
    for layer in () if compiled_by_xla() else model._flatten_layers():
        half = layer.compute_dtype == "bfloat16"
        if _fusable(layer):
            layer.call = functools.partial(_normalize, layer)
        elif _is_gelu(layer):
            layer.call = _gelu()
        elif half and instructions and _is_plain_convolution(layer):
            layer.call = functools.partial(_convolve, layer)
        elif half and getattr(layer, "bias", None) is not None:
            layer.call = functools.partial(_call_with_sum, layer.call)
        else:
            continue
        layers.append(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _fusable(layer) -> bool:
    """Whether a layer normalises the channels of images, in the plain way."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype in ("float32", "bfloat16")
        and not layer.renorm
        and not layer.synchronized
    )


def _is_gelu(layer) -> bool:
    """Whether a layer is the exact GELU, with erf, and nothing else."""
    return (
        type(layer) is keras.layers.Activation
        and layer.activation is keras.activations.gelu
        and layer.compute_dtype in ("float32", "bfloat16", "float16")
    )


@functools.cache
def _gelu():
    """Return GELU, x·Φ(x), which computes its slope Φ(x) + x·φ(x) along with it.

    XLA makes one loop of both, in float32 whatever the precision.
    """
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def value_and_slope(inputs):
        x = tf.cast(inputs, tf.float32)
        cumulative = 0.5 + 0.5 * tf.math.erf(x / math.sqrt(2))
        density = tf.exp(-0.5 * tf.square(x)) / math.sqrt(2 * math.pi)
        both = (x * cumulative, cumulative + x * density)
        return [tf.cast(part, inputs.dtype) for part in both]

    @tf.custom_gradient
    def gelu(inputs):
        value, slope = value_and_slope(inputs)
        return value, lambda gradient: gradient * slope

    return gelu


def _is_plain_convolution(layer) -> bool:
    """Whether a layer is a convolution for whose gradients oneDNN has one kernel."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == max(layer.dilation_rate) == 1
        and layer.data_format == "channels_last"
    )


def _call_with_sum(call, *arguments, **options):
    """Call a layer that adds a bias, whose gradient is to be a true one.

    TensorFlow sums it in bfloat16, wrong by half where thousands of places are summed,
    but where it is computed along with that of a convolution's filters.
    """
    import tensorflow as tf

    own = tf.nn.bias_add

    def add(x, bias, data_format):
        return x + bias if data_format == "NHWC" else own(x, bias, data_format)

    with mock.patch.object(tf.nn, "bias_add", add):  # what Keras adds by
        return call(*arguments, **options)


def _convolve(layer, inputs):
    """Do what `Conv2D.call` does; on small maps with another gradient of the filters.

    dW[i, j, c, k] = sum over n, y, x of X[n, y + i, x + j, c] · G[n, y, x, k]: images
    whose channels are the batch, n, under filters of the size of the maps. oneDNN's
    own kernel of it takes up to three times as long on 8x8 positions and fewer.
    """
    places, channels = inputs.shape[1:3], inputs.shape[3]
    small = None not in places and math.prod(places) <= SMALL_MAP
    one = layer.strides == (1, 1) and layer.kernel_size != (1, 1)
    if not (small and one and channels >= MANY_CHANNELS):
        return type(layer).call(layer, inputs)
    import tensorflow as tf

    padding, same = layer.padding.upper(), layer.padding == "same"
    edges = [((k - 1) // 2, k // 2) if same else (0, 0) for k in layer.kernel_size]

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradients(gradient):
            def add(first, total):
                some = slice(first, first + PIECE)
                images = tf.transpose(x[some], (3, 1, 2, 0))
                filters = tf.transpose(gradient[some], (1, 2, 0, 3))
                part = tf.nn.conv2d(images, filters, 1, [(0, 0), *edges, (0, 0)])
                return first + PIECE, total + tf.cast(part, tf.float32)

            rows, columns, channels, units = kernel.shape
            start, number = tf.zeros((channels, rows, columns, units)), tf.shape(x)[0]
            total = tf.while_loop(lambda i, _: i < number, add, (0, start))[1]
            of_kernel = tf.cast(tf.transpose(total, (1, 2, 0, 3)), kernel.dtype)
            of_x = tf.nn.conv2d_transpose(gradient, kernel, tf.shape(x), 1, padding)
            return of_x, of_kernel

        return tf.nn.conv2d(x, kernel, 1, padding), gradients

    outputs = convolve(inputs, tf.cast(layer.kernel, inputs.dtype))
    if layer.use_bias:  # by no BiasAdd: see `_call_with_sum`
        outputs = tf.add(outputs, tf.cast(layer.bias, inputs.dtype))
    return layer.activation(outputs)


def _normalize(layer, inputs, training=None, mask=None):
    """Do what `BatchNormalization.call` does."""
    if not (training and layer.trainable) or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    channels = inputs.shape[-1]
    inputs = tf.cast(inputs, layer.compute_dtype)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones(channels),
        offset=tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros(channels),
        mean=tf.zeros(0),
        variance=tf.zeros(0),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The kernel's variance is divided by n - 1, as an estimate; Keras' by n.
    number = tf.cast(tf.size(inputs) // channels, tf.float32)
    variance = variance * (number - 1) / number
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + new * (1 - layer.momentum))
    return outputs
