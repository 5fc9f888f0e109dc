"""How Keras compiles a model here, where the faster way to compute depends on it."""

import keras


def compiled_by_xla():
    """Tell whether Keras compiles by XLA unless it is told: not TensorFlow on a CPU."""
    on_tensorflow = keras.config.backend() == "tensorflow"
    return not on_tensorflow or bool(keras.distribution.list_devices("gpu"))
