"""Confusion, mistakes and points of a network whose answers are known beforehand."""

import dataclasses
import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

from kerascnn.data import Images, load_data
from kerascnn.explain import confusion, embedding, mistakes
from kerascnn.explain.mistakes import gallery


@pytest.fixture(scope="module")
def reader():
    """A network that reads its answer off the first pixel: logits are its channels."""
    inputs = keras.Input((4, 4, 3))
    x = layers.Cropping2D(((0, 3), (0, 3)))(inputs)
    x = layers.Flatten()(x)
    dense = layers.Dense(3, use_bias=False, name="fc")
    model = keras.Model(inputs, dense(x), name="reader")
    dense.set_weights([np.eye(3)])
    return model


@pytest.fixture(scope="module")
def images():
    """Six images, and what the reader makes of them."""
    x = np.zeros((6, 4, 4, 3), np.uint8)
    for i, (answer, sure) in enumerate(
        [(0, 9), (1, 5), (2, 1), (2, 7), (0, 3), (1, 2)]
    ):
        x[i, 0, 0, answer] = sure
    return Images(x, np.array([0, 0, 0, 1, 2, 1]))


def test_the_confusion_is_counted(reader, images):
    found = confusion(reader, images, labels=("a", "b", "c"))
    # true a: answers a, b, c; true b: c and b; true c: a
    assert found.matrix.tolist() == [[1, 1, 1], [0, 1, 1], [1, 0, 0]]
    assert found.pairs[0] == ("c", "a", 1, 100.0)
    assert ("a", "b", 1, pytest.approx(100 / 3)) in found.pairs
    text = str(found)
    assert "33.33 % of 6 images right" in text and "c taken for a: 1 images" in text
    assert found.to_dict()["confusion"] == found.matrix.tolist()
    assert found.plot().axes


def test_the_surest_mistakes_come_first(reader, images, tmp_path):
    found = mistakes(reader, images, labels=("a", "b", "c"))
    assert found.indices.tolist() == [3, 1, 4, 2]  # by 7, 5, 3, 1
    assert (found.wrong, found.total) == (4, 6)
    sure = np.exp(7) / (np.exp(7) + 2)
    row = found.table.rows[0]
    assert row["true"] == "b" and row["answer"] == "c"
    assert row["sure"] == pytest.approx(sure, rel=1e-5)
    np.testing.assert_array_equal(found.images[0], images.x[3])
    assert "4 of 6 answers are wrong" in str(found)
    figure = found.plot(tmp_path / "mistakes.png")
    assert figure.axes[0].get_title() == "b"
    assert mistakes(reader, images, 2).indices.tolist() == [3, 1]


def test_arrays_and_several_outputs(reader, images, models, image):
    pair = (images.x.astype("float32"), list(images.y))
    assert confusion(reader, pair).matrix.trace() == 2
    many = np.stack([image] * 4)
    found = confusion(models["several"], (many, [0, 1, 2, 0]), output=1)
    assert found.matrix.shape == (3, 3) and found.matrix.sum() == 4


def test_no_mistakes_and_no_images(reader, images):
    right = Images(images.x, np.array([0, 1, 2, 2, 0, 1]))
    found = mistakes(reader, right)
    assert "0 of 6 answers are wrong" in str(found)
    assert "no answer is wrong" in str(confusion(reader, right))
    with pytest.raises(ValueError, match="nothing to draw"):
        found.plot()
    with pytest.raises(ValueError, match="no images"):
        mistakes(reader, Images(images.x[:0], images.y[:0]))
    with pytest.raises(ValueError, match="count"):
        mistakes(reader, images, 0)
    with pytest.raises(TypeError, match="received str"):
        confusion(reader, "cifar10")
    data = load_data("shapes", images=60)
    with pytest.raises(ValueError, match="part is one of"):
        confusion(reader, data, part="tests")
    streamed = dataclasses.replace(data, test=[1, 2])  # a part without an array
    with pytest.raises(TypeError, match=r"data.test.take\(1000\)"):
        confusion(reader, streamed)


