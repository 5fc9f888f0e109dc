"""All-CNN: convolutions only, also where others pool.

Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All
Convolutional Net", ICLR 2015 workshop, arXiv 1412.6806, Tables 1 and 2. Three base
networks A, B and C pool twice. Of each the paper derives three others, to find out
what the pooling does: one that strides instead, one that has as many layers as the
All-CNN but pools, and the All-CNN, in which a 3x3 convolution of stride 2 stands for
each pooling. The network of the paper's best result is in `zoo.all_cnn_large`.
"""

import keras

from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.variants import variant

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
        input_dropout: rate after the input.
        dropout: rate after each reduction.
        width: multiplies filters; 1 for the published network.

    Raises:
        ValueError: the form is not one of the four, the images are too small, or
            `width` is not above 0.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; received {form!r}")
    least = 3  # pixels for the unpadded 3x3 convolution
    for _ in blocks:  # the least size whose half rounds up to that: 9 -> 5 -> 3
        least = 2 * least - 1
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
    "base": "Model {0}, which max-pools twice",
    "strided": "Strided-CNN-{0}: model {0} with strides in place of its poolings",
    "convpool": "ConvPool-CNN-{0}: model {0} with a convolution before each pooling",
    "all": "All-CNN-{0}: model {0} with a strided convolution for each pooling",
}


def _variant(letter, form="all"):
    name = f"all_cnn_{letter}" + ("" if form == "all" else f"_{form}")
    title = f"Build {_TITLES[form]}.\n\n    arXiv 1412.6806, Tables 1 and 2."
    title = title.format(letter.upper())
    return variant(all_cnn, name, title, {"blocks": BLOCKS[letter], "form": form})


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
