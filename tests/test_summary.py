"""The summary of a model, against Keras' own counts and against counting by hand."""

import csv
import io
import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.costs import depth
from kerascnn.graph import trace, without_weights
from kerascnn.receptive_field import receptive_fields
from kerascnn.summary import summarize
from kerascnn.tables import Column, Table, format_bytes
from zoo.dense_mlp import dense_mlp
from zoo.lecture_cnn import lecture_cnn


def nested_model():
    """A Sequential model in a functional one, called twice."""
    block = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, padding="same", name="inner_conv"),
            layers.BatchNormalization(name="inner_norm"),
            layers.ReLU(name="inner_relu"),
        ],
        name="block",
    )
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, use_bias=False, name="stem")(image)
    x = block(block(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, name="fc")(x), name="nested")


def branched_model():
    """Branches of different reach, a shared layer, a bare operation."""
    image = keras.Input((16, 16, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    near = layers.Conv2D(4, 1, name="near")(shared(image))
    far = layers.Conv2D(4, 5, padding="same", name="far")(shared(shared(image)))
    x = layers.Concatenate(name="join")([near, far])
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.ops.relu(x + y)
    x = layers.SeparableConv2D(6, 3, dilation_rate=2, name="separable")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(image, layers.Dense(2, name="fc")(x), name="branched")


MODELS = {
    "lecture_cnn": lecture_cnn,
    "dense_mlp": lambda: dense_mlp(hidden=(64, 32, 16), use_bias=True),
    "nested": nested_model,
    "branched": branched_model,
}


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    with without_weights():  # these are counted only, and built in no time
        return MODELS[request.param]()


def shown_by_keras(model) -> dict[str, int]:
    """The totals that model.summary() prints."""
    lines = []
    model.summary(print_fn=lines.append)
    found = re.findall(r"(\w[\w-]*) params: ([\d,]+)", "\n".join(lines))
    return {name.lower(): int(count.replace(",", "")) for name, count in found}


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_golden(name, expand, golden):
    with without_weights():
        summary = summarize(MODELS[name](), expand_nested=expand)
    if expand and name != "nested":
        assert all(row.level == 0 for row in summary.rows)
        return
    # A bare operation is numbered by Keras: add, add_1, …
    text = re.sub(r"\b(add|relu)_\d+\b", r"\1", summary.to_text(width=130, ascii=False))
    text = re.sub(r" +", " ", re.sub(r"-+", "-", text)) if name == "branched" else text
    golden(f"{name}{'_expanded' if expand else ''}.txt", text)


def test_the_lectures_numbers():
    summary = summarize(lecture_cnn())
    rows = {row.name: row for row in summary.rows}
    expressions = [rows[n].expression for n in ("conv1", "conv2", "conv3", "fc")]
    assert expressions == ["5·5·3·32", "5·5·32·16", "5·5·16·32", "512·10"]
    assert summary.parameters == 33_120
    assert summary.macs == 6_558_720
    assert summary.depth == 4
    assert summary.weight_bytes == 132_480
    assert rows["conv3"].receptive_field == (32, 32)
    assert rows["fc"].receptive_field == "all"
    assert rows["pool1"].memory == 16 * 16 * 32 * 4
    assert rows["fc"].share == pytest.approx(5120 / 33120)
    text = str(summary)
    for part in ("5·5·3·32 = 2,400", "33,120", "6,558,720", "Depth: 4"):
        assert part in text


def test_totals_are_those_of_keras(model):
    summary = summarize(model)
    printed = shown_by_keras(model)
    assert summary.parameters == model.count_params() == printed["total"]
    assert summary.trainable == printed["trainable"]
    assert summary.non_trainable == printed["non-trainable"]
    for rows in (summary.rows, summarize(model, expand_nested=True).rows):
        top = [row for row in rows if row.level == 0]
        assert sum(row.parameters for row in top) == summary.parameters
        assert sum(row.trainable for row in top) == summary.trainable
        assert sum(row.share for row in top) == pytest.approx(1)
        assert sum(row.macs for row in top) == summary.macs
        assert sum(row.memory for row in top) == summary.memory


def test_rows_are_the_layers_that_keras_lists(model):
    lines = []
    model.summary(print_fn=lines.append, line_length=200)
    names = [row.name for row in summarize(model).rows]
    listed = re.findall(r"^│ (\S+) \(", "\n".join(lines), re.MULTILINE)
    # Keras cuts long names at the width of its column.
    assert len(names) == len(listed)
    assert all(n.startswith(k[:10]) for n, k in zip(names, listed, strict=True))


def test_training_changes_no_count():
    model = branched_model()
    before = summarize(model)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(np.zeros((2, 16, 16, 3)), np.zeros(2), verbose=0)
    after = summarize(model)
    assert after.totals == {**before.totals, "optimizer": after.optimizer}
    printed = shown_by_keras(model)
    # Keras' total has the optimizer's numbers in it.
    assert printed["total"] == after.parameters + after.optimizer
    assert printed["optimizer"] == after.optimizer > 2 * after.parameters
    assert f"{after.optimizer:,} further numbers" in str(after)


def test_frozen_layers_are_not_trainable():
    model = lecture_cnn()
    model.get_layer("conv1").trainable = False
    summary = summarize(model)
    assert (summary.trainable, summary.non_trainable) == (30_720, 2_400)
    assert "Not trained" in str(summary)
    assert "Not trained" not in str(summarize(lecture_cnn()))


def test_a_shared_layer_counts_once_and_costs_each_call():
    summary = summarize(branched_model())
    (row,) = [row for row in summary.rows if row.name == "shared"]
    assert row.calls == 3
    assert row.parameters == 3 * 3 * 3 * 3 + 3
    assert row.macs == 3 * (16 * 16 * 3 * 3 * 3 * 3)
    assert row.memory == 3 * (16 * 16 * 3 * 4)
    assert "shared (shared ×3)" in str(summary)


def test_weights_of_an_earlier_row_are_not_counted_again():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
    x = keras.Input((4,))
    model = keras.Model(x, inner.layers[0](inner(x)))
    summary = summarize(model)
    assert summary.parameters == model.count_params() == 20
    assert [row.parameters for row in summary.rows] == [0, 20, 0]
    assert "0 (counted above)" in str(summary)


def test_nested_models_are_expanded_below_their_row():
    rows = {r.name: r for r in summarize(nested_model(), expand_nested=True).rows}
    assert [rows[n].level for n in ("block", "inner_conv", "fc")] == [0, 1, 0]
    inner = [row for row in rows.values() if row.level == 1]
    assert sum(row.parameters for row in inner) == rows["block"].parameters == 164
    assert sum(row.macs for row in inner) == rows["block"].macs
    assert sum(row.memory for row in inner) == rows["block"].memory
    assert rows["block"].calls == rows["inner_conv"].calls == 2
    # 8·8 pixels, 3·3·4·4 weights, two calls.
    assert rows["inner_conv"].macs == 2 * 64 * 144
    assert rows["block"].receptive_field == (5, 5)


LAYERS = {
    "Conv1D": (lambda: layers.Conv1D(4, 3, strides=2), (9, 2), 4 * 4 * 3 * 2),
    "Conv2D": (lambda: layers.Conv2D(4, (3, 2), padding="same"), (5, 6, 2), 30 * 48),
    "grouped": (lambda: layers.Conv2D(4, 3, groups=2), (5, 5, 2), 9 * 9 * 1 * 4),
    "Conv3D": (lambda: layers.Conv3D(2, 2), (3, 3, 3, 1), 8 * 8 * 2),
    "dilated": (lambda: layers.Conv2D(4, 3, dilation_rate=2), (7, 7, 2), 9 * 72),
    "Conv2DTranspose": (
        lambda: layers.Conv2DTranspose(4, 3, strides=2),
        (5, 5, 2),
        25 * 9 * 2 * 4,
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        (5, 5, 2),
        9 * 9 * 2 * 2,
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(6, 3),
        (5, 5, 2),
        9 * (9 * 2 + 2 * 6),
    ),
    "Dense": (lambda: layers.Dense(7), (5,), 35),
    "Dense on a map": (lambda: layers.Dense(7), (4, 4, 5), 16 * 35),
    "EinsumDense": (
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3)),
        (4, 5),
        4 * 5 * 2 * 3,
    ),
    "EinsumDense with ellipsis": (
        lambda: layers.EinsumDense("...x,xy->...y", output_shape=7),
        (4, 5),
        4 * 5 * 7,
    ),
    "BatchNormalization": (layers.BatchNormalization, (5, 5, 2), 0),
    "LayerNormalization": (
        lambda: layers.LayerNormalization(axis=(1, 2, 3)),
        (5, 5, 2),
        0,
    ),
    "PReLU": (layers.PReLU, (5, 5, 2), 0),
    "MaxPooling2D": (lambda: layers.MaxPooling2D(2), (4, 4, 2), 0),
    "Dropout": (lambda: layers.Dropout(0.5), (4,), 0),
    # What cannot be counted is unknown, not 0.
    "LSTM": (lambda: layers.LSTM(3), (4, 2), None),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Conv2D(2, 3)),
        (2, 5, 5, 1),
        None,
    ),
    "Lambda": (lambda: layers.Lambda(lambda x: x), (4,), None),
}


