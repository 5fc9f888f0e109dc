"""LSUV: variances, orthonormality, what is left alone, what is refused."""

import os
import runpy
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest

import kerascnn
import zoo
from kerascnn.data import Images
from kerascnn.training import lsuv, train
from kerascnn.training.initialization import orthonormal
from zoo.layers import Maxout

layers = keras.layers
WEIGHTED = (layers.Dense, layers.Conv2D)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(40, 216, (64, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(smooth + rng.normal(0, 25, (64, 16, 16, 3)), 0, 255).astype(np.uint8)


def image(shape=(16, 16, 3)):
    inputs = keras.Input(shape, name="image")
    return inputs, layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)


def before_activation(model, layer, images, training=False):
    """What a convolution or dense layer says, computed from its kernel alone."""
    before = keras.Model(model.inputs, layer.input)
    x = keras.ops.convert_to_tensor(before(images, training=training))
    if isinstance(layer, layers.Dense):
        out = keras.ops.matmul(x, layer.kernel)
    else:
        out = keras.ops.conv(x, layer.kernel, layer.strides, layer.padding)
    assert layer.bias is None or not np.any(layer.bias)
    return np.asarray(out)


def check(model, images, training=False):
    found = [x for x in model.layers if isinstance(x, WEIGHTED)]
    assert found
    for layer in found:
        out = before_activation(model, layer, images, training)
        assert out.var() == pytest.approx(1, abs=0.02), layer.name


def plain(depth=12, activation="relu"):
    inputs, x = image()
    for i in range(depth):
        x = layers.Conv2D(
            16, 3, padding="same", activation=activation, name=f"conv{i}"
        )(x)
        if i % 4 == 3:
            x = layers.Dropout(0.5)(layers.MaxPooling2D(2)(x))
    x = layers.Dense(24, activation="tanh", name="hidden")(layers.Flatten()(x))
    x = layers.Dense(5, activation="softmax", name="fc")(x)
    return keras.Model(inputs, x, name="plain")


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_every_layer_of_a_deep_net_has_variance_one(images, activation):
    model = plain(activation=activation)
    for variable in model.trainable_variables:
        variable.assign(variable + 1)  # biases too
    report = lsuv(model, images)
    check(model, images)
    assert [s.layer for s in report] == [
        *(f"conv{i}" for i in range(12)),
        "hidden",
        "fc",
    ]
    for scaled in report:
        assert scaled.variances == pytest.approx((1,), abs=0.02)
        assert scaled.iterations <= 2
    for layer in model.layers:
        assert "call" not in vars(layer)
    assert model.get_layer("conv3").activation is keras.activations.get(activation)
    assert model.get_layer("fc").activation is keras.activations.softmax


def test_kernels_are_orthonormal_but_for_their_scale(images):
    model = plain()
    lsuv(model, images)
    for name in ("conv0", "conv5", "hidden", "fc"):
        kernel = np.asarray(model.get_layer(name).kernel)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        gram = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(
            gram / gram[0, 0], np.eye(len(gram)), atol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("shape", [(3, 7, 4), (2, 4, 9), (5, 3, 3), (4, 9, 1)])
def test_orthonormal_matrices_differ_and_have_no_preferred_sign(shape):
    matrices = orthonormal(*shape, np.random.default_rng(0))
    assert matrices.shape == shape and matrices.dtype == np.float32
    _, rows, columns = shape
    for matrix in matrices:
        small = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
        np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-6)
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1
    many = orthonormal(2000, 3, 3, np.random.default_rng(1))
    assert np.abs(many.mean(0)).max() < 0.06  # 0.58 / √2000 = 0.013 each


def test_each_piece_of_a_maxout_is_a_layer_of_its_own(images):
    inputs, x = image()
    x = layers.Conv2D(8 * 3, 3, name="conv")(x)
    x = Maxout(3)(x)
    x = layers.Conv2D(6 * 2, 1, use_bias=False, name="normed")(x)
    x = layers.BatchNormalization()(x)
    x = Maxout(2)(x)
    x = layers.Dense(5 * 4, name="dense")(layers.GlobalAveragePooling2D()(x))
    x = Maxout(4)(x)
    model = keras.Model(inputs, layers.Dense(3, name="fc")(x))
    report = {s.layer: s.variances for s in lsuv(model, images, tolerance=0.001)}
    assert {name: len(v) for name, v in report.items()} == {
        "conv": 3,
        "normed": 2,
        "dense": 4,
        "fc": 1,
    }
    for name, pieces in (("conv", 3), ("normed", 2), ("dense", 4)):
        layer = model.get_layer(name)
        out = before_activation(model, layer, images, training=True)
        for piece in range(pieces):
            part = out[..., piece::pieces]
            assert part.var() == pytest.approx(1, abs=0.002)
            kernel = np.asarray(layer.kernel)[..., piece::pieces]
            matrix = kernel.reshape(-1, kernel.shape[-1])
            tall = len(matrix) >= matrix.shape[1]
            gram = matrix.T @ matrix if tall else matrix @ matrix.T
            np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-4)


