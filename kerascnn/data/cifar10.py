"""CIFAR-10 as tensorflow-datasets has prepared it, and which copy of it that is.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, technical
report, University of Toronto, 2009: 50,000 training and 10,000 test images, 32x32x3.
"""

import os
from pathlib import Path

import numpy as np

from kerascnn.data.dataset import Data, DataError, Images, assemble, fingerprint
from kerascnn.data.tfds import data_dirs, find_prepared, import_tfds

LABELS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
TRAIN, TEST = 50_000, 10_000
VERSION = "3.0.2"  # of the data set in tensorflow-datasets, which names its folder

# Means of red, green and blue over the training images, pixels 0…1, as they have been
# published with countless recipes.
CHANNEL_MEANS = (0.49139968, 0.48215841, 0.44653091)

# Copies of the images that are known, by their fingerprint. All images of the first
# went through JPEG, of the second 97 of the 60,000.
COPIES = {
    "74f060f0e6b2ecc1": "CIFAR-10 (JPEG copy)",
    "d25b76e8df09d990": "CIFAR-10",
}


def load_cifar10(data_dir=None, *, validation=None, seed=0) -> Data:
    """Read CIFAR-10 from where tensorflow-datasets has prepared it; no network.

    Args:
        data_dir: data directory of tensorflow-datasets; see `data_dirs`.
        validation: training images to hold out; None for 5,000, 500 a class.
        seed: of their choice.

    Returns:
        Data named "cifar10", the images in their original order.

    Raises:
        DataError: it is not prepared, is damaged, or TensorFlow is not installed.
    """
    folder = find(data_dir)
    labels, train, test = read_prepared(folder)
    mark = fingerprint(labels, train, test)
    return assemble(
        "cifar10",
        title(train, mark),
        labels,
        train,
        test,
        validation=validation,
        seed=seed,
        mark=mark,
    )


def find(data_dir=None) -> Path:
    """Return the folder of the newest prepared CIFAR-10.

    Raises:
        DataError: it is not prepared; says what to do.
    """
    try:
        return find_prepared("tfds:cifar10", data_dir)
    except DataError:
        looked = ", ".join(str(path / "cifar10") for path in data_dirs(data_dir))
        raise DataError(
            f"CIFAR-10 is not prepared; looked in {looked}. Either run `kerascnn data "
            "download` (162 MB; its host has sent about 55 kB/s since mid-2026, which "
            "takes 50 minutes, and an interrupted download resumes), or get cifar-10-"
            "binary.tar.gz or cifar-10-python.tar.gz elsewhere and run `kerascnn data "
            "import ARCHIVE`."
        ) from None


def looks_like(labels, train: Images, test: Images) -> bool:
    """Whether images have the classes, the number and the size of CIFAR-10's."""
    return (
        tuple(labels) == LABELS
        and train.x.shape == (TRAIN, 32, 32, 3)
        and test.x.shape == (TEST, 32, 32, 3)
    )


def title(train: Images, mark: str) -> str:
    """Say which copy of CIFAR-10 images are.

    Args:
        train: the 50,000 training images.
        mark: the fingerprint of all 60,000.

    Returns:
        "CIFAR-10" where the means of the channels are the published ones to 1e-6, the
        name of a known copy, or "CIFAR-10 (altered copy)".
    """
    sums = train.x.reshape(-1, 3).sum(axis=0, dtype=np.int64)
    means = sums / (train.x.size / 3 * 255)
    if np.allclose(means, CHANNEL_MEANS, rtol=0, atol=1e-6):
        return "CIFAR-10"
    return COPIES.get(mark, "CIFAR-10 (altered copy)")


def read_prepared(folder):
    """Read what tensorflow-datasets has prepared, in the original order.

    Args:
        folder: of one version, "…/cifar10/3.0.2".

    Returns:
        The names of the classes, and Images to train and to test on.

    Raises:
        DataError: the files are damaged or incomplete, or TensorFlow is missing.
    """
    tf, tfds = import_tfds(folder)
    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
        train = _read_split(tfds, builder, "train", TRAIN)
        test = _read_split(tfds, builder, "test", TEST)
    except (tf.errors.OpError, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"the CIFAR-10 in {folder} is damaged: {error}; remove that folder and "
            "prepare it anew with `kerascnn data download` or `kerascnn data import`"
        ) from error
    return tuple(builder.info.features["label"].names), train, test


def _read_split(tfds, builder, split, number):
    # Straight into arrays of bytes: 184 MB in all, and no list of 60,000 images. The
    # files are shuffled; the number in the id is the place in the original order.
    x = np.empty((number, 32, 32, 3), np.uint8)
    y = np.full(number, -1, np.int64)
    read = tfds.ReadConfig(try_autocache=False)
    batches = builder.as_dataset(
        split=split, batch_size=500, shuffle_files=False, read_config=read
    )
    for batch in tfds.as_numpy(batches):
        places = [int(name.decode().rpartition("_")[2]) for name in batch["id"]]
        if max(places) >= number:
            raise ValueError(f"image {max(places)} of {number} in {split}")
        x[places], y[places] = batch["image"], batch["label"]
    if missing := int((y < 0).sum()):
        raise ValueError(f"{missing:,} of {number:,} {split} images are missing")
    return Images(x, y)