@pytest.mark.parametrize(("make", "shape", "macs"), LAYERS.values(), ids=LAYERS)
def test_macs_of_a_layer(make, shape, macs):
    model = keras.Sequential([keras.Input(shape), make()])
    summary = summarize(model)
    (row,) = summary.rows
    assert row.macs == summary.macs == macs
    assert row.parameters == model.count_params()
    assert summary.depth == int(macs != 0 and row.parameters > 0)
    assert summary.uncounted == (() if macs is not None else (row.name,))
    if macs is None:
        assert "unknown" in str(summary)


def test_attention_is_unknown_and_its_parameters_exact():
    x = keras.Input((4, 8))
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    product = layers.Dot(1, name="product")([y, y])
    model = keras.Model(x, keras.ops.matmul(y, product))
    summary = summarize(model)
    assert summary.uncounted[:2] == ("attention", "product")
    assert summary.uncounted[2].startswith("matmul")
    assert summary.macs is None and summary.parameters == model.count_params()
    assert "MACs for one image: 0 and those of attention, product, mat" in str(summary)


@keras.saving.register_keras_serializable(package="kerascnn_tests")
class Pieces(layers.Layer):
    """Two kernels over 3x3 pixels, and what the summary wants to know of them."""

    kerascnn_costs = True
    expression = "2·(3·3·4·5 + 5)"

    def build(self, shape):
        for piece in "ab":
            self.add_weight(name=f"{piece}_kernel", shape=(3, 3, shape[-1], 5))
            self.add_weight(name=f"{piece}_bias", shape=(5,))

    def call(self, x):
        kernels = [keras.ops.convert_to_tensor(w) for w in self.weights]
        maps = [
            keras.ops.conv(x, kernel, strides=2, padding="same") + bias
            for kernel, bias in zip(kernels[::2], kernels[1::2], strict=True)
        ]
        return keras.ops.maximum(*maps)

    def macs(self, input_shape, output_shape):
        _, height, width, filters = output_shape
        return 2 * height * width * 9 * input_shape[-1] * filters

    def parameter_expression(self):
        return self.expression

    def window(self):
        return (3, 3), (2, 2)


