"""The recurrent layer against plain NumPy, and its networks against the paper."""

import keras
import numpy as np
import pytest
from differentiation import layer_gradients

import zoo
from zoo.layers import RecurrentConv2D

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")

SHAPE = (2, 5, 4, 3)


def convolve(x, kernel):
    """Convolve with zeros around the image, stride 1, odd windows."""
    rows, columns = kernel.shape[:2]
    pad = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded = np.pad(x, pad)
    y = np.empty((*x.shape[:-1], kernel.shape[-1]))
    for i, j in np.ndindex(x.shape[1:3]):
        y[:, i, j] = np.tensordot(padded[:, i : i + rows, j : j + columns], kernel, 3)
    return y


def lrn(x, size, alpha, beta):
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(0, c - size // 2) : c + size // 2 + 1]
        energy = np.square(near).sum(axis=-1)
        y[..., c] = x[..., c] / (1 + alpha / size * energy) ** beta
    return y


def by_equations(u, weights, steps, normalize):
    """Equations 1 to 3 of the paper, with the feed-forward part computed anew."""
    bias = weights[-1]
    x = normalize(convolve(u, weights[0]) + bias, 0)
    for t in range(1, steps + 1):
        x = normalize(convolve(u, weights[0]) + convolve(x, weights[1]) + bias, t)
    return x


def make(steps=3, normalization="lrn", seed=0, shape=SHAPE, filters=5, **options):
    """A layer whose normalisation matters, its input, and its weights."""
    keras.utils.set_random_seed(seed)
    options = {"lrn_size": 3, "lrn_alpha": 2.0, "bias_initializer": "normal", **options}
    layer = RecurrentConv2D(filters, 3, steps, normalization=normalization, **options)
    u = np.random.default_rng(seed).normal(scale=2, size=shape)
    layer.build(shape)
    kernels = ("kernel", "recurrent_kernel")[: 1 + (steps > 0)]
    names = (*kernels, "bias")
    weights = [
        np.float64(keras.ops.convert_to_numpy(getattr(layer, name))) for name in names
    ]
    return layer, u, weights


def lrn_of_relu(x, t):
    return lrn(np.maximum(x, 0), 3, 2.0, 0.75)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_rcl_is_the_equations(steps):
    layer, u, weights = make(steps)
    y = keras.ops.convert_to_numpy(layer(u.astype("float32")))
    expected = by_equations(u, weights, steps, lrn_of_relu)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert y.shape == layer.compute_output_shape(SHAPE) == (2, 5, 4, 5)
    # The normalisation must do something that its absence would fail.
    assert (
        np.abs(by_equations(u, weights, steps, lambda x, t: np.maximum(x, 0)) - y).max()
        > 0.1
    )


def test_rcl_without_normalisation_and_with_oblong_windows():
    keras.utils.set_random_seed(1)
    layer = RecurrentConv2D(4, (3, 5), 2, activation="elu", normalization=None)
    u = np.random.default_rng(1).normal(size=(1, 4, 6, 2))
    y = keras.ops.convert_to_numpy(layer(u.astype("float32")))
    weights = [np.float64(keras.ops.convert_to_numpy(w)) for w in layer.weights]
    assert [w.shape for w in weights] == [(3, 5, 2, 4), (3, 5, 4, 4), (4,)]

    def elu(x, t):
        return np.where(x > 0, x, np.expm1(x))

    expected = by_equations(u, weights, 2, elu)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_rcl_normalises_each_time_step_with_its_own_statistics():
    layer, u, weights = make(2, "batch")
    random = np.random.default_rng(2)
    statistics = []
    for bn in layer.normalizations:
        values = [random.uniform(0.3, 2, w.shape) for w in bn.weights]
        bn.set_weights(values)
        statistics.append(values)
    assert len(statistics) == 3

    def normalize(x, t):
        gamma, beta, mean, variance = statistics[t]
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    x = u.astype("float32")
    expected = by_equations(u, weights, 2, normalize)
    y = keras.ops.convert_to_numpy(layer(x, training=False))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)

    # In training, the batch's own mean and variance, which the layers then remember.
    def normalize_batch(x, t):
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        means.append(mean)
        gamma, beta = statistics[t][:2]
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    means = []
    expected = by_equations(u, weights, 2, normalize_batch)
    y = keras.ops.convert_to_numpy(layer(x, training=True))
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    for bn, values, mean in zip(layer.normalizations, statistics, means, strict=True):
        moved = 0.9 * values[2] + 0.1 * mean
        np.testing.assert_allclose(bn.moving_mean.numpy(), moved, rtol=1e-3, atol=1e-3)


