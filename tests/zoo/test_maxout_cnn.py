"""The maxout network against the authors' definition."""

import keras
import numpy as np
import pytest

import zoo


def test_the_counts_are_those_of_the_table(blueprint, count):
    """By hand, from the sides of the maps that cuda-convnet's rounding gives."""
    parameters = 8 * 8 * 3 * 192 + 192
    parameters += 8 * 8 * 96 * 384 + 384
    parameters += 5 * 5 * 192 * 384 + 384
    parameters += 5 * 5 * 192 * 2500 + 2500
    parameters += 500 * 10 + 10
    macs = 33**2 * 8 * 8 * 3 * 192 + 15**2 * 8 * 8 * 96 * 384 + 9**2 * 25 * 192 * 384
    macs += 5 * 5 * 192 * 2500 + 500 * 10
    counts = count(blueprint(zoo.builder("maxout_cnn")))
    assert (counts.trainable, counts.non_trainable) == (parameters, 0)
    assert counts.macs == macs
    assert round(parameters / 1e6, 1) == 16.2
    assert counts.depth == 5


def test_the_maps_are_rounded_up(blueprint):
    model = blueprint(zoo.builder("maxout_cnn"))
    sides = [
        model.get_layer(f"{kind}{n}").output.shape[1]
        for n in (1, 2, 3)
        for kind in ("conv", "pool")
    ]
    assert sides == [33, 16, 15, 7, 9, 5]
    units = [model.get_layer(f"maxout{n}").output.shape[-1] for n in (1, 2, 3, 4)]
    assert units == [96, 192, 192, 500]


def test_dropout_comes_before_every_layer_with_weights(blueprint):
    model = blueprint(zoo.builder("maxout_cnn"))
    kinds = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.Dropout)
    heavy = [layer for layer in model.layers if isinstance(layer, kinds)]
    rates = [layer.rate for layer in heavy[::2]]
    assert rates == [0.2, 0.5, 0.5, 0.5, 0.5]
    assert [la.name for la in heavy[1::2]] == ["conv1", "conv2", "conv3", "fc1", "fc"]
    other = blueprint(zoo.builder("maxout_cnn"), dropout=0.1, input_dropout=0)
    assert other.get_layer("dropout4").rate == 0.1
    assert other.get_layer("input_dropout").rate == 0


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("conv1", 0.9),
        ("conv2", 1.9365),
        ("conv3", 1.9365),
        ("fc1", 1.9),
        ("fc", 1.9365),
    ],
)
def test_no_filter_grows_beyond_its_norm(name, norm, blueprint):
    layer = blueprint(zoo.builder("maxout_cnn"), width=0.05).get_layer(name)
    shape = layer.kernel.shape
    random = np.random.default_rng(0)
    # Half of the filters are far too large, the others small.
    scale = np.where(np.arange(shape[-1]) % 2, 9, 1e-3)
    kernel = (random.normal(size=shape) * scale).astype("float32")
    bound = keras.ops.convert_to_numpy(layer.kernel_constraint(kernel))
    norms = np.sqrt(np.square(bound).reshape(-1, shape[-1]).sum(axis=0))
    np.testing.assert_allclose(norms[1::2], norm, rtol=1e-4)
    np.testing.assert_allclose(bound[..., ::2], kernel[..., ::2], rtol=1e-4)


def test_the_constraints_hold_after_a_step_of_training(pixels):
    model = zoo.build("maxout_cnn", (8, 8, 3), 4, width=0.05)
    random = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    model.fit(pixels((8, 8, 3)), np.array([0, 3]), verbose=0)
    for name, norm in (("conv1", 0.9), ("conv3", 1.9365), ("fc1", 1.9), ("fc", 1.9365)):
        kernel = model.get_layer(name).get_weights()[0]
        norms = np.sqrt(np.square(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0))
        assert norms.max() == pytest.approx(norm, rel=1e-3)


def test_kernels_start_in_the_range_of_the_definition():
    model = zoo.build("maxout_cnn", width=0.05)
    for name in ("conv1", "conv3", "fc1", "fc"):
        kernel = model.get_layer(name).get_weights()[0]
        assert 0.004 < np.abs(kernel).max() <= 0.005
        assert kernel.std() == pytest.approx(0.005 / np.sqrt(3), rel=0.2)


def test_width_scales_units_and_keeps_their_pieces(blueprint):
    model = blueprint(zoo.builder("maxout_cnn"), width=0.125)
    filters = [model.get_layer(f"conv{n}").filters for n in (1, 2, 3)]
    assert filters == [24, 48, 48]
    assert model.get_layer("fc1").units == 62 * 5
    with pytest.raises(ValueError, match="width must be above 0; received -1"):
        zoo.build("maxout_cnn", width=-1)


def test_the_least_image_has_four_pixels_a_side(blueprint):
    model = blueprint(zoo.builder("maxout_cnn"), (4, 4, 3))
    assert model.get_layer("conv2").output.shape[1] == 1
    with pytest.raises(ValueError, match="at least 4x4 pixels"):
        zoo.build("maxout_cnn", (4, 3, 3))