def test_custom_layers_speak_for_themselves():
    model = keras.Sequential([keras.Input((8, 8, 4)), Pieces(name="pieces")])
    summary = summarize(model)
    (row,) = summary.rows
    assert row.expression == "2·(3·3·4·5 + 5)"
    assert row.parameters == model.count_params() == 370
    assert row.macs == 2 * 16 * 9 * 4 * 5
    assert row.receptive_field == (3, 3)
    assert summary.depth == 1
    assert "2·(3·3·4·5 + 5) = 370" in str(summary)


def test_a_custom_layer_cannot_misstate_its_parameters(monkeypatch):
    monkeypatch.setattr(Pieces, "expression", "2·3·3·4·5")
    model = keras.Sequential([keras.Input((8, 8, 4)), Pieces(name="pieces")])
    with pytest.raises(ValueError, match=r"'pieces' holds 370 .* which is 360"):
        summarize(model)


class Gram(layers.Layer):
    """Multiplies each image's places with each other, and owns no kernel."""

    macs, window = "many", "hann"  # its own words, which mean something else

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))

    def compute_output_shape(self, shape):
        return *shape[:2], shape[1]

    def parameter_expression(self):
        raise RuntimeError("this is called by nobody")


class BiasedGram(Gram):
    def build(self, shape):
        self.bias = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return super().call(x + self.bias)


class OtherPieces(Pieces):
    """A subclass that computes otherwise: what it inherits says nothing of it."""

    def call(self, x):
        return keras.ops.tanh(super().call(x))


class MyDense(layers.Dense):
    """A subclass that computes like its parent."""


