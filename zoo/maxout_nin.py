"""MIN: Network in Network with maxout units, batch normalisation, average pooling.

Chang, Chen, "Batch-normalized Maxout Network in Network", arXiv 1511.02583, in the form
of the first author's model definition for CIFAR-10
(JiaRenChang/Batch_Normalized_Maxout_NIN, example/cifar/cnn_cifar_init_mnin.m).
"""

import keras

from zoo.blocks import convolution, image_input, nin_blocks, outputs
from zoo.layers import AveragePooling2D, Maxout
from zoo.variants import variant

# (name, size, units) of the layers of each block; None: as many units as classes. The
# layer `conv1` is linear: batch normalisation follows, and no maxout as in the others.
BLOCKS = (
    (("conv1", 5, 192), ("maxoutconv1", 1, 160), ("maxoutconv2", 1, 96)),
    (("conv2", 5, 192), ("maxoutconv3", 1, 192), ("maxoutconv4", 1, 192)),
    (("conv3", 3, 192), ("maxoutconv5", 1, 192), ("maxoutconv6", 1, None)),
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
        dropout: rate after each pooling.
        width: multiplies units; 1 for the published network.

    Raises:
        ValueError: `width` is not above 0.
    """

    def unit(x, units, size, layer):
        maxout = layer.startswith("maxout")
        # Made first: it is what checks `pieces`.
        largest = Maxout(pieces, name=layer.replace("conv", "")) if maxout else None
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
        return largest(x) if maxout else x

    # (N, 16, 16, 96), (N, 8, 8, 192); "same" leaves the cells beyond the border out of
    # the mean, and has the windows of the author's padding of one pixel at the end.
    pools = [
        AveragePooling2D(3, 2, padding="same", name=f"pool{number}")
        for number in (1, 2)
    ]
    image, x = image_input(input_shape)
    x = nin_blocks(
        x, BLOCKS, classes, unit, pools, dropout=dropout, width=width, average="pool3"
    )
    return keras.Model(image, outputs(x, classifier_activation), name=name)


maxout_nin = variant(
    maxout_nin_of,
    "maxout_nin",
    """Build MIN with maxout units of five pieces, the paper's best.

    arXiv 1511.02583.""",
    {"pieces": 5},
)
maxout_nin_2 = variant(
    maxout_nin_of,
    "maxout_nin_2",
    """Build MIN with maxout units of two pieces.

    arXiv 1511.02583.""",
    {"pieces": 2},
)
