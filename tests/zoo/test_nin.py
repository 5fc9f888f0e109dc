"""Network in Network and its kin: MIN, and the learned poolings on NIN."""

import keras
import numpy as np
import pytest

import zoo
from zoo.layers import GatedPooling2D, Maxout, TreePooling2D
from zoo.maxout_nin import maxout_nin_of
from zoo.nin import nin_of

# Trainable, non-trainable and, where it is known from outside, multiply-accumulates.
COUNTS = {
    "nin": (966_986, 0, 222.5e6),
    "nin_bn": (969_822, 2_836, 222.5e6),
    "tree_gated_nin": (967_022, 0, None),
    "maxout_nin": (1_614_294, 9_572, 496.7e6),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_are_the_known_ones(name, blueprint, count):
    counts = count(blueprint(zoo.builder(name)))
    trainable, non_trainable, macs = COUNTS[name]
    assert (counts.trainable, counts.non_trainable) == (trainable, non_trainable)
    if macs:
        assert round(counts.macs / 1e5) == round(macs / 1e5)


def test_the_counts_of_two_pieces_follow_from_the_table(blueprint, count):
    """By hand: five pieces less three in each of the six 1x1 convolutions."""
    ends = [(192, 160), (160, 96), (192, 192), (192, 192), (192, 192), (192, 10)]
    three = sum(3 * (channels * units + 3 * units) for channels, units in ends)
    counts = count(blueprint(zoo.builder("maxout_nin_2")))
    assert counts.trainable == 1_614_294 - three
    assert counts.non_trainable == 9_572 - sum(3 * 2 * units for _, units in ends)


def rows(model, *kinds):
    return [
        (layer.name, layer.kernel_size[0], layer.filters, layer.output.shape[1])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


NIN = [
    ("conv1", 5, 192, 32),
    ("cccp1", 1, 160, 32),
    ("cccp2", 1, 96, 32),
    ("conv2", 5, 192, 16),
    ("cccp3", 1, 192, 16),
    ("cccp4", 1, 192, 16),
    ("conv3", 3, 192, 8),
    ("cccp5", 1, 192, 8),
    ("cccp6", 1, 10, 8),
]


def test_the_layers_are_those_of_the_authors_definition(blueprint):
    model = blueprint(zoo.builder("nin"))
    assert rows(model) == NIN
    names = [layer.name for layer in model.layers]
    assert [n for n in names if n not in dict.fromkeys(row[0] for row in NIN)] == [
        "image",
        "scale",
        "pool1",
        "dropout1",
        "pool2",
        "dropout2",
        "poolg",
        "probabilities",
    ]
    for pool in (model.get_layer("pool1"), model.get_layer("pool2")):
        assert isinstance(pool, keras.layers.MaxPooling2D)
        assert (pool.pool_size, pool.strides) == ((3, 3), (2, 2))
    for name, *_ in NIN:
        layer = model.get_layer(name)
        assert layer.activation is keras.activations.relu
        assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)


def test_batch_normalisation_stands_before_every_relu(blueprint):
    model = blueprint(zoo.builder("nin_bn"))
    assert rows(model) == NIN
    names = [layer.name for layer in model.layers]
    for name, *_ in NIN:
        at = names.index(name)
        assert names[at + 1 : at + 3] == [f"{name}_bn", f"{name}_relu"]
        assert model.layers[at].activation is keras.activations.linear


def test_the_tree_is_first_and_the_gate_second(blueprint):
    model = blueprint(zoo.builder("tree_gated_nin"))
    assert rows(model) == NIN
    first, second = model.get_layer("pool1"), model.get_layer("pool2")
    assert isinstance(first, TreePooling2D)
    assert isinstance(second, GatedPooling2D)
    assert (first.levels, first.count_params(), second.count_params()) == (2, 27, 9)
    assert first.output.shape == (None, 16, 16, 96)
    assert second.output.shape == (None, 8, 8, 192)
    other = blueprint(zoo.builder("tree_gated_nin"), levels=3, per_channel=True)
    assert other.count_params() == 966_986 + 63 * 96 + 9 * 192


def test_gates_that_are_shut_make_average_pooling(pixels, run):
    """A tree of two filters of 1/9 and a gate far below 0, against plain NIN."""
    learned = zoo.build("tree_gated_nin", width=0.125)
    keras.utils.set_random_seed(0)
    average = [
        keras.layers.AveragePooling2D(3, 2, padding="same", name=f"pool{n}")
        for n in (1, 2)
    ]
    plain = nin_of(average, width=0.125)
    for layer in plain.layers:
        if layer.weights:
            learned.get_layer(layer.name).set_weights(layer.get_weights())
    # All inputs of a pooling are 0 or above, so a mask of -1e6 shuts its gate.
    learned.get_layer("pool1").set_weights(
        [np.full((3, 3, 2), 1 / 9), np.full((3, 3, 1), -1e6)]
    )
    learned.get_layer("pool2").set_weights([np.full((3, 3, 1), -1e6)])
    images = pixels((32, 32, 3))
    ends = [
        run(keras.Model(model.input, model.get_layer("pool2").output), images)
        for model in (learned, plain)
    ]
    # The border differs: a tree's filter counts the cells beyond it, a mean does not.
    inside = [maps[:, :3, :3] for maps in ends]
    np.testing.assert_allclose(*inside, rtol=1e-3, atol=1e-4)
    assert inside[1].max() > 0.1


def test_the_signal_keeps_its_scale(pixels, run):
    """At its full width; from N(0, 0.05) the logits would be of 0.002."""
    keras.utils.set_random_seed(0)
    model = zoo.build("nin", (8, 8, 3))
    ends = [model.get_layer(name).output for name in ("conv1", "cccp6")]
    first, last = (
        np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(maps))))
        for maps in keras.Model(model.input, ends)(pixels((8, 8, 3)))
    )
    assert 0.1 < last / first < 10


