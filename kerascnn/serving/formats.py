"""The formats in which a version can be written, and how each is recognised.

Importing this module imports neither TensorFlow, nor Keras, nor a runtime.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from kerascnn.environment import first_missing

MANIFEST = "manifest.json"
LABELS = "labels.txt"


@dataclass(frozen=True)
class Format:
    """One format: its main file, and what writing and reading it needs.

    Attributes:
        name: as `export` takes it.
        title: as people write it.
        file: the main file in the folder of a version.
        writes: the packages that write it.
        reads: the packages that read it.
        extra: the extra of kerascnn that installs them, None where none is needed.
    """

    name: str
    title: str
    file: str
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    extra: str | None = None


FORMATS = {
    made.name: made
    for made in (
        Format(
            "savedmodel",
            "SavedModel",
            "saved_model.pb",
            ("tensorflow",),
            ("tensorflow",),
        ),
        # The converter is a part of TensorFlow. So is an interpreter, but it is
        # deprecated in favour of this package, which needs no TensorFlow.
        Format(
            "litert",
            "LiteRT",
            "model.tflite",
            ("tensorflow", "ai_edge_litert"),
            ("ai_edge_litert",),
            "litert",
        ),
        Format(
            "onnx",
            "ONNX",
            "model.onnx",
            ("tensorflow", "tf2onnx", "onnxruntime"),
            ("onnxruntime",),
            "onnx",
        ),
        Format(
            "openvino",
            "OpenVINO",
            "model.xml",
            ("tensorflow", "openvino"),
            ("openvino",),
            "openvino",
        ),
        Format("keras", "Keras", "model.keras", ("keras",), ("keras",)),
    )
}


def format_named(name: str) -> Format:
    """Return the format of that name.

    Raises:
        ValueError: there is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}; received {name!r}")
    return FORMATS[name]


def require(packages: tuple[str, ...], made: Format) -> None:
    """Check that packages are installed, without importing them.

    Raises:
        ModuleNotFoundError: one is not; ends in the command that installs it.
    """
    if package := first_missing(packages):
        install = (
            f'"kerascnn[{made.extra}]"'
            if made.extra and package != "tensorflow"
            else package
        )
        raise ModuleNotFoundError(
            f"the format {made.name} needs {package}: pip install {install}"
        )


def format_of(version) -> Format | None:
    """Return the format of a version's folder; None if it is no version.

    A folder is a version if it has a manifest that names the format, or a
    saved_model.pb (as versions have that other programs wrote).
    """
    version = Path(version)
    try:
        named = json.loads((version / MANIFEST).read_text(encoding="utf-8"))["format"]
        return FORMATS[named]
    except (OSError, ValueError, KeyError, TypeError):
        # No manifest, or one that is damaged: the main file tells. A lone model.keras
        # does not: run folders have one too.
        files = {made.file: made for made in FORMATS.values() if made.name != "keras"}
        there = [made for file, made in files.items() if (version / file).is_file()]
        return there[0] if there else None


def is_version(folder) -> bool:
    """Return whether a folder holds one version, in any format."""
    return format_of(folder) is not None


def labels_of(version) -> list[str]:
    """Return the names of a version's classes, in the order of its outputs.

    Raises:
        ValueError: the folder holds no labels.txt.
    """
    for name in (LABELS, f"assets.extra/{LABELS}"):
        file = Path(version) / name
        if file.is_file():
            return file.read_text(encoding="utf-8").splitlines()
    raise ValueError(
        f"{version} holds no labels.txt; give the folder of a version that kerascnn "
        "export wrote, such as served/lecture_cnn/1"
    )
