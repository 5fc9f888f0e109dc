"""The state of a training between two epochs: all that an exact resume needs.

It is every variable that training changes, random states included, which the
`.weights.h5` files of Keras leave out: a dropout that starts over would make a resumed
training another one.
"""

import io
import json
import warnings
from pathlib import Path

import keras
import numpy as np

from kerascnn.training.run import write_file

NAME, BEFORE = "checkpoint.npz", "checkpoint-before.npz"


def values(variables) -> list[np.ndarray]:
    """Return copies of the values of variables.

    With JAX two variables could hold one array, and a compiled step, which takes over
    the arrays of one, would delete that of the other.
    """
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assign(variables, values) -> None:
    """Give each of some variables its value."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def remove(folder: Path) -> None:
    """Remove what a finished training does not need any more."""
    parts = folder.glob(".*.part*")  # of a process that was killed
    for path in (folder / NAME, folder / BEFORE, folder / "architecture.json", *parts):
        path.unlink(missing_ok=True)


def save(folder: Path, model, history: list[dict], best=()) -> None:
    """Write weights, optimizer, random states and history, whole or not at all.

    The state before stays beside it, one epoch older, also where an OSError is raised.
    """
    state = values([*model.variables, *model.optimizer.variables])
    arrays = {f"state{i}": array for i, array in enumerate(state)}
    arrays |= {f"best{i}": array for i, array in enumerate(best)}
    arrays["history"] = np.frombuffer(json.dumps(history).encode(), np.uint8)
    write_file(folder / NAME, pack(arrays), before=folder / BEFORE)


def pack(arrays: dict[str, np.ndarray]) -> memoryview:
    """Return arrays as the bytes of a `.npz` file."""
    # bfloat16 would come back as bytes without a type; float32 holds it exactly.
    wide = {k: a.astype("f4") if a.dtype.kind == "V" else a for k, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **wide)
    return buffer.getbuffer()


def unpack(data) -> dict[str, np.ndarray]:
    """Return the arrays of what `pack` made; their checksums are compared."""
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name] for name in file.files}


def read(folder: Path) -> bytes:
    """Return the last saved state of a folder that is not damaged.

    Where the last one is, a RuntimeWarning tells, and the state of an epoch earlier is
    returned: that epoch is trained again, to the same result.

    Raises FileNotFoundError where nothing was saved, ValueError where all is damaged.
    """
    damaged = []
    for path in (folder / NAME, folder / BEFORE):
        try:
            data = path.read_bytes()
            unpack(data)["history"]  # the last: a damaged list of arrays ends earlier
        except FileNotFoundError:
            continue
        except Exception as error:  # what is no .npz file any more raises a dozen kinds
            damaged.append((path, error))
            continue
        for other, error in damaged:
            told = f"{other} is damaged ({error}); the training continues from {path}"
            told += ", an epoch earlier, to the same result"
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        return data
    if damaged:
        named = " and ".join(f"{path} ({error})" for path, error in damaged)
        told = "put back a copy of the file, or start again in a new folder"
        raise ValueError(f"the saved state is damaged: {named}; {told}")
    told = "it is no run folder, or one in which nothing was saved to continue from"
    raise FileNotFoundError(f"{folder} has no {NAME}: {told}")


def restore(data: bytes, folder, model) -> tuple[list[dict], list]:
    """Set a model and its optimizer to a state that `read` returned.

    Returns the history of the epochs that were done, and the best epoch's weights
    (empty where they were not kept). Raises ValueError for a state of another model.
    """
    state, arrays = [*model.variables, *model.optimizer.variables], unpack(data)

    def found(kind):
        return [array for name, array in arrays.items() if name.startswith(kind)]

    shapes = [array.shape for array in found("state")]
    if shapes != [tuple(v.shape) for v in state] or "history" not in arrays:
        told = f"another network than {model.name}; start again in a new folder"
        raise ValueError(f"{folder}/{NAME} is the state of {told}")
    assign(state, found("state"))
    finalize_layers(model)
    return json.loads(arrays["history"].tobytes()), found("best")


def finalize_layers(model) -> None:
    """Let adapted layers take up values that were assigned to their variables.

    `keras.layers.Normalization` computes with constants that it makes of them.
    """
    for layer in model._flatten_layers():
        if finalize := getattr(layer, "finalize_state", None):
            finalize()