def residual(blocks=50, filters=8):
    """100 convolutions in 50 blocks with batch normalisation."""
    inputs, x = image()
    x = layers.Conv2D(filters, 3, strides=2, padding="same", name="stem")(x)
    for i in range(blocks):
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"a{i}")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"b{i}")(y)
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    x = layers.Dense(4, name="fc")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Activation("softmax")(x), name="residual")


def test_a_hundred_layers_with_batch_normalisation(images):
    model = residual()
    statistics = [np.asarray(v) for v in model.non_trainable_variables]
    report = lsuv(model, images)
    assert len(report) == 102
    for variable, before in zip(model.non_trainable_variables, statistics, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), before)
    for layer in model.layers:
        assert "call" not in vars(layer)
        if isinstance(layer, layers.BatchNormalization):
            assert (np.asarray(layer.gamma) == 1).all()
            assert (np.asarray(layer.beta) == 0).all()
    # As in training: normalised by the batch. Some layers stand for all.
    for name in ("stem", "a0", "b20", "a49", "fc"):
        out = before_activation(model, model.get_layer(name), images, training=True)
        assert out.var() == pytest.approx(1, abs=0.02), name


class Watched(layers.Layer):
    """Counts its calls, and how many inputs of all such layers are still in memory."""

    calls = 0
    seen: list = []  # noqa: RUF012
    most = 0

    def call(self, inputs):
        Watched.calls += 1
        Watched.seen.append(weakref.ref(inputs))
        alive = sum(ref() is not None for ref in Watched.seen)
        Watched.most = max(Watched.most, alive)
        return inputs * 1.0

    def compute_output_shape(self, shape):  # so that shapes need no call
        return shape


