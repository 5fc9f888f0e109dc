"""The custom layers, against plain NumPy."""

import keras
import numpy as np
import pytest

from zoo.layers import AveragePooling2D, LocalResponseNormalization


def by_loops(x, size, alpha, beta, kappa):
    """Compute the formula of the paper as it is written, value by value."""
    y = np.empty_like(x)
    channels = x.shape[-1]
    for place in np.ndindex(x.shape[:-1]):
        for c in range(channels):
            energy = 0.0
            for j in range(max(0, c - size // 2), min(channels - 1, c + size // 2) + 1):
                energy += x[(*place, j)] ** 2
            y[(*place, c)] = x[(*place, c)] / (kappa + alpha / size * energy) ** beta
    return y


@pytest.mark.parametrize(
    ("channels", "arguments"),
    [
        (7, {"size": 5, "alpha": 1e-4, "beta": 0.75, "kappa": 1.0}),  # Caffe's
        (7, {"size": 5, "alpha": 5e-4, "beta": 0.75, "kappa": 2.0}),  # the paper's
        (8, {"size": 3, "alpha": 10.0, "beta": 0.5, "kappa": 0.5}),
        (3, {"size": 9, "alpha": 10.0, "beta": 1.0, "kappa": 1.0}),  # wider than it is
        (1, {"size": 1, "alpha": 10.0, "beta": 0.75, "kappa": 1.0}),
    ],
)
def test_lrn_is_the_formula(channels, arguments, run):
    x = np.random.default_rng(0).normal(scale=3, size=(2, 4, 3, channels))
    layer = LocalResponseNormalization(**arguments)
    y = keras.ops.convert_to_numpy(layer(x.astype("float32")))
    expected = by_loops(x, **arguments)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    # Large α: the layer must do something that a copy of its input would fail.
    if arguments["alpha"] > 1:
        assert np.abs(y - x).max() > 0.1


def test_lrn_defaults_are_caffes_and_it_has_no_weights():
    layer = LocalResponseNormalization()
    layer.build((None, 8, 8, 16))
    assert (layer.size, layer.alpha, layer.beta, layer.kappa) == (5, 1e-4, 0.75, 1.0)
    assert layer.weights == []


def test_lrn_agrees_with_tensorflow():
    tensorflow = pytest.importorskip("tensorflow")
    x = np.random.default_rng(1).normal(scale=9, size=(2, 3, 3, 12)).astype("float32")
    layer = LocalResponseNormalization(size=5, alpha=0.5, beta=0.75, kappa=2.0)
    # TensorFlow divides by no n, and counts the neighbours of one side.
    theirs = tensorflow.nn.local_response_normalization(
        x, depth_radius=2, bias=2.0, alpha=0.5 / 5, beta=0.75
    )
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y, theirs.numpy(), rtol=1e-5)


def test_lrn_computes_in_float32_under_mixed_precision():
    x = np.random.default_rng(2).normal(scale=5, size=(1, 2, 2, 9)).astype("float32")
    x = keras.ops.cast(x, "bfloat16")
    mixed = LocalResponseNormalization(alpha=1.0, dtype="mixed_bfloat16")
    y = mixed(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    exact = LocalResponseNormalization(alpha=1.0)(keras.ops.cast(x, "float32"))
    # The same numbers, rounded once at the end.
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")),
        keras.ops.convert_to_numpy(
            keras.ops.cast(keras.ops.cast(exact, "bfloat16"), "float32")
        ),
    )


def test_lrn_survives_large_values_under_mixed_float16():
    x = keras.ops.full((1, 1, 1, 5), 1000.0, dtype="float16")  # squared: beyond float16
    y = LocalResponseNormalization(dtype="mixed_float16")(x)
    expected = by_loops(np.full((1, 1, 1, 5), 1000.0), 5, 1e-4, 0.75, 1.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y), expected, rtol=1e-3)


def test_lrn_in_a_model_comes_back_from_its_file(tmp_path, run):
    image = keras.Input((2, 2, 6))
    layer = LocalResponseNormalization(3, alpha=2.0, beta=0.5, kappa=3.0, name="norm")
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("norm").get_config() == layer.get_config()
    x = np.random.default_rng(3).normal(size=(2, 2, 2, 6)).astype("float32")
    np.testing.assert_array_equal(run(again, x), run(model, x))


@pytest.mark.parametrize("size", [0, -1, 4, 5.0])
def test_lrn_needs_an_odd_window(size):
    with pytest.raises(ValueError, match=f"odd integer.*received {size}"):
        LocalResponseNormalization(size)


@pytest.mark.parametrize("kappa", [0, -1.0])
def test_lrn_needs_a_kappa_above_zero(kappa):
    with pytest.raises(ValueError, match=f"above 0.*received {kappa}"):
        LocalResponseNormalization(kappa=kappa)


@pytest.mark.parametrize(("size", "strides"), [(3, 2), (2, 2), (5, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_average_pooling_counts_the_cells_within_the_image(size, strides, padding):
    x = np.random.default_rng(2).normal(size=(2, 8, 7, 3))
    layer = AveragePooling2D(size, strides, padding)
    y = keras.ops.convert_to_numpy(layer(x.astype("float32")))
    assert y.shape == layer.compute_output_shape(x.shape)
    starts = []  # the first row and column of each window, below 0 beyond the border
    for side, windows in zip(x.shape[1:3], y.shape[1:3], strict=True):
        over = max((windows - 1) * strides + size - side, 0) // 2
        starts.append(np.arange(windows) * strides - over)
    for i, j in np.ndindex(y.shape[1:3]):
        top, left = starts[0][i], starts[1][j]
        cells = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
        np.testing.assert_allclose(y[:, i, j], cells.mean((1, 2)), rtol=1e-5, atol=1e-6)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is AveragePooling2D
