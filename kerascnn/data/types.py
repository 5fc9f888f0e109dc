"""What a source of images yields: pixels, labels, and where they came from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class DataError(ValueError):
    """Data that is missing, broken, or not what it should be; says what to do."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels, in memory.

    Attributes:
        x: uint8 (N, height, width, channels), pixels 0…255.
        y: int64 (N,), the class of each image, 0…classes - 1.

    Raises:
        ValueError: `x` is not uint8 of four axes, or `y` not one integer an image.
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self):
        if self.x.ndim != 4 or self.x.dtype != np.uint8:
            raise ValueError(
                "images must be uint8 (N, height, width, channels), pixels 0…255; "
                f"received {self.x.dtype} {self.x.shape}"
            )
        if self.y.shape != self.x.shape[:1] or self.y.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be {len(self.x)} integers, one an image; received "
                f"{self.y.dtype} {self.y.shape}"
            )
        if self.y.dtype != np.int64:
            object.__setattr__(self, "y", self.y.astype(np.int64))

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self.x.shape[1:])
        return f"Images({len(self):,} of {size})"

    def take(self, indices: Any) -> "Images":
        """Return the images at `indices` (a slice gives views, an array copies)."""
        return Images(self.x[indices], self.y[indices])

    def sample(self, per_class: int, *, classes: int, seed: int = 0) -> "Images":
        """Draw images of every class, ordered by class.

        Args:
            per_class: number of images of each class; fewer where there are fewer.
            classes: number of classes.
            seed: of the draw.

        Returns:
            Images of class 0 first, then of class 1, …
        """
        rng = np.random.default_rng(seed)
        chosen = [
            rng.permutation(np.flatnonzero(self.y == label))[:per_class]
            for label in range(classes)
        ]
        return self.take(np.concatenate(chosen))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three parts, the names of its classes, and what it is exactly.

    Attributes:
        name: the word that `load_data` takes and that run folders bear: "cifar10".
        title: for print, beside every accuracy: "CIFAR-10", "CIFAR-10 (JPEG copy)".
        train: images to train on.
        validation: images held out of training, for every decision; may be empty.
        test: images read once, at the end.
        labels: names of the classes; `labels[y]` names class y.
        fingerprint: 16 hexadecimal digits of a SHA-256 over the pixels, the classes
            and their order, before validation images are taken out of training.
        notes: what a reader of the accuracy should know, one sentence each.
        held_out: int64, where the validation images were among the training images
            of the source, ascending; None where the source has its own validation
            images.
        origin: the arguments of `load_data` that made it, so that a resumed training
            finds it again; empty where it was made otherwise.
    """

    name: str
    title: str
    train: Images
    validation: Images
    test: Images
    labels: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    held_out: np.ndarray | None = None
    origin: dict = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return tuple(self.train.x.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"Data({self.name!r}, train={len(self.train)}, "
            f"validation={len(self.validation)}, test={len(self.test)}, "
            f"input_shape={self.input_shape}, classes={self.classes}, "
            f"fingerprint={self.fingerprint!r})"
        )

    def __str__(self) -> str:
        height, width, channels = self.input_shape
        lines = [
            f"{self.title}: {self.classes} classes of {height}x{width}x{channels} "
            f"images, fingerprint {self.fingerprint}",
            f"  train {len(self.train):,}, validation {len(self.validation):,}, "
            f"test {len(self.test):,}",
            f"  {_shorten(self.labels)}",
            *(f"  {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def _shorten(labels: tuple[str, ...], most: int = 12) -> str:
    if len(labels) <= most:
        return ", ".join(labels)
    return ", ".join(labels[:most]) + f", … ({len(labels) - most} more)"
