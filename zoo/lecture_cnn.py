"""The lecture's convolutional network: 33,120 parameters."""

import keras

from zoo.blocks import classifier, image_input
from zoo.registry import register

# The slide "Architecture": three times convolution and pooling, filters of 5x5.
FILTERS = (32, 16, 32)


@register
def lecture_cnn(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    use_bias=False,
    classifier_activation="softmax",
    name="lecture_cnn",
):
    """Build the CNN of the lecture's slide "Architecture".

    Args:
        input_shape: (height, width, channels), at least 8x8 pixels.
        classes: number of classes.
        use_bias: the lecture counts no biases: 33,120 parameters at 32x32x3 and 10
            classes; with biases they are 33,210.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 8x8 pixels.
    """
    image, x = image_input(input_shape, minimum=8)
    for number, filters in enumerate(FILTERS, start=1):
        # "same" at stride 1 is the lecture's padding of 2: (32 + 2·2 - 5)/1 + 1 = 32.
        x = keras.layers.Conv2D(
            filters,
            5,
            padding="same",
            activation="relu",
            use_bias=use_bias,
            name=f"conv{number}",
        )(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    # (N, 16, 16, 32), (N, 8, 8, 16), (N, 4, 4, 32) at 32x32
    x = keras.layers.Flatten(name="flatten")(x)  # (N, 512)
    x = classifier(x, classes, classifier_activation, use_bias=use_bias)
    return keras.Model(image, x, name=name)
