"""Data sets larger than memory: read from the shards that tensorflow-datasets wrote.

    data = load_data("cifar10", stream=True)
    data = load_data("tfds:stanford_dogs", stream=True, image_size=64)

What is held in memory is a buffer of encoded images of a fixed size in bytes, a few
decoded batches and one byte an image, whatever the size of the data set.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.data.dataset import (
    Data,
    DataError,
    Images,
    assemble,
    check_classes,
    held_number,
    refuse_own,
)
from kerascnn.environment import no_stderr

PREFIX = "tfds:"
OTHERWISE = (
    "save the arrays where they are installed (kerascnn.data.save_arrays) and load "
    "that .npz file here"
)
SHUFFLE_BYTES = 64 * 2**20  # encoded images among which the next one is drawn
CYCLE, BLOCK = 16, 16  # shards that are read at a time, and records of each in turn
DECODERS = 4  # batches that are decoded at a time
READ_BYTES = 256 * 1024  # of a shard at a time
SAMPLED_BYTES = 64 * 1024  # of each end of a shard that enter the fingerprint


class Shards:
    """One part of a streamed data set: a split, or what is `chosen` of it."""

    def __init__(self, reader: "_Reader", chosen: np.ndarray | None = None):
        self._reader = reader
        self._chosen = chosen
        self._number = reader.number if chosen is None else int(chosen.sum())
        self.image_shape = reader.image_shape  # height, width, channels
        self.records = reader.number  # images of the split, numbered from 0

    def __len__(self) -> int:
        return self._number

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        return f"Shards({len(self):,} of {size}, streamed)"

    @property
    def x(self):
        """Not there: streamed images are in no array; raises DataError."""
        raise DataError(
            f"the images of {self._reader.folder} are streamed and in no array: load "
            "them without stream=True where they fit in memory, or take(number) some"
        )

    y = x

    def batches(
        self,
        batch_size: int,
        *,
        seed: tuple[int, ...] | None = None,
        rows: Callable[[int], np.ndarray] | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield every image once, in batches.

        Args:
            batch_size: images a batch; the last batch may have fewer.
            seed: of the order: of the shards, of which 16 are read in turn, and of
                the draws from a buffer of 64 MiB of encoded images. None for the order
                in which the images are stored.
            rows: which images of a batch of n to decode, given n: positions 0…n - 1,
                int (k,); None for all. The others are read, not decoded.

        Yields:
            x uint8 (k, height, width, channels), y int64 (k,), and int64 (k,) the
            number of each image in the order of the split.

        Raises DataError: a shard is missing, damaged or too short; TensorFlow is not
        installed.
        """
        if not len(self):
            return
        reader, expected, seen = self._reader, len(self), 0
        data = reader.pipeline(expected, self._chosen, batch_size, seed, rows)
        try:
            for size, numbers, x, y in data.as_numpy_iterator():
                seen += size
                # Copies: TensorFlow's own arrays cannot be written to.
                yield np.array(x), np.array(y), np.array(numbers)
        except reader.tf.errors.OpError as error:
            raise reader.broken(_first_line(error)) from error
        if seen < expected:
            raise reader.broken(f"{seen:,} of {expected:,} images were found")

    def take(self, number: int, *, seed: int = 0) -> Images:
        """Return so many images, or all, drawn as `batches` draws them, in memory."""
        number = min(number, len(self))
        if not number:
            return _in_memory(self)
        x, y, _ = next(self.batches(number, seed=(seed,)))
        return Images(x, y)

    def chunks(self, number: int) -> Iterator[Images]:
        """Yield all images as they are stored, so many at a time, in memory."""
        for x, y, _ in self.batches(number):
            yield Images(x, y)


@dataclass(frozen=True, eq=False, repr=False)
class Stream(Data):
    """A data set whose three parts are `Shards`, not arrays; see `Data`.

    The fingerprint is over the names of the classes, the description of the data set
    and, of each shard, its name, its size and 64 KiB of either end.
    """

    train: Shards
    validation: Shards
    test: Shards

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.train.image_shape


