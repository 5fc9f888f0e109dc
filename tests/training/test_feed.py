import keras
import numpy as np
import pytest

from kerascnn.data import Augmentation, Images
from kerascnn.training.feed import Feed

IMAGES = Images(
    np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8), np.arange(10)
)


def feed(seed=0, outputs=1, alternate_flip=False, **augmentation):
    return Feed(
        IMAGES,
        10,
        4,
        seed=seed,
        augmentation=Augmentation(**augmentation),
        outputs=outputs,
        alternate_flip=alternate_flip,
    )


def epoch(made, number=0):
    made.start(number)
    x, y = zip(*(made[i] for i in range(len(made))), strict=True)
    return np.concatenate(x), np.concatenate(y).argmax(1)


def test_an_epoch_has_every_image_once_with_its_label():
    made = feed()
    assert [len(made[i][0]) for i in range(len(made))] == [4, 4, 2]
    x, y = epoch(made)
    assert sorted(y) == list(range(10))
    assert (x == IMAGES.x[y]).all()


def test_seed_and_epoch_decide_the_order_and_nothing_else():
    def order(number=0, **options):
        return epoch(feed(**options), number)[1].tolist()

    assert order() == order() == order(flip=True)
    assert order() != order(1)
    assert order() != order(seed=1)
    assert order(1) != order(seed=1)


def test_a_batch_does_not_depend_on_what_was_read_before():
    one, other = feed(flip=True, crop=2), feed(flip=True, crop=2)
    epoch(one, 5)
    other.start(5)
    assert (one[1][0] == other[1][0]).all()


def test_augmentation_spares_the_images():
    before = IMAGES.x.copy()
    x, y = epoch(feed(flip=True, crop=2))
    assert (x != IMAGES.x[y]).any()
    x[:] = 0
    plain, _ = epoch(feed())
    plain[:] = 0
    assert (IMAGES.x == before).all()


def mirrored(made, number):
    """Which images are mirrored in an epoch, in the order of the images."""
    x, y = epoch(made, number)
    same = (x == IMAGES.x[y]).all((1, 2, 3))
    other = (x == IMAGES.x[y][:, :, ::-1]).all((1, 2, 3))
    assert (same ^ other).all()
    return other[np.argsort(y)].tolist()


def test_alternate_flip_shows_both_ways_in_two_epochs():
    first = mirrored(feed(alternate_flip=True), 0)
    assert 0 < sum(first) < 10
    made = feed(alternate_flip=True)
    opposite = [not way for way in first]
    for number in (3, 0, 2, 1):  # as after a resume, in any order
        assert mirrored(made, number) == (opposite if number % 2 else first)
    assert mirrored(feed(seed=1, alternate_flip=True), 0) != first


def test_alternate_flip_comes_before_the_other_changes():
    one = feed(alternate_flip=True, cutout=2, crop=1)
    plain = feed(cutout=2, crop=1)
    way = np.array(mirrored(feed(alternate_flip=True), 0))
    (x, y), (expected, _) = epoch(one), epoch(plain)
    assert (x[~way[y]] == expected[~way[y]]).all()
    assert (x[way[y]] != expected[way[y]]).any()


def test_each_output_gets_the_labels():
    _, y = feed(outputs=3)[0]
    assert len(y) == 3 and all((part == y[0]).all() for part in y)
    assert y[0].shape == (4, 10) and y[0].dtype == np.float32


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow reads a dataset"
)
def test_tensorflow_reads_the_batches_without_a_thread_that_tunes():
    made = feed(flip=True, crop=1, outputs=2)
    made.start(3)
    dataset = made.for_keras()
    # With it the end of an epoch waits for a thread that sleeps up to a minute.
    assert not dataset.options().autotune.enabled
    assert int(dataset.cardinality()) == len(made)
    for index, (x, (first, second)) in enumerate(dataset.as_numpy_iterator()):
        expected_x, (expected_y, _) = made[index]
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(first, expected_y)
        np.testing.assert_array_equal(second, expected_y)
    assert index + 1 == len(made)


def test_two_readings_at_once_have_batches_of_their_own():
    made = feed()
    dataset = made.for_keras()
    for one, (two, _) in zip(dataset, dataset, strict=True):
        np.testing.assert_array_equal(one[0], two)
