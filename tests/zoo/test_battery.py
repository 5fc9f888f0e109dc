"""What every network of the zoo must do, on either backend.

The declared counts are those of the full network, built without allocating its
weights; everything else is done with the small version that the card calls `slim`.
A network is built few times, since with a deep one that is what takes the time.
Variants that differ from a brother by numbers in a table wait for `-m slow`.
"""

import fnmatch
import inspect
import json
import re

import keras
import numpy as np
import pytest
from differentiation import gradients

import zoo
from kerascnn.training.fused_layers import fused_layers

TENSORFLOW = keras.config.backend() == "tensorflow"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}

# Exporting takes a tenth of a second a layer: the deep networks wait for `-m slow`.
QUICK_TO_EXPORT = 8

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")

# Variants whose code a brother runs too, with other numbers in its table. Their counts
# are checked by default all the same.
BROTHERS = (
    *("vgg11_bn", "vgg11_imagenet", "vgg11_bn_imagenet", "vgg13*", "vgg16*"),
    *("vgg19", "vgg19_bn_imagenet"),  # left: vgg11, vgg19_bn, vgg19_imagenet
    "googlenet_3x3",
    *("all_cnn_a*", "all_cnn_b*", "all_cnn_c_base", "all_cnn_c_convpool"),
    *("resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"),
    *("recurrent_cnn_128", "recurrent_cnn_160", "elu_cnn_18", "maxout_nin_2"),
    *("fractional_max_pooling_32", "fractional_max_pooling_64", "deep_cnin_100"),
    *("airbench95", "fitnet4_relu", "fit_resnet4"),
)
SLOW_TO_BUILD = 150  # layers with weights


def parametrize(argument, slow, **options):
    return pytest.mark.parametrize(
        argument,
        [
            pytest.param(name, marks=[pytest.mark.slow] * slow(name))
            for name in zoo.names()
        ],
        **options,
    )


def deep(name):
    return zoo.card(name).depth > SLOW_TO_BUILD


def waits(name):
    return any(fnmatch.fnmatch(name, brother) for brother in BROTHERS)


def waits_to_export(name):
    return waits(name) or zoo.card(name).depth > QUICK_TO_EXPORT


every_name = pytest.mark.parametrize("name", zoo.names())
every_network = parametrize("network", waits, indirect=True)


# --- What the card declares ---


@parametrize("name", deep)
def test_the_counts_on_the_card_are_those_of_the_network(name, blueprint, count):
    card = zoo.card(name)
    counts = count(blueprint(zoo.builder(name), card.input_shape, card.classes))
    assert counts.trainable == card.trainable
    assert counts.non_trainable == card.non_trainable
    assert counts.macs == card.macs
    assert counts.depth == card.depth


@every_name
def test_the_builder_is_a_documented_function_of_the_common_signature(name):
    builder = zoo.builder(name)
    assert builder.__name__ == builder.__qualname__ == name
    assert builder.__module__ == f"zoo.{zoo.card(name).family}"
    parameters = inspect.signature(builder).parameters
    assert list(parameters)[:2] == ["input_shape", "classes"]
    assert parameters["input_shape"].default == zoo.card(name).input_shape
    assert parameters["classes"].default == zoo.card(name).classes
    assert parameters["classifier_activation"].default == "softmax"
    assert parameters["name"].default == name
    for option in list(parameters.values())[2:]:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY
    for section in ("Args:", "Returns:"):
        assert section in builder.__doc__
    for parameter in parameters:
        assert f"        {parameter}: " in builder.__doc__, parameter


@every_name
def test_every_recipe_can_be_read(name):
    from kerascnn.training.recipe import recipe_for

    recipes = zoo.card(name).recipes
    assert "default" in recipes
    for recipe in recipes:
        recipe_for(name, recipe)  # an unknown key, or a value out of range, raises


@every_name
def test_the_card_is_complete(name):
    card = zoo.card(name)
    assert card.title
    assert card.new.endswith(".")
    for published in card.published:
        assert 0 < published.accuracy < 100
        assert published.confidence in ("published", "second-hand", "remembered")


# --- Form ---


@every_network
def test_the_graph_keeps_the_conventions(network):
    model = network.model
    assert model.name == network.name
    assert [tensor.name for tensor in model.inputs] == ["image"]
    assert model.input_shape == (None, *network.shape)
    assert model.output_shape == (None, network.classes)
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)
    # A name that Keras makes up, conv2d_7, would be another one in the second build.
    assert [layer.name for layer in network.logits.layers][:-1] == names[:-1]
    assert names[-1] == "probabilities"
    assert network.logits.layers[-1].name == "logits"


# --- Outputs ---


@every_network
def test_pixels_become_probabilities(network, pixels, run):
    images = pixels(network.shape)
    output = run(network.model, images)
    assert output.shape == (2, network.classes)
    assert output.dtype == np.float32
    assert (output >= 0).all()
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(run(network.model, images.astype("float32")), output)
    # A constant output would satisfy all of that.
    assert np.abs(output[0] - output[1]).max() > 0