MIN = [
    ("conv1", 5, 192, 32),
    ("maxoutconv1", 1, 160 * 5, 32),
    ("maxoutconv2", 1, 96 * 5, 32),
    ("conv2", 5, 192, 16),
    ("maxoutconv3", 1, 192 * 5, 16),
    ("maxoutconv4", 1, 192 * 5, 16),
    ("conv3", 3, 192, 8),
    ("maxoutconv5", 1, 192 * 5, 8),
    ("maxoutconv6", 1, 10 * 5, 8),
]


def test_min_is_the_authors_definition(blueprint):
    model = blueprint(zoo.builder("maxout_nin"))
    assert rows(model) == MIN
    names = [layer.name for layer in model.layers]
    for name, *_ in MIN:
        at = names.index(name)
        assert model.layers[at].activation is keras.activations.linear
        assert isinstance(
            model.layers[at].kernel_initializer, keras.initializers.Orthogonal
        )
        assert names[at + 1] == f"{name}_bn"
        if name.startswith("maxout"):
            maxout = model.layers[at + 2]
            assert (maxout.name, maxout.pieces) == (name.replace("conv", ""), 5)
        else:  # linear but for its normalisation
            assert names[at + 2].startswith("maxoutconv")
    assert not any(isinstance(layer, keras.layers.ReLU) for layer in model.layers)
    for name in ("pool1", "pool2"):
        pool = model.get_layer(name)
        assert isinstance(pool, keras.layers.AveragePooling2D)
        assert (pool.pool_size, pool.strides) == ((3, 3), (2, 2))
    assert [model.get_layer(f"dropout{n}").rate for n in (1, 2)] == [0.5, 0.5]


def test_two_pieces_are_two(blueprint):
    model = blueprint(zoo.builder("maxout_nin_2"))
    pieces = {la.pieces for la in model.layers if isinstance(la, Maxout)}
    assert pieces == {2}
    assert model.get_layer("maxout6").output.shape == (None, 8, 8, 10)


def test_the_initial_kernels_are_orthonormal():
    model = zoo.build("maxout_nin_2", width=0.125)
    kernel = model.get_layer("conv2").get_weights()[0]
    kernel = kernel.reshape(-1, kernel.shape[-1])  # (5·5·12, 24)
    product = kernel.T @ kernel
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize("name", ["nin", "nin_bn", "tree_gated_nin", "maxout_nin"])
def test_width_and_dropout_are_options(name, blueprint):
    model = blueprint(zoo.builder(name), width=0.25, dropout=0.2)
    assert model.get_layer("conv2").filters == 48
    assert model.get_layer("dropout2").rate == 0.2
    last = rows(model)[-1]
    assert last[2] in (10, 50)
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build(name, width=0)


@pytest.mark.parametrize("name", ["nin", "tree_gated_nin", "maxout_nin"])
def test_images_of_one_pixel_are_classified(name, blueprint):
    model = blueprint(zoo.builder(name), (1, 1, 3), 7)
    assert model.output_shape == (None, 7)


def test_pieces_must_be_a_number_of_pieces():
    with pytest.raises(ValueError, match=r"pieces must be .*received 0"):
        maxout_nin_of(0)
