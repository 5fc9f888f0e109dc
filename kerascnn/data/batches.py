"""The images of one epoch, batch after batch."""

from collections.abc import Iterator

import numpy as np

from kerascnn.data.augment import Augmentation
from kerascnn.data.types import Images


def steps(number: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Return how many batches of `batch_size` make up `number` images.

    Args:
        number: of images.
        batch_size: images a batch.
        drop_last: whether a last batch that is not full is left out.

    Raises:
        ValueError: a negative number of images, a batch of none.
    """
    if number < 0 or batch_size < 1:
        raise ValueError(
            "steps need 0 images or more and a batch size of 1 or more; "
            f"received {number} and {batch_size}"
        )
    return number // batch_size if drop_last else -(-number // batch_size)


def batches(
    images: Images,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    augmentation: Augmentation | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of one epoch.

    The order and the augmentation follow from (seed, epoch) alone: an epoch is the
    same whether or not the epochs before it were run, so that a resumed training
    sees what an uninterrupted one sees.

    Args:
        images: what to read; never changed.
        batch_size: images a batch, 1 or more.
        seed: of the run, 0 or more.
        epoch: number of the epoch, 0 or more.
        shuffle: whether to draw a new order of the images for this epoch.
        augmentation: a change to make to every batch; None for none.
        drop_last: whether to leave out a last batch that is not full.

    Yields:
        x uint8 (batch, height, width, channels) and y int64 (batch,), copies.

    Raises:
        ValueError: a batch of no images, or a negative seed or epoch.
    """
    number = steps(len(images), batch_size, drop_last=drop_last)
    if seed < 0 or epoch < 0:
        raise ValueError(
            f"seed and epoch must be 0 or more; received seed={seed}, epoch={epoch}"
        )
    return _batches(images, batch_size, number, seed, epoch, shuffle, augmentation)


def _batches(images, batch_size, number, seed, epoch, shuffle, augmentation):
    # Two streams: whether the images are augmented does not change their order.
    order_rng, change_rng = (np.random.default_rng((seed, epoch, k)) for k in (0, 1))
    size = len(images)
    order = order_rng.permutation(size) if shuffle else np.arange(size)
    for step in range(number):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        x, y = images.x[chosen], images.y[chosen]
        if augmentation:
            x = augmentation(x, change_rng)
        yield x, y
