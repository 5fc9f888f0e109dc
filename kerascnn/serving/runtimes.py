"""Read a version of any format back, with the runtime of that format."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.prediction import Prediction, ranked
from kerascnn.serving.formats import Format, format_of, labels_of, require

BATCH = 32  # images a Keras model answers at a time


@dataclass(frozen=True)
class Runtime:
    """A version that is loaded and answers.

    Attributes:
        version: its folder.
        format: name of its format.
        shape: (height, width, channels) of the images it takes.
        run: from uint8 images (N, height, width, channels) to "probabilities",
            "class_id" and perhaps "label".
        run_files: the same from image files as bytes, where the version decodes them
            in its graph; otherwise they are decoded here.
    """

    version: Path
    format: str
    shape: tuple[int, int, int]
    run: Callable
    run_files: Callable | None = None

    @property
    def labels(self) -> list[str]:
        """Names of its classes."""
        return labels_of(self.version)

    def ask(self, images) -> dict:
        """Let the version answer images; see `kerascnn.serving.answers`."""
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
            answer = self.run(images)
        elif self.run_files is not None:
            answer = self.run_files(list(images))
        else:
            answer = self.run(np.stack([self._decode(encoded) for encoded in images]))
        if "label" not in answer:
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


def open_version(version) -> Runtime:
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


def open_file(version: Path, made: Format) -> Runtime:
    """Load the folder of a version whose format is known; see `open_version`."""
    require(made.reads, made)
    shape, *runs = _OPENERS[made.name](version / made.file)
    return Runtime(version, made.name, tuple(int(n) for n in shape), *runs)


def answers(version, images) -> dict:
    """Load a version of any format and let it answer images.

    Args:
        version: folder of a version, such as "served/lecture_cnn/1".
        images: uint8 array (N, height, width, channels), or a sequence of N images
            as the bytes of JPEG or PNG files of any size.

    Returns:
        A dictionary: "probabilities" float32 (N, classes), "class_id" int64 (N,),
        "label" a list of N strings.

    Raises:
        ValueError: the folder holds no version, the array is not uint8, or, in formats
            other than SavedModel, images have another shape than the network takes or
            bytes are not of an image file.
        tensorflow.errors.InvalidArgumentError: the same, in a SavedModel.
        ModuleNotFoundError: the runtime of the format is not installed.
    """
    return open_version(version).ask(images)


def predict_files(version, files) -> list[Prediction]:
    """Let a version answer image files.

    A SavedModel decodes and resizes them itself; for the other formats
    `kerascnn.data.read_image` does.

    Args:
        version: folder of a version that `export` wrote, in any format.
        files: JPEG or PNG files of any size.

    Returns:
        A prediction for each file.

    Raises:
        ValueError: the folder holds no version, or a file is no JPEG or PNG.
        FileNotFoundError: a file is not there.
        ModuleNotFoundError: the runtime of the format is not installed.
    """
    files = [Path(file) for file in files]
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        if not content.startswith((b"\x89PNG", b"\xff\xd8")):
            raise ValueError(f"{file} is neither a JPEG nor a PNG file")
    served = open_version(version)
    return ranked(served.ask(contents)["probabilities"], served.labels, files)


def _savedmodel(file: Path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file.parent))
    signatures = loaded.signatures
    default = signatures.get("serving_default")
    taken = default.structured_input_signature[1] if default else {}
    given = default.structured_outputs if default else {}
    if "image" not in taken or not {"probabilities", "class_id", "label"} <= set(given):
        raise ValueError(
            f"{file.parent} is a SavedModel, but none that kerascnn export wrote: its "
            f"signature serving_default takes {', '.join(taken) or 'nothing'} and "
            f"gives {', '.join(map(str, given)) or 'nothing'}; export the network with "
            "kerascnn export"
        )

    def told(answer):
        return {
            "probabilities": answer["probabilities"].numpy(),
            "class_id": answer["class_id"].numpy(),
            "label": [label.decode() for label in answer["label"].numpy()],
        }

    def run(images):
        # The loaded object owns the variables of its signatures.
        return told(loaded.signatures["serving_default"](image=tf.constant(images)))

    def run_files(files):
        if "serve_bytes" not in signatures:
            raise ValueError(f"{file.parent} takes pixels only, no image files")
        encoded = tf.constant(files, tf.string)
        return told(loaded.signatures["serve_bytes"](image_bytes=encoded))

    return taken["image"].shape[1:], run, run_files


def _litert(file: Path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    runner = interpreter.get_signature_runner("serving_default")
    taken = runner.get_input_details()["image"]

    def run(images):
        answer = runner(image=images)
        return {name: answer[name] for name in ("probabilities", "class_id")}

    return taken["shape_signature"][1:], run


def _onnx(file: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )

    def run(images):
        names = ["probabilities", "class_id"]
        answer = session.run(names, {"image": images})
        return dict(zip(names, answer, strict=True))

    return session.get_inputs()[0].shape[1:], run


def _openvino(file: Path):
    import openvino

    # By default OpenVINO rounds to bfloat16 where the processor is quicker with it.
    network = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(images):
        answer = network({"image": images})
        return {name: answer[name] for name in ("probabilities", "class_id")}

    shape = network.input("image").partial_shape
    return [dimension.get_length() for dimension in list(shape)[1:]], run


def _keras(file: Path):
    from kerascnn.training.run import load_model

    model = load_model(file)

    def run(images):
        answer = model.predict(images, batch_size=BATCH, verbose=0)
        probabilities = np.asarray(answer, np.float32)
        return {
            "probabilities": probabilities,
            "class_id": probabilities.argmax(axis=-1),
        }

    return model.inputs[0].shape[1:], run


_OPENERS = {
    "savedmodel": _savedmodel,
    "litert": _litert,
    "onnx": _onnx,
    "openvino": _openvino,
    "keras": _keras,
}
