"""A network as the files of a version: a SavedModel, and what is converted from one."""

import contextlib
import logging
import re
import tempfile
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np

from kerascnn.graph import find_layer, trace
from kerascnn.serving import warmup
from kerascnn.serving.formats import CHANNELS, LABELS, ExportError, Format, first_line

OUTPUTS = ("probabilities", "class_id", "label", "image")
OPSET = 18  # of ONNX, December 2022: what tf2onnx 1.17 writes at most
SIGNS = (  # how the converters name an operation that they do not know
    r"'(tf\.\w+)' op is neither a custom op nor a flex op",
    r"No (?:conversion rule|translator) found for operation(?:s|\(s\))?: (.*)",
)


def write(model, version: Path, reference, labels, made: Format, activations=()):
    """Write a network into an empty folder, in a format; all but Keras' in TensorFlow.

    `reference` says what the network is, from `exporting.refer`.

    Raises ExportError: the format cannot express the network; OSError,
    tensorflow.errors.OpError: the folder cannot be written to.
    """
    text = "".join(f"{label}\n" for label in labels)
    file = version / made.file
    if made.name == "keras":
        save(_classifier(model, reference.head), file)
    elif made.name == "savedmodel":
        _write_signatures(model, version, reference, activations, labels)
        warmup.write(version, reference.shape)
        # Where servers and tools for SavedModels look for what is not TensorFlow's.
        (version / "assets.extra" / LABELS).write_text(text, encoding="utf-8")
    else:
        with tempfile.TemporaryDirectory(prefix="kerascnn-convert-") as scratch:
            portable = Path(scratch) / "portable"
            several = made.name == "litert"  # the only one that knows several
            _write_signatures(model, portable, reference, activations, several=several)
            try:
                _CONVERTERS[made.name](portable, file)
            except (OSError, MemoryError):
                raise
            # The converters raise what they please: AssertionError, KeyError, classes
            # of their own. That one failed is told, and how.
            except Exception as error:
                raise ExportError(
                    f"{made.title} cannot express the network: {_reason(error)}; "
                    "export it as a SavedModel, or replace the layer"
                ) from error
    (version / LABELS).write_text(text, encoding="utf-8")


def _classifier(model, head):
    """Return the network itself where it answers with nothing but probabilities."""
    if len(model.outputs) == 1 and head.kind in ("softmax", "sigmoids"):
        return model
    # float32 under mixed precision too: of 1 - p, bfloat16 would keep two digits.
    output = keras.ops.cast(model.outputs[head.index], "float32")
    if head.kind == "logits":
        softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
        output = softmax(output)
    if head.kind == "logit":
        output = keras.layers.Activation("sigmoid", dtype="float32")(output)
    if head.units == 1:
        output = keras.ops.concatenate([1 - output, output], axis=-1)
    return keras.Model(model.inputs, output, name=model.name)


def save(model, file: Path) -> None:
    """Save a network as a .keras file; ExportError where it cannot be saved."""
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


def _write_signatures(
    model, folder: Path, reference, activations, labels=None, *, several: bool = True
) -> None:
    """Write a SavedModel with the signatures that servers offer.

    Without labels it is what other formats are converted from, with no strings in it.
    Of these only some know several signatures; in others, maps are further outputs.
    """
    import tensorflow as tf

    from kerascnn.serving.decoding import decode

    shape, dtype = reference.shape, model.inputs[0].dtype
    classify = _classifier(model, reference.head)

    def answer(image):
        # training=False, spelled out: without it, layers of random augmentation
        # inside the model stay at work in every request.
        output = classify(tf.cast(image, dtype), training=False)
        # float32 under mixed precision too: a server's JSON has no bfloat16.
        scores = tf.cast(output, tf.float32)
        class_id = tf.argmax(scores, axis=-1)  # (N,) int64
        given = {"probabilities": scores, "class_id": class_id}
        if labels is not None:
            given["label"] = tf.gather(tf.constant(list(labels)), class_id)
        if activations and not several:
            given |= watch(image)
        return given

    def answer_bytes(image_bytes):
        one, pixels_of = tf.TensorSpec(shape, tf.uint8), partial(decode, shape=shape)
        return answer(tf.map_fn(pixels_of, image_bytes, fn_output_signature=one))

    def watch(image):
        from kerascnn.explain.recording import record

        seen = record(model, tf.cast(image, dtype))
        maps = {name: seen.calls[seen.find(name)].outputs[0] for name in activations}
        return {name: tf.cast(values, tf.float32) for name, values in maps.items()}

    pixels = tf.TensorSpec((None, *shape), tf.uint8, name="image")
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")
    # Not archive.track(model): the endpoints' variables are saved anyway, and those of
    # a tracked model a second time.
    archive = keras.export.ExportArchive()
    with _inlined():
        archive.add_endpoint("serving_default", answer, [pixels])
        if labels is not None and shape[2] in CHANNELS:
            archive.add_endpoint("serve_bytes", answer_bytes, [files])
        if activations and several:
            archive.add_endpoint("activations", watch, [pixels])
        archive.write_out(str(folder), verbose=False)


_TRACING = threading.Lock()


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions inside of functions as if their lines stood there.

    Keras wraps a convolution in groups in a function to be compiled by XLA, which a
    server on a CPU refuses, and which converters do not look into.
    """
    import tensorflow as tf

    with _TRACING:  # the switch is of the whole process
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


def check_names(model, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names ("encoder/conv1") of layers, called once and with one output."""
    if isinstance(names, str):
        raise TypeError(f"activations are a sequence of names; received {names!r}")
    graph = trace(model)
    if graph is None:
        raise ValueError(
            f"activations are taken from the graph of a model, and {model.name!r} is "
            "subclassed: it has none; leave activations out"
        )
    calls = defaultdict(list)
    for call in (*graph.calls, *graph.nested):
        if isinstance(call.operation, keras.Layer):
            path = "/".join(part.name for part in (*call.parents, call.operation))
            calls[path].append(call)
    found = []
    for name in names:
        own = name if name in OUTPUTS else find_layer(name, calls)
        if name in OUTPUTS:
            problem = f"a version has an input or output {name!r} already"
        elif own in found:
            problem = f"activations names the layer {name!r} twice"
        elif (times := len(calls[own])) != 1:
            problem = f"the layer {name!r} is called {times} times"
        elif (tensors := len(calls[own][0].outputs)) != 1:
            problem = f"the output of the layer {name!r} is {tensors} tensors"
        else:
            found.append(own)
            continue
        raise ValueError(f"{problem}; name another layer in activations")
    return tuple(found)


# Each converts the SavedModel in a folder into a file.


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
    kinds = {"shapes": [graph.get_shape(output)], "dtypes": [graph.get_dtype(output)]}
    erf = graph.make_node("Erf", list(node.input), **kinds)
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    graph.remove_node(node.name)
    inputs = [one.output[0], erf.output[0]]
    graph.make_node("Sub", inputs, outputs=[output], name=name, **kinds)


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
