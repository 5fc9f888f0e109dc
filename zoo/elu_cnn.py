"""The ELU networks: deep convolutional networks that learn without normalisation.

Clevert, Unterthiner, Hochreiter, "Fast and Accurate Deep Network Learning by
Exponential Linear Units (ELUs)", ICLR 2016, arXiv 1511.07289, sections 4.2 and 4.3.
ELU(x) is x above 0 and exp(x) - 1 below: the negative values keep the mean of a layer's
outputs near 0.
"""

import keras

from zoo.blocks import convolution, image_input, outputs, scaled
from zoo.variants import variant

# The stacks: (number of convolutions, filters, size of their windows). The last
# convolution of the paper, 1x1 to the classes, is a stack of its own and added below.
STACKS = {
    "elu_cnn_11": (
        ((1, 192, 5),),
        ((1, 192, 1), (1, 240, 3)),
        ((1, 240, 1), (1, 260, 2)),
        ((1, 260, 1), (1, 280, 2)),
        ((1, 280, 1), (1, 300, 2)),
        ((1, 300, 1),),
    ),
    "elu_cnn_18": (
        ((1, 384, 3),),
        ((1, 384, 1), (1, 384, 2), (2, 640, 2)),
        ((1, 640, 1), (3, 768, 2)),
        ((1, 768, 1), (2, 896, 2)),
        ((1, 896, 3), (2, 1024, 2)),
        ((1, 1024, 1), (1, 1152, 2)),
        ((1, 1152, 1),),
    ),
}
# Five stacks end in a pooling: 32x32, 16x16, 8x8, 4x4, 2x2, 1x1.
POOLINGS = 5
# Dropout at the end of each stack; both networks end in the rates 0.5 and 0, the
# latter for the last convolution.
DROPOUT = {
    "elu_cnn_11": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "elu_cnn_18": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0),
}


def elu_cnn(
    network,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    dropout=1.0,
    width=1.0,
    classifier_activation="softmax",
    name="elu_cnn",
):
    """Build an ELU network from its stacks.

    Args:
        network: name of a row of `STACKS`.
        input_shape: (height, width, channels), at least 32x32 pixels.
        dropout: multiplies the rates of dropout: 0, 0.1, …, 0.5 at the end of the
            stacks; 0 for none, 1.5 in the last phase of training of the paper's 18.
        width: multiplies the filters; 1 for the published network.

    Raises:
        ValueError: the images are smaller than 32x32 pixels, `dropout` is not in
            0…2, or `width` is not above 0.
    """
    rates = [dropout * rate for rate in DROPOUT[network]]
    if not all(0 <= rate < 1 for rate in rates):
        raise ValueError(
            "dropout multiplies the rates of the paper, the largest of which is 0.5: "
            f"it must be at least 0 and below 2; received {dropout!r}"
        )
    image, x = image_input(input_shape, minimum=2**POOLINGS)
    for stack, (rows, rate) in enumerate(
        zip(STACKS[network], rates, strict=True), start=1
    ):
        sizes = [(filters, size) for n, filters, size in rows for _ in range(n)]
        for place, (filters, size) in enumerate(sizes, start=1):
            x = convolution(
                x,
                scaled(filters, width),
                size,
                f"stack{stack}_conv{place}",
                activation="elu",
                padding="same",
                kernel_initializer="he_normal",
            )
        if stack <= POOLINGS:
            x = keras.layers.MaxPooling2D(2, name=f"stack{stack}_pool")(x)
        if rate:
            x = keras.layers.Dropout(rate, name=f"stack{stack}_dropout")(x)
    x = convolution(
        x,
        classes,
        1,
        f"stack{len(rates) + 1}_conv1",
        activation=None,
        kernel_initializer="he_normal",
    )  # (N, 1, 1, classes) at 32x32
    # The paper's images are of 32x32 pixels; this makes one vector of larger ones.
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, outputs(x, classifier_activation), name=name)


elu_cnn_11 = variant(
    elu_cnn,
    "elu_cnn_11",
    "Build the network of 11 convolutions of section 4.2 of arXiv 1511.07289.",
    {"network": "elu_cnn_11"},
)
elu_cnn_18 = variant(
    elu_cnn,
    "elu_cnn_18",
    """Build the network of 18 convolutions of section 4.3 of arXiv 1511.07289.

    The paper's 18 leave out the last 1x1 convolution, to the classes.""",
    {"network": "elu_cnn_18"},
)
