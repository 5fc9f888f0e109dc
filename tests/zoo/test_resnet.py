"""ResNet against the paper's table, and against a forward pass in plain NumPy."""

import sys

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import IdentityShortcut
from zoo.resnet import BLOCKS, resnet

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")


@pytest.mark.parametrize(
    ("name", "parameters", "millions"),
    [  # counted by hand; the paper's Table 6 in millions
        ("resnet20", 269_722, 0.27),
        ("resnet32", 464_154, 0.46),
        ("resnet44", 658_586, 0.66),
        ("resnet56", 853_018, 0.85),
        ("resnet110", 1_727_962, 1.7),
        pytest.param("resnet1202", 19_421_274, 19.4, marks=pytest.mark.slow),
    ],
)
def test_published_counts(name, parameters, millions, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    assert counts.trainable == parameters
    assert float(f"{parameters / 1e6:.{2 if millions < 1 else 1}f}") == millions
    assert counts.depth == int(name.removeprefix("resnet")) == 6 * BLOCKS[name] + 2


def test_projections_cost_2752_parameters(blueprint, count):
    model = blueprint(zoo.builder("resnet20"), shortcut="B")
    assert count(model).trainable == 269_722 + 2_752
    # 16·32 and 32·64 weights, γ and β of each.
    assert 2_752 == 16 * 32 + 32 * 64 + 2 * (32 + 64)
    kinds = {layer.name: type(layer) for layer in model.layers}
    assert kinds["stage3_block1_shortcut"] is keras.layers.Conv2D
    assert IdentityShortcut not in kinds.values()


def test_the_table_of_the_paper(blueprint):
    """Sizes and filters of the stages, the names, and where a stage begins."""
    model = blueprint(zoo.builder("resnet20"))
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    for stage, shape in enumerate(((32, 32, 16), (16, 16, 32), (8, 8, 64)), start=1):
        for block in (1, 2, 3):
            for part in ("conv1", "conv1_bn", "conv1_relu", "conv2", "conv2_bn"):
                assert shapes[f"stage{stage}_block{block}_{part}"] == shape
            assert shapes[f"stage{stage}_block{block}_relu"] == shape
    assert shapes["pool"] == (64,)
    # ReLU is after the addition, and not between it and the second normalisation.
    assert "stage1_block1_conv2_relu" not in shapes
    assert [name for name in shapes if name.endswith(("_shortcut", "_pad"))] == [
        "stage2_block1_pad",
        "stage2_block1_shortcut",
        "stage3_block1_pad",
        "stage3_block1_shortcut",
    ]
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert not layer.use_bias
            assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


@pytest.mark.slow
def test_the_deepest_one_runs_and_comes_back_from_its_file(pixels, run, tmp_path):
    """At the recursion limit that a fresh Python has, which 1202 layers exceed."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        model = zoo.build("resnet1202", (8, 8, 3), width=0.0625)
        assert sys.getrecursionlimit() == 2200
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    finally:
        sys.setrecursionlimit(limit)
    images = pixels((8, 8, 3))
    np.testing.assert_allclose(run(again, images), run(model, images), rtol=1e-5)


def test_the_recursion_limit_is_left_alone_where_it_is_enough(blueprint):
    limit = sys.getrecursionlimit()
    blueprint(zoo.builder("resnet110"), (8, 8, 3))
    assert sys.getrecursionlimit() == limit


# --- The forward pass ---


def convolve(x, kernel, stride=1):
    """Convolve as PyTorch does with padding (size - 1)/2: centred on 0, stride, …."""
    size = kernel.shape[0]
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    y = np.empty((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            a, b = i * stride, j * stride
            window = padded[:, a : a + size, b : b + size]
            y[:, i, j] = np.tensordot(window, kernel, 3)
    return y


def forward(model, images, blocks, shortcut):
    """Compute the logits of a ResNet from its weights, in float64, by the paper."""

    def weights(name):
        return [np.float64(w) for w in model.get_layer(name).get_weights()]

    def conv_bn(x, name, stride=1):
        (kernel,) = weights(name)
        gamma, beta, mean, variance = weights(f"{name}_bn")
        x = convolve(x, kernel, stride)
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    x = images / 127.5 - 1
    x = np.maximum(conv_bn(x, "conv1"), 0)
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            y = np.maximum(conv_bn(x, f"{name}_conv1", stride), 0)
            y = conv_bn(y, f"{name}_conv2")
            if stride == 2 and shortcut == "A":
                x = x[:, ::2, ::2]
                zeros = np.zeros((*x.shape[:-1], y.shape[-1] - x.shape[-1]))
                x = np.concatenate([x, zeros], axis=-1)
            elif stride == 2:
                x = conv_bn(x, f"{name}_shortcut", 2)
            x = np.maximum(x + y, 0)
    kernel, bias = weights("fc")
    return x.mean(axis=(1, 2)) @ kernel + bias


@pytest.mark.parametrize(
    ("shape", "shortcut"),
    [((12, 8, 3), "A"), ((9, 11, 3), "A"), ((10, 9, 3), "B")],  # even and odd sides
)
def test_the_outputs_are_those_of_a_forward_pass_in_numpy(shape, shortcut, pixels, run):
    """Every stride-2 window at its place: no other alignment gives these numbers."""
    keras.utils.set_random_seed(2)
    model = zoo.build(
        "resnet20", shape, shortcut=shortcut, width=0.25, classifier_activation=None
    )
    random = np.random.default_rng(3)
    for layer in model.layers:  # statistics and scales that are not 0 and 1
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [random.uniform(0.5, 1.5, w.shape) - 0.4 for w in layer.weights[:3]]
                + [random.uniform(0.5, 1.5, layer.weights[3].shape)]
            )
    images = pixels(shape)
    expected = forward(model, images, 3, shortcut)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(run(model, images), expected, rtol=1e-3, atol=1e-4)


def test_a_block_of_zeros_is_the_identity(pixels):
    """What the shortcuts carry by themselves: every fourth pixel of `conv1`."""
    model = zoo.build("resnet20", (16, 16, 3), width=0.25)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.name != "conv1":
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    ends = [model.get_layer(n).output for n in ("conv1_relu", "stage3_block3_relu")]
    first, last = (
        keras.ops.convert_to_numpy(maps)
        for maps in keras.Model(model.input, ends)(pixels((16, 16, 3)))
    )
    np.testing.assert_array_equal(last[..., :4], first[:, ::4, ::4])
    assert first.max() > 0
    assert not last[..., 4:].any()


# --- The shortcut ---


@pytest.mark.parametrize(
    ("shape", "filters", "strides"),
    [
        ((2, 6, 4, 3), 8, 2),
        ((1, 7, 5, 3), 3, 2),
        ((2, 7, 9, 2), 5, 3),
        ((1, 4, 4, 2), 3, 1),
    ],
)
def test_identity_shortcut_by_loops(shape, filters, strides):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = IdentityShortcut(filters, strides)
    rows, columns = (-(-side // strides) for side in shape[1:3])
    expected = np.zeros((shape[0], rows, columns, filters), "float32")
    for n, i, j, c in np.ndindex(shape[0], rows, columns, shape[-1]):
        expected[n, i, j, c] = x[n, strides * i, strides * j, c]
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y, expected)
    assert layer.compute_output_shape(shape) == expected.shape
    assert layer.compute_output_shape((None, None, 5, 2))[:2] == (None, None)
    assert layer.weights == []
    assert layer.window() == ((1, 1), (strides, strides))


def test_identity_shortcut_comes_back_from_its_config():
    layer = IdentityShortcut(6, strides=3, name="shortcut")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    assert (again.filters, again.strides) == (6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "filters must be a positive integer; received 0"),
        ((4, 0), "strides must be a positive integer; received 0"),
        ((4, 1.5), "strides must be a positive integer; received 1.5"),
    ],
)
def test_identity_shortcut_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        IdentityShortcut(*arguments)


def test_identity_shortcut_takes_no_channels_away():
    with pytest.raises(ValueError, match="filters=2; received 3 channels"):
        IdentityShortcut(2)(np.zeros((1, 4, 4, 3), "float32"))


# --- Arguments ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shortcut": "C"}, "one of A, B; received 'C'"),
        ({"blocks": 0}, "blocks must be a positive integer; received 0"),
        ({"width": 0}, "width must be above 0; received 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.build("resnet20", **arguments)


def test_blocks_and_width_make_other_networks(blueprint, count):
    model = blueprint(resnet, blocks=4, classes=100, width=2.0)
    assert count(model).depth == 26
    assert model.get_layer("stage3_block4_conv2").filters == 128
    assert model.output_shape == (None, 100)
