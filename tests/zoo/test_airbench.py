"""airbench against the author's description and numbers."""

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import DiracInitializer

NAMES = ("airbench94", "airbench95", "airbench96")


@pytest.mark.parametrize(
    ("name", "trainable", "kernel", "normalised"),
    [  # trainable, frozen whitening kernel, channels of batch normalisation
        ("airbench94", 1_971_352, 288, 1_152),
        ("airbench95", 4_604_440, 288, 1_792),
        ("airbench96", 9_915_416, 288, 3_072),
    ],
)
def test_published_counts(name, trainable, kernel, normalised, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    assert counts.trainable == trainable
    assert counts.non_trainable == kernel + 2 * normalised


def rows(model):
    return [(layer.name, tuple(layer.output.shape[1:])) for layer in model.layers]


def test_the_layers_of_airbench94(blueprint):
    model = blueprint(zoo.builder("airbench94"))
    expected = [
        ("image", (32, 32, 3)),
        ("scale", (32, 32, 3)),
        ("whitening", (31, 31, 24)),
        ("whitening_gelu", (31, 31, 24)),
    ]
    side = 31
    for block, filters in enumerate((64, 256, 256), start=1):
        for layer in ("conv1", "pool", "norm1", "gelu1", "conv2", "norm2", "gelu2"):
            side //= 2 if layer == "pool" else 1
            expected.append((f"block{block}_{layer}", (side, side, filters)))
    assert side == 3  # the published last pooling has a 3x3 window: it is global
    expected += [("pool", (256,)), ("scale_features", (256,)), ("fc", (10,))]
    assert rows(model)[:-1] == expected


def test_the_residual_of_airbench96(blueprint):
    model = blueprint(zoo.builder("airbench96"))
    names = [name for name, _ in rows(model)]
    at = names.index("block2_conv1")
    assert [n.removeprefix("block2_") for n in names[at : at + 11]] == [
        *("conv1", "pool", "norm1", "gelu1"),
        *("conv2", "norm2", "gelu2", "conv3", "norm3", "add", "gelu3"),
    ]
    summands = model.get_layer("block2_add").input
    assert summands[0] is model.get_layer("block2_norm3").output
    assert summands[1] is model.get_layer("block2_gelu1").output
    assert not any("add" in n for n, _ in rows(blueprint(zoo.builder("airbench95"))))


@pytest.mark.parametrize(
    ("name", "momentum"),
    [("airbench94", 0.6), ("airbench95", 0.6), ("airbench96", 0.9)],
)
def test_convolutions_normalisations_and_head(name, momentum, blueprint):
    model = blueprint(zoo.builder(name))
    layers = [la for la in model.layers if la.name.startswith("block")]
    norms = [la for la in layers if isinstance(la, keras.layers.BatchNormalization)]
    convolutions = [la for la in layers if isinstance(la, keras.layers.Conv2D)]
    assert len(norms) == len(convolutions) == (9 if name == "airbench96" else 6)
    for layer in norms:
        assert (layer.scale, layer.center, layer.epsilon) == (False, True, 1e-12)
        assert layer.momentum == momentum
    for layer in convolutions:
        assert not layer.use_bias
        assert isinstance(layer.kernel_initializer, DiracInitializer)
    assert not model.get_layer("fc").use_bias


def test_the_gelu_is_the_exact_one():
    """PyTorch's default, x·Φ(x); the approximation with tanh is 4.7e-4 off at 2.2."""
    from statistics import NormalDist

    model = zoo.build("airbench94", (9, 9, 3), width=0.02)
    x = np.linspace(-4, 4, 81, dtype="float32")
    gelu = model.get_layer("block1_gelu1")
    expected = [v * NormalDist().cdf(v) for v in x.tolist()]
    y = keras.ops.convert_to_numpy(gelu(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_the_logits_are_divided_by_9_and_a_block_starts_by_passing_on(pixels):
    keras.utils.set_random_seed(0)
    model = zoo.build("airbench94", width=0.25, classifier_activation=None)
    names = ("block2_conv1", "pool", "block1_gelu2")
    parts = keras.Model(model.input, [model.get_layer(n).output for n in names])
    images = pixels((32, 32, 3))
    convolved, features, before = (
        keras.ops.convert_to_numpy(part) for part in parts(images, training=False)
    )
    weights = keras.ops.convert_to_numpy(model.get_layer("fc").kernel)
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_allclose(logits, features @ weights / 9, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(convolved[..., :16], before, rtol=1e-6)


def test_an_adapted_network_has_whitened_patches(pixels):
    from kerascnn.training.initialization import adapt_layers

    model = zoo.build("airbench94", (12, 12, 3), width=0.1)
    # Smooth images: of pure noise, any orthonormal kernel would be the right one.
    images = np.repeat(np.repeat(pixels((6, 6, 3), images=40), 2, 1), 2, 2)
    images[..., 1] = images[..., 0] // 2 + images[..., 1] // 2
    assert adapt_layers(model, images) == ["whitening"]
    assert model.get_layer("whitening").adapted
    part = keras.Model(model.input, model.get_layer("whitening").output)
    y = keras.ops.convert_to_numpy(part(images)).reshape(-1, 24)[:, :12]
    np.testing.assert_allclose(np.cov(y, rowvar=False), np.eye(12), atol=0.03)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "epochs", "rate", "decay", "warm", "last", "shift", "cutout"),
    [  # as the author has them
        ("airbench94", 9.9, 11.5, 0.0153, 0.23, 0.07, 2, 0),
        ("airbench95", 15, 10.0, 0.0153, 0.23, 0.07, 2, 0),
        ("airbench96", 37, 9.0, 0.012, 0.1, 0, 4, 12),
    ],
)
def test_the_recipe_is_the_published_one(
    name, epochs, rate, decay, warm, last, shift, cutout
):
    from kerascnn.training.recipe import recipe_for

    recipe = recipe_for(name, "airbench")
    batch, momentum = 1024, 0.85
    on_the_sum = rate / (1024 * (1 + 1 / (1 - momentum)))
    # What PyTorch is given: the decay divided by the rate, in the gradient of the sum.
    per_step = decay * batch / (1024 * (1 + 1 / (1 - momentum)))
    assert recipe.learning_rate == pytest.approx(on_the_sum * batch, rel=1e-5)
    assert recipe.l2 == pytest.approx(per_step / on_the_sum / batch, rel=1e-5)
    assert (recipe.batch_size, recipe.momentum, recipe.nesterov) == (1024, 0.85, True)
    assert recipe.epochs == round(epochs)
    assert recipe.milestones == pytest.approx((0, warm * recipe.epochs, recipe.epochs))
    assert recipe.rates == (0.2, 1, last)
    assert (recipe.bias_rate, recipe.label_smoothing, recipe.lookahead) == (64, 0.2, 5)
    assert recipe.alternate_flip
    assert recipe.crop_padding == "reflect"
    assert (recipe.crop, recipe.cutout, recipe.views) == (shift, cutout, 6)
    assert recipe == recipe_for(name, "default")


def test_the_quick_recipes_have_the_same_rate_and_decay_an_image():
    from kerascnn.training.recipe import recipe_for

    for name in NAMES:
        full, quick = recipe_for(name, "airbench"), recipe_for(name, "quick")
        per_image = full.learning_rate / full.batch_size
        assert quick.learning_rate / quick.batch_size == pytest.approx(per_image, 1e-5)
        assert quick.l2 == full.l2


def test_a_width_that_is_none_and_small_images_are_refused():
    with pytest.raises(ValueError, match="width must be above 0; received -1"):
        zoo.build("airbench94", width=-1)
    with pytest.raises(ValueError, match="at least 9x9 pixels"):
        zoo.build("airbench96", (8, 32, 3))
