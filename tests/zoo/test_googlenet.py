"""GoogLeNet against the paper's table and against Caffe's arithmetic."""

import math

import keras
import numpy as np
import pytest

import zoo
from zoo.blocks import inception_block
from zoo.googlenet import COLUMNS, TABLE
from zoo.layers import CeilMaxPooling2D


@pytest.mark.parametrize(
    ("name", "options", "trainable", "non_trainable"),
    [
        ("googlenet_imagenet", {}, 6_998_552, 0),
        ("googlenet_imagenet", {"auxiliary": True}, 13_378_280, 0),
        ("googlenet_imagenet", {"classes": 10}, 5_983_802, 0),
        ("googlenet_imagenet", {"classes": 10, "auxiliary": True}, 10_334_030, 0),
        ("googlenet", {}, 5_879_066, 14_304),
        ("googlenet_3x3", {}, 6_166_250, 15_808),
    ],
)
def test_counts(name, options, trainable, non_trainable, blueprint, count):
    counts = count(blueprint(zoo.builder(name), **options))
    assert (counts.trainable, counts.non_trainable) == (trainable, non_trainable)


# Parameters and MACs of each module at 224x224.
MODULES = {
    "3a": (163_696, 128.0),
    "3b": (388_736, 304.3),
    "4a": (376_176, 73.6),
    "4b": (449_160, 87.9),
    "4c": (510_104, 99.9),
    "4d": (605_376, 118.5),
    "4e": (868_352, 170.0),
    "5a": (1_043_456, 51.1),
    "5b": (1_444_080, 70.7),
}


def test_every_module_has_the_weights_and_the_work_of_the_table(blueprint):
    model = blueprint(zoo.builder("googlenet_imagenet"))
    for module, (parameters, millions) in MODULES.items():
        layers = [
            layer
            for layer in model.layers
            if layer.name.startswith(f"inception_{module}_") and layer.weights
        ]
        names = {layer.name for layer in layers}
        assert names == {f"inception_{module}_{column}" for column in COLUMNS}
        assert sum(layer.count_params() for layer in layers) == parameters
        macs = sum(
            math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
            for layer in layers
        )
        assert round(macs / 1e6, 1) == millions


def test_the_shapes_are_those_of_table_1(blueprint):
    model = blueprint(zoo.builder("googlenet_imagenet"))
    shapes = {
        "conv1": (112, 112, 64),
        "pool1": (56, 56, 64),
        "conv2": (56, 56, 192),
        "pool2": (28, 28, 192),
        "inception_3a_output": (28, 28, 256),
        "inception_3b_output": (28, 28, 480),
        "pool3": (14, 14, 480),
        "inception_4a_output": (14, 14, 512),
        "inception_4b_output": (14, 14, 512),
        "inception_4c_output": (14, 14, 512),
        "inception_4d_output": (14, 14, 528),
        "inception_4e_output": (14, 14, 832),
        "pool4": (7, 7, 832),
        "inception_5a_output": (7, 7, 832),
        "inception_5b_output": (7, 7, 1024),
        "pool5": (1024,),
    }
    for name, shape in shapes.items():
        assert model.get_layer(name).output.shape[1:] == shape, name


def test_the_first_normalisation_follows_its_pooling_the_second_precedes(blueprint):
    model = blueprint(zoo.builder("googlenet_imagenet"))
    names = [layer.name for layer in model.layers if not layer.name.endswith("_pad")]
    order = ["conv1", "pool1", "norm1", "conv2_reduce", "conv2", "norm2", "pool2"]
    at = names.index("conv1")
    assert names[at : at + 7] == order
    norm = model.get_layer("norm2")
    assert (norm.size, norm.alpha, norm.beta, norm.kappa) == (5, 1e-4, 0.75, 1.0)
    assert model.get_layer("dropout").rate == 0.4


# --- Auxiliary classifiers ---


def test_the_auxiliary_classifiers_are_those_of_the_paper(blueprint):
    model = blueprint(zoo.builder("googlenet_imagenet"), auxiliary=True)
    assert [tensor.shape for tensor in model.outputs] == [(None, 1000)] * 3
    assert model.output_names == [
        "probabilities",
        "auxiliary1_probabilities",
        "auxiliary2_probabilities",
    ]
    for head, module in (("auxiliary1", "4a"), ("auxiliary2", "4d")):
        pool = model.get_layer(f"{head}_pool")
        assert pool.input is model.get_layer(f"inception_{module}_output").output
        assert pool.output.shape[1:3] == (4, 4)
        assert model.get_layer(f"{head}_conv").filters == 128
        assert model.get_layer(f"{head}_fc1").units == 1024
        assert model.get_layer(f"{head}_dropout").rate == 0.7
    weights = zoo.card("googlenet_imagenet").recipes["paper"]["loss_weights"]
    assert weights == [1, 0.3, 0.3]


