"""Statistics of batch normalisation, measured anew after the training."""

import keras
import numpy as np
import pytest

import zoo
from kerascnn.data import Images
from kerascnn.training import train
from kerascnn.training.initialization import measure_statistics

QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "precision": "float32"}


def behind_dropout(input_shape=(12, 12, 3), classes=3):
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.SpatialDropout2D(0.5, name="maps")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn", momentum=0.9)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(classes, activation="softmax", name="fc")(x)
    return keras.Model(image, x, name="behind_dropout")


def features(model, x):
    inner = keras.Model(model.inputs[0], model.get_layer("conv").output)
    return keras.ops.convert_to_numpy(inner(x.astype("float32"), training=False))


@pytest.mark.parametrize("batch_size", [48, 16, 20])
def test_they_are_the_mean_over_batches_without_dropout(batch_size, data):
    model = behind_dropout()
    measure_statistics(model, data.train, 48, batch_size, seed=3)
    x = data.train.x[np.random.default_rng(3).permutation(len(data.train))[:48]]
    seen = features(model, x[: 48 // batch_size * batch_size])
    batches = np.split(seen, len(seen) // batch_size)
    bn = model.get_layer("bn")
    mean = np.mean([b.mean((0, 1, 2)) for b in batches], axis=0)
    variance = np.mean([b.var((0, 1, 2)) for b in batches], axis=0)
    np.testing.assert_allclose(bn.moving_mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bn.moving_variance, variance, rtol=1e-4)
    # Nothing else of the model is another one.
    assert bn.momentum == 0.9
    assert [model.get_layer(name).rate for name in ("maps", "drop")] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nin_bn", {"width": 0.05}),
        ("recurrent_cnn_96", {"width": 0.05, "normalization": "batch"}),
        ("resnet20", {"blocks": 1, "width": 0.25}),
    ],
)
def test_every_normalisation_of_a_network_is_measured(name, options):
    """In layers of layers too; the weights stay."""
    model = zoo.build(name, (16, 16, 3), 4, **options)
    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    images = Images(x, np.zeros(40, np.int64))
    measure_statistics(model, images, 40, 20, seed=0)
    moved = [v for v in model.variables if v.path.endswith("moving_variance")]
    assert moved and all((keras.ops.convert_to_numpy(v) != 1).any() for v in moved)
    for old, new in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_recipe_measures_them_at_the_end(data, tmp_path):
    """The weights are those of the same training without; one seed, one result."""

    def run(name, **settings):
        keras.utils.set_random_seed(0)
        options = {"folder": tmp_path / name, "progress": False, **settings}
        return train(behind_dropout(), data, QUICK, **options).model

    plain, anew, again = run("1"), run("2", statistics=60), run("3", statistics=60)
    assert np.array_equal(plain.get_layer("fc").kernel, anew.get_layer("fc").kernel)
    for model, same in ((plain, False), (again, True)):
        one, other = (
            np.array(m.get_layer("bn").moving_variance) for m in (anew, model)
        )
        assert np.array_equal(one, other) is same
    measure_statistics(plain, data.train, 60, 16, seed=0)
    np.testing.assert_allclose(
        plain.get_layer("bn").moving_mean, anew.get_layer("bn").moving_mean, rtol=1e-4
    )


def test_a_network_without_is_told_at_once(data):
    with pytest.raises(ValueError, match="lecture_cnn learns none: set it to 0; rece"):
        train("lecture_cnn", data, {"statistics": 100}, progress=False)
