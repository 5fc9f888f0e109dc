"""Trained weights that ship with the package: float16, one file a network."""

import hashlib
import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np

from zoo.registry import builder, card


def load(name: str) -> Any:
    """Build a network with the trained weights that ship.

    Args:
        name: a network whose card names a weights file.

    Returns:
        A functional `keras.Model`, built with its builder's defaults but for the
        `options` that the card tells of the weights.

    Raises:
        UnknownNetworkError: no network has this name; lists close matches.
        ValueError: no weights ship for it, or the file is not the one on the card.
    """
    weights = card(name).weights
    if not weights:
        raise ValueError(
            f"no trained weights ship for {name!r}; train it: kerascnn train {name}"
        )
    file = importlib.resources.files("zoo") / "weights" / weights["file"]
    content = file.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != weights["sha256"]:
        raise ValueError(
            f"{file} is not the weights file of the card: its sha256 is {digest}, the "
            f"card says {weights['sha256']}; reinstall the package"
        )
    model = builder(name)(**weights.get("options", {}))
    with importlib.resources.as_file(file) as path:
        read_weights(model, path)
    return model


def write_weights(model, path: Path) -> None:
    """Write a model's weights as float16, one array a variable, in a .npz file.

    Raises:
        ValueError: a weight does not fit float16 (beyond 65,504, or not finite).
    """
    arrays = {v.path: np.asarray(v).astype(np.float16) for v in model.weights}
    for variable, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{variable} of {model.name} does not fit float16")
    np.savez_compressed(path, **arrays)


def read_weights(model, path: Path) -> None:
    """Set a model's weights from a .npz file that `write_weights` wrote.

    Raises:
        ValueError: the file holds other variables or shapes than the model.
    """
    with np.load(path) as arrays:
        mine = {v.path: tuple(v.shape) for v in model.weights}
        theirs = {name: arrays[name].shape for name in arrays.files}
        if mine != theirs:
            differ = sorted(set(mine.items()) ^ set(theirs.items()))[0]
            raise ValueError(
                f"{path} holds the weights of another network than {model.name}: they "
                f"differ in {differ[0]}"
            )
        for variable in model.weights:
            variable.assign(arrays[variable.path].astype(np.float32))
