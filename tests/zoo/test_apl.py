"""APL against its formula in plain NumPy, and its networks against their tables."""

import keras
import numpy as np
import pytest
from differentiation import layer_gradients

import zoo
from zoo.layers import APL

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")


def by_loops(x, slopes, hinges):
    """Compute equation 1 of the paper, value by value."""
    y = np.empty_like(x)
    for place in np.ndindex(x.shape):
        unit = place[1:] if slopes.ndim > 2 or x.ndim == 2 else place[-1:]
        y[place] = max(0.0, x[place])
        for s in range(len(slopes)):
            y[place] += slopes[(s, *unit)] * max(0.0, -x[place] + hinges[(s, *unit)])
    return y


def make(shape, pieces, sharing):
    keras.utils.set_random_seed(0)
    layer = APL(pieces, sharing)
    x = np.random.default_rng(1).normal(size=shape)
    layer.build(shape)
    weights = [
        np.float64(keras.ops.convert_to_numpy(w)) for w in (layer.slopes, layer.hinges)
    ]
    return layer, x, weights


CASES = [
    ((3, 4, 5, 2), 1, "channel", (1, 2)),
    ((3, 4, 5, 2), 5, "channel", (5, 2)),
    ((3, 4, 5, 2), 2, "unit", (2, 4, 5, 2)),
    ((4, 6), 3, "channel", (3, 6)),
    ((4, 6), 3, "unit", (3, 6)),
]


@pytest.mark.parametrize(("shape", "pieces", "sharing", "weights_shape"), CASES)
def test_apl_is_the_formula(shape, pieces, sharing, weights_shape):
    layer, x, weights = make(shape, pieces, sharing)
    assert {tuple(w.shape) for w in layer.weights} == {weights_shape}
    y = keras.ops.convert_to_numpy(layer(x.astype("float32")))
    np.testing.assert_allclose(y, by_loops(x, *weights), rtol=1e-4, atol=1e-6)
    assert np.abs(y - np.maximum(x, 0)).max() > 1e-2  # more than ReLU
    assert layer.compute_output_shape(shape) == shape


@pytest.mark.parametrize(("shape", "pieces", "sharing", "weights_shape"), CASES)
def test_apl_gradients_are_finite_differences(shape, pieces, sharing, weights_shape):
    layer, x, weights = make(shape, pieces, sharing)
    mixture = np.random.default_rng(2).normal(size=shape)
    arrays, eps = [x, *weights], 1e-6
    found = layer_gradients(layer, x.astype("float32"), mixture.astype("float32"))
    for which, gradient in enumerate(found):
        expected = np.empty_like(arrays[which])
        for place in np.ndindex(expected.shape):
            sides = []
            for step in (eps, -eps):
                moved = [array.copy() for array in arrays]
                moved[which][place] += step
                sides.append(np.sum(mixture * by_loops(*moved)))
            expected[place] = (sides[0] - sides[1]) / (2 * eps)
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_apl_can_be_leaky_relu_and_the_absolute_value():
    """Slope -Σ a far below the hinges: -a·max(0, -x) of one hinge at 0."""
    x = np.float32([[-2, -0.5, 0, 0.5, 2]])
    for slope, expected in ((-0.1, np.where(x > 0, x, 0.1 * x)), (1.0, np.abs(x))):
        layer = APL(
            1,
            slope_initializer=keras.initializers.Constant(slope),
            hinge_initializer="zeros",
        )
        y = keras.ops.convert_to_numpy(layer(x))
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_apl_initialisation():
    keras.utils.set_random_seed(3)
    layer = APL(5)
    layer.build((None, 8, 8, 2000))
    slopes, hinges = (
        keras.ops.convert_to_numpy(w) for w in (layer.slopes, layer.hinges)
    )
    assert 0.099 < np.abs(slopes).max() <= 0.1  # ±0.5/5
    assert abs(slopes.std() - 0.2 / np.sqrt(12)) < 1e-3
    assert abs(hinges.std() - 0.5) < 0.01


def test_apl_says_what_it_costs_and_sees():
    from kerascnn.summary import summarize

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = APL(2, "unit", name="unit")(x)
    x = APL(5, name="channel")(x)
    x = APL(1, name="dense")(keras.layers.Flatten()(x))
    rows = {row.name: row for row in summarize(keras.Model(image, x)).rows}
    assert rows["unit"].expression == "2·2·6·6·4"
    assert rows["unit"].trainable == 576
    assert rows["channel"].expression == "2·5·4"
    assert rows["dense"].expression == "2·1·144"
    assert [rows[n].macs for n in ("unit", "channel", "dense")] == [0, 0, 0]
    assert rows["channel"].receptive_field == (3, 3)


@pytest.mark.parametrize("sharing", ["channel", "unit"])
def test_apl_in_a_model_comes_back_from_its_file(sharing, run, tmp_path):
    image = keras.Input((3, 3, 2))
    layer = APL(
        2,
        sharing,
        slope_initializer="normal",
        hinge_regularizer=keras.regularizers.L2(5e-4),
        name="apl",
    )
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("apl").get_config() == layer.get_config()
    x = np.random.default_rng(4).normal(size=(2, 3, 3, 2)).astype("float32")
    np.testing.assert_array_equal(run(again, x), run(model, x))
    penalty = 5e-4 * np.square(keras.ops.convert_to_numpy(layer.hinges)).sum()
    np.testing.assert_allclose(float(again.losses[0]), penalty, rtol=1e-5)


