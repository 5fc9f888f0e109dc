"""Every call with its numbers; one value's receptive field and exact sum."""

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.explain import activation_maps, trace
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import prepared, record


def test_every_make_of_model_runs_as_it_predicts(model, image, ask):
    seen = record(model, prepared(model, image))
    found = keras.ops.convert_to_numpy(seen.graph.outputs[0])
    np.testing.assert_allclose(found, ask(model, image[None]), atol=1e-6)
    assert len(set(seen.names)) == len(seen.names)


def test_the_stages_are_what_the_layers_give(models, image):
    model = models["functional"]
    found = trace(model, image, strongest=2)
    assert [s.name for s in found.stages] == [layer.name for layer in model.layers[1:]]
    for stage in found.stages:
        part = keras.Model(model.input, model.get_layer(stage.name).output)
        values = keras.ops.convert_to_numpy(part(image[None].astype("float32")))[0]
        assert stage.shape == values.shape
        assert stage.mean == pytest.approx(values.mean(), abs=1e-5)
        assert stage.greatest == pytest.approx(values.max(), abs=1e-5)
        assert stage.zeros == pytest.approx(100 * (values == 0).mean())
        strength = np.abs(values).reshape(-1, values.shape[-1]).mean(0)
        assert strength[stage.strongest[0]] == pytest.approx(strength.max(), abs=1e-5)
    assert [s.field for s in found.stages][1:4] == [(3, 3), (4, 4), (8, 8)]
    assert "conv2" in str(found) and "3×2×5" not in str(found.stages[0].name)
    assert found.to_dict()["stages"][1]["shape"] == (9, 8, 6)


def test_calls_of_nested_and_shared_layers_have_names(models, image):
    names = [s.name for s in trace(models["nested"], image).stages]
    assert "encoder/deep" in names and "encoder/deep:2" in names
    assert "head/fc" in names
    names = [s.name for s in trace(models["shared"], image).stages]
    assert names[:2] == ["conv", "conv:2"]
    names = [s.name for s in trace(models["subclassed"], image).stages]
    assert names == ["conv", "norm", "fc"]


def test_layers_are_found_by_name_and_by_themselves(models, image):
    seen = record(models["nested"], prepared(models["nested"], image))
    assert seen.names[seen.find("fc")] == "head/fc"
    assert seen.names[seen.find("encoder")] == "encoder/sum"
    assert seen.names[seen.find(models["nested"].get_layer("stem"))] == "stem"
    with pytest.raises(ValueError, match="did you mean stem"):
        seen.find("sten")
    with pytest.raises(ValueError, match="it has stem, encoder/deep"):
        seen.find("zzz")