UNKNOWN = {
    "own": (Gram(), (8, 4)),
    "with a bias": (BiasedGram(), (8, 4)),
    "wrapped": (layers.TimeDistributed(Gram()), (3, 8, 4)),
    "subclass": (OtherPieces(), (8, 8, 4)),
    "spectrogram": (layers.STFTSpectrogram(), (500, 1)),
    "mel": (layers.MelSpectrogram(), (5000,)),
    "additive": (lambda x: layers.AdditiveAttention()([x, x]), (8, 4)),
    "concat": (lambda x: layers.Attention(score_mode="concat")([x, x]), (8, 4)),
    "blur": (lambda x: keras.ops.image.gaussian_blur(x), (8, 8, 1)),
}


@pytest.mark.parametrize(("layer", "shape"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_no_0(layer, shape):
    image = keras.Input(shape)
    model = keras.Model(image, layers.Dense(2)(layer(image)))
    summary = summarize(model)
    known = summary.rows[-1].macs
    assert summary.macs is None and known > 0 and len(summary.uncounted) == 1
    assert f"at least {known:,}" in str(summary)
    assert "?" in str(summary).splitlines()[4].split()
    assert summary.parameters == model.count_params()


@pytest.mark.parametrize(
    ("layer", "inputs", "macs"),
    [
        # Scores of 10 queries with 12 keys, 16 products each; as many for the sums.
        (layers.Attention(), ((10, 16), (12, 16)), 2 * 10 * 12 * 16),
        (layers.Attention(use_scale=True), ((10, 16), (12, 16)), 2 * 10 * 12 * 16),
        (layers.Attention(), ((10, 4), (12, 7), (12, 4)), 10 * 12 * (4 + 7)),
        (layers.Attention(), ((2, 10, 4), (2, 12, 4)), 2 * 10 * 12 * 8),
        (MyDense(3), ((5,),), 15),
        (layers.UpSampling2D(2, interpolation="bilinear"), ((4, 4, 3),), 0),
        (layers.RandomFlip(), ((4, 4, 3),), 0),
    ],
)
def test_what_is_known_is_counted(layer, inputs, macs):
    images = [keras.Input(shape) for shape in inputs]
    model = keras.Model(images, layer(images if len(images) > 1 else images[0]))
    assert summarize(model).macs == macs


def test_attention_has_no_kernel_and_adds_no_depth():
    image = keras.Input((8, 8, 3))
    x = layers.Reshape((64, 8))(layers.Conv2D(8, 3, padding="same")(image))
    x = layers.Attention(use_scale=True)([x, x])
    x = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    summary = summarize(keras.Model(image, x))
    assert summary.macs == 64 * 27 * 8 + 2 * 64 * 64 * 8 + 8 * 3 == 79_384
    assert summary.depth == 2


def test_a_subclass_that_computes_otherwise_is_unknown():
    class Doubled(layers.Dense):
        def call(self, inputs, training=None):
            return super().call(inputs) + super().call(inputs[::-1])

    class Renamed(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((3,)), Doubled(4), Renamed(5)])
    assert [row.macs for row in summarize(model).rows] == [None, 20]


def test_a_subclassed_model_shows_parameters_only():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.conv = layers.Conv2D(4, 3)
            self.head = layers.Dense(2)
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, x):
            x = keras.ops.mean(self.conv(x), axis=(1, 2))
            return self.head(x) * self.scale

    model = Own()
    with pytest.raises(ValueError, match="'own' is not built"):
        summarize(model)
    model(np.zeros((1, 8, 8, 3), "float32"))
    summary = summarize(model)
    assert summary.parameters == model.count_params() == 112 + 10 + 1
    assert [row.parameters for row in summary.rows] == [112, 10, 1]
    assert summary.rows[0].output_shape == (6, 6, 4)
    assert (summary.macs, summary.memory, summary.depth) == (None, None, None)
    assert "3·3·3·4 + 4 = 112" in str(summary)


def test_a_sequential_model_that_is_not_built():
    model = keras.Sequential([layers.Dense(3)], name="later")
    with pytest.raises(ValueError, match=r"'later' is not built.*model\.build"):
        summarize(model)
    model.build((None, 4))
    assert summarize(model).macs == 12


def test_open_sizes_are_unknown_until_given():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.Flatten()]
    )
    assert summarize(model).macs is None
    assert "?×?×4" in str(summarize(model))
    summary = summarize(model, input_shape=(8, 8, 3))
    assert summary.macs == 36 * 9 * 3 * 4
    assert summary.input_shape == (8, 8, 3)
    assert summary.rows[0].memory == 36 * 4 * 4
    with pytest.raises(ValueError, match=r"input_shape must agree.*\(8, 8, 1\)"):
        summarize(model, input_shape=(8, 8, 1))


