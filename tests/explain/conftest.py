"""Tiny models of every make, with random weights, and references in plain NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

SHAPE = (9, 8, 3)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.Layer):
    """A custom layer with a weight, that says nothing of what it sees."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.conv = layers.Conv2D(4, 3, activation="relu", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.fc = layers.Dense(5, activation="softmax", name="fc")

    def call(self, x, training=False):
        x = self.norm(self.conv(keras.ops.cast(x, "float32") / 255), training=training)
        return self.fc(keras.ops.mean(x, axis=(1, 2)))


def _functional(end="softmax", shape=SHAPE, dtype="float32"):
    image = keras.Input(shape, dtype=dtype, name="image")
    x = layers.Rescaling(1 / 255, name="scale")(image)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(5, 3, strides=2, padding="same", name="conv2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(5, name="fc")(x)
    if end == "softmax":
        x = layers.Activation("softmax", name="probabilities")(x)
    return keras.Model(image, x, name="functional")


def _sequential():
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="softmax", name="fc"),
        ],
        name="sequential",
    )


def _nested():
    image = keras.Input(SHAPE, name="image")
    inner = keras.Input((9, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="deep")(inner)
    encoder = keras.Model(inner, layers.Add(name="sum")([inner, x]), name="encoder")
    head = keras.Sequential(
        [layers.GlobalAveragePooling2D(name="mean"), layers.Dense(5, name="fc")],
        name="head",
    )
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = head(encoder(encoder(x)))
    return keras.Model(image, layers.Softmax(name="softmax")(x), name="nested")


def _shared():
    image = keras.Input(SHAPE, name="image")
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    x = keras.ops.relu(conv(conv(image)) - 0.1)
    x = Scaled(name="scaled")(x)
    x = layers.GlobalMaxPooling2D(name="most")(x)
    return keras.Model(image, layers.Dense(5, name="fc")(x), name="shared")


def _several():
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(image)
    early = layers.Dense(3, name="early")(layers.GlobalAveragePooling2D()(x))
    x = layers.Conv2D(4, 3, activation="relu", name="conv2")(x)
    late = layers.Dense(5, activation="softmax", name="late")(layers.Flatten()(x))
    return keras.Model(image, {"a": late, "b": early}, name="several")


MAKES = {
    "functional": _functional,
    "logits": lambda: _functional(end=None),
    "uint8": lambda: _functional(dtype="uint8"),
    "sequential": _sequential,
    "nested": _nested,
    "shared": _shared,
    "several": _several,
    "subclassed": Subclassed,
    "any size": lambda: _functional(shape=(None, None, 3)),
}


@pytest.fixture(scope="session")
def make():
    """Build a model of one make, with the same random weights every time."""

    def make(name):
        keras.utils.set_random_seed(7)
        model = MAKES[name]()
        if name == "subclassed":
            model(np.zeros((1, *SHAPE), "float32"))
        random = np.random.default_rng(3)
        for layer in model._flatten_layers():
            if getattr(layer, "use_bias", False):
                layer.bias.assign(random.normal(size=layer.bias.shape) * 0.1)
        return model

    return make


@pytest.fixture(scope="session")
def models(make):
    """Every make, built once."""
    return {name: make(name) for name in MAKES}


@pytest.fixture(params=list(MAKES))
def model(request, models):
    return models[request.param]


@pytest.fixture(scope="session")
def image():
    """An image of the tiny models: uint8 (9, 8, 3)."""
    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="session")
def ask():
    """Run a model as it predicts; the first of its outputs, (N, classes)."""

    def ask(model, images, output=0):
        answers = keras.tree.flatten(model(np.asarray(images), training=False))
        return np.asarray(keras.ops.convert_to_numpy(answers[output]))

    return ask


@pytest.fixture(scope="session")
def convolve():
    """Convolve one image with plain loops."""

    def convolve(image, kernel, stride, zeros, dilation=1):
        (top, bottom), (left, right) = zeros
        tall, wide, depth = image.shape
        padded = np.zeros((tall + top + bottom, wide + left + right, depth))
        padded[top : top + tall, left : left + wide] = image
        kh, kw, _, count = kernel.shape
        rows = (padded.shape[0] - dilation * (kh - 1) - 1) // stride + 1
        columns = (padded.shape[1] - dilation * (kw - 1) - 1) // stride + 1
        out = np.zeros((rows, columns, count))
        for r in range(rows):
            for c in range(columns):
                for f in range(count):
                    for i in range(kh):
                        for j in range(kw):
                            for d in range(depth):
                                out[r, c, f] += (
                                    padded[
                                        r * stride + i * dilation,
                                        c * stride + j * dilation,
                                        d,
                                    ]
                                    * kernel[i, j, d, f]
                                )
        return out

    return convolve
