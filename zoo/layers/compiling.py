"""How Keras compiles a model here, and how XLA compiles where Keras does not let it."""

import functools

import keras


def compiled_by_xla():
    """Tell whether Keras compiles by XLA unless it is told: not TensorFlow on a CPU."""
    on_tensorflow = keras.config.backend() == "tensorflow"
    return not on_tensorflow or bool(keras.distribution.list_devices("gpu"))


def in_one_loop(function):
    """Let XLA make one loop of a function's values and one of its gradients.

    For element-wise functions of tensors that broadcast over leading axes, under
    TensorFlow on a CPU, where each operation is a pass over memory. Within a loop
    everything is float32, which costs nothing there and is what sums over places need.
    """
    import tensorflow as tf

    loop = functools.partial(tf.function, jit_compile=True, autograph=False)

    def values(inputs):
        outputs = function(*[tf.cast(x, tf.float32) for x in inputs])
        return tf.cast(outputs, inputs[0].dtype)

    def gradients(inputs, gradient):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = values(inputs)
        return tape.gradient(outputs, inputs, gradient)

    value, slope = loop(values), loop(gradients)

    @tf.custom_gradient
    def compiled(*inputs):
        return value(inputs), lambda gradient: slope(inputs, gradient)

    return compiled
