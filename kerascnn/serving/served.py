"""Which exported models and versions a server elsewhere is to serve."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kerascnn.serving.publish import published


@dataclass(frozen=True)
class Served:
    """A model to serve.

    Attributes:
        name: of its folder, by which it is asked.
        folder: whose children 1, 2, … are its versions.
        versions: the numbers to be served, ascending.
        labels: names of versions, such as {"stable": 2}.
        follow: whether the newest version is served, whichever it is.
        tensorflow: the version that exported the newest of them, such as "2.21.0".
    """

    name: str
    folder: Path
    versions: tuple[int, ...]
    labels: Mapping[str, int]
    follow: bool
    tensorflow: str

    @property
    def service(self) -> str:
        """Its name as Kubernetes allows it: lower case, hyphens (RFC 1123)."""
        return re.sub("[^a-z0-9]+", "-", self.name.lower()).strip("-")


def find(
    folder, labels: Mapping[str, int] | None = None, follow: bool = False
) -> list[Served]:
    """Return the models of a folder and which of their versions are to be served.

    Args:
        folder: as for `deploy`.
        labels: as for `deploy`.
        follow: as for `deploy`.

    Raises:
        ValueError: there is no SavedModel, a label's version is not there, or a name
            is not allowed.
        FileNotFoundError: the folder is not there.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; export a model into one")
    folders = [folder] if published(folder) else sorted(folder.iterdir())
    there = {path: saved_models(path) for path in folders if path.is_dir()}
    there = {path: versions for path, versions in there.items() if versions}
    if not there:
        raise ValueError(
            f"{folder} holds no version of a SavedModel, such as 1/saved_model.pb; "
            "write one with kerascnn export"
        )
    for label, version in (labels or {}).items():
        if not re.fullmatch("[a-zA-Z0-9_]+", label):
            raise ValueError(
                "a label is made of letters, digits and underscores; received "
                f"{label!r}"
            )
        if not any(version in versions for versions in there.values()):
            raise ValueError(
                f"label {label!r}: no model in {folder} has a version {version}; there "
                f"are {'; '.join(f'{p.name}: {v}' for p, v in there.items())}"
            )
    models = [_served(path, v, labels, follow) for path, v in there.items()]
    if len({model.service for model in models}) < len(models):
        raise ValueError(
            "two models have the same name but for capitals and punctuation: "
            f"{', '.join(m.name for m in models)}; rename a folder"
        )
    return models


def exporter(version: Path) -> str:
    """Return the version of TensorFlow that wrote a SavedModel, such as "2.21.0".

    It stands in saved_model.pb, a protocol buffer: SavedModel.meta_graphs (field 2),
    MetaGraphDef.meta_info_def (1), MetaInfoDef.tensorflow_version (5)
    (tensorflow/core/protobuf/saved_model.proto, meta_graph.proto).

    Raises:
        ValueError: the file says nothing of the kind.
    """
    file = version / "saved_model.pb"
    message = memoryview(file.read_bytes())
    try:
        for wanted in (2, 1, 5):
            message = next(value for n, value in _fields(message) if n == wanted)
        return bytes(message).decode("ascii")
    except (StopIteration, IndexError, ValueError) as error:
        raise ValueError(
            f"{file} does not say which TensorFlow wrote it; is the file damaged? "
            "Export the version again, or name the image"
        ) from error


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Go through the length-delimited fields of a protocol buffer; skip the others."""
    place = 0

    def varint():
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            varint()
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        elif wire == 2:
            length = varint()
            yield number, message[place : place + length]
            place += length
        else:
            raise ValueError(f"wire type {wire} in a protocol buffer")


def saved_models(folder: Path) -> list[int]:
    """Return the numbers of the versions that are SavedModels, ascending."""
    return [n for n in published(folder) if (folder / f"{n}/saved_model.pb").is_file()]


def _served(folder: Path, versions: list[int], labels, follow: bool) -> Served:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,52}", folder.name):
        raise ValueError(
            "a model's name is made of up to 53 letters, digits, underscores, points "
            f"and hyphens; received the folder {folder.name!r}"
        )
    newest = versions[-1]
    if follow:
        labels, versions = {}, [newest]
    elif labels:
        labels = {name: n for name, n in labels.items() if n in versions}
        versions = sorted(set(labels.values()) or {newest})
    else:
        names = ("stable", "previous")
        labels = dict(zip(names, reversed(versions[-2:]), strict=False))
        versions = versions[-2:]
    exported = max((exporter(folder / str(n)) for n in versions), key=release)
    return Served(folder.name, folder, tuple(versions), labels, follow, exported)


def release(version: str) -> tuple[int, ...]:
    """Return (2, 21, 0) for "2.21.0" and for "2.21.0-rc1"."""
    return tuple(int(number) for number in re.findall("[0-9]+", version)[:3])
