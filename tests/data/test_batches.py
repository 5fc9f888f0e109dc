import numpy as np
import pytest

from kerascnn.data import Augmentation, Images, batches, steps

IMAGES = Images(
    np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8), np.arange(10)
)


def order(**options):
    return [
        y.tolist() for _, y in batches(IMAGES, 4, **{"seed": 0, "epoch": 0} | options)
    ]


def test_an_epoch_has_every_image_once_with_its_label():
    seen = list(batches(IMAGES, 4, seed=0, epoch=0))
    assert [len(x) for x, _ in seen] == [4, 4, 2]
    x, y = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    assert sorted(y) == list(range(10))
    assert (x == IMAGES.x[y]).all()


def test_seed_and_epoch_decide_and_nothing_else():
    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=1)
    assert order(seed=0, epoch=1) != order(seed=1, epoch=0)
    assert order(augmentation=Augmentation(flip=True)) == order()


def test_unshuffled_is_in_order_and_the_last_batch_may_go():
    assert order(shuffle=False) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert order(shuffle=False, drop_last=True) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_augmentation_follows_the_epoch_and_spares_the_images():
    before = IMAGES.x.copy()
    change = Augmentation(flip=True, crop=2)

    def epoch(number):
        made = batches(
            IMAGES, 10, seed=3, epoch=number, shuffle=False, augmentation=change
        )
        return next(made)[0]

    assert (epoch(0) == epoch(0)).all()
    assert (epoch(0) != epoch(1)).any()
    assert (epoch(0) != IMAGES.x).any()
    for x, _ in batches(IMAGES, 4, seed=0, epoch=0, shuffle=False):
        x[:] = 0
    assert (IMAGES.x == before).all()


@pytest.mark.parametrize(
    ("number", "drop_last", "expected"),
    [(10, False, 3), (10, True, 2), (8, False, 2), (8, True, 2), (0, False, 0)],
)
def test_steps(number, drop_last, expected):
    assert steps(number, 4, drop_last=drop_last) == expected
    part = IMAGES.take(slice(number))
    made = batches(part, 4, seed=0, epoch=0, drop_last=drop_last)
    assert len(list(made)) == expected


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match="received 10 and 0"):
        batches(IMAGES, 0, seed=0, epoch=0)
    with pytest.raises(ValueError, match="received seed=-1, epoch=0"):
        batches(IMAGES, 2, seed=-1, epoch=0)
