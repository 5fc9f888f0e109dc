import keras
import numpy as np
import pytest
from helpers import busy_model

import zoo
from kerascnn.data import Images, load_data
from kerascnn.training import evaluate, train
from kerascnn.training.evaluate import (
    predict_batches,
    predict_probabilities,
)


def constant_model(row):
    """A model that answers every image with the same row."""
    inputs = keras.Input((2, 2, 1))
    x = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(len(row), kernel_initializer="zeros")
    x = dense(x)
    dense.bias.assign(row)
    return keras.Model(inputs, x)


def test_figures_of_a_known_answer():
    images = Images(np.zeros((10, 2, 2, 1), np.uint8), np.array([0] * 6 + [1] * 4))
    model = constant_model(np.log([0.7, 0.2, 0.1]))
    result = evaluate(model, images, labels=("cat", "dog", "eel"))
    assert result.accuracy == 60
    assert result.per_class == {"cat": 100, "dog": 0}  # no image of an eel
    np.testing.assert_array_equal(result.confusion, [[6, 0, 0], [4, 0, 0], [0, 0, 0]])
    expected = -(6 * np.log(0.7) + 4 * np.log(0.2)) / 10
    assert result.loss == pytest.approx(expected, rel=1e-5)
    # Confidence 0.7 everywhere, right in 0.6 of the cases.
    assert result.calibration_error == pytest.approx(10, abs=1e-3)
    assert "60.00 %" in str(result)


def test_no_images_are_refused():
    images = Images(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, int))
    with pytest.raises(ValueError, match="no images"):
        evaluate(constant_model([0, 0]), images)


def random_model(shape=(5, 4, 3), noise=False):
    """A softmax of all pixels; with noise, another one in every pass."""
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    if noise:
        x = AlwaysNoise()(x)
    initializer = keras.initializers.RandomNormal(stddev=0.5, seed=1)
    dense = keras.layers.Dense(3, kernel_initializer=initializer, activation="softmax")
    return keras.Model(inputs, dense(keras.layers.Flatten()(x)))


class AlwaysNoise(keras.layers.Layer):
    """Draws in inference too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, inputs):
        shape = keras.ops.shape(inputs)
        return inputs + keras.random.normal(shape, seed=self.seed_generator)


def pixels(number=7, shape=(5, 4, 3)):
    return np.random.default_rng(0).integers(0, 256, (number, *shape), np.uint8)


def shifted(image, step):
    """One image moved by `step` pixels on both axes, the edge reflected."""
    height, width, _ = image.shape
    result = np.empty_like(image)
    for i, j in np.ndindex(height, width):
        row, column = abs(i + step), abs(j + step)
        row = 2 * (height - 1) - row if row >= height else row
        column = 2 * (width - 1) - column if column >= width else column
        result[i, j] = image[row, column]
    return result


def test_views_are_weighted_as_in_the_paper():
    model, x = random_model(), pixels()

    def ask(images):
        return np.asarray(model(np.stack(images)), np.float64)

    plain = ask(x)
    both = (plain + ask(x[:, :, ::-1])) / 2
    moved = [[shifted(image, step) for image in x] for step in (-1, 1)]
    four = sum(ask(m) + ask([i[:, ::-1] for i in m]) for m in moved) / 4
    for views, expected in ((1, plain), (2, both), (6, (both + four) / 2)):
        found = predict_probabilities(model, x, 4, views=views)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(both - plain).max() > 1e-2 and np.abs(four - both).max() > 1e-2


def test_passes_of_a_network_that_draws_are_averaged():
    x = pixels()
    model = random_model(noise=True)
    answers = [predict_probabilities(model, x) for _ in range(3)]
    assert np.abs(answers[0] - answers[1]).max() > 1e-2
    again = random_model(noise=True)  # from the same seed
    found = predict_probabilities(again, x, passes=3)
    np.testing.assert_allclose(found, np.mean(answers, 0), atol=1e-6)


def test_an_evaluation_says_what_it_averages():
    model, images = random_model(), Images(pixels(), np.arange(7) % 3)
    result = evaluate(model, images, views=6, passes=2)
    expected = predict_probabilities(model, images.x, views=6)
    loss = -np.log(expected[np.arange(7), images.y]).mean()
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert "7 images, mean of 6 views and 2 passes" in str(result)
    assert (result.to_dict()["views"], result.to_dict()["passes"]) == (6, 2)
    assert "mean of" not in str(evaluate(model, images))
    with pytest.raises(ValueError, match="views must be 1, 2 or 6; received 3"):
        evaluate(model, images, views=3)
    with pytest.raises(ValueError, match="passes must be 1 or more; received 0"):
        evaluate(model, images, passes=0)


def test_the_confusion_is_drawn():
    images = Images(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0]))
    figure = evaluate(constant_model([0.0, 1.0]), images, labels=("a", "b")).plot()
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]
    assert "50.00 %" in axes.get_title()


@pytest.mark.parametrize("number", [1, 4, 9])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_batches_answer_as_keras_predict_does(number, dtype):
    model = zoo.build("linear", (8, 8, 3), 3)
    x = np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3)).astype(dtype)
    expected = model.predict(x, batch_size=4, verbose=0)
    np.testing.assert_allclose(predict_batches(model, x, 4), expected, rtol=1e-6)


def test_a_run_is_measured_by_its_own_protocol_on_its_own_data(tmp_path):
    data = load_data("shapes", images=200, image_size=16)
    recipe = {"epochs": 1, "views": 2}
    run = train("linear", data, recipe, runs=tmp_path, progress=False)
    found = evaluate(run)
    assert (found.views, found.passes, found.labels) == (2, 1, data.labels)
    assert found.loss == pytest.approx(run.metrics["test_loss"], rel=1e-5)
    for source in (run.folder, str(run.folder)):
        assert evaluate(source, data, views=1).views == 1
    assert evaluate(run.model, data).labels == data.labels
    with pytest.raises(ValueError, match="what images to evaluate on"):
        evaluate(run.model)


def test_images_that_do_not_fit_are_refused_in_words():
    model = random_model()
    for shape in ((3, 5, 4), (5, 4, 1), (5, 5, 3)):
        images = Images(np.zeros((2, *shape), np.uint8), np.array([0, 1]))
        with pytest.raises(ValueError, match=r"takes images \(5, 4, 3\); received"):
            evaluate(model, images)
    with pytest.raises(ValueError, match=r"3 classes apart.*has class 5"):
        evaluate(model, Images(pixels(2), np.array([0, 5])))
    for labels in (("a", "b"), ("a", "b", "c", "d"), ["alone"]):
        with pytest.raises(ValueError, match=f"3 classes apart.*of {len(labels)}: a"):
            evaluate(model, Images(pixels(2), np.array([0, 1])), labels=labels)


def test_answers_that_are_no_numbers_are_no_class(data):
    model = busy_model(dropout=0)
    model.get_layer("fc").kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="with NaN: it has diverged"):
        evaluate(model, data.test)
