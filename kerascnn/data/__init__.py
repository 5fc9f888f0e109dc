"""Where images come from: CIFAR-10, tfds, a folder, an array file, built-in shapes.

    data = load_data("cifar10")
    data.train.x, data.train.y, data.labels, data.fingerprint

Begin with `load.py`, which finds the source, and `dataset.py`, which says what a data
set is. Importing this package imports neither Keras nor TensorFlow; reading what
tensorflow-datasets has prepared imports TensorFlow.
"""

from kerascnn.data.arrays import save_arrays
from kerascnn.data.augment import Augmentation
from kerascnn.data.cifar10_archive import download_cifar10, import_cifar10
from kerascnn.data.dataset import Data, DataError, Images, steps
from kerascnn.data.folder import read_image
from kerascnn.data.load import Source, available, load_data
from kerascnn.data.tfds import Shards, Stream

__all__ = [
    "Augmentation",
    "Data",
    "DataError",
    "Images",
    "Shards",
    "Source",
    "Stream",
    "available",
    "download_cifar10",
    "import_cifar10",
    "load_data",
    "read_image",
    "save_arrays",
    "steps",
]
