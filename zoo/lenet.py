"""LeNet-5: convolution, pooling, convolution, pooling, dense, in 1998.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998, section II.B and Figure 2.
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.registry import register

# Figure 2: feature maps of C1 and C3, units of C5 and F6.
MAPS = {"c1": 6, "c3": 16}
UNITS = {"c5": 120, "f6": 84}


@register
def lenet5(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    modern=False,
    width=1.0,
    classifier_activation="softmax",
    name="lenet5",
):
    """Build LeNet-5: two 5x5 convolutions, each pooled, and three dense layers.

    With 62,006 parameters at 32x32x3 and 10 classes; 61,706 for gray images. The layers
    are named as in the paper's Figure 2: `c1`, `s2`, `c3`, `s4`, `c5`, `f6`. C5, a
    5x5 convolution there, sees 5x5 maps whole at 32x32 and is a dense layer here.

    Args:
        input_shape: (height, width, channels), at least 16x16 pixels.
        classes: number of classes.
        modern: False for tanh and average pooling, the form of 1998; True for ReLU and
            max pooling, the form that most current texts show.
        width: multiplies maps and units; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 16x16 pixels, or `width` is not above 0.
    """
    layer = keras.layers
    activation, pooling, initializer = (
        ("relu", layer.MaxPooling2D, "he_normal")
        if modern
        else ("tanh", layer.AveragePooling2D, "glorot_uniform")
    )
    options = {"activation": activation, "kernel_initializer": initializer}
    # (N, 28, 28, 6), (N, 14, 14, 6), (N, 10, 10, 16), (N, 5, 5, 16)
    image, x = image_input(input_shape, minimum=16)
    for (convolution, maps), subsampling in zip(
        MAPS.items(), ("s2", "s4"), strict=True
    ):
        x = layer.Conv2D(scaled(maps, width), 5, name=convolution, **options)(x)
        x = pooling(2, name=subsampling)(x)
    x = layer.Flatten(name="flatten")(x)  # (N, 400)
    for dense, units in UNITS.items():
        x = layer.Dense(scaled(units, width), name=dense, **options)(x)
    x = classifier(x, classes, classifier_activation, name="output")
    return keras.Model(image, x, name=name)
