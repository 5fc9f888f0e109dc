"""The network that DNGO tuned."""

import keras
import numpy as np
import pytest

import zoo


def test_the_layers_and_their_counts(blueprint, count):
    model = blueprint(zoo.builder("dngo_cnn"))
    counts = count(model)
    assert (counts.trainable, counts.macs) == (1_286_698, 313_265_664)
    rows = [(la.name, tuple(la.output.shape[1:])) for la in model.layers]
    assert rows[2:-1] == [
        ("input_dropout", (32, 32, 3)),
        ("conv1_1", (32, 32, 96)),
        ("conv1_2", (32, 32, 96)),
        ("pool1", (16, 16, 96)),
        ("dropout1", (16, 16, 96)),
        ("conv2_1", (16, 16, 192)),
        ("conv2_2", (16, 16, 192)),
        ("conv2_3", (16, 16, 192)),
        ("pool2", (8, 8, 192)),
        ("dropout2", (8, 8, 192)),
        ("conv3_1", (6, 6, 192)),
        ("conv3_2", (6, 6, 192)),
        ("conv3_3", (6, 6, 10)),
        ("average", (10,)),
    ]
    assert model.get_layer("conv3_2").activation is keras.activations.relu
    assert model.get_layer("conv3_3").activation is keras.activations.linear


def test_what_the_tuner_sets(blueprint):
    model = blueprint(zoo.builder("dngo_cnn"), input_dropout=0.0, hidden_dropout=0.7)
    assert model.get_layer("input_dropout").rate == 0
    assert [model.get_layer(f"dropout{n}").rate for n in (1, 2)] == [0.7, 0.7]


@pytest.mark.parametrize("gain", [0.5, 1, 2])
def test_the_gain_multiplies_the_deviation_of_the_kernels(gain):
    keras.utils.set_random_seed(0)
    model = zoo.build("dngo_cnn", gain=gain)
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv2_2").kernel)
    he = np.sqrt(2 / (3 * 3 * 192))
    np.testing.assert_allclose(kernel.std(), gain * he, rtol=0.02)


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("dngo_cnn", width=0)
    with pytest.raises(ValueError, match="gain must be above 0; received 0"):
        zoo.build("dngo_cnn", gain=0)
    with pytest.raises(ValueError, match="2 or more; received 1"):
        zoo.build("dngo_cnn", classes=1)
    with pytest.raises(ValueError, match="at least 9x9 pixels"):
        zoo.build("dngo_cnn", (8, 8, 3))
