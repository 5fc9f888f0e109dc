"""Recurrent CNN: convolutional layers whose maps excite each other over time.

Liang and Hu, "Recurrent Convolutional Neural Network for Object Recognition", CVPR
2015. One convolution and four recurrent convolutional layers (RCL) of K feature maps
each; unfolded over T steps, 4(T + 1) + 2 layers with the weights of ten.
"""

import keras

from zoo.blocks import classifier, convolution, image_input, scaled
from zoo.layers import RecurrentConv2D
from zoo.variants import variant


def recurrent_cnn(
    maps,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    steps=3,
    normalization="lrn",
    dropout=0.5,
    width=1.0,
    classifier_activation="softmax",
    name="recurrent_cnn",
):
    """Build a recurrent CNN of K feature maps in every layer.

    Args:
        maps: K.
        input_shape: (height, width, channels), of any size.
        steps: recurrent passes T of each recurrent layer, after the feed-forward one;
            the number of weights does not depend on it, above 0.
        normalization: "lrn" for local response normalization of the states, "batch"
            for batch normalisation, one for each time step (and after `conv1`).
        dropout: rate before each recurrent layer.
        width: multiplies the feature maps; 1 for the published network.

    Raises:
        ValueError: `steps` is negative or no integer, `normalization` is unknown, or
            `width` is not above 0.
    """
    if normalization not in ("lrn", "batch"):
        raise ValueError(
            f"normalization must be 'lrn' or 'batch'; received {normalization!r}"
        )
    maps = scaled(maps, width)
    image, x = image_input(input_shape)
    x = convolution(
        x,
        maps,
        5,
        "conv1",
        batch_normalization=normalization == "batch",
        padding="same",
        kernel_initializer="he_normal",
    )
    x = _pooling(x, "pool1")  # (N, 16, 16, K)
    for number in (1, 2, 3, 4):
        x = keras.layers.Dropout(dropout, name=f"dropout{number}")(x)
        x = RecurrentConv2D(
            maps, 3, steps, normalization=normalization, name=f"rcl{number}"
        )(x)
        if number == 2:
            x = _pooling(x, "pool2")  # (N, 8, 8, K)
    x = keras.layers.GlobalMaxPooling2D(name="global_pool")(x)  # (N, K)
    x = classifier(x, classes, classifier_activation)
    return keras.Model(image, x, name=name)


def _pooling(x, name):
    # "same" is cuda-convnet's 3/2 pooling on even sides: 32 to 16 to 8.
    return keras.layers.MaxPooling2D(3, 2, padding="same", name=name)(x)


def _variant(maps):
    title = f"Build RCNN-{maps}: four recurrent layers of {maps} feature maps."
    return variant(recurrent_cnn, f"recurrent_cnn_{maps}", title, {"maps": maps})


recurrent_cnn_96 = _variant(96)
recurrent_cnn_128 = _variant(128)
recurrent_cnn_160 = _variant(160)
