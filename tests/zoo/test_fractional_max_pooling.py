"""Fractional max pooling: the layer against NumPy, the networks against the paper."""

import itertools
import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from differentiation import gradients
from keras import ops

import zoo
from zoo.fractional_max_pooling import chain, field_width
from zoo.layers import FractionalMaxPooling2D, RandomPlacement2D
from zoo.layers.fractional_max_pooling import pool, pseudorandom, shuffled

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")

# The spatial chain of the paper's network: after the convolution, after the pooling.
CHAIN = [(93, 74), (73, 58), (57, 45), (44, 35), (34, 27), (26, 21)]
CHAIN += [(20, 16), (15, 12), (11, 9), (8, 6), (5, 4), (3, 2)]
KINDS = list(
    itertools.product(
        ("pseudorandom", "random"), ("overlapping", "inclusive", "disjoint")
    )
)
every_kind = pytest.mark.parametrize(("mode", "regions"), KINDS)


def array(x):
    return np.asarray(ops.convert_to_numpy(x))


def marks(function, values, size_in, size_out):
    """Marks of the author's 2x2 regions: where they begin."""
    values = np.asarray(values, "float32")
    return array(function(values, size_out - 1, size_in - 2))


# --- Where the regions are ---


@pytest.mark.parametrize(
    ("size_in", "size_out", "u", "expected"),
    [
        (11, 9, 0.25, [0, 1, 2, 3, 4, 5, 7, 8, 9]),
        (8, 6, 0.9, [0, 1, 2, 3, 4, 6]),
        *((5, 4, u, [0, 1, 2, 3]) for u in (0.0, 0.3, 0.999)),
        (2, 1, 0.7, [0]),
    ],
)
def test_the_authors_ticks(size_in, size_out, u, expected):
    assert marks(pseudorandom, [[u]], size_in, size_out)[0].tolist() == expected


def test_the_even_steps_are_the_formula_in_exact_arithmetic():
    u = np.arange(1024)[:, None] / 1024  # exact in float32, as are its small multiples
    for size_in, size_out in [*CHAIN, (10, 5), (12, 11), (2, 1)]:
        found = marks(pseudorandom, u, size_in, size_out)
        alpha = Fraction(size_in - 2, max(size_out - 1, 1))
        for row, value in zip(found[::37], u[::37, 0], strict=True):
            shift = math.floor(Fraction(value) * alpha)
            expected = [
                math.floor((j + Fraction(value)) * alpha) - shift
                for j in range(size_out)
            ]
            assert row.tolist() == expected, (size_in, size_out, value)


def test_no_rounding_spoils_the_even_steps():
    """Just below 1, where u·p rounds up in float32, and at random."""
    below = np.nextafter(np.float32(1), np.float32(0))
    u = np.append(np.random.default_rng(0).random(2000, np.float32), [below, 0])
    for size_in, size_out in CHAIN:
        found = marks(pseudorandom, u[:, None], size_in, size_out)
        assert (found[:, 0] == 0).all()
        assert (found[:, -1] == size_in - 2).all()
        assert set(np.unique(np.diff(found))) <= {1, 2}


@pytest.mark.parametrize(
    ("size", "ones", "twos"),
    [
        ((93, 74), 55, 18),
        ((73, 58), 43, 14),
        ((57, 45), 33, 11),
        ((44, 35), 26, 8),
        ((34, 27), 20, 6),
        ((26, 21), 16, 4),
        ((20, 16), 12, 3),
        ((15, 12), 9, 2),
        ((11, 9), 7, 1),
        ((8, 6), 4, 1),
        ((5, 4), 3, 0),
        ((3, 2), 1, 0),
    ],
)
def test_the_ones_and_twos_of_random_regions(size, ones, twos):
    noise = np.random.default_rng(0).random((50, size[1] - 1))
    steps = np.diff(marks(shuffled, noise, *size))
    assert ((steps == 1).sum(axis=1) == ones).all()
    assert ((steps == 2).sum(axis=1) == twos).all()


def test_the_order_of_random_regions_is_any():
    noise = np.random.default_rng(0).random((3000, 7))
    steps = np.diff(marks(shuffled, noise, 11, 8))  # 5 ones, 2 twos
    orders, often = np.unique(steps, axis=0, return_counts=True)
    assert len(orders) == math.comb(7, 2)
    assert often.min() > 3000 / 21 * 0.7


def layer_for(size_in, size_out, **options):
    layer = FractionalMaxPooling2D(size_out, **options)
    layer.build(
        (None, *((size_in, size_in) if isinstance(size_in, int) else size_in), 1)
    )
    return layer


