"""Hold a version's answers against its network's; prove later that it is unchanged."""

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.serving.formats import (
    CHANNELS,
    MANIFEST,
    ExportError,
    Format,
    first_line,
    format_of,
    open_version,
)
from kerascnn.serving.publish import changes, numbered, read_manifest

# Two runs of the same float32 graph differ by less than a tenth of this.
TOLERANCE = 1e-5
TOLERANCE_HALF = 3e-2  # between devices or backends, of the 8 bits of bfloat16
BATCH = 32  # images a request
KINDS = {"uint8": "uint8 images", "encoded": "PNG files"}

# What a process runs that has neither Keras nor this package, on which a server cannot
# count. (`import tensorflow` imports Keras by itself, where Keras is installed.)
ALONE = """
import json, sys
shut_out = ("keras", "tf_keras", "kerascnn", "zoo")
for name in shut_out:
    sys.modules[name] = None  # "import keras" now raises ModuleNotFoundError
import numpy as np
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = served(image=tf.constant(np.load(sys.argv[2])))
there = [n for n in sys.modules if n.split(".")[0] in shut_out and sys.modules[n]]
if there:
    sys.exit(f"this process has imported {', '.join(there)}")
json.dump({"probabilities": answer["probabilities"].numpy().tolist()}, sys.stdout)
"""


def prove(version: Path, reference, labels, made: Format, tolerance: float) -> dict:
    """Load a version in this process, and hold its answers against its network's.

    Returned is what its manifest says of it: "parity", the largest difference of a
    probability, of "uint8" pixels and, where image files have so many channels, of
    "encoded" PNG files; and "golden", two images with the version's answer.

    Raises ExportError: the runtime of the format cannot run the version, a probability
    differs by more than the tolerance, or a class or its label does not belong to the
    probabilities.
    """
    images = reference.images
    worst = dict.fromkeys(KINDS if reference.shape[2] in CHANNELS else ["uint8"], 0.0)
    try:
        served = open_version(version, made)
        for kind in worst:
            for start in range(0, len(images), BATCH):
                part = images[start : start + BATCH]
                given = served.ask(part if kind == "uint8" else list(map(png, part)))
                expected = reference.probabilities[start : start + BATCH]
                off = _difference(given, expected, labels, KINDS[kind])
                worst[kind] = float(np.maximum(worst[kind], off))  # it keeps NaN
        golden = images[[0, -1]]
        answer = np.asarray(served.ask(golden)["probabilities"])
    except (ExportError, ModuleNotFoundError, MemoryError):
        raise
    # Every runtime has exceptions of its own for a graph that it cannot run.
    except Exception as error:
        raise ExportError(
            f"the {made.title} that was written cannot be run: {first_line(error)}; "
            "nothing was published"
        ) from error
    for kind, difference in worst.items():
        if not difference <= tolerance:  # NaN is a difference too
            raise ExportError(
                f"the {made.title} answers {KINDS[kind]} otherwise than the network: "
                f"a probability differs by {difference:.3g}, more than {tolerance:g}; "
                "nothing was published. Does a layer draw random numbers at inference? "
                "If it is rounding, pass a greater tolerance"
            )
    best, shape = answer.argmax(axis=-1).tolist(), list(golden.shape)
    pixels = base64.b64encode(golden.tobytes()).decode("ascii")
    return {
        "golden": {
            "request": {"image": {"dtype": "uint8", "shape": shape, "base64": pixels}},
            "answer": {
                "probabilities": answer.astype(float).tolist(),
                "class_id": best,
                "label": [labels[number] for number in best],
            },
            # Of another machine, on another day.
            "tolerance": max(
                tolerance, TOLERANCE_HALF if reference.half else TOLERANCE
            ),
        },
        "parity": {"images": len(images), **worst, "tolerance": tolerance},
    }


def _difference(answer: dict, expected, labels, kind: str) -> float:
    """Return the largest difference of a probability in a batch, or NaN."""
    given = answer["probabilities"]
    best = given.argmax(axis=-1)
    names = [labels[number] for number in best]
    if list(answer["class_id"]) != list(best) or answer["label"] != names:
        raise ExportError(
            f"the version answers {kind} with classes {answer['class_id']} and labels "
            f"{answer['label']}, its probabilities say {best}; nothing was published"
        )
    return _furthest(given, expected, "the version")


