"""The Dirac initialiser: the first filters are the identity."""

import keras
import numpy as np
import pytest

from zoo.layers import DiracInitializer


def kernel(shape, **options):
    return keras.ops.convert_to_numpy(DiracInitializer(**options)(shape))


@pytest.mark.parametrize("outputs", [3, 5, 8])
def test_a_same_convolution_passes_its_input_on(outputs):
    layer = keras.layers.Conv2D(
        outputs,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer=DiracInitializer(),
    )
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 5)).astype("float32")
    y = keras.ops.convert_to_numpy(layer(x))
    same = min(outputs, 5)
    np.testing.assert_array_equal(y[..., :same], x[..., :same])
    if outputs > 5:  # the others are random, not zero and not copies
        assert np.abs(y[..., 5:]).max() > 0
        assert not np.isclose(y[..., 5], x[..., 0]).all()


def test_the_other_filters_are_pytorchs_default():
    """Uniform within ±1/√fan_in, of variance 1/(3·fan_in)."""
    keras.utils.set_random_seed(0)
    rest = kernel((3, 3, 16, 400))[..., 16:]
    bound = 1 / np.sqrt(3 * 3 * 16)
    assert 0.99 * bound < np.abs(rest).max() <= bound
    np.testing.assert_allclose(rest.var(), bound**2 / 3, rtol=0.02)


def test_another_rest_and_an_even_window():
    values = kernel((2, 2, 2, 3), rest=keras.initializers.Constant(7.0))
    expected = np.zeros((2, 2, 2, 3))
    expected[1, 1, 0, 0] = expected[1, 1, 1, 1] = 1  # right of the middle
    expected[..., 2] = 7
    np.testing.assert_array_equal(values, expected)


def test_it_is_kept_in_a_config():
    layer = keras.layers.Conv2D(
        4, 3, kernel_initializer=DiracInitializer(rest="ones"), name="conv"
    )
    again = keras.layers.Conv2D.from_config(layer.get_config())
    assert isinstance(again.kernel_initializer, DiracInitializer)
    assert isinstance(again.kernel_initializer.rest, keras.initializers.Ones)
    assert again.get_config() == layer.get_config()


def test_the_kernel_of_no_2d_convolution_is_refused():
    with pytest.raises(ValueError, match=r"received the shape \(3, 4\)"):
        kernel((3, 4))