@every_kind
def test_the_regions_cover_the_input_and_have_the_right_sizes(mode, regions):
    for size_in, size_out in [(93, 74), (11, 9), (5, 4), (3, 2), (2, 1), (10, 5)]:
        layer = layer_for(size_in, size_out, mode=mode, regions=regions, seed=1)
        for first, last in layer.draw(20):
            first, last = array(first), array(last)
            assert first.shape == last.shape == (20, size_out)
            assert (first[:, 0] == 0).all()
            assert (last[:, -1] == size_in - 1).all()
            sizes = set(np.unique(last - first + 1))
            gap = first[:, 1:] - last[:, :-1]
            if regions == "overlapping":
                assert sizes == {2}
                assert set(np.unique(gap)) <= {0, 1}
            elif regions == "inclusive":
                assert sizes <= {2, 3}
                assert (gap == 0).all()  # neighbours share one
            else:
                assert sizes <= {1, 2}
                assert (gap == 1).all()


@pytest.mark.parametrize("mode", ["pseudorandom", "random"])
def test_each_image_and_axis_and_pass_has_its_own_regions(mode):
    layer = layer_for(44, 35, mode=mode, seed=3)
    rows, columns = (array(first) for first, _ in layer.draw(8))
    assert len(np.unique(rows, axis=0)) > 4
    assert (rows != columns).any()
    assert (rows != array(layer.draw(8)[0][0])).any()
    again = layer_for(44, 35, mode=mode, seed=3)
    np.testing.assert_array_equal(array(again.draw(8)[0][0]), rows)
    shared = layer_for(44, 35, mode=mode, shared=True, seed=3)
    (rows, _), (columns, _) = shared.draw(8)
    assert rows.shape == columns.shape == (1, 35)
    assert (array(rows) != array(columns)).any()


def test_deterministic_regions_are_those_of_one_half():
    layer = layer_for(11, 9, mode="random", deterministic=True)
    for first, last in layer.draw(4):
        np.testing.assert_array_equal(first, marks(pseudorandom, [[0.5]], 11, 9))
        np.testing.assert_array_equal(array(last), array(first) + 1)


# --- What is pooled ---


def by_loops(x, rows, columns, upstream):
    """Pool region by region; return the maxima and the gradient."""
    (top, bottom), (left, right) = (
        tuple(np.broadcast_to(array(end), (len(x), end.shape[1])) for end in axis)
        for axis in (rows, columns)
    )
    y, gradient = np.empty_like(upstream), np.zeros_like(x)
    for n, i, j, c in np.ndindex(upstream.shape):
        region = np.s_[n, top[n, i] : bottom[n, i] + 1, left[n, j] : right[n, j] + 1, c]
        place = np.unravel_index(x[region].argmax(), x[region].shape)
        y[n, i, j, c] = x[region][place]
        gradient[region][place] += upstream[n, i, j, c]
    return y, gradient


@every_kind
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_maxima_and_the_gradient_are_those_of_numpy(
    mode, regions, shared, compiled, monkeypatch
):
    path = "zoo.layers.fractional_max_pooling.compiled_by_xla"
    monkeypatch.setattr(path, lambda: compiled)
    random = np.random.default_rng(5)
    x = random.normal(size=(3, 11, 8, 2)).astype("float32")
    upstream = random.normal(size=(3, 9, 6, 2)).astype("float32")
    options = {"mode": mode, "regions": regions, "shared": shared, "seed": 11}
    # Layers of one seed draw alike: one to pool, one to say where.
    drawn = layer_for((11, 8), (9, 6), **options).draw(3)
    expected, gradient = by_loops(x, *drawn, upstream)
    y = FractionalMaxPooling2D((9, 6), **options)(x)
    np.testing.assert_array_equal(array(y), expected)

    def total(x):
        y = FractionalMaxPooling2D((9, 6), **options)(x)
        return ops.sum(ops.multiply(y, upstream))

    (found,) = gradients(total, [x])
    np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("regions", ["overlapping", "disjoint"])
def test_half_the_size_is_ordinary_pooling(regions):
    x = np.random.default_rng(0).normal(size=(2, 10, 14, 3)).astype("float32")
    y = FractionalMaxPooling2D((5, 7), regions=regions)(x)
    np.testing.assert_array_equal(array(y), array(keras.layers.MaxPooling2D(2)(x)))


