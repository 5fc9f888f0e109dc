"""What the networks share: pixels in, convolutions, blocks, probabilities out."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import keras


def image_input(input_shape=(32, 32, 3), *, minimum=1):
    """Start a network: an input named `image`, and its pixels scaled to -1…1.

    Args:
        input_shape: (height, width, channels) of the images, pixels 0…255.
        minimum: the least height and width that the network can take.

    Returns:
        The input tensor and the scaled tensor, both (N, height, width, channels).

    Raises:
        ValueError: `input_shape` is not three positive integers, or too small, or Keras
            is set to channels first.
    """
    if (order := keras.config.image_data_format()) != "channels_last":
        raise ValueError(
            f"Keras is set to {order!r}, the networks here have channels last: call "
            'keras.config.set_image_data_format("channels_last") before'
        )
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    if len(shape) != 3 or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(
            "input_shape must be three positive integers (height, width, channels); "
            f"received {input_shape!r}"
        )
    shape = tuple(map(int, shape))
    if min(shape[:2]) < minimum:
        raise ValueError(
            f"this network needs images of at least {minimum}x{minimum} pixels; "
            f"received input_shape={shape}"
        )
    image = keras.Input(shape, name="image")
    return image, keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)


def classifier(features, classes=10, activation="softmax", *, name="fc", **dense):
    """End a network on features (N, features): a dense layer, then `outputs`.

    `dense` are further arguments of `keras.layers.Dense`; ValueError for fewer than two
    classes.
    """
    check_classes(classes)
    logits = keras.layers.Dense(int(classes), name=name, **dense)(features)
    return outputs(logits, activation)


def check_classes(classes):
    """Raise ValueError for fewer than two classes."""
    if not isinstance(classes, Integral) or classes < 2:
        raise ValueError(
            f"classes must be an integer of 2 or more; received {classes!r}"
        )


def outputs(logits, activation="softmax", *, name=None):
    """Turn logits (N, classes) into float32 probabilities, or logits for None.

    They are float32 under mixed precision too. The layer is named "probabilities", or
    "logits". ValueError for fewer than two classes.
    """
    check_classes(logits.shape[-1])
    name = name or ("probabilities" if activation else "logits")
    return keras.layers.Activation(activation, dtype="float32", name=name)(logits)


def scaled(width_of_paper: int, factor: float) -> int:
    """Return the width of a layer in a slim network: at least one filter or unit."""
    if not factor > 0:
        raise ValueError(f"width must be above 0; received {factor!r}")
    return max(1, round(width_of_paper * factor))


# PyTorch's batch normalisation (its momentum 0.1 is 0.9 in Keras), with which the
# published CIFAR-10 recipes were run; Keras' own defaults are 1e-3 and 0.99.
EPSILON, MOMENTUM = 1e-5, 0.9


def convolution(
    x, filters, size, name, batch_normalization=False, activation="relu", **options
):
    """Convolve, normalise where asked to, and apply the activation, a name or None.

    `name` is that of the convolution; `_bn` and `_relu` (the name of the activation)
    are added for the others. `options` are further arguments of `keras.layers.Conv2D`.
    """
    x = keras.layers.Conv2D(
        filters,
        size,
        activation=None if batch_normalization else activation,
        name=name,
        **options,
    )(x)
    if batch_normalization:
        x = keras.layers.BatchNormalization(
            epsilon=EPSILON, momentum=MOMENTUM, name=f"{name}_bn"
        )(x)
        if activation == "relu":
            x = keras.layers.ReLU(name=f"{name}_relu")(x)
        elif activation:
            x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
    return x


def inception_block(
    x: Any,
    n1x1: int,
    n3x3_reduce: int,
    n3x3: int,
    n5x5_reduce: int,
    n5x5: int,
    pool_proj: int,
    *,
    batch_normalization: bool = False,
    double_3x3: bool = False,
    kernel_initializer: Any = "he_normal",
    bias_initializer: Any = "zeros",
    name: str = "inception",
) -> Any:
    """Apply an Inception module: four branches, side by side on the channel axis.

    arXiv 1409.4842, Figure 2(b). The layers are named after the columns of the paper's
    Table 1: `NAME_1x1`, `NAME_3x3_reduce`, `NAME_3x3`, `NAME_5x5_reduce`, `NAME_5x5`,
    `NAME_pool`, `NAME_pool_proj`, and `NAME_output` for the concatenation.

    Args:
        x: tensor (N, height, width, channels).
        n1x1: filters of the 1x1 branch.
        n3x3_reduce: 1x1 filters before the 3x3 convolution.
        n3x3: 3x3 filters.
        n5x5_reduce: 1x1 filters before the 5x5 convolution.
        n5x5: 5x5 filters.
        pool_proj: 1x1 filters after the 3x3 max pooling of stride 1.
        batch_normalization: normalise between convolution and ReLU (`…_bn`, `…_relu`).
        double_3x3: two 3x3 convolutions, `NAME_5x5_1` and `NAME_5x5_2`, in place of
            the 5x5: the same window, fewer weights where reduce and filters agree, one
            ReLU more.
        kernel_initializer: of all six convolutions; a name, or those of one shape
            start alike.
        bias_initializer: likewise.
        name: name of the module.

    Returns:
        Tensor (N, height, width, n1x1 + n3x3 + n5x5 + pool_proj).
    """

    def convolve(x, filters, size, column):
        return convolution(
            x,
            filters,
            size,
            f"{name}_{column}",
            batch_normalization,
            padding="same",
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
        )

    one = convolve(x, n1x1, 1, "1x1")
    three = convolve(x, n3x3_reduce, 1, "3x3_reduce")
    three = convolve(three, n3x3, 3, "3x3")
    five = convolve(x, n5x5_reduce, 1, "5x5_reduce")
    if double_3x3:
        five = convolve(five, n5x5, 3, "5x5_1")
        five = convolve(five, n5x5, 3, "5x5_2")
    else:
        five = convolve(five, n5x5, 5, "5x5")
    pool = keras.layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    pool = convolve(pool, pool_proj, 1, "pool_proj")
    return keras.layers.Concatenate(name=f"{name}_output")([one, three, five, pool])


def nin_blocks(x, blocks, classes, unit, pools, *, dropout=0.5, width=1.0, average):
    """Apply the blocks of a Network in Network, up to an average for each class.

    Args:
        x: tensor (N, height, width, channels).
        blocks: of each block its layers, (name, size, filters); None in place of the
            filters for as many as classes.
        classes: number of classes.
        unit: function (x, filters, size, name): a convolution and what follows it.
        pools: a layer for the end of each block but the last.
        dropout: rate after each of them.
        width: multiplies filters.
        average: name of the global average pooling at the end.
    """
    for number, block in enumerate(blocks, start=1):
        for layer, size, filters in block:
            x = unit(x, scaled(filters, width) if filters else classes, size, layer)
        if number < len(blocks):
            x = pools[number - 1](x)
            x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
    return keras.layers.GlobalAveragePooling2D(name=average)(x)