def test_one_pass_that_keeps_no_tensor_longer_than_needed(images):
    def chain(x, number):
        for _ in range(number):
            x = layers.Conv2D(4, 3, padding="same")(x)
            x = layers.Add()([x, Watched()(x)])
        return x

    inputs, x = image()
    part = keras.Input((16, 16, 4))
    inner = keras.Model(part, chain(part, 10))
    x = inner(layers.Conv2D(4, 1)(chain(x, 10)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    Watched.calls, Watched.most = 0, 0
    Watched.seen.clear()
    report = lsuv(model, images)
    assert len(report) == 22
    assert Watched.calls == 20
    assert Watched.most <= 3


def test_nested_models_shared_layers_and_layers_in_layers(images):
    class Twice(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layers.Conv2D(6, 3, padding="same", activation="relu")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, inputs):
            return self.inner(self.inner(inputs))

    part = keras.Sequential(
        [
            keras.Input((16, 16, 6)),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="nested"),
        ]
    )
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    inputs, x = image()
    x = part(part(layers.Conv2D(6, 1, name="first")(x)))
    once = shared(x)
    x = Twice(name="twice")(shared(layers.ReLU()(once)))
    x = layers.Dense(3, name="fc")(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    report = lsuv(model, images)
    names = [s.layer for s in report]
    assert sorted(names) == sorted(set(names)) and len(names) == 5
    first = keras.Model(inputs, once)(images)
    assert np.asarray(first).var() == pytest.approx(1, abs=0.02)
    fc = before_activation(model, model.get_layer("fc"), images)
    assert fc.var() == pytest.approx(1, abs=0.02)


def test_every_kind_of_convolution(images):
    inputs, x = image()
    x = layers.Conv2D(12, 3, padding="same", name="stem")(x)
    ends = [
        layers.Conv2D(8, 3, groups=4, name="groups")(x),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x),
        layers.SeparableConv2D(7, 3, activation="relu", name="separable")(x),
        layers.Conv2DTranspose(5, 3, strides=2, name="transposed")(x),
        layers.Conv1D(9, 3, name="lines")(layers.Reshape((256, 12))(x)),
    ]
    pooled = layers.Concatenate()(
        [
            layers.GlobalAveragePooling1D()(layers.Reshape((-1, end.shape[-1]))(end))
            for end in ends
        ]
    )
    model = keras.Model(inputs, layers.Dense(2, name="fc")(pooled))
    report = {s.layer: s for s in lsuv(model, images, tolerance=0.001)}
    assert len(report) == 7
    for end in ends:
        layer = end._keras_history.operation
        if layer.name != "separable":
            out = np.asarray(keras.Model(inputs, end)(images))
            assert out.var() == pytest.approx(1, abs=0.002), layer.name
    separable = model.get_layer("separable")
    out = keras.ops.separable_conv(
        keras.Model(inputs, x)(images),
        separable.depthwise_kernel,
        separable.pointwise_kernel,
    )
    assert np.asarray(out).var() == pytest.approx(1, abs=0.002)

    def unit(columns):
        gram = columns.T @ columns
        np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-4)

    kernel = np.asarray(model.get_layer("groups").kernel)  # (3, 3, 3, 8)
    for group in range(4):
        unit(kernel[..., 2 * group : 2 * group + 2].reshape(27, 2))
    for kernel in (
        model.get_layer("depthwise").kernel,
        separable.depthwise_kernel,
    ):
        for channel in range(12):
            unit(np.asarray(kernel)[:, :, channel].reshape(9, -1))
    kernel = np.asarray(model.get_layer("transposed").kernel)  # (3, 3, 5, 12)
    unit(kernel.transpose(0, 1, 3, 2).reshape(-1, 5))


def test_the_seed_decides_and_the_batch_is_drawn(images):
    def kernels(**options):
        model = plain(2)
        lsuv(model, images, **options)
        return [np.asarray(v) for v in model.trainable_variables]

    one, same, other = kernels(), kernels(), kernels(seed=1)
    few = kernels(batch=8)
    labelled = Images(images, np.zeros(len(images), int))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert np.abs(one[0] - other[0]).max() > 1e-2
    ratio = one[0] / few[0]  # the same matrix by another scale
    assert ratio.std() < 1e-4 < np.abs(ratio - 1).mean() < 0.5
    model = plain(2)
    lsuv(model, labelled)
    assert (np.asarray(model.trainable_variables[0]) == one[0]).all()


def test_frozen_layers_are_left_alone(images):
    model = plain(2)
    model.get_layer("conv0").trainable = False
    before = np.asarray(model.get_layer("conv0").kernel)
    assert [s.layer for s in lsuv(model, images)] == ["conv1", "hidden", "fc"]
    assert (np.asarray(model.get_layer("conv0").kernel) == before).all()


def test_a_dead_output_is_one_clear_error_and_the_model_stays(images):
    inputs, x = image()
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(4, 3, activation="relu", name="dead")(x * 0.0)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)), name="mine")
    before = [np.asarray(v) for v in model.variables]
    with pytest.raises(ValueError, match=r"mine: the output of dead does not") as error:
        lsuv(model, images)
    assert "\n" not in str(error.value) and "variance 0" in str(error.value)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), value)
    for layer in model.layers:
        assert "call" not in vars(layer)
    assert model.get_layer("dead").activation is keras.activations.relu


