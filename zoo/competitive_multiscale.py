"""Competitive multi-scale convolution: filters of several sizes, the strongest counts.

Liao and Carneiro, "Competitive Multi-scale Convolution", arXiv 1511.05635. The module
is GoogLeNet's Inception with a maximum in place of the concatenation: it keeps the
number of channels, and there is no other activation.
"""

import keras

from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.registry import register

# The modules of the three blocks: (sizes of the windows, filters of each). None stands
# for the number of classes.
BLOCKS = (
    (((1, 3, 5, 7), 192), ((1, 3), 160), ((1, 3), 96)),
    (((1, 3, 5, 7), 192), ((1, 3), 192), ((1, 3), 192)),
    (((1, 3, 5), 192), ((1, 3), 192), ((1, 3), None)),
)


def competitive_block(x, filters, sizes=(1, 3, 5, 7), name="competitive"):
    """Convolve with windows of several sizes and keep the largest of the responses.

    Each convolution is normalised before the comparison, or the largest window, whose
    sums have the most terms, would win it everywhere. The layers are `NAME_3x3`,
    `NAME_3x3_bn`, and so on, and `NAME_max`. ValueError for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"a maximum needs two sizes or more; received {sizes!r}")
    responses = [
        convolution(
            x,
            filters,
            size,
            f"{name}_{size}x{size}",
            batch_normalization=True,
            activation=None,
            padding="same",
            kernel_initializer="he_normal",
        )
        for size in sizes
    ]
    return keras.layers.Maximum(name=f"{name}_max")(responses)


@register
def competitive_multiscale(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="competitive_multiscale",
):
    """Build the network of competitive multi-scale modules of arXiv 1511.05635.

    Args:
        input_shape: (height, width, channels), of any size.
        classes: number of classes.
        dropout: rate after the first and the second block.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0.
    """
    image, x = image_input(input_shape)
    for block, modules in enumerate(BLOCKS, start=1):
        for module, (sizes, filters) in enumerate(modules, start=1):
            filters = classes if filters is None else scaled(filters, width)
            x = competitive_block(x, filters, sizes, f"block{block}_module{module}")
        if block < len(BLOCKS):  # (N, 16, 16, 96), (N, 8, 8, 192)
            x = keras.layers.MaxPooling2D(
                3, 2, padding="same", name=f"block{block}_pool"
            )(x)
            x = keras.layers.Dropout(dropout, name=f"block{block}_dropout")(x)
    x = keras.layers.GlobalAveragePooling2D(name="block3_pool")(x)  # over 8x8
    return keras.Model(image, outputs(x, classifier_activation), name=name)
