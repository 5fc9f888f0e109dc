"""The formats in which a version can be written: how each is recognised and written.

Importing this module imports neither TensorFlow, nor Keras, nor a runtime.
"""

import contextlib
import json
import logging
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.environment import first_missing

MANIFEST = "manifest.json"
LABELS = "labels.txt"
CHANNELS = (1, 3, 4)  # of image files; those of four are PNG
OPSET = 18  # of ONNX, December 2022: what tf2onnx 1.17 writes at most
SIGNS = (  # how the converters name an operation that they do not know
    r"'(tf\.\w+)' op is neither a custom op nor a flex op",
    r"No (?:conversion rule|translator) found for operation(?:s|\(s\))?: (.*)",
)


class ExportError(RuntimeError):
    """A version could not be written, or answers differently from its network."""


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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


def write(model, version: Path, reference, labels, made: Format, activations=()):
    """Write a network into a folder, in a format.

    Args:
        model: a `keras.Model`; for all formats but "keras", of the TensorFlow backend.
        version: an empty folder.
        reference: what the network is, from `verification.refer`.
        labels: names of the classes, in the order of the outputs.
        made: the format.
        activations: names of layers whose maps the version gives too.

    Raises:
        ExportError: the disk is full, or the format cannot express the network.
    """
    text = "".join(f"{label}\n" for label in labels)
    with explained(version):
        if made.name == "keras":
            _write_keras(model, version / made.file, reference)
        elif made.name == "savedmodel":
            from kerascnn.serving import savedmodel, warmup

            savedmodel.write(model, version, reference, activations, labels)
            warmup.write(version, reference.shape)
            # Where servers and tools for SavedModels look for what is not TensorFlow's.
            (version / "assets.extra" / LABELS).write_text(text, encoding="utf-8")
        else:
            _convert(model, version, reference, made, activations)
        (version / LABELS).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def explained(version: Path) -> Iterator[None]:
    """Turn a failure to write into an ExportError that tells the space that is left."""
    tensorflow = sys.modules.get("tensorflow")
    own = (OSError, tensorflow.errors.OpError) if tensorflow else (OSError,)
    try:
        yield
    except own as error:
        free = shutil.disk_usage(version).free / 1e6
        raise ExportError(
            f"cannot write a version into {version.parent}: {first_line(error)}; "
            f"nothing was published, and {free:,.0f} MB are free there"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def save(model, file: Path) -> None:
    """Save a network as a .keras file.

    Raises:
        ExportError: it cannot be saved.
    """
    try:
        with warnings.catch_warnings():
            # Keras warns of lambdas in files of unknown origin, which this is not.
            warnings.simplefilter("ignore")
            model.save(file)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ExportError(
            f"the model {model.name!r} cannot be saved as a .keras file: "
            f"{first_line(error)}"
        ) from error


def _write_keras(model, file: Path, reference) -> None:
    """Save the network, as it is where it answers with nothing but probabilities."""
    import keras

    head = reference.head
    served = model
    if len(model.outputs) > 1 or head.kind not in ("softmax", "sigmoids"):
        output = head.tensor
        if head.kind == "logits":
            softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
            output = softmax(output)
        if head.kind == "logit":
            output = keras.layers.Activation("sigmoid", dtype="float32")(output)
        if head.units == 1:
            output = keras.ops.concatenate([1 - output, output], axis=-1)
        served = keras.Model(model.inputs, output, name=model.name)
    save(served, file)


def _convert(model, version: Path, reference, made: Format, activations) -> None:
    """Write a SavedModel without strings, and convert it.

    Raises:
        ExportError: the format cannot express an operation of the network.
        OSError: the folder cannot be written to.
    """
    from kerascnn.serving import savedmodel

    with tempfile.TemporaryDirectory(prefix="kerascnn-convert-") as scratch:
        portable = Path(scratch) / "portable"
        several = made.name == "litert"  # the only one that knows several signatures
        savedmodel.write(model, portable, reference, activations, several=several)
        try:
            _CONVERTERS[made.name](portable, version / made.file)
        except (OSError, MemoryError):
            raise
        # The converters raise what they please: AssertionError, KeyError, classes of
        # their own. That one failed is told, and how.
        except Exception as error:
            raise ExportError(
                f"{made.title} cannot express the network: {_reason(error)}; export it "
                "as a SavedModel, or replace the layer"
            ) from error


def _litert(portable: Path, file: Path) -> None:
    import tensorflow as tf

    keys = list(tf.saved_model.load(str(portable)).signatures)
    # Built-in operations only: the runtime from PyPI has no others.
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(portable), signature_keys=[key for key in keys if not key.startswith("_")]
    )
    file.write_bytes(converter.convert())


def _onnx(portable: Path, file: Path) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    served = tf.saved_model.load(str(portable))  # kept: it owns the variables
    signature = served.signatures["serving_default"]
    shape = signature.structured_input_signature[1]["image"].shape
    spec = [tf.TensorSpec(shape, tf.uint8, name="image")]
    function = tf.function(lambda image: signature(image=image), input_signature=spec)
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    # What it logs of operations that it does not know is found in the file.
    logger.setLevel(logging.CRITICAL)
    try:
        proto, _ = tf2onnx.convert.from_function(
            function,
            input_signature=spec,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    finally:
        logger.setLevel(level)
    # An operation that it does not know stays in the file under TensorFlow's name.
    nodes = {(node.op_type, node.domain) for node in proto.graph.node}
    if unknown := sorted(kind for kind, at in nodes if not onnx.defs.has(kind, at)):
        raise ValueError(f"there is no {', '.join(unknown)} in ONNX")
    # tf2onnx numbers the unknown sizes anew at every conversion.
    for value in (*proto.graph.input, *proto.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.HasField("dim_value"):
            first.dim_param = "batch"
    file.write_bytes(proto.SerializeToString())


def _erfc(graph, node, name, args) -> None:
    """Write erfc(x), which GELU has, as 1 − erf(x): tf2onnx knows erf only."""
    (output,) = node.output
    shape, kind = graph.get_shape(output), graph.get_dtype(output)
    erf = graph.make_node("Erf", list(node.input), shapes=[shape], dtypes=[kind])
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    graph.remove_node(node.name)
    graph.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        outputs=[output],
        name=name,
        shapes=[shape],
        dtypes=[kind],
    )


def _openvino(portable: Path, file: Path) -> None:
    import openvino

    # Not openvino.convert_model, which may report to its makers that it was used.
    network = openvino.Core().read_model(portable)
    openvino.save_model(network, file, compress_to_fp16=False)


def _reason(error: Exception) -> str:
    """Return what a converter says of an operation, which is not its first line."""
    for sign in SIGNS:
        if found := re.search(sign, str(error)):
            return f"there is no {found[1]}"
    return first_line(error)[:300]


_CONVERTERS = {"litert": _litert, "onnx": _onnx, "openvino": _openvino}
