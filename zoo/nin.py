"""Network in Network: a small network slides over the image in place of a filter.

Lin, Chen, Yan, "Network In Network", ICLR 2014, arXiv 1312.4400, in the form of the
first author's model definition for CIFAR-10 (mavenlin/cuda-convnet, NIN/cifar-10_def),
whose layer names these are: `cccp` for "cascaded cross channel parametric pooling", the
paper's other name of a 1x1 convolution. `nin_bn` normalises after every convolution;
`tree_gated_nin` learns its poolings (arXiv 1509.08985).
"""

import keras

from zoo.blocks import convolution, image_input, nin_blocks, outputs
from zoo.layers import GatedPooling2D, TreePooling2D
from zoo.registry import register
from zoo.variants import variant

# (name, size, filters) of the convolutions of each block; None: as many as classes.
BLOCKS = (
    (("conv1", 5, 192), ("cccp1", 1, 160), ("cccp2", 1, 96)),
    (("conv2", 5, 192), ("cccp3", 1, 192), ("cccp4", 1, 192)),
    (("conv3", 3, 192), ("cccp5", 1, 192), ("cccp6", 1, None)),
)

# The author draws every kernel from N(0, 0.05), for whitened images. With 192 channels
# that is half of He's for a 1x1 convolution: the logits are of the order of 0.002, and
# it takes long until they move. He's keeps the scale of the pixels, as in `zoo.vgg`.
INITIALIZER = "he_normal"


def nin_of(
    pools=None,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=0.5,
    batch_normalization=False,
    width=1.0,
    classifier_activation="softmax",
    name="nin",
):
    """Build a Network in Network from its two poolings.

    ReLU follows every convolution, the one to the classes included; its maps are
    averaged, one for each class.

    Args:
        pools: two layers, after the first and after the second block; default the max
            poolings of the paper.
        input_shape: (height, width, channels).
        dropout: rate after each pooling.
        batch_normalization: normalise between convolution and ReLU (`conv1_bn`,
            `conv1_relu`); the convolutions keep their biases.
        width: multiplies filters; 1 for the published network.

    Raises:
        ValueError: `width` is not above 0.
    """

    def unit(x, filters, size, layer):
        return convolution(
            x,
            filters,
            size,
            layer,
            batch_normalization,
            padding="same",
            kernel_initializer=INITIALIZER,
        )

    # Max poolings 3/2; "same" rounds up like cuda-convnet's, 32 -> 16 -> 8.
    pools = pools or [
        keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{number}")
        for number in (1, 2)
    ]
    image, x = image_input(input_shape)
    x = nin_blocks(
        x, BLOCKS, classes, unit, pools, dropout=dropout, width=width, average="poolg"
    )
    return keras.Model(image, outputs(x, classifier_activation), name=name)


nin = variant(
    nin_of,
    "nin",
    """Build Network in Network, for CIFAR-10.

    arXiv 1312.4400; three blocks of a convolution and two 1x1 convolutions.""",
    {"pools": None, "batch_normalization": False},
)
nin_bn = variant(
    nin_of,
    "nin_bn",
    "Build Network in Network with batch normalisation after every convolution.",
    {"pools": None, "batch_normalization": True},
)


@register
def tree_gated_nin(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    levels=2,
    per_channel=False,
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="tree_gated_nin",
):
    """Build Network in Network with poolings that are learned.

    Lee, Gallagher, Tu, arXiv 1509.08985: tree pooling first, gated max-average pooling
    second, the arrangement of their best result.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        levels: levels of the tree of the first pooling.
        per_channel: learn a tree and a gate for each channel; default one for the
            layer.
        dropout: rate after each pooling.
        width: multiplies filters; 1 for the published widths.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0, or `levels` is below 2.
    """
    return nin_of(
        [
            TreePooling2D(levels, per_channel=per_channel, name="pool1"),
            GatedPooling2D(per_channel=per_channel, name="pool2"),
        ],
        input_shape,
        classes,
        dropout=dropout,
        width=width,
        classifier_activation=classifier_activation,
        name=name,
    )
