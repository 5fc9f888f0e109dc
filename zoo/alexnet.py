"""AlexNet: five convolutions and three dense layers, which won ImageNet in 2012.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
Networks", NIPS 2012, section 3. What the paper leaves open (padding, 227 pixels) is
taken from Caffe's `bvlc_alexnet`.
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import LocalResponseNormalization
from zoo.registry import register

# Name, filters, size, stride, padding, two groups, initial bias, normalised, pooled.
# The paper starts the biases at 1 where it starts any above 0, so that their ReLUs
# begin alive; Caffe's model did not learn from that, and takes 0.1.
CONVOLUTIONS = (
    ("conv1", 96, 11, 4, "valid", False, 0.0, True, True),
    ("conv2", 256, 5, 1, "same", True, 0.1, True, True),
    ("conv3", 384, 3, 1, "same", False, 0.0, False, False),
    ("conv4", 384, 3, 1, "same", True, 0.1, False, False),
    ("conv5", 256, 3, 1, "same", True, 0.1, False, True),
)
DENSE = {"6": 4096, "7": 4096}


@register
def alexnet(
    input_shape=(227, 227, 3),
    classes=1000,
    *,
    groups=2,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="alexnet",
):
    """Build AlexNet: 60,965,224 parameters, 58,631,144 of them in its dense layers.

    Pixels reach the first convolution as -127.5…127.5, as in the paper, which subtracts
    the mean: the initial kernels and the normalisation are meant for that scale.

    Args:
        input_shape: (height, width, channels), at least 67x67 pixels.
        classes: number of classes.
        groups: parts into which the maps of `conv2`, `conv4` and `conv5` fall, each
            convolved apart: 2 as in the paper, which has one on either of two GPUs;
            1 for the network undivided, 62,378,344 parameters.
        dropout: rate after each of the two dense layers.
        width: multiplies filters and units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 67x67 pixels, `width` is not above 0, or
            `groups` is neither 1 nor 2.
    """
    if groups not in (1, 2):
        raise ValueError(f"groups must be 1 or 2; received {groups!r}")
    # 67 → 15 → 7 → 3 → 1, the last side that the poolings can take.
    image, x = image_input(input_shape, minimum=67)
    x = keras.layers.Rescaling(127.5, name="pixels")(x)
    # (N, 55, 55, 96), (N, 27, 27, 256), (N, 13, 13, 384) twice, (N, 13, 13, 256)
    for (
        layer,
        filters,
        size,
        stride,
        padding,
        grouped,
        bias,
        normalised,
        pooled,
    ) in CONVOLUTIONS:
        x = keras.layers.Conv2D(
            groups * scaled(filters // groups, width),  # a multiple, at any width
            size,
            stride,
            padding,
            groups=groups if grouped else 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(bias),
            name=layer,
        )(x)
        number = layer.removeprefix("conv")
        x = keras.layers.ReLU(name=f"relu{number}")(x)
        if normalised:
            # Section 3.3: k = 2, n = 5, α = 1e-4 and β = 0.75, the sum not divided by
            # n, which this layer does.
            x = LocalResponseNormalization(
                5, alpha=5 * 1e-4, beta=0.75, kappa=2.0, name=f"norm{number}"
            )(x)
        if pooled:
            x = keras.layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # (N, 9216)
    for number, units in DENSE.items():
        x = keras.layers.Dense(
            scaled(units, width),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.005),
            bias_initializer=keras.initializers.Constant(0.1),
            name=f"fc{number}",
        )(x)
        x = keras.layers.ReLU(name=f"relu{number}")(x)
        x = keras.layers.Dropout(dropout, name=f"drop{number}")(x)
    x = classifier(
        x,
        classes,
        classifier_activation,
        name="fc8",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
    )
    return keras.Model(image, x, name=name)
