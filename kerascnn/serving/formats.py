"""The formats of a version: how each is recognised, and read with its own runtime.

Importing this module imports neither TensorFlow, nor Keras, nor a runtime.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.environment import first_missing
from kerascnn.prediction import Prediction, ranked

MANIFEST = "manifest.json"
LABELS = "labels.txt"
CHANNELS = (1, 3, 4)  # of image files; those of four are PNG
SCORES = ("probabilities", "class_id")  # what every format returns
BATCH = 32  # images a Keras model answers at a time


class ExportError(RuntimeError):
    """A version could not be written, or answers differently from its network."""


@dataclass(frozen=True)
class Format:
    """One format: its main file, and the packages that read and write it."""

    name: str  # as `export` takes it, and as the extra of kerascnn is called
    title: str  # as people write it
    file: str  # in the folder of a version
    runtime: str
    writers: tuple[str, ...]


FORMATS = {
    name: Format(name, title, file, runtime, (*converters, runtime))
    for name, title, file, runtime, *converters in (
        ("savedmodel", "SavedModel", "saved_model.pb", "tensorflow"),
        # The converter is a part of TensorFlow. So is an interpreter, but it is
        # deprecated in favour of this package, which needs no TensorFlow.
        ("litert", "LiteRT", "model.tflite", "ai_edge_litert", "tensorflow"),
        ("onnx", "ONNX", "model.onnx", "onnxruntime", "tensorflow", "tf2onnx", "onnx"),
        ("openvino", "OpenVINO", "model.xml", "openvino", "tensorflow"),
        ("keras", "Keras", "model.keras", "keras"),
    )
}


def writable(name: str) -> Format:
    """Return the format of that name, if the packages that write it are installed."""
    if name not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}; received {name!r}")
    _require(FORMATS[name].writers, name)
    return FORMATS[name]


def _require(packages: tuple[str, ...], name: str) -> None:
    if package := first_missing(packages):
        own = package in ("tensorflow", "keras")
        raise ModuleNotFoundError(
            f"the format {name} needs {package}: pip install "
            + (package if own else f'"kerascnn[{name}]"')
        )


def format_of(version) -> Format | None:
    """Return the format of a version's folder; None if it is no version.

    Its manifest tells, otherwise (other programs write none) its main file.
    """
    version = Path(version)
    try:
        named = json.loads((version / MANIFEST).read_text(encoding="utf-8"))["format"]
        return FORMATS[named]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # A lone model.keras does not tell: run folders have one too.
        for made in FORMATS.values():
            if made.name != "keras" and (version / made.file).is_file():
                return made
        return None


def is_version(folder) -> bool:
    """Return whether a folder holds one version, in any format."""
    return format_of(folder) is not None


def labels_of(version) -> list[str]:
    """Return the names of a version's classes; ValueError without a labels.txt."""
    for name in (LABELS, f"assets.extra/{LABELS}"):
        file = Path(version) / name
        if file.is_file():
            return file.read_text(encoding="utf-8").splitlines()
    raise ValueError(
        f"{version} holds no labels.txt; give the folder of a version that kerascnn "
        "export wrote, such as served/lecture_cnn/1"
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


@dataclass(frozen=True)
class Runtime:
    """A version that is loaded and answers."""

    version: Path
    format: str
    shape: tuple[int, int, int]  # height, width, channels of the images it takes
    run: Callable  # from uint8 images (N, height, width, channels) to its outputs
    run_files: Callable | None = None  # from image files, where its graph decodes them

    @property
    def labels(self) -> list[str]:
        """Names of its classes."""
        return labels_of(self.version)

    def ask(self, images) -> dict:
        """Let the version answer images.

        Images are a uint8 array (N, height, width, channels), or a sequence of N images
        as the bytes of JPEG or PNG files of any size. Returned are "probabilities",
        float32 (N, classes), "class_id", int64 (N,), and "label", a list of N strings.

        Raises ValueError: the array is not uint8, images have another shape than the
        network takes, or bytes are not of an image file; the last two are a
        tensorflow.errors.InvalidArgumentError in a SavedModel.
        """
        if isinstance(images, np.ndarray):
            # A SavedModel says itself what does not fit.
            fits = self.format == "savedmodel" or images.shape[1:] == self.shape
            if images.dtype != np.uint8 or not fits:
                raise ValueError(
                    "images are uint8 pixels, 0…255, "
                    f"(N, {', '.join(map(str, self.shape))}); received {images.dtype} "
                    f"{images.shape}: convert them, or pass a list of JPEG or PNG "
                    "files as bytes"
                )
            given = self.run(images)
        elif self.run_files is not None:
            given = self.run_files(list(images))
        else:
            given = self.run(np.stack([self._decode(encoded) for encoded in images]))
        answer = {name: np.asarray(given[name]) for name in SCORES}
        if self.format == "savedmodel":
            answer["label"] = [name.decode() for name in given["label"].numpy()]
        else:
            labels = self.labels
            answer["label"] = [labels[number] for number in answer["class_id"]]
        return answer

    def _decode(self, encoded: bytes) -> np.ndarray:
        from kerascnn.data import read_image

        try:
            return read_image(io.BytesIO(encoded), self.shape[:2], self.shape[2])
        except (OSError, SyntaxError) as error:
            raise ValueError(
                f"{len(encoded)} bytes are not a readable image: {error}"
            ) from error


def open_version(version, made: Format | None = None) -> Runtime:
    """Load a version, such as "served/lecture_cnn/1", in the format that it says.

    Its `ask(images)` answers with arrays, `answers` with predictions.

    Raises ValueError: the folder holds no version, or its file cannot be read;
    ModuleNotFoundError: the runtime of its format is not installed.
    """
    version = Path(version)
    made = made or format_of(version)
    if made is None:
        raise ValueError(
            f"{version} holds no version; give the folder of one, such as "
            "served/lecture_cnn/1"
        )
    _require((made.runtime,), made.name)
    shape, *runs = _OPENERS[made.name](version / made.file)
    return Runtime(version, made.name, tuple(int(n) for n in shape), *runs)


def answers(version, images) -> list[Prediction]:
    """Load a version, such as "served/lecture_cnn/1", and let it answer images.

    Images and errors are those of `Runtime.ask`, which `open_version(version)` gives
    and which answers with arrays. Returned is a prediction for each image.

    Raises ValueError, too, where the folder holds no version, and ModuleNotFoundError
    where the runtime of its format is not installed.
    """
    served = open_version(version)
    return ranked(served.ask(images)["probabilities"], served.labels)


def predict_files(version, files) -> list[Prediction]:
    """Let a version of any format answer JPEG or PNG files of any size.

    Raises as `answers`, and FileNotFoundError: a file is not there.
    """
    files = [Path(file) for file in files]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        if not content.startswith((b"\x89PNG", b"\xff\xd8")):
            raise ValueError(f"{file} is neither a JPEG nor a PNG file")
    served = open_version(version)
    return ranked(served.ask(contents)["probabilities"], served.labels, files)


# Each returns the shape of the images that a file takes, and what answers them.


def _savedmodel(file: Path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file.parent))
    default = loaded.signatures.get("serving_default")
    taken = default.structured_input_signature[1] if default else {}
    given = default.structured_outputs if default else {}
    if "image" not in taken or not {"probabilities", "class_id", "label"} <= set(given):
        raise ValueError(
            f"{file.parent} is a SavedModel, but none that kerascnn export wrote: its "
            f"signature serving_default takes {', '.join(taken) or 'nothing'} and "
            f"gives {', '.join(map(str, given)) or 'nothing'}; export the network with "
            "kerascnn export"
        )

    # The loaded object, which these two hold, owns the variables of its signatures.
    def run(images):
        return loaded.signatures["serving_default"](image=tf.constant(images))

    def run_files(files):
        encoded = tf.constant(files, tf.string)
        return loaded.signatures["serve_bytes"](image_bytes=encoded)

    decodes = "serve_bytes" in loaded.signatures
    return taken["image"].shape[1:], run, run_files if decodes else None


def _litert(file: Path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    runner = interpreter.get_signature_runner("serving_default")
    shape = runner.get_input_details()["image"]["shape_signature"]
    return shape[1:], lambda images: runner(image=images)


def _onnx(file: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images):
        answer = session.run(SCORES, {"image": images})
        return dict(zip(SCORES, answer, strict=True))

    return session.get_inputs()[0].shape[1:], run


def _openvino(file: Path):
    import openvino

    # By default OpenVINO rounds to bfloat16 where the processor is quicker with it.
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(file, "CPU", hint)

    shape = [size.get_length() for size in list(network.inputs[0].partial_shape)[1:]]
    return shape, lambda images: network({"image": images})


def _keras(file: Path):
    from kerascnn.training.run import load_model

    model = load_model(file)

    def run(images):
        answer = model.predict(images, batch_size=BATCH, verbose=0)
        scores = np.asarray(answer, np.float32)
        return {"probabilities": scores, "class_id": scores.argmax(axis=-1)}

    return model.inputs[0].shape[1:], run


_OPENERS = {
    "savedmodel": _savedmodel,
    "litert": _litert,
    "onnx": _onnx,
    "openvino": _openvino,
    "keras": _keras,
}
