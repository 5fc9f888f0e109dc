"""VGG: nothing but 3x3 convolutions, in blocks that end in a pooling.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv 1409.1556, Table 1. The names without suffix are the
form that is trained on CIFAR-10, with one dense layer for a head; those that end in
`_imagenet` are the paper's. `_bn` normalises after every convolution, which the paper,
two months older than batch normalisation, does not.
"""

import keras

from zoo.blocks import classifier, convolution, image_input, scaled
from zoo.registry import register

# Table 1: (number of 3x3 convolutions, filters of each) of the blocks, each of which
# ends in a 2x2 pooling.
BLOCKS = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),  # configuration A
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),  # B
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),  # D
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),  # E
}
CONFIGURATIONS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}

# The two fully-connected layers before the last one, in the ImageNet form.
DENSE = (4096, 4096)

# Variance 2/fan_in keeps the scale of a signal through ReLU layers (He et al. 2015,
# arXiv 1502.01852, equation 10). Keras' default, Glorot's, has half of that where a
# layer keeps its width: a signal of 1 is 2^-8 after 16 layers, the logits of all images
# are alike, and plain VGG19 stays at 10 %. Fan-in keeps the signal on the way forward,
# fan-out the gradient on the way back; the two differ by √(C_out/C_in) a layer, which
# telescopes to √(512/3) = 13 over the network, so either trains. Fan-in it is, because
# the logits then start as large in VGG19 as in VGG11.
INITIALIZER = "he_normal"


def vgg(
    blocks,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dense=(),
    dropout=0.5,
    batch_normalization=False,
    width=1.0,
    classifier_activation="softmax",
    name="vgg",
):
    """Build a network of the VGG kind from its table of blocks.

    The layers are named as in `keras.applications`: `block1_conv1`, `block1_pool`,
    `fc1`, `fc2`; with batch normalisation `block1_conv1_bn` and `block1_conv1_relu`
    follow each convolution, which keeps its bias.

    Args:
        blocks: (number of 3x3 convolutions, filters) of each block.
        input_shape: (height, width, channels), at least 2^blocks pixels either way:
            32x32 with five blocks.
        classes: number of classes.
        dense: units of the ReLU layers between the last pooling and the classifier.
        dropout: rate after each of them.
        batch_normalization: normalise between convolution and ReLU.
        width: multiplies filters and dense units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are too small for the poolings, or `width` is not
            above 0.
    """
    image, x = image_input(input_shape, minimum=2 ** len(blocks))
    for number, (convolutions, filters) in enumerate(blocks, start=1):
        for place in range(1, convolutions + 1):
            x = convolution(
                x,
                scaled(filters, width),
                3,
                f"block{number}_conv{place}",
                batch_normalization,
                padding="same",
                kernel_initializer=INITIALIZER,
            )
        x = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    # (N, 1, 1, 512) at 32x32, (N, 7, 7, 512) at 224x224
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(dense, start=1):
        x = keras.layers.Dense(
            scaled(units, width),
            activation="relu",
            kernel_initializer=INITIALIZER,
            name=f"fc{number}",
        )(x)
        x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = classifier(x, classes, classifier_activation)
    return keras.Model(image, x, name=name)


_ARGUMENTS = """

    Args:
        input_shape: (height, width, channels), at least 32x32 pixels.
        classes: number of classes.
        {dropout}width: multiplies filters{and_units}; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 32x32 pixels, or `width` is not above
            0.
    """


def _variant(configuration, suffix, build):
    """Name and document the builder of one variant, and register it."""
    name = f"{configuration}{suffix}"
    title = f"configuration {CONFIGURATIONS[configuration]} of arXiv 1409.1556, Table 1"
    normalised = " and batch normalisation" if "_bn" in suffix else ""
    imagenet = suffix.endswith("_imagenet")
    form = "two dense layers of 4096" if imagenet else "one dense layer"
    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"Build {configuration.upper()}: {title}, with {form}{normalised}."
        + _ARGUMENTS.format(
            dropout="dropout: rate after each of the two dense layers.\n        "
            if imagenet
            else "",
            and_units=" and units" if imagenet else "",
        )
    )
    return register(build)


def _cifar(configuration, suffix=""):
    def build(
        input_shape=(32, 32, 3),
        classes=10,
        *,
        width=1.0,
        classifier_activation="softmax",
        name=f"{configuration}{suffix}",
    ):
        return vgg(
            BLOCKS[configuration],
            input_shape,
            classes,
            batch_normalization="_bn" in suffix,
            width=width,
            classifier_activation=classifier_activation,
            name=name,
        )

    return _variant(configuration, suffix, build)


def _imagenet(configuration, suffix="_imagenet"):
    def build(
        input_shape=(224, 224, 3),
        classes=1000,
        *,
        dropout=0.5,
        width=1.0,
        classifier_activation="softmax",
        name=f"{configuration}{suffix}",
    ):
        return vgg(
            BLOCKS[configuration],
            input_shape,
            classes,
            dense=DENSE,
            dropout=dropout,
            batch_normalization="_bn" in suffix,
            width=width,
            classifier_activation=classifier_activation,
            name=name,
        )

    return _variant(configuration, suffix, build)


vgg11 = _cifar("vgg11")
vgg13 = _cifar("vgg13")
vgg16 = _cifar("vgg16")
vgg19 = _cifar("vgg19")
vgg11_bn = _cifar("vgg11", "_bn")
vgg13_bn = _cifar("vgg13", "_bn")
vgg16_bn = _cifar("vgg16", "_bn")
vgg19_bn = _cifar("vgg19", "_bn")
vgg11_imagenet = _imagenet("vgg11")
vgg13_imagenet = _imagenet("vgg13")
vgg16_imagenet = _imagenet("vgg16")
vgg19_imagenet = _imagenet("vgg19")
vgg11_bn_imagenet = _imagenet("vgg11", "_bn_imagenet")
vgg13_bn_imagenet = _imagenet("vgg13", "_bn_imagenet")
vgg16_bn_imagenet = _imagenet("vgg16", "_bn_imagenet")
vgg19_bn_imagenet = _imagenet("vgg19", "_bn_imagenet")
