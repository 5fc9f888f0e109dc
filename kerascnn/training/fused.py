"""What TensorFlow does in one kernel, for what Keras does in a dozen operations.

On a processor each operation is a pass over memory, and the passes, not the arithmetic,
are what a step waits for. The results are the same but for rounding. On a GPU, where
XLA fuses the operations, and with other backends everything is Keras' own.
"""

import contextlib
import functools
import math

import keras

from zoo.layers.compiling import compiled_by_xla


@contextlib.contextmanager
def fused_layers(model):
    """Let the batch normalisations and GELUs of a model train by one kernel each.

    It takes a quarter of the time of Keras' operations, or less. The layers are as they
    were afterwards.

    Args:
        model: a Keras model; the graph of its training is built inside the context.
    """
    layers = []
    if not compiled_by_xla():
        for layer in model._flatten_layers():
            if _fusable(layer):
                layer.call = functools.partial(_normalize, layer)
                layers.append(layer)
            elif _is_gelu(layer):
                layer.call = _gelu()
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

    XLA makes one loop of both, in float32 whatever the precision; TensorFlow knows no
    kernel for GELU and takes five operations, and a dozen for the gradient.
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


class _Fused:
    """An optimizer's update of one variable, by one kernel where there is one."""

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable, as Keras asks for it."""
        if compiled_by_xla() or not self._apply(gradient, variable, learning_rate):
            super().update_step(gradient, variable, learning_rate)

    def _apply(self, gradient, variable, learning_rate) -> bool:
        """Update a variable by a kernel; False where none can."""
        import tensorflow as tf

        states = self._states(variable)
        # The gradient of an embedding is sparse.
        dense = isinstance(gradient, tf.Tensor)
        if not states or not dense or variable.dtype != tf.float32:
            return False
        both = (variable, *states)
        handles = [
            (v.value if isinstance(v, keras.Variable) else v).handle for v in both
        ]
        self._kernel(
            handles, tf.cast(gradient, tf.float32), tf.cast(learning_rate, tf.float32)
        )
        return True


class FusedMomentum(_Fused):
    """What makes `keras.optimizers.SGD` with momentum a single pass."""

    def _states(self, variable) -> list:
        if self.momentum == 0:
            return []
        return [self.momentums[self._get_variable_index(variable)]]

    def _kernel(self, handles, gradient, rate) -> None:
        import tensorflow as tf

        variable, momentum = handles
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable,
            accum=momentum,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class FusedAdam(_Fused):
    """What makes `keras.optimizers.Adam`, and AdamW, a single pass."""

    def _states(self, variable) -> list:
        if self.amsgrad:
            return []
        index = self._get_variable_index(variable)
        return [self._momentums[index], self._velocities[index]]

    def _kernel(self, handles, gradient, rate) -> None:
        import tensorflow as tf

        variable, momentum, velocity = handles
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable,
            m=momentum,
            v=velocity,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
