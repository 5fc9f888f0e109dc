"""GoogLeNet: modules that look at 1x1, 3x3, 5x5 and a pooling side by side.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv 1409.4842. Where the
paper leaves something open (padding, the place of the normalisations, the biases), the
Caffe model of the Berkeley Vision and Learning Center decides. `googlenet_imagenet` is
the paper's network; `googlenet` and `googlenet_3x3` are for images of 32x32 pixels.
"""

import keras

from zoo.blocks import (
    classifier,
    convolution,
    image_input,
    inception_block,
    outputs,
    scaled,
)
from zoo.layers import CeilMaxPooling2D, LocalResponseNormalization
from zoo.registry import register
from zoo.variants import variant

# Table 1 of the paper: the filters of every module, in its columns.
COLUMNS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
TABLE = {
    # #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj      output
    "3a": (64, 96, 128, 16, 32, 32),  # 64 + 128 + 32 + 32 = 256
    "3b": (128, 128, 192, 32, 96, 64),  # 480
    "4a": (192, 96, 208, 16, 48, 64),  # 512
    "4b": (160, 112, 224, 24, 64, 64),  # 512
    "4c": (128, 128, 256, 24, 64, 64),  # 512
    "4d": (112, 144, 288, 32, 64, 64),  # 528
    "4e": (256, 160, 320, 32, 128, 128),  # 832
    "5a": (256, 160, 320, 32, 128, 128),  # 832
    "5b": (384, 192, 384, 48, 128, 128),  # 1024
}
# The pooling that precedes the first module of a stage, and the modules with a head.
POOL_BEFORE = {"4a": "pool3", "5a": "pool4"}
AUXILIARY_AFTER = {"4a": "auxiliary1", "4d": "auxiliary2"}

# Caffe's "xavier", which has the fan-in alone (a name, not an object: layers that share
# an unseeded initializer start alike), and its bias, which the classifiers have not.
XAVIER = {"kernel_initializer": "lecun_uniform"}
CAFFE = XAVIER | {"bias_initializer": keras.initializers.Constant(0.2)}


@register
def googlenet_imagenet(
    input_shape=(224, 224, 3),
    classes=1000,
    *,
    auxiliary=False,
    width=1.0,
    classifier_activation="softmax",
    name="googlenet_imagenet",
):
    """Build GoogLeNet as published: 22 layers with weights, 6,998,552 parameters.

    Args:
        input_shape: (height, width, channels), at least 31x31 pixels; at least 79x79
            with `auxiliary`. The last pooling is global: 7x7 at 224x224, as in the
            paper.
        classes: number of classes.
        auxiliary: add the two classifiers on 4a and 4d, which help training (their
            losses count 0.3 each): 13,378,280 parameters, and a list of three outputs,
            the main one first.
        width: multiplies the filters; 1 for the published network.
        classifier_activation: "softmax" for probabilities, None for logits.
        name: name of the model.

    Returns:
        A functional `keras.Model`: `image` (N, height, width, channels), pixels
        0…255, to float32 (N, classes), or three of them with `auxiliary`.

    Raises:
        ValueError: the images are too small, or `width` is not above 0.
    """
    stem = [scaled(filters, width) for filters in (64, 64, 192)]
    # Five halvings; with the heads, 4a and 4d must have the 5x5 that they average.
    image, x = image_input(input_shape, minimum=79 if auxiliary else 31)
    # Caffe centres the first window on pixel 0; "same" would centre it on pixel 1.
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = convolution(x, stem[0], 7, "conv1", strides=2, **CAFFE)  # (N, 112, 112, 64)
    x = CeilMaxPooling2D(3, 2, name="pool1")(x)  # (N, 56, 56, 64)
    x = LocalResponseNormalization(name="norm1")(x)
    x = convolution(x, stem[1], 1, "conv2_reduce", **CAFFE)
    # (N, 56, 56, 192)
    x = convolution(x, stem[2], 3, "conv2", padding="same", **CAFFE)
    x = LocalResponseNormalization(name="norm2")(x)
    x = CeilMaxPooling2D(3, 2, name="pool2")(x)  # (N, 28, 28, 192)
    heads = []
    for module, row in TABLE.items():
        if module in POOL_BEFORE:
            # (N, 14, 14, 480) before 4a, (N, 7, 7, 832) before 5a
            x = CeilMaxPooling2D(3, 2, name=POOL_BEFORE[module])(x)
        filters = [scaled(column, width) for column in row]
        x = inception_block(x, *filters, name=f"inception_{module}", **CAFFE)
        if auxiliary and module in AUXILIARY_AFTER:
            head = AUXILIARY_AFTER[module]
            heads.append(_auxiliary(x, classes, classifier_activation, width, head))
    x = keras.layers.GlobalAveragePooling2D(name="pool5")(x)  # (N, 1024)
    x = keras.layers.Dropout(0.4, name="dropout")(x)
    x = classifier(x, classes, classifier_activation, **XAVIER)
    return keras.Model(image, [x, *heads] if auxiliary else x, name=name)


