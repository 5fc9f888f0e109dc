import sys
from pathlib import Path

import numpy as np
import pytest

from kerascnn.data import Data, Images

# helpers.py, and tests/data/prepared.py, which makes data sets as tfds writes them.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "data")]


def make_data(classes=3, shape=(12, 12, 3), train=70, held=20, seed=0):
    """Images in which the height of a bright band tells the class: quickly learnt."""
    rng = np.random.default_rng(seed)
    band = np.arange(shape[0]) * classes // shape[0]  # the class of each row

    def part(number):
        y = np.arange(number) % classes
        level = np.where(band == y[:, None], 200, 60)[:, :, None, None]
        x = rng.normal(level, 30, (number, *shape))
        return Images(np.clip(x, 0, 255).astype(np.uint8), y)

    return Data(
        name="bands",
        title="bands",
        train=part(train),
        validation=part(held),
        test=part(held),
        labels=tuple(f"class{i}" for i in range(classes)),
        fingerprint=f"bands-{classes}-{seed}",
    )


@pytest.fixture(scope="session")
def data():
    return make_data()


@pytest.fixture(scope="session")
def data_maker():
    return make_data
