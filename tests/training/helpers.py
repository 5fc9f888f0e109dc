"""What several tests of the training need."""

import keras
import numpy as np


def weights(model):
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.weights}


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


def busy_model(shape=(12, 12, 3), classes=3, dropout=0.5):
    """Everything whose state a resume could lose: dropout, batch normalisation."""
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(classes, activation="softmax", name="fc")(x)
    return keras.Model(inputs, x, name="busy")


class Stop(keras.callbacks.Callback):
    """Interrupts like Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch:
            raise KeyboardInterrupt
