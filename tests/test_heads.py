"""What a network answers with, of every kind, written in every way."""

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.heads import head

IMAGES = np.random.default_rng(1).integers(0, 256, (12, 6, 6, 3)).astype("float32")


def body(x, units=3, **options):
    x = layers.Flatten()(layers.Rescaling(1 / 255)(x))
    start = keras.initializers.RandomNormal(stddev=0.3, seed=2)
    return layers.Dense(units, kernel_initializer=start, name="scores", **options)(x)


def network(end, units=3, **options):
    image = keras.Input((6, 6, 3))
    return keras.Model(image, end(body(image, units, **options)))


def nested(end, units=3):
    inner = network(end, units)
    image = keras.Input((6, 6, 3))
    return keras.Model(image, inner(image))


class Own(keras.layers.Layer):
    """A layer that the graph does not look into."""

    activation = keras.activations.relu  # of no meaning here

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


class Subclassed(keras.Model):
    def __init__(self, activation, units=3):
        super().__init__()
        self.flat, self.scale = layers.Flatten(), layers.Rescaling(1 / 255)
        start = keras.initializers.RandomNormal(stddev=0.3, seed=2)
        self.last = layers.Dense(units, activation, kernel_initializer=start)

    def call(self, x):
        return self.last(self.flat(self.scale(x)))


def softmax(values):
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def sigma(values):
    return 1 / (1 + np.exp(-values))


def scores(model, units):
    """What the dense layer `scores` computes, by hand."""
    dense = next(x for x in model._flatten_layers() if x.name == "scores")
    kernel, bias = (w for w in dense.get_weights())
    return (IMAGES / 255).reshape(len(IMAGES), -1) @ kernel + bias


SOFTMAXES = {
    "layer": layers.Softmax(),
    "operation": keras.ops.softmax,
    "function": keras.activations.softmax,
    "activation": layers.Activation("softmax"),
    "cast behind it": lambda x: layers.Activation("linear", dtype="float32")(
        layers.Softmax()(x)
    ),
    "operation, cast and flat": lambda x: layers.Flatten()(
        keras.ops.cast(keras.ops.softmax(x), "float32")
    ),
    "dropout behind it": lambda x: layers.Dropout(0.5)(layers.Softmax()(x)),
    "one by one": lambda x: layers.Flatten()(
        layers.Softmax()(layers.Reshape((1, 1, 3))(x))
    ),
}
OTHERS = {
    "logits": (lambda x: x, "logits", softmax),
    "logits, cast": (layers.Activation("linear", dtype="float32"), "logits", softmax),
    "logits, scaled": (lambda x: layers.Rescaling(1.0)(x), "logits", softmax),
    "logits of a sum": (lambda x: x / 2 + x / 2, "logits", softmax),
    "log-probabilities": (keras.ops.log_softmax, "logits", softmax),
    "rectified": (lambda x: layers.ReLU()(x), "logits", lambda z: softmax(z.clip(0))),
    "sigmoids": (layers.Activation("sigmoid"), "sigmoids", sigma),
    "sigmoids by operation": (keras.ops.sigmoid, "sigmoids", sigma),
    "average of softmaxes": (
        lambda x: layers.Average()([layers.Softmax()(x), keras.ops.softmax(x)]),
        "softmax",
        softmax,
    ),
}


@pytest.mark.parametrize("around", [network, nested])
@pytest.mark.parametrize("way", SOFTMAXES)
def test_a_softmax_is_one_however_it_is_written(way, around):
    model = around(SOFTMAXES[way])
    found = head(model)
    assert (found.kind, found.by_graph, found.classes) == ("softmax", True, 3)
    expected = softmax(scores(model, 3))
    got = found.probabilities(model.predict(IMAGES, verbose=0))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    if around is network:  # the logits are at hand, for an exact loss
        before = keras.Model(model.inputs, found.logits).predict(IMAGES, verbose=0)
        np.testing.assert_allclose(before, scores(model, 3), atol=1e-4)
    else:
        assert found.logits is None


@pytest.mark.parametrize("around", [network, nested])
@pytest.mark.parametrize("way", OTHERS)
def test_other_ends_by_the_graph(way, around):
    end, kind, expected = OTHERS[way]
    model = around(end)
    found = head(model)
    assert (found.kind, found.by_graph) == (kind, True)
    got = found.probabilities(model.predict(IMAGES, verbose=0))
    np.testing.assert_allclose(got, expected(scores(model, 3)), atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "layer"])
