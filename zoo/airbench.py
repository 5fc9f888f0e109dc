"""airbench: 94, 95 and 96 % on CIFAR-10 in 3.8, 10.4 and 34.7 seconds on one A100.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv 2404.00498, and
the author's code, KellerJordan/cifar10-airbench. A frozen convolution whitens 2x2
patches; three blocks of 3x3 convolutions follow, which start as the identity.
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import DiracInitializer, PatchWhitening2D
from zoo.variants import variant

# Filters of the three blocks; convolutions in a block (with three, the input of the
# last two is added to their output); momentum of batch normalisation, as Keras has it.
NETWORKS = {
    "airbench94": ((64, 256, 256), 2, 0.6),
    "airbench95": ((128, 384, 384), 2, 0.6),
    "airbench96": ((128, 384, 512), 3, 0.9),
}

# The published ε is 5e-4 for pixels with a standard deviation of 1. Scaled to -1…1,
# those of CIFAR-10 have one of 0.49, and a quarter of the variance.
WHITENING_EPSILON = 5e-4 / 4


def airbench(
    network,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    classifier_activation="softmax",
    name="airbench",
):
    """Build a network of the table.

    Args:
        network: name of a row of `NETWORKS`.
        input_shape: (height, width, channels), at least 9x9 pixels. The last pooling
            is global: 3x3 at 32x32, as published.
        width: multiplies the filters of the blocks; 1 for the published network.

    Raises:
        ValueError: the images are smaller than 9x9 pixels, or `width` is not above 0.
    """
    filters, convolutions, momentum = NETWORKS[network]
    # One pixel goes to the whitening, then three halvings: 9 → 8 → 4 → 2 → 1.
    image, x = image_input(input_shape, minimum=9)
    x = PatchWhitening2D(2, WHITENING_EPSILON, name="whitening")(x)  # (N, 31, 31, 24)
    x = keras.layers.Activation("gelu", name="whitening_gelu")(x)
    for number, block_filters in enumerate(filters, start=1):
        x = _block(
            x, scaled(block_filters, width), convolutions, momentum, f"block{number}"
        )
    # (N, 3, 3, 256) at 32x32, where the published 3x3 pooling is the global one.
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    # The published logits are divided by 9. Without a bias it is the same to divide
    # the features, and the dense layer stays the last.
    x = keras.layers.Rescaling(1 / 9, name="scale_features")(x)
    x = classifier(
        x,
        classes,
        classifier_activation,
        use_bias=False,
        # PyTorch's default, uniform within ±1/√fan_in
        kernel_initializer=keras.initializers.VarianceScaling(
            1 / 3, mode="fan_in", distribution="uniform"
        ),
    )
    return keras.Model(image, x, name=name)


def _block(x, filters, convolutions, momentum, name):
    """Apply a block: its first convolution is pooled before it is normalised."""

    def convolve(x, place):
        return keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=DiracInitializer(),
            name=f"{name}_conv{place}",
        )(x)

    def normalise(x, place):
        return keras.layers.BatchNormalization(
            momentum=momentum, epsilon=1e-12, scale=False, name=f"{name}_norm{place}"
        )(x)

    def gelu(x, place):  # the exact one, with erf
        return keras.layers.Activation("gelu", name=f"{name}_gelu{place}")(x)

    x = convolve(x, 1)
    x = keras.layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = shortcut = gelu(normalise(x, 1), 1)
    for place in range(2, convolutions + 1):
        x = normalise(convolve(x, place), place)
        if place == convolutions == 3:
            x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
        x = gelu(x, place)
    return x


def _variant(name, title):
    title = f"""Build {name}: {title} (arXiv 2404.00498).

    The kernel of its first layer, `whitening`, is set from training images by that
    layer's `adapt`, which `kerascnn.train` calls; until then it is random. Whitening
    makes the scale and the mean of the pixels irrelevant."""
    return variant(airbench, name, title, {"network": name})


airbench94 = _variant("airbench94", "six convolutions, 94 % in ten epochs")
airbench95 = _variant("airbench95", "airbench94 with more filters")
airbench96 = _variant("airbench96", "nine convolutions and a residual in each block")
