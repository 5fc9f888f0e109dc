"""The network of cuda-convnet against Caffe's definition of it."""

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import LocalResponseNormalization


def test_the_layers_and_their_counts(blueprint, count):
    model = blueprint(zoo.builder("cuda_convnet"))
    assert count(model).trainable == 89_578
    rows = [(la.name, tuple(la.output.shape[1:])) for la in model.layers]
    assert rows[2:-1] == [
        ("pixels", (32, 32, 3)),
        ("conv1", (32, 32, 32)),
        ("pool1", (16, 16, 32)),
        ("relu1", (16, 16, 32)),
        ("norm1", (16, 16, 32)),
        ("conv2", (16, 16, 32)),
        ("relu2", (16, 16, 32)),
        ("pool2", (8, 8, 32)),
        ("norm2", (8, 8, 32)),
        ("conv3", (8, 8, 64)),
        ("relu3", (8, 8, 64)),
        ("pool3", (4, 4, 64)),
        ("flatten", (1024,)),
        ("ip1", (10,)),
    ]
    kinds = [type(model.get_layer(f"pool{n}")).__name__ for n in (1, 2, 3)]
    assert kinds == ["MaxPooling2D", "AveragePooling2D", "AveragePooling2D"]


def test_the_normalisation_is_caffes_and_can_be_left_out(blueprint, count):
    layer = blueprint(zoo.builder("cuda_convnet")).get_layer("norm1")
    assert isinstance(layer, LocalResponseNormalization)
    assert (layer.size, layer.alpha, layer.beta, layer.kappa) == (3, 5e-5, 0.75, 1.0)
    plain = blueprint(zoo.builder("cuda_convnet"), normalization=False)
    assert not any("norm" in la.name for la in plain.layers)
    assert count(plain).trainable == 89_578


def test_the_windows_are_caffes():
    """From pixel 0 in steps of 2, the last cut short: ⌈(n - 3)/2⌉ + 1 of them."""
    model = zoo.build("cuda_convnet", (8, 8, 1), width=1 / 32)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype("float32")
    for name, reduce in (("pool1", np.max), ("pool2", np.mean)):
        layer = type(model.get_layer(name)).from_config(
            model.get_layer(name).get_config()
        )
        expected = [
            [reduce(x[0, r : r + 3, c : c + 3, 0]) for c in range(0, 8, 2)]
            for r in range(0, 8, 2)
        ]
        y = keras.ops.convert_to_numpy(layer(x))[0, ..., 0]
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_pixels_come_in_their_own_scale_and_kernels_start_small(run):
    model = zoo.build("cuda_convnet")
    part = keras.Model(model.input, model.get_layer("pixels").output)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, 0, 0] = (0, 128, 255)
    centred = run(part, images)[0, 0, 0]
    np.testing.assert_allclose(centred, [-127.5, 0.5, 127.5], atol=1e-4)
    for name, deviation in (("conv1", 1e-4), ("conv2", 0.01), ("ip1", 0.01)):
        kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.1)


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("cuda_convnet", width=0)
