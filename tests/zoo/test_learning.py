"""Every network learns: a few minutes of training on the built-in images.

The small versions are trained by the package's own routine on four of the ten shapes,
so that chance is 25 %.
"""

import dataclasses
import functools

import numpy as np
import pytest

import zoo
from kerascnn import Images, load_data, train

CLASSES, CHANCE, ENOUGH = 4, 25, 45  # percent
IMAGES = 2_000  # of all ten shapes, to train on
# Small versions of deep networks without normalisation are slow to begin with.
RECIPE = {
    "epochs": 8,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.002,
    "schedule": "cosine",
    "warmup": 1,
    "clip_norm": 1,
}
HASTE = {}


@functools.cache
def shapes(size):
    """Images of the first four shapes, as large as a network wants them."""
    data = load_data("shapes", images=IMAGES, image_size=size)

    def some(images):
        chosen = np.flatnonzero(images.y < CLASSES)
        return Images(images.x[chosen], images.y[chosen])

    return dataclasses.replace(
        data,
        train=some(data.train),
        validation=some(data.validation),
        test=some(data.test),
        labels=data.labels[:CLASSES],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_it_learns(name, tmp_path):
    options = dict(zoo.card(name).slim)
    size = options.pop("input_shape", zoo.card(name).input_shape)[:2]
    options.pop("classes", None)
    run = train(
        name,
        shapes(tuple(size)),
        {**RECIPE, **HASTE.get(name, {})},
        options=options,
        folder=tmp_path / "run",
        progress=False,
    )
    losses = [row["loss"] for row in run.history]
    assert losses[-1] < 0.9 * losses[0]
    assert run.metrics["test_accuracy"] > ENOUGH
