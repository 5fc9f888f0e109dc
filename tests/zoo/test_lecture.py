"""The numbers on the lecture's slides, against the networks themselves."""

import numpy as np
import pytest

import zoo


def terms(model):
    """Parameters of each layer that has any, by its name."""
    return {
        layer.name: layer.count_params()
        for layer in model.layers
        if layer.count_params()
    }


def test_the_slide_parameters_term_by_term(blueprint):
    model = blueprint(zoo.builder("lecture_cnn"))
    assert terms(model) == {"conv1": 2400, "conv2": 12800, "conv3": 12800, "fc": 5120}
    assert model.count_params() == 33_120


def test_the_slide_architecture(blueprint):
    model = blueprint(zoo.builder("lecture_cnn"))
    shapes = [layer.output.shape[1:] for layer in model.layers[2:-2]]
    assert shapes == [
        (32, 32, 32),  # conv1
        (16, 16, 32),  # pool1
        (16, 16, 16),  # conv2
        (8, 8, 16),  # pool2
        (8, 8, 32),  # conv3
        (4, 4, 32),  # pool3
        (512,),  # flatten
    ]


def test_biases_make_it_33210(blueprint):
    model = blueprint(zoo.builder("lecture_cnn"), use_bias=True)
    assert model.count_params() == 33_210 == 33_120 + 32 + 16 + 32 + 10


def test_the_mlp_has_34083840_not_the_35107840_of_the_slide(blueprint):
    model = blueprint(zoo.builder("dense_mlp"))
    assert terms(model) == {
        "hidden1": 3072 * 8192,
        "hidden2": 8192 * 1024,
        "hidden3": 1024 * 512,
        "fc": 512 * 10,
    }
    assert model.count_params() == 34_083_840 == 35_107_840 - 1_024_000
    assert model.count_params() // 33_120 == 1_029


def test_biases_make_the_mlp_34093578(blueprint):
    model = blueprint(zoo.builder("dense_mlp"), use_bias=True)
    assert model.count_params() == 34_093_578


def test_the_hidden_layers_of_the_mlp_are_free(blueprint):
    # The lecture's formula: 3072·h1 + h1·h2 + h2·10.
    model = blueprint(zoo.builder("dense_mlp"), hidden=(100, 50))
    assert model.count_params() == 3072 * 100 + 100 * 50 + 50 * 10
    model = blueprint(zoo.builder("dense_mlp"), hidden=(7,), use_bias=True)
    assert model.count_params() == 3072 * 7 + 7 + 7 * 10 + 10


@pytest.mark.parametrize("hidden", [(0,), (16, -1), (1.5,)])
def test_hidden_layers_without_units_are_refused(hidden):
    with pytest.raises(ValueError, match=r"hidden must be positive integers.*received"):
        zoo.build("dense_mlp", hidden=hidden)


def test_softmax_regression_has_30730_parameters(blueprint):
    assert blueprint(zoo.builder("linear")).count_params() == 30_730 == 3072 * 10 + 10
    without = blueprint(zoo.builder("linear"), use_bias=False)
    assert without.count_params() == 30_720


def test_softmax_regression_is_one_matrix(pixels, run):
    model = zoo.build("linear", (4, 4, 3), 5, classifier_activation=None)
    kernel, bias = model.get_weights()
    bias += np.arange(5, dtype="float32")
    model.set_weights([kernel, bias])
    images = pixels((4, 4, 3))
    by_hand = (images.reshape(2, -1) / 127.5 - 1) @ kernel + bias
    np.testing.assert_allclose(run(model, images), by_hand, rtol=1e-4, atol=1e-5)


def test_the_mlp_does_not_see_where_a_pixel_lies(pixels, run):
    """Permuted images and permuted weights: the same function."""
    shape = (8, 8, 3)
    images = pixels(shape)
    order = np.random.default_rng(0).permutation(64)
    permuted = images.reshape(2, 64, 3)[:, order].reshape(images.shape)
    mlp = zoo.build("dense_mlp", shape, hidden=(6,))
    before = run(mlp, images)
    kernel, *rest = mlp.get_weights()
    kernel = kernel.reshape(64, 3, 6)[order].reshape(192, 6)
    mlp.set_weights([kernel, *rest])
    np.testing.assert_allclose(run(mlp, permuted), before, rtol=1e-5, atol=1e-6)
