"""Layers with a method `adapt`: when the routine adapts them, and on what."""

import keras
import numpy as np
import pytest

import zoo
from kerascnn.training import resume, train
from kerascnn.training.initialization import adapt_layers

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "precision": "float32"}


def normalized(input_shape=(12, 12, 3), classes=3):
    """Two layers to adapt, the second behind weights, and one with values."""
    inputs = keras.Input(input_shape, name="image")
    x = keras.layers.Normalization(name="first")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = keras.layers.Normalization(name="second")(x)
    given = {"mean": [1.0] * 4, "variance": [4.0] * 4}
    x = keras.layers.Normalization(**given, name="given")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(classes, activation="softmax", name="fc")(x)
    return keras.Model(inputs, x, name="normalized")


def features(model, name, x):
    inner = keras.Model(model.inputs[0], model.get_layer(name).output)
    return np.asarray(inner.predict(x, verbose=0))


def test_each_layer_sees_what_the_layers_before_it_make(data):
    model, x = normalized(), data.train.x
    assert adapt_layers(model, x) == ["first", "second"]
    for name in ("first", "second"):
        found = features(model, name, x)
        np.testing.assert_allclose(found.mean((0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(found.std((0, 1, 2)), 1, atol=1e-3)
    second, given = features(model, "second", x), features(model, "given", x)
    np.testing.assert_allclose(given, (second - 1) / 2, atol=1e-5)


def test_only_the_first_images_are_used(data, monkeypatch):
    monkeypatch.setattr("kerascnn.training.initialization.IMAGES", 20)
    model = normalized()
    adapt_layers(model, data.train.x)
    expected = data.train.x[:20].mean((0, 1, 2))
    found = np.asarray(model.get_layer("first").adapt_mean)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_nested_layer_is_refused(data):
    inner = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.Normalization(name="deep")]
    )
    model = keras.Sequential([keras.Input((12, 12, 3)), inner])
    with pytest.raises(ValueError, match="deep has to be adapted and is inside"):
        adapt_layers(model, data.train.x)


def test_a_network_without_such_layers_stays_as_it_is(data):
    assert adapt_layers(zoo.build("linear", (12, 12, 3), 3), data.train.x) == []


@pytest.fixture
def named(monkeypatch):
    """Let the zoo have the network of this test."""
    builders = {"normalized": normalized}
    monkeypatch.setattr(zoo, "builder", builders.__getitem__)
    monkeypatch.setattr(
        zoo, "build", lambda name, *shape, **options: builders[name](*shape)
    )


class Stop(keras.callbacks.Callback):
    """Interrupts like Ctrl-C at the start of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_named_network_is_adapted_once(data, named, tmp_path):
    whole = train("normalized", data, QUICK, runs=tmp_path, progress=False)
    mean = np.asarray(whole.model.get_layer("first").adapt_mean)
    np.testing.assert_allclose(mean, data.train.x.mean((0, 1, 2)), rtol=1e-5)
    folder = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(
            "normalized",
            data,
            QUICK,
            folder=folder,
            progress=False,
            callbacks=[Stop()],
        )
    # Adapted anew, behind the trained filters, the second layer would differ.
    run = resume(folder, data=data, progress=False)
    for one, other in zip(whole.history, run.history, strict=True):
        assert one["loss"] == other["loss"] and one["val_loss"] == other["val_loss"]
    pairs = zip(whole.model.get_weights(), run.model.get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_a_model_of_the_user_is_left_alone(data, tmp_path):
    model = normalized()
    train(model, data, {**QUICK, "epochs": 1}, runs=tmp_path, progress=False)
    assert (np.asarray(model.get_layer("first").adapt_mean) == 0).all()
