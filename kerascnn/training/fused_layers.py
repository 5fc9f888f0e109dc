"""How layers compute while they are trained, where TensorFlow has a better way.

On a processor each operation is a pass over memory, and the passes are what a step
waits for. TensorFlow has one kernel for what Keras does in a dozen operations; the
results are the same but for rounding. On a GPU, where XLA fuses the operations, and
with other backends everything is Keras' own.
"""

import contextlib
import functools
import itertools
import math
from unittest import mock

import keras

from kerascnn.environment import resolve_precision
from kerascnn.graph import trace
from zoo.layers import APL, Maxout
from zoo.layers.compiling import compiled_by_xla, in_one_loop

# Where the gradient of a convolution's filters is a product of matrices: channels at
# least, and for each row and column of the map; at least of a convolution of 1x1.
MANY_CHANNELS, CHANNELS_A_ROW, CHANNELS_OF_1X1 = 128, 16, 32


@contextlib.contextmanager
def fused_layers(model):
    """Let layers of a model compute in the better way, for a while.

    Batch normalisations and GELUs take a quarter of the time, or less; a step of
    lecture_cnn or of airbench94 is a fifth shorter; biases have true gradients.
    """
    if compiled_by_xla():
        yield
        return
    instructions = resolve_precision("auto") != "float32"  # of bfloat16
    with contextlib.ExitStack() as stack:

        def replace(target, name, new):
            stack.enter_context(mock.patch.object(target, name, new))

        for layer in model._flatten_layers():
            half = layer.compute_dtype == "bfloat16"
            if _fusable(layer):
                replace(layer, "call", functools.partial(_normalize, layer))
            elif _is_gelu(layer):
                replace(layer, "call", _gelu())
            elif half and isinstance(layer, (APL, Maxout)):
                replace(layer, "elementwise", in_one_loop(layer.elementwise))
            elif half and type(layer) is keras.layers.Maximum:
                replace(layer, "_merge_function", _largest(layer._merge_function))
            elif half and instructions and _is_plain_convolution(layer):
                replace(layer, "call", functools.partial(_convolve, layer))
            elif half and getattr(layer, "bias", None) is not None:
                replace(layer, "call", functools.partial(_call_with_sum, layer.call))
        for layer, pooling in _before_pooling(model):
            replace(layer, "call", functools.partial(_call_linear, layer, layer.call))
            after = functools.partial(_relu_after, layer, pooling.call)
            replace(pooling, "call", after)
        yield


def _largest(merge):
    """Return what `Maximum` does, in one loop of XLA."""
    loop = in_one_loop(lambda *inputs: merge(inputs))
    return lambda inputs: loop(*inputs)


def _ends_in_relu(layer) -> bool:
    """Whether ReLU, of any slope below 0, is known to be the last that a layer does."""
    if type(layer) in (keras.layers.Conv2D, keras.layers.Activation):
        return layer.activation is keras.activations.relu
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and layer.threshold == 0
    return type(layer) is keras.layers.LeakyReLU


def _before_pooling(model):
    """Find where only max pooling follows ReLU: they commute, and it has less to do."""
    calls, ends = (graph.calls, graph.outputs) if (graph := trace(model)) else ((), ())
    used = [call.operation for call in calls]
    for call in calls:
        layer, made = call.operation, call.outputs[0]
        if _ends_in_relu(layer):
            users = [c.operation for c in calls if any(x is made for x in c.inputs)]
            pair, kinds = (layer, *users), [type(user) for user in users]
            apart = kinds == [keras.layers.MaxPooling2D] and all(
                used.count(x) == 1 and x.compute_dtype == "bfloat16" for x in pair
            )
            if apart and not any(x is made for x in ends):
                yield pair


def _call_linear(layer, call, inputs):
    if not hasattr(layer, "activation"):  # a layer of ReLU, which does nothing else
        return inputs
    # Only here: a file that is written of the model meanwhile has its activation.
    with mock.patch.object(layer, "activation", keras.activations.linear):
        return call(inputs)


def _relu_after(layer, call, inputs):
    import tensorflow as tf

    # Pooling makes -inf of NaN; times 0 that is NaN again, as the loss is to tell.
    return tf.nn.leaky_relu(call(inputs), getattr(layer, "negative_slope", 0.0))


def _fusable(layer) -> bool:
    """Whether a layer normalises the channels of images, in the plain way."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype in ("float32", "bfloat16")
        and not (layer.renorm or layer.synchronized)
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

    product = tf.function(lambda a, b: a * b, jit_compile=True, autograph=False)

    @tf.custom_gradient
    def gelu(inputs):
        value, slope = value_and_slope(inputs)
        return value, lambda gradient: product(gradient, slope)

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
    """Do what `Conv2D.call` does; 1x1 and many channels have another filters' gradient.

    dW[i, j, c, k] = sum over n, y, x of X[n, y + i, x + j, c] · G[n, y, x, k]: for each
    i and j a product of matrices, where oneDNN's kernel takes up to 12 times as long.
    """
    places, channels = inputs.shape[1:3], inputs.shape[3]
    rows = 0 if None in places else math.sqrt(math.prod(places))
    point = layer.kernel_size == (1, 1)
    least = CHANNELS_OF_1X1 if point else max(MANY_CHANNELS, CHANNELS_A_ROW * rows)
    if not rows or channels < least or layer.strides != (1, 1):
        return type(layer).call(layer, inputs)
    import tensorflow as tf

    padding, same = layer.padding.upper(), layer.padding == "same"
    edges = [((k - 1) // 2, k // 2) if same else (0, 0) for k in layer.kernel_size]

    @tf.custom_gradient
    def convolve(x, kernel, bias):
        def gradients(gradient):
            (high, wide), units = gradient.shape[1:3], kernel.shape[3]
            padded, taps = tf.pad(x, [(0, 0), *edges, (0, 0)]), []
            flat = tf.reshape(gradient, (-1, units))
            for i, j in itertools.product(*map(range, layer.kernel_size)):
                seen = tf.reshape(padded[:, i : i + high, j : j + wide], (-1, channels))
                taps.append(tf.matmul(seen, flat, transpose_a=True))
            of_x = tf.nn.conv2d_transpose(gradient, kernel, tf.shape(x), 1, padding)
            of_bias = tf.matmul(tf.ones((1, tf.shape(flat)[0]), flat.dtype), flat)[0]
            return of_x, tf.reshape(tf.stack(taps), kernel.shape), of_bias

        return tf.nn.conv2d(x, kernel, 1, padding) + bias, gradients

    bias = layer.bias if layer.use_bias else tf.zeros(layer.filters)
    weights = [tf.cast(part, inputs.dtype) for part in (layer.kernel, bias)]
    return layer.activation(convolve(inputs, *weights))


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
    variance *= tf.cast(1 - channels / tf.size(inputs), tf.float32)
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + new * (1 - layer.momentum))
    return outputs
