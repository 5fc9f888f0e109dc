"""Convolution by hand against plain loops and against Keras."""

import numpy as np
import pytest
from keras import ops
from PIL import Image

from kerascnn.explain import slide


def test_the_lectures_step_is_nine_products_whose_sum_is_four():
    # 1 + 0 + 0 + 0 + 1 + 1 + 0 + 0 + 1 = 4
    window = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]])
    step = slide(window, np.ones((3, 3))).steps[0]
    assert step.products.ravel().tolist() == [1, 0, 0, 0, 1, 1, 0, 0, 1]
    assert step.total == step.output == 4
    assert "1·1 + 0·1 + 0·1" in str(step)
    assert "sum 4; ReLU max(0, 4) = 4" in str(step)


def test_a_diagonal_filter_answers_to_a_diagonal():
    found = slide(np.eye(5), 2 * np.eye(3) - 1)
    assert found.output[..., 0].tolist() == [[3, 0, 0], [0, 3, 0], [0, 0, 3]]
    assert found.sums.min() < 0  # which ReLU leaves out


CASES = [
    # stride, padding, zeros before and after of rows and of columns, dilation
    (1, "valid", ((0, 0), (0, 0)), 1),
    (1, "same", ((1, 1), (1, 1)), 1),
    (2, "same", ((1, 1), (0, 1)), 1),  # 9 rows, 8 columns
    (2, 0, ((0, 0), (0, 0)), 1),
    (3, 2, ((2, 2), (2, 2)), 1),
    (1, (0, 2), ((0, 2), (0, 2)), 1),
    (1, "valid", ((0, 0), (0, 0)), 2),
    (1, "same", ((2, 2), (2, 2)), 2),
]


@pytest.mark.parametrize(("stride", "padding", "zeros", "dilation"), CASES)
def test_slide_equals_loops_and_keras(convolve, stride, padding, zeros, dilation):
    random = np.random.default_rng(1)
    image = random.normal(size=(9, 8, 3)).astype("float32")
    kernel = random.normal(size=(3, 3, 3, 2)).astype("float32")
    bias = [0.5, -2.0]
    found = slide(image, kernel, stride, padding, bias=bias, dilation=dilation)
    by_loops = convolve(image, kernel, stride, zeros, dilation) + bias
    np.testing.assert_allclose(found.sums, by_loops, atol=1e-12)
    np.testing.assert_allclose(found.output, np.maximum(by_loops, 0), atol=1e-12)
    padded = np.pad(image, (*zeros, (0, 0)))[None]
    of_keras = ops.conv(
        padded, kernel, stride, "valid", "channels_last", dilation_rate=dilation
    )
    np.testing.assert_allclose(
        found.sums, ops.convert_to_numpy(of_keras)[0] + bias, atol=2e-5
    )
    if isinstance(padding, str):
        whole = ops.conv(
            image[None], kernel, stride, padding, "channels_last", dilation
        )
        np.testing.assert_allclose(
            found.sums, ops.convert_to_numpy(whole)[0] + bias, atol=2e-5
        )


def test_the_steps_are_the_map():
    random = np.random.default_rng(2)
    found = slide(
        random.normal(size=(6, 5, 2)), random.normal(size=(3, 2, 2, 2)), (2, 1), "same"
    )
    assert len(found.steps) == found.output.size
    for step in found.steps:
        product = (step.window * step.weights).sum()
        assert step.total == pytest.approx(product)
        assert step.output == pytest.approx(
            found.output[step.row, step.column, step.filter]
        )
        assert step.output == pytest.approx(max(0, step.total))
    assert found.steps[-1].filter == 1 and len(found.steps[2:5]) == 3
    with pytest.raises(IndexError):
        found.steps[len(found.steps)]


def test_windows_of_padding_and_dilation_are_named():
    found = slide(np.ones((5, 5)), np.ones((3, 3)), padding=1, dilation=2)
    first = found.steps[0]
    assert (first.top, first.left, first.total) == (-1, -1, 4)
    assert "rows -1 to 3, columns -1 to 3" in str(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((5, 5, 3)), np.ones((3, 3))), "as deep as it"),
        ((np.ones((2, 2)), np.ones((3, 3))), "does not fit"),
        ((np.ones((5, 5)), np.ones((3, 3)), 0), "stride"),
    ],
)
def test_what_cannot_be_slid_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        slide(*arguments)
    with pytest.raises(ValueError, match="one bias"):
        slide(np.ones((5, 5)), np.ones((3, 3)), bias=[1, 2])
    with pytest.raises(ValueError, match="within"):
        slide(np.ones((5, 5)), np.ones((3, 3))).step(3, 0)


def test_the_map_grows_in_the_picture_and_the_animation(tmp_path):
    found = slide(np.eye(4), np.eye(3))
    figure = found.plot(tmp_path / "step.png", step=1)
    texts = {axes.get_title(): axes for axes in figure.axes}
    assert len(texts["map 0, after ReLU"].texts) == 2  # two of four numbers so far
    assert "step 2 of 4" in figure.get_suptitle()
    found.animate(tmp_path / "steps.gif", seconds=0.2)
    with Image.open(tmp_path / "steps.gif") as opened:
        assert opened.n_frames == 4 and opened.info["duration"] == 200
    found.animate(tmp_path / "few.gif", most=1)
    with Image.open(tmp_path / "few.gif") as opened:
        assert opened.n_frames == 1
    with pytest.raises(ValueError, match=r"\.gif"):
        found.animate(tmp_path / "steps.mp4")


def test_of_many_channels_the_strongest_are_drawn_and_the_rest_summed():
    image = np.ones((4, 4, 5)) * [1, -7, 2, 0.5, 5]
    found = slide(image, np.ones((3, 3, 5)), relu=False)
    figure = found.plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert [t for t in titles if t.startswith("product")] == [
        "product, channel 1: -63",
        "product, channel 4: 45",
        "product, channel 2: 18",
    ]
    notes = [text.get_text() for text in figure.texts]
    assert any("the other 2 channels sum to 13.50" in note for note in notes)
    assert "channel 1 and window" in titles


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.12"),
        (-3.456, "-3.5"),
        (127.3, "127"),
        (255, "255"),
        (-0.0, "0"),
        (0.0049, "0.005"),
        (-1e-5, "0.000"),
    ],
)
def test_numbers_in_the_windows_have_two_digits(value, text):
    figure = slide(np.full((3, 3), value), np.ones((3, 3))).plot()
    window = next(axes for axes in figure.axes if axes.get_title() == "window")
    assert {t.get_text() for t in window.texts} == {text}


def test_the_strongest_step_makes_the_greatest_value():
    image = np.zeros((6, 5))
    image[3, 2] = 1
    filters = np.zeros((3, 3, 1, 2))
    filters[0, 1, 0, 0] = filters[2, 2, 0, 1] = 1
    found = slide(image, filters)
    for f, place in enumerate([(3, 1), (1, 0)]):
        step = found.steps[found.strongest(f)]
        assert (step.row, step.column, step.filter, step.output) == (*place, f, 1)
