"""A network as a TensorFlow SavedModel: two signatures, proven before it is used."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerascnn.serving import check, warmup
from kerascnn.serving.decoding import decode
from kerascnn.serving.errors import ExportError
from kerascnn.serving.network import Reference, main_output

LABELS = "assets.extra/labels.txt"

# Two runs of the same float32 graph differ by less than a tenth of this.
TOLERANCE = 1e-5


def build(
    model, version: Path, reference: Reference, labels, tolerance=TOLERANCE
) -> None:
    """Write a network into a folder, load it back and compare their answers.

    Args:
        model: a `keras.Model` of the TensorFlow backend.
        version: an empty folder.
        reference: what the network is and answers, from `network.refer`.
        labels: names of the classes, in the order of the outputs.
        tolerance: the largest difference of a probability that is rounding.

    Raises:
        ExportError: the disk is full, or the answers differ.
    """
    try:
        _write(model, version, reference, labels)
        warmup.write(version, reference.shape, signatures(reference.shape))
        text = "".join(f"{label}\n" for label in labels)
        (version / LABELS).write_text(text, encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        free = shutil.disk_usage(version).free / 1e6
        raise ExportError(
            f"cannot write a version into {version.parent}: {_first_line(error)}; "
            f"nothing was published, and {free:,.0f} MB are free there"
        ) from error
    verify(version, reference, labels, tolerance)


def signatures(shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Return the signatures that a network for images of this shape is given.

    JPEG and PNG know images of one channel, of three and, PNG only, of four.
    """
    return ("serving_default", *(["serve_bytes"] if shape[2] in (1, 3, 4) else []))


def verify(version: Path, reference: Reference, labels, tolerance: float) -> None:
    """Load a version in this process, and hold its answers against its network's.

    Raises:
        ExportError: a probability differs by more than the tolerance, a class or its
            label does not belong to the probabilities, or the same pixels in a PNG
            file give another answer.
    """
    served = check.load(version)
    requests = {"uint8 images": reference.images}
    if "serve_bytes" in signatures(reference.shape):
        encoded = [tf.io.encode_png(image).numpy() for image in reference.images]
        requests["PNG files"] = encoded
    for kind, request in requests.items():
        answer = check.ask(served, request)
        given, expected = answer["probabilities"], reference.probabilities
        if given.shape != expected.shape:
            raise ExportError(
                f"the SavedModel answers {kind} with probabilities of shape "
                f"{given.shape}, the network with {expected.shape}; nothing was "
                "published"
            )
        difference = float(np.abs(given - expected).max())
        if not difference <= tolerance:  # NaN is a difference too
            raise ExportError(
                f"the SavedModel answers {kind} otherwise than the network: a "
                f"probability differs by {difference:.3g}, more than {tolerance:g}; "
                "nothing was published. Does a layer draw random numbers at inference?"
            )
        best = given.argmax(axis=-1)
        if list(answer["class_id"]) != list(best) or answer["label"] != [
            labels[number] for number in best
        ]:
            raise ExportError(
                f"the SavedModel answers {kind} with classes {answer['class_id']} and "
                f"labels {answer['label']}, its probabilities say {best}; nothing "
                "was published"
            )


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


def _write(model, version: Path, reference: Reference, labels) -> None:
    shape = reference.shape
    dtype = model.inputs[0].dtype

    def classify(image):
        # training=False, spelled out: without it, layers of random augmentation
        # inside the model stay at work in every request.
        output = main_output(model(tf.cast(image, dtype), training=False))
        # float32 under mixed precision too: a server's JSON has no bfloat16.
        scores = tf.cast(output, tf.float32)
        probabilities = tf.nn.softmax(scores) if reference.from_logits else scores
        class_id = tf.argmax(probabilities, axis=-1)  # (N,) int64
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "label": tf.gather(tf.constant(list(labels)), class_id),
        }

    def classify_bytes(image_bytes):
        image = tf.map_fn(
            lambda encoded: decode(encoded, shape),
            image_bytes,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
        return classify(image)

    # Not archive.track(model): the endpoints' variables are saved anyway, and those of
    # a tracked model a second time.
    archive = keras.export.ExportArchive()
    pixels = tf.TensorSpec((None, *shape), tf.uint8, name="image")
    archive.add_endpoint("serving_default", classify, [pixels])
    if "serve_bytes" in signatures(shape):
        files = tf.TensorSpec((None,), tf.string, name="image_bytes")
        archive.add_endpoint("serve_bytes", classify_bytes, [files])
    archive.write_out(str(version), verbose=False)


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
