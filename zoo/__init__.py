"""The model zoo: builders and cards of every network of the lecture.

    model = zoo.build("lecture_cnn", classes=100)
    zoo.names("vgg*"), zoo.card("vgg19").trainable, zoo.load("lecture_cnn")

Each builder is a function of its family's module, `zoo.vgg.vgg19`, and a name of
`kerascnn`; its card is the TOML file beside it. Begin with `lecture_cnn.py`, then
`registry.py`. Importing the zoo and reading its cards does not import Keras.
"""

from typing import Any

from zoo.pretrained import load
from zoo.registry import Card, UnknownNetworkError, builder, card, names, register

__all__ = [
    "Card",
    "UnknownNetworkError",
    "build",
    "builder",
    "card",
    "load",
    "names",
    "register",
]


def build(name: str, /, *args: Any, **options: Any) -> Any:
    """Build a network of the zoo by its name.

    Args:
        name: a name that `names()` lists.
        *args: input shape and classes, as every builder takes them.
        **options: what the builder takes: `input_shape`, `classes`,
            `classifier_activation`, `name` and the family's own arguments.

    Returns:
        A functional `keras.Model` from images (N, height, width, channels), pixels
        0…255, to float32 class probabilities (N, classes), with random weights.

    Raises:
        UnknownNetworkError: no network has this name; lists close matches.
    """
    return builder(name)(*args, **options)
