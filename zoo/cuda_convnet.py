"""cuda-convnet: the CIFAR-10 network that came with the first fast GPU convolutions.

Krizhevsky, cuda-convnet, 2012: the network with 18 % test error in 20 minutes, in the
form of Caffe's `cifar10_full`, which took it over.
"""

import keras

from zoo.blocks import classifier, image_input, scaled
from zoo.layers import AveragePooling2D, LocalResponseNormalization
from zoo.registry import register

# (filters, standard deviation of the initial kernel, pooling) of the three stages
STAGES = ((32, 1e-4, "max"), (32, 0.01, "average"), (64, 0.01, "average"))
POOLING = {
    "max": keras.layers.MaxPooling2D,
    "average": AveragePooling2D,
}


@register
def cuda_convnet(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    normalization=True,
    width=1.0,
    classifier_activation="softmax",
    name="cuda_convnet",
):
    """Build the network of cuda-convnet: three 5x5 convolutions, 89,578 parameters.

    Each is followed by a pooling of 3x3 windows that overlap, in steps of 2; the first
    is pooled before its ReLU, which changes nothing for a maximum. Pixels reach the
    first convolution as -127.5…127.5: the kernels that it starts from, the constants
    of the normalisation and the published learning rates are meant for that scale.

    Args:
        input_shape: (height, width, channels), of any size. Windows are placed as in
            Caffe, from pixel 0 with the last cut short, where sides are even: 32, 16
            and 8 are.
        classes: number of classes.
        normalization: normalise the response over three neighbouring maps after the
            first two poolings; no weights.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes).

    Raises:
        ValueError: `width` is not above 0.
    """
    image, x = image_input(input_shape)
    x = keras.layers.Rescaling(127.5, name="pixels")(x)
    # (N, 32, 32, 32), (N, 16, 16, 32), (N, 8, 8, 64), each pooled to half
    for number, (filters, deviation, pooling) in enumerate(STAGES, start=1):
        x = keras.layers.Conv2D(
            scaled(filters, width),
            5,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=deviation),
            name=f"conv{number}",
        )(x)
        pool = POOLING[pooling](3, 2, padding="same", name=f"pool{number}")
        relu = keras.layers.ReLU(name=f"relu{number}")
        x = relu(pool(x)) if pooling == "max" else pool(relu(x))
        if normalization and number < len(STAGES):
            x = LocalResponseNormalization(3, alpha=5e-5, name=f"norm{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)  # (N, 1024)
    x = classifier(
        x,
        classes,
        classifier_activation,
        name="ip1",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
    )
    return keras.Model(image, x, name=name)
