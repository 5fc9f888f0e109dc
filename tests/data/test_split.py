import numpy as np
import pytest

from kerascnn.data.dataset import (
    DataError,
    Images,
    assemble,
    choose,
    divide,
    fingerprint,
    hold_out,
)


def numbered(y, size=2):
    """Images whose pixels are their number, so that none can be mistaken."""
    number = np.arange(len(y), dtype=np.uint8)
    x = np.broadcast_to(number[:, None, None, None], (len(y), size, size, 3))
    return Images(x.copy(), np.asarray(y, np.int64))


def test_every_class_gives_its_share():
    y = np.repeat([0, 1, 2], [100, 50, 10])
    held = hold_out(y, 16, classes=3)
    assert np.bincount(y[held]).tolist() == [10, 5, 1]
    assert (np.diff(held) > 0).all()


@pytest.mark.parametrize("number", [0, 1, 7, 13, 39])
def test_the_number_is_kept_where_shares_are_fractions(number):
    y = np.random.default_rng(0).integers(0, 7, 40)
    held = hold_out(y, number, classes=7)
    assert len(held) == len(set(held)) == number
    shares = np.bincount(y, minlength=7) * number / 40
    assert (abs(np.bincount(y[held], minlength=7) - shares) < 1).all()


def test_the_seed_decides():
    y = np.arange(100) % 4
    assert (hold_out(y, 20, classes=4) == hold_out(y, 20, classes=4)).all()
    assert (hold_out(y, 20, classes=4) != hold_out(y, 20, classes=4, seed=1)).any()


@pytest.mark.parametrize("number", [-1, 8, True, 0.5])
def test_impossible_numbers_are_refused(number):
    with pytest.raises(ValueError, match="received"):
        hold_out(np.arange(8) % 2, number, classes=2)


def test_divide_keeps_order_and_loses_nothing():
    images = numbered([0, 1] * 5)
    kept, held = divide(images, choose(images.y, [2, 1]))
    assert len(held) == 3
    together = np.concatenate([kept.x, held.x])[:, 0, 0, 0]
    assert sorted(together) == list(range(10))
    assert (np.diff(kept.x[:, 0, 0, 0].astype(int)) > 0).all()


def test_validation_is_a_tenth_unless_told():
    train, test = numbered([0, 1] * 20), numbered([0, 1])
    data = assemble("n", "t", "ab", train, test)
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert (data.train.x[:, 0, 0, 0][:, None] != data.held_out).all()
    empty = assemble("n", "t", "ab", train, test, validation=0)
    assert (len(empty.train), len(empty.validation)) == (40, 0)
    assert empty.validation.x.shape == (0, 2, 2, 3)
    assert empty.fingerprint == data.fingerprint


def test_own_validation_images_are_used():
    train, test = numbered([0, 1] * 20), numbered([0, 1])
    own = numbered([1])
    data = assemble("n", "t", "ab", train, test, validation=own)
    assert data.validation is own
    assert len(data.train) == 40
    assert data.held_out is None


def test_parts_that_disagree_are_refused():
    train = numbered([0, 1] * 20)
    with pytest.raises(DataError, match=r"test images are \(3, 3, 3\)"):
        assemble("n", "t", "ab", train, numbered([0], size=3))
    with pytest.raises(DataError, match="labels go from 0 to 2"):
        assemble("n", "t", "ab", train, numbered([0, 2]))
    with pytest.raises(DataError, match="no images to train on"):
        assemble("n", "t", "ab", train.take(slice(0)), train)


def test_the_fingerprint_sees_everything_but_the_memory_layout():
    train, test = numbered([0, 1, 1]), numbered([1])
    mark = fingerprint(("a", "b"), train, test)
    assert mark == "bf5562d9481ee85b"  # the same on every machine
    turned = Images(np.asfortranarray(train.x), train.y.astype(">i8"))
    assert fingerprint(("a", "b"), turned, test) == mark
    pixel = train.x.copy()
    pixel[2, 1, 1, 2] ^= 1
    others = [
        fingerprint(("a", "c"), train, test),
        fingerprint(("a", "b"), test, train),
        fingerprint(("a", "b"), train.take([1, 0, 2]), test),
        fingerprint(("a", "b"), Images(pixel, train.y), test),
        fingerprint(("a", "b"), Images(train.x, train.y[::-1].copy()), test),
        fingerprint(("a", "b"), Images(train.x.reshape(3, 1, 4, 3), train.y), test),
    ]
    assert len({mark, *others}) == 7


@pytest.mark.parametrize("labels", [("a",), ("a", "a"), ("a", "b", "b")])
def test_classes_are_two_or_more_with_names_of_their_own(labels):
    y = np.arange(12) % len(labels)
    with pytest.raises(DataError, match="needs two classes or more, each with a name"):
        assemble("n", "t", labels, numbered(y), numbered(y))


@pytest.mark.parametrize(("counts", "number"), [([2] * 12, 12), ([10, 10, 10], 25)])
def test_no_class_is_left_without_training_images(counts, number):
    y = np.repeat(range(len(counts)), counts)
    held = hold_out(y, number, classes=len(counts))
    left = np.bincount(y, minlength=len(counts)) - np.bincount(y[held])
    assert len(held) == number and left.min() >= 1
