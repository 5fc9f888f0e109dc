import keras
import numpy as np
import pytest

import zoo
from kerascnn.environment import resolve_precision
from kerascnn.training import Recipe
from kerascnn.training.network import set_precision
from kerascnn.training.optimizers import (
    Points,
    decayed,
    last_layer,
    learning_rate,
    make_optimizer,
    offsets,
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


def test_steps_decay_with_the_first_step_of_an_epoch():
    found = rates(Recipe(epochs=4, learning_rate=1, schedule="steps", milestones=(2,)))
    np.testing.assert_allclose(found, [1] * 20 + [0.1] * 20, rtol=1e-6)


def test_steps_have_rates_of_their_own():
    recipe = Recipe(
        epochs=4,
        learning_rate=2,
        schedule="steps",
        milestones=(1, 2.5),
        rates=(0.5, 0.2),
    )
    expected = [2] * 10 + [1] * 15 + [0.4] * 15
    np.testing.assert_allclose(rates(recipe), expected, rtol=1e-6)


def test_exponential_decays_in_every_step():
    recipe = Recipe(epochs=4, learning_rate=0.5, schedule="exponential", decay=0.8)
    expected = [0.5 * 0.8 ** (step / 10) for step in range(40)]
    np.testing.assert_allclose(rates(recipe), expected, rtol=1e-5)
    found = rates(recipe.replace(warmup=1))
    np.testing.assert_allclose(found[10:], expected[:30], rtol=1e-5)


def test_points_are_joined_by_straight_lines():
    recipe = Recipe(
        epochs=10,
        learning_rate=3,
        schedule="points",
        milestones=(1, 2.3, 8),
        rates=(0.2, 1, 0),
    )
    expected = 3 * np.interp(np.arange(100), [10, 23, 80], [0.2, 1, 0])
    found = rates(recipe)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found[80:] == [0] * 20  # exactly, and never below
    one = Recipe(epochs=1, schedule="points", milestones=(0,), rates=(0.5,))
    np.testing.assert_allclose(rates(one), 0.001, rtol=1e-6)


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function)


@pytest.mark.parametrize("schedule", ["exponential", "points", "steps"])
def test_schedules_are_kept_and_compiled(schedule):
    recipe = Recipe(
        epochs=4, schedule=schedule, milestones=(1, 3), rates=(1, 0.1), decay=0.7
    )
    made = learning_rate(recipe, 5)
    config = keras.saving.serialize_keras_object(made)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(made)
    assert isinstance(made, Points) == (schedule == "points")
    quick = compiled(made)
    for step in (0, 4, 5, 9, 14, 15, 19, 40):
        expected = float(made(step))
        assert float(again(step)) == expected
        tensor = keras.ops.convert_to_tensor(step, "int32")
        assert float(quick(tensor)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
def test_offsets_have_a_rate_of_their_own(optimizer):
    """Also after clipping, and beside weight decay."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.LayerNormalization(center=False, name="layer_norm")(x)
    model = keras.Model(inputs, x)
    assert [v.path for v in offsets(model)] == ["norm/beta"]
    recipe = Recipe(
        optimizer=optimizer,
        nesterov=True,
        learning_rate=0.01,
        weight_decay=0.1,
        clip_norm=1,
    )
    start = [np.array(v) for v in model.trainable_variables]
    moves = []
    for factor in (1, 64):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        made = make_optimizer(recipe.replace(bias_rate=factor), model, 10)
        for number in (1.0, 3.0):
            gradients = [number * keras.ops.ones_like(v) for v in start]
            made.apply(gradients, model.trainable_variables)
        moves.append(
            {
                v.path: np.asarray(v) - value
                for v, value in zip(model.trainable_variables, start, strict=True)
            }
        )
    for path, move in moves[0].items():
        assert np.abs(move).min() > 1e-4
        factor = 64 if path == "norm/beta" else 1
        np.testing.assert_allclose(moves[1][path], factor * move, rtol=1e-4)


def test_weight_decay_spares_biases_and_normalisation():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    assert [v.path for v in decayed(model)] == ["conv/kernel", "fc/kernel"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_decoupled_decay_shrinks_kernels_alone(optimizer):
    model = zoo.build("lecture_cnn", use_bias=True)
    recipe = Recipe(
        optimizer=optimizer, learning_rate=0.1, schedule="constant", weight_decay=0.01
    )
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    made = make_optimizer(recipe, model, 10)
    zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    made.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        expected = 1.0 if "bias" in variable.name else 1 - 0.1 * 0.01
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("precision", "scale"),
    [("float32", 1), ("mixed_bfloat16", 1e-9), ("mixed_float16", 1e-9)],
)
def test_muon_makes_the_steps_of_kernels_orthogonal(precision, scale):
    """A kernel is a matrix, a column a filter; the last layer is left to Adam."""
    model = zoo.build("lecture_cnn")
    set_precision(model, precision)
    before = [np.array(v) for v in model.trainable_variables]
    recipe = Recipe(optimizer="muon", learning_rate=0.01, schedule="constant")
    made = make_optimizer(recipe, model, 10)
    random = np.random.default_rng(0)
    gradients = [random.normal(size=v.shape).astype("float32") for v in before]
    gradients[:-1] = [gradient * scale for gradient in gradients[:-1]]  # not Adam's
    assert made.precision == model.layers[-1].compute_dtype
    made.apply(gradients, model.trainable_variables)
    moves = [
        np.asarray(v) - start
        for v, start in zip(model.trainable_variables, before, strict=True)
    ]
    for move, gradient in zip(moves[:-1], gradients, strict=False):
        matrix = move.reshape(-1, move.shape[-1])
        gradient = gradient / gradient.std()
        left, _, right = np.linalg.svd(
            gradient.reshape(matrix.shape), full_matrices=False
        )
        # 0.2 · sqrt(the longer side) is the size of Adam's steps (arXiv 2502.16982).
        scaled = matrix / (-0.01 * 0.2 * np.sqrt(max(matrix.shape)))
        values = np.linalg.svd(scaled, compute_uv=False)
        assert 0.6 < values.min() <= values.max() < 1.3
        # Newton and Schulz' five steps come near the exact polar factor.
        similarity = (scaled * (left @ right)).sum() / np.sqrt((scaled**2).sum())
        assert similarity > 0.98 * np.sqrt(min(matrix.shape))
    sign = -0.01 * np.sign(gradients[-1])  # Adam's first step
    np.testing.assert_allclose(moves[-1], sign, atol=1e-4)


def test_the_last_layer_is_found_in_models_that_hold_models():
    layers = keras.layers
    inner = keras.Sequential(
        [
            layers.Dense(5),
            layers.Dense(3, name="scores"),
            layers.BatchNormalization(),
        ]
    )
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), inner])
    assert last_layer(model).name == "scores"
    assert last_layer(zoo.build("lecture_cnn")).name == "fc"
    without = keras.Sequential([keras.Input((4,)), layers.BatchNormalization()])
    assert len(last_layer(without).trainable_variables) == 2


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


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_spectrograms_stay_in_float32(policy):
    sound = keras.Input((500, 1))
    spectrum = keras.layers.STFTSpectrogram()
    model = keras.Model(sound, keras.layers.Dense(2)(spectrum(sound)))
    set_precision(model, policy)
    assert spectrum.compute_dtype == "float32"
    assert model.layers[-1].compute_dtype == policy.removeprefix("mixed_")
    assert model(np.zeros((1, 500, 1), "float32")).shape[-1] == 2
