"""manifest.json: what a version is, of what it was made, and how to prove it whole.

The manifest lies in the folder of its version and is published with it. It has

    manifest     1, the number of this layout
    model, format, created (UTC), accuracy (percent, where known), copy_of
    input, outputs, signatures, activations, labels
    source       the run (configuration and metrics), weights or file it comes from
    versions     of the packages that wrote it
    parity       how far its answers were from the network's, on how many images
    golden       a request, its answer, and how far a later answer may be off
    files        size and SHA-256 of every other file of the version
"""

import base64
import hashlib
import json
from pathlib import Path

import numpy as np

from kerascnn.serving.formats import MANIFEST

LAYOUT = 1
BLOCK = 1 << 20  # bytes read at a time


def read(version) -> dict | None:
    """Return the manifest of a version, None if it has none.

    Raises:
        ValueError: it is damaged.
    """
    file = Path(version) / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ValueError(f"{file} is damaged: it does not list the version's files")
    return content


def write(version: Path, content: dict) -> None:
    """Write the manifest of a version that is complete otherwise.

    Args:
        version: its folder; the files in it are listed with their SHA-256.
        content: the other fields.
    """
    text = json.dumps(
        {"manifest": LAYOUT, **content, "files": listing(version)},
        indent=2,
        ensure_ascii=False,
        default=str,
    )
    (version / MANIFEST).write_text(text + "\n", encoding="utf-8")


def listing(version) -> dict[str, dict]:
    """Return bytes and sha256 of every file of a version but the manifest, by path."""
    version = Path(version)
    return {
        path.relative_to(version).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path in sorted(version.rglob("*"))
        if path.is_file() and path != version / MANIFEST
    }


def differences(version, content: dict) -> list[str]:
    """Name the files of a version that are not what its manifest lists.

    Returns:
        A line for each file that has changed, is missing, or was added.
    """
    said, there = content["files"], listing(version)
    lines = []
    for name in sorted(said.keys() | there.keys()):
        if name not in there:
            lines.append(f"{name} is missing")
        elif name not in said:
            lines.append(f"{name} was added after the export")
        elif there[name]["sha256"] != said[name].get("sha256"):
            lines.append(
                f"{name} has changed: its SHA-256 is {there[name]['sha256'][:12]}…, "
                f"at the export it was {str(said[name].get('sha256'))[:12]}…"
            )
    return lines


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def golden(images: np.ndarray, probabilities: np.ndarray, labels, tolerance) -> dict:
    """Return a request and its answer as a manifest holds them.

    Args:
        images: uint8 (N, height, width, channels).
        probabilities: float32 (N, classes), what the version answered.
        labels: names of the classes.
        tolerance: the largest difference of a probability that is rounding.
    """
    best = probabilities.argmax(axis=-1)
    return {
        "request": {
            "image": {
                "dtype": "uint8",
                "shape": list(images.shape),
                "base64": base64.b64encode(images.tobytes()).decode("ascii"),
            }
        },
        "answer": {
            "probabilities": probabilities.astype(float).tolist(),
            "class_id": best.tolist(),
            "label": [labels[number] for number in best],
        },
        "tolerance": tolerance,
    }


def golden_arrays(content: dict) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the golden images, their probabilities, and the tolerance.

    Raises:
        ValueError: the manifest holds no golden request.
    """
    try:
        kept = content["golden"]
        image = kept["request"]["image"]
        pixels = np.frombuffer(base64.b64decode(image["base64"]), np.uint8)
        images = pixels.reshape(image["shape"])
        probabilities = np.asarray(kept["answer"]["probabilities"], np.float32)
        return images, probabilities, float(kept["tolerance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST} holds no golden request: {error!r}") from error
