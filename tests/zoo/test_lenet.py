"""LeNet-5 against the paper's Figure 2."""

import keras
import numpy as np
import pytest

import zoo


@pytest.mark.parametrize("modern", [False, True])
def test_the_layers_and_their_counts(modern, blueprint, count):
    model = blueprint(zoo.builder("lenet5"), modern=modern)
    assert count(model).trainable == 62_006
    gray = blueprint(zoo.builder("lenet5"), (32, 32, 1), modern=modern)
    assert count(gray).trainable == 61_706
    rows = [(la.name, tuple(la.output.shape[1:])) for la in model.layers]
    assert rows[2:-1] == [
        ("c1", (28, 28, 6)),
        ("s2", (14, 14, 6)),
        ("c3", (10, 10, 16)),
        ("s4", (5, 5, 16)),
        ("flatten", (400,)),
        ("c5", (120,)),
        ("f6", (84,)),
        ("output", (10,)),
    ]


def test_1998_is_the_default_and_modern_is_relu_with_maxima(blueprint):
    old = blueprint(zoo.builder("lenet5"))
    new = blueprint(zoo.builder("lenet5"), modern=True)
    for name in ("c1", "c3", "c5", "f6"):
        assert old.get_layer(name).activation is keras.activations.tanh
        assert new.get_layer(name).activation is keras.activations.relu
    for name in ("s2", "s4"):
        assert isinstance(old.get_layer(name), keras.layers.AveragePooling2D)
        assert isinstance(new.get_layer(name), keras.layers.MaxPooling2D)


def test_c5_is_the_papers_5x5_convolution(pixels):
    """At 32x32, where its window covers the whole maps."""
    model = zoo.build("lenet5")
    names = ("s4", "c5")
    parts = keras.Model(model.input, [model.get_layer(n).output for n in names])
    maps, units = parts(pixels((32, 32, 3)))
    kernel, bias = model.get_layer("c5").get_weights()
    convolution = keras.layers.Conv2D(120, 5, activation="tanh")
    convolution.build(maps.shape)
    convolution.set_weights([kernel.reshape(5, 5, 16, 120), bias])
    convolved = keras.ops.convert_to_numpy(convolution(maps))
    assert convolved.shape == (2, 1, 1, 120)
    np.testing.assert_allclose(
        convolved[:, 0, 0], keras.ops.convert_to_numpy(units), rtol=1e-4, atol=1e-5
    )


def test_what_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("lenet5", width=0)
    with pytest.raises(ValueError, match="at least 16x16 pixels"):
        zoo.build("lenet5", (15, 32, 3))
