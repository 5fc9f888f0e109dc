"""Hold a version's answers against its network's; prove later that it is unchanged."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.heads import Head
from kerascnn.heads import head as find_head
from kerascnn.serving import manifest, runtimes
from kerascnn.serving.formats import (
    CHANNELS,
    MANIFEST,
    ExportError,
    Format,
    first_line,
    format_of,
)
from kerascnn.serving.publish import numbered

# Two runs of the same float32 graph differ by less than a tenth of this.
TOLERANCE = 1e-5
TOLERANCE_HALF = 3e-2  # between devices or backends, of the 8 bits of bfloat16
IMAGES = 256  # that a version and its network are compared on
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


@dataclass(frozen=True)
class Reference:
    """How a network answers: what its served version is held against."""

    shape: tuple[int, int, int]  # height, width, channels
    head: Head  # which of its outputs is served, and what its numbers are
    images: np.ndarray  # uint8 (N, height, width, channels)
    probabilities: np.ndarray  # float32 (N, classes)

    @property
    def golden(self) -> np.ndarray:
        """Two of the images, that a manifest keeps with their answer."""
        return self.images[[0, -1]]


def image_shape(model) -> tuple[int, int, int]:
    """Return (height, width, channels) of the images that a network takes.

    Raises:
        ValueError: the model is not built, has several inputs, or its input is not
            an image of a fixed size.
    """
    try:
        inputs = model.inputs
    except AttributeError:
        inputs = None
    if not inputs:
        raise ValueError(
            f"the model {model.name!r} has no defined input; give it one: "
            "keras.Model(image, model(image)) with image = keras.Input((32, 32, 3))"
        )
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) > 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ValueError(
            "a served network takes one image of a fixed size, (N, height, width, "
            f"channels); the model {model.name!r} takes {shapes}: rebuild it with "
            "such an input"
        )
    shape = shapes[0][1:]
    first = any(
        getattr(layer, "data_format", None) == "channels_first"
        for layer in model._flatten_layers(include_self=False)
    )
    # Without such a layer too: images 3 pixels high, of 32 channels, are none.
    if (
        shape[0] in CHANNELS
        and shape[2] not in CHANNELS
        and (first or min(shape[1:]) > max(CHANNELS))
    ):
        raise ValueError(
            f"the model {model.name!r} takes images channels first, {shape}, and a "
            "served network takes (height, width, channels): build it with "
            'data_format="channels_last", or put keras.layers.Permute((3, 1, 2)) in '
            "front"
        )
    return shape


def refer(model, from_logits: bool | None = None, count: int = IMAGES) -> Reference:
    """Let a network answer images, and find out what its outputs are.

    Args:
        model: a built `keras.Model` that classifies images.
        from_logits: True if it ends in logits, False if in probabilities, None to
            find out, as `kerascnn.heads` does.
        count: number of images, see `check_images`.

    Raises:
        ValueError: the model does not take one image and give one score a class, or
            its outputs are not what `from_logits` says.
        ExportError: the network answers NaN or infinity.
    """
    shape = image_shape(model)
    images = check_images(shape, count)
    head = find_head(model, images)
    scores = np.asarray(_predict(model, head, images), np.float32)
    if not np.isfinite(scores).all():
        raise ExportError(
            f"the model {model.name!r} answers images with NaN or infinity; "
            "train it again, with a smaller learning rate"
        )
    logits = head.kind in ("logits", "logit")
    if from_logits and not logits:
        if head.by_graph:
            raise ValueError(
                f"the model {model.name!r} ends in a {head.kind.removesuffix('s')}: "
                "its outputs are probabilities, not logits; leave from_logits out"
            )
        head = dataclasses.replace(head, kind="logit" if head.units == 1 else "logits")
    if from_logits is False and logits:
        raise ValueError(
            f"the outputs of the model {model.name!r} are not probabilities: they add "
            f"up to {scores[0].sum():.4g} for an image; leave from_logits out, or end "
            "the model in a softmax"
        )
    only = dataclasses.replace(head, index=0)  # of what is given as its one output
    return Reference(shape, head, images, only.probabilities(scores))


def _predict(model, head: Head, images) -> np.ndarray:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("GPU"):
            # There `predict` compiles with XLA, which a server does not, and whose
            # fused kernels round in another way.
            answer = tf.function(lambda x: head.select(model(x, training=False)))
            starts = range(0, len(images), BATCH)
            return np.concatenate([answer(images[i : i + BATCH]) for i in starts])
    return head.select(model.predict(images, batch_size=BATCH, verbose=0))


def check_images(shape: tuple[int, int, int], count: int = IMAGES) -> np.ndarray:
    """Return images that a network and its version are compared on; always the same.

    The first half is noise, uniform in 0…255. The other half has structure, to which
    convolutions answer more strongly: waves of any direction and length, a colour
    each, of which every second has hard edges.

    Args:
        shape: (height, width, channels).
        count: number of images, 2 or more.

    Returns:
        uint8 (count, height, width, channels).

    Raises:
        ValueError: fewer than 2 images.
    """
    if count < 2:
        raise ValueError(
            f"a version is compared with its network on 2 images or more; received "
            f"images={count}"
        )
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count // 2, *shape), np.uint8)
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    structured = []
    for number in range(count - len(noise)):
        angle, phase = random.uniform(0, 2 * np.pi, (2, channels))
        length = random.uniform(3, max(3, height, width), channels)
        way = x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle)
        wave = np.sin(2 * np.pi * way / length + phase)  # (height, width, channels)
        structured.append(np.sign(wave) if number % 2 else wave)
    levels = np.rint(127.5 + 127.5 * np.stack(structured))
    return np.concatenate([noise, levels.astype(np.uint8)])


def computes_in_half(model) -> bool:
    """Return whether a layer of a network computes in bfloat16 or float16."""

    return any(
        layer.compute_dtype in ("bfloat16", "float16")
        for layer in model._flatten_layers(include_self=False)
    )


def prove(
    version: Path, reference: Reference, labels, made: Format, tolerance: float
) -> tuple[dict[str, float], np.ndarray]:
    """Load a version in this process, and hold its answers against its network's.

    Args:
        version: its folder.
        reference: what the network answers.
        labels: names of the classes.
        made: its format.
        tolerance: the largest difference of a probability that is rounding.

    Returns:
        The largest difference of a probability, of "uint8" pixels and, where image
        files have so many channels, of "encoded" PNG files; and what the version
        answers to `reference.golden`, float32 (2, classes).

    Raises:
        ExportError: the runtime of the format cannot read or run the version, a
            probability differs by more than the tolerance, a class or its label does
            not belong to the probabilities, or the same pixels in PNG files give
            another answer.
    """
    requests = {"uint8": _batches(reference, lambda images: images)}
    if reference.shape[2] in CHANNELS:
        requests["encoded"] = _batches(reference, lambda images: list(map(png, images)))
    try:
        served = runtimes.open_file(version, made)
        worst = {
            # np.max, not max: it keeps NaN.
            kind: float(np.max([_compare(served, kind, labels, *b) for b in batches]))
            for kind, batches in requests.items()
        }
        golden = np.asarray(served.ask(reference.golden)["probabilities"])
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
    return worst, golden


def _batches(reference, prepare) -> Iterator[tuple]:
    for start in range(0, len(reference.images), BATCH):
        part = slice(start, start + BATCH)
        yield prepare(reference.images[part]), reference.probabilities[part]


def _compare(served, kind: str, labels, request, expected) -> float:
    """Return the largest difference of a probability in a batch."""
    answer = served.ask(request)
    given = answer["probabilities"]
    if given.shape != expected.shape:
        raise ExportError(
            f"the version answers {KINDS[kind]} with probabilities of shape "
            f"{given.shape}, the network with {expected.shape}; nothing was published"
        )
    if not np.isfinite(given).all():
        return float("nan")
    best = given.argmax(axis=-1)
    if list(answer["class_id"]) != list(best) or answer["label"] != [
        labels[number] for number in best
    ]:
        raise ExportError(
            f"the version answers {KINDS[kind]} with classes {answer['class_id']} and "
            f"labels {answer['label']}, its probabilities say {best}; nothing was "
            "published"
        )
    return float(np.abs(given - expected).max())


def png(pixels: np.ndarray) -> bytes:
    """Encode pixels, uint8 (height, width, 1, 3 or 4), as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "PNG")
    return file.getvalue()


