"""Competitive multi-scale convolution against its table and against NumPy."""

import keras
import numpy as np
import pytest

import zoo
from zoo.competitive_multiscale import competitive_block

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")

# Windows and filters of the nine modules.
TABLE = [
    ((1, 3, 5, 7), 192),
    ((1, 3), 160),
    ((1, 3), 96),
    ((1, 3, 5, 7), 192),
    ((1, 3), 192),
    ((1, 3), 192),
    ((1, 3, 5), 192),
    ((1, 3), 192),
    ((1, 3), 10),
]


def test_published_counts(blueprint, count):
    counts = count(blueprint(zoo.builder("competitive_multiscale")))
    assert counts.trainable == 4_484_220  # 4.48 M in the paper
    # Mean and variance of every filter of every size.
    assert counts.non_trainable == 2 * sum(len(s) * n for s, n in TABLE) == 7_592
    assert counts.depth == 9


def test_the_modules_are_those_of_the_table(blueprint):
    model = blueprint(zoo.builder("competitive_multiscale"))
    convolutions = [
        (layer.name, layer.kernel_size, layer.filters)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert sorted(convolutions) == sorted(
        (
            f"block{place // 3 + 1}_module{place % 3 + 1}_{size}x{size}",
            (size, size),
            filters,
        )
        for place, (sizes, filters) in enumerate(TABLE)
        for size in sizes
    )
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers}
    assert shapes["block1_module3_max"] == (32, 32, 96)
    assert shapes["block1_pool"] == (16, 16, 96)
    assert shapes["block2_pool"] == (8, 8, 192)
    assert shapes["block3_module3_max"] == (8, 8, 10)
    assert shapes["block3_pool"] == (10,)
    assert model.get_layer("block2_dropout").rate == 0.5
    # The maximum is the only activation.
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"ReLU", "ELU", "LeakyReLU"}
    activations = [c for c in model.layers if hasattr(c, "activation")]
    assert {c.activation for c in activations[:-1]} == {keras.activations.linear}


def test_a_module_is_the_maximum_of_normalised_convolutions():
    keras.utils.set_random_seed(4)
    image = keras.Input((6, 5, 3))
    model = keras.Model(image, competitive_block(image, 4, (1, 3, 5), name="m"))
    random = np.random.default_rng(5)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(
                [random.uniform(0.2, 1.5, w.shape) - 0.1 for w in layer.weights]
            )
    x = random.normal(size=(2, 6, 5, 3))
    responses = []
    for size in (1, 3, 5):
        kernel, bias = model.get_layer(f"m_{size}x{size}").get_weights()
        layer = model.get_layer(f"m_{size}x{size}_bn")
        gamma, beta, mean, variance = layer.get_weights()
        pad = size // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        y = np.empty((2, 6, 5, 4))
        for i, j in np.ndindex(6, 5):
            window = padded[:, i : i + size, j : j + size]
            y[:, i, j] = np.tensordot(window, kernel, 3) + bias
        responses.append(gamma * (y - mean) / np.sqrt(variance + 1e-5) + beta)
    expected = np.max(responses, axis=0)
    # All sizes win somewhere, or the maximum would not be tested.
    assert set(np.argmax(responses, axis=0).flat) == {0, 1, 2}
    actual = keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_width_leaves_the_classes_alone(blueprint):
    model = blueprint(zoo.builder("competitive_multiscale"), classes=7, width=0.25)
    assert model.get_layer("block3_module2_3x3").filters == 48
    assert model.get_layer("block3_module3_3x3").filters == 7


def test_dropout_can_be_set(blueprint):
    model = blueprint(zoo.builder("competitive_multiscale"), dropout=0.1, width=0.05)
    assert model.get_layer("block1_dropout").rate == 0.1


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="width must be above 0; received -1"):
        zoo.build("competitive_multiscale", width=-1)
    with pytest.raises(ValueError, match=r"two sizes or more; received \(3,\)"):
        competitive_block(keras.Input((8, 8, 3)), 4, (3,))
