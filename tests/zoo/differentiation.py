"""Gradients by the backend, whichever it is."""

import keras
import numpy as np


def gradients(function, values) -> list:
    """Return the gradients of a scalar function of tensors by each; None for none."""
    if keras.config.backend() == "jax":
        import jax

        found = jax.grad(function, range(len(values)))(*values)
    elif keras.config.backend() == "torch":
        tensors = [keras.ops.convert_to_tensor(v).detach().clone() for v in values]
        function(*(tensor.requires_grad_() for tensor in tensors)).backward()
        found = [tensor.grad for tensor in tensors]
    else:
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(v) for v in values]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = function(*tensors)
        found = tape.gradient(total, tensors)
    return [
        g if g is None else np.asarray(keras.ops.convert_to_numpy(g)) for g in found
    ]


def layer_gradients(layer, x, mixture, **options) -> list[np.ndarray]:
    """Return the gradients of Σ mixture · layer(x): of x, then of the weights."""
    if not layer.built:
        layer.build(x.shape)

    def total(x, *weights):
        states = [v.value for v in layer.non_trainable_variables]
        y, _ = layer.stateless_call(weights, states, x, **options)
        return keras.ops.sum(keras.ops.multiply(y, mixture))

    return gradients(total, [x, *(v.value for v in layer.trainable_variables)])
