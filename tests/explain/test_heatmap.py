"""Grad-CAM, saliency and occlusion against arithmetic without gradients."""

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.explain import gradcam, occlusion, saliency, trace


def test_every_make_is_explained(model, image, ask):
    answers = ask(model, image[None])[0]
    for method in (saliency, occlusion, gradcam):
        found = method(model, image)
        assert found.heat.shape == (9, 8)
        assert np.isfinite(found.heat).all()
        assert found.target == answers.argmax()
    assert saliency(model, image).heat.max() > 0


def test_gradcam_of_averaged_maps_is_the_dense_weights(models, image):
    """Behind an average the gradient of a logit is its weight, over the places."""
    model = models["functional"]
    weights = model.get_layer("fc").get_weights()[0]
    part = keras.Model(model.input, model.get_layer("relu2").output)
    maps = keras.ops.convert_to_numpy(part(image[None].astype("float32")))[0]
    for target in range(5):
        found = gradcam(model, image, target=target)
        expected = np.zeros((2, 2))
        for row, column in np.ndindex(2, 2):
            for k in range(5):
                mean = weights[k, target] / 4
                expected[row, column] += mean * maps[row, column, k]
        assert found.layer == "relu2" and found.score == "logit"
        np.testing.assert_allclose(found.coarse, np.maximum(expected, 0), atol=1e-6)


def _slopes(model, image, target, logit):
    """The gradient by differences, pixel by pixel."""
    step = 0.5
    moved = np.repeat(image[None].astype("float32"), 2 * image.size, 0)
    flat = moved.reshape(2 * image.size, -1)
    for i in range(image.size):
        flat[2 * i, i] += step
        flat[2 * i + 1, i] -= step
    answers = keras.tree.flatten(model(moved, training=False))[0]
    answers = keras.ops.convert_to_numpy(answers).astype("float64")
    # A softmax's logits are its logarithms but for what all classes share.
    scores = answers[:, target] if logit else np.log(answers)[:, target]
    slopes = (scores[::2] - scores[1::2]) / (2 * step)
    return slopes.reshape(image.shape)


def test_saliency_is_the_gradient_by_differences(models, image):
    found = saliency(models["logits"], image, target=1)
    assert found.score == "output"
    slopes = _slopes(models["logits"], image, 1, logit=True)
    expected = np.abs(slopes).max(-1)
    # A step may cross a kink of ReLU or of a maximum: almost all pixels agree.
    close = np.isclose(found.heat, expected, rtol=0.05, atol=2e-5)
    assert close.mean() > 0.9


def test_softmax_is_left_out_wherever_it_stands(models, image):
    """The same weights with softmax as a layer, an activation, an operation, none."""
    plain = models["logits"]
    dense = plain.get_layer("fc")
    kept = dense.get_weights()
    x = plain.get_layer("mean").output

    def ending(name):
        if name == "fused":
            last = layers.Dense(5, activation="softmax")
            return last, last(x)
        last = layers.Dense(5)
        ends = {
            "activation": layers.Activation("softmax"),
            "layer": layers.Softmax(),
            "operation": keras.ops.softmax,
        }
        return last, ends[name](last(x))

    wanted = saliency(plain, image, target=2).heat
    for name in ("fused", "activation", "layer", "operation"):
        last, end = ending(name)
        last.set_weights(kept)
        model = keras.Model(plain.input, end)
        found = saliency(model, image, target=2)
        assert found.score == "logit"
        np.testing.assert_allclose(found.heat, wanted, rtol=1e-4, atol=1e-8)
        if name == "fused":  # and it is put back
            assert last.activation is keras.activations.softmax


def test_saliency_of_a_linear_network_is_its_weights(image):
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)))
    weights = model.layers[-1].get_weights()[0]
    found = saliency(model, image, target=3)
    expected = np.abs(weights[:, 3].reshape(9, 8, 3)).max(-1)
    np.testing.assert_allclose(found.heat, expected, rtol=1e-5)
    smooth = saliency(model, image, target=3, samples=4)
    np.testing.assert_allclose(smooth.heat, expected, rtol=1e-4)
    assert "mean of 4" in smooth.method


def test_integer_inputs_have_gradients_too(models, image):
    np.testing.assert_allclose(
        saliency(models["uint8"], image).heat,
        saliency(models["functional"], image).heat,
        rtol=1e-4,
        atol=1e-8,
    )


