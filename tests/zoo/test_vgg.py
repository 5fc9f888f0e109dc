"""VGG against the paper's table and against keras.applications."""

import keras
import numpy as np
import pytest

import zoo
from zoo.vgg import BLOCKS, vgg


@pytest.mark.parametrize(
    ("name", "trainable", "non_trainable"),
    [
        ("vgg19_imagenet", 143_667_240, 0),  # keras.io and torchvision
        ("vgg19_bn_imagenet", 143_678_248, 11_008),  # torchvision
        ("vgg16_imagenet", 138_357_544, 0),  # keras.io and torchvision
        ("vgg13_imagenet", 133_047_848, 0),  # torchvision
        ("vgg11_imagenet", 132_863_336, 0),  # torchvision
        ("vgg11_bn_imagenet", 132_868_840, 5_504),  # torchvision
        ("vgg19", 20_029_514, 0),
        ("vgg19_bn", 20_040_522, 11_008),
    ],
)
def test_published_counts(name, trainable, non_trainable, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    assert (counts.trainable, counts.non_trainable) == (trainable, non_trainable)


@pytest.mark.parametrize(
    ("name", "layers"),
    [(f"vgg{n}{bn}_imagenet", n) for n in (11, 13, 16, 19) for bn in ("", "_bn")],
)
def test_the_number_in_the_name_is_that_of_the_layers(name, layers, blueprint, count):
    assert count(blueprint(zoo.builder(name))).depth == layers


def test_ten_classes_at_224(blueprint):
    model = blueprint(zoo.builder("vgg19_imagenet"), classes=10)
    assert model.count_params() == 139_611_210


def test_the_layers_are_named_and_shaped_as_in_keras_applications(blueprint):
    ours = blueprint(zoo.builder("vgg19_imagenet"))
    theirs = blueprint(keras.applications.VGG19, weights=None)
    own = {"scale", "dropout1", "dropout2", "probabilities"}
    rows = [row for row in _rows(ours) if row[0] not in own]
    names = {"image": _rows(theirs)[0][0], "fc": "predictions"}
    assert [(names.get(name, name), *rest) for name, *rest in rows] == _rows(theirs)


def _rows(model):
    return [
        (layer.name, tuple(layer.output.shape), [tuple(w.shape) for w in layer.weights])
        for layer in model.layers
    ]


def compare_with_keras_applications(shape, classes, images):
    ours = zoo.build("vgg19_imagenet", shape, classes)
    theirs = keras.applications.VGG19(weights=None, input_shape=shape, classes=classes)
    theirs.set_weights(ours.get_weights())
    scaled = images.astype("float32") / 127.5 - 1  # the layer `scale` of ours
    expected = theirs(scaled, training=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours(images, training=False)),
        keras.ops.convert_to_numpy(expected),
        rtol=1e-4,
        atol=1e-6,
    )
    assert np.ptp(keras.ops.convert_to_numpy(expected), axis=0).max() > 1e-3


def test_the_outputs_are_those_of_keras_applications(pixels):
    """At 32x32, which leaves 39 of 144 million weights."""
    compare_with_keras_applications((32, 32, 3), 10, pixels((32, 32, 3)))


@pytest.mark.slow
def test_the_outputs_are_those_of_keras_applications_at_full_size(pixels):
    compare_with_keras_applications((224, 224, 3), 1000, pixels((224, 224, 3)))


def test_batch_normalisation_is_pytorchs_and_the_biases_stay(blueprint):
    model = blueprint(zoo.builder("vgg11_bn"))
    layer = model.get_layer("block1_conv1_bn")
    assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)
    assert model.get_layer("block1_conv1").use_bias
    names = [layer.name for layer in model.layers]
    at = names.index("block3_conv2")
    assert names[at : at + 4] == [
        "block3_conv2",
        "block3_conv2_bn",
        "block3_conv2_relu",
        "block3_pool",
    ]
    # ReLU is applied once, after the normalisation.
    assert model.get_layer("block3_conv2").activation is keras.activations.linear


