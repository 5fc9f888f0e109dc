"""Batches for Keras: a random order and augmentation that follow from the epoch."""

import keras
import numpy as np

from kerascnn.data import Augmentation, Images, steps
from kerascnn.training.universum import Universum


class Feed(keras.utils.PyDataset):
    """The training images, one epoch after the other, for `fit`.

    Batch `i` of an epoch follows from (seed, epoch, i) alone, so that a training that
    is resumed sees what an uninterrupted one sees.

    Args:
        images: the training images.
        classes: number of classes; labels become one-hot float32 (batch, classes).
        batch_size: images a batch; the last batch may be smaller.
        seed: of the run.
        augmentation: what to do to each batch.
        alternate_flip: mirror about half of the images in epoch 0, chosen by the seed,
            the others in epoch 1, and so on: every two epochs show each image both
            ways (Jordan 2024, arXiv 2404.00498, section 3.6). Before augmentation.
        outputs: number of outputs of the model; each gets the labels.
        plain_from: the epoch, from 0, from which on images stay as they are; None for
            never.
        universum: unlabelled images; each place of a batch holds one of them, in
            place of its labelled image, with the probability `universum.share`, so
            that an epoch is as long as without. Labels become `universum.targets()`.
    """

    def __init__(
        self,
        images: Images,
        classes: int,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation,
        alternate_flip: bool = False,
        outputs: int = 1,
        plain_from: int | None = None,
        universum: Universum | None = None,
    ):
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.outputs = outputs
        self.plain_from = plain_from
        self.universum = universum
        self._targets = (
            universum.targets() if universum else np.eye(classes, dtype=np.float32)
        )
        # Four numbers seed a stream apart from those of the epochs and the batches.
        rng = np.random.default_rng((seed, 0, 0, 1))
        self._first = rng.random(len(images)) < 0.5 if alternate_flip else None
        self.start(0)

    def start(self, epoch: int) -> None:
        """Draw the order of an epoch; call it before the epoch is read."""
        self.epoch = epoch
        rng = np.random.default_rng((self.seed, epoch))
        self._order = rng.permutation(len(self.images))

    def __len__(self) -> int:
        return steps(len(self.images), self.batch_size)

    def __getitem__(self, index: int):
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x, labels = self.images.x[chosen], self.images.y[chosen]
        if self.universum:
            # A stream of its own: four numbers, the last not that of alternate_flip.
            rng = np.random.default_rng((self.seed, self.epoch, index, 2))
            x, labels = self.universum.mix(x, labels, rng)
        plain = self.plain_from is not None and self.epoch >= self.plain_from
        if self._first is not None and not plain:
            mirrored = self._first[chosen] ^ bool(self.epoch % 2)
            x[mirrored] = x[mirrored, :, ::-1]
        if self.augmentation and not plain:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            x = self.augmentation(x, rng)
        return x, one_hot(labels, self._targets, self.outputs)


def one_hot(labels, table, outputs: int):
    """Return one-hot labels for a model with one output, or the same for several."""
    y = table[labels]
    return y if outputs == 1 else (y,) * outputs
