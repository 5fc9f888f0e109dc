"""ResNet-9 against the author's description and numbers."""

import keras
import numpy as np
import pytest

import zoo


def test_the_layers_and_their_counts(blueprint, count):
    model = blueprint(zoo.builder("resnet9"))
    assert count(model).trainable == 6_573_120
    shapes = {
        layer.name: tuple(layer.output.shape[1:])
        for layer in model.layers
        if not layer.name.endswith(("_bn", "_relu"))
    }
    assert list(shapes.items())[:-1] == [
        ("image", (32, 32, 3)),
        ("scale", (32, 32, 3)),
        ("prep", (32, 32, 64)),
        ("layer1", (32, 32, 128)),
        ("layer1_pool", (16, 16, 128)),
        ("layer1_res1", (16, 16, 128)),
        ("layer1_res2", (16, 16, 128)),
        ("layer1_add", (16, 16, 128)),
        ("layer2", (16, 16, 256)),
        ("layer2_pool", (8, 8, 256)),
        ("layer3", (8, 8, 512)),
        ("layer3_pool", (4, 4, 512)),  # the published last pooling has a 4x4 window
        ("layer3_res1", (4, 4, 512)),
        ("layer3_res2", (4, 4, 512)),
        ("layer3_add", (4, 4, 512)),
        ("pool", (512,)),
        ("scale_features", (512,)),
        ("linear", (10,)),
    ]


def test_no_biases_and_pytorchs_normalisation(blueprint):
    model = blueprint(zoo.builder("resnet9"))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            assert not layer.use_bias, layer.name
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


def test_the_residual_adds_what_it_starts_from_after_its_relu(pixels):
    model = zoo.build("resnet9", width=0.1)
    # A branch that is negative everywhere: its ReLU gives 0, and the sum passes on.
    norm = model.get_layer("layer1_res2_bn")
    norm.beta.assign(np.full(norm.beta.shape, -100.0))
    names = ("layer1_pool", "layer1_add")
    parts = keras.Model(model.input, [model.get_layer(n).output for n in names])
    before, after = parts(pixels((32, 32, 3)), training=False)
    before, after = (keras.ops.convert_to_numpy(x) for x in (before, after))
    assert np.abs(before).max() > 0
    np.testing.assert_array_equal(after, before)


def test_the_logits_are_an_eighth(pixels):
    model = zoo.build("resnet9", width=0.1, classifier_activation=None)
    part = keras.Model(model.input, model.get_layer("pool").output)
    images = pixels((32, 32, 3))
    features = keras.ops.convert_to_numpy(part(images, training=False))
    weights = keras.ops.convert_to_numpy(model.get_layer("linear").kernel)
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_allclose(logits, 0.125 * features @ weights, rtol=1e-4, atol=1e-6)


def test_the_recipe_is_the_published_one():
    """The author's rate 0.4/batch and decay 5e-4·batch are for a loss that is a sum."""
    from kerascnn.training.recipe import recipe_for

    recipe = recipe_for("resnet9", "page")
    assert recipe.learning_rate == pytest.approx(0.4 / 512 * 512)
    assert recipe.l2 == pytest.approx(5e-4 * 512 / 512)
    assert (recipe.batch_size, recipe.momentum, recipe.nesterov) == (512, 0.9, True)
    assert recipe.milestones == (0, 5, recipe.epochs) == (0, 5, 24)
    assert recipe.rates == (0, 1, 0)
    assert (recipe.crop, recipe.crop_padding, recipe.cutout) == (4, "reflect", 8)


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("resnet9", width=0)
    with pytest.raises(ValueError, match="at least 8x8 pixels"):
        zoo.build("resnet9", (32, 7, 3))
