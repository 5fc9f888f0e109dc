"""The two ends that every network of the zoo shares: pixels in, probabilities out."""

import keras


def image_input(input_shape=(32, 32, 3), *, minimum=1):
    """Start a network: an input named `image`, and its pixels scaled to -1…1.

    Args:
        input_shape: (height, width, channels) of the images, pixels 0…255.
        minimum: the least height and width that the network can take.

    Returns:
        The input tensor and the scaled tensor, both (N, height, width, channels).

    Raises:
        ValueError: `input_shape` is not three positive integers, or too small.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            "input_shape must be three positive integers (height, width, channels); "
            f"received {input_shape!r}"
        )
    if min(shape[:2]) < minimum:
        raise ValueError(
            f"this network needs images of at least {minimum}x{minimum} pixels; "
            f"received input_shape={shape}"
        )
    image = keras.Input(shape, name="image")
    return image, keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)


def classifier(features, classes=10, activation="softmax", *, name="fc", **dense):
    """End a network: a dense layer, then float32 probabilities (or logits).

    Args:
        features: tensor (N, features).
        classes: number of classes, two or more.
        activation: "softmax", or None for the logits.
        name: name of the dense layer, which holds all the weights.
        **dense: further arguments of `keras.layers.Dense`.

    Returns:
        Tensor (N, classes), float32 under mixed precision too.

    Raises:
        ValueError: fewer than two classes.
    """
    check_classes(classes)
    logits = keras.layers.Dense(classes, name=name, **dense)(features)
    return outputs(logits, activation)


def check_classes(classes):
    """Refuse fewer than two classes.

    Raises:
        ValueError: naming what was received.
    """
    if not isinstance(classes, int) or classes < 2:
        raise ValueError(f"classes must be an integer of 2 or more; received {classes}")


def outputs(logits, activation="softmax", *, name=None):
    """Turn logits (N, classes) into the float32 output of a network.

    Args:
        logits: tensor (N, classes).
        activation: "softmax", or None for the logits.
        name: name of the layer; default "probabilities", or "logits" without
            activation.

    Returns:
        Tensor (N, classes), float32 under mixed precision too.

    Raises:
        ValueError: fewer than two classes.
    """
    check_classes(logits.shape[-1])
    name = name or ("probabilities" if activation else "logits")
    return keras.layers.Activation(activation, dtype="float32", name=name)(logits)


def scaled(width_of_paper: int, factor: float) -> int:
    """Return the width of a layer in a slim network: at least one filter or unit.

    Raises:
        ValueError: the factor, which builders call `width`, is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"width must be above 0; received {factor!r}")
    return max(1, round(width_of_paper * factor))


# PyTorch's batch normalisation (its momentum 0.1 is 0.9 in Keras), with which the
# published CIFAR-10 recipes were run; Keras' own defaults are 1e-3 and 0.99.
EPSILON, MOMENTUM = 1e-5, 0.9


def convolution(
    x, filters, size, name, batch_normalization=False, activation="relu", **options
):
    """Convolve, normalise where asked to, and apply the activation.

    Args:
        x: tensor (N, height, width, channels).
        filters: number of filters.
        size: height and width of a filter.
        name: name of the convolution; `_bn` and `_relu` (the name of the activation)
            are added for the others.
        batch_normalization: normalise between convolution and activation.
        activation: name of an activation, such as "relu" or "elu", or None.
        **options: further arguments of `keras.layers.Conv2D`.

    Returns:
        Tensor (N, height, width, filters), after the padding and strides of `options`.
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