def data_dirs(data_dir=None) -> list[Path]:
    """Return `data_dir`, or where tensorflow-datasets looks without one."""
    if data_dir is not None:
        return [Path(data_dir).expanduser()]
    places = os.environ.get("TFDS_DATA_DIR"), "~/tensorflow_datasets"
    return [Path(place).expanduser() for place in places if place]


def find_prepared(source: str, data_dir=None) -> Path:
    """Return the folder of what tensorflow-datasets has prepared.

    Args:
        source: "tfds:NAME", "tfds:NAME/CONFIG", either with ":VERSION" at its end; else
            it is the newest.
        data_dir: see `data_dirs`.

    Raises DataError: there is none.
    """
    name, _, version = source.removeprefix(PREFIX).partition(":")
    folders = [path / name for path in data_dirs(data_dir)]
    found = [
        info.parent
        for folder in folders
        for info in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
        and version in ("", info.parent.name)
    ]
    if not name or not found:
        looked = ", ".join(map(str, folders))
        raise DataError(
            f"{source} is not prepared; looked in {looked}. Prepare it with "
            f"`tfds build {name or 'NAME'}`, or name the folder that holds its "
            "dataset_info.json"
        )
    return max(found, key=lambda path: [int(n) for n in path.name.split(".")])


def import_tfds(doing: str, otherwise: str = OTHERWISE):
    """Return TensorFlow and tensorflow-datasets, without what they tell of their start.

    Raises:
        DataError: they cannot be imported; says what for, and what to do `otherwise`.
    """
    quiet = contextlib.nullcontext if "tensorflow" in sys.modules else no_stderr
    try:
        with quiet():
            import tensorflow as tf
            import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"{doing} needs tensorflow and tensorflow-datasets, but {error}; install "
            f"them, or {otherwise}"
        ) from error
    leave_gpu(tf)
    return tf, tfds


def leave_gpu(tf) -> None:
    """Keep TensorFlow off the GPU, and its memory, where another backend computes."""
    if "keras" in sys.modules:
        backend = sys.modules["keras"].config.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        with contextlib.suppress(RuntimeError):  # too late: its devices are in use
            tf.config.set_visible_devices([], "GPU")


def open_stream(folder, *, validation=None, seed=0, image_size=None) -> Stream:
    """Open what tensorflow-datasets has prepared, without decoding the images.

    `folder` is of one version: dataset_info.json, features.json and TFRecord shards.
    Without `image_size` images have their own size, 32x32 where there are several. A
    split "validation" beside "test" is held out unless `validation` is a number; what
    is drawn instead is drawn at random, not class by class.

    Raises DataError where files are missing or damaged, or the data set has not one
    image and one class an example; ValueError for more images to hold out than are.
    """
    folder = Path(folder)
    tfds = import_tfds(f"reading {folder}")[1]
    try:
        for file in (folder / "dataset_info.json", folder / "features.json"):
            try:
                json.loads(file.read_bytes() if file.exists() else "{}")
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from error
        builder = tfds.builder_from_directory(os.fspath(folder))
        splits = dict(builder.info.splits)
        features = builder.info.features
    except Exception as error:  # tfds raises all kinds of a damaged description
        raise DataError(
            f"{folder} cannot be read as prepared by tensorflow-datasets: "
            f"{_first_line(error)}; prepare it anew"
        ) from error
    keys = _keys(folder, tfds, features)
    labels = tuple(features[keys[1]].names)
    notes = ["The images are streamed from the disk."]
    test = "test" if "test" in splits else "validation"
    if missing := [name for name in ("train", test) if name not in splits]:
        raise DataError(
            f"{folder} has no split {' and no '.join(missing)}: training needs train, "
            f"and test or validation; found {', '.join(splits) or 'none'}"
        )
    if test == "validation":
        notes.append("Without a split test, the split validation is the test part.")
    own = "validation" if test == "test" and "validation" in splits else None
    if own:
        refuse_own(folder, validation)
        own = own if validation is None else None
    readers = {
        name: _Reader(folder, splits[name], *keys, features, image_size)
        for name in ("train", test, own)
        if name
    }
    train = readers["train"]
    if own:
        parts = Shards(train), Shards(readers[own])
    else:
        rng = np.random.default_rng(seed)
        held = np.zeros(train.number, bool)
        number = held_number(train.number, validation)
        held[rng.choice(train.number, number, replace=False, shuffle=False)] = True
        parts = Shards(train, ~held), Shards(train, held)
    name = re.sub(r"[^\w.-]+", "-", builder.name)
    title = "CIFAR-10 (not checked)" if name == "cifar10" else name
    for part, reader in readers.items():
        most = len(labels) if part == "train" else 1  # elsewhere a class may be missing
        check_classes(title, part, labels, reader.classes(most))
    return Stream(
        name,
        title,
        *parts,
        Shards(readers[test]),
        labels,
        _fingerprint(labels, builder.info.full_name, readers),
        tuple(notes),
    )


