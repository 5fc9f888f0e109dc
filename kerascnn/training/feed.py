"""Batches for Keras: a random order and augmentation that follow from the epoch."""

import keras
import numpy as np

from kerascnn.data import Augmentation, Images, steps


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
        outputs: number of outputs of the model; each gets the labels.
    """

    def __init__(
        self,
        images: Images,
        classes: int,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation,
        outputs: int = 1,
    ):
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.outputs = outputs
        self._one_hot = np.eye(classes, dtype=np.float32)
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
        x = self.images.x[chosen]
        if self.augmentation:
            rng = np.random.default_rng((self.seed, self.epoch, index))
            x = self.augmentation(x, rng)
        return x, one_hot(self.images.y[chosen], self._one_hot, self.outputs)


def one_hot(labels, table, outputs: int):
    """Return one-hot labels for a model with one output, or the same for several."""
    y = table[labels]
    return y if outputs == 1 else (y,) * outputs
