import numpy as np
import pytest

from kerascnn.data import Data, Images


def images(number=6, classes=3, size=4):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (number, size, size, 3), np.uint8)
    return Images(x, np.arange(number) % classes)


def test_labels_become_int64():
    assert Images(np.zeros((2, 4, 4, 1), np.uint8), np.uint8([1, 0])).y.dtype == "int64"


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros(2, int), "received float64"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, int), "received uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, int), "must be 2 integers"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2), "received float64"),
    ],
)
def test_wrong_arrays_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        Images(x, y)


def test_a_sample_has_every_class_in_order_and_follows_the_seed():
    part = images(30)
    sample = part.sample(2, classes=3, seed=1)
    assert sample.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert (sample.x == part.sample(2, classes=3, seed=1).x).all()
    assert (sample.x != part.sample(2, classes=3, seed=2).x).any()


def test_a_sample_takes_what_there_is():
    assert images(4).sample(9, classes=3).y.tolist() == [0, 0, 1, 2]


def test_data_says_what_it_is():
    labels = tuple(f"c{n}" for n in range(14))
    data = Data(
        "n", "Title", images(6), images(3), images(2), labels, "abc", ("Note.",)
    )
    assert data.input_shape == (4, 4, 3)
    assert data.classes == 14
    assert str(data).splitlines() == [
        "Title: 14 classes of 4x4x3 images, fingerprint abc",
        "  train 6, validation 3, test 2",
        "  c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, … (2 more)",
        "  Note.",
    ]