@every_network
def test_extreme_images_give_finite_probabilities(network, run):
    images = np.zeros((2, *network.shape), np.uint8)
    images[1] = 255
    assert np.isfinite(run(network.model, images)).all()


@every_network
def test_one_seed_one_network_and_the_logits_are_those_of_the_probabilities(
    network, pixels, run
):
    weights = zip(network.model.weights, network.logits.weights, strict=True)
    for one, other in weights:
        np.testing.assert_array_equal(one.numpy(), other.numpy(), one.path)
    images = pixels(network.shape)
    logits = run(network.logits, images)
    assert logits.dtype == np.float32
    softmax = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(run(network.model, images), softmax, **TOLERANCE)


@every_network
def test_mixed_precision_of_gray_images_of_another_size_in_42_classes(
    network, pixels, run, monkeypatch
):
    height, width, _ = network.shape
    gray = (height + 5, width + 8, 1)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network.build(gray, 42)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in model.layers}
    output = run(model, pixels(gray))
    assert output.shape == (2, 42)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)
    # As it is trained, where the processor has instructions of bfloat16.
    name = "kerascnn.training.fused_layers.resolve_precision"
    monkeypatch.setattr(name, lambda precision: "mixed_bfloat16")
    with fused_layers(model):
        np.testing.assert_allclose(run(model, pixels(gray)), output, atol=0.02)
        trained = model(pixels(gray), training=True)
    assert np.isfinite(keras.ops.convert_to_numpy(trained)).all()


@every_network
def test_four_channels(network, blueprint):
    shape = (*network.shape[:2], 4)
    model = blueprint(network.build, shape)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, network.classes)


@every_network
def test_images_that_are_too_small_are_refused_with_the_least_size(network, blueprint):
    channels = network.shape[-1]

    def build(height, width):
        return blueprint(network.build, (height, width, channels))

    try:
        build(1, 1)
    except ValueError as error:
        said = re.search(r"at least (\d+)x\1 pixels; received .*\(1, 1", str(error))
        assert said, f"the least size is missing: {error}"
        least = int(said[1])
        assert build(least, least).output_shape == (None, network.classes)
        for shape in ((least - 1, least), (least, least - 1)):
            with pytest.raises(ValueError, match=f"at least {least}x{least} pixels"):
                build(*shape)


@every_network
def test_a_shape_that_is_no_image_is_refused(network):
    for shape in ((32, 32), (32, 32, 0), (32, None, 3), (32, 32, 3, 1)):
        with pytest.raises(ValueError, match=re.escape(f"received {shape}")):
            network.build(shape)


# --- Training ---


@every_network
def test_a_gradient_reaches_every_weight(network, pixels):
    """Not in training mode: there, the bias before a batch normalisation has none."""
    images = pixels(network.shape)
    for variable, gradient in _gradients(network.logits, images, training=False):
        assert np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


@every_network
def test_the_gradients_of_training_are_finite(network, pixels):
    images = pixels(network.shape)
    for variable, gradient in _gradients(network.logits, images, training=True):
        assert np.isfinite(gradient).all(), variable.path


def _gradients(model, images, *, training):
    """Gradients of a fixed random combination of the logits, weight by weight."""
    mixture = np.random.default_rng(1).normal(size=(len(images), model.output_shape[1]))
    mixture = mixture.astype("float32")
    variables = model.trainable_variables

    def total(*values):
        states = [v.value for v in model.non_trainable_variables]
        logits, _ = model.stateless_call(values, states, images, training=training)
        return keras.ops.sum(keras.ops.multiply(logits, mixture))

    if keras.config.backend() == "jax":
        import jax

        total = jax.jit(total)
    found = gradients(total, [v.value for v in variables])
    for variable, gradient in zip(variables, found, strict=True):
        assert gradient is not None, variable.path
        yield variable, gradient


# --- Keeping ---


@every_network
def test_a_keras_file_holds_the_whole_network(network, pixels, run, tmp_path):
    """The file is the config, which makes the graph again, and the weights."""
    network.model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    config, own = again.get_config(), network.model.get_config()
    assert json.dumps(config) == json.dumps(own)  # JSON, for a list is a tuple there
    # Untrained, some networks hardly answer by their weights.
    for kept, weight in zip(again.weights, network.model.weights, strict=True):
        kept, weight = map(keras.ops.convert_to_numpy, (kept, weight))
        np.testing.assert_array_equal(kept, weight)
    images = pixels(network.shape)
    np.testing.assert_allclose(
        run(again, images), run(network.model, images), **TOLERANCE
    )


@parametrize("network", waits_to_export, indirect=True)
@pytest.mark.skipif(not TENSORFLOW, reason="those of others are tested in serving")
def test_a_saved_model_gives_the_same_outputs(network, pixels, run, tmp_path):
    import tensorflow as tf

    network.model.export(tmp_path / "1", format="tf_saved_model", verbose=False)
    again = tf.saved_model.load(tmp_path / "1")
    images = pixels(network.shape)
    np.testing.assert_allclose(
        again.serve(images.astype("float32")).numpy(),
        run(network.model, images),
        **TOLERANCE,
    )
