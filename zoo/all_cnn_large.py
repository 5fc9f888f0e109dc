"""The large All-CNN: eighteen convolutions over a field with room for the image.

Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All
Convolutional Net", ICLR 2015 workshop, arXiv 1412.6806: the network of the paper's best
result. The others are in `zoo.all_cnn`.
"""

import keras

from zoo.all_cnn import INITIALIZER
from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.layers import RandomPlacement2D
from zoo.registry import register

# (filters, dropout) of its groups, each of three 2x2 convolutions of
# which the last has stride 2; the dropout follows the first two.
GROUPS = ((320, 0.0), (640, 0.1), (960, 0.2), (1280, 0.3), (1600, 0.4))
# (size, filters, dropout) of the two layers after them.
TOP = ((2, 1920, 0.5), (1, 1920, 0.5))

# Side of the field that the unpadded convolutions reduce to one pixel:
# 126 -> 62 -> 30 -> 14 -> 6 -> 2 -> 1. The image lies in its middle, or near it.
FIELD = 126

# The leak of Graham's networks (arXiv 1409.6070), whose field, widths and dropout these
# are too; "very leaky" there, "leaky" in the paper.
LEAK = 1 / 3


@register
def all_cnn_large(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    shift=16,
    width=1.0,
    classifier_activation="softmax",
    name="all_cnn_large",
):
    """Build the large All-CNN, of 18 convolutions over a field of 126x126 pixels.

    arXiv 1412.6806. The image is put in the middle of the field, in training near the
    middle, on mid-grey, the 0 of the scaled pixels; an image that is larger than the
    field in a direction makes the field as large there. The convolutions are
    `group1_conv1` to `group5_conv3`, then `conv16`, `conv17` and, to the classes,
    `conv18`.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        shift: pixels that an image is moved in its field at most, in training.
        width: multiplies filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0, or `shift` not a whole number from 0 on.
    """

    def convolve(x, size, filters, name, strides=1):
        x = convolution(
            x,
            scaled(filters, width),
            size,
            name,
            activation=None,
            strides=strides,
            kernel_initializer=INITIALIZER,
        )
        return keras.layers.LeakyReLU(negative_slope=LEAK, name=f"{name}_leaky")(x)

    def drop(x, rate, name):
        return keras.layers.Dropout(rate, name=f"{name}_dropout")(x)

    image, x = image_input(input_shape)
    field = [max(FIELD, side) for side in input_shape[:2]]
    x = RandomPlacement2D(*field, shift, name="field")(x)  # (N, 126, 126, channels)
    for group, (filters, rate) in enumerate(GROUPS, start=1):
        for place in (1, 2):
            layer = f"group{group}_conv{place}"
            x = drop(convolve(x, 2, filters, layer), rate, layer)
        x = convolve(x, 2, filters, f"group{group}_conv3", strides=2)
    # (N, 2, 2, 1600)
    for number, (size, filters, rate) in enumerate(TOP, start=16):
        layer = f"conv{number}"
        x = drop(convolve(x, size, filters, layer), rate, layer)
    x = keras.layers.Conv2D(classes, 1, kernel_initializer=INITIALIZER, name="conv18")(
        x
    )
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)  # of one pixel
    return keras.Model(image, outputs(x, classifier_activation), name=name)