def test_the_losses_of_the_three_outputs_add_up_as_on_the_card(pixels):
    shape, classes = (79, 79, 3), 3
    keras.utils.set_random_seed(0)
    model = zoo.build(
        "googlenet_imagenet", shape, classes, auxiliary=True, width=1 / 16
    )
    weights = zoo.card("googlenet_imagenet").recipes["paper"]["loss_weights"]
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", loss=[loss] * 3, loss_weights=weights)
    images, labels = pixels(shape, 4), np.array([0, 1, 2, 0])
    outputs = model(images)
    total = float(model.compute_loss(y=[labels] * 3, y_pred=outputs))
    parts = [float(loss(labels, output)) for output in outputs]
    assert total == pytest.approx(parts[0] + 0.3 * parts[1] + 0.3 * parts[2], rel=1e-5)


def test_logits_of_all_three(blueprint):
    model = blueprint(
        zoo.builder("googlenet_imagenet"), auxiliary=True, classifier_activation=None
    )
    assert model.output_names == ["logits", "auxiliary1_logits", "auxiliary2_logits"]


@pytest.mark.parametrize(("auxiliary", "least"), [(False, 31), (True, 79)])
def test_the_least_size(auxiliary, least, blueprint):
    builder = zoo.builder("googlenet_imagenet")
    model = blueprint(builder, (least, least, 3), auxiliary=auxiliary)
    assert model.get_layer("inception_5b_output").output.shape[1] == (
        2 if auxiliary else 1
    )
    with pytest.raises(ValueError, match=f"at least {least}x{least} pixels"):
        blueprint(builder, (least, least - 1, 3), auxiliary=auxiliary)


# --- Poolings and paddings that round as Caffe does ---


def caffe_pooling(x):
    """Max pooling 3/2 as Caffe defines it: rounded up, windows cut at the edge."""
    height, width = x.shape[1:3]
    rows, columns = (math.ceil((n - 3) / 2) + 1 for n in (height, width))
    y = np.empty((len(x), rows, columns, x.shape[3]), x.dtype)
    for i in range(rows):
        for j in range(columns):
            window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            y[:, i, j] = window.max(axis=(1, 2))
    return y


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7), (7, 10), (2, 3), (112, 5)])
def test_pooling_rounds_up_at_every_size(size, run):
    image = keras.Input((*size, 4))
    model = keras.Model(image, CeilMaxPooling2D(3, 2)(image))
    x = np.random.default_rng(0).random((2, *size, 4), dtype="float32")
    np.testing.assert_array_equal(run(model, x), caffe_pooling(x))


@pytest.mark.parametrize("side", [31, 64, 224])
def test_the_first_convolution_is_centred_on_pixel_zero(side, blueprint):
    model = blueprint(zoo.builder("googlenet_imagenet"), (side, side, 3))
    # Caffe: padding 3, rounded down.
    assert model.get_layer("conv1").output.shape[1] == (side + 6 - 7) // 2 + 1
    assert model.get_layer("conv1_pad").padding == ((3, 3), (3, 3))