def test_dropout_follows_both_dense_layers(blueprint):
    model = blueprint(zoo.builder("vgg11_imagenet"), dropout=0.3)
    names = [layer.name for layer in model.layers]
    at = names.index("fc1")
    assert names[at : at + 5] == ["fc1", "dropout1", "fc2", "dropout2", "fc"]
    assert {model.get_layer(f"dropout{n}").rate for n in (1, 2)} == {0.3}
    default = blueprint(zoo.builder("vgg11_imagenet"))
    assert default.get_layer("dropout2").rate == 0.5


def test_width_scales_filters_and_units(blueprint):
    model = blueprint(zoo.builder("vgg11_imagenet"), (32, 32, 3), 10, width=0.125)
    assert model.get_layer("block1_conv1").filters == 8
    assert model.get_layer("block5_conv2").filters == 64
    assert model.get_layer("fc1").units == 512
    thin = blueprint(zoo.builder("vgg11"), width=1e-6)
    assert thin.get_layer("block5_conv2").filters == 1


@pytest.mark.parametrize("width", [0, -0.5])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match=f"width must be above 0; received {width}"):
        zoo.build("vgg11", width=width)


def test_the_least_size_follows_from_the_number_of_poolings():
    with pytest.raises(ValueError, match="at least 32x32 pixels"):
        zoo.build("vgg19_bn", (31, 64, 3))
    blocks = BLOCKS["vgg11"][:3]
    model = vgg(blocks, (8, 8, 3), width=0.125)
    assert model.get_layer("block3_pool").output.shape == (None, 1, 1, 32)
    with pytest.raises(ValueError, match="at least 8x8 pixels"):
        vgg(blocks, (7, 8, 3))


@pytest.mark.parametrize(
    ("initializer", "low", "high"),
    [("he_normal", 0.05, 2), ("glorot_uniform", 0, 0.01)],
)
def test_the_scale_of_the_signal_after_16_layers(
    initializer, low, high, monkeypatch, pixels
):
    """He's initialisation keeps it; Glorot's takes half of the variance a layer."""
    monkeypatch.setattr("zoo.vgg.INITIALIZER", initializer)
    keras.utils.set_random_seed(0)
    model = zoo.build("vgg19", width=0.25)
    ends = [model.get_layer(name).output for name in ("block1_conv1", "block5_conv4")]
    first, last = (
        np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(maps))))
        for maps in keras.Model(model.input, ends)(pixels((32, 32, 3)))
    )
    assert low < last / first < high


def gratings(number, seed=0):
    """Draw stripes in ten directions, of random width, place, colour and noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, number)
    rows, columns = np.mgrid[:32, :32]
    across = np.cos(np.pi * labels / 10)[:, None, None] * rows
    across = across + np.sin(np.pi * labels / 10)[:, None, None] * columns
    step = random.uniform(0.8, 1.6, (number, 1, 1))
    wave = np.sin(step * across + random.uniform(0, 2 * np.pi, (number, 1, 1)))
    images = 128 + 60 * wave[..., None] * random.uniform(-1, 1, (number, 1, 1, 3))
    images = images + random.normal(scale=10, size=(number, 32, 32, 3))
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.mark.slow
@pytest.mark.parametrize("initializer", ["he_normal", "glorot_uniform"])
def test_plain_vgg19_learns_with_its_recipe_and_not_from_glorot(
    initializer, monkeypatch
):
    """The same data, recipe and seed; at a quarter of the width, for two cores."""
    from kerascnn.training.optimizers import make_optimizer
    from kerascnn.training.recipe import recipe_for

    monkeypatch.setattr("zoo.vgg.INITIALIZER", initializer)
    keras.utils.set_random_seed(0)
    model = zoo.build("vgg19", width=0.25)
    recipe = recipe_for("vgg19", "quick")
    images, labels = gratings(3000)
    steps = -(-len(images) // recipe.batch_size)
    optimizer = make_optimizer(recipe, model, steps)
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"])
    options = {"batch_size": recipe.batch_size, "verbose": 0}
    history = model.fit(images, labels, epochs=recipe.epochs, **options).history
    test = model.evaluate(*gratings(1000, seed=1), return_dict=True, **options)
    if initializer == "he_normal":
        assert test["accuracy"] > 0.5
    else:  # chance
        assert max(history["accuracy"]) < 0.15
        assert test["accuracy"] < 0.15
