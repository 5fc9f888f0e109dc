"""A network as a TensorFlow SavedModel: for servers, and for other converters."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from kerascnn.serving.image_graph import decode
from kerascnn.serving.layers import maps
from kerascnn.serving.network import Reference, main_output
from kerascnn.serving.parity import CHANNELS


def write(model, version: Path, reference: Reference, labels, activations=()) -> None:
    """Write a network with the signatures that servers offer.

    Args:
        model: a `keras.Model` of the TensorFlow backend.
        version: a folder.
        reference: what the network is, from `network.refer`.
        labels: names of the classes, in the order of the outputs.
        activations: names of layers; with any, the signature `activations` is added.

    Raises:
        OSError, tensorflow.errors.OpError: the folder cannot be written to.
    """
    shape = reference.shape
    classify = _classifier(model, reference)

    def answer(image):
        given = classify(image)
        label = tf.gather(tf.constant(list(labels)), given["class_id"])
        return {**given, "label": label}

    def answer_bytes(image_bytes):
        image = tf.map_fn(
            lambda encoded: decode(encoded, shape),
            image_bytes,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
        return answer(image)

    endpoints = {"serving_default": (answer, _pixels(shape))}
    if "serve_bytes" in signatures(shape):
        files = tf.TensorSpec((None,), tf.string, name="image_bytes")
        endpoints["serve_bytes"] = (answer_bytes, files)
    if activations:
        watch = _watcher(model, activations)
        endpoints["activations"] = (watch, _pixels(shape))
    _save(version, endpoints)


def write_portable(
    model, folder: Path, reference: Reference, activations=(), *, several: bool
) -> None:
    """Write a network as what other formats are converted from: no strings in it.

    Args:
        model: a `keras.Model` of the TensorFlow backend.
        folder: an empty folder.
        reference: what the network is, from `network.refer`.
        activations: names of layers whose maps are given too.
        several: whether the format knows several signatures; if not, the maps are
            further outputs of the only one.
    """
    answer = _classifier(model, reference)
    endpoints = {"serving_default": (answer, _pixels(reference.shape))}
    if activations:
        watch = _watcher(model, activations)
        if several:
            endpoints["activations"] = (watch, _pixels(reference.shape))
        else:

            def both(image):
                return {**answer(image), **watch(image)}

            endpoints["serving_default"] = (both, _pixels(reference.shape))
    _save(folder, endpoints)


def signatures(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the signatures that a network for images of this shape is given.

    JPEG and PNG know images of one channel, of three and, PNG only, of four.
    """
    return ("serving_default", *(["serve_bytes"] if shape[2] in CHANNELS else []))


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 what is float32: GPUs round it to TensorFloat-32 otherwise.

    With TensorFloat-32's ten bits, two ways through the same convolution agree to
    three decimals only, and a comparison could not tell rounding from an error.
    """
    was_on = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_on)


def _classifier(model, reference: Reference):
    dtype = model.inputs[0].dtype

    def classify(image):
        # training=False, spelled out: without it, layers of random augmentation
        # inside the model stay at work in every request.
        output = main_output(model(tf.cast(image, dtype), training=False))
        # float32 under mixed precision too: a server's JSON has no bfloat16.
        scores = tf.cast(output, tf.float32)
        probabilities = tf.nn.softmax(scores) if reference.from_logits else scores
        class_id = tf.argmax(probabilities, axis=-1)  # (N,) int64
        return {"probabilities": probabilities, "class_id": class_id}

    return classify


def _watcher(model, activations):
    look = maps(model, activations)
    dtype = model.inputs[0].dtype

    def watch(image):
        seen = look(tf.cast(image, dtype))
        return {name: tf.cast(values, tf.float32) for name, values in seen.items()}

    return watch


def _pixels(shape: tuple[int, int, int]):
    return tf.TensorSpec((None, *shape), tf.uint8, name="image")


def _save(folder: Path, endpoints: dict) -> None:
    # Not archive.track(model): the endpoints' variables are saved anyway, and those of
    # a tracked model a second time.
    archive = keras.export.ExportArchive()
    with _inlined():
        for name, (function, spec) in endpoints.items():
            archive.add_endpoint(name, function, [spec])
        archive.write_out(str(folder), verbose=False)


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions inside of functions as if their lines stood there.

    Keras wraps a convolution in groups in a function that is to be compiled by XLA,
    for the sake of its gradient. Such a function a server on a CPU refuses, whose XLA
    is off by default, and converters do not look into.
    """
    with _TRACING:  # the switch is of the whole process
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


_TRACING = threading.Lock()
