"""Fully-connected networks: the lecture's MLP, and softmax regression as the floor."""

import keras

from zoo.blocks import classifier, image_input
from zoo.registry import register

# The volumes of the lecture's CNN after each pooling: 16·16·32, 8·8·16, 4·4·32.
HIDDEN = (8192, 1024, 512)


@register
def dense_mlp(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    hidden=HIDDEN,
    use_bias=False,
    classifier_activation="softmax",
    name="dense_mlp",
):
    """Build the MLP that the lecture holds against its CNN.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        hidden: number of units of each hidden layer; empty for softmax regression.
        use_bias: the lecture counts no biases: 34,083,840 parameters at 32x32x3, 10
            classes and the default `hidden`; with biases they are 34,093,578.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: a hidden layer has not a positive number of units.
    """
    hidden = (hidden,) if isinstance(hidden, int) else hidden
    if not all(isinstance(units, int) and units > 0 for units in hidden):
        raise ValueError(
            f"hidden must be positive integers, units a layer; received {hidden!r}"
        )
    image, x = image_input(input_shape)
    x = keras.layers.Flatten(name="flatten")(x)  # (N, 3072): the structure is lost here
    for number, units in enumerate(hidden, start=1):
        x = keras.layers.Dense(
            units,
            activation="relu",
            use_bias=use_bias,
            kernel_initializer="he_normal",
            name=f"hidden{number}",
        )(x)
    x = classifier(x, classes, classifier_activation, use_bias=use_bias)
    return keras.Model(image, x, name=name)


@register
def linear(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    use_bias=True,
    classifier_activation="softmax",
    name="linear",
):
    """Build softmax regression: every class one weight for each pixel value.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        use_bias: 30,730 parameters with biases at 32x32x3 and 10 classes, 30,720
            without.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).
    """
    return dense_mlp(
        input_shape,
        classes,
        hidden=(),
        use_bias=use_bias,
        classifier_activation=classifier_activation,
        name=name,
    )
