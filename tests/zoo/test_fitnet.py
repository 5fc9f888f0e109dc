"""FitNet-4 against the authors' definition."""

import keras
import numpy as np
import pytest

import zoo
from zoo.fitnet import SUMS

NAMES = ("fitnet4", "fitnet4_relu", "fit_resnet4")
CONVOLUTIONS = [f"conv1_{n}" for n in range(1, 6)]
CONVOLUTIONS += [f"conv{block}_{n}" for block in (2, 3) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("name", "trainable", "macs"),
    [
        ("fitnet4", 2_742_102, 381_941_128),
        ("fitnet4_relu", 1_276_806, 190_877_064),
        ("fit_resnet4", 2_742_102, 381_941_128),
    ],
)
def test_published_counts(name, trainable, macs, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    assert (counts.trainable, counts.macs, counts.depth) == (trainable, macs, 19)


@pytest.mark.parametrize("name", NAMES)
def test_the_layers(name, blueprint):
    model = blueprint(zoo.builder(name))
    shapes = {la.name: tuple(la.output.shape[1:]) for la in model.layers}
    weighted = [la.name for la in model.layers if la.weights]
    assert weighted == [*CONVOLUTIONS, "ip1", "clf"]
    filters = [32, 32, 32, 48, 48, *[80] * 6, *[128] * 6]
    sides = [32] * 5 + [16] * 6 + [8] * 6
    pieces = 1 if name == "fitnet4_relu" else 2
    suffix = "" if pieces == 1 else "_maxout"
    for layer, units, side in zip(CONVOLUTIONS, filters, sides, strict=True):
        assert shapes[layer] == (side, side, units * pieces)
        assert shapes[layer + suffix] == (side, side, units)
    assert [shapes[f"pool{n}"] for n in (1, 2, 3)] == [(16, 16, 48), (8, 8, 80), (128,)]
    assert shapes["ip1"] == (500 if pieces == 1 else 2500,)
    assert shapes["ip1" + suffix] == (500,)
    drops = [la for la in model.layers if isinstance(la, keras.layers.Dropout)]
    assert [la.name for la in drops] == [
        "data_drop",
        "pool1_drop",
        "pool2_drop",
        "pool3_drop",
        "ip1_drop",
    ]
    assert {la.rate for la in drops} == {0.2}


@pytest.mark.parametrize("activation", ["maxout", "relu"])
def test_the_sums_of_fit_resnet4(activation, blueprint, count):
    model = blueprint(zoo.builder("fit_resnet4"), activation=activation)
    adds = [la for la in model.layers if isinstance(la, keras.layers.Add)]
    assert [la.name for la in adds] == [f"{layer}_add" for layer in SUMS]
    suffix = "_maxout" if activation == "maxout" else ""

    def out(layer):
        end = "_add" if layer in SUMS else suffix
        return model.get_layer(layer + end).output

    for add, (layer, earlier) in zip(adds, SUMS.items(), strict=True):
        branch, shortcut = add.input
        assert branch is model.get_layer(layer + suffix).output
        assert shortcut is out(earlier)
    trainable = 2_742_102 if activation == "maxout" else 1_276_806
    assert count(model).trainable == trainable


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_orthonormal_and_keeps_the_scale_of_the_signal(name, pixels):
    keras.utils.set_random_seed(0)
    model = zoo.build(name, width=0.25)
    gain = 2 if name == "fitnet4_relu" else 1
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv2_2").kernel)
    columns = kernel.reshape(-1, kernel.shape[-1])
    np.testing.assert_allclose(
        columns.T @ columns, gain * np.eye(columns.shape[1]), atol=1e-4
    )
    suffix = "" if name == "fitnet4_relu" else "_maxout"
    ends = [model.get_layer(n + suffix).output for n in ("conv1_2", "conv3_5")]
    first, last = (
        np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(maps))))
        for maps in keras.Model(model.input, ends)(pixels((32, 32, 3)), training=False)
    )
    assert 0.1 < last / first < 10  # over twelve layers


def test_the_recipe_lsuv_is_the_authors():
    from kerascnn.training.recipe import recipe_for

    for name in NAMES:
        recipe = recipe_for(name, "lsuv")
        epoch = 50_000 / 128  # iterations
        steps = (40_000, 60_000, 80_000)
        assert recipe.milestones == pytest.approx([s / epoch for s in steps])
        assert recipe.epochs == round(90_000 / epoch)
        assert (recipe.learning_rate, recipe.momentum, recipe.l2) == (0.01, 0.9, 5e-4)
        assert (recipe.batch_size, recipe.initialization) == (128, "lsuv")


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("fitnet4", width=0)
    with pytest.raises(ValueError, match="one of maxout, relu; received 'tanh'"):
        zoo.build("fit_resnet4", activation="tanh")
    with pytest.raises(ValueError, match="at least 4x4 pixels"):
        zoo.build("fitnet4_relu", (3, 32, 3))
