"""AlexNet against the paper's section 3.5 and Caffe's definition."""

import keras
import numpy as np
import pytest

import zoo


@pytest.mark.parametrize(
    ("groups", "parameters", "macs"),
    [(2, 60_965_224, 724_406_816), (1, 62_378_344, 1_135_256_096)],
)
def test_published_counts(groups, parameters, macs, blueprint, count):
    counts = count(blueprint(zoo.builder("alexnet"), groups=groups))
    assert (counts.trainable, counts.macs, counts.depth) == (parameters, macs, 8)


def test_the_layers(blueprint):
    model = blueprint(zoo.builder("alexnet"))
    rows = [(la.name, tuple(la.output.shape[1:])) for la in model.layers]
    assert rows[2:-1] == [
        ("pixels", (227, 227, 3)),
        ("conv1", (55, 55, 96)),
        ("relu1", (55, 55, 96)),
        ("norm1", (55, 55, 96)),
        ("pool1", (27, 27, 96)),
        ("conv2", (27, 27, 256)),
        ("relu2", (27, 27, 256)),
        ("norm2", (27, 27, 256)),
        ("pool2", (13, 13, 256)),
        ("conv3", (13, 13, 384)),
        ("relu3", (13, 13, 384)),
        ("conv4", (13, 13, 384)),
        ("relu4", (13, 13, 384)),
        ("conv5", (13, 13, 256)),
        ("relu5", (13, 13, 256)),
        ("pool5", (6, 6, 256)),
        ("flatten", (9216,)),
        ("fc6", (4096,)),
        ("relu6", (4096,)),
        ("drop6", (4096,)),
        ("fc7", (4096,)),
        ("relu7", (4096,)),
        ("drop7", (4096,)),
        ("fc8", (1000,)),
    ]
    grouped = [la.name for la in model.layers if getattr(la, "groups", 1) == 2]
    assert grouped == ["conv2", "conv4", "conv5"]
    biases = {n: model.get_layer(n).bias_initializer for n in ("conv1", "conv2", "fc6")}
    assert {n: b.value for n, b in biases.items()} == {
        "conv1": 0.0,
        "conv2": 0.1,
        "fc6": 0.1,
    }


def test_the_normalisation_is_the_papers(blueprint):
    """k + α·Σ with k = 2 and α = 1e-4: the layer divides its α by n = 5."""
    layer = blueprint(zoo.builder("alexnet")).get_layer("norm2")
    values = (layer.size, layer.alpha / layer.size, layer.beta, layer.kappa)
    assert values == (5, pytest.approx(1e-4), 0.75, 2.0)


def test_a_group_sees_its_half_of_the_maps():
    keras.utils.set_random_seed(0)
    model = zoo.build("alexnet", (67, 67, 3), 10, width=1 / 16)
    layer = model.get_layer("conv2")
    kernel, bias = layer.get_weights()
    assert kernel.shape == (5, 5, 3, 16)
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 6)).astype("float32")
    halves = []
    for half in (0, 1):
        maps, filters = slice(3 * half, 3 * half + 3), slice(8 * half, 8 * half + 8)
        apart = keras.layers.Conv2D(8, 5, padding="same")
        apart.build((2, 7, 7, 3))
        apart.set_weights([kernel[..., filters], bias[filters]])
        halves.append(keras.ops.convert_to_numpy(apart(x[..., maps])))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(x)),
        np.concatenate(halves, axis=-1),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_any_width_divides_into_the_groups(groups, blueprint):
    model = blueprint(
        zoo.builder("alexnet"), (67, 67, 3), 10, groups=groups, width=0.07
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            assert layer.filters % groups == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("alexnet", width=0)
    with pytest.raises(ValueError, match="groups must be 1 or 2; received 3"):
        zoo.build("alexnet", groups=3)
    with pytest.raises(ValueError, match="at least 67x67 pixels"):
        zoo.build("alexnet", (227, 66, 3))
