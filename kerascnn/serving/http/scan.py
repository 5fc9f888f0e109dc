"""What lies in the folder that is served: models, their versions, their labels."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from kerascnn.serving.formats import format_of

VERSION = re.compile("[0-9]{1,18}")
LABEL = re.compile("[A-Za-z0-9_]+")
LABELS = "labels.json"
LABELS_WITHIN = 2**20  # bytes

# Changes when a version is replaced under its number, or a file is added to it. The
# inode alone does not (it is used again), nor does the time of a copied file.
Stamp = tuple[int, int, int, int]


@dataclass
class Found:
    """The folder of one model as it is now."""

    path: Path
    versions: dict[int, tuple[Path, Stamp]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    complaint: str = ""  # about labels.json
    unreadable: bool = False  # the folder itself, for now
    unusable: str = ""  # why it has no version that can be served, where it is known


def find(folder: Path) -> dict[str, Found]:
    """Look into a folder of models, or into the folder of one.

    A folder whose children are numbers is one model, of the folder's name, unless
    these are models themselves. Otherwise each child that has such children is one. A
    version counts when its `saved_model.pb` is there; other children are passed over.

    Args:
        folder: the folder that is served.

    Returns:
        What was found, by the name of the model.

    Raises:
        OSError: the folder cannot be read.
        ValueError: the folder is a version itself.
    """
    children = sorted(os.listdir(folder))
    if "saved_model.pb" in children:
        raise ValueError(
            f"{folder} is one version of a model; give the folder above it"
        )
    one = _look(folder)
    models = {}
    for name in children:
        if name.startswith("."):
            continue
        try:
            if (folder / name).is_dir():
                found = _look(folder / name)
                if found.versions or found.unusable:
                    models[name] = found
        except OSError as error:  # such as lost+found
            models[name] = Found(folder / name, unreadable=True, unusable=str(error))
    numbers = any(VERSION.fullmatch(name) for name in children)
    # A model's name may be a number: "2024", with its versions inside.
    inside = any(models[name].versions for name in models if VERSION.fullmatch(name))
    if one.versions or (numbers and not inside):
        return {folder.resolve().name: one}
    return models


def _look(path: Path) -> Found:
    found = Found(path)
    # Ascending by name: of "007" and "7" the last, plain one counts.
    for name in sorted(os.listdir(path)):
        if not VERSION.fullmatch(name):
            continue
        try:
            inside = os.stat(path / name / "saved_model.pb")
            around = os.stat(path / name)
        except OSError:  # not a version yet, or not one of this format
            if other := format_of(path / name):
                found.unusable = (
                    f"{path / name} is of the format {other.name}; served are "
                    "SavedModels, which `kerascnn export` writes without --format"
                )
            continue
        stamp = (
            around.st_ino,
            around.st_ctime_ns,
            inside.st_mtime_ns,
            inside.st_size,
        )
        found.versions[int(name)] = (path / name, stamp)
    if found.versions:
        found.unusable = ""
    try:
        found.labels = _labels(path / LABELS)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        found.complaint = f"{path / LABELS}: {error}"
    return found


def _labels(file: Path) -> dict[str, int]:
    """Read {"stable": 2, …}.

    Raises:
        ValueError: the file is something else.
    """
    if file.stat().st_size > LABELS_WITHIN:
        raise ValueError(f"a file of labels has at most {LABELS_WITHIN} bytes")
    labels = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(labels, dict):
        raise ValueError('expected an object, {"stable": 2}')
    for label, number in labels.items():
        check_label(label, number)
    return labels


def check_label(label: str, number) -> None:
    """Check that a label is letters, digits and "_", and its version a number.

    Raises:
        ValueError: it is not; says what was received.
    """
    if not LABEL.fullmatch(label):
        raise ValueError(
            f"a label is made of letters, digits and _; received {label!r}"
        )
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(
            f"the label {label!r} needs the number of a version; received {number!r}"
        )