def load_prepared(folder, *, validation=None, seed=0, image_size=None) -> Data:
    """Read what `open_stream` opens into memory.

    Held-out images are of every class in proportion here, and CIFAR-10 is in its
    original order.
    """
    asked = {"validation": validation, "seed": seed, "image_size": image_size}
    stream = open_stream(folder, **asked)
    whole = Shards(stream.train._reader)
    own = stream.validation._reader is not stream.train._reader
    return assemble(
        stream.name,
        stream.title,
        stream.labels,
        *(_in_memory(part, stream.name == "cifar10") for part in (whole, stream.test)),
        validation=_in_memory(stream.validation) if own else validation,
        seed=seed,
        notes=stream.notes[1:],
    )


def keras_dataset(batches: Callable, length: int, signature: tuple):
    """Return a `tf.data.Dataset` of what a generator yields, afresh each time.

    `batches()` returns an iterator of `length` tuples of arrays, of the `signature`:
    nested tuples of (shape, dtype).

    `Dataset.from_generator` would do the same, but its kernel tells the C library to
    give memory back at once, for the whole process: a step of lecture_cnn took 4 and
    19 % longer in two rounds, as its arrays were mapped anew.
    """
    import tensorflow as tf

    def spec(part):
        if isinstance(part[-1], str):
            return tf.TensorSpec(*part)
        return tuple(map(spec, part))

    wanted = spec(signature)
    parts = tf.nest.flatten(wanted)
    kinds = [part.dtype for part in parts]
    numbers, opened = itertools.count(), {}  # a reading has an iterator of its own

    def start():
        number = next(numbers)
        opened[number] = batches()
        return np.int64(number)

    def following(number, index):
        arrays = tf.nest.flatten(next(opened[int(number)]))
        if index == length - 1:
            del opened[int(number)]
        pairs = zip(arrays, kinds, strict=True)
        return [np.asarray(array, kind.as_numpy_dtype) for array, kind in pairs]

    def batch(number, index):
        arrays = tf.numpy_function(following, [number, index], kinds)
        for array, part in zip(arrays, parts, strict=True):
            array.set_shape(part.shape)
        return tf.nest.pack_sequence_as(wanted, arrays)

    def reading(_):
        number = tf.numpy_function(start, [], tf.int64)
        return tf.data.Dataset.range(length).map(lambda index: batch(number, index))

    options = tf.data.Options()
    # Its thread sleeps longer and longer, up to a minute, and the end of an epoch waits
    # for it to wake up: a short epoch would take twice its time.
    options.autotune.enabled = False
    data = tf.data.Dataset.range(1).flat_map(reading)
    data = data.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2)
    return data.with_options(options)


