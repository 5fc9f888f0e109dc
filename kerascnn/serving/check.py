"""Read a served version back: in this process, or in one that has only TensorFlow.

Run as a script, `python -P check.py VERSION IMAGES.npy` answers the uint8 images of
a NumPy file as one JSON object. It shuts out Keras and this package, on which a
server cannot count. (`import tensorflow` would otherwise import Keras by itself,
where Keras is installed.)
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHUT_OUT = ("keras", "tf_keras", "kerascnn", "zoo")


def load(version):
    """Load a version; the SavedModel's object, to be passed to `ask`.

    Raises:
        ValueError: the folder holds no SavedModel.
    """
    if not (Path(version) / "saved_model.pb").is_file():
        raise ValueError(
            f"{version} holds no saved_model.pb; give the folder of a version, such "
            "as served/lecture_cnn/1"
        )
    import tensorflow as tf

    return tf.saved_model.load(str(version))


def ask(served, images) -> dict:
    """Let a loaded version answer images; see `answers`."""
    import tensorflow as tf

    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8:
            raise ValueError(
                f"images are uint8 pixels, 0…255; received {images.dtype}: convert "
                "them, or pass a list of JPEG or PNG files as bytes"
            )
        answer = served.signatures["serving_default"](image=tf.constant(images))
    else:
        encoded = tf.constant(list(images), tf.string)
        answer = served.signatures["serve_bytes"](image_bytes=encoded)
    return {
        "probabilities": answer["probabilities"].numpy(),
        "class_id": answer["class_id"].numpy(),
        "label": [label.decode() for label in answer["label"].numpy()],
    }


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
    # Not imported above: run as a script, this file has no package around it.
    from kerascnn.serving.runtimes import open_version

    return open_version(version).ask(images)


def predict_files(version, files) -> list[tuple[Path, dict[str, float]]]:
    """Let a version answer image files.

    A SavedModel decodes and resizes them itself; for the other formats
    `kerascnn.data.read_image` does.

    Args:
        version: folder of a version that `export` wrote, in any format.
        files: JPEG or PNG files of any size.

    Returns:
        For each file its path and the probability of each class, the greatest first.

    Raises:
        ValueError: the folder holds no version, or a file is no JPEG or PNG.
        FileNotFoundError: a file is not there.
        ModuleNotFoundError: the runtime of the format is not installed.
    """
    from kerascnn.serving.runtimes import open_version

    contents = [Path(file).read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        if not content.startswith((b"\x89PNG", b"\xff\xd8")):
            raise ValueError(f"{file} is neither a JPEG nor a PNG file")
    served = open_version(version)
    probabilities = served.ask(contents)["probabilities"]
    return [
        (Path(file), {served.labels[i]: float(row[i]) for i in np.argsort(-row)})
        for file, row in zip(files, probabilities, strict=True)
    ]


def check_in_fresh_process(version, images, expected_probabilities) -> float:
    """Let a process without Keras and kerascnn answer; return how far it is off.

    The process computes on the CPU. It fails if Keras or kerascnn is imported in it.

    Args:
        version: folder of a version.
        images: uint8 array (N, height, width, channels).
        expected_probabilities: array (N, classes): what the network answers.

    Returns:
        The largest absolute difference of a probability.

    Raises:
        ExportError: the process failed; ends in its last line of error output.
        ValueError: the expected probabilities have another shape than the answers.
    """
    with tempfile.TemporaryDirectory(prefix="kerascnn-check-") as scratch:
        file = Path(scratch) / "images.npy"
        np.save(file, images)
        # -P: the folder of this script does not become a place to import from.
        command = [sys.executable, "-P", __file__, Path(version).resolve(), file]
        done = subprocess.run(
            command,
            cwd=scratch,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        from kerascnn.serving.errors import ExportError

        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"a fresh process cannot read {version}: {lines[-1]}")
    served = np.asarray(json.loads(done.stdout)["probabilities"], np.float32)
    expected = np.asarray(expected_probabilities)
    if served.shape != expected.shape:
        raise ValueError(
            f"{version} answers probabilities of shape {served.shape}; received "
            f"expected probabilities of shape {expected.shape}"
        )
    return float(np.abs(served - expected).max(initial=0.0))


def imported(names=SHUT_OUT) -> list[str]:
    """Return the modules of these packages that this process has imported."""
    return sorted(
        name
        for name, module in sys.modules.items()
        if module is not None and name.split(".")[0] in names
    )


def main(arguments: list[str]) -> int:
    """Answer as a script; see the module's description."""
    version, images = arguments
    for name in SHUT_OUT:
        sys.modules[name] = None  # "import keras" now raises ModuleNotFoundError
    answer = ask(load(version), np.load(images))
    if found := imported():
        print(f"this process has imported {', '.join(found)}", file=sys.stderr)
        return 1
    json.dump(
        {
            "probabilities": answer["probabilities"].tolist(),
            "class_id": answer["class_id"].tolist(),
            "label": answer["label"],
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
