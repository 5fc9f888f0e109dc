import keras
import numpy as np
import pytest

import zoo
from kerascnn.training import Recipe
from kerascnn.training.optimization import (
    decayed,
    learning_rate,
    make_optimizer,
    resolve_precision,
)


def rates(recipe, steps_per_epoch=10):
    schedule = learning_rate(recipe, steps_per_epoch)
    return [float(schedule(step)) for step in range(recipe.epochs * steps_per_epoch)]


def test_cosine_goes_from_the_peak_to_zero():
    found = rates(Recipe(epochs=10, learning_rate=0.4))
    expected = 0.2 * (1 + np.cos(np.pi * np.arange(100) / 100))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_warmup_grows_to_the_peak_and_the_rest_ends_at_zero():
    found = rates(Recipe(epochs=10, learning_rate=0.4, warmup=2, schedule="linear"))
    np.testing.assert_allclose(found[:20], 0.4 * np.arange(1, 21) / 20, rtol=1e-6)
    np.testing.assert_allclose(found[20:], 0.4 * (1 - np.arange(80) / 80), rtol=1e-5)


def test_steps_decay_at_their_milestones_counted_from_the_start():
    recipe = Recipe(
        epochs=4, learning_rate=1, schedule="steps", milestones=(2, 3), warmup=1
    )
    found = np.array(rates(recipe))
    assert found[19] == 1 and found[15] == 1
    np.testing.assert_allclose(found[[22, 29]], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found[[32, 39]], 0.01, rtol=1e-6)


def test_constant_stays():
    found = rates(Recipe(epochs=3, schedule="constant"))
    np.testing.assert_allclose(found, 0.002, rtol=1e-6)


def test_weight_decay_spares_biases_and_normalisation():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    assert [v.path for v in decayed(model)] == ["conv/kernel", "fc/kernel"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_decoupled_decay_shrinks_kernels_alone(optimizer):
    model = zoo.build("lecture_cnn", use_bias=True)
    recipe = Recipe(
        optimizer=optimizer, learning_rate=0.1, schedule="constant", weight_decay=0.01
    )
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    made = make_optimizer(recipe, model, 10)
    zeros = [keras.ops.zeros_like(v) for v in model.trainable_variables]
    made.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        expected = 1.0 if "bias" in variable.name else 1 - 0.1 * 0.01
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)


def test_l2_is_the_gradient_form_of_the_papers():
    """Its loss is l2/2 · |w|², whose gradient is l2 · w."""
    model = zoo.build("linear")
    make_optimizer(Recipe(optimizer="sgd", l2=0.5), model, 10)
    kernel = np.asarray(model.get_layer("fc").kernel)
    (penalty,) = model.losses
    np.testing.assert_allclose(float(penalty), 0.25 * (kernel**2).sum(), rtol=1e-5)


def test_precision_is_decided_by_the_machine_only_when_left_to_it():
    assert resolve_precision("mixed_float16") == "mixed_float16"
    assert resolve_precision("auto") in ("float32", "mixed_bfloat16")
