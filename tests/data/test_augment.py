import numpy as np
import pytest

from kerascnn.data import Augmentation

SHAPE = (64, 6, 8, 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def rng(seed=1):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(flip=True),
        Augmentation(crop=2),
        Augmentation(crop=2, crop_padding="zeros"),
        Augmentation(cutout=3),
        Augmentation(flip=True, crop=3, cutout=2),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_new_array_the_input_left_alone_and_the_seed_decides(augmentation, channels):
    images = rng(0).integers(0, 256, (*SHAPE[:3], channels), np.uint8)
    before = images.copy()
    first, again = augmentation(images, rng()), augmentation(images, rng())
    assert (images == before).all()
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert not np.shares_memory(first, images)
    assert (first == again).all()
    assert (augmentation(images, rng(2)) != first).any() == bool(augmentation)


def test_flip_mirrors_half_of_the_images(images):
    result = Augmentation(flip=True)(images, rng())
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (result == images).all(axis=(1, 2, 3))).all()
    assert 20 < mirrored.sum() < 44


@pytest.mark.parametrize(
    ("padding", "mode"), [("reflect", "reflect"), ("zeros", "constant")]
)
@pytest.mark.parametrize("crop", [1, 2, 5])
def test_crop_is_a_window_of_the_padded_image(images, padding, mode, crop):
    result = Augmentation(crop=crop, crop_padding=padding)(images, rng())
    border = ((0, 0), (crop, crop), (crop, crop), (0, 0))
    padded = np.pad(images, border, mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SHAPE[1:3], axis=(1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)  # (N, top, left, height, width, C)
    same = (windows == result[:, None, None]).all(axis=(3, 4, 5))
    assert same.any(axis=(1, 2)).all()
    assert same.any(axis=(0, 2)).sum() == 2 * crop + 1  # every top comes up
    assert same.any(axis=(0, 1)).sum() == 2 * crop + 1  # and every left


def test_zeros_may_shift_by_more_than_the_image(images):
    result = Augmentation(crop=40, crop_padding="zeros")(images, rng())
    assert (result == 0).all(axis=(1, 2, 3)).sum() > 40


def test_flip_and_crop_together_are_a_window_of_one_of_both(images):
    result = Augmentation(flip=True, crop=1)(images, rng())
    found = np.zeros(len(images), bool)
    for source in (images, images[:, :, ::-1]):
        padded = np.pad(source, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        for top in range(3):
            for left in range(3):
                window = padded[:, top : top + 6, left : left + 8]
                found |= (window == result).all(axis=(1, 2, 3))
    assert found.all()


def test_cutout_is_a_grey_square_that_may_hang_over(images):
    images[images == 128] = 0
    result = Augmentation(cutout=4)(images, rng())
    grey = (result == 128).all(axis=3)
    assert (result[~grey] == images[~grey]).all()
    heights, widths = grey.any(axis=2).sum(axis=1), grey.any(axis=1).sum(axis=1)
    assert (grey.sum(axis=(1, 2)) == heights * widths).all()
    assert set(heights) == set(widths) == {2, 3, 4}  # half of it stays inside at least


def test_an_image_that_is_no_copy_of_its_own_memory(images):
    views = images[::2, :, ::-1]
    result = Augmentation(crop=1)(views, rng())
    assert (result == Augmentation(crop=1)(views.copy(), rng())).all()


def test_a_batch_of_none_stays_one():
    empty = np.zeros((0, 6, 8, 3), np.uint8)
    assert Augmentation(True, 2, "zeros", 2)(empty, rng()).shape == empty.shape


def test_it_is_true_where_it_changes_something():
    assert not Augmentation(crop_padding="zeros")
    assert Augmentation(cutout=1)


@pytest.mark.parametrize("options", [{"crop": -1}, {"cutout": 1.5}, {"crop": True}])
def test_pixels_are_whole(options):
    with pytest.raises(
        ValueError, match="whole number of pixels, 0 for none; received"
    ):
        Augmentation(**options)


def test_an_unknown_padding_is_named():
    with pytest.raises(ValueError, match="'reflect' or 'zeros'; received 'mirror'"):
        Augmentation(crop=1, crop_padding="mirror")


def test_what_cannot_be_augmented_is_refused(images):
    with pytest.raises(ValueError, match="received float32"):
        Augmentation(flip=True)(images.astype("float32"), rng())
    with pytest.raises(ValueError, match="5 pixels at most to images of 6x8"):
        Augmentation(crop=6)(images, rng())