def test_occlusion_is_the_drop_square_by_square(models, image, ask):
    model = models["functional"]
    found = occlusion(model, image, size=3, stride=2, fill=0, target=4, batch_size=5)
    whole = ask(model, image[None])[0, 4]
    total, count = np.zeros((9, 8)), np.zeros((9, 8))
    for i, row in enumerate((0, 2, 4, 6)):
        for j, column in enumerate((0, 2, 4, 5)):  # the last ends at the border
            hidden = image.copy()
            hidden[row : row + 3, column : column + 3] = 0
            drop = whole - ask(model, hidden[None])[0, 4]
            assert found.coarse[i, j] == pytest.approx(drop, abs=1e-6)
            total[row : row + 3, column : column + 3] += drop
            count[row : row + 3, column : column + 3] += 1
    np.testing.assert_allclose(found.heat, total / count, atol=1e-6)
    assert found.probability == pytest.approx(whole, abs=1e-6)


def test_occlusion_of_logits_is_of_their_probabilities(models, image):
    one = occlusion(models["logits"], image, target=1)
    other = occlusion(models["functional"], image, target=1)
    np.testing.assert_allclose(one.heat, other.heat, atol=1e-6)


def test_one_of_several_outputs(models, image, ask):
    model = models["several"]
    for output in (0, 1):
        found = saliency(model, image, output=output)
        answers = ask(model, image[None], output)[0]
        assert found.target == answers.argmax()
    assert gradcam(model, image, output=1).layer == "conv1"
    assert gradcam(model, image, output=0).layer == "conv2"
    with pytest.raises(ValueError, match="2 outputs"):
        gradcam(model, image, output=2)


def test_targets_have_numbers_and_names(models, image):
    model, labels = models["functional"], list("abcde")
    found = gradcam(model, image, target="d", labels=labels)
    assert (found.target, found.label) == (3, "d")
    assert "for 'd'" in str(found)
    with pytest.raises(ValueError, match="below 5 or one of a, b"):
        gradcam(model, image, target="x", labels=labels)
    with pytest.raises(ValueError, match="below 5; received 5"):
        saliency(model, image, target=5)
    with pytest.raises(ValueError, match="5 classes; received 2 labels"):
        saliency(model, image, labels=["a", "b"])
    with pytest.raises(ValueError, match="size=10"):
        occlusion(model, image, size=10)
    with pytest.raises(ValueError, match="samples"):
        saliency(model, image, samples=0)


