import keras
import numpy as np
import pytest
from helpers import busy_model
from PIL import Image

import zoo
from kerascnn.prediction import ranked
from kerascnn.training import open_network, predict
from kerascnn.training.evaluate import predict_probabilities


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_any_size_are_classified(tmp_path, channels):
    model = zoo.build("linear", (16, 16, channels), 3)
    files = []
    for size in ((40, 30), (16, 16)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        files.append(tmp_path / f"{size[0]}.png")
        Image.fromarray(pixels).save(files[-1])
    labels = ("cat", "dog", "eel")
    for prediction in predict(model, files, labels=labels):
        assert prediction.probabilities.keys() == set(labels)
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.label == max(
            prediction.probabilities, key=prediction.probabilities.get
        )
    exact = Image.open(files[1]).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    pixels = np.asarray(exact).reshape(1, 16, 16, channels)
    expected = np.asarray(model(pixels))[0]
    found = [
        predict(model, files[1:], labels=labels)[0].probabilities[k] for k in labels
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_views_of_files_are_averaged(tmp_path):
    model = zoo.build("linear", (8, 8, 3), 3)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    both = np.asarray(model(np.stack([pixels, pixels[:, ::-1]])))
    assert np.abs(both[0] - both[1]).max() > 1e-2
    (found,) = predict(model, [tmp_path / "image.png"], views=2)
    for label, probability in found.probabilities.items():
        assert probability == pytest.approx(both.mean(0)[int(label)], abs=1e-6)
    with pytest.raises(ValueError, match="passes must be 1 or more"):
        predict(model, [tmp_path / "image.png"], passes=0)


def test_what_is_wrong_is_named(tmp_path):
    model = zoo.build("linear", (16, 16, 3), 3)
    with pytest.raises(ValueError, match="received no files"):
        predict(model, [])
    with pytest.raises(FileNotFoundError, match=r"there is no image .*nothing\.png"):
        predict(model, [tmp_path / "nothing.png"])
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        predict(model, [tmp_path / "broken.png"])
    with pytest.raises(ValueError, match="3 classes; received 2 labels"):
        ranked(np.ones((1, 3)) / 3, ("a", "b"))


def test_sources_are_told_apart(tmp_path):
    model = zoo.build("linear", (4, 4, 1), 2)
    assert open_network(model).model is model
    model.save(tmp_path / "mine.keras")
    assert open_network(tmp_path / "mine.keras").name == "linear"
    with pytest.raises(FileNotFoundError, match="there is no"):
        open_network(tmp_path / "nothing")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"neither a run folder nor a \.keras file"):
        open_network(tmp_path / "text.txt")
    (tmp_path / "old.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"the h5 by .*load_model.*'old\.keras'"):
        open_network(tmp_path / "old.h5")
    (tmp_path / "bad.keras").write_text("hello")
    with pytest.raises(ValueError, match="not a readable Keras model"):
        open_network(tmp_path / "bad.keras")
    with pytest.raises(zoo.UnknownNetworkError, match=r"lecture_cnn.*no folder"):
        open_network("lecture_cn")
    with pytest.raises(TypeError, match="received int"):
        open_network(3)


def test_one_unit_and_several_outputs_are_answered_for(tmp_path):
    Image.new("RGB", (8, 8), (200, 200, 200)).save(tmp_path / "bright.png")
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    one = keras.layers.Dense(1, kernel_initializer="ones", activation="sigmoid")(x)
    p = 1 / (1 + np.exp(-3 * 200 / 255))
    (found,) = predict(keras.Model(image, one), [tmp_path / "bright.png"])
    assert list(found.probabilities) == ["1", "0"]
    assert found.probabilities["1"] == pytest.approx(p, abs=1e-5)
    assert str(found) == f"{tmp_path / 'bright.png'}: 1 91.3%, 0 8.7%"
    assert found.to_dict()["label"] == "1"
    several = keras.Model(image, {"z": one, "a": keras.layers.Dense(2)(x)})
    assert predict(several, [tmp_path / "bright.png"], labels="nj")[0].label == "j"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((28, 28), None),
        ((None, None, 3), "size .* is open"),
        ((3, 28, 28), "channels first"),
        ((28, 28, 2), "of 1, 3 or 4 channels"),
    ],
)
def test_images_of_any_kind_are_read_or_refused(tmp_path, shape, words):
    Image.new("RGB", (40, 50)).save(tmp_path / "image.png")
    image = keras.Input(shape)
    axes = tuple(range(1, len(shape) + 1))
    x = keras.ops.expand_dims(keras.ops.mean(image, axes), 1)
    model = keras.Model(image, keras.layers.Dense(3, "softmax")(x))
    if words is None:
        assert predict(model, [tmp_path / "image.png"])[0].label in "012"
        return
    with pytest.raises(ValueError, match=words):
        predict(model, [tmp_path / "image.png"])


@pytest.mark.parametrize("images", [1, 7, 40])
def test_a_batch_is_answered_as_keras_predicts_also_with_other_weights(images):
    model = busy_model()
    x = np.random.default_rng(0).integers(0, 256, (images, 12, 12, 3), np.uint8)
    before = predict_probabilities(model, x, batch_size=16)
    np.testing.assert_array_equal(before, model.predict(x, batch_size=16, verbose=0))
    model.set_weights([weight + 1 for weight in model.get_weights()])
    after = predict_probabilities(model, x, batch_size=16)
    np.testing.assert_array_equal(after, model.predict(x, batch_size=16, verbose=0))
    assert np.abs(after - before).max() > 0