def test_what_does_not_converge_is_told(images):
    class Saturated(layers.Dense):
        def call(self, inputs):
            return keras.ops.tanh(super().call(inputs))  # variance below 1 for ever

    inputs, x = image()
    model = keras.Model(inputs, Saturated(3, name="flat")(layers.Flatten()(x)))
    with pytest.warns(RuntimeWarning, match="flat has variance .* after 4 iterations"):
        report = lsuv(model, images, iterations=4)
    assert report[0].variances[0] < 0.98


def test_what_cannot_be_initialised_is_refused(images):
    with pytest.raises(ValueError, match="built functional or Sequential"):
        lsuv(keras.Sequential([layers.Dense(2)]), images)
    inputs, x = image()
    with pytest.raises(ValueError, match="nothing to initialise"):
        lsuv(keras.Model(inputs, layers.Flatten()(x)), images)
    with pytest.raises(ValueError, match=r"takes images \(16, 16, 3\).*received \(64"):
        lsuv(plain(1), images[:, :8])
    with pytest.raises(ValueError, match=r"received 0\.02, 0 and 256"):
        lsuv(plain(1), images, iterations=0)


def test_networks_of_the_zoo(images):
    wide = np.repeat(np.repeat(images, 2, 1), 2, 2)
    for name, options in (("vgg11", {"width": 0.125}), ("lecture_cnn", {})):
        model = zoo.build(name, **options)
        lsuv(model, wide)
        check(model, wide)


def test_a_recipe_starts_a_named_network_with_it(data, tmp_path):
    options = {"epochs": 1, "learning_rate": 1e-9, "precision": "float32"}
    recipe = {**options, "initialization": "lsuv"}
    run = train("lecture_cnn", data, recipe, runs=tmp_path, progress=False)
    for layer in run.model.layers:
        if isinstance(layer, WEIGHTED):
            out = before_activation(run.model, layer, data.train.x)
            assert out.var() == pytest.approx(1, abs=0.03), layer.name
    with pytest.raises(ValueError, match=r"that it has: call kerascnn\.lsuv"):
        train(zoo.build("lecture_cnn"), data, recipe, runs=tmp_path)


def test_a_resumed_run_is_not_initialised_again(data, tmp_path, monkeypatch):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    recipe = {"epochs": 2, "initialization": "lsuv"}
    whole = train("linear", data, recipe, folder=tmp_path / "a", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(
            "linear",
            data,
            recipe,
            folder=tmp_path / "b",
            progress=False,
            callbacks=[Stop()],
        )
    monkeypatch.setattr(sys.modules["kerascnn.training.initialization"], "lsuv", None)
    run = kerascnn.resume(tmp_path / "b", data=data, progress=False)
    for one, other in zip(whole.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


BACKEND = """
import sys
import keras, numpy as np
import kerascnn
layers = keras.layers
inputs = keras.Input((16, 16, 3))
x = layers.Conv2D(8, 3, activation="relu")(inputs)
y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
x = layers.Dropout(0.5)(layers.Add()([x, y]))
x = layers.Dense(6)(layers.Flatten()(x))
x = layers.Dense(2, activation="softmax")(kerascnn.layers.Maxout(3)(x))
model = keras.Model(inputs, x)
for variable in model.variables:
    if "seed" not in variable.path:
        variable.assign(np.ones(variable.shape))
kerascnn.lsuv(model, np.load(sys.argv[1]))
np.savez(sys.argv[2], *[keras.ops.convert_to_numpy(v) for v in model.weights])
print(keras.backend.backend())
"""


def test_jax_agrees(images, tmp_path, monkeypatch):
    pytest.importorskip("jax", reason="JAX is not installed: pip install kerascnn[jax]")
    script = tmp_path / "script.py"
    script.write_text(BACKEND)
    arguments = [str(tmp_path / "images.npy"), str(tmp_path / "jax.npz")]
    np.save(arguments[0], images)
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["jax"], done.stderr[-2000:]
    monkeypatch.setattr(sys, "argv", ["", arguments[0], str(tmp_path / "here.npz")])
    runpy.run_path(str(script))
    with np.load(tmp_path / "jax.npz") as one, np.load(tmp_path / "here.npz") as other:
        assert len(one.files) == len(other.files) > 6
        for name in one.files:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_it_is_public():
    assert kerascnn.lsuv is lsuv
