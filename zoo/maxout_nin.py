"""MIN: Network in Network with maxout units, batch normalisation, average pooling.

Chang, Chen, "Batch-normalized Maxout Network in Network", arXiv 1511.02583, in the form
of the first author's model definition for CIFAR-10
(JiaRenChang/Batch_Normalized_Maxout_NIN, example/cifar/cnn_cifar_init_mnin.m).
"""

import keras

from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.layers import Maxout
from zoo.registry import register

# (name, size, units, maxout) of the convolutions of each block; None: as many units as
# classes. A layer without maxout is linear: batch normalisation follows, and nothing
# else.
BLOCKS = (
    (
        ("conv1", 5, 192, False),
        ("maxoutconv1", 1, 160, True),
        ("maxoutconv2", 1, 96, True),
    ),
    (
        ("conv2", 5, 192, False),
        ("maxoutconv3", 1, 192, True),
        ("maxoutconv4", 1, 192, True),
    ),
    (
        ("conv3", 3, 192, False),
        ("maxoutconv5", 1, 192, True),
        ("maxoutconv6", 1, None, True),
    ),
)


def maxout_nin_of(
    pieces,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="maxout_nin",
):
    """Build a MIN whose maxout units have `pieces` linear functions.

    The convolution `maxoutconv1` is followed by `maxoutconv1_bn` and `maxout1`, and so
    are the others. The last one, to the classes, is no exception; its maps are
    averaged, one for each class.

    Args:
        pieces: linear functions of a maxout unit.
        input_shape: (height, width, channels).
        classes: number of classes.
        dropout: rate after each pooling.
        width: multiplies units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0, or `pieces` is not a positive integer.
    """
    image, x = image_input(input_shape)
    for number, block in enumerate(BLOCKS, start=1):
        for layer, size, units, maxout in block:
            units = scaled(units, width) if units else classes
            # Made first: it is what checks `pieces`.
            unit = Maxout(pieces, name=layer.replace("conv", "")) if maxout else None
            x = convolution(
                x,
                units * pieces if maxout else units,
                size,
                layer,
                batch_normalization=True,
                activation=None,
                padding="same",
                kernel_initializer="orthogonal",
            )
            x = unit(x) if unit else x
        if number < len(BLOCKS):
            # (N, 16, 16, 96), (N, 8, 8, 192); "same" leaves the cells beyond the border
            # out of the mean, and has the windows of the author's padding of one pixel
            # at the end.
            x = keras.layers.AveragePooling2D(
                3, 2, padding="same", name=f"pool{number}"
            )(x)
            x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool3")(x)
    return keras.Model(image, outputs(x, classifier_activation), name=name)


@register
def maxout_nin(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="maxout_nin",
):
    """Build MIN with maxout units of five pieces, the paper's best.

    arXiv 1511.02583.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        dropout: rate after each pooling.
        width: multiplies units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0.
    """
    return maxout_nin_of(
        5,
        input_shape,
        classes,
        dropout=dropout,
        width=width,
        classifier_activation=classifier_activation,
        name=name,
    )


@register
def maxout_nin_2(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="maxout_nin_2",
):
    """Build MIN with maxout units of two pieces.

    arXiv 1511.02583.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        dropout: rate after each pooling.
        width: multiplies units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0.
    """
    return maxout_nin_of(
        2,
        input_shape,
        classes,
        dropout=dropout,
        width=width,
        classifier_activation=classifier_activation,
        name=name,
    )
