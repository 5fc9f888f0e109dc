import numpy as np
import pytest

from kerascnn.data import Augmentation
from kerascnn.data.augment import _warp

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
        Augmentation(affine=0.2),
        Augmentation(color=25.0),
        Augmentation(True, 2, "zeros", 2, affine=0.1, color=5.0),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
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
    warped = Augmentation(affine=0.2, color=9.0)(empty, rng())
    assert warped.shape == empty.shape
    assert Augmentation(True, 2, "zeros", 2)(empty, rng()).shape == empty.shape


def test_it_is_true_where_it_changes_something():
    assert not Augmentation(crop_padding="zeros")
    assert Augmentation(cutout=1)
    assert Augmentation(affine=0.1) and Augmentation(color=1.0)


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


def bilinear(image, matrix, grey=128.0):
    """Map an image about its middle, pixel by pixel, by the definition.

    Where a pixel's origin lies outside of the image it is grey.
    """
    height, width, _ = image.shape
    back = np.linalg.inv(matrix)
    result = np.full(image.shape, grey)
    inside = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            place = np.array([column + 0.5 - width / 2, row + 0.5 - height / 2])
            x, y = back @ place + np.array([width, height]) / 2
            if not (0 <= x < width and 0 <= y < height):
                continue
            inside[row, column] = 1 <= x < width - 1 and 1 <= y < height - 1
            x, y = x - 0.5, y - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            total = 0.0
            for i, part_y in ((top, top + 1 - y), (top + 1, y - top)):
                for j, part_x in ((left, left + 1 - x), (left + 1, x - left)):
                    pixel = image[min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
                    total = total + part_x * part_y * pixel
            result[row, column] = total
    return result, inside


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_warp_is_the_bilinear_one(channels):
    images = rng(0).integers(0, 256, (6, 10, 14, channels), np.uint8)
    matrices = Augmentation(affine=0.3)._matrices(6, rng(3))
    result = _warp(images, matrices)
    for image, matrix, found in zip(images, matrices, result, strict=True):
        expected, inside = bilinear(image.astype(float), matrix)
        assert inside.mean() > 0.3
        assert np.abs(found - expected)[inside].max() <= 1.01
        # On the rim, rounding may put a pixel on the other side of the edge.
        assert (np.abs(found - expected) <= 1.01).mean() > 0.97


def test_the_identity_leaves_the_image():
    images = rng(0).integers(0, 256, (4, 9, 7, 3), np.uint8)
    assert (_warp(images, np.tile(np.eye(2), (4, 1, 1))) == images).all()
    # Twice as large: a window of the middle; the corners are those of the quarter.
    large = _warp(images, np.tile(2.0 * np.eye(2), (4, 1, 1)))
    assert (large[:, 4, 3] == images[:, 4, 3]).all()
    # Half as large: what comes in is grey.
    small = _warp(images, np.tile(0.5 * np.eye(2), (4, 1, 1)))
    assert (small[:, [0, -1]] == 128).all() and (small[:, :, [0, -1]] == 128).all()


def test_matrices_are_a_stretch_and_then_one_of_three():
    matrices = Augmentation(affine=0.2)._matrices(9000, rng())
    stretch = np.linalg.norm(matrices, axis=1)  # of a turn, the lengths of the columns
    across = (matrices[:, 0, 1] != 0) & (matrices[:, 1, 0] == 0)
    down = (matrices[:, 0, 1] == 0) & (matrices[:, 1, 0] != 0)
    turned = (matrices[:, 0, 1] != 0) & (matrices[:, 1, 0] != 0)
    for kind in (across, down, turned):
        assert kind.mean() == pytest.approx(1 / 3, abs=0.02)
    for shears, axis in ((across, 0), (down, 1)):
        factors = matrices[shears][:, [0, 1], [0, 1]]
        assert 0.8 <= factors.min() < 0.81 and 1.19 < factors.max() <= 1.2
        assert factors.mean() == pytest.approx(1, abs=0.01)
        tangent = matrices[shears][:, axis, 1 - axis] / factors[:, 1 - axis]
        assert tangent.min() == pytest.approx(-0.2, abs=0.002)
        assert tangent.max() == pytest.approx(0.2, abs=0.002)
    angle = np.arctan2(matrices[turned][:, 1, 0], matrices[turned][:, 0, 0])
    assert np.abs(angle).max() == pytest.approx(0.2, abs=0.002)
    assert stretch[turned].min() >= 0.8 and stretch[turned].max() <= 1.2


def test_a_turn_is_a_turn_and_a_shear_moves_rows():
    images = np.zeros((1, 21, 21, 1), np.uint8)
    images[0, :, 10] = 255  # a vertical line through the middle
    sheared = _warp(images, np.array([[[1, 0.2], [0, 1]]]))[0, ..., 0]
    centre = (sheared * (sheared != 128) * np.arange(21)).sum(1) / np.maximum(
        (sheared * (sheared != 128)).sum(1), 1
    )
    np.testing.assert_allclose(centre, 10 + 0.2 * (np.arange(21) - 10), atol=0.1)


def test_shades_are_offsets_and_slopes_of_each_channel():
    images = np.full((3000, 5, 7, 2), 100, np.uint8)
    result = Augmentation(color=10.0)(images, rng()).astype(float) - 100
    x, y = np.arange(7) - 3, np.arange(5) - 2
    offset = result.mean(axis=(1, 2))
    across = (result.mean(axis=1) * x[:, None]).sum(1) / (x**2).sum()
    down = (result.mean(axis=2) * y[:, None]).sum(1) / (y**2).sum()
    assert offset.std() == pytest.approx(10, rel=0.05)
    assert across.std() == pytest.approx(0.8, rel=0.05)
    assert down.std() == pytest.approx(0.8, rel=0.05)
    for drawn in (offset, across, down):
        assert abs(drawn.mean()) < 4 * drawn.std() / 6000**0.5
        assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.08
    plane = offset[:, None, None] + across[:, None, None] * x[:, None]
    plane = plane + down[:, None, None] * y[:, None, None]
    assert np.abs(result - plane).max() <= 1  # nothing but rounding is left


def test_shades_are_cut_off_and_spare_the_background():
    images = rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    images[:, :4] = (126, 130, 128)
    images[:, 4] = (125, 128, 128)
    result = Augmentation(color=100.0)(images, rng())
    assert (result[:, :4] == images[:, :4]).all()
    assert (result[:, 4:] != images[:, 4:]).mean() > 0.9
    assert (result == 0).any() and (result == 255).any()


@pytest.mark.parametrize(
    "options",
    [{"affine": 1.0}, {"affine": -0.1}, {"affine": float("nan")}, {"color": -1.0}],
)
def test_strengths_have_a_range(options):
    with pytest.raises(ValueError, match="received"):
        Augmentation(**options)
