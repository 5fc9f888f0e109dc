"""The picture beside its numbers."""

import numpy as np
import pytest
from PIL import Image

from kerascnn.explain import pixels

# The three pixels of the lecture's slide.
COLOURS = np.array([[(61, 183, 228), (255, 136, 73), (105, 190, 40)]], np.uint8)


def test_the_lectures_pixels_are_three_numbers_each():
    text = str(pixels(COLOURS))
    assert "1·3·3 = 9 numbers" in text
    assert "(61, 183, 228)" in text
    # The channels apart: red 61 255 105, and so on.
    rows = [line.split() for line in text.splitlines()]
    for channel in range(3):
        assert [str(v) for v in COLOURS[0, :, channel]] in rows


def test_a_grey_image_of_nine_by_seven_is_shown_whole():
    image = np.arange(63, dtype=np.uint8).reshape(9, 7)
    found = pixels(image)
    assert found.whole and found.names == ("grey",)
    assert "9·7·1 = 63 numbers" in str(found)
    assert "  56 57 58 59 60 61 62" in str(found)


def test_of_a_larger_image_a_window_is_shown():
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    found = pixels(image)
    assert found.window == (12, 16, 8, 8)
    np.testing.assert_array_equal(found.shown, image[12:20, 16:24])
    assert "rows 12 to 19, columns 16 to 23" in str(found)
    assert pixels(image, window=(0, 1, 2, 3)).shown.shape == (2, 3, 3)


@pytest.mark.parametrize(
    "window", [(0, 0, 10, 1), (-1, 0, 2, 2), (0, 0, 0, 1), (8, 0, 2, 2)]
)
def test_a_window_outside_is_an_error(window):
    with pytest.raises(ValueError, match="inside of the 9x7 image"):
        pixels(np.zeros((9, 7)), window=window)
    with pytest.raises(ValueError, match=r"received shape \(3,\)"):
        pixels(np.zeros(3))


def test_the_picture_carries_its_text(tmp_path):
    figure = pixels(COLOURS).plot(tmp_path / "pixels.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:] == ["red", "green", "blue"]
    written = {t.get_text() for axes in figure.axes[1:] for t in axes.texts}
    assert written == {str(v) for v in COLOURS.ravel()}
    with Image.open(tmp_path / "pixels.png") as opened:
        assert "(61, 183, 228)" in opened.text["Description"]


def test_floats_and_other_channels_can_be_drawn():
    random = np.random.default_rng(0)
    for image in (random.normal(size=(4, 5, 2)), random.random((4, 5, 4))):
        found = pixels(image)
        assert len(found.plot().axes) == 1 + image.shape[-1]
        assert len(found.names) == image.shape[-1]
