"""Letters of what the room draws are of 8 pixels and more on a page of the site."""

import keras
import numpy as np
import pytest
from keras import layers
from readable import LEAST, letters

import zoo
from kerascnn import explain
from kerascnn.explain.mistakes import gallery
from kerascnn.graph import without_weights


def colours(side=32):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def small(filters=64):
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(filters, 5, name="conv")(image)
    return keras.Model(image, layers.Dense(2, "softmax")(layers.Flatten()(x)))


def deepest():
    """The network of the zoo's with the most volumes."""
    with without_weights():
        return explain.volumes(zoo.build("maxout_nin"))


def test_the_height_is_that_on_the_page():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(20, 2))
    figure.text(0.5, 0.5, "x", size=20)
    figure.text(0.5, 0.5, "", size=1)  # is not seen
    assert letters(figure, 150) == pytest.approx(20 * 824 / 20 / 72)
    assert letters(figure, 36) == 20 * 36 / 72  # narrower than the page


@pytest.mark.parametrize(
    "draw",
    [
        lambda: explain.pixels(colours()).plot(),
        lambda: explain.slide(colours(9), np.ones((5, 5, 3, 1))).plot(step=1),
        lambda: explain.filters(small()).plot(),
        lambda: explain.activation_maps(small(), colours(16), "conv").plot(),
        lambda: explain.trace(small(), colours(16)).plot(),
        lambda: deepest().plot(),
        lambda: gallery(
            colours()[None].repeat(7, 0),
            np.zeros(7, int),
            {"taken for": np.eye(2)[[1] * 7]},
            ("automobile", "airplane"),
            title="seven",
        ),
    ],
    ids=["pixels", "slide", "filters", "maps", "trace", "volumes", "gallery"],
)
def test_letters_are_readable_on_a_page(draw):
    assert letters(draw()) >= LEAST


def test_a_network_of_many_volumes_is_drawn_in_several_lines():
    found = deepest()
    assert len(found.volumes) > 9
    figure = found.plot()
    assert len(figure.axes) == 6 and figure.get_figwidth() < 12
    shown = [
        place
        for axes in figure.axes[::3]
        for place in range(len(found.volumes))
        if axes.get_xlim()[0] < place < axes.get_xlim()[1]
    ]
    assert shown == list(range(len(found.volumes)))  # each once, in order
