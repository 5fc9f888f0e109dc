"""All-CNN: convolutions only, also where others pool.

Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All
Convolutional Net", ICLR 2015 workshop, arXiv 1412.6806, Tables 1 and 2. Three base
networks A, B and C pool twice. Of each the paper derives three others, to find out
what the pooling does: one that strides instead, one that has as many layers as the
All-CNN but pools, and the All-CNN, in which a 3x3 convolution of stride 2 stands for
each pooling. `all_cnn_large` is the network of the paper's best result.
"""

import keras

from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.layers import RandomPlacement2D
from zoo.registry import register

# Table 1: (size, filters) of the convolutions before the first and the second pooling.
BLOCKS = {
    "a": (((5, 96),), ((5, 192),)),
    "b": (((5, 96), (1, 96)), ((5, 192), (1, 192))),
    "c": (((3, 96), (3, 96)), ((3, 192), (3, 192))),
}
# What follows in all of them, before a 1x1 convolution to the classes.
TOP = ((3, 192), (1, 192))

# Table 2: what becomes of a block and its pooling, a 3x3 window of stride 2.
FORMS = ("base", "strided", "convpool", "all")

# The paper does not say; He's keeps the scale of the signal through ReLU layers.
INITIALIZER = "he_normal"


def all_cnn(
    blocks,
    form="all",
    input_shape=(32, 32, 3),
    classes=10,
    *,
    input_dropout=0.2,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="all_cnn",
):
    """Build a network of the paper's Tables 1 and 2.

    The convolutions are named `conv1`, `conv2`, … in their order, the poolings `pool1`
    and `pool2`. All are padded but the 3x3 convolution after the last reduction, so
    that 32x32 pixels leave the 6x6 maps that the paper averages. ReLU follows every
    convolution, the one to the classes included.

    Args:
        blocks: (size, filters) of the convolutions of each block, which ends in a
            reduction to half the size.
        form: how a block reduces: "base" by max pooling, "strided" by a stride of 2 in
            its last convolution, "convpool" by one more 3x3 convolution and max
            pooling, "all" by a 3x3 convolution of stride 2.
        input_shape: (height, width, channels), at least 9x9 pixels with two blocks.
        classes: number of classes.
        input_dropout: rate after the input.
        dropout: rate after each reduction.
        width: multiplies filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the form is not one of the four, the images are too small, or
            `width` is not above 0.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; received {form!r}")
    least = 3  # pixels for the unpadded 3x3 convolution
    for _ in blocks:
        least = (
            2 * least - 1
        )  # the least size whose half rounds up to that: 9 -> 5 -> 3
    image, x = image_input(input_shape, minimum=least)
    x = keras.layers.Dropout(input_dropout, name="input_dropout")(x)
    number = 0

    def convolve(x, size, filters, **options):
        nonlocal number
        number += 1
        return convolution(
            x,
            filters,
            size,
            f"conv{number}",
            kernel_initializer=INITIALIZER,
            **{"padding": "same", **options},
        )

    for place, block in enumerate(blocks, start=1):
        *before, (size, filters) = block
        for early_size, early_filters in before:
            x = convolve(x, early_size, scaled(early_filters, width))
        filters = scaled(filters, width)
        x = convolve(x, size, filters, strides=2 if form == "strided" else 1)
        # "same" has the windows of a pooling that rounds up: 32 -> 16 -> 8.
        if form == "all":
            x = convolve(x, 3, filters, strides=2)
        if form == "convpool":
            x = convolve(x, 3, filters)
        if form in ("base", "convpool"):
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{place}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout{place}")(x)
    (size, filters), (last_size, last_filters) = TOP
    x = convolve(x, size, scaled(filters, width), padding="valid")  # (N, 6, 6, 192)
    x = convolve(x, last_size, scaled(last_filters, width))
    x = convolve(x, 1, classes)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, outputs(x, classifier_activation), name=name)


_TITLES = {
    "base": "Model {}, which max-pools twice",
    "strided": "Strided-CNN-{}: model {} with strides in place of its poolings",
    "convpool": "ConvPool-CNN-{}: model {} with a convolution before each pooling",
    "all": "All-CNN-{}: model {} with a strided convolution for each pooling",
}

_DOCSTRING = """Build {title}.

    arXiv 1412.6806, Tables 1 and 2.

    Args:
        input_shape: (height, width, channels), at least 9x9 pixels.
        classes: number of classes.
        input_dropout: rate after the input.
        dropout: rate after each reduction to half the size.
        width: multiplies filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 9x9 pixels, or `width` is not above 0.
    """


def _variant(letter, form="all"):
    """Make, name, document and register the builder of one variant."""
    variant = f"all_cnn_{letter}" + ("" if form == "all" else f"_{form}")

    def build(
        input_shape=(32, 32, 3),
        classes=10,
        *,
        input_dropout=0.2,
        dropout=0.5,
        width=1.0,
        classifier_activation="softmax",
        name=variant,
    ):
        return all_cnn(
            BLOCKS[letter],
            form,
            input_shape,
            classes,
            input_dropout=input_dropout,
            dropout=dropout,
            width=width,
            classifier_activation=classifier_activation,
            name=name,
        )

    build.__name__ = build.__qualname__ = variant
    title = _TITLES[form].format(letter.upper(), letter.upper())
    build.__doc__ = _DOCSTRING.format(title=title)
    return register(build)


all_cnn_a_base = _variant("a", "base")
all_cnn_a_strided = _variant("a", "strided")
all_cnn_a_convpool = _variant("a", "convpool")
all_cnn_a = _variant("a")
all_cnn_b_base = _variant("b", "base")
all_cnn_b_strided = _variant("b", "strided")
all_cnn_b_convpool = _variant("b", "convpool")
all_cnn_b = _variant("b")
all_cnn_c_base = _variant("c", "base")
all_cnn_c_strided = _variant("c", "strided")
all_cnn_c_convpool = _variant("c", "convpool")
all_cnn_c = _variant("c")


# The large network. (filters, dropout) of its groups, each of three 2x2 convolutions of
# which the last has stride 2; the dropout follows the first two.
GROUPS = ((320, 0.0), (640, 0.1), (960, 0.2), (1280, 0.3), (1600, 0.4))
# (size, filters, dropout) of the two layers after them.
LARGE_TOP = ((2, 1920, 0.5), (1, 1920, 0.5))

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
    for number, (size, filters, rate) in enumerate(LARGE_TOP, start=16):
        layer = f"conv{number}"
        x = drop(convolve(x, size, filters, layer), rate, layer)
    x = keras.layers.Conv2D(classes, 1, kernel_initializer=INITIALIZER, name="conv18")(
        x
    )
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)  # of one pixel
    return keras.Model(image, outputs(x, classifier_activation), name=name)
