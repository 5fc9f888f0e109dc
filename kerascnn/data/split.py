"""Hold images out of training: seeded, every class in proportion."""

import numpy as np

from kerascnn.data.fingerprint import fingerprint
from kerascnn.data.types import Data, DataError, Images


def choose(y, quotas, *, seed=0):
    """Draw so many images of each class.

    Args:
        y: int64 (N,), the class of each image.
        quotas: number of images to draw of each class, at most as many as there are.
        seed: of the draw.

    Returns:
        int64 (sum of quotas,), positions in `y`, ascending.
    """
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(y == label))[:quota]
        for label, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(chosen))


def hold_out(y, number, *, classes, seed=0):
    """Choose images to hold out, of each class as large a share as of any other.

    Args:
        y: int64 (N,), the class of each image.
        number: of images to hold out in all, 0…N - 1.
        classes: number of classes.
        seed: of the choice.

    Returns:
        int64 (number,), positions in `y`, ascending. A class of n images gives
        n·number/N, rounded up or down so that the sum is `number`.

    Raises:
        ValueError: `number` is no integer, is negative, or leaves nothing to train
            on.
    """
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise ValueError(
            f"the number of validation images must be an integer; received {number!r}"
        )
    if not 0 <= number < len(y):
        raise ValueError(
            f"of {len(y):,} training images, 0 to {max(len(y) - 1, 0):,} can be held "
            f"out for validation; received {number:,}"
        )
    counts = np.bincount(y, minlength=classes)
    shares = counts * int(number)
    quotas, remainders = np.divmod(shares, len(y))
    # The largest remainders are rounded up; equal ones in the order of the classes.
    rest = number - quotas.sum()
    quotas[np.argsort(-remainders, kind="stable")[:rest]] += 1
    return choose(y, quotas, seed=seed)


def divide(images, held):
    """Split images in two: those not held out, and those held out, in their order."""
    keep = np.ones(len(images), bool)
    keep[held] = False
    return images.take(keep), images.take(held)


def assemble(
    name, title, labels, train, test, *, validation=None, seed=0, mark=None, notes=()
) -> Data:
    """Make a data set of a source's parts, and hold validation images out.

    Args:
        name: of the data set, as run folders bear it.
        title: of the data set, for print.
        labels: names of the classes.
        train: Images to train on, validation images among them.
        test: Images to test on.
        validation: how many training images to hold out; None for a tenth; or the
            source's own validation Images.
        seed: of the choice of validation images.
        mark: the fingerprint, where it is known already.
        notes: sentences for the reader.

    Raises:
        ValueError: more validation images than there are to hold out.
        DataError: the parts disagree on the size of the images, or on the classes.
    """
    labels = tuple(str(label) for label in labels)
    own = isinstance(validation, Images)
    parts = {"train": train, "test": test} | ({"validation": validation} if own else {})
    for part, images in parts.items():
        if images.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{title}: the {part} images are {images.x.shape[1:]} (height, width, "
                f"channels), the train images {train.x.shape[1:]}"
            )
        if len(images) and not 0 <= images.y.min() <= images.y.max() < len(labels):
            raise DataError(
                f"{title}: the {part} labels go from {images.y.min()} to "
                f"{images.y.max()}, but there are {len(labels)} classes, 0 to "
                f"{len(labels) - 1}"
            )
    if not len(train):
        raise DataError(f"{title}: there are no images to train on")
    mark = mark or fingerprint(labels, *parts.values())
    held = None
    if not own:
        number = len(train) // 10 if validation is None else validation
        held = hold_out(train.y, number, classes=len(labels), seed=seed)
        train, validation = divide(train, held)
    return Data(name, title, train, validation, test, labels, mark, tuple(notes), held)
