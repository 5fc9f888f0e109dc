"""The door to every source of images."""

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from kerascnn.data import cifar10, shapes
from kerascnn.data.arrays import load_arrays
from kerascnn.data.cifar10_archive import read_archive
from kerascnn.data.dataset import Data, DataError, Images, assemble
from kerascnn.data.folder import load_folder
from kerascnn.data.tfds import PREFIX, find_prepared, load_prepared, open_stream

SOURCES = ("shapes", "cifar10")
SHAPES = (10_000, 2_000)  # images to train and to test on
LEAST_SHAPE = 16  # pixels; smaller ones cannot be told apart


def load_data(
    source: str | os.PathLike = "shapes",
    *,
    validation: int | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    data_dir: str | os.PathLike | None = None,
    images: int | None = None,
    stream: bool = False,
) -> Data:
    """Read a data set, and hold validation images out of training.

    Args:
        source: "shapes", which is built in: 10,000 generated images to train and
            2,000 to test on, of ten classes; "cifar10", where tensorflow-datasets has
            prepared it (nothing is downloaded here); "tfds:NAME", or the folder of one
            version, of what else it has prepared ("tfds:mnist:3.0.1"); or the path of a
            folder with one subfolder a class, of a `.npz` file (`save_arrays`), or of
            CIFAR-10's published `.tar.gz`, which needs no TensorFlow. A folder that is
            named like a source is "./shapes".
        validation: number of training images to hold out, every class in proportion;
            None for a tenth (5,000 of CIFAR-10, 500 a class), or for the validation
            images that the source brings; 0 for none.
        seed: of what is held out and, for "shapes", of the images.
        image_size: height and width in pixels, one number or two, to which "shapes"
            are drawn, and the images of a folder or of tensorflow-datasets resized.
            None for 32x32, or the one size that the images have.
        data_dir: for "cifar10" and "tfds:NAME", the data directory of
            tensorflow-datasets; None for $TFDS_DATA_DIR and ~/tensorflow_datasets.
        images: for "shapes", the number of training images; a fifth as many are made
            to test on.
        stream: read the images from the disk when they are needed, for data sets larger
            than memory: "cifar10" and all else that tensorflow-datasets has prepared.
            Held-out images are then drawn at random, not class by class.

    Returns:
        The data set, uint8 pixels 0…255; `print` shows what it is. With `stream` a
        `Stream`, to train and evaluate on, whose images are in no array.

    Raises:
        DataError: the source is not there or not what it should be; says what to do.
        ValueError: an argument that is impossible, or that this source does not take.
    """
    if not isinstance(source, str):  # a path is no name, also where it is like one
        source = str(Path(source).expanduser().absolute())
    asked = {"image_size": image_size, "data_dir": data_dir, "images": images}
    data = _read(source, stream, validation=validation, seed=seed, **asked)
    asked["stream"] = stream or None
    named = source in SOURCES or source.startswith(PREFIX)
    origin = {
        "source": str(source if named else Path(source).expanduser().resolve()),
        "validation": validation,
        "seed": seed,
        **{k: v for k, v in asked.items() if v is not None},
    }
    return dataclasses.replace(data, origin=origin)