def check_in_fresh_process(version, images, expected_probabilities) -> float:
    """Let a process without Keras and kerascnn answer; return how far it is off.

    The process computes on the CPU. It fails if Keras or kerascnn is imported in it.

    Args:
        version: folder of a version that is a SavedModel.
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
        # -P: the folder it is started in is no place to import from.
        done = subprocess.run(
            [sys.executable, "-P", "-c", ALONE, Path(version).resolve(), file],
            cwd=scratch,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"a fresh process cannot read {version}: {lines[-1]}")
    answer = np.asarray(json.loads(done.stdout)["probabilities"], np.float32)
    expected = np.asarray(expected_probabilities)
    if answer.shape != expected.shape:
        raise ValueError(
            f"{version} answers probabilities of shape {answer.shape}; received "
            f"expected probabilities of shape {expected.shape}"
        )
    return float(np.abs(answer - expected).max(initial=0.0))


@dataclass(frozen=True)
class Verification:
    """What came of verifying a version.

    Attributes:
        version: its folder.
        problems: a line each; none if all is well.
        difference: the largest difference of a probability of the golden answer; None
            if it was not asked, because of a problem.
    """

    version: Path
    problems: tuple[str, ...]
    difference: float | None

    @property
    def ok(self) -> bool:
        """Whether the version is what was published."""
        return not self.problems

    def __str__(self) -> str:
        if self.problems:
            return f"{self.version}: " + "; ".join(self.problems)
        return (
            f"{self.version}: whole; the golden answer differs by "
            f"{self.difference:.1e} at most"
        )

    def to_dict(self) -> dict:
        """Return the result for JSON."""
        return {
            "version": str(self.version),
            "ok": self.ok,
            "problems": list(self.problems),
            "difference": self.difference,
        }


def verify(folder) -> list[Verification]:
    """Compare a version, or all versions of a folder, with what was published.

    The SHA-256 of each file is compared with the manifest's. If all agree, the golden
    request is asked again: of a SavedModel in a fresh process that has neither Keras
    nor kerascnn, of the other formats with their runtimes.

    Args:
        folder: the folder of a version, such as "served/lecture_cnn/1", or the folder
            of the versions.

    Returns:
        A result for each version, by number.

    Raises:
        ValueError: the folder holds no version.
        FileNotFoundError: there is no such folder.
        ModuleNotFoundError: the runtime of the format is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the folder of a version or of versions"
        )
    if _looks_like_one(folder):
        return [_verify(folder)]
    found = [path for _, path in numbered(folder) if _looks_like_one(path)]
    if not found:
        raise ValueError(
            f"{folder} holds no version; give a folder that kerascnn export wrote"
        )
    return [_verify(path) for path in found]