CONVOLUTIONS = {
    "plain": lambda: layers.Conv2D(4, 3),
    "same": lambda: layers.Conv2D(4, (3, 5), padding="same", activation="relu"),
    "stride": lambda: layers.Conv2D(4, 3, strides=2, padding="same", activation="elu"),
    "stride valid": lambda: layers.Conv2D(4, 2, strides=3, use_bias=False),
    "dilation": lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "groups": lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
    "softmax": lambda: layers.Conv2D(4, 1, activation="softmax"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2),
    "separable": lambda: layers.SeparableConv2D(
        5, 3, padding="same", depth_multiplier=2, activation="tanh"
    ),
    "transposed": lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    "transposed valid": lambda: layers.Conv2DTranspose(3, 2, strides=3),
    "transposed wide": lambda: layers.Conv2DTranspose(3, 5, strides=2, padding="same"),
    "dense": lambda: layers.Dense(4, activation="relu"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_sum_of_a_cell_is_the_models_value(kind):
    """The model's own value is the outsider: any wrong tap or weight shows."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((7, 8, 4))
    layer = CONVOLUTIONS[kind]()
    model = keras.Model(inputs, layer(inputs))
    if layer.use_bias:
        layer.bias.assign(np.linspace(-1, 1, layer.bias.shape[0]))
    image = np.random.default_rng(4).normal(size=(7, 8, 4)).astype("float32")
    values = keras.ops.convert_to_numpy(model(image[None]))[0]
    height, width, count = values.shape
    corners = [(0, 0, 0), (height - 1, width - 1, count - 1), (height // 2, 1, 1)]
    for place in [*corners, None]:
        cell = trace(model, image, layer.name, place).cell
        assert cell.model_value == pytest.approx(values[cell.place], abs=1e-6)
        total = sum(term["input"] * term["weight"] for term in cell.terms)
        assert total == pytest.approx(cell.total, abs=1e-5)
        before = total + (cell.bias or 0.0)
        if kind == "softmax":
            assert 0 < cell.value < 1
        else:
            assert _activated(cell.activation, before) == pytest.approx(
                values[cell.place], abs=2e-5
            )
        for term in cell.terms:  # each input stands where the term says
            inside = term["row"] is not None and term["column"] is not None
            inside = inside and 0 <= term["row"] < 7 and 0 <= term["column"] < 8
            assert inside != term["padding"]
            expected = 0.0
            if inside:
                expected = image[term["row"], term["column"], term["channel"]]
            assert term["input"] == pytest.approx(expected)
    assert cell.place == np.unravel_index(values.argmax(), values.shape)


def _activated(name, value):
    functions = {
        None: lambda v: v,
        "relu": lambda v: max(v, 0.0),
        "elu": lambda v: v if v > 0 else np.exp(v) - 1,
        "tanh": np.tanh,
    }
    return functions[name](value)


def test_a_dense_unit_is_a_sum_too(models, image):
    model = models["sequential"]
    flat = record(model, prepared(model, image))
    given = flat.values(flat.find("flatten"))[0]
    kernel = np.asarray(model.get_layer("fc").get_weights()[0])
    cell = trace(model, image, "fc", (2,)).cell
    assert cell.total == pytest.approx(float(given @ kernel[:, 2]), abs=1e-4)
    assert cell.activation == "softmax"
    assert cell.difference < 1e-6
    assert "the ten greatest products" in str(cell)


def test_the_text_writes_the_products_out(models, image):
    cell = trace(models["functional"], image, "conv1", (0, 0, 2)).cell
    text = str(cell)
    assert "conv1 (Conv2D), row 0, column 0, channel 2" in text
    assert "sees of the image: rows 0 to 1, columns 0 to 1 (2×2 pixels)" in text
    assert "5 of the 9 places are zeros of padding" in text
    assert text.count("·") >= 27 and "the model's own value is" in text
    written = cell.to_dict()
    assert len(written["terms"]) == 27
    assert sum(t["padding"] for t in written["terms"]) == 15


def _positive(pieces):
    """A model whose every weight is positive, so that each pixel in sight counts."""
    inputs = keras.Input((12, 11, 2))
    x = inputs
    for piece in pieces:
        x = piece(x)
    model = keras.Model(inputs, x)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(np.ones(weight.shape))
    return model


def _joined(x):
    deep = layers.Conv2D(2, 3, padding="same")(x)
    return layers.Add()([layers.Concatenate()([deep, deep]), layers.Conv2D(4, 1)(x)])


FIELDS = {
    "convolutions": [layers.Conv2D(2, 3), layers.Conv2D(2, 3, strides=2)],
    "same": [
        layers.Conv2D(2, 5, strides=2, padding="same"),
        layers.AveragePooling2D(2),
        layers.Conv2D(2, 3, padding="same"),
    ],
    "dilation": [layers.Conv2D(1, 3, dilation_rate=2, padding="same")],
    "branches": [_joined, layers.AveragePooling2D(3, 2, padding="same")],
    "transposed": [
        layers.Conv2D(2, 3, strides=2),
        layers.Conv2DTranspose(2, 3, strides=2, padding="same"),
    ],
    "padding": [
        layers.ZeroPadding2D(((2, 0), (0, 1))),
        layers.Cropping2D(((0, 1), (3, 0))),
        layers.Conv2D(1, 2, strides=3),
    ],
    "enlarged": [layers.Conv2D(1, 3, strides=2), layers.UpSampling2D(2)],
    "sliced": [lambda x: x[:, 1::2, ::3], layers.Conv2D(1, 2)],
    "dense": [layers.Flatten(), layers.Dense(3)],
    "squeezed": [
        lambda x: layers.Multiply()(
            [x, layers.GlobalAveragePooling2D(keepdims=True)(x)]
        )
    ],
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_receptive_field_is_what_changes_the_value(name):
    """Each pixel is changed in turn: what moves the cell is its receptive field."""
    model = _positive(FIELDS[name])
    base = np.ones((12, 11, 2), "float32")
    changed = np.repeat(base[None], 132, 0)
    for i in range(132):
        changed[i, i // 11, i % 11] += 1
    before = keras.ops.convert_to_numpy(model(base[None]))[0]
    after = keras.ops.convert_to_numpy(model(changed))
    seen = record(model, base[None])
    flat = before.ndim == 1
    height, width = (1, 1) if flat else before.shape[:2]
    for row, column in {(0, 0), (height - 1, width - 1), (height // 2, width // 3)}:
        moved = np.abs(after - before)
        moved = moved.max(1) if flat else moved[:, row, column].max(-1)
        rows, columns = np.nonzero(moved.reshape(12, 11) > 1e-4)
        found = region(seen, len(seen.calls) - 1, row, column)
        assert found.exact
        if not len(rows):
            assert found.height == 0 and "only zeros" in str(found)
            continue
        assert found.rows == (rows.min(), rows.max())
        assert found.columns == (columns.min(), columns.max())


def test_what_a_layer_does_not_say_is_not_claimed(models, image):
    """The weights after a custom layer see the whole image at most."""
    model = models["shared"]
    cell = trace(model, image, "fc", (0,)).cell
    assert cell.region.height == 9
    inputs = keras.Input((9, 8, 3))
    custom = type(next(x for x in model.layers if x.name == "scaled"))
    x = layers.Conv2D(2, 1, name="after")(custom()(inputs))
    region = trace(keras.Model(inputs, x), image, "after", (0, 0, 0)).cell.region
    assert not region.exact and "at most rows 0 to 8" in str(region)
    assert trace(models["subclassed"], image, "conv").cell.region is None


def test_wrong_questions_are_errors(models, image):
    model = models["functional"]
    with pytest.raises(ValueError, match="name the layer"):
        trace(model, image, cell=(0, 0, 0))
    with pytest.raises(ValueError, match=r"within 9x8x6; received \(9, 0, 0\)"):
        trace(model, image, "conv1", (9, 0, 0))
    with pytest.raises(ValueError, match="choose one of conv1, conv2, fc"):
        trace(model, image, "pool1")
    with pytest.raises(ValueError, match="takes images of 9x8x3; received 8x8x3"):
        trace(model, image[:8])
    with pytest.raises(ValueError, match="strongest"):
        trace(model, image, strongest=0)
    with pytest.raises(ValueError, match="height, width, channels"):
        trace(model, image[0, 0])


def test_a_layer_that_does_more_is_not_explained_away(image):
    """A bias that is not among the terms: the sum is not the model's value."""
    inputs = keras.Input((9, 8, 3))
    layer = layers.Conv2D(2, 3, name="conv")
    model = keras.Model(inputs, layer(inputs))
    layer.activation = lambda x: x * 2.0 if x.shape[1] == 7 else x
    with pytest.raises(RuntimeError, match="does more than its filters say"):
        trace(model, image, "conv")


def test_half_precision_is_explained_within_its_digits(image):
    inputs = keras.Input((9, 8, 3))
    layer = layers.Conv2D(4, 3, name="conv", dtype="mixed_bfloat16")
    model = keras.Model(inputs, layer(inputs))
    cell = trace(model, image / np.float32(255), "conv").cell
    assert cell.difference < 0.03 * np.abs(cell.products).sum()


def test_the_answer_is_said_and_doubted_where_no_class_reaches_a_half(models, image):
    model = models["functional"]
    probabilities = keras.ops.convert_to_numpy(model(image[None].astype("float32")))[0]
    found = trace(model, image, labels=list("abcde"))
    label = "abcde"[int(probabilities.argmax())]
    assert found.answer.label == label
    assert f"the answer: {label} {probabilities.max():.1%}" in str(found)
    assert probabilities.max() < 0.5 and "no class reaches 50 %" in str(found)
    bars = found.plot().subfigs[1].axes[0]
    shown = sorted(100 * probabilities)[::-1]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(shown)
    assert "no class" in bars.get_title()
    sure = trace(models["sequential"], image)  # 100 %
    assert "no class" not in str(sure) and sure.answer.label == "class 3"
    assert sure.to_dict()["answer"]["class 3"] > 0.5
    with pytest.raises(ValueError, match="5 classes; received 2 labels"):
        trace(model, image, labels=["a", "b"])
    inputs = keras.Input((9, 8, 3))
    maps = keras.Model(inputs, layers.Conv2D(2, 3)(inputs))  # no classifier
    assert trace(maps, image).answer is None


@pytest.mark.parametrize("most", [3, 4, 16])
def test_of_many_layers_the_ends_of_blocks_are_drawn(most, image):
    inputs = x = keras.Input((9, 8, 3))
    for block in range(6):
        parts = [layers.Conv2D(2, n, padding="same")(x) for n in (1, 3)]
        x = layers.Concatenate(name=f"end{block}")(parts)
        if block % 2:
            x = layers.ReLU(name=f"relu{block}")(layers.BatchNormalization()(x))
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    texts = (
        trace(keras.Model(inputs, x), image).plot(most=most).subfigs[0].axes[0].texts
    )
    names = [t.get_text().split("\n")[0] for t in texts if t.get_ha() == "right"]
    ends = ["end0", "relu1", "end2", "relu3", "end4", "relu5"]
    expected = {3: [0, 2, 5], 4: [0, 2, 3, 5], 16: range(6)}
    assert names == ["image", *(ends[i] for i in expected[most])]


def test_a_cell_of_many_channels_shows_the_sums_of_all(models, image):
    cell = trace(models["functional"], image, "conv2").cell  # 6 channels
    bars = next(
        axes
        for figure in cell.plot().subfigs
        for axes in figure.axes
        if axes.get_title() == "sums of all 6 channels"
    )
    heights = [bar.get_height() for bar in bars.patches]
    assert sum(heights) == pytest.approx(cell.total)
    assert heights == pytest.approx([cell.products[..., c].sum() for c in range(6)])


def test_maps_of_a_layer(models, image):
    model = models["functional"]
    found = activation_maps(model, image)
    assert found.layer == "relu2" and found.maps.shape == (2, 2, 5)
    part = keras.Model(model.input, model.get_layer("relu2").output)
    values = keras.ops.convert_to_numpy(part(image[None].astype("float32")))[0]
    np.testing.assert_allclose(found.maps, values, atol=1e-6)
    assert found.strongest[0] == values.mean((0, 1)).argmax()
    row = found.table.rows[0]
    k = row["map"]
    assert values[(*row["at"], k)] == pytest.approx(values[..., k].max(), abs=1e-6)
    assert f"map {k}, the strongest" in str(found)
    vector = activation_maps(model, image, "fc")
    assert vector.maps.shape == (5,) and "unit" in str(vector)


@pytest.mark.parametrize("layer", ["conv1", "fc"])
def test_the_pictures(models, image, layer, tmp_path):
    model = models["functional"]
    found = trace(model, image, layer)
    file = tmp_path / "cell.png"
    assert found.cell.plot(file).get_suptitle() and file.stat().st_size > 5000
    assert found.plot().get_suptitle()
    assert activation_maps(model, image, layer).plot().get_suptitle()
    grey = image.mean(-1, keepdims=True)
    inputs = keras.Input((9, 8, 1))
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    assert trace(model, grey, "conv").cell.plot().axes


def test_a_transposed_convolution_says_what_its_taps_meet():
    image = keras.Input((4, 4, 1))
    layer = keras.layers.Conv2DTranspose(2, 4, strides=2, padding="same", name="up")
    model = keras.Model(image, layer(image))
    told = str(trace(model, np.ones((4, 4, 1)), "up", (4, 4, 0)))
    assert "of rows 1 to 2 and columns 1 to 2 of the layer's input" in told
    assert "12 of the 16 places are zeros between pixels or of padding" in told