def test_points_by_principal_components(models):
    """Against the eigenvectors of the covariance."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (20, 9, 8, 3), dtype=np.uint8)
    y = np.arange(20) % 3
    model = models["functional"]
    found = embedding(model, (x, y), method="pca")
    part = keras.Model(model.input, model.get_layer("mean").output)
    features = keras.ops.convert_to_numpy(part(x.astype("float32"))).astype("float64")
    np.testing.assert_allclose(found.features, features, atol=1e-5)
    assert found.layer == "input of fc" and found.method == "PCA"
    values, vectors = np.linalg.eigh(np.cov(features.T))
    projected = (features - features.mean(0)) @ vectors[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found.points), np.abs(projected), atol=1e-4)
    share = 100 * values[-2:].sum() / values.sum()
    assert f"{share:.0f} % of the variance" in found.note
    # The nearest other point, by loops.
    kin = []
    for i in range(20):
        others = [j for j in range(20) if j != i]
        far = [np.sum((found.points[i] - found.points[j]) ** 2) for j in others]
        kin.append(y[others[int(np.argmin(far))]] == y[i])
    assert found.neighbours(found.points).tolist() == kin
    assert found.plot().legends


def test_points_of_a_layer_and_of_fewer_images(models):
    x = np.random.default_rng(0).integers(0, 256, (9, 9, 8, 3), dtype=np.uint8)
    found = embedding(models["nested"], (x, np.arange(9) % 3), "stem", method="pca")
    assert found.features.shape == (9, 4) and "averaged" in found.layer
    some = embedding(
        models["nested"], (x, np.arange(9) % 3), method="pca", images=5, seed=1
    )
    assert len(some.points) == 5
    again = embedding(
        models["nested"], (x, np.arange(9) % 3), method="pca", images=5, seed=1
    )
    np.testing.assert_array_equal(some.points, again.points)
    with pytest.raises(ValueError, match="3 images or more"):
        embedding(models["nested"], (x[:2], [0, 1]))
    with pytest.raises(ValueError, match="method is one of"):
        embedding(models["nested"], (x, np.arange(9)), method="umap")


def test_without_scikit_learn_the_line_says_so(models, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "sklearn" else found(name, *rest),
    )
    x = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 3), dtype=np.uint8)
    points = embedding(models["functional"], (x, np.arange(6) % 2))
    assert points.method == "PCA" and "scikit-learn (for t-SNE) is not" in str(points)
    with pytest.raises(ImportError, match=r"pip install 'kerascnn\[explain\]'"):
        embedding(models["functional"], (x, np.arange(6) % 2), method="tsne")


@pytest.mark.slow
def test_points_by_tsne(models):
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    dark = random.integers(0, 30, (15, 9, 8, 3), dtype=np.uint8)
    bright = random.integers(200, 256, (15, 9, 8, 3), dtype=np.uint8)
    data = (np.concatenate([dark, bright]), np.repeat([0, 1], 15))
    found = embedding(models["functional"], data)
    assert found.method == "t-SNE" and "perplexity" in found.note
    assert found.neighbours(found.points).mean() > 0.9
    again = embedding(models["functional"], data)
    np.testing.assert_array_equal(found.points, again.points)


def test_a_gallery_shows_pixels_as_they_are():
    """Numbers with a fraction, and a grey image of few levels."""
    bright = np.full((8, 8, 3), 120.5)
    grey = np.where(np.arange(64).reshape(8, 8, 1) % 2, 124, 120).astype(np.uint8)
    answers = {"net": np.array([[1.0, 0.0]])}
    for image in (bright, grey):
        figure = gallery(image[None], [0], answers, ("a", "b"), title="one")
        (drawn,) = figure.axes[0].images
        rgb = drawn.to_rgba(drawn.get_array())[..., :3]
        levels = rgb if rgb.dtype == np.uint8 else rgb * 255
        assert np.abs(levels - image).max() < 2
