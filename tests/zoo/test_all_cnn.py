"""All-CNN against the paper's tables."""

import keras
import numpy as np
import pytest

import zoo
from zoo.all_cnn import BLOCKS, all_cnn
from zoo.all_cnn_large import all_cnn_large

# Parameters, and millions of multiply-accumulates if the last 3x3 convolution were
# padded, for which the figures are known; unpadded, it and the two 1x1 convolutions
# after it compute 6·6 places, not 8·8.
TABLE = {
    "all_cnn_a_base": (839_242, 149),
    "all_cnn_a_strided": (839_242, 55),
    "all_cnn_a_convpool": (1_254_250, 319),
    "all_cnn_a": (1_254_250, 192),
    "all_cnn_b_base": (885_610, 168),
    "all_cnn_b_strided": (885_610, 154),
    "all_cnn_b_convpool": (1_300_618, 338),
    "all_cnn_b": (1_300_618, 210),
    "all_cnn_c_base": (954_730, 239),
    "all_cnn_c_strided": (954_730, 111),
    "all_cnn_c_convpool": (1_369_738, 409),
    "all_cnn_c": (1_369_738, 281),
}
UNPADDED = (8 * 8 - 6 * 6) * (3 * 3 * 192 * 192 + 192 * 192 + 192 * 10)


@pytest.mark.parametrize("name", TABLE)
def test_the_counts_are_those_of_the_table(name, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    parameters, padded = TABLE[name]
    assert (counts.trainable, counts.non_trainable) == (parameters, 0)
    assert round((counts.macs + UNPADDED) / 1e6) == padded


def test_the_large_network_counts_as_computed(blueprint, count):
    counts = count(blueprint(all_cnn_large))
    assert counts.trainable == 77_455_690
    assert round(counts.macs / 1e9, 1) == 26.5


def convolutions(model):
    """Size, stride, filters and side of the maps of each convolution."""
    return [
        (layer.kernel_size[0], layer.strides[0], layer.filters, layer.output.shape[1])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


TOP = [(3, 1, 192, 6), (1, 1, 192, 6), (1, 1, 10, 6)]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("all_cnn_a_base", [(5, 1, 96, 32), (5, 1, 192, 16)]),
        ("all_cnn_a_strided", [(5, 2, 96, 16), (5, 2, 192, 8)]),
        (
            "all_cnn_b_strided",  # the 1x1 convolution takes the stride
            [(5, 1, 96, 32), (1, 2, 96, 16), (5, 1, 192, 16), (1, 2, 192, 8)],
        ),
        (
            "all_cnn_c_convpool",
            [(3, 1, 96, 32)] * 3 + [(3, 1, 192, 16)] * 3,
        ),
        (
            "all_cnn_c",
            [(3, 1, 96, 32)] * 2
            + [(3, 2, 96, 16)]
            + [(3, 1, 192, 16)] * 2
            + [(3, 2, 192, 8)],
        ),
    ],
)
def test_the_layers_are_those_of_the_paper(name, table, blueprint):
    model = blueprint(zoo.builder(name))
    assert convolutions(model) == table + TOP
    activations = {
        layer.activation.__name__
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert activations == {"relu"}  # that to the classes included
    pools = [layer for layer in model.layers if "pool" in layer.name]
    if name.endswith(("base", "convpool")):
        assert [pool.output.shape[1] for pool in pools] == [16, 8]
        assert {(pool.pool_size, pool.strides) for pool in pools} == {((3, 3), (2, 2))}
    else:
        assert pools == []


def test_dropout_follows_the_input_and_every_reduction(blueprint):
    for form in ("", "_base", "_strided", "_convpool"):
        model = blueprint(zoo.builder(f"all_cnn_c{form}"))
        names = [layer.name for layer in model.layers]
        assert names[:4] == ["image", "scale", "input_dropout", "conv1"]
        for place, side in (("dropout1", 16), ("dropout2", 8)):
            layer = model.get_layer(place)
            assert (layer.rate, layer.output.shape[1]) == (0.5, side)
            assert model.layers[names.index(place) - 1].output.shape[1] == side
            # What comes before that is twice as large: it is the reduction.
            assert model.layers[names.index(place) - 2].output.shape[1] == 2 * side
        assert model.get_layer("input_dropout").rate == 0.2
    model = blueprint(zoo.builder("all_cnn_a"), dropout=0.1, input_dropout=0.3)
    assert model.get_layer("dropout2").rate == 0.1
    assert model.get_layer("input_dropout").rate == 0.3


def test_the_output_is_that_of_numpy(run):
    """All of All-CNN-A in little, from its weights, by loops over the windows."""
    keras.utils.set_random_seed(2)
    model = zoo.build("all_cnn_a", (12, 12, 1), 3, width=0.1)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 1))
    x = images / 127.5 - 1
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
            x = convolve(x, kernel, layer.strides[0], layer.padding) + bias
            x = np.maximum(x, 0)
    logits = x.mean(axis=(1, 2))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(model, images), expected, rtol=1e-4)
    assert np.ptp(expected) > 1e-3


