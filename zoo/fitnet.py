"""FitNet-4: nineteen thin layers, which LSUV initialisation makes trainable.

Mishkin and Matas, "All you need is a good init", ICLR 2016, arXiv 1511.06422, and the
authors' code, ducha-aiki/LSUVinit. The network is that of Romero et al., "FitNets:
Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550. LSUV itself is not in the
network but in the recipe: `initialization = "lsuv"`.
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import Maxout
from zoo.variants import variant

# Filters of the 3x3 convolutions of each block, a 2x2 pooling after the first two;
# units of the dense layer; linear pieces of a unit in convolutions and dense layer.
BLOCKS = ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6)
UNITS = 500
PIECES = {"maxout": (2, 5), "relu": (1, 1)}

# FitResNet-4, as this project reads it: the output of a layer, to which the output of
# an earlier one is added, over each pair of convolutions that keeps the width.
SUMS = {
    "conv1_3": "conv1_1",  # 32 → 32
    "conv2_4": "conv2_2",  # 80 → 80
    "conv2_6": "conv2_4",
    "conv3_4": "conv3_2",  # 128 → 128
    "conv3_6": "conv3_4",
}


def fitnet(
    sums,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    activation="maxout",
    dropout=0.2,
    width=1.0,
    classifier_activation="softmax",
    name="fitnet",
):
    """Build a FitNet of seventeen convolutions.

    Args:
        sums: of layers, by name, the earlier layer whose output is added to theirs.
        input_shape: (height, width, channels), at least 4x4 pixels.
        activation: "maxout", or "relu" with a single piece for each unit.
        dropout: rate, of the pixels, after each pooling and after the dense layer.
        width: multiplies filters and units; 1 for the published network.

    Raises:
        ValueError: the images are smaller than 4x4 pixels, or an argument is out of
            its range.
    """
    if activation not in PIECES:
        raise ValueError(
            f"activation must be one of {', '.join(PIECES)}; received {activation!r}"
        )
    pieces, dense_pieces = PIECES[activation]
    image, x = image_input(input_shape, minimum=4)
    x = keras.layers.Dropout(dropout, name="data_drop")(x)
    after = {}  # the output of each layer, by its name
    for block, row in enumerate(BLOCKS, start=1):
        for place, filters in enumerate(row, start=1):
            layer = f"conv{block}_{place}"
            x = _units(
                x, scaled(filters, width), pieces, layer, keras.layers.Conv2D, 3, "same"
            )
            if layer in sums:
                x = keras.layers.Add(name=f"{layer}_add")([x, after[sums[layer]]])
            after[layer] = x
        # (N, 16, 16, 48), (N, 8, 8, 80), (N, 128)
        x = (
            keras.layers.MaxPooling2D(2, name=f"pool{block}")(x)
            if block < len(BLOCKS)
            else keras.layers.GlobalMaxPooling2D(name=f"pool{block}")(x)
        )
        x = keras.layers.Dropout(dropout, name=f"pool{block}_drop")(x)
    x = _units(x, scaled(UNITS, width), dense_pieces, "ip1", keras.layers.Dense)
    x = keras.layers.Dropout(dropout, name="ip1_drop")(x)
    x = classifier(x, classes, classifier_activation, name="clf")
    return keras.Model(image, x, name=name)


def _units(x, units, pieces, name, layer, size=None, padding=None):
    """Apply maxout units, or those of ReLU where they have a single piece."""
    window = {} if size is None else {"kernel_size": size, "padding": padding}
    relu = pieces == 1
    x = layer(
        units * pieces,
        activation="relu" if relu else None,
        # The starting point of LSUV. ReLU takes half of the signal's energy.
        kernel_initializer=keras.initializers.Orthogonal(2**0.5 if relu else 1.0),
        name=name,
        **window,
    )(x)
    return x if relu else Maxout(pieces, name=f"{name}_maxout")(x)


fitnet4 = variant(
    fitnet,
    "fitnet4",
    """Build FitNet-4 with maxout units: 17 convolutions, 2,742,102 parameters.

    A unit of a convolution is the largest of two linear pieces, one of the dense layer
    of five. The layers are named as in the authors' definition: `conv1_1`, `pool1`,
    `ip1`, `clf`; `conv1_1_maxout` takes the maximum.""",
    {"sums": {}, "activation": "maxout"},
)
fitnet4_relu = variant(
    fitnet,
    "fitnet4_relu",
    "Build FitNet-4 with ReLU: the filters of `fitnet4`, 1,276,806 parameters.",
    {"sums": {}, "activation": "relu"},
)
fit_resnet4 = variant(
    fitnet,
    "fit_resnet4",
    """Build FitResNet-4, as this project reads it: FitNet-4 with identity shortcuts.

    The paper says that FitResNet-4 adds residual connections to FitNet-4; where they
    are is this project's reading. Here each pair of convolutions that keeps the width
    has its input added to its output, after the activation: five sums (`conv1_3_add`,
    `conv2_4_add`, …), and no weight more than FitNet-4 has.""",
    {"sums": SUMS},
)