class _Reader:
    """Reads the records of one split: image and class, decoded."""

    def __init__(self, folder, split, image_key, label_key, features, image_size):
        self.folder = folder
        self.tf, self.tfds = import_tfds(f"reading {folder}")
        self.files = [os.fspath(path) for path in split.filepaths]
        self.lengths = np.array(split.shard_lengths, np.int64)
        self.number = int(self.lengths.sum())
        self.image_key = image_key
        self.label_key = label_key
        self.features = features
        height, width, channels = features[image_key].shape
        if image_size is None and None in (height, width):
            image_size = (32, 32)
        self.image_shape = (*(image_size or (height, width)), channels or 3)
        self.resized = image_size not in (None, (height, width))
        try:
            self.bytes = sum(map(os.path.getsize, self.files))
        except OSError as error:
            raise self.broken(f"{error.filename}: {error.strerror}") from error

    def broken(self, reason) -> DataError:
        told = f"the data in {self.folder} is missing or damaged"
        return DataError(f"{told}: {reason}; prepare it anew")

    def column(self, key, kind):
        """Yield what each stored example has under a key, some hundred at a time."""
        tf = self.tf
        spec = {key: tf.io.FixedLenFeature((), kind)}
        for batch in tf.data.TFRecordDataset(self.files).batch(500):
            yield tf.io.parse_example(batch, spec)[key].numpy()

    def classes(self, number) -> set[int]:
        """Return the classes of the images, of which it reads until it saw so many."""
        found: set[int] = set()
        try:
            for labels in self.column(self.label_key, self.tf.int64):
                found.update(labels.tolist())
                if len(found) >= number:
                    break
        except self.tf.errors.OpError:  # damage is told when the images are read
            return set(range(number))
        return found

    def pipeline(self, expected, chosen, batch_size, seed, rows):
        """What `Shards.batches` reads: (size, numbers, x, y) of `expected` images."""
        tf = self.tf
        offsets = np.concatenate([[0], self.lengths[:-1].cumsum()])
        order = np.arange(len(self.files))
        if seed is not None:
            rng = np.random.default_rng(seed)
            order = rng.permutation(order)
        files = np.array(self.files)[order], offsets[order]
        shards = tf.data.Dataset.from_tensor_slices(files)

        def records(file, offset):
            found = tf.data.TFRecordDataset(file, buffer_size=READ_BYTES)
            return found.enumerate().map(lambda i, record: (i + offset, record))

        data = shards.interleave(
            records,
            cycle_length=1 if seed is None else min(CYCLE, len(order)),
            block_length=BLOCK,
        )
        if chosen is not None:
            table = tf.constant(chosen)
            data = data.filter(lambda number, record: table[number])
        if seed is not None:
            share = max(1, self.bytes // max(self.number, 1))
            buffer = min(expected, max(SHUFFLE_BYTES // share, batch_size))
            drawn = int(rng.integers(2**62))
            data = data.shuffle(buffer, seed=drawn, reshuffle_each_iteration=False)
        kinds = tf.TensorSpec(self.image_shape, tf.uint8), tf.TensorSpec((), tf.int64)
        decode, few = self._decoder(), None
        if rows is not None:  # the last batch has rows of its own
            sizes = batch_size, expected % batch_size or batch_size
            few = [tf.constant(rows(size), tf.int64) for size in sizes]

        def decoded(numbers, records):
            size = tf.size(numbers)
            if few:
                full = tf.equal(size, batch_size)
                wanted = tf.cond(full, lambda: few[0], lambda: few[1])
                numbers = tf.gather(numbers, wanted)
                records = tf.gather(records, wanted)
            return size, numbers, *tf.map_fn(decode, records, fn_output_signature=kinds)

        data = data.batch(batch_size).map(
            decoded, num_parallel_calls=DECODERS, deterministic=True
        )
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # it would trade memory for speed
        return data.prefetch(2).with_options(options)

    def _decoder(self):
        """Return what decodes a record into its image and its class."""
        tf, logger = self.tf, logging.getLogger("absl")
        kept = {self.image_key: True, self.label_key: True}
        level = logger.level
        logger.setLevel(logging.ERROR)  # what tfds warns of is its own code
        try:
            decoding = self.tfds.decode.PartialDecoding(kept)
            features = decoding.extract_features(self.features)
        finally:
            logger.setLevel(level)

        def decode(record):
            example = features.deserialize_example(record)
            image = example[self.image_key]
            if self.resized:
                image = _resize(tf, image, self.image_shape[:2])
            image = tf.ensure_shape(image, self.image_shape)
            return image, tf.cast(example[self.label_key], tf.int64)

        return decode


def _resize(tf, image, size):
    """Cut the largest window of an aspect ratio from the centre, and resize it."""
    height, width = tf.unstack(tf.shape(image)[:2])
    ratio = size[1] / size[0]

    def whole(side, most):
        return tf.clip_by_value(tf.cast(tf.round(side), tf.int32), 1, most)

    wide = whole(tf.cast(height, tf.float32) * ratio, width)
    high = whole(tf.cast(width, tf.float32) / ratio, height)
    top, left = (height - high) // 2, (width - wide) // 2
    window = tf.slice(image, [top, left, 0], [high, wide, -1])
    resized = tf.image.resize(window, size, method="bicubic", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0, 255)), tf.uint8)


def _keys(folder, tfds, features):
    """Return the names under which an example has its image and its class."""
    keys = dict(features.items())
    images = [k for k, v in keys.items() if isinstance(v, tfds.features.Image)]
    labels = [k for k, v in keys.items() if isinstance(v, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1 or not features[labels[0]].names:
        found = ", ".join(f"{k} ({type(v).__name__})" for k, v in keys.items())
        raise DataError(
            f"{folder} has to hold one image and one class with a name an example; "
            f"received {found}"
        )
    if features[images[0]].np_dtype != np.uint8:
        raise DataError(
            f"{folder} has to hold images of 8 bits a channel; received "
            f"{features[images[0]].np_dtype.__name__}"
        )
    return images[0], labels[0]


def _fingerprint(labels, name, readers) -> str:
    digest = hashlib.sha256(json.dumps([list(labels), name]).encode())
    for split, reader in readers.items():
        digest.update(json.dumps([split, reader.lengths.tolist()]).encode())
        for path in reader.files:
            size = os.path.getsize(path)
            digest.update(json.dumps([os.path.basename(path), size]).encode())
            with open(path, "rb") as file:
                digest.update(file.read(SAMPLED_BYTES))
                file.seek(max(0, size - SAMPLED_BYTES))
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]


def _in_memory(part: Shards, original: bool = False) -> Images:
    """Read a whole part as it is stored, or as it was before tfds shuffled it."""
    reader, places = part._reader, np.arange(len(part))
    if original:  # "train_00042" is the 42nd
        try:
            ids = [n for names in reader.column("id", reader.tf.string) for n in names]
            places = np.array([int(name.rpartition(b"_")[2]) for name in ids])
        except (reader.tf.errors.OpError, ValueError) as error:
            raise reader.broken(_first_line(error)) from error
        if not np.array_equal(np.sort(places), np.arange(reader.number)):
            raise reader.broken("images are missing, or there twice, by their ids")
    x = np.empty((len(part), *part.image_shape), np.uint8)
    y = np.empty(len(part), np.int64)
    for begin, chunk in zip(range(0, len(part), 1000), part.chunks(1000), strict=True):
        where = places[begin : begin + 1000]
        x[where], y[where] = chunk.x, chunk.y
    return Images(x, y)


def _first_line(error) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # Without what TensorFlow says of its own operations, before and after.
    return re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:.*$", "", lines[0])[:300]
