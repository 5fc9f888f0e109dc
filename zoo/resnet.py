"""ResNet for CIFAR-10: blocks that learn what to add to their input.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv
1512.03385, section 4.2. A 3x3 convolution, three stages of n blocks of two 3x3
convolutions, global average pooling and a dense layer: 6n + 2 layers with weights.
"""

import sys

import keras

from zoo.blocks import classifier, convolution, image_input, scaled
from zoo.layers import IdentityShortcut
from zoo.variants import variant

# n, the blocks of each stage.
BLOCKS = {
    "resnet20": 3,
    "resnet32": 5,
    "resnet44": 7,
    "resnet56": 9,
    "resnet110": 18,
    "resnet1202": 200,
}
# Filters of the three stages; feature maps of 32x32, 16x16 and 8x8.
STAGES = (16, 32, 64)
SHORTCUTS = ("A", "B")


def resnet(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    blocks=3,
    shortcut="A",
    width=1.0,
    classifier_activation="softmax",
    name="resnet",
):
    """Build a residual network of three stages of `blocks` blocks each.

    Above 66 blocks a stage Python's recursion limit is raised to 1000 + 6·`blocks`; a
    program that loads such a model from a file has to do the same before.

    The layers are `conv1`, then `stageS_blockB_conv1`, `stageS_blockB_conv2` with
    `…_bn` and `…_relu`, `stageS_blockB_add`, `stageS_blockB_relu`; the first block of
    stages 2 and 3 has `…_shortcut` as well, and `…_pad` before its first convolution.

    Args:
        input_shape: (height, width, channels), of any size.
        blocks: residual blocks of each of the three stages (n); the depth is 6n + 2.
        shortcut: how the input of a stage gets past its first block, which halves the
            size and doubles the filters. "A": every second pixel, and channels of
            zeros; "B": a 1x1 convolution of stride 2, normalised.
        width: multiplies the filters; 1 for the published network.

    Raises:
        ValueError: `blocks` is not a positive integer, `shortcut` is neither "A" nor
            "B", or `width` is not above 0.
    """
    if not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"blocks must be a positive integer; received {blocks!r}")
    if shortcut not in SHORTCUTS:
        raise ValueError(
            f"shortcut must be one of {', '.join(SHORTCUTS)}; received {shortcut!r}"
        )
    stages = [scaled(filters, width) for filters in STAGES]
    image, x = image_input(input_shape)
    x = _convolution(x, stages[0], "conv1", activation="relu")  # (N, 32, 32, 16)
    for stage, filters in enumerate(stages, start=1):
        # (N, 32, 32, 16), (N, 16, 16, 32), (N, 8, 8, 64)
        for block in range(1, blocks + 1):
            halve = stage > 1 and block == 1
            x = _block(x, filters, halve, shortcut, f"stage{stage}_block{block}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)  # (N, 64)
    x = classifier(x, classes, classifier_activation, kernel_initializer="he_normal")
    _allow_depth(6 * blocks)
    return keras.Model(image, x, name=name)


def _allow_depth(calls):
    """Raise Python's limit of nested calls where a network is too deep for it.

    `keras.Model` walks from the output to the input by recursion, along the shortcuts:
    two calls a block, 1,200 in ResNet-1202, where Python stops at 1,000. The limit
    stays raised, since cloning and loading the model walk the same way.
    """
    enough = calls + 1000  # what the caller has nested already, and some room
    if calls > 400 and sys.getrecursionlimit() < enough:
        sys.setrecursionlimit(enough)


def _block(x, filters, halve, shortcut, name):
    """Apply two convolutions and add their input (Figure 2 of the paper)."""
    y = _convolution(x, filters, f"{name}_conv1", halve, activation="relu")
    y = _convolution(y, filters, f"{name}_conv2")
    if halve and shortcut == "A":
        x = IdentityShortcut(filters, strides=2, name=f"{name}_shortcut")(x)
    elif halve:
        # The only pixels that a 1x1 window of stride 2 meets are 0, 2, 4, … as well.
        x = _convolution(x, filters, f"{name}_shortcut", halve, size=1)
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x, filters, name, halve=False, size=3, activation=None):
    """Convolve without bias, and normalise; stride 2 to `halve` the size.

    With stride 2 the windows are centred on the pixels 0, 2, 4, … that the shortcut
    takes: one row and column of zeros on every side, in place of "same", which pads an
    even side at its end only and is centred on 1, 3, 5, …
    """
    if halve and size > 1:
        pad = name.replace("_conv1", "_pad")
        x = keras.layers.ZeroPadding2D(size // 2, name=pad)(x)
    return convolution(
        x,
        filters,
        size,
        name,
        batch_normalization=True,
        activation=activation,
        strides=2 if halve else 1,
        padding="valid" if halve else "same",
        use_bias=False,
        kernel_initializer="he_normal",
    )


def _variant(name):
    blocks = BLOCKS[name]
    title = f"Build ResNet-{6 * blocks + 2} for small images, arXiv 1512.03385."
    return variant(resnet, name, title, {}, blocks=blocks)


resnet20 = _variant("resnet20")
resnet32 = _variant("resnet32")
resnet44 = _variant("resnet44")
resnet56 = _variant("resnet56")
resnet110 = _variant("resnet110")
# 600 blocks, 6,000 variables: building takes half a minute of processor time on
# TensorFlow, ten seconds on JAX. Most of it creates variables and layers, a block as
# long as the other; Keras' check that all names differ grows with the square, to 2 s.
resnet1202 = _variant("resnet1202")
