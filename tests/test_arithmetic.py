"""The lecture's formulas, against Keras and against counting by hand."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest

from kerascnn.arithmetic import (
    OutputSize,
    convolution_macs,
    convolution_parameters,
    dense_macs,
    dense_parameters,
    depthwise_parameters,
    evaluate,
    keeping_padding,
    mlp_parameters,
    mlp_units,
    output_size,
    pooling_size,
    product,
    receptive_field,
    storage,
)

SIZES = (1, 2, 3, 4, 5, 7, 8, 12)
WINDOWS = (1, 2, 3, 5)
STRIDES = (1, 2, 3, 4)
DILATIONS = (1, 2, 3)
GRID = list(itertools.product(SIZES, WINDOWS, STRIDES, DILATIONS))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (output_size(5, 3), "(5 - 3)/1 + 1 = 3"),
        (output_size(5, 3, stride=2), "(5 - 3)/2 + 1 = 2"),
        (output_size(32, 5, padding=2), "(32 + 2·2 - 5)/1 + 1 = 32"),
        (output_size(32, 5, padding="same"), "(32 + 2·2 - 5)/1 + 1 = 32"),
        (output_size(32, 5), "(32 - 5)/1 + 1 = 28"),
        (
            output_size(32, 5, stride=2),
            "(32 - 5)/2 + 1 = 14.5, rounded down to 14: 1 pixel left over",
        ),
        (
            output_size(32, 3, stride=2, padding=1),
            "(32 + 2·1 - 3)/2 + 1 = 16.5, rounded down to 16: 1 zero left over",
        ),
        (
            output_size(12, 5, stride=4, padding=1),
            "(12 + 2·1 - 5)/4 + 1 = 3.25, rounded down to 3: 1 zero left over",
        ),
        (
            output_size(12, 4, stride=5, padding=1),
            "(12 + 2·1 - 4)/5 + 1 = 3",
        ),
        (
            output_size(13, 4, stride=5, padding=(0, 1)),
            "(13 + 0 + 1 - 4)/5 + 1 = 3",
        ),
        (
            output_size(12, 4, stride=5, padding=(0, 1)),
            "(12 + 0 + 1 - 4)/5 + 1 = 2.8, rounded down to 2: 3 pixels and 1 zero left "
            "over",
        ),
        (
            output_size(10, 3, stride=3),
            "(10 - 3)/3 + 1 = 3.333…, rounded down to 3: 1 pixel left over",
        ),
        (
            output_size(32, 3, stride=2, padding="same"),
            "(32 + 0 + 1 - 3)/2 + 1 = 16 ('same' is 32/2 rounded up; zeros: 0 before, "
            "1 after, where the lecture's P would have to be 0.5)",
        ),
        (
            output_size(32, 3, dilation=2),
            "(32 - (2·(3 - 1) + 1))/1 + 1 = 28",
        ),
        (pooling_size(32, 2), "32/2 = 16"),
        (
            pooling_size(33, 2),
            "33/2 = 16.5, rounded down to 16: 1 pixel left over",
        ),
        (
            pooling_size(32, 3, stride=2),
            "(32 - 3)/2 + 1 = 15.5, rounded down to 15: 1 pixel left over",
        ),
        (keeping_padding(5), "(5 - 1)/2 = 2"),
        (keeping_padding(3, dilation=2), "2·(3 - 1)/2 = 2"),
        (convolution_parameters(5, 3, 32), "5·5·3·32 = 2,400"),
        (convolution_parameters(5, 3, 32, bias=True), "5·5·3·32 + 32 = 2,432"),
        (
            convolution_parameters((3, 1), 64, 128, groups=4, bias=True),
            "3·1·(64/4)·128 + 128 = 6,272",
        ),
        (depthwise_parameters(3, 32), "3·3·32·1 = 288"),
        (depthwise_parameters(3, 32, 2, bias=True), "3·3·32·2 + 64 = 640"),
        (dense_parameters(512, 10), "512·10 = 5,120"),
        (dense_parameters(512, 10, bias=True), "512·10 + 10 = 5,130"),
        (
            mlp_parameters(3072, 8192, 1024, 512, 10),
            "3072·8192 + 8192·1024 + 1024·512 + 512·10 = 34,083,840",
        ),
        (mlp_units(3072, 100, 50, 10), "3072 + 100 + 50 + 10 = 3,232"),
        (convolution_macs(32, 5, 3, 32), "32·32·5·5·3·32 = 2,457,600"),
        (dense_macs(512, 10), "512·10 = 5,120"),
        (product(16, 16, 32), "16·16·32 = 8,192"),
        (product(512), "512"),
        (product(8192), "8,192"),
        (
            receptive_field([(5, 1), (2, 2), (5, 1)]),
            "1 + (5 - 1)·1 + (2 - 1)·1 + (5 - 1)·2 = 14",
        ),
        (receptive_field([(3, 1, 2)]), "1 + 2·(3 - 1)·1 = 5"),
        (storage(33120), "33120·4 = 132,480"),
        (storage(10, "float16"), "10·2 = 20"),
    ],
    ids=str,
)
def test_explanations(number, text):
    assert str(number) == text
    exact = number.exact if isinstance(number, OutputSize) else number
    assert evaluate(number.expression) == exact
    assert evaluate(f"{number:,}") == number


def test_the_lectures_sums():
    terms = [
        convolution_parameters(5, 3, 32),
        convolution_parameters(5, 32, 16),
        convolution_parameters(5, 16, 32),
        dense_parameters(512, 10),
    ]
    assert [int(t) for t in terms] == [2400, 12800, 12800, 5120]
    assert sum(terms) == 33_120
    assert mlp_parameters(3072, 8192, 1024, 512, 10, bias=True) == 34_093_578
    assert 35_107_840 - mlp_parameters(3072, 8192, 1024, 512, 10) == 1_024_000


def test_worked_is_an_int():
    size = output_size(32, 3, stride=2, padding="same")
    assert size == 16 and size + 1 == 17 and hash(size) == hash(16)
    assert list(range(size))[-1] == 15
    assert type(size * 2) is int
    assert f"{size}" == str(size) and f"{size:d}" == "16"
    assert f"{convolution_parameters(5, 3, 32):,}" == "2,400"
    assert json.loads(json.dumps({"size": size})) == {"size": 16}
    assert repr(size) == "OutputSize(16, '(32 + 0 + 1 - 3)/2 + 1')"
    for twin in (pickle.loads(pickle.dumps(size)), copy.deepcopy(size)):
        assert str(twin) == str(size) and twin.windows == size.windows


def placed(size, reach, stride, before, after):
    """Start of each window, found by moving it over the padded input."""
    padded = np.arange(-before, size + after)
    starts = range(0, len(padded), stride)
    return [int(padded[s]) for s in starts if s + reach <= len(padded)]


@pytest.mark.parametrize("padding", [0, 1, 2, (0, 1), (2, 0), "valid", "same"])
def test_against_placing_windows_by_hand(padding):
    checked = 0
    for size, window, stride, dilation in GRID:
        reach = len(range(0, window * dilation, dilation)) * dilation - dilation + 1
        try:
            result = output_size(size, window, stride, padding, dilation)
        except ValueError:
            zeros = {"valid": 0}.get(padding, padding)
            assert size + np.sum(np.broadcast_to(zeros, 2)) < reach
            continue
        starts = placed(size, reach, stride, result.before, result.after)
        assert result == len(starts)
        assert [w.start for w in result.windows] == starts
        read = {s + dilation * tap for s in starts for tap in range(window)}
        assert {p for w in result.windows for p in w} == read
        assert result.unread == tuple(p for p in range(size) if p not in read)
        end = starts[-1] + reach
        assert result.left_over == size + result.after - end
        assert result.fits == (result.left_over == 0)
        assert evaluate(result.expression) == result.exact
        assert ("left over" in str(result)) == (not result.fits)
        assert int(result.exact) == result
        checked += 1
    assert checked > 200


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_against_keras_convolution(padding):
    import keras

    for size, window, stride, dilation in GRID:
        if stride > 1 and dilation > 1:
            continue  # Keras has no such convolution
        layer = keras.layers.Conv1D(
            1, window, stride, padding=padding, dilation_rate=dilation
        )
        try:
            expected = layer.compute_output_shape((None, size, 1))[1]
        except ValueError:
            with pytest.raises(ValueError, match="does not fit an input"):
                output_size(size, window, stride, padding, dilation)
            continue
        assert output_size(size, window, stride, padding, dilation) == expected


@pytest.mark.parametrize("zeros", [1, (0, 2), (3, 1)])
def test_against_keras_convolution_after_padding(zeros):
    import keras

    for size, window, stride in itertools.product(SIZES, WINDOWS, STRIDES):
        before, after = np.broadcast_to(zeros, 2).tolist()
        shape = keras.layers.ZeroPadding1D((before, after)).compute_output_shape(
            (None, size, 1)
        )
        if shape[1] < window:
            continue
        layer = keras.layers.Conv1D(1, window, stride)
        expected = layer.compute_output_shape(shape)[1]
        assert output_size(size, window, stride, zeros) == expected


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", ["MaxPooling1D", "AveragePooling1D"])
def test_against_keras_pooling(kind, padding):
    import keras

    for size, pool, stride in itertools.product(SIZES, WINDOWS, (None, *STRIDES)):
        layer = getattr(keras.layers, kind)(pool, stride, padding=padding)
        if padding == "valid" and size < pool:
            with pytest.raises(ValueError, match="does not fit an input"):
                pooling_size(size, pool, stride, padding)
            continue
        expected = layer.compute_output_shape((None, size, 1))[1]
        assert pooling_size(size, pool, stride, padding) == expected


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation"),
    [
        (8, 3, 1, 1),
        (8, 3, 2, 1),
        (7, 3, 2, 1),
        (8, 4, 3, 1),
        (9, 2, 2, 1),
        (9, 3, 1, 2),
    ],
)
def test_windows_lie_where_keras_lays_them(size, window, stride, dilation, padding):
    import keras

    pixels = np.arange(1.0, size + 1).reshape(1, size, 1)
    result = output_size(size, window, stride, padding, dilation)
    for tap in range(window):
        # A filter that reads one tap shows which pixel each window has there.
        layer = keras.layers.Conv1D(
            1, window, stride, padding=padding, dilation_rate=dilation, use_bias=False
        )
        layer.build(pixels.shape)
        kernel = np.zeros((window, 1, 1), "float32")
        kernel[tap] = 1
        layer.set_weights([kernel])
        seen = keras.ops.convert_to_numpy(layer(pixels))[0, :, 0]
        positions = [w[tap] for w in result.windows]
        assert seen.tolist() == [p + 1 if 0 <= p < size else 0 for p in positions]


def test_same_differs_from_the_lectures_padding():
    same = output_size(32, 3, stride=2, padding="same")
    lecture = output_size(32, 3, stride=2, padding=1)
    assert same == lecture == 16
    assert (same.before, same.after) == (0, 1) and not same.symmetric
    assert (lecture.before, lecture.after) == (1, 1) and lecture.symmetric
    # Keras' windows are centred on the odd pixels, the lecture's on the even ones.
    assert [w[1] for w in same.windows][:3] == [1, 3, 5]
    assert [w[1] for w in lecture.windows][:3] == [0, 2, 4]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_parameters_against_keras(groups, bias):
    import keras

    layer = keras.layers.Conv2D(8, (3, 5), groups=groups, use_bias=bias)
    layer.build((None, 9, 9, 4))
    count = convolution_parameters((3, 5), 4, 8, groups=groups, bias=bias)
    assert count == layer.count_params()
    assert evaluate(count.expression) == count


@pytest.mark.parametrize("bias", [False, True])
def test_other_parameters_against_keras(bias):
    import keras

    layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias)
    layer.build((None, 9, 9, 4))
    assert depthwise_parameters(3, 4, 2, bias=bias) == layer.count_params()
    layer = keras.layers.Dense(7, use_bias=bias)
    layer.build((None, 5))
    assert dense_parameters(5, 7, bias=bias) == layer.count_params()
    model = keras.Sequential([keras.Input((6,))])
    for units in (5, 4, 3):
        model.add(keras.layers.Dense(units, use_bias=bias))
    assert mlp_parameters(6, 5, 4, 3, bias=bias) == model.count_params()


def test_macs_by_counting_every_product():
    height, width, kernel, channels, filters, groups = 3, 4, (2, 3), 4, 6, 2
    count = 0
    for _ in itertools.product(range(height), range(width), range(filters)):
        for _ in itertools.product(*map(range, kernel), range(channels // groups)):
            count += 1
    macs = convolution_macs((height, width), kernel, channels, filters, groups=groups)
    assert macs == count
    assert evaluate(macs.expression) == count


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1)],
        [(3, 2), (3, 1)],
        [(5, 1), (2, 2)] * 3,
        [(3, 1, 2), (2, 3), (3, 2)],
        [(1, 2), (4, 1, 3)],
    ],
)
def test_receptive_field_by_tracing_one_output_back(layers):
    pixels = {0}  # of the last layer's output; unpadded, so it starts at pixel 0
    for window, stride, *rest in reversed(layers):
        dilation = rest[0] if rest else 1
        pixels = {p * stride + t * dilation for p in pixels for t in range(window)}
    field = receptive_field(layers)
    assert field == max(pixels) + 1
    assert field.sizes[-1] == field and len(field.sizes) == len(layers)
    assert evaluate(field.expression) == field
    assert field.jump == np.prod([layer[1] for layer in layers])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: output_size(0, 3), "size must be a whole number of 1 or more.* 0"),
        (lambda: output_size(8, 3, stride=0), "stride must .* received 0"),
        (lambda: output_size(8.5, 3), r"size must .* received 8\.5"),
        (lambda: output_size(8, 3, padding=-1), "padding must .* received -1"),
        (lambda: output_size(8, 3, padding="full"), "padding is .* received 'full'"),
        (lambda: output_size(8, 3, padding=(1, 2, 3)), r"padding is .* \(1, 2, 3\)"),
        (lambda: output_size(3, 5), "reaches over 5 pixels .*size=3, window=5"),
        (lambda: output_size(4, 3, dilation=2), "reaches over 5 pixels"),
        (lambda: pooling_size(1, 2), "does not fit an input of 1 pixels"),
        (lambda: keeping_padding(4), r"window=4.*padding=\(1, 2\)"),
        (lambda: convolution_parameters(3, 4, 6, groups=3), "groups must divide"),
        (lambda: dense_parameters(0, 10), "size must .* received 0"),
        (lambda: mlp_parameters(3072), "an input and an output"),
        (lambda: receptive_field([(3,)]), r"received \(3,\)"),
        (lambda: storage(3, "float8"), "dtype must be one of .* received 'float8'"),
        (lambda: evaluate("__import__('os')"), "an expression is whole numbers"),
        (lambda: evaluate("2.5·2"), "an expression is whole numbers"),
        (lambda: evaluate("3·"), "an expression is whole numbers"),
    ],
)
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2·(3·3·16·32 + 32)", 9280), ("7 − 2", 5), ("3²·4", 36), ("1,024×2", 2048)],
)
def test_evaluate(expression, value):
    assert evaluate(expression) == value
