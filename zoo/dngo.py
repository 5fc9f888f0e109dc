"""The network that DNGO tuned: plain, and 93.63 % by its hyper-parameters.

Snoek et al., "Scalable Bayesian Optimization Using Deep Neural Networks", ICML 2015,
arXiv 1502.05700. The paper is about the search, not about the network; what it
searched and can be built in (dropout, initial scale) is an option here.
"""

import keras

from zoo.blocks import check_classes, image_input, outputs, scaled
from zoo.registry import register

# (filters, size, padding) of the convolutions of each stage; all but the last stage
# end in a pooling. One more, 1x1 with a map for each class, ends the network.
STAGES = (
    ((96, 3, "same"), (96, 3, "same")),
    ((192, 3, "same"), (192, 3, "same"), (192, 3, "same")),
    ((192, 3, "valid"), (192, 1, "same")),
)


@register
def dngo_cnn(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    input_dropout=0.1,
    hidden_dropout=0.5,
    gain=1.0,
    width=1.0,
    classifier_activation="softmax",
    name="dngo_cnn",
):
    """Build the network that DNGO tuned: eight convolutions, 1,286,698 parameters.

    Args:
        input_shape: (height, width, channels), at least 9x9 pixels.
        classes: number of classes.
        input_dropout: rate of the pixels; 0 for none.
        hidden_dropout: rate after each of the two poolings; 0 for none.
        gain: multiplies the standard deviation of the initial kernels, He's at 1.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: the images are smaller than 9x9 pixels, `width` or `gain` is not
            above 0, or there are fewer than two classes.
    """
    if not gain > 0:
        raise ValueError(f"gain must be above 0; received {gain!r}")
    check_classes(classes)

    def convolve(x, filters, size, padding, activation, name):
        return keras.layers.Conv2D(
            filters,
            size,
            padding=padding,
            activation=activation,
            # The gain multiplies the standard deviation: its square, the variance.
            kernel_initializer=keras.initializers.VarianceScaling(
                2 * gain**2, mode="fan_in"
            ),
            name=name,
        )(x)

    # 9 → 5 → 3, which the last 3x3 convolution takes to 1.
    image, x = image_input(input_shape, minimum=9)
    x = keras.layers.Dropout(input_dropout, name="input_dropout")(x)
    # (N, 32, 32, 96), (N, 16, 16, 192), (N, 6, 6, 192)
    for number, stage in enumerate(STAGES, start=1):
        for place, (filters, size, padding) in enumerate(stage, start=1):
            filters = scaled(filters, width)
            x = convolve(x, filters, size, padding, "relu", f"conv{number}_{place}")
        if number < len(STAGES):
            # Windows from pixel 0, the last cut short: 32 → 16 → 8.
            x = keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{number}")(x)
            x = keras.layers.Dropout(hidden_dropout, name=f"dropout{number}")(x)
    x = convolve(x, classes, 1, "same", None, "conv3_3")  # (N, 6, 6, 10)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, outputs(x, classifier_activation), name=name)