def golden_arrays(content: dict) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a manifest's golden images, their probabilities, and the tolerance."""
    try:
        kept = content["golden"]
        image = kept["request"]["image"]
        pixels = np.frombuffer(base64.b64decode(image["base64"]), np.uint8)
        images = pixels.reshape(image["shape"])
        probabilities = np.asarray(kept["answer"]["probabilities"], np.float32)
        return images, probabilities, float(kept["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST} holds no golden request: {error!r}") from error


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels, uint8 (height, width, 1, 3 or 4), as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "PNG")
    return file.getvalue()


def run_python(arguments: list, failed: str, cwd=None, **environment: str) -> str:
    """Return what Python prints, without a GPU; ExportError: `failed`, and why."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **quiet, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"{failed}: {lines[-1]}")
    return done.stdout


def check_in_fresh_process(version, images, expected_probabilities) -> float:
    """Let a process without Keras and kerascnn answer, on the CPU.

    The version is a SavedModel, images are uint8 (N, height, width, channels), and
    expected the network's answers (N, classes). Returned is the largest absolute
    difference of a probability.

    Raises ExportError: the process failed; ends in its last line of error output;
    ValueError: the expected probabilities have another shape than the answers.
    """
    with tempfile.TemporaryDirectory(prefix="kerascnn-check-") as scratch:
        file = Path(scratch) / "images.npy"
        np.save(file, images)
        # -P: the folder it is started in is no place to import from.
        arguments = ["-P", "-c", ALONE, Path(version).resolve(), file]
        failed = f"a fresh process cannot read {version}"
        told = json.loads(run_python(arguments, failed, scratch))
    answer = np.asarray(told["probabilities"], np.float32)
    return _furthest(answer, np.asarray(expected_probabilities), version)


def _furthest(answer: np.ndarray, expected: np.ndarray, version) -> float:
    if answer.shape != expected.shape:
        raise ValueError(
            f"{version} answers probabilities of shape {answer.shape}; received "
            f"expected probabilities of shape {expected.shape}"
        )
    return float(np.abs(answer - expected).max(initial=0.0))


@dataclass(frozen=True)
class Verification:
    """What came of verifying a version."""

    version: Path
    problems: tuple[str, ...]  # a line each; none if all is well
    # The largest of a probability of the golden answer; None if it was not asked.
    difference: float | None

    @property
    def ok(self) -> bool:
        """Whether the version is what was published."""
        return not self.problems

    def __str__(self) -> str:
        if self.problems:
            return f"{self.version}: " + "; ".join(self.problems)
        off = f"{self.difference:.1e}"
        return f"{self.version}: whole; the golden answer differs by {off} at most"

    def to_dict(self) -> dict:
        """Return the result for JSON."""
        return {**vars(self), "version": str(self.version), "ok": self.ok}


def verify(folder) -> list[Verification]:
    """Compare a version, or all versions of a folder, with what was published.

    The SHA-256 of each file is compared with the manifest's. If all agree, the golden
    request is asked again: of a SavedModel in a fresh process that has neither Keras
    nor kerascnn, of the other formats with their runtimes. Returns a result for each
    version, by number.

    Raises ValueError: the folder holds no version; FileNotFoundError: there is no such
    folder; ModuleNotFoundError: the runtime of the format is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the folder of a version or of versions"
        )
    for paths in ([folder], [path for _, path in numbered(folder)]):
        found = [p for p in paths if (p / MANIFEST).is_file() or format_of(p)]
        if found:
            return [Verification(path, *_verify(path)) for path in found]
    raise ValueError(f"{folder} holds no version; give a folder of kerascnn export")


def _verify(version: Path) -> tuple[tuple[str, ...], float | None]:
    """Return the problems of a version, and the difference of its golden answer."""
    try:
        content = read_manifest(version)
        if content is None:
            raise ValueError(f"{MANIFEST} is missing: there is nothing to compare with")
        images, expected, tolerance = golden_arrays(content)
        if (made := format_of(version)) is None:
            raise ValueError(
                f"{MANIFEST} names the format {content.get('format')!r}, which this "
                "kerascnn does not know"
            )
    except ValueError as error:
        return (str(error),), None
    # A runtime may crash on a file that is damaged: nothing of it is run.
    if changed := changes(version, content):
        return tuple(changed), None
    try:
        if made.name == "savedmodel":
            difference = check_in_fresh_process(version, images, expected)
        else:
            answer = open_version(version).ask(images)["probabilities"]
            difference = _furthest(answer, expected, version)
    except (ExportError, ValueError) as error:
        return (f"the golden request fails: {error}",), None
    if difference <= tolerance:
        return (), difference
    problem = f"the golden answer differs by {difference:.3g}, more than {tolerance:g}"
    return (problem,), difference