def test_a_step_of_one_is_pooling_with_stride_one():
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    y = FractionalMaxPooling2D((4, 5), mode="random")(x)
    expected = keras.layers.MaxPooling2D(2, strides=1)(x)
    np.testing.assert_array_equal(array(y), array(expected))


def test_ties_do_not_multiply_the_gradient():
    """All that comes from above arrives below, on a field of one grey too."""
    x = np.zeros((2, 11, 11, 3), "float32")
    for mode, regions in KINDS:
        layer = FractionalMaxPooling2D(9, mode=mode, regions=regions)
        (gradient,) = gradients(lambda x, layer=layer: ops.sum(layer(x)), [x])
        np.testing.assert_allclose(gradient.sum((1, 2)), 81, rtol=1e-6)


def test_the_regions_and_maxima_of_tensorflow():
    tensorflow = pytest.importorskip("tensorflow")
    x = np.random.default_rng(3).normal(size=(2, 17, 13, 2)).astype("float32")
    for pseudo_random in (True, False):
        theirs, rows, columns = tensorflow.raw_ops.FractionalMaxPool(
            value=x,
            pooling_ratio=[1.0, 1.37, 1.29, 1.0],
            pseudo_random=pseudo_random,
            overlapping=False,
            deterministic=True,
            seed=7,
            seed2=8,
        )
        rows, columns = (
            (
                s.numpy()[None, :-1].astype("int32"),
                s.numpy()[None, 1:].astype("int32") - 1,
            )
            for s in (rows, columns)
        )
        y = pool(ops.convert_to_tensor(x), rows, columns, "disjoint")
        np.testing.assert_array_equal(array(y), theirs.numpy())


def test_mixed_precision_selects_exactly():
    x = np.random.default_rng(2).normal(size=(2, 44, 44, 3)).astype("float32")
    x = ops.cast(x, "bfloat16")
    for mode in ("pseudorandom", "random"):
        options = {"mode": mode, "seed": 4}
        mixed = FractionalMaxPooling2D(35, dtype="mixed_bfloat16", **options)(x)
        assert keras.backend.standardize_dtype(mixed.dtype) == "bfloat16"
        full = FractionalMaxPooling2D(35, **options)(ops.cast(x, "float32"))
        np.testing.assert_array_equal(array(ops.cast(mixed, "float32")), array(full))


def test_the_ratio_gives_the_size():
    layer = FractionalMaxPooling2D(ratio=2 ** (1 / 3))
    for size_in, size_out in CHAIN:
        shape = layer.compute_output_shape((None, size_in, size_in, 5))
        assert shape == (None, size_out, size_out, 5)
    pair = FractionalMaxPooling2D(ratio=(1.5, 2))
    assert pair.compute_output_shape((4, 9, 8, 1)) == (4, 6, 4, 1)
    # As far as there is a way: 10 pixels cannot stay 10.
    least = FractionalMaxPooling2D(ratio=1.01)
    assert least.compute_output_shape((4, 10, 10, 1)) == (4, 9, 9, 1)


def test_it_can_be_kept_and_made_again():
    layer = FractionalMaxPooling2D(
        (9, 8), mode="random", regions="disjoint", shared=True, seed=5, name="pool1"
    )
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "kerascnn>FractionalMaxPooling2D"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    x = np.random.default_rng(0).normal(size=(2, 11, 11, 1)).astype("float32")
    np.testing.assert_array_equal(array(layer(x)), array(again(x)))
    assert layer.weights == []


