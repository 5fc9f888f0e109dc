import keras
import numpy as np
import pytest

from kerascnn.data import Images
from kerascnn.training import evaluate
from kerascnn.training.evaluate import calibration_error, wilson_interval


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


def test_wilson_interval_against_published_values():
    """The 95 % interval of 15 of 20: 0.5313 to 0.8881 (Newcombe 1998's method 3)."""
    low, high = wilson_interval(15, 20)
    assert low == pytest.approx(53.13, abs=0.01)
    assert high == pytest.approx(88.81, abs=0.01)
    assert wilson_interval(0, 10)[0] == pytest.approx(0, abs=1e-9)
    assert wilson_interval(10, 10)[1] == pytest.approx(100, abs=1e-9)


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    classes = np.array([0, 1, 1, 1])
    # Bins: two at 0.9 (half right), one at 0.8 (right), one at 0.6 (right).
    expected = 100 * (2 * 0.4 + 0.2 + 0.4) / 4
    assert calibration_error(probabilities, classes) == pytest.approx(expected)


def test_no_images_are_refused():
    images = Images(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, int))
    with pytest.raises(ValueError, match="no images"):
        evaluate(constant_model([0, 0]), images)


def test_the_confusion_is_drawn():
    images = Images(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 1, 0]))
    figure = evaluate(constant_model([0.0, 1.0]), images, labels=("a", "b")).plot()
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]
    assert "50.00 %" in axes.get_title()
