import numpy as np

from kerascnn.data import Augmentation, Images
from kerascnn.training.feed import Feed

IMAGES = Images(
    np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8), np.arange(10)
)


def feed(seed=0, outputs=1, **augmentation):
    return Feed(
        IMAGES,
        10,
        4,
        seed=seed,
        augmentation=Augmentation(**augmentation),
        outputs=outputs,
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


def test_each_output_gets_the_labels():
    _, y = feed(outputs=3)[0]
    assert len(y) == 3 and all((part == y[0]).all() for part in y)
    assert y[0].shape == (4, 10) and y[0].dtype == np.float32
