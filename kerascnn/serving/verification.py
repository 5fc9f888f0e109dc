"""Prove that a version is what was published: its files, and one answer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.serving import manifest
from kerascnn.serving.errors import ExportError
from kerascnn.serving.formats import MANIFEST, format_of
from kerascnn.serving.publish import numbered


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
    # A runtime may crash on a file that is damaged: nothing of it is run.
    if changed := manifest.differences(version, content):
        return Verification(version, tuple(changed), None)
    try:
        difference = _replay(version, images, expected)
    except (ExportError, ValueError) as error:
        return Verification(version, (f"the golden request fails: {error}",), None)
    if not difference <= tolerance:
        problem = (
            f"the golden answer differs by {difference:.3g}, more than {tolerance:g}"
        )
        return Verification(version, (problem,), difference)
    return Verification(version, (), difference)


def _replay(version: Path, images, expected) -> float:
    """Ask the golden request; return the largest difference of a probability."""
    if format_of(version).name == "savedmodel":
        from kerascnn.serving.check import check_in_fresh_process

        return check_in_fresh_process(version, images, expected)
    from kerascnn.serving.runtimes import open_version

    answer = open_version(version).ask(images)["probabilities"]
    if answer.shape != expected.shape:
        raise ValueError(
            f"it is answered with probabilities of shape {answer.shape}, at the export "
            f"of shape {expected.shape}"
        )
    return float(np.abs(answer - expected).max(initial=0.0))
