"""The state of a training between two epochs: all that an exact resume needs."""

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np

from kerascnn.training.run import write_file

NAME, BEFORE = "checkpoint.npz", "checkpoint-before.npz"

# What reading a file that is no .npz file, or is none any more, may raise.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
)


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


def remove(folder: Path) -> None:
    """Remove what a finished training does not need any more."""
    for name in (NAME, BEFORE, "architecture.json"):
        (folder / name).unlink(missing_ok=True)
    for part in folder.glob(".*.part*"):  # of a process that was killed
        part.unlink(missing_ok=True)


def save(folder: Path, model, optimizer, history: list[dict], best=None) -> None:
    """Write weights, optimizer, random states and history, whole or not at all.

    The state before stays beside it, one epoch older.

    Raises:
        OSError: the state cannot be written; what was there is kept.
    """
    state = values(variables(model, optimizer))
    arrays = {f"state{i}": array for i, array in enumerate(state)}
    arrays |= {f"best{i}": array for i, array in enumerate(best or ())}
    arrays["history"] = np.frombuffer(json.dumps(history).encode(), np.uint8)
    write_file(folder / NAME, pack(arrays), before=folder / BEFORE)


def pack(arrays: dict[str, np.ndarray]) -> memoryview:
    """Return arrays as the bytes of a `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getbuffer()


def unpack(data) -> dict[str, np.ndarray]:
    """Return the arrays of what `pack` made; their checksums are compared."""
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name] for name in file.files}


def read(folder: Path) -> bytes:
    """Return the last saved state of a folder that is not damaged.

    Where the last one is damaged, that is told (a RuntimeWarning) and the state of an
    epoch earlier is returned: the result is the same, that epoch is trained again.

    Raises:
        FileNotFoundError: nothing was saved there.
        ValueError: what was saved is damaged.
    """
    damage = {}
    for name in (NAME, BEFORE):
        path = folder / name
        try:
            data = path.read_bytes()
            unpack(data)
        except FileNotFoundError:
            continue
        except DAMAGE as error:
            damage[path] = error
            continue
        for damaged, error in damage.items():
            warnings.warn(
                f"{damaged} is damaged ({error}); the training continues from {path}, "
                "an epoch earlier, to the same result",
                RuntimeWarning,
                stacklevel=2,
            )
        return data
    if damage:
        named = " and ".join(f"{path} ({error})" for path, error in damage.items())
        raise ValueError(
            f"the saved state is damaged: {named}; put back a copy of the file, or "
            "start the training again in a new folder"
        )
    raise FileNotFoundError(
        f"{folder} has no {NAME}: nothing was saved there to continue from; remove "
        "the folder and start the training again"
    )


def restore(data: bytes, folder, model, optimizer) -> tuple[list[dict], list]:
    """Set a model and its optimizer to a state that `read` returned.

    Returns:
        The history of the epochs that were done, and the best epoch's weights (empty
        where they were not kept).

    Raises:
        ValueError: the state is of another model.
    """
    state = variables(model, optimizer)
    arrays = unpack(data)
    shapes = [tuple(v.shape) for v in state]
    found = [
        arrays[f"state{i}"].shape
        for i in range(sum(name.startswith("state") for name in arrays))
    ]
    if shapes != found or "history" not in arrays:
        raise ValueError(
            f"{folder}/{NAME} is the state of another network than {model.name}; "
            "start the training again in a new folder"
        )
    for i, variable in enumerate(state):
        variable.assign(arrays[f"state{i}"])
    best = [
        arrays[f"best{i}"] for i in range(sum(n.startswith("best") for n in arrays))
    ]
    return json.loads(arrays["history"].tobytes()), best


def finalize_layers(model) -> None:
    """Let adapted layers take up values that were assigned to their variables.

    `keras.layers.Normalization` computes with constants that it makes of its variables
    in `finalize_state`; Keras calls it when it reads a file.
    """
    for layer in model._flatten_layers():
        finalize = getattr(layer, "finalize_state", None)
        if finalize:
            finalize()
