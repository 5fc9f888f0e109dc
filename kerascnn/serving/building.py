"""Fill the folder of a version: write the format, prove it, tell how well it agrees."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kerascnn.serving.errors import ExportError
from kerascnn.serving.formats import LABELS, Format
from kerascnn.serving.network import Reference, main_output
from kerascnn.serving.parity import TOLERANCE, Proof, first_line, prove


def build(
    model,
    version: Path,
    reference: Reference,
    labels,
    made: Format,
    activations=(),
    tolerance: float | None = None,
) -> Proof:
    """Write a network into a folder, load it back and compare their answers.

    Args:
        model: a `keras.Model`; for all formats but "keras", of the TensorFlow backend.
        version: an empty folder.
        reference: what the network is and answers, from `network.refer`.
        labels: names of the classes, in the order of the outputs.
        made: the format.
        activations: names of layers whose maps the version gives too.
        tolerance: the largest difference of a probability that is rounding; default
            1e-5.

    Returns:
        How far the answers are apart, and two of them.

    Raises:
        ExportError: the disk is full, the format cannot express the network, or the
            answers differ.
    """
    with explained(version):
        if made.name == "keras":
            _write_keras(model, version / made.file, reference)
        elif made.name == "savedmodel":
            _write_savedmodel(model, version, reference, labels, activations)
        else:
            _write_converted(model, version, reference, made, activations)
        text = "".join(f"{label}\n" for label in labels)
        (version / LABELS).write_text(text, encoding="utf-8")
    tolerance = TOLERANCE if tolerance is None else tolerance
    return prove(version, reference, labels, tolerance, made)


@contextlib.contextmanager
def explained(version: Path) -> Iterator[None]:
    """Turn a failure to write into an ExportError that tells the space that is left."""
    try:
        yield
    except _write_errors() as error:
        free = shutil.disk_usage(version).free / 1e6
        raise ExportError(
            f"cannot write a version into {version.parent}: {first_line(error)}; "
            f"nothing was published, and {free:,.0f} MB are free there"
        ) from error


def _write_errors() -> tuple:
    # Asked when something was raised: TensorFlow is there if it was TensorFlow's.
    tensorflow = sys.modules.get("tensorflow")
    return (OSError, tensorflow.errors.OpError) if tensorflow else (OSError,)


def _write_savedmodel(model, version, reference, labels, activations) -> None:
    from kerascnn.serving import savedmodel, warmup

    savedmodel.write(model, version, reference, labels, activations)
    warmup.write(version, reference.shape, savedmodel.signatures(reference.shape))
    # Where servers and tools for SavedModels look for what is not of TensorFlow.
    text = "".join(f"{label}\n" for label in labels)
    (version / "assets.extra" / LABELS).write_text(text, encoding="utf-8")


def _write_converted(model, version, reference, made, activations) -> None:
    from kerascnn.serving import converting, savedmodel

    with tempfile.TemporaryDirectory(prefix="kerascnn-convert-") as scratch:
        portable = Path(scratch) / "portable"
        savedmodel.write_portable(
            model,
            portable,
            reference,
            activations,
            several=made.name in converting.SEVERAL,
        )
        converting.convert(portable, version, made)


def _write_keras(model, file: Path, reference: Reference) -> None:
    import warnings

    import keras

    # The network as it is where it answers with probabilities and nothing else.
    served = model
    if reference.from_logits or len(model.outputs) > 1:
        sequential = isinstance(model, keras.Sequential)
        output = main_output(model.outputs if sequential else model.output)
        if reference.from_logits:
            softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
            output = softmax(output)
        served = keras.Model(model.inputs, output, name=model.name)
    try:
        with warnings.catch_warnings():
            # Keras warns of lambdas in files of unknown origin, which this is not.
            warnings.simplefilter("ignore")
            served.save(file)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ExportError(
            f"the model {model.name!r} cannot be saved as a .keras file: "
            f"{first_line(error)}"
        ) from error