def test_every_layer_starts_as_in_the_caffe_model():
    """Uniform within ±√(3/fan in), biases of 0.2, the classifiers' of 0."""
    options = {"auxiliary": True, "width": 0.25}
    model = zoo.build("googlenet_imagenet", (79, 79, 3), 20, **options)
    layers = [layer for layer in model.layers if layer.weights]
    assert len(layers) == 3 + 9 * 6 + 2 * 3 + 1
    for layer in layers:
        kernel, bias = layer.get_weights()
        limit = math.sqrt(3 / math.prod(kernel.shape[:-1]))
        assert 0.8 * limit < abs(kernel).max() <= limit * 1.000001, layer.name
        answers = layer.name in ("fc", "auxiliary1_fc2", "auxiliary2_fc2")
        np.testing.assert_allclose(bias, 0 if answers else 0.2, err_msg=layer.name)


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 5), (1, 2)])
def test_the_small_form_pools_as_pytorch_does(size, run):
    from zoo.googlenet import _pytorch_pooling

    image = keras.Input((*size, 4))
    model = keras.Model(image, _pytorch_pooling(image, "pool"))
    x = np.random.default_rng(0).random((2, *size, 4), dtype="float32")
    y = run(model, x)
    # Windows of 3, two apart, the first from -1 to 1; none begins beyond the image.
    assert y.shape[1:3] == tuple((n + 2 - 3) // 2 + 1 for n in size)
    for i, j in np.ndindex(y.shape[1:3]):
        window = x[:, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
        np.testing.assert_array_equal(y[:, i, j], window.max(axis=(1, 2)))


# --- The module ---


def test_the_module_is_four_branches_side_by_side(run):
    x = keras.Input((5, 5, 3))
    model = keras.Model(x, inception_block(x, 2, 3, 4, 5, 6, 7, name="module"))
    assert model.output_shape == (None, 5, 5, 2 + 4 + 6 + 7)
    image = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype("float32")
    output = run(model, image)

    def relu(x, name):
        kernel, bias = model.get_layer(f"module_{name}").get_weights()
        return np.maximum(_convolve(x, kernel) + bias, 0)

    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    pooled = np.max(
        [padded[:, i : i + 5, j : j + 5] for i in range(3) for j in range(3)], axis=0
    )
    expected = [
        relu(image, "1x1"),
        relu(relu(image, "3x3_reduce"), "3x3"),
        relu(relu(image, "5x5_reduce"), "5x5"),
        relu(pooled, "pool_proj"),
    ]
    np.testing.assert_allclose(output, np.concatenate(expected, -1), 1e-4, 1e-5)


def _convolve(x, kernel):
    """Convolve with zeros around, the slow way."""
    size = kernel.shape[0]
    edge = size // 2
    height, width = x.shape[1:3]
    x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return sum(
        x[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def test_two_3x3_see_what_the_5x5_sees(run):
    def seen(double_3x3):
        x = keras.Input((9, 9, 1))
        ones = {"kernel_initializer": "ones", "double_3x3": double_3x3}
        model = keras.Model(x, inception_block(x, 1, 1, 1, 1, 1, 1, **ones))
        image = np.zeros((1, 9, 9, 1), "float32")
        image[0, 4, 4] = 1
        return run(model, image)[0, :, :, 2] > 0  # the branch of the 5x5

    assert seen(False).sum() == 25
    np.testing.assert_array_equal(seen(True), seen(False))


def test_the_block_keeps_the_names_of_the_columns(blueprint):
    x = keras.Input((8, 8, 4))
    model = keras.Model(
        x,
        inception_block(
            x, 1, 2, 3, 4, 5, 6, batch_normalization=True, double_3x3=True, name="i"
        ),
    )
    names = {layer.name for layer in model.layers if hasattr(layer, "kernel")}
    assert names == {
        "i_1x1",
        "i_3x3_reduce",
        "i_3x3",
        "i_5x5_reduce",
        "i_5x5_1",
        "i_5x5_2",
        "i_pool_proj",
    }
    assert model.layers[-1].name == "i_output"
    norm = model.get_layer("i_5x5_2_bn")
    assert (norm.epsilon, norm.momentum) == (1e-5, 0.9)
    assert model.get_layer("i_3x3").activation is keras.activations.linear


def test_width_scales_every_column(blueprint):
    model = blueprint(zoo.builder("googlenet"), width=0.25)
    for module, row in TABLE.items():
        for column, filters in zip(COLUMNS, row, strict=True):
            layer = model.get_layer(f"inception_{module}_{column}")
            assert layer.filters == filters / 4
    with pytest.raises(ValueError, match="width must be above 0; received -1"):
        zoo.build("googlenet", width=-1)
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("googlenet_imagenet", width=0)


@pytest.mark.parametrize(
    "network", ["googlenet", "googlenet_3x3", "googlenet_imagenet"]
)
def test_no_two_convolutions_start_alike(network):
    """Not in modules whose branches agree in shape (3b: 256 to 128 twice) either."""
    model = zoo.build(network, (33, 33, 3), 10, width=0.25)
    kernels = [v for v in model.trainable_variables if v.path.endswith("/kernel")]
    assert len({np.asarray(v).tobytes() for v in kernels}) == len(kernels)