def test_one_unit_is_the_probability_of_the_second_class(kind, activation):
    if kind == "subclassed":
        model = Subclassed(activation, 1)
        answers = model.predict(IMAGES, verbose=0)
    else:
        model = network(layers.Activation(activation), 1)
        if kind == "sequential":
            model = keras.Sequential([keras.Input((6, 6, 3)), *model.layers[1:]])
        if kind == "layer":
            function = keras.ops.sigmoid if activation else (lambda x: 2.0 * x)
            model = network(Own(function), 1)
        answers = model.predict(IMAGES, verbose=0)
    found = head(model, IMAGES)
    assert found.kind == ("sigmoid" if activation else "logit")
    assert found.by_graph == (kind in ("functional", "sequential"))
    second = answers[:, 0] if activation else sigma(answers[:, 0])
    expected = np.stack([1 - second, second], 1)
    np.testing.assert_allclose(found.probabilities(answers), expected, atol=1e-6)
    assert found.classes == 2


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (keras.ops.softmax, "softmax"),
        (lambda x: 1.0 * x, "logits"),
        (keras.ops.sigmoid, "sigmoids"),
    ],
)
def test_where_the_graph_cannot_tell_the_numbers_do(function, kind):
    for model in (network(Own(function)), network(layers.Lambda(function))):
        found = head(model)
        assert (found.kind, found.by_graph) == (kind, False)
    activation = {"softmax": "softmax", "sigmoids": "sigmoid"}.get(kind)
    model = Subclassed(activation)
    assert head(model, IMAGES).kind == kind
    with pytest.raises(ValueError, match="not known without images"):
        head(model)


def test_of_a_dictionary_the_named_one_answers():
    image = keras.Input((6, 6, 3))
    x = layers.Flatten()(image)

    def dense(units, activation):
        return layers.Dense(units, activation)(x)

    for names, index in (
        (("aux", "probabilities"), 1),
        (("zoo", "aux"), 1),  # the first; `model.outputs` sorts by the names
        (("features", "logits"), 1),
    ):
        model = keras.Model(image, {n: dense(3, "softmax") for n in names})
        for seen in (model, keras.models.model_from_json(model.to_json())):
            found = head(seen)
            assert found.index == index
            answers = seen.predict(IMAGES, verbose=0)
            name = names[0] if names[1] == "aux" else names[1]
            np.testing.assert_array_equal(found.select(answers), answers[name])
    several = keras.Model(image, [dense(3, "softmax"), dense(3, None)])
    assert (head(several).kind, head(several, output=1).kind) == ("softmax", "logits")
    with pytest.raises(
        ValueError, match="2 outputs, the first is 0; received output=2"
    ):
        head(several, output=2)


def test_what_is_not_understood_is_refused():
    for activation in ("softmax", "relu"):
        with pytest.raises(ValueError, match=f"one unit behind a {activation}"):
            head(network(lambda x: x, 1, activation=activation))
    image = keras.Input((6, 6, 3))
    with pytest.raises(ValueError, match=r"is \(images, classes\)"):
        head(keras.Model(image, layers.Conv2D(3, 1)(image)))


def test_a_user_s_layer_that_shares_a_name_is_not_taken_for_keras():
    class Dense(keras.layers.Dense):
        def call(self, x):
            return keras.ops.softmax(super().call(x))

    image = keras.Input((6, 6, 3))
    model = keras.Model(
        image, Dense(3)(layers.Flatten()(layers.Rescaling(0.01)(image)))
    )
    assert head(model).kind == "softmax"


@pytest.mark.parametrize("units", [1, 3])
def test_a_single_image_does_not_make_logits_probabilities(units):
    """Its numbers may all lie within 0…1, as those of many images hardly do."""
    model = network(Own(lambda x: 1.0 * x), units)
    kind = head(model).kind
    scores = np.asarray(model(IMAGES))
    # As if the images were those whose logits are no other than probabilities.
    low = IMAGES[:1] * 0 + 1
    assert 0 <= np.abs(np.asarray(model(low))).max() < 1 < np.abs(scores).max() * 10
    assert head(model, low).kind == kind
