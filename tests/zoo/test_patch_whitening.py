"""Patch whitening against a computation in NumPy, patch by patch."""

import keras
import numpy as np
import pytest

from zoo.layers import PatchWhitening2D


def images(channels=3, number=12, mean=0.3, seed=0):
    """Draw noise whose neighbouring pixels and channels go together, as in photos."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(number, 18, 17, channels))
    smooth = noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]
    smooth = smooth[:, :, :-1] + smooth[:, :, 1:]
    mixed = smooth @ (np.eye(channels) + random.uniform(0, 1, (channels, channels)))
    return (0.1 * mixed + mean).astype("float32")


def patches_of(x, size):
    """Cut out every patch by itself, flat in the order of a kernel."""
    found = []
    for image in x:
        for row in range(x.shape[1] - size + 1):
            for column in range(x.shape[2] - size + 1):
                found.append(
                    image[row : row + size, column : column + size].reshape(-1)
                )
    return np.array(found, "float64")


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize(
    ("channels", "size", "epsilon"),
    [(3, 2, 5e-4), (1, 2, 5e-4), (4, 2, 1e-2), (2, 3, 5e-4)],
)
def test_the_kernel_is_that_of_the_formula(channels, size, epsilon):
    x = images(channels)
    layer = PatchWhitening2D(size, epsilon)
    layer.adapt(x)
    patches = patches_of(x, size)
    covariance = np.cov(patches, rowvar=False, bias=True)
    half = size * size * channels
    kernel = array(layer.kernel).reshape(half, 2 * half).astype("float64")
    np.testing.assert_array_equal(kernel[:, half:], -kernel[:, :half])
    kernel = kernel[:, :half]
    # Each filter is an eigenvector, C·v = λ·v, of length 1/√(λ + ε), the largest first.
    lengths = np.linalg.norm(kernel, axis=0)
    eigenvalues = 1 / lengths**2 - epsilon
    vectors = kernel / lengths
    expected = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        covariance @ vectors, vectors * expected, atol=1e-6 * expected[0]
    )
    np.testing.assert_allclose(
        array(layer.bias)[:half], -patches.mean(axis=0) @ kernel, rtol=1e-4, atol=1e-5
    )


def test_whitened_patches_are_uncorrelated():
    x = images()
    before = np.cov(patches_of(x, 2), rowvar=False)
    assert np.abs(np.corrcoef(patches_of(x, 2), rowvar=False)[0, 1]) > 0.3
    layer = PatchWhitening2D(epsilon=5e-4)
    layer.adapt(x)
    y = array(layer(x))
    assert y.shape == (12, 15, 15, 24)
    y = y.reshape(-1, 24).astype("float64")
    np.testing.assert_array_equal(y[:, 12:], -y[:, :12])
    y = y[:, :12]
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)
    # λ/(λ + ε) is what ε leaves of variance 1.
    eigenvalues = np.linalg.eigvalsh(before)[::-1]
    expected = np.diag(eigenvalues / (eigenvalues + 5e-4))
    assert expected[0, 0] > 0.99
    np.testing.assert_allclose(np.cov(y, rowvar=False), expected, atol=2e-3)


def test_scale_and_mean_of_the_pixels_make_no_difference():
    """With ε scaled as a variance: what the zoo's networks rely on."""
    x = images(mean=0)
    one, other = PatchWhitening2D(epsilon=1e-3), PatchWhitening2D(epsilon=1e-3 / 4)
    one.adapt(x)
    other.adapt(x / 2 + 5)
    np.testing.assert_allclose(array(other(x / 2 + 5)), array(one(x)), atol=1e-3)


def test_many_images_give_the_same_as_few_at_a_time(monkeypatch):
    x = images()
    one, other = PatchWhitening2D(), PatchWhitening2D()
    one.adapt(x)
    monkeypatch.setattr("zoo.layers.patch_whitening.CHUNK", 5)
    other.adapt(x)
    np.testing.assert_allclose(array(other.kernel), array(one.kernel), rtol=1e-4)


def test_the_convolution_is_that_of_keras():
    x = images(2)
    layer = PatchWhitening2D(3)
    layer.adapt(x)
    theirs = keras.layers.Conv2D(36, 3)
    theirs.build(x.shape)
    theirs.set_weights([array(layer.kernel), array(layer.bias)])
    np.testing.assert_allclose(array(layer(x)), array(theirs(x)), rtol=1e-5, atol=1e-5)


