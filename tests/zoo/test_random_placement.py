"""Images in a field: in the middle, or anywhere near it."""

import keras
import numpy as np
import pytest
from keras import ops

from zoo.layers import RandomPlacement2D
from zoo.layers.pick import pick

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")


def array(x):
    return np.asarray(ops.convert_to_numpy(x))


def images(number=4, height=5, width=4, channels=3):
    """Random images without a zero."""
    random = np.random.default_rng(0)
    return random.uniform(1, 2, (number, height, width, channels)).astype("float32")


def corner(image):
    """First row and column that are not zero."""
    rows, columns = np.nonzero(image.any(axis=-1))
    return rows.min(), columns.min()


def test_pick_is_indexing():
    random = np.random.default_rng(0)
    x = images(3, 7, 6)
    rows, columns = random.integers(0, 7, (3, 5)), random.integers(0, 6, (3, 4))
    y = pick(ops.convert_to_tensor(x), rows.astype("int32"), columns.astype("int32"))
    expected = [x[n][np.ix_(rows[n], columns[n])] for n in range(3)]
    np.testing.assert_array_equal(array(y), expected)
    y = pick(ops.convert_to_tensor(x), rows[:1], columns[:1])
    expected = [image[np.ix_(rows[0], columns[0])] for image in x]
    np.testing.assert_array_equal(array(y), expected)


def test_in_prediction_the_image_lies_in_the_middle():
    x = images()
    y = array(RandomPlacement2D(9, 10)(x, training=False))
    assert y.shape == (4, 9, 10, 3)
    np.testing.assert_array_equal(y[:, 2:7, 3:7], x)
    assert np.count_nonzero(y) == x.size
    odd = array(RandomPlacement2D(8, 7)(x))  # margins of 3 and 3: the less above, left
    np.testing.assert_array_equal(odd[:, 1:6, 1:5], x)


def test_in_training_each_image_is_moved_and_nothing_is_lost():
    x = images(600)
    y = array(RandomPlacement2D(21, 20, shift=2, seed=1)(x, training=True))
    assert y.shape == (600, 21, 20, 3)
    corners = [corner(image) for image in y]
    for image, placed, (top, left) in zip(x, y, corners, strict=True):
        np.testing.assert_array_equal(placed[top : top + 5, left : left + 4], image)
    assert np.count_nonzero(y) == x.size
    # The middle is at 8, 8; all 25 places are alike probable, 24 times each.
    places, often = np.unique(corners, axis=0, return_counts=True)
    assert places.min(axis=0).tolist() == [6, 6]
    assert places.max(axis=0).tolist() == [10, 10]
    assert len(places) == 25
    assert often.min() > 8


def test_the_field_is_the_limit_of_the_moves():
    x = images(300)
    y = array(RandomPlacement2D(8, 4, shift=16, seed=2)(x, training=True))
    corners = np.array([corner(image) for image in y])
    assert set(corners[:, 0]) == {0, 1, 2, 3}
    assert set(corners[:, 1]) == {0}
    assert np.count_nonzero(y) == x.size


def test_a_shift_of_nothing_and_a_field_of_the_same_size():
    x = images()
    layer = RandomPlacement2D(9, 10, shift=0)
    np.testing.assert_array_equal(array(layer(x, training=True)), array(layer(x)))
    same = RandomPlacement2D(5, 4)
    np.testing.assert_array_equal(array(same(x, training=True)), x)


def test_a_seed_repeats_the_moves_and_it_can_be_kept():
    x = images()
    layer = RandomPlacement2D(20, 21, shift=5, seed=3, name="field")
    config = keras.saving.serialize_keras_object(layer)
    assert config["registered_name"] == "kerascnn>RandomPlacement2D"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    first, second = (array(one(x, training=True)) for one in (layer, again))
    np.testing.assert_array_equal(first, second)
    assert (array(layer(x, training=True)) != first).any()
    assert layer.weights == []
    assert layer.window() == ((1, 1), (1, 1))


def test_mixed_precision():
    layer = RandomPlacement2D(9, 9, dtype="mixed_bfloat16")
    for training in (False, True):
        y = layer(images(), training=training)
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 9), "height must be an integer of 1 or more; received 0"),
        ((9, 2.5), "width must be an integer of 1 or more; received 2.5"),
        ((9, 9, -1), "shift must be an integer of 0 or more; received -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomPlacement2D(*arguments)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="5x4 pixels does not fit into a field of 4x9"):
        RandomPlacement2D(4, 9)(images())
    with pytest.raises(ValueError, match="needs a known height and width"):
        RandomPlacement2D(9, 9)(keras.Input((None, 4, 3)))