def test_several_inputs_and_outputs():
    a, b = keras.Input((4,)), keras.Input((6,))
    x = layers.Concatenate()([layers.Dense(3)(a), layers.Dense(3)(b)])
    model = keras.Model([a, b], [layers.Dense(2)(x), x])
    summary = summarize(model)
    assert summary.input_shape == ((4,), (6,))
    assert summary.macs == 12 + 18 + 12
    assert summary.depth == 2
    assert summary.memory == 4 * (4 + 6 + 3 + 3 + 6 + 2)


def test_memory_follows_the_type():
    model = lecture_cnn()
    full = summarize(model).memory
    shapes = [x.output.shape[1:] for x in model.layers if x.name != "flatten"]
    assert full == 4 * sum(int(np.prod(shape)) for shape in shapes)
    assert summarize(model, dtype="bfloat16").memory * 2 == full
    with pytest.raises(ValueError, match="received 'float8'"):
        summarize(model, dtype="float8")
    with pytest.raises(TypeError, match="received str"):
        summarize("lecture_cnn")


def seen_by_experiment(model) -> tuple[int, int]:
    """Height and width of the pixels that change the middle of the output."""
    for weight in model.weights:
        weight.assign(np.ones(weight.shape) if len(weight.shape) > 1 else 0 * weight)
    height, width, channels = model.input_shape[1:]
    dots = np.zeros((height * width, height, width, channels), "float32")
    dots.reshape(height * width, -1, channels)[
        np.arange(height * width), np.arange(height * width)
    ] = 1
    maps = keras.ops.convert_to_numpy(model(dots))
    middle = maps[:, maps.shape[1] // 2, maps.shape[2] // 2].sum(-1) != 0
    rows, columns = np.nonzero(middle.reshape(height, width))
    return np.ptp(rows) + 1, np.ptp(columns) + 1


def stack(*steps, size=(25, 25)):
    image = x = keras.Input((*size, 1))
    for step in steps:
        x = step(x)
    return keras.Model(image, x)


def conv(*args, **options):
    return layers.Conv2D(1, *args, padding="same", **options)


def branches(x):
    return layers.Add()([conv(3)(x), conv((1, 7))(conv(3)(x)), x])


FIELDS = {
    "one": (lambda: stack(conv(3)), (3, 3)),
    "three": (lambda: stack(conv(3), conv(3), conv(3)), (7, 7)),
    "strided": (lambda: stack(conv(3, 2), conv(3), conv(3, 2)), (11, 11)),
    "dilated": (lambda: stack(conv(3, dilation_rate=3), conv((1, 3))), (7, 9)),
    "pooled": (
        lambda: stack(conv(5), layers.AveragePooling2D(2), conv(3)),
        (10, 10),
    ),
    "branched": (lambda: stack(branches, layers.Rescaling(2.0), branches), (5, 17)),
    "sliced": (lambda: stack(conv(3), lambda x: x[:, ::3, ::2], conv(3)), (9, 7)),
    "separable": (
        lambda: stack(layers.SeparableConv2D(2, 3), layers.DepthwiseConv2D(3)),
        (5, 5),
    ),
    "transposed": (
        lambda: stack(conv(3), layers.Conv2DTranspose(1, 4, 2), conv(1)),
        (4, 4),
    ),
}


@pytest.mark.parametrize(("make", "field"), FIELDS.values(), ids=FIELDS)
def test_receptive_field_by_experiment(make, field):
    model = make()
    assert summarize(model).rows[-1].receptive_field == field
    assert seen_by_experiment(model) == field


@pytest.mark.parametrize(
    ("tail", "field"),
    [
        (lambda x: layers.GlobalAveragePooling2D()(x), "all"),
        (lambda x: layers.Dense(2)(layers.Flatten()(x)), "all"),
        (lambda x: layers.Dense(2)(x), (3, 3)),
        (lambda x: layers.Flatten()(x), (3, 3)),
        (lambda x: layers.Reshape((-1,))(x), None),
        (lambda x: layers.Multiply()([x, keras.ops.mean(x, (1, 2), True)]), None),
        (
            lambda x: layers.Multiply()(
                [x, layers.GlobalMaxPooling2D(keepdims=True)(x)]
            ),
            "all",
        ),
    ],
)
def test_receptive_field_of_what_sees_all_or_is_unknown(tail, field):
    model = stack(conv(3), tail, size=(8, 8))
    assert summarize(model).rows[-1].receptive_field == field


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "depth_", "field"),
    [
        # Receptive fields: Araujo, Norris and Sim, "Computing receptive fields of
        # convolutional neural networks", Distill 2019, table 1. Parameters: the table
        # of keras.applications.
        ("VGG16", 138_357_544, 15_470_264_320, 16, 212),
        ("ResNet50", 25_636_712, 3_857_973_248, 50, 483),
        ("InceptionV3", 23_851_784, None, 48, 1311),
        ("MobileNet", 4_253_864, None, 28, 315),
    ],
)
def test_published_networks(name, parameters, macs, depth_, field):
    with without_weights():
        model = getattr(keras.applications, name)(weights=None)
        summary = summarize(model)
    assert summary.parameters == parameters
    assert summary.macs == (macs or summary.macs)
    assert summary.depth == depth_
    graph = trace(model)
    assert depth(graph) == depth_
    fields = [f for f in receptive_fields(graph).values() if isinstance(f, tuple)]
    assert max(tuple(axis.pixels for axis in f) for f in fields) == (field, field)


