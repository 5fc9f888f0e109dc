import keras
import numpy as np
import pytest

from kerascnn.training.normalization import fused_normalization

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel"
)


def network(dtype="float32", **options):
    keras.utils.set_random_seed(0)
    layer = keras.layers.BatchNormalization(
        beta_initializer="normal",
        gamma_initializer="uniform",
        name="norm",
        dtype=dtype,
        **options,
    )
    return keras.Sequential([keras.Input((6, 5, 4)), layer])


def trained_once(model, x):
    """Return the output, the gradients, and the moving statistics after a step."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        x = tf.convert_to_tensor(x)
        tape.watch(x)
        y = model(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    weights = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, [x, *weights])
    moving = [v.numpy() for v in model.non_trainable_variables]
    return [np.asarray(keras.ops.cast(v, "float32")) for v in (y, *gradients, *moving)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 3e-2)]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False}, {"momentum": 0.6, "epsilon": 0.1}],
)
def test_it_computes_what_keras_does(dtype, tolerance, options):
    x = np.random.default_rng(0).normal(3, 2, (7, 6, 5, 4)).astype("float32")
    expected = trained_once(network(dtype, **options), x)
    model = network(dtype, **options)
    with fused_normalization(model):
        assert "call" in vars(model.get_layer("norm"))
        found = trained_once(model, x)
        unfused = network(dtype, **options)(x, training=False)
        assert model(x, training=False).dtype == unfused.dtype
    for a, b in zip(found, expected, strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


def test_the_layers_are_as_they_were_afterwards():
    model = network()
    layer = model.get_layer("norm")
    with pytest.raises(RuntimeError), fused_normalization(model):
        raise RuntimeError
    assert "call" not in vars(layer)
    assert layer.call.__func__ is keras.layers.BatchNormalization.call


@pytest.mark.parametrize(
    "other",
    [
        keras.Sequential([keras.Input((9,)), keras.layers.BatchNormalization()]),
        keras.Sequential([keras.Input((6, 5, 4)), keras.layers.BatchNormalization(1)]),
        keras.Sequential([keras.Input((6, 5, 4)), keras.layers.LayerNormalization()]),
    ],
)
def test_other_layers_stay_as_they_are(other):
    with fused_normalization(other):
        assert "call" not in vars(other.layers[0])


def test_a_frozen_layer_keeps_its_statistics():
    model = network()
    model.trainable = False
    before = [v.numpy() for v in model.variables]
    with fused_normalization(model):
        model(np.ones((2, 6, 5, 4), "float32"), training=True)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
