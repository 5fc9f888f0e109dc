"""The filters of a layer."""

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.explain import activation_maps, filters


def test_the_filters_are_the_weights(models):
    model = models["functional"]
    found = filters(model)
    kernel = model.get_layer("conv1").get_weights()[0]
    assert found.layer == "conv1"
    np.testing.assert_array_equal(found.filters, kernel)
    for k, norm in enumerate(found.norms):
        assert norm == pytest.approx(np.linalg.norm(kernel[..., k]), rel=1e-5)
        lengths = [np.linalg.norm(kernel[:, :, c, k]) for c in range(3)]
        assert found.channel(k) == np.argmax(lengths)
    assert "6 filters of 3×3×3: 162 weights" in str(found)
    assert "filter 0, channel 2:" in str(found)


@pytest.mark.parametrize(
    ("which", "layer", "name", "shape"),
    [
        ("nested", "deep", "encoder/deep", (3, 3, 4, 4)),
        ("nested", "encoder/deep", "encoder/deep", (3, 3, 4, 4)),
        ("nested", None, "stem", (3, 3, 3, 4)),
        ("shared", "conv", "conv", (3, 3, 3, 3)),
        ("subclassed", "conv", "conv", (3, 3, 3, 4)),
        ("functional", "fc", "fc", (1, 1, 5, 5)),
        ("sequential", "fc", "fc", (7, 6, 4, 5)),  # behind Flatten: as the map was
    ],
)
def test_filters_of_every_make(models, which, layer, name, shape):
    found = filters(models[which], layer)
    assert (found.layer, found.filters.shape) == (name, shape)


def test_the_weights_behind_flatten_lie_as_the_map_did(models):
    model = models["sequential"]
    kernel = model.get_layer("fc").get_weights()[0]
    found = filters(model, model.get_layer("fc"))
    for place in np.ndindex(7, 6, 4):
        row, column, channel = place
        index = (row * 6 + column) * 4 + channel
        assert found.filters[(*place, 3)] == kernel[index, 3]


def test_kinds_of_convolution():
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs))
    assert filters(model).filters.shape == (3, 3, 1, 8)
    model = keras.Model(inputs, layers.Conv2DTranspose(6, 3)(inputs))
    assert filters(model).filters.shape == (3, 3, 4, 6)


def test_what_has_no_filters_is_an_error(models):
    with pytest.raises(
        ValueError, match=r"pool1 .* has no filters; .*conv1, conv2, fc"
    ):
        filters(models["functional"], "pool1")
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        filters(models["functional"], "conv9")
    inputs = keras.Input((8, 8, 4))
    with pytest.raises(ValueError, match="no layer with filters"):
        filters(keras.Model(inputs, layers.MaxPooling2D()(inputs)))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "fc"])
def test_the_pictures(models, layer, tmp_path):
    figure = filters(models["functional"], layer).plot(tmp_path / "filters.svg")
    assert layer in figure.get_suptitle()
    assert (tmp_path / "filters.svg").stat().st_size > 1000


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_weights_that_are_no_numbers_are_written_as_such():
    layer = keras.layers.Conv2D(2, 3, name="conv")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    layer.kernel.assign(np.full((3, 3, 1, 2), np.nan))
    maps = activation_maps(model, np.ones((8, 8, 1)))
    assert "nan" in str(filters(model)) and "nan" in str(maps)
