"""Networks of adaptive piecewise linear units (APL): their activations are learned.

Agostinelli, Hoffman, Sadowski, Baldi, "Learning Activation Functions to Improve Deep
Neural Networks", ICLR 2015 workshop, arXiv 1412.6830, section 3.1: a convolutional
network and Network in Network (Lin, Chen, Yan, arXiv 1312.4400), each with APL in place
of ReLU. What the paper leaves open is that of the authors' Caffe definitions.
"""

import keras

from zoo.blocks import classifier, image_input, nin_blocks, outputs, scaled
from zoo.layers import APL, AveragePooling2D
from zoo.nin import BLOCKS as NIN_BLOCKS
from zoo.registry import register

# As in the definition for CIFAR-10 of the APL paper's authors; that of the authors of
# Network in Network takes the maximum twice.
NIN_POOLINGS = (keras.layers.MaxPooling2D, AveragePooling2D)

# The convolutional network: (filters of 5x5, pooling 3x3 of stride 2, dropout before
# and after the pooling), then (units, dropout) of the dense layers.
CNN_CONVOLUTIONS = (
    (96, keras.layers.MaxPooling2D, 0.25, 0.25),
    (128, AveragePooling2D, 0.25, 0.25),
    (256, AveragePooling2D, 0.25, 0.5),
)
CNN_DENSE = ((2048, 0.5), (2048, 0.5))


@register
def apl_nin(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    pieces=2,
    sharing="channel",
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="apl_nin",
):
    """Build Network in Network with an APL after every convolution, the last too.

    Args:
        input_shape: (height, width, channels), of any size.
        classes: number of classes.
        pieces: hinges S of each activation function.
        sharing: "channel" for one function a channel, "unit" for one at each place of
            each channel: 2,525,696 weights in place of 5,672 at S = 2 and 32x32.
        dropout: rate after the first and the second block.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `pieces` is not a positive integer, `sharing` is unknown, or `width`
            is not above 0.
    """

    def unit(x, filters, size, layer):
        x = keras.layers.Conv2D(
            filters, size, padding="same", kernel_initializer="he_normal", name=layer
        )(x)
        return APL(pieces, sharing, name=f"{layer}_apl")(x)

    pools = [  # (N, 16, 16, 96), (N, 8, 8, 192)
        pooling(3, 2, padding="same", name=f"pool{number}")
        for number, pooling in enumerate(NIN_POOLINGS, start=1)
    ]
    options = {"dropout": dropout, "width": width, "average": "pool3"}
    image, x = image_input(input_shape)
    x = nin_blocks(x, NIN_BLOCKS, classes, unit, pools, **options)
    return keras.Model(image, outputs(x, classifier_activation), name=name)


@register
def apl_cnn(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    pieces=5,
    sharing="channel",
    width=1.0,
    classifier_activation="softmax",
    name="apl_cnn",
):
    """Build the convolutional network of arXiv 1412.6830, with APL for activation.

    Args:
        input_shape: (height, width, channels), of any size.
        classes: number of classes.
        pieces: hinges S of each activation function.
        sharing: "channel" for one function a channel, "unit" for one at each place of
            each channel, as in the authors' code: 1,515,520 weights in place of 45,760
            at S = 5 and 32x32.
        width: multiplies filters and units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `pieces` is not a positive integer, `sharing` is unknown, or `width`
            is not above 0.
    """

    def activate(x, number):
        # ±0.5 for any S, of the authors' definition of this network.
        slopes = keras.initializers.RandomUniform(-0.5, 0.5)
        return APL(pieces, sharing, slope_initializer=slopes, name=f"apl{number}")(x)

    image, x = image_input(input_shape)
    for number, (filters, pooling, before, after) in enumerate(
        CNN_CONVOLUTIONS, start=1
    ):
        x = keras.layers.Conv2D(
            scaled(filters, width),
            5,
            padding="same",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = activate(x, number)
        x = keras.layers.Dropout(before, name=f"dropout{number}_before_pool")(x)
        x = pooling(3, 2, padding="same", name=f"pool{number}")(x)
        x = keras.layers.Dropout(after, name=f"dropout{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # (N, 4·4·256)
    for number, (units, rate) in enumerate(CNN_DENSE, start=1):
        x = keras.layers.Dense(
            scaled(units, width), kernel_initializer="he_normal", name=f"fc{number}"
        )(x)
        layer = len(CNN_CONVOLUTIONS) + number
        x = activate(x, layer)
        x = keras.layers.Dropout(rate, name=f"dropout{layer}")(x)
    x = classifier(x, classes, classifier_activation, name="fc3")
    return keras.Model(image, x, name=name)