def test_the_window_is_the_largest_region_and_the_mean_step():
    assert layer_for(93, 74).window() == ((2, 2), (Fraction(91, 73),) * 2)
    inclusive = layer_for((9, 11), (6, 8), regions="inclusive")
    assert inclusive.window() == ((3, 3), (Fraction(8, 6), Fraction(10, 8)))
    assert layer_for(10, 5).window() == ((2, 2), (2, 2))
    assert layer_for(2, 1).window() == ((2, 2), (1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either output_size or ratio; received output_size=None, ratio=None"),
        ({"output_size": 3, "ratio": 1.5}, "either output_size or ratio"),
        ({"output_size": 0}, "output_size must be a number above 0.*received 0"),
        ({"output_size": (3, 4, 5)}, "output_size must be a number above 0"),
        ({"ratio": 2.5}, "ratio must be a number above 1 and up to 2.*received 2.5"),
        ({"ratio": 1}, "ratio must be a number above 1"),
        ({"ratio": 1.5, "mode": "ordered"}, "mode must be one of.*received 'ordered'"),
        ({"ratio": 1.5, "regions": "3x3"}, "regions must be one of.*received '3x3'"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FractionalMaxPooling2D(**options)


def test_sizes_that_cannot_be_are_refused():
    for size_out, regions, said in [
        (4, "overlapping", "pool 10 pixels to 5 … 9; received an output size of 4"),
        (10, "overlapping", "5 … 9; received an output size of 10"),
        (10, "inclusive", "5 … 9; received an output size of 10"),
        (11, "disjoint", "5 … 10; received an output size of 11"),
    ]:
        with pytest.raises(ValueError, match=said):
            layer_for(10, size_out, regions=regions)
    assert layer_for(10, 10, regions="disjoint").window()[1] == (1, 1)
    with pytest.raises(ValueError, match="at least 2 pixels along each axis"):
        layer_for(1, 1)
    with pytest.raises(ValueError, match="needs a known height and width"):
        FractionalMaxPooling2D(3)(keras.Input((None, 4, 3)))


# --- The networks ---


def test_the_chain_is_that_of_the_paper():
    inputs = [94, *(pooled for _, pooled in CHAIN[:-1])]
    assert chain() == [
        (size, *after) for size, after in zip(inputs, CHAIN, strict=True)
    ]
    assert field_width() == 94
    assert field_width(11) == 74
    assert chain(6, 2**0.5)[0][0] == 36  # the paper's network for MNIST


@pytest.mark.parametrize(
    ("filters", "trainable", "macs"),
    [
        (32, 3_176_490, 596_408_064),
        (64, 12_689_482, 2_378_980_864),
        (96, 28_538_986, 5_347_718_400),
        (160, 79_247_530, 14_843_687_680),
    ],
)
def test_published_counts(filters, trainable, macs, blueprint, count):
    builder = zoo.builder("fractional_max_pooling")
    counts = count(blueprint(builder, filters=filters))
    assert (counts.trainable, counts.macs) == (trainable, macs)


@pytest.mark.parametrize(
    ("name", "filters", "dropout", "mode"),
    [
        ("fractional_max_pooling", 160, 0.5, "pseudorandom"),
        ("fractional_max_pooling_32", 32, 0.1, "random"),
        ("fractional_max_pooling_64", 64, 0.5, "pseudorandom"),
    ],
)
def test_the_layers_are_those_of_the_formula(name, filters, dropout, mode, blueprint):
    model = blueprint(zoo.builder(name))
    assert model.get_layer("field").output.shape == (None, 94, 94, 3)
    channels = 3
    for level, (convolved, pooled) in enumerate(CHAIN, start=1):
        convolution = model.get_layer(f"conv{level}")
        assert convolution.kernel.shape == (2, 2, channels, level * filters)
        assert convolution.output.shape[1:3] == (convolved, convolved)
        channels = level * filters
        # Section 3.3 of the notes on the release: s = (2/∛2)² before a pooling.
        limit = (6 / (convolution.kernel.shape[2] * 4 + 4 ** (2 / 3) * channels)) ** 0.5
        assert convolution.kernel_initializer.maxval == pytest.approx(limit)
        assert convolution.kernel_initializer.minval == pytest.approx(-limit)
        relu = model.get_layer(f"conv{level}_relu")
        assert relu.negative_slope == pytest.approx(1 / 3)
        layer = model.get_layer(f"pool{level}")
        assert layer.output.shape[1:3] == (pooled, pooled)
        assert (layer.mode, layer.regions) == (mode, "overlapping")
        assert not (layer.shared or layer.deterministic)
    assert model.get_layer("conv13").kernel.shape == (2, 2, channels, 13 * filters)
    assert model.get_layer("conv14").kernel.shape == (1, 1, 13 * filters, 14 * filters)
    assert model.get_layer("fc").kernel.shape == (14 * filters, 10)
    names = {layer.name for layer in model.layers}
    assert "dropout1" not in names  # its rate is 0
    for level in range(2, 15):
        layer = model.get_layer(f"dropout{level}")
        assert layer.rate == pytest.approx(dropout * (level - 1) / 13)
        assert layer.noise_shape == (1, 1, 1, None)


def test_the_last_layers_start_from_their_own_scale(blueprint):
    model = blueprint(zoo.builder("fractional_max_pooling_32"))
    for name, fan_in, fan_out in [
        ("conv13", 4 * 12 * 32, 4 * 13 * 32),
        ("conv14", 13 * 32, 14 * 32),
        ("fc", 14 * 32, 10),
    ]:
        limit = (6 / (fan_in + fan_out)) ** 0.5
        layer = model.get_layer(name)
        assert layer.kernel_initializer.maxval == pytest.approx(limit), name


def small(**options):
    """A network of four levels on a field of 12x12."""
    options = {"levels": 4, "width": 0.25, "dropout": 0.2, **options}
    return zoo.build("fractional_max_pooling_32", (8, 8, 3), 3, **options)


def test_predictions_are_drawn_and_their_mean_is_an_ensemble(pixels, run):
    model = small()
    images = pixels((8, 8, 3), images=4)
    passes = np.array([run(model, images) for _ in range(8)])
    assert np.ptp(passes, axis=0).max() > 1e-3
    np.testing.assert_allclose(passes.mean(axis=0).sum(axis=1), 1, rtol=1e-5)
    predicted = [model.predict(images, verbose=0) for _ in range(2)]
    assert np.abs(predicted[0] - predicted[1]).max() > 1e-4
    fixed = small(deterministic=True)
    fixed.set_weights(model.get_weights())
    np.testing.assert_array_equal(run(fixed, images), run(fixed, images))


def test_images_share_their_regions_where_they_are_asked_to(run, pixels):
    images = pixels((8, 8, 3), images=1).repeat(6, axis=0)
    own, shared = run(small(), images), run(small(shared=True), images)
    assert np.ptp(own, axis=0).max() > 1e-4
    assert np.ptp(shared, axis=0).max() < 1e-6


def bars(number, size=6):
    """Draw images with a bar across (class 1) or down (class 0)."""
    random = np.random.default_rng(0)
    labels = np.arange(number) % 2
    images = random.integers(0, 60, (number, size, size, 3)).astype("uint8")
    for image, label in zip(images, labels, strict=True):
        place = random.integers(size)
        image[(place, slice(None)) if label else (slice(None), place)] += 180
    return images, labels


@pytest.mark.parametrize(
    ("mode", "shared"), [("pseudorandom", True), ("random", False)]
)
def test_a_step_of_training_is_compiled(mode, shared):
    """By XLA on TensorFlow, by jax.jit on JAX: a field, one level, a classifier."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((5, 5, 2))
    x = RandomPlacement2D(9, 9, shift=1)(x)
    x = keras.layers.Conv2D(3, 2)(x)
    x = FractionalMaxPooling2D(6, mode=mode, shared=shared)(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=True)
    assert model.jit_compile
    random = np.random.default_rng(0)
    images = random.normal(size=(4, 5, 5, 2)).astype("float32")
    before = model.get_weights()
    assert np.isfinite(model.train_on_batch(images, np.ones((4, 2), "float32")))
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()
    answers = [model.predict_on_batch(images) for _ in range(4)]
    assert np.ptp(answers, axis=0).max() > 0  # the draws are not compiled in


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "shared"), [("pseudorandom", True), ("random", False)]
)
def test_a_compiled_network_learns(mode, shared):
    """By XLA on TensorFlow, by jax.jit on JAX."""
    keras.utils.set_random_seed(0)
    options = {"levels": 3, "dropout": 0.1, "mode": mode, "shared": shared, "shift": 1}
    model = zoo.build("fractional_max_pooling_32", (6, 6, 3), 2, **options)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.Adam(0.003), loss, jit_compile=True)
    images, labels = bars(64)
    before = model.get_weights()
    for _ in range(40):
        assert np.isfinite(model.train_on_batch(images, labels))
    for old, new in zip(before, model.get_weights(), strict=True):
        assert (old != new).any()
    first, second = (model.predict_on_batch(images) for _ in range(2))
    assert np.abs(first - second).max() > 0  # the draws are not compiled in
    assert ((first + second).argmax(axis=1) == labels).mean() > 0.9


def test_images_that_do_not_fit_are_refused_with_a_way_out(blueprint):
    builder = zoo.builder("fractional_max_pooling_32")
    assert blueprint(builder, (94, 94, 3)).output_shape == (None, 10)
    with pytest.raises(ValueError, match=r"at most 94x94.*received 32x95.*levels=13"):
        blueprint(builder, (32, 95, 3))
    grown = blueprint(builder, (32, 95, 3), levels=13)
    assert grown.get_layer("field").output.shape == (None, 119, 119, 3)


@pytest.mark.parametrize("argument", ["levels", "filters", "width"])
def test_numbers_that_are_none_are_refused(argument):
    whole = "a whole number " * (argument == "levels")
    told = f"{argument} must be {whole}above 0; received 0"
    with pytest.raises(ValueError, match=told):
        zoo.build("fractional_max_pooling_64", **{argument: 0})
