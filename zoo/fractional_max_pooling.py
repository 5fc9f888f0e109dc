"""Fractional max pooling networks: twelve levels that each shrink the map by ∛2.

Graham, "Fractional Max-Pooling", arXiv 1412.6071, section 4. After three levels a map
is half as wide, where an ordinary network has one pooling of two: it can be deeper,
and each pooling is drawn anew, in prediction too, where the mean over several passes
is the answer of an ensemble that shares its weights.
"""

import keras

from zoo.blocks import image_input, scaled
from zoo.deep_cnet import (
    batch_shared_dropout,
    check,
    ending,
    in_field,
    leaky_convolution,
)
from zoo.layers import FractionalMaxPooling2D
from zoo.variants import variant

# The paper's formula for CIFAR-10: (160n C2 - FMP ∛2)12 - C2 - C1 - output: at level n,
# 160·n filters of 2x2, then a pooling that divides height and width by ∛2.
LEVELS = 12
RATIO = 2 ** (1 / 3)


def chain(levels=LEVELS, ratio=RATIO):
    """Return how wide the maps of a network are, worked out from its end.

    The last 2x2 convolution takes 2 pixels to 1. A pooling that leaves N pixels has
    ⌊N·ratio + ½⌋ before it (one more where that is N itself), and the 2x2 convolution
    before that has one more, as in the author's program. Returns for each level the
    width of its input, that after its convolution, and that after its pooling:
    (94, 93, 74), …, (4, 3, 2).
    """
    rows, pooled = [], 2
    for _ in range(levels):
        convolved = max(int(pooled * ratio + 0.5), pooled + 1)
        rows.append((convolved + 1, convolved, pooled))
        pooled = convolved + 1
    return rows[::-1]


def field_width(levels=LEVELS):
    """Return the height and width of the field of a network: 94 for 12 levels."""
    return chain(levels)[0][0]


def network(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    filters=160,
    dropout=0.5,
    mode="pseudorandom",
    regions="overlapping",
    shared=False,
    deterministic=False,
    levels=LEVELS,
    shift=16,
    width=1.0,
    classifier_activation="softmax",
    name="fractional_max_pooling",
):
    """Build (filters·n C2 - FMP ∛2)levels - C2 - C1 - output.

    The layers are named `conv1`, `conv1_relu`, `pool1`, …; `dropout2` follows `pool2`,
    where it does what it would do before the pooling, on fewer values.

    Args:
        input_shape: (height, width, channels), at most 94x94 pixels with 12 levels:
            the field keeps its size, and the image lies in the middle of it.
        filters: filters of the first level; level n has n times as many.
        dropout: rate of the last hidden layer; it grows from 0 in equal steps.
        mode: order of the steps, "pseudorandom" or "random".
        regions: "overlapping" (2x2, the author's program), "inclusive" (2 or 3, the
            paper's) or "disjoint" (1 or 2).
        shared: draw the regions once for all images of a batch; faster.
        deterministic: use the same regions always, in the middle of the random ones.
        levels: number of poolings; the field grows with it.
        shift: how many pixels an image is moved in the field, at most, when training.
        width: multiplies filters; 1 for the published network.

    Raises:
        ValueError: the images are larger than the field, or `levels`, `filters` or
            `width` is not above 0.
    """
    check(levels=levels, filters=filters)
    image, x = image_input(input_shape)
    x = in_field(x, field_width, levels, shift)

    def convolve(x, level, size, pooling=1):
        units = scaled(level * filters, width)
        return leaky_convolution(x, units, size, f"conv{level}", pooling)

    def drop(x, level):
        rate = dropout * (level - 1) / (levels + 1)
        return batch_shared_dropout(x, rate, f"dropout{level}")

    for level, (_, _, pooled) in enumerate(chain(levels), start=1):
        x = convolve(x, level, 2, RATIO)
        x = FractionalMaxPooling2D(
            pooled,
            mode=mode,
            regions=regions,
            shared=shared,
            deterministic=deterministic,
            name=f"pool{level}",
        )(x)
        x = drop(x, level)
    for level, size in ((levels + 1, 2), (levels + 2, 1)):  # C2 - C1
        x = drop(convolve(x, level, size), level)
    return keras.Model(image, ending(x, classes, classifier_activation), name=name)


def _variant(name, filters, **defaults):
    title = f"""Build a fractional max pooling network, {filters}·n filters at level n.

    Its outputs are random, in prediction too, unless it is `deterministic`."""
    return variant(network, name, title, {}, filters=filters, **defaults)


# The paper's network, the author's small program, and the width of the paper's network
# for CIFAR-100.
fractional_max_pooling = _variant("fractional_max_pooling", 160)
fractional_max_pooling_32 = _variant(
    "fractional_max_pooling_32", 32, dropout=0.1, mode="random"
)
fractional_max_pooling_64 = _variant("fractional_max_pooling_64", 64)
