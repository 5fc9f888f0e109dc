"""Read a version of any format back, with the runtime of that format."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.serving import check
from kerascnn.serving.formats import format_of, labels_of, require

BATCH = 32  # images a Keras model answers at a time


@dataclass(frozen=True)
class Served:
    """A version that is loaded and answers.

    Attributes:
        version: its folder.
        format: name of its format.
        shape: (height, width, channels) of the images it takes.
        labels: names of its classes.
    """

    version: Path
    format: str
    shape: tuple[int, int, int]
    labels: list[str]
    _run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

    def ask(self, images) -> dict:
        """Let the version answer images; see `kerascnn.serving.answers`.

        Where the format cannot decode files in its graph, they are decoded here, as
        `kerascnn.data.read_image` does.
        """
        if not isinstance(images, np.ndarray):
            images = np.stack([self._decode(encoded) for encoded in images])
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise ValueError(
                f"images are uint8 pixels (N, {', '.join(map(str, self.shape))}); "
                f"received {images.dtype} {images.shape}"
            )
        probabilities, class_id = self._run(images)
        return {
            "probabilities": probabilities,
            "class_id": class_id,
            "label": [self.labels[number] for number in class_id],
        }

    def _decode(self, encoded: bytes) -> np.ndarray:
        from kerascnn.data import read_image

        try:
            return read_image(io.BytesIO(encoded), self.shape[:2], self.shape[2])
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"{len(encoded)} bytes are not a readable image: {error}"
            ) from error


@dataclass(frozen=True)
class ServedModel:
    """A SavedModel that is loaded; it decodes files and names classes in its graph."""

    version: Path
    loaded: Any
    format: str = "savedmodel"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images it takes."""
        default = self.loaded.signatures["serving_default"]
        return tuple(default.structured_input_signature[1]["image"].shape[1:])

    @property
    def labels(self) -> list[str]:
        """Names of its classes."""
        return labels_of(self.version)

    def ask(self, images) -> dict:
        """Let the version answer images; see `kerascnn.serving.answers`."""
        return check.ask(self.loaded, images)


def open_version(version) -> Served | ServedModel:
    """Load a version of any format.

    Args:
        version: folder of a version, such as "served/lecture_cnn/1".

    Returns:
        An object with `ask(images)`, which takes and returns what
        `kerascnn.serving.answers` does, and with `shape`, `labels` and `format`.

    Raises:
        ValueError: the folder holds no version, or its file cannot be read.
        ModuleNotFoundError: the runtime of its format is not installed.
    """
    version = Path(version)
    made = format_of(version)
    if made is None:
        raise ValueError(
            f"{version} holds no version; give the folder of one, such as "
            "served/lecture_cnn/1"
        )
    return open_file(version, made)


def open_file(version: Path, made) -> Served | ServedModel:
    """Load the folder of a version whose format is known; see `open_version`."""
    require(made.reads, made)
    if made.name == "savedmodel":
        return ServedModel(version, check.load(version))
    labels = labels_of(version)
    shape, run = _OPENERS[made.name](version / made.file)
    return Served(version, made.name, tuple(int(n) for n in shape), labels, run)


def _litert(file: Path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    runner = interpreter.get_signature_runner("serving_default")
    taken = runner.get_input_details()["image"]

    def run(images):
        answer = runner(image=images)
        return answer["probabilities"], answer["class_id"]

    return taken["shape_signature"][1:], run


def _onnx(file: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )

    def run(images):
        return tuple(session.run(["probabilities", "class_id"], {"image": images}))

    return session.get_inputs()[0].shape[1:], run


def _openvino(file: Path):
    import openvino

    # By default OpenVINO rounds to bfloat16 where the processor is quicker with it.
    network = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(images):
        answer = network({"image": images})
        return answer["probabilities"], answer["class_id"]

    shape = network.input("image").partial_shape
    return [dimension.get_length() for dimension in list(shape)[1:]], run


def _keras(file: Path):
    from kerascnn.training.run import load_model

    model = load_model(file)

    def run(images):
        answer = model.predict(images, batch_size=BATCH, verbose=0)
        probabilities = np.asarray(answer, np.float32)
        return probabilities, probabilities.argmax(axis=-1)

    return model.inputs[0].shape[1:], run


_OPENERS = {"litert": _litert, "onnx": _onnx, "openvino": _openvino, "keras": _keras}