def _read(source, stream, *, image_size, data_dir, images, **held) -> Data:
    name = str(source)
    path = Path(source).expanduser()
    size = None if image_size is None else _size(image_size)
    if name == "shapes" and not stream:
        _refuse(name, data_dir=data_dir)
        return _shapes(images, _size(image_size, least=LEAST_SHAPE), **held)
    _refuse(name, images=images)
    if name == "cifar10":
        _fixed("CIFAR-10", (32, 32), size)
        prepared, size = cifar10.find(data_dir), None
    elif name.startswith(PREFIX):
        prepared = find_prepared(name, data_dir)
    else:
        prepared = path if (path / "dataset_info.json").exists() else None
        _refuse(name, data_dir=data_dir)
    if prepared and stream:
        return open_stream(prepared, image_size=size, **held)
    if prepared:
        return cifar10.recognize(load_prepared(prepared, image_size=size, **held))
    if stream:
        there = "" if path.exists() else f"no data named {name!r}, and no such folder: "
        raise DataError(
            f"{there}stream reads what tensorflow-datasets has prepared: cifar10, "
            f"tfds:NAME, or a folder with dataset_info.json; received {name!r}"
        )
    if path.is_dir():
        return load_folder(path, image_size=size or (32, 32), **held)
    if not path.exists():
        close = difflib.get_close_matches(name.lower(), SOURCES, n=1)
        raise DataError(
            f"no data named {name!r}, and no such file or folder: "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"There are {' and '.join(SOURCES)}, folders of images with one "
            "subfolder a class, .npz files, CIFAR-10's archives, and tfds:NAME for "
            "what tensorflow-datasets has prepared"
        )
    if path.suffix == ".npz":
        data = load_arrays(path, **held)
    elif path.name.endswith((".tar.gz", ".tgz")):
        parts = read_archive(path)
        data = cifar10.recognize(assemble("cifar10", "CIFAR-10", *parts, **held))
    else:
        raise DataError(f"{path} is neither a folder nor a .npz file nor a .tar.gz")
    _fixed(name, data.input_shape[:2], size)
    return data


def _refuse(source, **options):
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{source!r} does not take {name}; received {value!r}")


def _size(image_size, *, least=1):
    """Height and width, of one number or two."""
    if image_size is None:
        return 32, 32
    size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(n, int) and n >= least for n in size):
        raise ValueError(
            f"image_size must be one or two integers (height, width), {least} pixels "
            f"or more; received {image_size!r}"
        )
    return size


def _fixed(source, size, asked):
    if asked not in (None, size):
        raise ValueError(
            f"the images of {source} are {size[0]}x{size[1]} pixels; a network can "
            f"resize them (keras.layers.Resizing); received image_size={asked}"
        )


def _shapes(images, image_size, *, validation, seed):
    images, least = SHAPES[0] if images is None else images, 5 * len(shapes.LABELS)
    if not isinstance(images, int) or images < least:
        raise ValueError(
            f"images must be an integer of {least} or more; received {images!r}"
        )
    parts = [
        Images(*shapes.generate(number, seed=(seed, part), image_size=image_size))
        for part, number in enumerate((images, images // 5))
    ]
    named = "shapes", "shapes" if seed == 0 else f"shapes (seed {seed})", shapes.LABELS
    return assemble(*named, *parts, validation=validation, seed=seed)


@dataclass(frozen=True)
class Source:
    """A source that has a name, and whether it can be read on this machine."""

    name: str  # what `load_data` takes
    title: str  # what stands beside an accuracy
    there: bool  # whether `load_data` would find it
    where: str  # the folder it lies in, or what to do to get it
    train: int  # number of training images, validation images among them
    test: int
    input_shape: tuple[int, int, int]  # height, width, channels
    classes: int
    size: int = 0  # bytes on the disk

    def __str__(self) -> str:
        height, width, channels = self.input_shape
        return (
            f"{self.name}: {self.title}, {self.train:,} + {self.test:,} images "
            f"{height}x{width}x{channels}, {self.classes} classes, {self.where}"
        )


def available(data_dir=None) -> list[Source]:
    """List the sources that have names, and what is there of them.

    `data_dir` is the data directory of tensorflow-datasets; None for $TFDS_DATA_DIR and
    ~/tensorflow_datasets.
    """
    found = [Source("shapes", "shapes", True, "built in", *SHAPES, (32, 32, 3), 10)]
    numbers = (cifar10.TRAIN, cifar10.TEST, (32, 32, 3), 10)
    try:
        folder = cifar10.find(data_dir)
    except DataError:
        where = "not prepared: kerascnn data download, or kerascnn data import ARCHIVE"
        return [*found, Source("cifar10", "CIFAR-10", False, where, *numbers)]
    size = sum(file.stat().st_size for file in folder.iterdir())
    title = "CIFAR-10 (not checked)"
    return [*found, Source("cifar10", title, True, str(folder), *numbers, size)]
