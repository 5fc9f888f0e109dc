"""Hold a version's answers against its network's, before it is published."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.serving.errors import ExportError
from kerascnn.serving.formats import Format, format_named
from kerascnn.serving.network import Reference
from kerascnn.serving.runtimes import open_file

# Two runs of the same float32 graph differ by less than a tenth of this.
TOLERANCE = 1e-5
TOLERANCE_HALF = 3e-2  # between devices or backends, of the 8 bits of bfloat16
BATCH = 32  # images a request
CHANNELS = (1, 3, 4)  # of PNG files
KINDS = {"uint8": "uint8 images", "encoded": "PNG files"}


@dataclass(frozen=True)
class Proof:
    """That a version answers as its network.

    Attributes:
        differences: the largest difference of a probability, of "uint8" pixels and,
            where image files have so many channels, of "encoded" PNG files.
        tolerance: what was allowed.
        count: number of images that were compared.
        images: uint8 (n, height, width, channels), two of them, …
        probabilities: … and float32 (n, classes), what the version answers to them.
    """

    differences: dict[str, float]
    tolerance: float
    count: int
    images: np.ndarray
    probabilities: np.ndarray


def prove(
    version: Path,
    reference: Reference,
    labels,
    tolerance: float = TOLERANCE,
    made: Format | None = None,
) -> Proof:
    """Load a version in this process, and hold its answers against its network's.

    Args:
        version: its folder.
        reference: what the network answers.
        labels: names of the classes.
        tolerance: the largest difference of a probability that is rounding.
        made: its format; default SavedModel.

    Raises:
        ExportError: the runtime of the format cannot read or run the version, a
            probability differs by more than the tolerance, a class or its label does
            not belong to the probabilities, or the same pixels in PNG files give
            another answer.
    """
    made = made or format_named("savedmodel")
    try:
        served = open_file(version, made)
        worst = {
            # np.max, not max: it keeps NaN.
            kind: float(np.max([_compare(served, kind, labels, *b) for b in batches]))
            for kind, batches in _requests(reference).items()
        }
        images = reference.images[[0, -1]]
        golden = np.asarray(served.ask(images)["probabilities"])
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
    return Proof(worst, tolerance, len(reference.images), images, golden)


def _requests(reference: Reference) -> dict[str, Iterator]:
    requests = {"uint8": _batches(reference, lambda images: images)}
    if reference.shape[2] in CHANNELS:
        requests["encoded"] = _batches(reference, lambda images: list(map(png, images)))
    return requests


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


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its name."""
    text = getattr(error, "message", None) or str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
