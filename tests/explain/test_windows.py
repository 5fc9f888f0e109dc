"""Where windows fall, against a count by hand and against Keras' shapes."""

import keras
import numpy as np
import pytest

from kerascnn.explain import windows


def test_the_lectures_strides():
    text = str(windows(5, 3, 1))
    assert "(5 - 3)/1 + 1 = 3" in text
    assert "  ###..  window 0: 0 to 2" in text and "  ..###  window 2: 2 to 4" in text
    assert int(windows(5, 3, 2).placed) == 2


def test_what_does_not_fit_is_named():
    found = windows(10, 2, 5)
    text = str(found)
    assert "3 pixels left over" in text and "the stride does not fit" in text
    assert "pixels that no window reads: 2 to 4, 7 to 9" in text
    assert found.to_dict()["windows"] == [[0, 1], [5, 6]]


def test_zeros_of_same_padding_are_not_symmetric_at_stride_two():
    text = str(windows(32, 5, 2, "same"))
    assert "zeros: 1 before, 2 after, which is not symmetric" in text
    assert "  0####............................oo  window 0: -1 to 3" in text


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation"),
    [(7, 3, 1, 1), (8, 3, 2, 1), (9, 2, 3, 1), (12, 3, 1, 3)],
)
def test_the_taps_are_those_of_keras(size, window, stride, dilation, padding):
    """A filter of powers of two on a picture of one pixel tells which tap read it."""
    found = windows(size, window, stride, padding, dilation).placed
    layer = keras.layers.Conv2D(
        1, (1, window), (1, stride), padding, dilation_rate=(1, dilation)
    )
    layer.build((None, 1, size, 1))
    kernel = 2.0 ** np.arange(window)
    layer.set_weights([kernel.reshape(1, window, 1, 1), np.zeros(1)])
    pictures = np.eye(size).reshape(size, 1, size, 1)
    answers = keras.ops.convert_to_numpy(layer(pictures))[:, 0, :, 0]
    expected = np.zeros((size, int(found)))
    for number, taps in enumerate(found.windows):
        for tap, position in enumerate(taps):
            if 0 <= position < size:
                expected[position, number] = kernel[tap]
    np.testing.assert_array_equal(answers, expected)


def test_pools_lie_side_by_side():
    found = windows(32, 2, pooling=True)
    assert "32/2 = 16" in str(found) and found.placed.fits
    assert "they only place the pools" in str(windows(8, 3, 2, "same", pooling=True))
    with pytest.raises(ValueError, match="no dilation"):
        windows(8, 2, dilation=2, pooling=True)


@pytest.mark.parametrize("size", [5, 32, 224])
def test_the_picture_has_a_line_for_each_window_that_is_shown(size):
    found = windows(size, 3, 2, (1, 0))
    axes = found.plot().axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["input", *(f"window {i}" for i in found.shown)]
    assert found.shown[0] == 0 and found.shown[-1] == int(found.placed) - 1