def test_apl_in_mixed_precision():
    layer = APL(2, dtype="mixed_bfloat16")
    y = layer(np.ones((1, 4), "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {v.dtype for v in layer.weights} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "pieces must be a positive integer; received 0"),
        ((1.5,), "pieces must be a positive integer; received 1.5"),
        ((1, "image"), "one of channel, unit; received 'image'"),
    ],
)
def test_apl_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        APL(*arguments)


def test_apl_for_units_needs_the_size_of_the_images():
    with pytest.raises(ValueError, match=r"must be known; received \(None, None, 4, 3"):
        APL(1, "unit")(keras.Input((None, 4, 3)))
    assert APL(1, "channel")(keras.Input((None, 4, 3))).shape == (None, None, 4, 3)


# --- The networks ---


def hinges(model):
    layers = [layer for layer in model.layers if isinstance(layer, APL)]
    return sum(layer.count_params() for layer in layers)


# Units of every activation: sizes of the images and channels, or dense units.
NIN_UNITS = [
    *((32 * 32, n) for n in (192, 160, 96)),
    *((16 * 16, n) for n in (192, 192, 192)),
    *((8 * 8, n) for n in (192, 192, 10)),
]
CNN_UNITS = [(32 * 32, 96), (16 * 16, 128), (8 * 8, 256), (1, 2048), (1, 2048)]


@pytest.mark.parametrize(
    ("name", "options", "weights", "learned"),
    [
        ("apl_nin", {}, 966_986, 5_672),
        ("apl_nin", {"sharing": "unit"}, 966_986, 2_525_696),
        ("apl_nin", {"pieces": 1}, 966_986, 2_836),
        ("apl_nin", {"pieces": 1, "sharing": "unit"}, 966_986, 1_262_848),
        ("apl_cnn", {}, 13_741_578, 45_760),
        ("apl_cnn", {"sharing": "unit"}, 13_741_578, 1_515_520),
    ],
)
def test_published_counts(name, options, weights, learned, blueprint):
    model = blueprint(zoo.builder(name), **options)
    assert hinges(model) == learned
    assert model.count_params() == weights + learned
    # The same by hand: a slope and a place for each of S hinges.
    units = NIN_UNITS if name == "apl_nin" else CNN_UNITS
    pieces = options.get("pieces", 2 if name == "apl_nin" else 5)
    each = (
        places * maps if options.get("sharing") == "unit" else maps
        for places, maps in units
    )
    assert learned == 2 * pieces * sum(each)


def test_the_table_of_network_in_network(blueprint):
    model = blueprint(zoo.builder("apl_nin"))
    rows = [
        (layer.name, layer.kernel_size[0], *layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert rows == [
        ("conv1", 5, 32, 32, 192),
        ("cccp1", 1, 32, 32, 160),
        ("cccp2", 1, 32, 32, 96),
        ("conv2", 5, 16, 16, 192),
        ("cccp3", 1, 16, 16, 192),
        ("cccp4", 1, 16, 16, 192),
        ("conv3", 3, 8, 8, 192),
        ("cccp5", 1, 8, 8, 192),
        ("cccp6", 1, 8, 8, 10),
    ]
    names = [layer.name for layer in model.layers]
    for name, *_ in rows:  # an activation after every convolution, the last too
        assert names[names.index(name) + 1] == f"{name}_apl"
    assert isinstance(model.get_layer("pool1"), keras.layers.MaxPooling2D)
    assert isinstance(model.get_layer("pool2"), keras.layers.AveragePooling2D)


def test_the_table_of_the_convolutional_network(blueprint):
    model = blueprint(zoo.builder("apl_cnn"))
    rows = [(layer.name, tuple(layer.output.shape[1:])) for layer in model.layers]
    assert rows[2:12] == [
        ("conv1", (32, 32, 96)),
        ("apl1", (32, 32, 96)),
        ("dropout1_before_pool", (32, 32, 96)),
        ("pool1", (16, 16, 96)),
        ("dropout1", (16, 16, 96)),
        ("conv2", (16, 16, 128)),
        ("apl2", (16, 16, 128)),
        ("dropout2_before_pool", (16, 16, 128)),
        ("pool2", (8, 8, 128)),
        ("dropout2", (8, 8, 128)),
    ]
    assert rows[-9:-1] == [
        ("flatten", (4 * 4 * 256,)),
        ("fc1", (2048,)),
        ("apl4", (2048,)),
        ("dropout4", (2048,)),
        ("fc2", (2048,)),
        ("apl5", (2048,)),
        ("dropout5", (2048,)),
        ("fc3", (10,)),
    ]
    rates = [model.get_layer(f"dropout{n}").rate for n in (1, 2, 3, 4, 5)]
    assert rates == [0.25, 0.25, 0.5, 0.5, 0.5]
    slopes = model.get_layer("apl1").slope_initializer
    assert (slopes.minval, slopes.maxval) == (-0.5, 0.5)


@pytest.mark.parametrize("name", ["apl_nin", "apl_cnn"])
def test_units_of_their_own_run_and_save(name, pixels, run, tmp_path):
    shape = (12, 10, 3)
    model = zoo.build(name, shape, sharing="unit", width=0.05)
    assert hinges(model) > hinges(zoo.build(name, shape, width=0.05))
    images = pixels(shape)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(run(again, images), run(model, images), rtol=1e-5)


@pytest.mark.parametrize("name", ["apl_nin", "apl_cnn"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pieces": 0}, "pieces must be a positive integer; received 0"),
        ({"sharing": "both"}, "one of channel, unit; received 'both'"),
        ({"width": 0}, "width must be above 0; received 0"),
    ],
)
def test_wrong_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(name, **arguments)
