"""Receptive fields behind up-sampling: the table and the regions, by experiment."""

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn import summarize
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import record

SIZE = 24


def conv(size=3, **options):
    return layers.Conv2D(1, size, **{"padding": "same", **options})


def autoencoder(x):
    x = layers.AveragePooling2D(2)(conv()(x))
    return conv()(layers.UpSampling2D(2)(conv()(x)))


def unet(x):
    high = conv()(x)
    low = layers.AveragePooling2D(2)(high)
    lower = conv()(layers.AveragePooling2D(2)(conv()(low)))
    back = layers.Conv2DTranspose(1, 2, 2, padding="same")(lower)
    back = layers.Conv2DTranspose(1, 3, 2, padding="same")(
        conv()(layers.Concatenate()([low, back]))
    )
    return conv()(layers.Concatenate()([back, high]))


def pooled_again(x):
    """Not evenly spaced: 2 pixels of the same, then 2 of the next."""
    x = layers.UpSampling2D(2)(layers.AveragePooling2D(2)(x))
    return layers.AveragePooling2D(2)(conv()(x))


NETWORKS = {
    "dilated transposed": lambda x: layers.Conv2DTranspose(
        1, 3, dilation_rate=(2, 3), padding="same"
    )(x),
    "dilated and strided": lambda x: layers.Conv2DTranspose(
        1, (3, 4), strides=2, dilation_rate=1, padding="same"
    )(conv(dilation_rate=2)(x)),
    "gaps": lambda x: conv(2)(layers.Conv2DTranspose(1, 1, strides=3)(x)),
    "autoencoder": autoencoder,
    "unet": unet,
    "pooled again": pooled_again,
    "three times": lambda x: conv(5)(layers.UpSampling2D((3, 2))(conv(2)(x))),
    "bilinear": lambda x: conv()(
        layers.UpSampling2D(2, interpolation="bilinear")(conv(strides=2)(x))
    ),
    "bilinear odd": lambda x: layers.UpSampling2D(3, interpolation="bilinear")(x),
    "reduced": lambda x: conv(2, strides=3)(layers.UpSampling2D(2)(x)),
    "padded": lambda x: layers.Add()(
        [
            conv()(layers.ZeroPadding2D(1)(x)),
            layers.Conv2D(1, 1)(keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))),
        ]
    ),
    "one for all": lambda x: layers.Multiply()(
        [x, conv(1)(layers.AveragePooling2D(SIZE)(x))]
    ),
}


def network(make, size):
    """A network whose weights are all 1: each pixel in sight counts."""
    image = keras.Input((size, size, 1))
    model = keras.Model(image, make(image))
    for weight in model.weights:
        weight.assign(np.ones(weight.shape) if len(weight.shape) > 1 else 0 * weight)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_table_and_regions_are_what_changes_the_values(name):
    size = 36 if name == "unet" else SIZE
    model = network(NETWORKS[name], size)
    change = np.eye(size * size, dtype="float32").reshape(-1, size, size, 1)
    ones = np.ones((1, size, size, 1), "float32")
    before, after = (
        keras.ops.convert_to_numpy(model(x)) for x in (ones, ones + change)
    )
    moved = np.abs(after - before).max(-1) > 1e-3  # (pixels, rows, columns)
    seen = record(model, ones)
    (most,) = [r for r in summarize(model).rows if r.name == model.layers[-1].name]
    height, width = moved.shape[1:]
    greatest = [0, 0]
    for row, column in np.ndindex(height, width):
        near = abs(row - height // 2) <= 4 and abs(column - width // 2) <= 4
        if not near and (row % 5 or column % 7):
            continue  # at the border a sample will do
        rows, columns = np.nonzero(moved[:, row, column].reshape(size, size))
        found = region(seen, len(seen.calls) - 1, row, column)
        assert found.exact
        if not len(rows):
            assert not found.height
            continue
        assert found.rows == (rows.min(), rows.max()), (row, column)
        assert found.columns == (columns.min(), columns.max()), (row, column)
        greatest = [max(greatest[0], found.height), max(greatest[1], found.width)]
    if name == "one for all":
        greatest = [SIZE, SIZE]
    if height >= size // 2:  # else every place is at the border
        assert most.receptive_field == tuple(greatest)


@pytest.mark.parametrize(
    ("layer", "field"),
    [
        (layers.Conv1DTranspose(1, 3, dilation_rate=2), (5,)),
        (layers.Conv1DTranspose(1, 5, strides=2), (3,)),
        (layers.UpSampling1D(4), (1,)),
        (layers.Conv1D(1, 3, padding="causal", dilation_rate=4), (9,)),
    ],
)
def test_one_axis(layer, field):
    model = keras.Sequential([keras.Input((40, 1)), layer])
    assert summarize(model).rows[-1].receptive_field == field


@pytest.mark.parametrize(
    "middle",
    [
        layers.GroupNormalization(1),
        layers.LayerNormalization(axis=(1, 2, 3)),
        layers.Reshape((8, 18, 1)),
        layers.Permute((2, 1, 3)),
    ],
)
def test_a_region_is_exact_only_where_it_is(middle):
    image = keras.Input((12, 12, 1))
    model = keras.Model(image, conv()(middle(conv()(image))))
    seen = record(model, np.ones((1, 12, 12, 1), "float32"))
    found = region(seen, len(seen.calls) - 1, 3, 3)
    assert not found.exact and (found.height, found.width) == (12, 12)


@pytest.mark.parametrize(("pool", "stride"), [(3, 3), (4, 3), (3, 2), (2, 2)])
def test_windows_of_pooling_that_rounds_up_begin_at_the_first_pixel(pool, stride):
    from zoo.layers import CeilMaxPooling2D

    image = keras.Input((31, 31, 1))
    model = keras.Model(image, CeilMaxPooling2D(pool, stride)(image))
    seen = record(model, np.ones((1, 31, 31, 1), "float32"))
    for at in range(model.output.shape[1]):
        found, first = region(seen, len(seen.calls) - 1, at, at), at * stride
        assert found.exact
        assert found.rows == found.columns == (first, min(first + pool, 31) - 1)


def test_what_follows_flatten_place_by_place_sees_what_it_sees():
    flat = [layers.Flatten(), layers.Dropout(0.5), layers.ReLU()]
    model = keras.Sequential([keras.Input((8, 8, 1)), conv(), *flat])
    fields = [row.receptive_field for row in summarize(model).rows]
    assert fields[-4:] == [(3, 3)] * 4
