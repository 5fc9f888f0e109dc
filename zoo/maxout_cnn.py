"""The maxout network: units that are the largest of several linear functions.

Goodfellow, Warde-Farley, Mirza, Courville, Bengio, "Maxout Networks", ICML 2013, arXiv
1302.4389, section 5.2, in the form of the authors' model definition for CIFAR-10
(lisa-lab/pylearn2, scripts/papers/maxout/cifar10.yaml).
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import CeilMaxPooling2D, Maxout
from zoo.registry import register

# units, pieces, size of a filter, padding on each side, pooling, its stride, largest
# norm of a filter
CONVOLUTIONS = (
    (96, 2, 8, 4, 4, 2, 0.9),
    (192, 2, 8, 3, 4, 2, 1.9365),
    (192, 2, 5, 3, 2, 2, 1.9365),
)
# units, pieces, largest norm of the weights of a unit's piece
DENSE = (500, 5, 1.9)
# of the weights of a class
CLASSIFIER_NORM = 1.9365

# Every kernel starts from U(-0.005, 0.005), `irange` of the definition.
RANGE = 0.005

# The least image: its maps must fill the second filter, 4 -> 2 with 3 pixels around.
LEAST = 4


def _uniform():
    return keras.initializers.RandomUniform(-RANGE, RANGE)


@register
def maxout_cnn(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    input_dropout=0.2,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="maxout_cnn",
):
    """Build the maxout network for CIFAR-10: three convolutions, two dense layers.

    arXiv 1302.4389. A convolution `conv1` of units·pieces filters is followed by
    `maxout1` and `pool1`. The poolings round up, as in cuda-convnet, on which the
    authors' code ran: 32x32 pixels become maps of 33, 16, 15, 7, 9 and 5 pixels a
    side. No filter may grow beyond a norm, which is what the dropout networks of
    that time had in place of weight decay.

    Args:
        input_shape: (height, width, channels), at least 4x4 pixels.
        classes: number of classes.
        input_dropout: rate after the input.
        dropout: rate before every other layer with weights.
        width: multiplies units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 4x4 pixels, or `width` is not above 0.
    """
    image, x = image_input(input_shape, minimum=LEAST)
    x = keras.layers.Dropout(input_dropout, name="input_dropout")(x)
    for number, row in enumerate(CONVOLUTIONS, start=1):
        units, pieces, size, padding, pool, stride, norm = row
        x = keras.layers.ZeroPadding2D(padding, name=f"pad{number}")(x)
        x = keras.layers.Conv2D(
            scaled(units, width) * pieces,
            size,
            kernel_initializer=_uniform(),
            kernel_constraint=keras.constraints.MaxNorm(norm, axis=[0, 1, 2]),
            name=f"conv{number}",
        )(x)
        x = Maxout(pieces, name=f"maxout{number}")(x)
        x = CeilMaxPooling2D(pool, stride, name=f"pool{number}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # 5·5·192 = 4800 features
    units, pieces, norm = DENSE
    x = keras.layers.Dense(
        scaled(units, width) * pieces,
        kernel_initializer=_uniform(),
        kernel_constraint=keras.constraints.MaxNorm(norm, axis=0),
        name="fc1",
    )(x)
    x = Maxout(pieces, name="maxout4")(x)
    x = keras.layers.Dropout(dropout, name="dropout4")(x)
    x = classifier(
        x,
        classes,
        classifier_activation,
        kernel_initializer=_uniform(),
        kernel_constraint=keras.constraints.MaxNorm(CLASSIFIER_NORM, axis=0),
    )
    return keras.Model(image, x, name=name)
