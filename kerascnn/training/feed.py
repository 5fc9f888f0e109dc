"""Batches for Keras: a random order and augmentation that follow from the epoch."""

import functools
from dataclasses import KW_ONLY, dataclass

import keras
import numpy as np

from kerascnn.data import Augmentation, Images, Shards, steps
from kerascnn.data.tfds import keras_dataset
from kerascnn.training.strategy import ONE, Place
from kerascnn.training.universum import Universum


@dataclass(eq=False, repr=False)
class Feed(keras.utils.PyDataset):
    """The training images, one epoch after the other, for `fit`.

    Batch `i` of an epoch follows from (seed, epoch, i) alone, so that a training that
    is resumed sees what an uninterrupted one sees.
    """

    images: Images | Shards
    # Labels become one-hot float32 (batch, units), of one unit 0 and 1.
    units: int
    batch_size: int  # on all devices together; the last may be smaller
    _: KW_ONLY
    seed: int | None = None  # of the run; None for images in their own order
    augmentation: Augmentation | None = None  # until the epoch `plain_from`, from 0
    # Mirror half of the images in the even epochs, the other half in the odd ones
    # (arXiv 2404.00498, section 3.6).
    alternate_flip: bool = False
    outputs: int = 1  # of the network; each is given the labels
    plain_from: int | None = None
    universum: Universum | None = None  # what takes the place of some labelled images
    place: Place = ONE  # a batch becomes what its devices take, this host's part of it

    failure = None  # the exception that ended the reading, which TensorFlow wraps

    def __post_init__(self):
        super().__init__()
        self.number = len(self.images)
        self.steps = steps(self.number, self.batch_size)
        table = np.eye(self.units) if self.units > 1 else np.array([[0], [1]])
        targets = self.universum.targets() if self.universum else table
        self._targets = targets.astype(np.float32)
        # Four numbers seed a stream apart from those of the epochs and the batches.
        rng = np.random.default_rng((self.seed or 0, 0, 0, 1))
        if isinstance(self.images, Images):
            records, self.image_shape = self.number, self.images.x.shape[1:]
        else:
            records, self.image_shape = self.images.records, self.images.image_shape
        self._first = rng.random(records) < 0.5 if self.alternate_flip else None
        self.start(0)

    def start(self, epoch: int) -> None:
        """Draw the order of an epoch; call it before the epoch is read."""
        self.epoch = epoch
        self._order = np.arange(self.number)
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(self.number)

    def for_keras(self):
        """Return what Keras reads: with TensorFlow a `tf.data.Dataset`.

        Keras would make one of the feed too, but a slow one: see `keras_dataset`. Each
        reading is its own; TensorFlow may open an epoch while it still reads another.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        if isinstance(self.images, Images):
            self[0]  # a wrong recipe is told here, without TensorFlow's messages
        labels = ((None, self._targets.shape[1]), "float32")
        signature = [
            ((None, *self.image_shape), "uint8"),
            labels if self.outputs == 1 else (labels,) * self.outputs,
        ]
        if self.place.weighted:
            signature.append(((None,), "float32"))
        return keras_dataset(self._watched, len(self), tuple(signature))

    def _watched(self):
        try:
            yield from self._batches()
        except Exception as error:
            self.failure = error
            raise

    def _batches(self):
        return (self[index] for index in range(len(self)))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int):
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x = self.images.x.take(chosen, axis=0)  # in half the time of `x[chosen]`
        return self._batch(index, x, self.images.y[chosen], chosen)

    def _batch(self, index, x, labels, numbers, part=()):
        """Mix and augment a batch, fill it up, and take this host's part of it.

        Of several hosts that read their own `part`, each has streams of its own.
        """
        if self.universum:
            # A stream of its own: four numbers, the last not that of alternate_flip.
            rng = np.random.default_rng((self.seed, self.epoch, index, 2, *part))
            x, labels = self.universum.mix(x, labels, rng)
        plain = self.plain_from is not None and self.epoch >= self.plain_from
        if self._first is not None and not plain:
            mirrored = self._first[numbers] ^ bool(self.epoch % 2)
            x[mirrored] = x[mirrored, :, ::-1]
        if self.augmentation and not plain:
            stream = (3, *part) if part else ()
            rng = np.random.default_rng((self.seed, self.epoch, index, *stream))
            x = self.augmentation(x, rng)
        number = len(x)
        if self.place.replicas > 1 and not part:
            rows = self.place.rows(number, self.batch_size)
            x, labels = x[rows], labels[rows]
        y = self._targets[labels]
        y = y if self.outputs == 1 else (y,) * self.outputs
        if self.place.weighted:  # which those of several hosts are not
            return x, y, self.place.weights(number, self.batch_size)
        return x, y


class StreamedFeed(Feed):
    """A feed of images that are read from the disk, one batch after the other.

    Of several hosts each decodes and augments its part of a batch alone.
    """

    def start(self, epoch: int) -> None:
        """Begin an epoch; call it before the epoch is read."""
        self.epoch = epoch
        self._reading, self._next, self._last = None, 0, None

    def __getitem__(self, index: int):
        if index + 1 == self._next:
            return self._last
        if index != self._next or self._reading is None:
            self._reading, self._next = self._batches(), 0
        while self._next <= index:
            self._last = next(self._reading)
            self._next += 1
        return self._last

    def _batches(self):
        seed = None if self.seed is None else (self.seed, self.epoch)
        size, rows, part = self.batch_size, None, ()
        if self.place.hosts > 1:
            part = (self.place.host, self.place.hosts)
            rows = functools.partial(self.place.rows, batch_size=size)
        reading = self.images.batches(size, seed=seed, rows=rows)
        for index, (x, labels, numbers) in enumerate(reading):
            yield self._batch(index, x, labels, numbers, part)


def make_feed(images: Images | Shards, *arguments, **options) -> Feed:
    """Return the feed of images in memory or of streamed ones; see `Feed`."""
    kind = Feed if isinstance(images, Images) else StreamedFeed
    return kind(images, *arguments, **options)
