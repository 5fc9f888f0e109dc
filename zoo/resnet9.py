"""ResNet-9: the small residual network that won DAWNBench's CIFAR-10 race in 2018.

Page, "How to Train Your ResNet", 2018, and the author's code, davidcpage/cifar10-fast
(`dawn.py`).
"""

import keras

from zoo.blocks import classifier, convolution, image_input, scaled
from zoo.registry import register

# (name, filters, pooled, followed by a residual of two convolutions)
LAYERS = (
    ("prep", 64, False, False),
    ("layer1", 128, True, True),
    ("layer2", 256, True, False),
    ("layer3", 512, True, True),
)

# PyTorch's default, uniform within ±1/√fan_in, which has a variance of 1/(3·fan_in).
INITIALIZER = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}


@register
def resnet9(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    classifier_activation="softmax",
    name="resnet9",
):
    """Build ResNet-9: eight 3x3 convolutions and a dense layer, 6,573,120 parameters.

    Args:
        input_shape: (height, width, channels), at least 8x8 pixels. The last pooling
            is global: 4x4 at 32x32, as published.
        classes: number of classes.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 8x8 pixels, or `width` is not above 0.
    """
    image, x = image_input(input_shape, minimum=8)
    for layer, filters, pooled, residual in LAYERS:
        filters = scaled(filters, width)
        x = _convolution(x, filters, layer)
        if pooled:
            x = keras.layers.MaxPooling2D(2, name=f"{layer}_pool")(x)
        if residual:
            shortcut = x
            x = _convolution(x, filters, f"{layer}_res1")
            x = _convolution(x, filters, f"{layer}_res2")
            # The sum comes after the second ReLU, and none follows it.
            x = keras.layers.Add(name=f"{layer}_add")([shortcut, x])
    # (N, 4, 4, 512) at 32x32, where the published 4x4 pooling is the global one.
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    # The published logits are multiplied by 0.125. Without a bias it is the same to
    # scale the features, and the dense layer stays the last.
    x = keras.layers.Rescaling(0.125, name="scale_features")(x)
    x = classifier(
        x,
        classes,
        classifier_activation,
        name="linear",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(**INITIALIZER),
    )
    return keras.Model(image, x, name=name)


def _convolution(x, filters, name):
    return convolution(
        x,
        filters,
        3,
        name,
        batch_normalization=True,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(**INITIALIZER),
    )
