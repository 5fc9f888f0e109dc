"""VGG: nothing but 3x3 convolutions, in blocks that end in a pooling.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, arXiv 1409.1556, Table 1. The names without suffix are the
form that is trained on CIFAR-10, with one dense layer for a head; those that end in
`_imagenet` are the paper's. `_bn` normalises after every convolution, which the paper,
two months older than batch normalisation, does not.
"""

import keras

from zoo.blocks import classifier, convolution, image_input, scaled
from zoo.variants import variant

# Table 1: (number of 3x3 convolutions, filters of each) of the blocks, each of which
# ends in a 2x2 pooling; and the dense layers before the last one, for ImageNet.
BLOCKS = {
    "vgg11": ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),  # configuration A
    "vgg13": ((2, 64), (2, 128), (2, 256), (2, 512), (2, 512)),  # B
    "vgg16": ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),  # D
    "vgg19": ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)),  # E
}
DENSE = (4096, 4096)

# Variance 2/fan_in keeps the scale of a signal through ReLU layers (arXiv 1502.01852,
# equation 10). With Glorot's, Keras' default, it halves a layer that keeps its width:
# the logits of all images are alike after 16, and plain VGG19 stays at 10 %. By fan-in,
# they start as large in VGG19 as in VGG11; by fan-out it trains as well.
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
    """Build a network of the VGG kind; layers are named as in `keras.applications`.

    Args:
        blocks: (number of 3x3 convolutions, filters) of each block.
        input_shape: (height, width, channels), at least 32x32 pixels with five
            blocks: 2^blocks.
        dense: units of the ReLU layers between the last pooling and the classifier.
        dropout: rate after each dense layer but the last.
        batch_normalization: normalise between convolution (biased) and ReLU.
        width: multiplies filters and units; 1 for the published network.

    Raises:
        ValueError: the images are too small, or `width` is not above 0.
    """
    options = {"padding": "same", "kernel_initializer": INITIALIZER}
    image, x = image_input(input_shape, minimum=2 ** len(blocks))
    for number, (convolutions, filters) in enumerate(blocks, start=1):
        filters = scaled(filters, width)
        for place in range(1, convolutions + 1):
            layer = f"block{number}_conv{place}"
            x = convolution(x, filters, 3, layer, batch_normalization, **options)
        x = keras.layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    # (N, 1, 1, 512) at 32x32, (N, 7, 7, 512) at 224x224
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(dense, start=1):
        x = keras.layers.Dense(
            scaled(units, width), "relu", True, INITIALIZER, name=f"fc{number}"
        )(x)
        x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    x = classifier(x, classes, classifier_activation)
    return keras.Model(image, x, name=name)


def _variants(row, letter):
    """Register the four forms of a row of the table."""
    source = f"Configuration {letter} of arXiv 1409.1556, Table 1"
    for suffix, ending in (("", "."), ("_bn", ", with batch normalisation.")):
        fixed = {"blocks": BLOCKS[row], "batch_normalization": bool(suffix)}
        title = f"Build {row.upper()} with one dense layer{ending}\n\n    {source}."
        small = {**fixed, "dense": (), "dropout": 0.0}
        yield variant(vgg, row + suffix, title, small)
        title = f"Build {row.upper()} for ImageNet{ending}\n\n    {source}."
        size = {"input_shape": (224, 224, 3), "classes": 1000}
        fixed["dense"] = DENSE
        yield variant(vgg, f"{row}{suffix}_imagenet", title, fixed, **size)


vgg11, vgg11_imagenet, vgg11_bn, vgg11_bn_imagenet = _variants("vgg11", "A")
vgg13, vgg13_imagenet, vgg13_bn, vgg13_bn_imagenet = _variants("vgg13", "B")
vgg16, vgg16_imagenet, vgg16_bn, vgg16_bn_imagenet = _variants("vgg16", "D")
vgg19, vgg19_imagenet, vgg19_bn, vgg19_bn_imagenet = _variants("vgg19", "E")