def _looks_like_one(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or format_of(folder) is not None


def _verify(version: Path) -> Verification:
    try:
        content = manifest.read(version)
        if content is None:
            missing = f"{MANIFEST} is missing: there is nothing to compare with"
            return Verification(version, (missing,), None)
        images, expected, tolerance = manifest.golden_arrays(content)
    except ValueError as error:
        return Verification(version, (str(error),), None)
    if (made := format_of(version)) is None:
        unknown = (
            f"{MANIFEST} names the format {content.get('format')!r}, which this "
            "kerascnn does not know"
        )
        return Verification(version, (unknown,), None)
    # A runtime may crash on a file that is damaged: nothing of it is run.
    if changed := manifest.differences(version, content):
        return Verification(version, tuple(changed), None)
    try:
        if made.name == "savedmodel":
            difference = check_in_fresh_process(version, images, expected)
        else:
            answer = runtimes.open_version(version).ask(images)["probabilities"]
            if answer.shape != expected.shape:
                raise ValueError(
                    f"it is answered with probabilities of shape {answer.shape}, at "
                    f"the export of shape {expected.shape}"
                )
            difference = float(np.abs(answer - expected).max(initial=0.0))
    except (ExportError, ValueError) as error:
        return Verification(version, (f"the golden request fails: {error}",), None)
    if not difference <= tolerance:
        problem = (
            f"the golden answer differs by {difference:.3g}, more than {tolerance:g}"
        )
        return Verification(version, (problem,), difference)
    return Verification(version, (), difference)