def test_before_it_is_adapted_the_filters_are_an_orthonormal_basis():
    keras.utils.set_random_seed(0)
    layer = PatchWhitening2D()
    layer.build((None, 32, 32, 3))
    kernel = array(layer.kernel).reshape(12, 24)
    np.testing.assert_allclose(kernel[:, :12].T @ kernel[:, :12], np.eye(12), atol=1e-5)
    np.testing.assert_array_equal(kernel[:, 12:], -kernel[:, :12])
    assert np.abs(kernel).max() < 0.99  # a random one, not the pixels themselves


def test_the_kernel_is_frozen_and_the_bias_is_not():
    layer = PatchWhitening2D()
    layer.build((None, 32, 32, 3))
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(24,)]
    assert [tuple(v.shape) for v in layer.non_trainable_variables] == [(2, 2, 3, 24)]


def test_a_file_knows_that_it_is_adapted(tmp_path):
    image = keras.Input((16, 16, 3))
    layer = PatchWhitening2D(name="whitening")
    assert not layer.adapted
    model = keras.Model(image, layer(image))
    assert not layer.adapted
    layer.adapt(images())
    assert layer.adapted
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("whitening").adapted
    x = images(seed=1)
    np.testing.assert_allclose(array(again(x)), array(model(x)), rtol=1e-6)
    copy = keras.models.clone_model(model)
    assert not copy.get_layer("whitening").adapted
    copy.set_weights(model.get_weights())
    assert copy.get_layer("whitening").adapted


def test_adapting_twice_is_adapting_once():
    layer = PatchWhitening2D()
    layer.adapt(images())
    kernel = array(layer.kernel)
    layer.adapt(images())
    np.testing.assert_array_equal(array(layer.kernel), kernel)


def test_pixels_that_never_change_are_not_divided_by_zero():
    layer = PatchWhitening2D()
    layer.adapt(np.full((3, 8, 8, 3), 0.7, "float32"))
    assert np.isfinite(array(layer.kernel)).all()


def test_what_the_summary_reads():
    layer = PatchWhitening2D(name="whitening")
    layer.build((None, 32, 32, 3))
    assert layer.compute_output_shape((None, 32, 32, 3)) == (None, 31, 31, 24)
    assert layer.compute_output_shape((None, None, None, 1)) == (None, None, None, 8)
    assert layer.window() == ((2, 2), (1, 1))
    assert layer.macs((None, 32, 32, 3), (None, 31, 31, 24)) == 31 * 31 * 12 * 24
    assert layer.parameter_expression() == "2·2·3·24 + 24"
    assert layer.count_params() == 2 * 2 * 3 * 24 + 24
    again = PatchWhitening2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="TensorFlow's BiasAddGrad"
)
def test_the_gradient_of_the_bias_is_summed_with_care_in_bfloat16():
    import tensorflow as tf

    layer = PatchWhitening2D(dtype="mixed_bfloat16")
    layer.build((None, 65, 65, 3))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(np.zeros((16, 65, 65, 3), "float32")))
    found = tape.gradient(total, layer.bias.value)
    # Keras' sum of a map and a bias would give up at 256.
    np.testing.assert_array_equal(found, np.full(24, 16 * 64 * 64))


def test_what_is_refused():
    for size in (0, 1.5, (2, 2)):
        with pytest.raises(ValueError, match="size must be a positive integer; rec"):
            PatchWhitening2D(size)
    with pytest.raises(ValueError, match=r"epsilon must be above 0.*received 0"):
        PatchWhitening2D(epsilon=0)
    layer = PatchWhitening2D()
    with pytest.raises(ValueError, match=r"received an array of shape \(8, 8, 3\)"):
        layer.adapt(np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"at least 2x2 pixels.*\(3, 1, 8, 3\)"):
        layer.adapt(np.zeros((3, 1, 8, 3)))
    with pytest.raises(ValueError, match="at least 2x2 pixels"):
        layer(np.zeros((3, 8, 1, 3), "float32"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        layer.adapt(np.full((1, 4, 4, 3), np.nan))
    with pytest.raises(ValueError, match=r"built for 3 channels; received .* of 1"):
        layer.adapt(np.zeros((1, 4, 4, 1)))
