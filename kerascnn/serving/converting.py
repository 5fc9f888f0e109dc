"""From a SavedModel to the files of other runtimes: LiteRT, ONNX, OpenVINO."""

import logging
import re
from pathlib import Path

import numpy as np

from kerascnn.serving.errors import ExportError
from kerascnn.serving.formats import Format
from kerascnn.serving.parity import first_line

OPSET = 18  # of ONNX, December 2022: what tf2onnx 1.17 writes at most
SEVERAL = ("litert",)  # formats that know several signatures
SIGNS = (  # how the converters name an operation that they do not know
    r"'(tf\.\w+)' op is neither a custom op nor a flex op",
    r"No (?:conversion rule|translator) found for operation(?:s|\(s\))?: (.*)",
)


def convert(portable: Path, version: Path, made: Format) -> None:
    """Write a version from a SavedModel of `savedmodel.write_portable`.

    Args:
        portable: the folder of the SavedModel.
        version: an empty folder.
        made: the format.

    Raises:
        ExportError: the format cannot express an operation of the network.
        OSError: the folder cannot be written to.
    """
    try:
        _CONVERTERS[made.name](portable, version / made.file)
    except (OSError, MemoryError):
        raise
    # The converters raise what they please: AssertionError, KeyError, classes of
    # their own. That one failed is told, and how.
    except Exception as error:
        raise ExportError(
            f"{made.title} cannot express the network: {_reason(error)}; export it as "
            "a SavedModel, or replace the layer"
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
