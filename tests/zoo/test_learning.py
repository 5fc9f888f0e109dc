"""Every network learns: it gets some of the built-in images by heart.

What cannot fit forty images has a fault in its graph, its initial weights or its
gradients; what can, in a hundred steps, is in order. (To learn what a shape is takes
the small versions, and the networks without convolutions, longer than a test may.)
"""

import keras
import numpy as np
import pytest

import zoo
from kerascnn import load_data

IMAGES, STEPS, EVERY = 40, 100, 20
ENOUGH = 0.3  # of the images; chance is 0.1, and 12 of 40 by chance are one in 2,600


@pytest.fixture(scope="module")
def shapes():
    """Forty images, four of each shape, as large as a network wants them."""

    def shapes(size):
        train = load_data("shapes", images=400, image_size=size).train
        chosen = [np.flatnonzero(train.y == c)[: IMAGES // 10] for c in range(10)]
        chosen = np.concatenate(chosen)
        return train.x[chosen], train.y[chosen]

    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_it_learns(name, shapes):
    options = dict(zoo.card(name).slim)
    shape = options.pop("input_shape", zoo.card(name).input_shape)
    keras.utils.set_random_seed(0)
    model = zoo.build(
        name, shape, **{"classes": 10, **options, "classifier_activation": None}
    )
    for layer in model.layers:
        # Dropout works against learning by heart, and leaves little of a small network.
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    model.compile(
        keras.optimizers.Adam(0.002, clipnorm=1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x, y = shapes(tuple(shape[:2]))
    first, _ = model.test_on_batch(x, y)
    for _ in range(STEPS // EVERY):
        for _ in range(EVERY):
            model.train_on_batch(x, y)
        model.reset_metrics()
        loss, accuracy = model.test_on_batch(x, y)
        if accuracy >= ENOUGH and loss < 0.9 * first:
            break
    assert loss < 0.9 * first
    assert accuracy >= ENOUGH