def small_googlenet(
    double_3x3,
    input_shape=(32, 32, 3),
    classes=10,
    *,
    width=1.0,
    classifier_activation="softmax",
    name="small_googlenet",
):
    """Build GoogLeNet's nine modules behind one 3x3 convolution, all normalised.

    Args:
        double_3x3: two 3x3 convolutions in place of each 5x5.
        input_shape: (height, width, channels), of any size.
        width: multiplies the filters; 1 for the published network.

    Raises:
        ValueError: `width` is not above 0.
    """
    filters, options = scaled(192, width), {"kernel_initializer": "he_normal"}
    image, x = image_input(input_shape)
    x = convolution(x, filters, 3, "conv1", True, padding="same", **options)
    options |= {"batch_normalization": True, "double_3x3": double_3x3}
    for module, row in TABLE.items():
        if module in POOL_BEFORE:
            # (N, 16, 16, 480) before 4a, (N, 8, 8, 832) before 5a
            x = _pytorch_pooling(x, POOL_BEFORE[module])
        filters = [scaled(column, width) for column in row]
        x = inception_block(x, *filters, name=f"inception_{module}", **options)
    x = keras.layers.GlobalAveragePooling2D(name="pool5")(x)  # (N, 1024)
    x = classifier(x, classes, classifier_activation)
    return keras.Model(image, x, name=name)


googlenet = variant(
    small_googlenet,
    "googlenet",
    """Build GoogLeNet for small images: its nine modules behind one 3x3 convolution.

    The first convolution and its poolings would take a 32x32 image to 4x4 before the
    first module; this form keeps the full size up to 3b, and normalises after every
    convolution. The 5x5 branch is the paper's.""",
    {"double_3x3": False},
)
googlenet_3x3 = variant(
    small_googlenet,
    "googlenet_3x3",
    """Build `googlenet` with two 3x3 convolutions in place of each 5x5.

    The form of the PyTorch collection kuangliu/pytorch-cifar, 6,166,250 trainable
    parameters.""",
    {"double_3x3": True},
)


def _auxiliary(x, classes, activation, width, name):
    """Build one of the classifiers in the middle of the network (section 5)."""
    # (N, 4, 4, …) at 224x224. At sizes that 5x5 windows of stride 3 do not tile, Caffe
    # would add a smaller window at the end.
    x = keras.layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = convolution(x, scaled(128, width), 1, f"{name}_conv", **CAFFE)
    x = keras.layers.Flatten(name=f"{name}_flatten")(x)  # (N, 2048)
    x = keras.layers.Dense(
        scaled(1024, width), activation="relu", name=f"{name}_fc1", **CAFFE
    )(x)
    x = keras.layers.Dropout(0.7, name=f"{name}_dropout")(x)
    x = keras.layers.Dense(classes, name=f"{name}_fc2", **XAVIER)(x)
    end = "probabilities" if activation else "logits"
    return outputs(x, activation, name=f"{name}_{end}")


def _pytorch_pooling(x, name):
    """Apply max pooling 3/2 with PyTorch's padding of 1 on every side.

    The zeros are never the largest, since what is pooled here comes out of a ReLU.
    """
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)
