"""The two ends that all networks share."""

import keras
import numpy as np
import pytest

import zoo
from zoo.blocks import classifier, image_input, outputs


def test_pixels_are_scaled_to_minus_one_to_one(run):
    image, x = image_input((1, 3, 1))
    model = keras.Model(image, x)
    pixels = np.array([[[[0], [127.5], [255]]]], "float32")
    np.testing.assert_allclose(run(model, pixels).ravel(), [-1, 0, 1], atol=1e-6)
    assert model.count_params() == 0


@pytest.mark.parametrize("shape", [(31, 32, 3), (32, 31, 3)])
def test_the_least_size_holds_for_both_sides(shape):
    with pytest.raises(ValueError, match=r"at least 32x32 pixels; received .*31"):
        image_input(shape, minimum=32)


@pytest.mark.parametrize("classes", [1, 0, -3, 2.0])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(ValueError, match=f"classes must be .*received {classes}"):
        classifier(keras.Input((4,)), classes)


def test_the_output_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        for activation in ("softmax", None):
            assert classifier(keras.Input((4,)), 3, activation).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_end_is_named_after_what_it_gives():
    def name(*args, **options):
        x = keras.Input((4,))
        return keras.Model(x, outputs(x, *args, **options)).layers[-1].name

    assert name() == "probabilities"
    assert name(None) == "logits"
    assert name(name="auxiliary1_logits") == "auxiliary1_logits"


def test_channels_first_is_refused_in_words():
    keras.config.set_image_data_format("channels_first")
    try:
        for name in ("nin", "lecture_cnn", "resnet20"):
            with pytest.raises(ValueError, match="networks here have channels last"):
                zoo.build(name)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_plausible_arguments_are_taken_or_refused_in_words():
    assert zoo.build("lecture_cnn", classes=np.int64(7)).output_shape == (None, 7)
    assert zoo.build("dense_mlp", (8, 8, 3), hidden=5).count_params() == 192 * 5 + 50
    with pytest.raises(ValueError, match=r"three positive integers .* received 32"):
        zoo.build("vgg11", 32)
    for name in ("deep_cnet", "fractional_max_pooling"):
        with pytest.raises(ValueError, match="levels must be a whole number above 0"):
            zoo.build(name, levels=5.5)


@pytest.mark.parametrize(
    "options",
    [{"pool_size": (2, 3)}, {"strides": (1, 2)}, {"data_format": "channels_first"}],
)
def test_average_pooling_says_what_it_does_not_do(options):
    with pytest.raises(ValueError, match="windows are square, and channels last"):
        zoo.layers.AveragePooling2D(**options)
