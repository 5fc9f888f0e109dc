"""Data sets as one `.npz` file: for machines without TensorFlow, or anybody's arrays.

The file holds `x_train` uint8 (N, height, width, channels), `y_train` integers (N,),
`x_test`, `y_test`, and may hold `x_validation`, `y_validation`, `labels` (names of
the classes), `name` and `title`.
"""

import os
import re
from pathlib import Path

import numpy as np

from kerascnn.data import cifar10
from kerascnn.data.dataset import Data, DataError, Images, assemble, refuse_own

CHANNELS = (1, 2, 3, 4)  # what images have in the last axis
NEEDED = ("x_train", "y_train", "x_test", "y_test")


def save_arrays(data: Data, path) -> Path:
    """Write a data set to a `.npz` file that `load_data` reads, with no TensorFlow.

    Validation images go back to where they were among the training images, so that
    loading with the same seed holds the same ones out, under the same fingerprint.

    Args:
        data: a data set.
        path: of the file; replaced if it exists, complete or not at all.

    Returns the path of the file, about as large as the pixels (184 MB for CIFAR-10).
    Raises ValueError where it does not end in ".npz".
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"the file must end in .npz; received {str(path)!r}")
    arrays = {"labels": data.labels, "name": data.name, "title": data.title}
    own = data.held_out is None  # the source has validation images of its own
    for key in ("x", "y"):
        train, held = getattr(data.train, key), getattr(data.validation, key)
        if own:
            arrays[f"{key}_validation"] = held
        else:
            # Each before the one that came behind it.
            behind = data.held_out - np.arange(len(held))
            train = np.insert(train, behind, held, axis=0)
        arrays[f"{key}_train"] = train
        arrays[f"{key}_test"] = getattr(data.test, key)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load_arrays(path, *, validation=None, seed=0) -> Data:
    """Read a data set from a `.npz` file; see the module for what it holds.

    Without `labels` the classes are named "0", "1", …; without `name` and `title` the
    data set is named after the file. 60,000 images that bear CIFAR-10's labels are
    checked against what is known of CIFAR-10, whatever the file says.

    Raises DataError: the file is none, lacks an array, or holds other types or shapes;
    ValueError: more validation images than there are to hold out.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # what is no .npz file raises a dozen kinds
        raise DataError(f"{path} cannot be read as a .npz file: {error}") from error
    if missing := [key for key in NEEDED if key not in arrays]:
        raise DataError(
            f"{path} has no {' and no '.join(missing)}; it needs {', '.join(NEEDED)} "
            f"and may have labels; found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    train, test = (_part(arrays, part, path) for part in ("train", "test"))
    if "x_validation" in arrays and "y_validation" in arrays:
        refuse_own(path, validation)
        if validation is None:
            validation = _part(arrays, "validation", path)
    classes = int(max(part.y.max(initial=-1) for part in (train, test))) + 1
    labels = arrays.get("labels", np.arange(classes))
    if labels.ndim != 1 or labels.dtype.kind not in "Uiu":
        raise DataError(
            f"{path}: labels must be a list of names; received {labels.dtype} "
            f"{labels.shape}"
        )
    name = str(arrays.get("name", re.sub(r"[^\w.-]+", "-", path.stem)))
    title = str(arrays.get("title", path.stem))
    return cifar10.recognize(
        assemble(name, title, labels, train, test, validation=validation, seed=seed)
    )


def _part(arrays, part, path):
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if y.ndim == 2 and y.shape[1] == 1:  # as keras.datasets.cifar10 gives them
        y = y[:, 0]
    if x.ndim == 3:  # as keras.datasets.mnist gives them
        x = x[..., None]
    if x.ndim == 4 and x.shape[3] not in CHANNELS and x.shape[1] in CHANNELS:
        raise DataError(
            f"{path}, {part}: x_{part} is {x.shape}, which looks like channels first; "
            f"images are (N, height, width, channels): save x_{part}.transpose(0, 2, 3,"
            " 1)"
        )
    try:
        return Images(x, y)
    except ValueError as error:
        raise DataError(f"{path}, {part}: {error}") from error
