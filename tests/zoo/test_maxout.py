"""The maxout layer, against plain NumPy."""

import keras
import numpy as np
import pytest
from differentiation import layer_gradients

from zoo.layers import Maxout


def by_loops(x, pieces):
    """Take the maxima as the paper writes them, unit by unit."""
    units = x.shape[-1] // pieces
    y = np.empty((*x.shape[:-1], units), x.dtype)
    for place in np.ndindex(x.shape[:-1]):
        for unit in range(units):
            y[(*place, unit)] = max(x[place][unit * pieces + j] for j in range(pieces))
    return y


@pytest.mark.parametrize("shape", [(2, 3, 4, 12), (3, 12), (2, 5, 12)])
@pytest.mark.parametrize("pieces", [1, 2, 3, 12])
def test_a_unit_is_the_largest_of_its_consecutive_pieces(shape, pieces):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y = keras.ops.convert_to_numpy(Maxout(pieces)(x))
    np.testing.assert_array_equal(y, by_loops(x, pieces))
    assert y.shape == (*shape[:-1], 12 // pieces)


def test_it_has_no_weights_and_its_shape_is_known_beforehand():
    layer = Maxout(5)
    assert layer.compute_output_shape((None, 8, None, 20)) == (None, 8, None, 4)
    maps = layer(keras.Input((8, 8, 20)))
    assert maps.shape == (None, 8, 8, 4)
    assert layer.weights == []
    assert layer.window() == ((1, 1), (1, 1))


def test_it_takes_images_of_any_size():
    image = keras.Input((None, None, 6))
    model = keras.Model(image, Maxout(2)(image))
    assert model.output_shape == (None, None, None, 3)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 6)).astype("float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(x)), by_loops(x, pieces=2)
    )


def test_the_gradient_goes_to_the_largest_piece_alone():
    x = np.array([[3.0, 1.0, 2.0, -5.0, -4.0, -6.0]], "float32")
    weights = np.array([[10.0, 20.0]], "float32")
    found = layer_gradients(Maxout(3), x, weights)[0]
    np.testing.assert_array_equal(found, [[10, 0, 0, 0, 20, 0]])


def test_two_pieces_can_be_an_absolute_value():
    """Units of two linear pieces, w and -w: the paper's Figure 1."""
    dense = keras.layers.Dense(2, use_bias=False)
    dense.build((None, 1))
    dense.set_weights([np.array([[1.0, -1.0]], "float32")])
    x = np.array([[-3.0], [0.5]], "float32")
    y = keras.ops.convert_to_numpy(Maxout(2)(dense(x)))
    np.testing.assert_array_equal(y, np.abs(x))


def test_channels_that_do_not_fall_into_units_are_refused():
    with pytest.raises(ValueError, match=r"multiple of pieces=4; received 6 channels"):
        Maxout(4)(np.zeros((1, 6), "float32"))
    with pytest.raises(ValueError, match=r"multiple of pieces=4; received None"):
        Maxout(4).compute_output_shape((None, None))


@pytest.mark.parametrize("pieces", [0, -1, 2.0, None])
def test_pieces_that_are_no_number_of_pieces_are_refused(pieces):
    with pytest.raises(ValueError, match=f"pieces must be .*received {pieces}"):
        Maxout(pieces)


def test_its_config_makes_it_again():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Maxout(7, name="m"))
    )
    assert (type(layer), layer.pieces, layer.name) == (Maxout, 7, "m")
