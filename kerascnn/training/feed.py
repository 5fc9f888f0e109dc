"""Batches for Keras: a random order and augmentation that follow from the epoch."""

import keras
import numpy as np

from kerascnn.data import Augmentation, Images, Shards, steps
from kerascnn.data.tfds import keras_dataset
from kerascnn.training.strategy import ONE, Place
from kerascnn.training.universum import Universum


class Feed(keras.utils.PyDataset):
    """The training images, one epoch after the other, for `fit`.

    Batch `i` of an epoch follows from (seed, epoch, i) alone, so that a training that
    is resumed sees what an uninterrupted one sees.

    Args:
        images: the training images.
        units: of the output; labels become one-hot float32 (batch, units), of one unit
            0 and 1; for several `outputs` as many times.
        batch_size: images a batch, on all devices together; the last may be smaller.
        seed: of the run; None for images in their own order, to validate on.
        augmentation: what to do to each batch, until the epoch `plain_from`, from 0.
        alternate_flip: mirror half of the images in the even epochs, the other half in
            the odd ones (arXiv 2404.00498, section 3.6).
        universum: unlabelled images, which take the place of some labelled ones.
        place: the devices; a batch becomes what they take, this host's part of it.
    """

    # The exception that ended the reading, which TensorFlow wraps.
    failure: Exception | None = None

    def __init__(
        self,
        images: Images | Shards,
        units: int,
        batch_size: int,
        *,
        seed: int | None,
        augmentation: Augmentation,
        alternate_flip: bool = False,
        outputs: int = 1,
        plain_from: int | None = None,
        universum: Universum | None = None,
        place: Place = ONE,
    ):
        super().__init__()
        self.images = images
        self.units = units
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.outputs = outputs
        self.plain_from = plain_from
        self.universum = universum
        self.place = place
        table = np.eye(units) if units > 1 else np.array([[0], [1]])
        self._targets = universum.targets() if universum else table.astype(np.float32)
        # Four numbers seed a stream apart from those of the epochs and the batches.
        rng = np.random.default_rng((seed or 0, 0, 0, 1))
        in_memory = isinstance(images, Images)
        number = len(images) if in_memory else images.records
        self.image_shape = images.x.shape[1:] if in_memory else images.image_shape
        self._first = rng.random(number) < 0.5 if alternate_flip else None
        self.start(0)

    def start(self, epoch: int) -> None:
        """Draw the order of an epoch; call it before the epoch is read."""
        self.epoch = epoch
        self._order = np.arange(len(self.images))
        if self.seed is not None:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(len(self.images))

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
        return steps(len(self.images), self.batch_size)

    def __getitem__(self, index: int):
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x, labels = self.images.x[chosen], self.images.y[chosen]
        return self._divided(*self._changed(index, x, labels, chosen))

    def _changed(self, index, x, labels, numbers, part=()):
        """Mix and augment a batch, or the part of a host, which has its own streams."""
        if self.universum:
            # A stream of its own: four numbers, the last not that of alternate_flip.
            rng = np.random.default_rng((self.seed, self.epoch, index, 2, *part))
            x, labels = self.universum.mix(x, labels, rng)
        plain = self.plain_from is not None and self.epoch >= self.plain_from
        if self._first is not None and not plain:
            mirrored = self._first[numbers] ^ bool(self.epoch % 2)
            x[mirrored] = x[mirrored, :, ::-1]
        if self.augmentation and not plain:
            part = (3, *part) if part else ()
            rng = np.random.default_rng((self.seed, self.epoch, index, *part))
            x = self.augmentation(x, rng)
        return x, labels

    def _divided(self, x, labels):
        """Fill a whole batch up, and take this host's part of it."""
        number = len(x)
        if self.place.replicas > 1:
            rows = self.place.rows(number, self.batch_size)
            x, labels = x[rows], labels[rows]
        return self._batch(x, labels, number)

    def _batch(self, x, labels, number):
        y = self._targets[labels]
        y = y if self.outputs == 1 else (y,) * self.outputs
        if self.place.weighted:
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
        total, size = len(self.images), self.batch_size
        shared = self.place.hosts > 1
        rows = (lambda n: self.place.rows(n, size)) if shared else None
        reading = self.images.batches(size, seed=seed, rows=rows)
        for index, (x, labels, numbers) in enumerate(reading):
            if shared:
                number = min(size, total - index * size)
                part = (self.place.host, self.place.hosts)
                changed = self._changed(index, x, labels, numbers, part)
                yield self._batch(*changed, number)
            else:
                yield self._divided(*self._changed(index, x, labels, numbers))


def make_feed(images: Images | Shards, *arguments, **options) -> Feed:
    """Return the feed of images in memory or of streamed ones; see `Feed`."""
    kind = Feed if isinstance(images, Images) else StreamedFeed
    return kind(images, *arguments, **options)
