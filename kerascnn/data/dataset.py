"""A data set: pixels, labels, what it is exactly, and what is held out of training."""

import hashlib
import json
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

    Raises ValueError: `x` is not uint8 of four axes, or `y` not one integer an image.
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
        """Draw so many images of each class, or what there is: class 0 first, …"""
        return self.take(_drawn(self.y, [per_class] * classes, seed))


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
        fingerprint: 16 hexadecimal digits of a SHA-256 over pixels, classes and their
            order, before validation images are taken out of training.
        notes: what a reader of the accuracy should know, one sentence each.
        held_out: int64, where the validation images were among the training images,
            ascending; None where the source has its own validation images.
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
    more = f", … ({len(labels) - most} more)" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def fingerprint(labels: tuple[str, ...], *parts: Images) -> str:
    """Hash the names of the classes and every part: shapes, pixels, classes, order.

    The first 16 hexadecimal digits of a SHA-256, into which neither the byte order of
    the machine nor the layout of the arrays in memory enters.
    """
    digest = hashlib.sha256(json.dumps(list(labels)).encode())
    for part in parts:
        digest.update(json.dumps(part.x.shape).encode())
        # In slices: an array that is not contiguous is not copied whole.
        for start in range(0, len(part), 4096):
            digest.update(np.ascontiguousarray(part.x[start : start + 4096]))
        digest.update(np.ascontiguousarray(part.y, "<i8"))
    return digest.hexdigest()[:16]


def choose(y, quotas, *, seed=0):
    """Draw, of classes `y` (N,), a quota of each class: positions in `y`, ascending."""
    return np.sort(_drawn(y, quotas, seed))


def _drawn(y, quotas, seed):
    rng = np.random.default_rng(seed)
    places = (np.flatnonzero(y == label) for label in range(len(quotas)))
    drawn = zip(places, quotas, strict=True)
    return np.concatenate([rng.permutation(found)[:quota] for found, quota in drawn])


def held_number(number: int, wanted: int | None) -> int:
    """Return how many of so many training images are held out, by default a tenth.

    Raises:
        ValueError: `wanted` is no integer, is negative, or leaves nothing to train on.
    """
    wanted = number // 10 if wanted is None else wanted
    whole = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if not whole or not 0 <= wanted < number:
        raise ValueError(
            f"of {number:,} training images, 0 to {max(number - 1, 0):,} can be held "
            f"out for validation; received {wanted!r}"
        )
    return int(wanted)


def refuse_own(source: Any, validation: int | None) -> None:
    """Refuse to hold images out where a source has validation images of its own."""
    if validation:
        raise ValueError(
            f"{source} has validation images of its own: leave validation out, or 0 to "
            f"have none; received validation={validation!r}"
        )


def hold_out(y, number, *, classes, seed=0):
    """Choose images to hold out: positions in `y`, ascending; None for a tenth.

    A class of n of the N images gives n·number/N, rounded up or down so that the sum is
    `number`.
    """
    number = held_number(len(y), number)
    counts = np.bincount(y, minlength=classes)
    quotas, remainders = np.divmod(counts * number, len(y))
    # The largest remainders are rounded up; equal ones in the order of the classes.
    rest = number - quotas.sum()
    remainders *= counts - quotas > 1  # a class that would be left with none comes last
    quotas[np.argsort(-remainders, kind="stable")[:rest]] += 1
    return choose(y, quotas, seed=seed)


def divide(images, held):
    """Split images in two: those not held out, and those held out, in their order."""
    keep = np.ones(len(images), bool)
    keep[held] = False
    return images.take(keep), images.take(held)


def check_classes(title: str, part: str, labels: tuple[str, ...], found: set[int]):
    """Refuse classes that have no name and, to train on, names that have no image."""
    if part == "train" and not found:
        raise DataError(f"{title}: there are no images to train on")
    whole = set(range(len(labels)))
    if found - whole:
        raise DataError(
            f"{title}: the {part} labels go from {min(found)} to {max(found)}, but "
            f"there are {len(labels)} classes, 0 to {len(labels) - 1}"
        )
    if part == "train" and (empty := sorted(whole - found)):
        shown = ", ".join(f"{number} ({labels[number]!r})" for number in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise DataError(
            f"{title}: no training image is of class {shown}{more}; the train labels "
            f"go from {min(found)} to {max(found)}: number the classes from 0 without "
            "gaps, and name no class that has no images"
        )


def assemble(
    name, title, labels, train, test, *, validation=None, seed=0, notes=()
) -> Data:
    """Make a data set of a source's parts, and hold validation images out.

    `validation` is how many training images to hold out, None for a tenth, or the
    source's own validation Images. All else is as in `Data`.

    Raises ValueError: more validation images than there are to hold out; DataError: the
    parts disagree on the size of the images, or on the classes.
    """
    labels = tuple(str(label) for label in labels)
    if len(set(labels)) < max(2, len(labels)):
        raise DataError(
            f"{title} needs two classes or more, each with a name of its own; received "
            f"{_shorten(labels)}"
        )
    own = isinstance(validation, Images)
    parts = {"train": train, "test": test} | ({"validation": validation} if own else {})
    for part, images in parts.items():
        if images.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{title}: the {part} images are {images.x.shape[1:]} (height, width, "
                f"channels), the train images {train.x.shape[1:]}"
            )
        check_classes(title, part, labels, set(np.unique(images.y).tolist()))
    mark = fingerprint(labels, *parts.values())
    held = None
    if not own:
        held = hold_out(train.y, validation, classes=len(labels), seed=seed)
        train, validation = divide(train, held)
    return Data(name, title, train, validation, test, labels, mark, tuple(notes), held)


def steps(number: int, batch_size: int) -> int:
    """Return how many batches of `batch_size` make up `number` images.

    Raises ValueError: a negative number of images, a batch of none.
    """
    if number < 0 or batch_size < 1:
        raise ValueError(
            "steps need 0 images or more and a batch size of 1 or more; "
            f"received {number} and {batch_size}"
        )
    return -(-number // batch_size)