def differences(function, arrays, which, eps=1e-6):
    """Central differences of a function of arrays, in float64, value by value."""
    gradient = np.empty_like(arrays[which])
    for place in np.ndindex(gradient.shape):
        sides = []
        for step in (eps, -eps):
            moved = [array.copy() for array in arrays]
            moved[which][place] += step
            sides.append(function(*moved))
        gradient[place] = (sides[0] - sides[1]) / (2 * eps)
    return gradient


def test_rcl_gradients_are_finite_differences():
    """The gradient of a shared kernel is the sum over the time steps."""
    layer, u, weights = make(2, seed=3, shape=(1, 4, 3, 2), filters=4)
    mixture = np.random.default_rng(4).normal(size=(1, 4, 3, 4))

    def total(u, *weights):
        return np.sum(mixture * by_equations(u, weights, 2, lrn_of_relu))

    found = layer_gradients(
        layer, u.astype("float32"), mixture.astype("float32"), training=False
    )
    assert len(found) == 4
    for which, gradient in enumerate(found):
        expected = differences(total, [u, *weights], which)
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=5e-4)


@pytest.mark.parametrize(
    ("filters", "size"), [(96, 13), (128, 17), (160, 21), (24, 3), (32, 5), (8, 1)]
)
def test_rcl_normalises_over_an_eighth_of_the_maps(filters, size):
    (layer,) = RecurrentConv2D(filters).normalizations
    assert (layer.size, layer.alpha, layer.beta, layer.kappa) == (size, 1e-3, 0.75, 1)
    assert size == filters // 8 + 1 or filters < 96


def test_rcl_says_what_it_costs_and_sees():
    from kerascnn.summary import summarize

    layer = RecurrentConv2D(6, 3, 3, normalization="batch", name="rcl")
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, layer(image))
    # One pass over the input's 4 maps, three over its own 6.
    expected = 8 * 8 * 3 * 3 * 6 * (4 + 6 + 6 + 6)
    assert layer.macs((None, 8, 8, 4), (None, 8, 8, 6)) == expected
    assert layer.window() == ((9, 9), (1, 1))
    row = summarize(model).rows[-1]
    assert row.macs == expected
    assert row.expression == "3·3·4·6 + 3·3·6·6 + 6 + 4·4·6"
    assert row.trainable + row.non_trainable == layer.count_params()
    assert row.receptive_field == (9, 9)
    alone = RecurrentConv2D(6, 3, 0)
    alone.build((None, 8, 8, 4))
    assert alone.parameter_expression() == "3·3·4·6 + 6"
    assert [w.name for w in alone.weights] == ["kernel", "bias"]


