"""Pooling before ReLU: the same numbers to the last digit, and the same layers."""

import keras
import numpy as np
import pytest

import zoo
from kerascnn.training.network import TrainedModel, borrowed
from kerascnn.training.rewrites import pooled_first

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="XLA does without"
)
layers = keras.layers


def conv(**options):
    return layers.Conv2D(8, 3, padding="same", name="conv", **options)


def chain(*parts):
    image = x = keras.Input((9, 9, 3))
    for part in parts:
        x = part(x)
    return keras.Model(image, layers.Flatten()(x))


def moved(model):
    """Return the names of the layers whose ReLU moves, and of their poolings."""
    names = {id(layer): layer.name for layer in model.layers}
    return [sorted(names[i] for i in ids) for ids in pooled_first(model)]


POOL = {"pool_size": 3, "strides": 2, "padding": "same", "name": "pool"}
MOVED = {
    "conv": lambda: [conv(activation="relu"), layers.MaxPooling2D(2, name="pool")],
    "same": lambda: [conv(activation="relu"), layers.MaxPooling2D(**POOL)],
    "norm": lambda: [
        conv(use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(name="relu"),
        layers.MaxPooling2D(2, name="pool"),
    ],
    "activation": lambda: [
        conv(),
        layers.Activation("relu", name="relu"),
        layers.MaxPooling2D(2, name="pool"),
    ],
}


def step(model, x):
    """Return output and gradients, of the images and the weights, of one step."""
    import tensorflow as tf

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
        weights = [v.value for v in model.trainable_variables]
        return [y, *tape.gradient(loss, [x, *weights])]

    operations = run.get_concrete_function(x).graph.get_operations()
    relu = next(op for op in operations if op.type == "Relu")
    values = [np.asarray(keras.ops.cast(v, "float32")) for v in run(x)]
    return values, "Pool" in relu.inputs[0].op.type


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", MOVED)
def test_outputs_and_gradients_are_equal(kind, precision):
    keras.utils.set_random_seed(0)
    model = chain(*MOVED[kind]())
    first = "conv" if kind in ("conv", "same") else "relu"
    assert moved(model) == [[first], ["pool"]]
    # Small integers: of many windows several values are the largest, or all negative.
    x = np.random.default_rng(0).integers(-2, 3, (5, 9, 9, 3)).astype("float32")
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.random.default_rng(1).integers(-1, 2, kernel.shape))
    x = keras.ops.convert_to_tensor(x)
    trained = TrainedModel(model.inputs[0], model.outputs[0])
    with borrowed(trained, precision):
        expected, pooled = step(model, x)
        assert not pooled
        found, pooled = step(trained, x)
        assert pooled
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    if first == "conv":
        assert model.get_layer("conv").activation is keras.activations.relu


def read_twice():
    image = keras.Input((9, 9, 3))
    x = conv(activation="relu")(image)
    return keras.Model(image, [layers.MaxPooling2D(2)(x), layers.Flatten()(x)])


def an_output():
    image = keras.Input((9, 9, 3))
    x = conv(activation="relu")(image)
    return keras.Model(image, [x, layers.MaxPooling2D(2)(x)])


@pytest.mark.parametrize(
    "model",
    [
        lambda: chain(conv(activation="relu"), layers.AveragePooling2D(2)),
        lambda: chain(conv(activation="elu"), layers.MaxPooling2D(2)),
        lambda: chain(conv(), layers.ReLU(6.0), layers.MaxPooling2D(2)),
        lambda: chain(conv(), layers.ReLU(negative_slope=0.1), layers.MaxPooling2D(2)),
        lambda: chain(
            conv(activation="relu", activity_regularizer="l2"), layers.MaxPooling2D(2)
        ),
        read_twice,
        an_output,
    ],
)
def test_what_is_not_the_same_stays(model):
    assert moved(model()) == [[], []]


def test_lecture_cnn_keeps_its_layers():
    model = zoo.build("lecture_cnn")
    before = model.to_json()
    trained = TrainedModel(model.inputs[0], model.outputs[0])
    assert moved(trained)[0] == ["conv1", "conv2", "conv3"]
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(trained(x), model(x))
    assert model.to_json() == before
