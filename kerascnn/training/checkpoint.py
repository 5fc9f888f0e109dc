"""The state of a training between two epochs: all that an exact resume needs."""

import io
import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from kerascnn.training.run import write_file


def variables(model, optimizer) -> list:
    """Return every variable that training changes, random states included.

    The `.weights.h5` files of Keras leave out the states of the seed generators, and a
    dropout that starts over would make a resumed training another one.
    """
    return [*model.variables, *optimizer.variables]


def values(variables) -> list[np.ndarray]:
    """Return copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def copy(sources, targets) -> None:
    """Give variables the values of others, each an array of its own.

    With JAX, `assign` would let both hold one array, and a compiled step, which takes
    over the arrays of one variable, would delete that of the other.
    """
    for target, value in zip(targets, values(sources), strict=True):
        target.assign(value)


def save(path: Path, model, optimizer, history: list[dict], best=None) -> None:
    """Write weights, optimizer, random states and history, whole or not at all.

    Args:
        path: file to write.
        model: the model in training.
        optimizer: its built optimizer.
        history: rows of the epochs so far.
        best: arrays of the best epoch's weights, where they are to be kept.
    """
    state = values(variables(model, optimizer))
    arrays = {f"state{i}": array for i, array in enumerate(state)}
    arrays |= {f"best{i}": array for i, array in enumerate(best or ())}
    arrays["history"] = np.frombuffer(json.dumps(history).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_file(path, buffer.getbuffer())


def restore(path: Path, model, optimizer) -> tuple[list[dict], list]:
    """Set a model and its optimizer to a saved state.

    Returns:
        The history of the epochs that were done, and the best epoch's weights (empty
        where they were not kept).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another model.
    """
    state = variables(model, optimizer)
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: nothing was saved there to continue from"
        ) from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged ({error}); start the training again"
        ) from error
    shapes = [tuple(v.shape) for v in state]
    found = [
        arrays[f"state{i}"].shape
        for i in range(sum(name.startswith("state") for name in arrays))
    ]
    if shapes != found:
        raise ValueError(f"{path} is the state of another network than {model.name}")
    for i, variable in enumerate(state):
        variable.assign(arrays[f"state{i}"])
    best = [
        arrays[f"best{i}"] for i in range(sum(n.startswith("best") for n in arrays))
    ]
    return json.loads(arrays["history"].tobytes()), best