def test_a_network_without_maps_has_no_gradcam(image):
    inputs = keras.Input((9, 8, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    with pytest.raises(ValueError, match="saliency and occlusion take any"):
        gradcam(model, image)


def test_an_answer_that_depends_on_nothing(image):
    inputs = keras.Input((9, 8, 3))
    x = layers.Conv2D(2, 3, name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(4, kernel_initializer="zeros", bias_initializer="normal")(x)
    model = keras.Model(inputs, x)
    assert "does not depend on any pixel" in str(saliency(model, image))
    assert "nothing in the image speaks" in str(gradcam(model, image))
    assert gradcam(model, image).scaled.max() == 0


def test_a_sigmoid_and_an_image_without_channels():
    inputs = keras.Input((6, 5))
    x = layers.Dense(1, activation="sigmoid")(layers.Flatten()(inputs))
    model = keras.Model(inputs, x)
    image = np.random.default_rng(0).random((6, 5)).astype("float32")
    found = saliency(model, image)
    weights = np.abs(model.layers[-1].get_weights()[0][:, 0].reshape(6, 5))
    np.testing.assert_allclose(found.heat, weights, rtol=1e-4)
    assert 0 < found.probability < 1 and found.score == "logit"
    assert occlusion(model, image).heat.shape == (6, 5)


def test_channels_may_come_first(image):
    """The same weights with the channels first: the same maps, the same sums."""
    keras.utils.set_random_seed(2)

    def build(order):
        inputs = keras.Input((9, 8, 3) if order == "channels_last" else (3, 9, 8))
        conv = layers.Conv2D(
            4, 3, strides=2, activation="relu", data_format=order, name="conv"
        )
        x = layers.GlobalAveragePooling2D(data_format=order)(conv(inputs))
        return keras.Model(inputs, layers.Dense(5, name="fc")(x))

    last, first = build("channels_last"), build("channels_first")
    first.set_weights(last.get_weights())
    for method in (gradcam, saliency, occlusion):
        one, other = method(last, image), method(first, image)
        scale = np.abs(one.heat).max()
        np.testing.assert_allclose(one.heat, other.heat, atol=1e-4 * scale)
    one, other = (trace(m, image, "conv", (2, 1, 3)).cell for m in (last, first))
    assert other.value == pytest.approx(one.value, rel=1e-4)
    assert other.terms[5]["row"] == one.terms[5]["row"]
    assert str(other.region) == str(one.region)


def test_the_model_is_left_as_it_was(make, image):
    model = make("nested")
    before = [np.copy(w) for w in model.get_weights()]
    flags = [w.trainable for w in model.weights]
    gradcam(model, image)
    saliency(model, image)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert flags == [w.trainable for w in model.weights]
    assert getattr(model, "optimizer", None) is None


@pytest.mark.parametrize("method", [gradcam, saliency, occlusion])
def test_the_pictures_and_their_twins(models, image, method, tmp_path):
    found = method(models["functional"], image)
    file = tmp_path / "heat.png" if method is occlusion else None
    figure = found.plot(file)
    assert file is None or file.stat().st_size > 5000
    assert [a.get_title() for a in figure.axes[:3]] == [
        "image",
        found.method,
        "over the image",
    ]
    text = str(found)
    row, column = np.unravel_index(found.heat.argmax(), (9, 8))
    if found.heat.max() > 0:
        assert f"the greatest at row {row}, column {column}" in text
        assert "@@" in text
    assert np.shape(found.to_dict()["heat"]) == (9, 8)


@pytest.mark.parametrize("main", ["probabilities", "main", "zebra"])
def test_a_dictionary_of_outputs_is_explained_by_the_one_that_answers(main):
    """As it is served: "probabilities", else the first, not the first by alphabet."""
    inputs = keras.Input((8, 8, 3))
    maps = layers.Conv2D(4, 3, activation="relu")(inputs)
    features = layers.GlobalAveragePooling2D()(maps)
    right = layers.Dense(3, activation="softmax")(features)
    wrong = layers.Dense(3, activation="softmax")(features)
    model = keras.Model(inputs, {main: right, "aux": wrong})
    alone = keras.Model(inputs, right)
    image = np.random.default_rng(3).uniform(0, 1, (8, 8, 3)).astype("float32")
    for method in (gradcam, saliency, occlusion):
        found, wanted = method(model, image), method(alone, image)
        assert found.target == wanted.target
        np.testing.assert_allclose(found.heat, wanted.heat, atol=1e-6)


def test_the_one_unit_of_a_sigmoid_tells_two_named_classes_apart():
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    image = np.random.default_rng(3).uniform(0, 1, (8, 8, 3)).astype("float32")
    probability = float(model(image[None])[0, 0])
    alone = gradcam(model, image)
    assert alone.target == 0 and alone.probability == pytest.approx(probability)
    dog = gradcam(model, image, target="dog", labels=("cat", "dog"))
    np.testing.assert_allclose(dog.heat, alone.heat, atol=1e-6)
    cat = occlusion(model, image, target="cat", labels=("cat", "dog"))
    assert cat.probability == pytest.approx(1 - probability, abs=1e-6)
    opposite = occlusion(model, image, target="dog", labels=("cat", "dog"))
    np.testing.assert_allclose(cat.heat, -opposite.heat, atol=1e-6)


class _Net(keras.Model):
    def __init__(self):
        super().__init__(name="net")
        self.conv, self.fc = layers.Conv2D(4, 3), layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.fc(keras.ops.mean(self.conv(x), (1, 2)))


class _Block(layers.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.conv = layers.Conv2D(4, 3)

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return keras.ops.mean(self.conv(x), (1, 2))


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        (lambda x: _Net()(x), "net"),
        (lambda x: layers.Dense(3)(_Block()(x)), "block"),
        (lambda x: layers.Dense(3)(keras.Sequential([_Block()])(x)), "block"),
    ],
)
def test_convolutions_that_are_not_on_record_are_not_denied(inside, name):
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, inside(inputs))
    image = np.ones((12, 12, 3), "float32")
    with pytest.raises(ValueError, match=rf"inside of .*{name}, whose calls are not"):
        gradcam(model, image)
    assert occlusion(model, image).heat.shape == (12, 12)