@pytest.mark.parametrize("normalization", ["lrn", "batch", None])
def test_rcl_in_a_model_comes_back_from_its_file(normalization, run, tmp_path):
    image = keras.Input((6, 6, 3))
    layer = RecurrentConv2D(
        4,
        steps=2,
        activation="elu",
        normalization=normalization,
        lrn_size=3,
        lrn_alpha=0.5,
        kernel_initializer="he_uniform",
        recurrent_regularizer=keras.regularizers.L2(0.1),
        name="rcl",
    )
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("rcl").get_config() == layer.get_config()
    x = np.random.default_rng(5).normal(size=(2, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(run(again, x), run(model, x), rtol=1e-6)
    penalty = 0.1 * np.square(keras.ops.convert_to_numpy(layer.recurrent_kernel)).sum()
    np.testing.assert_allclose(float(again.losses[0]), penalty, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["lrn", "batch"])
def test_rcl_in_mixed_precision(normalization):
    layer = RecurrentConv2D(16, normalization=normalization, dtype="mixed_bfloat16")
    y = layer(np.ones((1, 6, 6, 3), "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {v.dtype for v in layer.weights} == {"float32"}
    assert {g.compute_dtype for g in layer.normalizations} == {"bfloat16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "received filters=0"),
        ({"filters": 4, "kernel_size": (3, 0)}, r"kernel_size=\(3, 0\)"),
        ({"filters": 4, "kernel_size": (3, 3, 3)}, r"kernel_size=\(3, 3, 3\)"),
        ({"filters": 4, "steps": -1}, "0 or more; received -1"),
        ({"filters": 4, "normalization": "layer"}, "or None; received 'layer'"),
        ({"filters": 4, "lrn_size": 4}, "odd integer.*received 4"),
    ],
)
def test_rcl_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentConv2D(**arguments)


# --- The networks ---


@pytest.mark.parametrize(
    ("maps", "parameters", "macs"),
    [
        (96, 672_202, 219_710_400),
        (128, 1_191_178, 387_319_040),
        (160, 1_857_610, 602_113_600),
    ],
)
def test_published_counts(maps, parameters, macs, blueprint, count):
    counts = count(blueprint(zoo.builder(f"recurrent_cnn_{maps}")))
    assert (counts.trainable, counts.non_trainable) == (parameters, 0)
    assert counts.macs == macs


@pytest.mark.parametrize("steps", [1, 5])
def test_the_weights_do_not_grow_with_time(steps, blueprint, count):
    counts = count(blueprint(zoo.builder("recurrent_cnn_96"), steps=steps))
    assert counts.trainable == 672_202
    # Each step more convolves twice at 16x16 and twice at 8x8.
    a_step = 2 * (16 * 16 + 8 * 8) * 9 * 96 * 96
    assert counts.macs == 219_710_400 + (steps - 3) * a_step


def test_the_table_of_the_network(blueprint):
    model = blueprint(zoo.builder("recurrent_cnn_128"))
    rows = [(layer.name, tuple(layer.output.shape[1:])) for layer in model.layers]
    assert rows[2:] == [
        ("conv1", (32, 32, 128)),
        ("pool1", (16, 16, 128)),
        ("dropout1", (16, 16, 128)),
        ("rcl1", (16, 16, 128)),
        ("dropout2", (16, 16, 128)),
        ("rcl2", (16, 16, 128)),
        ("pool2", (8, 8, 128)),
        ("dropout3", (8, 8, 128)),
        ("rcl3", (8, 8, 128)),
        ("dropout4", (8, 8, 128)),
        ("rcl4", (8, 8, 128)),
        ("global_pool", (128,)),
        ("fc", (10,)),
        ("probabilities", (10,)),
    ]
    assert isinstance(model.get_layer("global_pool"), keras.layers.GlobalMaxPooling2D)
    assert {model.get_layer(f"dropout{n}").rate for n in (1, 2, 3, 4)} == {0.5}


def test_batch_normalisation_has_weights_for_each_step(blueprint, count):
    model = blueprint(zoo.builder("recurrent_cnn_96"), normalization="batch", steps=2)
    counts = count(model)
    # After conv1, and three times in each of four recurrent layers.
    assert counts.trainable == 672_202 + 2 * 96 * (1 + 4 * 3)
    assert counts.non_trainable == 2 * 96 * (1 + 4 * 3)


def test_batch_normalised_network_trains_and_saves(pixels, run, tmp_path):
    keras.utils.set_random_seed(6)
    model = zoo.build(
        "recurrent_cnn_96", (16, 16, 3), steps=1, normalization="batch", width=0.1
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_layer("rcl4").normalizations[1].moving_mean.numpy().copy()
    images = pixels((16, 16, 3), 8)
    model.fit(images.astype("float32"), np.arange(8), verbose=0)
    after = model.get_layer("rcl4").normalizations[1].moving_mean.numpy()
    assert np.abs(after - before).max() > 0
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(run(again, images), run(model, images), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": None}, "'lrn' or 'batch'; received None"),
        ({"steps": 1.5}, "0 or more; received 1.5"),
        ({"width": 0}, "width must be above 0; received 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("recurrent_cnn_96", **arguments)


def test_the_signal_keeps_its_scale_over_time(pixels):
    """Two kernels of variance 1/fan-in each: neither dies out nor explodes."""
    keras.utils.set_random_seed(7)
    model = zoo.build("recurrent_cnn_160", width=0.3, steps=6)
    ends = [model.get_layer(n).output for n in ("rcl1", "rcl4")]
    first, last = (
        np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(maps))))
        for maps in keras.Model(model.input, ends)(pixels((32, 32, 3)))
    )
    assert 0.25 < last / first < 4
