"""DeepCNet and DeepCNiN against the formula of the paper."""

import keras
import numpy as np
import pytest

import zoo
from zoo.deep_cnet import batch_shared_dropout, field_width

# Of DeepCNet(5, k): size of the filters, map after the convolution and the pooling.
LEVELS = [(3, 94, 47), (2, 46, 23), (2, 22, 11), (2, 10, 5), (2, 4, 2), (2, 1, None)]
RATES = [0, 0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("name", "options", "trainable", "macs"),
    [
        ("deep_cnin", {}, 33_428_710, 3_734_049_600),
        ("deep_cnet", {}, 25_232_410, 3_198_549_600),
        ("deep_cnin_100", {}, 3_722_910, 430_803_200),
        ("deep_cnin_100", {"levels": 4}, 2_160_710, 90_188_200),
        ("deep_cnin", {"filters": 100, "levels": 4}, 2_160_710, 90_188_200),
    ],
)
def test_published_counts(name, options, trainable, macs, blueprint, count):
    counts = count(blueprint(zoo.builder(name), **options))
    assert (counts.trainable, counts.macs) == (trainable, macs)


def test_the_fields_of_the_paper():
    assert [field_width(levels) for levels in (3, 4, 5, 6)] == [24, 48, 96, 192]


@pytest.mark.parametrize(
    ("name", "k", "nin"),
    [("deep_cnet", 300, False), ("deep_cnin", 300, True), ("deep_cnin_100", 100, True)],
)
def test_the_layers_are_those_of_the_formula(name, k, nin, blueprint):
    model = blueprint(zoo.builder(name))
    expected = ["image", "scale", "field"]
    channels = 3
    for level, (size, convolved, pooled) in enumerate(LEVELS, start=1):
        expected += [f"conv{level}", f"conv{level}_relu"]
        expected += [f"dropout{level}"] if level > 1 else []
        expected += [f"pool{level}"] if pooled else []
        expected += [f"nin{level}", f"nin{level}_relu"] if nin else []
        layer = model.get_layer(f"conv{level}")
        assert layer.kernel.shape == (size, size, channels, level * k)
        assert layer.output.shape == (None, convolved, convolved, level * k)
        pooling = 2 if pooled else 1
        fans = size**2 * (channels + level * k / pooling**2)
        limit = (6 / fans) ** 0.5
        assert layer.kernel_initializer.maxval == pytest.approx(limit)
        channels = level * k
        if pooled:
            shape = (None, pooled, pooled, channels)
            assert model.get_layer(f"pool{level}").output.shape == shape
        if nin:
            layer = model.get_layer(f"nin{level}")
            assert layer.kernel.shape == (1, 1, channels, channels)
            limit = (6 / (2 * channels)) ** 0.5
            assert layer.kernel_initializer.maxval == pytest.approx(limit)
        if level > 1:
            rate = model.get_layer(f"dropout{level}").rate
            assert rate == pytest.approx(RATES[level - 1])
    expected += ["flatten", "fc", "probabilities"]
    assert [layer.name for layer in model.layers] == expected
    slopes = {
        round(layer.negative_slope, 6)
        for layer in model.layers
        if isinstance(layer, keras.layers.LeakyReLU)
    }
    assert slopes == {0.333333}


def test_a_map_is_dropped_for_the_whole_batch():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 3, 200))
    model = keras.Model(inputs, batch_shared_dropout(inputs, 0.25, "dropout"))
    x = np.random.default_rng(0).uniform(1, 2, (4, 3, 3, 200)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x, training=True))
    kept = y != 0
    assert (kept == kept[:1, :1, :1]).all()
    assert 100 < kept[0, 0, 0].sum() < 190
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
    other = keras.ops.convert_to_numpy(model(x, training=True)) != 0
    assert (other != kept).any()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(x)), x)
    assert batch_shared_dropout(inputs, 0, "none") is inputs


def test_the_image_moves_in_training_only(pixels):
    model = zoo.build("deep_cnet", (8, 8, 3), levels=3, width=0.01)
    field = keras.Model(model.input, model.get_layer("field").output)
    images = pixels((8, 8, 3), images=3)
    scaled = images / 127.5 - 1
    still = keras.ops.convert_to_numpy(field(images))
    np.testing.assert_allclose(still[:, 8:16, 8:16], scaled, atol=1e-6)
    moved = keras.ops.convert_to_numpy(field(images, training=True))
    assert np.abs(moved - still).max() > 0.1
    total = np.square(scaled).sum((1, 2, 3))
    np.testing.assert_allclose(np.square(moved).sum((1, 2, 3)), total, rtol=1e-4)


def test_an_image_moved_by_a_whole_period_of_the_poolings_gives_the_same(run, pixels):
    """2^levels pixels: the map moves by one, and its end, 1x1, sees all of the field.

    Not exactly the same, since the last convolutions see it at another place; but
    within the field nothing is cut off, so that the sums of the maps agree.
    """
    model = zoo.build("deep_cnin", (8, 8, 3), levels=3, width=0.02)
    end = keras.Model(model.get_layer("field").output, model.get_layer("pool2").output)
    image = pixels((8, 8, 3), images=1)[0] / 127.5 - 1
    fields = np.zeros((2, 24, 24, 3), "float32")
    fields[0, 8:16, 8:16] = image
    fields[1, 12:20, 8:16] = image  # 2² further down
    here, there = run(end, fields)
    np.testing.assert_allclose(here[:-1], there[1:], atol=1e-6)
    assert np.ptp(here) > 0.01


def test_images_that_do_not_fit_are_refused_with_a_way_out(blueprint):
    builder = zoo.builder("deep_cnin_100")
    assert blueprint(builder, (96, 90, 3)).output_shape == (None, 10)
    with pytest.raises(ValueError, match=r"at most 96x96.*received 97x32.*levels=6"):
        blueprint(builder, (97, 32, 3))
    grown = blueprint(builder, (97, 32, 3), levels=6)
    assert grown.get_layer("field").output.shape == (None, 192, 192, 3)


@pytest.mark.parametrize("argument", ["levels", "filters", "width"])
def test_numbers_that_are_none_are_refused(argument):
    whole = "a whole number " * (argument == "levels")
    told = f"{argument} must be {whole}above 0; received 0"
    with pytest.raises(ValueError, match=told):
        zoo.build("deep_cnet", **{argument: 0})