def convolve(x, kernel, stride, padding):
    k, size = len(kernel), x.shape[1]
    number = -(-size // stride) if padding == "same" else (size - k) // stride + 1
    missing = max(0, (number - 1) * stride + k - size) if padding == "same" else 0
    around = (missing // 2, missing - missing // 2)
    x = np.pad(x, ((0, 0), around, around, (0, 0)))
    y = np.empty((len(x), number, number, kernel.shape[-1]))
    for r, c in np.ndindex(number, number):
        window = x[:, r * stride : r * stride + k, c * stride : c * stride + k]
        y[:, r, c] = np.tensordot(window, kernel, 3)
    return y


def test_the_large_network_reduces_its_field_to_one_pixel(blueprint):
    model = blueprint(all_cnn_large)
    assert model.get_layer("field").output.shape == (None, 126, 126, 3)
    sides = [model.get_layer(f"group{n}_conv3").output.shape[1] for n in range(1, 6)]
    assert sides == [62, 30, 14, 6, 2]
    assert model.get_layer("conv16").output.shape == (None, 1, 1, 1920)
    rates = [
        layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)
    ]
    assert rates == [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    leaks = {
        layer.negative_slope
        for layer in model.layers
        if isinstance(layer, keras.layers.LeakyReLU)
    }
    assert leaks == {1 / 3}


def test_the_image_lies_in_the_middle_of_the_field(blueprint, run):
    model = all_cnn_large((32, 32, 3), width=1 / 320)
    images = np.full((1, 32, 32, 3), 255, np.uint8)
    field = run(keras.Model(model.input, model.get_layer("field").output), images)
    assert (field[0, 47:79, 47:79] == 1).all()
    assert field.sum() == 32 * 32 * 3  # mid-grey, 0, everywhere else
    large = blueprint(all_cnn_large, (150, 32, 3))
    assert large.get_layer("field").output.shape == (None, 150, 126, 3)
    assert large.output_shape == (None, 10)


def test_width_scales_the_filters_and_not_the_classes(blueprint):
    model = blueprint(zoo.builder("all_cnn_b"), width=0.25)
    table = convolutions(model)
    assert [filters for _, _, filters, _ in table] == [24] * 3 + [48] * 5 + [10]
    large = blueprint(all_cnn_large, width=0.05)
    assert large.get_layer("group5_conv1").filters == 80
    assert large.get_layer("conv18").filters == 10


@pytest.mark.parametrize("build", [zoo.builder("all_cnn_c"), all_cnn_large])
@pytest.mark.parametrize("width", [0, -1])
def test_a_width_that_is_none_is_refused(build, width):
    with pytest.raises(ValueError, match=f"width must be above 0; received {width}"):
        build(width=width)


def test_a_form_that_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"base, strided.*received 'pooled'"):
        all_cnn(BLOCKS["a"], "pooled")


def test_the_least_size_follows_from_the_number_of_blocks(blueprint):
    with pytest.raises(ValueError, match="at least 9x9 pixels"):
        zoo.build("all_cnn_c", (8, 32, 3))
    three = (*BLOCKS["a"], ((5, 192),))
    model = blueprint(all_cnn, three, input_shape=(17, 17, 3))
    assert model.get_layer("conv7").output.shape == (None, 1, 1, 192)
    with pytest.raises(ValueError, match="at least 17x17 pixels"):
        all_cnn(three, input_shape=(16, 17, 3))
