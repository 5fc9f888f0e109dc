"""DeepCNet and DeepCNiN: slow max pooling of a small image in a large empty field.

Graham, "Spatially-sparse convolutional neural networks", arXiv 1409.6070. The image
lies in a field three times as wide, so that the training can move and distort it
without a loss, and so that every pixel of it is seen by many filters at many places.
The author computes only where the image is; here all of the field is computed, with
the same numbers, since a field of zeros is what a sparse network assumes.
"""

import math

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import RandomPlacement2D
from zoo.variants import variant

# "A form of leaky ReLU", as the paper says: x below 0 is divided by 3.
SLOPE = 1 / 3

# DeepCNet(l, k), section 2: k C3 - MP2 - 2k C2 - MP2 - … - lk C2 - MP2 - (l+1)k C2. The
# field is 3·2^l wide: for l = 5, (filters, size of them, width of the map after the
# convolution and after the pooling):
#
#     k    3   94  47
#     2k   2   46  23
#     3k   2   22  11
#     4k   2   10   5
#     5k   2    4   2
#     6k   2    1
LEVELS = 5
FIRST, OTHERS = 3, 2


def field_width(levels=LEVELS):
    """Return the height and width of the field of DeepCNet(levels, k): 3·2^levels."""
    return 3 * 2**levels


def deep(
    network_in_network,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    levels=LEVELS,
    filters=300,
    dropout=0.5,
    shift=16,
    width=1.0,
    classifier_activation="softmax",
    name="deep",
):
    """Build DeepCNet(levels, filters), or DeepCNiN with 1x1 convolutions in it.

    The layers are named `conv1`, `pool1`, `nin1`, …; `dropout2` follows `conv2`.

    Args:
        network_in_network: a 1x1 convolution after every pooling and at the end.
        input_shape: (height, width, channels), at most as large as the field:
            3·2^levels pixels either way, 96 with 5 levels.
        levels: number of poolings; one more convolution than that.
        filters: filters k of the first level; level n has n times as many.
        dropout: rate of the last level's maps; it grows from 0 in equal steps.
        shift: how many pixels an image is moved in the field, at most, when training.
        width: multiplies filters; 1 for the published network.

    Raises:
        ValueError: the images are larger than the field, or `levels`, `filters` or
            `width` is not above 0.
    """
    check(levels=levels, filters=filters)
    image, x = image_input(input_shape)
    x = in_field(x, field_width, levels, shift)
    for level in range(1, levels + 2):
        last = level == levels + 1
        units = scaled(level * filters, width)
        size = FIRST if level == 1 else OTHERS
        x = leaky_convolution(x, units, size, f"conv{level}", 1 if last else 2)
        x = batch_shared_dropout(x, dropout * (level - 1) / levels, f"dropout{level}")
        if not last:
            x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
        if network_in_network:
            x = leaky_convolution(x, units, 1, f"nin{level}")
    return keras.Model(image, ending(x, classes, classifier_activation), name=name)


def check(**numbers):
    """Raise ValueError for arguments of a builder not above 0, `levels` not whole."""
    for name, value in numbers.items():
        if not value > 0 or (name == "levels" and not isinstance(value, int)):
            wanted = "a whole number above 0" if name == "levels" else "above 0"
            raise ValueError(f"{name} must be {wanted}; received {value!r}")


def in_field(x, width_of, levels, shift):
    """Put images, scaled such that 0 is grey, into a field (N, field, field, channels).

    `width_of` tells a field's width by its levels; `shift` is how many pixels an image
    is moved in training, at most. ValueError where an image is larger than the field.
    """
    field, largest = width_of(levels), max(x.shape[1:3])
    if largest > field:
        enough = levels
        while width_of(enough) < largest:
            enough += 1
        raise ValueError(
            f"the field of {levels} levels takes images of at most {field}x{field} "
            f"pixels; received {x.shape[1]}x{x.shape[2]}. Take smaller images, or "
            f"levels={enough}, whose field is {width_of(enough)} wide"
        )
    return RandomPlacement2D(field, field, shift, name="field")(x)


def leaky_convolution(x, filters, size, name, pooling=1):
    """Convolve without padding, and apply the leaky ReLU.

    The weights start from a uniform distribution within ±√(6/(fan in + s·filters)),
    s = (size/pooling)², the biases from 0: Glorot's rule (AISTATS 2010, equation 16)
    with the fan out that the pooling leaves, as in the author's program. `pooling` is
    by how much the one that follows shrinks each axis; 1 for none.
    """
    fan_out = (size / pooling) ** 2 * filters
    initializer = uniform(size * size * x.shape[-1], fan_out)
    x = keras.layers.Conv2D(filters, size, kernel_initializer=initializer, name=name)(x)
    return keras.layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)


def uniform(fan_in, fan_out):
    """Return the initializer within ±√(6/(fan_in + fan_out))."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return keras.initializers.RandomUniform(-limit, limit)


def batch_shared_dropout(x, rate, name):
    """Drop whole feature maps, the same ones for all images of a batch.

    The author's "batchwise dropout": Keras' dropout, with one value of its mask for
    each channel. At rate 0 there is no layer.
    """
    if rate == 0:
        return x
    return keras.layers.Dropout(rate, noise_shape=(1, 1, 1, None), name=name)(x)


def ending(x, classes, activation):
    """End a network on maps of one pixel, (N, 1, 1, channels), with a dense layer."""
    x = keras.layers.Flatten(name="flatten")(x)
    initializer = uniform(x.shape[-1], classes)
    return classifier(x, classes, activation, kernel_initializer=initializer)


_CNET = "convolutions and slow max pooling in a large field"
_CNIN = "a DeepCNet with a 1x1 convolution after every pooling and at the end"


def _variant(name, title, inner, filters):
    fixed, title = {"network_in_network": inner}, f"Build {title}({LEVELS}, {filters})"
    title += f": {_CNIN if inner else _CNET}."
    return variant(deep, name, title, fixed, filters=filters)


deep_cnet = _variant("deep_cnet", "DeepCNet", False, 300)
deep_cnin = _variant("deep_cnin", "DeepCNiN", True, 300)
deep_cnin_100 = _variant("deep_cnin_100", "DeepCNiN", True, 100)
