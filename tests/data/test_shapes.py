import hashlib

import numpy as np
import pytest

from kerascnn.data import load_data, shapes

TRAIN, TEST = 2_500, 1_500


@pytest.fixture(scope="module")
def drawn():
    return shapes.generate(TRAIN + TEST, seed=7)


def accuracy(features, y, penalty=1.0):
    """Test accuracy of a linear classifier on standardised features.

    Ridge regression onto one-hot targets: no steps, no seed, nothing to tune but how
    strongly the weights are held small.
    """
    train = features[:TRAIN]
    features = (features - train.mean(axis=0)) / (train.std(axis=0) + 1e-6)
    features = np.hstack([features, np.ones_like(features[:, :1])])
    train, targets = features[:TRAIN], np.eye(10, dtype=features.dtype)[y[:TRAIN]]
    gram = train.T @ train + penalty * TRAIN / 100 * np.eye(
        features.shape[1], dtype=features.dtype
    )
    weights = np.linalg.solve(gram, train.T @ targets)
    return ((features[TRAIN:] @ weights).argmax(axis=1) == y[TRAIN:]).mean()


def statistics(x):
    """All that an image says without where: mean, deviation, extremes, histogram.

    Of red, green, blue and grey: (N, 4·20).
    """
    grey = x.astype(int).sum(axis=3, keepdims=True) // 3
    columns = []
    for plane in np.moveaxis(np.concatenate([x, grey], axis=3), 3, 0):
        flat = np.ascontiguousarray(plane).reshape(len(x), -1)
        columns += [flat.mean(1), flat.std(1), flat.min(1), flat.max(1)]
        bins = flat // 16 + 16 * np.arange(len(x))[:, None]
        histogram = np.bincount(bins.ravel(), minlength=16 * len(x))
        columns += list(histogram.reshape(len(x), 16).T / flat.shape[1])
    return np.stack(columns, axis=1)


def test_a_seed_gives_the_same_images_on_every_machine():
    x, y = shapes.generate(40, seed=(0, 0))
    digest = hashlib.sha256(x.tobytes() + y.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "d443b0321fb1ec4b"
    assert (shapes.generate(40, seed=(0, 1))[0] != x).any()


def test_every_class_has_as_many_images(drawn):
    x, y = drawn
    assert x.shape == (TRAIN + TEST, 32, 32, 3)
    assert x.dtype == np.uint8
    assert np.bincount(y).tolist() == [400] * 10


def test_statistics_say_next_to_nothing_of_the_class(drawn):
    x, y = drawn
    features = statistics(x)
    assert accuracy(features, y) < 0.16  # chance is 0.10
    # Nor do their products of two, squares among them.
    upper = np.triu_indices(20)
    grey = features[:, 60:]
    assert accuracy(grey[:, upper[0]] * grey[:, upper[1]], y, 5) < 0.16


def test_statistics_would_see_a_shape_with_more_ink(drawn):
    """The control for the test above: seventy more pixels of ink in two classes."""
    x, y = drawn
    inked = x.copy()
    inked[np.isin(y, (3, 4)), 4:11, 4:14] = 255
    assert accuracy(statistics(inked), y) > 0.18


def test_pixels_say_little_to_a_linear_model(drawn):
    x, y = drawn
    pixels = x[:, ::2, ::2].reshape(len(x), -1).astype(np.float32) / 255  # a quarter
    assert max(accuracy(pixels, y, penalty) for penalty in (30, 300)) < 0.2


@pytest.mark.parametrize("label", shapes.LABELS)
def test_every_shape_has_the_same_area_and_is_centred(label):
    axis = ((np.arange(300) + 0.5) / 100 - 1.5).astype(np.float32)
    inside = shapes._framed(label, axis, axis[:, None]) < 0
    assert inside.mean() * 9 == pytest.approx(1, abs=0.02)
    rows, columns = np.nonzero(inside)
    assert abs(axis[columns].mean()) < 0.01
    assert abs(axis[rows].mean()) < 0.01
    # At its largest, turned and stretched anyhow, it stays inside of the image.
    reach = np.hypot(axis[rows], axis[columns]).max()
    assert reach * 11 * 1.11 + 5.5 < 16.7  # half a pixel over


@pytest.mark.parametrize("label", shapes.LABELS)
def test_distances_are_distances(label):
    """Outside of a shape, and near its edge, the gradient has the length 1."""
    step = 0.01
    axis = np.arange(-1.2, 1.2, step)
    distance = shapes._framed(label, axis, axis[:, None])
    down, across = np.gradient(distance, step)
    length = np.hypot(down, across)[1:-1, 1:-1]
    near = np.abs(distance[1:-1, 1:-1]) < 0.05
    assert np.median(length[near]) == pytest.approx(1, abs=0.02)
    assert length.max() < 1.05


def test_a_polygon_agrees_with_a_formula():
    x, y = np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-3, 3, 61))
    square = shapes._polygon(x, y, shapes.POLYGONS["square"])
    over = np.maximum(abs(x) - 1, 0), np.maximum(abs(y) - 1, 0)
    expected = np.hypot(*over) + np.minimum(np.maximum(abs(x), abs(y)) - 1, 0)
    assert np.allclose(square, expected)


def test_other_sizes_show_the_same_drawing():
    x, y = shapes.generate(20, seed=3, image_size=(64, 64))
    small, same = shapes.generate(20, seed=3, image_size=(32, 32))
    assert (y == same).all()
    halved = x.reshape(20, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 8  # the noise, and little of the edges
    assert shapes.generate(3, image_size=(20, 40))[0].shape == (3, 20, 40, 3)


@pytest.mark.slow
def test_networks_rank_as_the_lecture_says():
    """A small CNN sees the shapes; an MLP of fifty times its weights does not."""
    import keras

    import zoo

    data = load_data("shapes")

    def trained(model, epochs, learning_rate, batch_size):
        keras.utils.set_random_seed(0)
        model.compile(
            keras.optimizers.Adam(learning_rate),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        model.fit(data.train.x, data.train.y, batch_size, epochs, verbose=0)
        return model.evaluate(data.test.x, data.test.y, verbose=0)[1]

    cnn = trained(zoo.build("lecture_cnn"), 12, 1e-3, 32)
    mlp = trained(zoo.build("dense_mlp", hidden=(512, 256)), 15, 3e-4, 64)
    linear = trained(zoo.build("linear"), 15, 1e-3, 64)
    assert cnn > 0.9
    assert mlp < 0.6
    assert linear < 0.2