def test_building_without_weights_leaves_nothing_behind():
    with without_weights():
        model = lecture_cnn()
    assert all(w._value is None for w in model.weights)
    with keras.StatelessScope():
        pass  # here Keras gives weights that wait for one their values
    assert all(w._value is None for w in model.weights)
    assert summarize(model).parameters == 33_120
    other = lecture_cnn()
    assert other(np.zeros((1, 32, 32, 3))).shape == (1, 10)


def test_every_width_is_respected(model):
    summary = summarize(model)
    for width in range(1, 130):
        text = summary.to_text(width=width)
        assert max(map(len, text.splitlines())) <= width
        if width >= 40:
            assert "MACs" in text
    assert "(left out, as 70 columns are narrow: Type" in summarize(
        lecture_cnn()
    ).to_text(width=70)


def test_no_width_cuts_nothing(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = str(summarize(lecture_cnn())).splitlines()
    row = "fc             Dense               10      512·10 = 5,120  15.5%"
    assert any(line.startswith(row) for line in lines)
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, str(summarize(lecture_cnn())).splitlines())) <= 50


def test_ascii_terminals(model, monkeypatch):
    summary = summarize(model, expand_nested=True)
    assert summary.to_text(ascii=True).isascii()
    assert "5*5*3*32 = 2,400" in summarize(lecture_cnn()).to_text(ascii=True)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert str(summary).isascii()


def test_csv_json_and_markdown_say_the_same(model):
    summary = summarize(model)
    data = json.loads(summary.to_json())
    rows = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert [row["name"] for row in rows] == [row.name for row in summary.rows]
    assert data["totals"] == summary.totals
    assert data["model"] == model.name
    assert tuple(data["input_shape"]) == summary.input_shape
    for line, entry, row in zip(rows, data["rows"], summary.rows, strict=True):
        assert int(line["parameters"]) == entry["parameters"] == row.parameters
        assert int(line["macs"]) == entry["macs"] == row.macs
        assert json.loads(line["output_shape"]) == entry["output_shape"]
        assert line["expression"] == row.expression
    markdown = summary.to_markdown().split("\n\n")
    table = markdown[1].splitlines()
    assert len(table) == 2 + len(summary.rows)
    assert len({line.count("|") for line in table}) == 1
    assert f"{summary.parameters:,}" in markdown[2]


def test_unknown_is_empty_for_programs_and_a_dash_for_people():
    table = Table(
        [Column("a", "A|B"), Column("b", "B", format_bytes)],
        [{"a": None, "b": 5}, {"a": "x|y", "b": None}],
    )
    assert table.to_csv() == "a,b\n,5\nx|y,\n"
    assert json.loads(table.to_json())["rows"][1]["b"] is None
    assert table.to_text(width=20).splitlines()[2].split() == ["-", "5", "B"]
    assert "| x\\|y | - |" in table.to_markdown()
    with pytest.raises(ValueError, match="width must be 1 or more; received 0"):
        table.to_text(width=0)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (132_480, "129.4 KiB"), (2**40, "1.0 TiB")],
)
def test_bytes_for_people(count, text):
    assert format_bytes(count) == text
