"""What is known of CIFAR-10, and which copy of it some images are.

Source: A. Krizhevsky, Learning multiple layers of features from tiny images, technical
report, University of Toronto, 2009: 50,000 training and 10,000 test images, 32x32x3.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kerascnn.data.dataset import Data, DataError, Images
from kerascnn.data.tfds import data_dirs, find_prepared

LABELS = ("airplane", "automobile", "bird", "cat", "deer")
LABELS += ("dog", "frog", "horse", "ship", "truck")
TRAIN, TEST = 50_000, 10_000
VERSION = "3.0.2"  # of the data set in tensorflow-datasets, which names its folder

# Means of red, green and blue over the training images, pixels 0…1, as they have been
# published with countless recipes.
CHANNEL_MEANS = (0.49139968, 0.48215841, 0.44653091)

# Copies of the images that are known, by their fingerprint. All images of the first
# went through JPEG, of the second 97 of the 60,000.
COPIES = {"74f060f0e6b2ecc1": "CIFAR-10 (JPEG copy)", "d25b76e8df09d990": "CIFAR-10"}


def find(data_dir=None) -> Path:
    """Return the folder of the newest prepared CIFAR-10.

    Raises DataError: it is not prepared; says what to do.
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


def recognize(data: Data) -> Data:
    """Name a data set CIFAR-10, and its copy, if its classes, sizes and numbers are."""
    whole = len(data.train) + len(data.validation), len(data.test), data.input_shape
    if data.labels != LABELS or whole != (TRAIN, TEST, (32, 32, 3)):
        return data
    copy = title(data.train, data.fingerprint, data.validation)
    return replace(data, name="cifar10", title=copy)


def title(train: Images, mark: str, *held: Images) -> str:
    """Say which copy of CIFAR-10 some training images, and those held out, are.

    "CIFAR-10" where the means of the channels are the published ones to 1e-6, else by
    `mark`, the fingerprint of all 60,000 images, a known copy or "(altered copy)".
    """
    parts = [part.x.reshape(-1, 3) for part in (train, *held)]
    sums = sum(pixels.sum(axis=0, dtype=np.int64) for pixels in parts)
    means = sums / (255 * sum(map(len, parts)))
    if np.allclose(means, CHANNEL_MEANS, rtol=0, atol=1e-6):
        return "CIFAR-10"
    return COPIES.get(mark, "CIFAR-10 (altered copy)")
