import functools

import keras
import numpy as np
import pytest

import zoo.layers
from kerascnn.training.fused_layers import fused_layers
from kerascnn.training.optimizers import make_optimizer
from kerascnn.training.recipe import Recipe

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel"
)


def network(dtype="float32", **options):
    keras.utils.set_random_seed(0)
    layer = keras.layers.BatchNormalization(
        beta_initializer="normal",
        gamma_initializer="uniform",
        name="norm",
        dtype=dtype,
        **options,
    )
    return keras.Sequential([keras.Input((6, 5, 4)), layer])


def trained_once(model, x):
    """Return the output, the gradients, and the moving statistics after a step."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        x = tf.convert_to_tensor(x)
        tape.watch(x)
        y = model(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    weights = [v.value for v in model.trainable_variables]
    gradients = tape.gradient(loss, [x, *weights])
    moving = [v.numpy() for v in model.non_trainable_variables]
    return [np.asarray(keras.ops.cast(v, "float32")) for v in (y, *gradients, *moving)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 3e-2)]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False}, {"momentum": 0.6, "epsilon": 0.1}],
)
def test_it_computes_what_keras_does(dtype, tolerance, options):
    x = np.random.default_rng(0).normal(3, 2, (7, 6, 5, 4)).astype("float32")
    expected = trained_once(network(dtype, **options), x)
    model = network(dtype, **options)
    with fused_layers(model):
        assert "call" in vars(model.get_layer("norm"))
        found = trained_once(model, x)
        unfused = network(dtype, **options)(x, training=False)
        assert model(x, training=False).dtype == unfused.dtype
    for a, b in zip(found, expected, strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


def gelu(dtype="float32"):
    layer = keras.layers.Activation("gelu", dtype=dtype, name="gelu")
    return keras.Sequential([keras.Input((6, 5, 4)), layer])


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-5), ("mixed_bfloat16", 2e-2), ("mixed_float16", 4e-3)],
)
def test_gelu_and_its_slope_are_those_of_keras_in_float32(dtype, tolerance):
    x = np.random.default_rng(0).normal(0, 3, (7, 6, 5, 4))
    x[0, 0, 0] = [-40, 0, 1e-3, 40]
    # Representable in every precision, so that only the outputs are rounded.
    x = np.asarray(keras.ops.cast(keras.ops.cast(x, "bfloat16"), "float32"))
    expected = trained_once(gelu(), x)
    model = gelu(dtype)
    with fused_layers(model):
        assert "call" in vars(model.get_layer("gelu"))
        found = trained_once(model, x)
        assert model(x).dtype == model.get_layer("gelu").compute_dtype
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


RELUS = {
    "layer": keras.layers.ReLU,
    "leaky layer": functools.partial(keras.layers.ReLU, negative_slope=0.5),
    "leaky": functools.partial(keras.layers.LeakyReLU, 0.25),
    "bounded": functools.partial(keras.layers.ReLU, 1),
    "threshold": functools.partial(keras.layers.ReLU, threshold=0.5),
}


def pooled(dtype, kind="plain"):
    """Return ReLU before pooling, where the two may change places or not."""
    keras.utils.set_random_seed(0)
    x = keras.Input((9, 9, 3))
    first = keras.layers.Conv2D(8, 3, activation="relu", dtype=dtype, name="first")
    pool = keras.layers.MaxPooling2D(3, 2, "same", dtype=dtype, name="pool")
    y = first(x)
    if kind in RELUS:
        y = keras.layers.Conv2D(8, 3, dtype=dtype)(x)
        y = RELUS[kind](dtype=dtype)(y)
    ends = [keras.layers.Flatten(dtype=dtype)(pool(y))]
    if kind == "output":
        ends.append(y)
    elif kind == "used twice":
        ends.append(keras.layers.GlobalAveragePooling2D(dtype=dtype)(y))
    elif kind == "pooling shared":
        other = keras.layers.Conv2D(8, 3, dtype=dtype)(x)
        ends.append(keras.layers.Flatten(dtype=dtype)(pool(other)))
    elif kind == "average":
        ends = [keras.layers.AveragePooling2D(2, dtype=dtype)(y)]
    elif kind == "within a layer":  # which normalises after its ReLU
        ends = [pool(zoo.layers.RecurrentConv2D(8, dtype=dtype)(x))]
    return keras.Model(x, ends if len(ends) > 1 else ends[0])


@pytest.mark.parametrize("kind", ["plain", "layer", "leaky layer", "leaky"])
def test_pooling_before_relu_is_relu_before_pooling(kind, tmp_path):
    dtype = "mixed_bfloat16"
    x = np.random.default_rng(0).normal(0, 1, (4, 9, 9, 3)).astype("float32")
    expected = trained_once(pooled(dtype, kind), x)
    model = pooled(dtype, kind)
    with fused_layers(model):
        assert "call" in vars(model.get_layer("pool"))
        found = trained_once(model, x)
        model.save(tmp_path / "model.keras")
        lost = model(np.full_like(x, np.nan), training=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # LeakyReLU keeps the -inf that pooling makes of NaN, in either order.
    told = np.isneginf if "leaky" in kind else np.isnan
    assert told(keras.ops.cast(lost, "float32")).all()
    # What is written in between is the network, not how it is computed.
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), pooled(dtype, kind)(x))


@pytest.mark.parametrize(
    "kind",
    [
        *("output", "used twice", "pooling shared", "average", "within a layer"),
        *("float32", "bounded", "threshold"),
    ],
)
def test_relu_stays_where_it_is_seen_otherwise(kind):
    model = pooled("float32" if kind == "float32" else "mixed_bfloat16", kind)
    with fused_layers(model):
        kinds = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
        (pooling,) = (layer for layer in model.layers if isinstance(layer, kinds))
        assert "call" not in vars(pooling)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(zoo.layers.Maxout, 3),
        functools.partial(zoo.layers.APL, 2),
        functools.partial(zoo.layers.APL, 1, "unit"),
    ],
)
def test_what_is_elementwise_has_the_values_and_gradients_of_keras(make):
    """Pieces are equal often in bfloat16: one of them has the gradient, not each."""
    x = np.random.default_rng(0).normal(0, 1, (300, 5, 4, 6)).astype("float32")

    def network(dtype):
        keras.utils.set_random_seed(0)
        layer = make(dtype=dtype, name="layer")
        return keras.Sequential([keras.Input(x.shape[1:]), layer])

    exact = trained_once(network("float32"), x)
    model = network("mixed_bfloat16")
    plain = trained_once(model, x)
    with fused_layers(model):
        assert "elementwise" in vars(model.get_layer("layer"))
        found = trained_once(model, x)
    for a, b, c in zip(found, plain, exact, strict=True):
        scale = np.abs(c).max()
        np.testing.assert_allclose(a / scale, b / scale, atol=2e-2)
        assert np.abs(a - c).mean() <= 1.1 * np.abs(b - c).mean() + 1e-6 * scale


@pytest.mark.parametrize("shape", [(5, 4, 6), (1, 4, 6)])
def test_the_maximum_has_the_values_and_gradients_of_keras(shape):
    x = np.random.default_rng(0).normal(0, 1, (300, 5, 4, 6)).astype("float32")

    def network(dtype):
        image = keras.Input(x.shape[1:])
        others = [image[:, : shape[0]] * factor for factor in (0.5, -1)]
        layer = keras.layers.Maximum(name="largest", dtype=dtype)
        return keras.Model(image, layer([image, *others]))

    expected = trained_once(network("float32"), x)
    model = network("mixed_bfloat16")
    with fused_layers(model):
        assert "_merge_function" in vars(model.get_layer("largest"))
        found = trained_once(model, x)
    assert "_merge_function" not in vars(model.get_layer("largest"))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a / np.abs(b).max(), b / np.abs(b).max(), atol=2e-2)


def convolutions(dtype, *, size=(3, 3), padding="same"):
    """Return two convolutions, the second of which is of small maps."""
    keras.utils.set_random_seed(0)
    options = {"padding": padding, "dtype": dtype, "bias_initializer": "normal"}
    layers = [
        keras.layers.Conv2D(128, 3, use_bias=False, dtype=dtype),
        keras.layers.Conv2D(6, size, name="second", **options),
    ]
    return keras.Sequential([keras.Input((8, 7, 4)), *layers])


@pytest.fixture
def bfloat16_instructions(monkeypatch):
    """Let this processor count as one that has them, whatever it is."""
    name = "kerascnn.training.fused_layers.resolve_precision"
    monkeypatch.setattr(name, lambda precision: "mixed_bfloat16")


@pytest.mark.usefixtures("bfloat16_instructions")
@pytest.mark.parametrize("size", [(3, 3), (2, 5), (4, 1), (1, 1)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("number", [3, 300])
def test_convolutions_of_small_maps_have_the_gradients_of_keras(size, padding, number):
    x = np.random.default_rng(0).normal(0, 1, (number, 8, 7, 4)).astype("float32")
    expected = trained_once(convolutions("float32", size=size, padding=padding), x)
    model = convolutions("mixed_bfloat16", size=size, padding=padding)
    plain = trained_once(model, x)
    with fused_layers(model):
        assert "call" in vars(model.get_layer("second"))
        found = trained_once(model, x)
    np.testing.assert_array_equal(found[0], plain[0])  # the output
    for a, b, exact in zip(found, plain, expected, strict=True):
        scale = np.abs(exact).max()
        # What is TensorFlow's own is off by 0.05 where bfloat16 has no instructions.
        if not np.array_equal(a, b):
            np.testing.assert_allclose(a / scale, exact / scale, atol=3e-2)
        # As near to float32 as TensorFlow's own gradients in bfloat16.
        assert np.abs(a - exact).mean() < 1.5 * np.abs(b - exact).mean() + 1e-6 * scale


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(keras.layers.Conv2D, 8, 3),
        functools.partial(keras.layers.Conv2D, 8, 13),  # small maps
        functools.partial(keras.layers.Conv2D, 8, 3, strides=2),
        functools.partial(keras.layers.Conv2D, 8, 3, groups=2),
        functools.partial(keras.layers.Conv2D, 8, 3, dilation_rate=2),
        functools.partial(keras.layers.DepthwiseConv2D, 3, activation="relu"),
        functools.partial(keras.layers.SeparableConv2D, 8, 3),
        functools.partial(keras.layers.Conv2DTranspose, 8, 3),
        functools.partial(keras.layers.Dense, 8, activation="gelu"),
        functools.partial(
            keras.layers.EinsumDense,
            "nhwc,cd->nhwd",
            bias_axes="d",
            output_shape=(None, None, 8),
        ),
        functools.partial(zoo.layers.PatchWhitening2D, 2),
    ],
)
def test_the_gradient_of_a_bias_is_summed_with_care(make):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(0.2, 1, (64, 20, 20, 64)).astype("float32")

    def gradient(dtype):
        keras.utils.set_random_seed(0)
        layer = make(dtype=dtype)
        pool = keras.layers.MaxPooling2D(2, dtype=dtype)
        model = keras.Sequential([keras.Input(x.shape[1:]), layer, pool])

        @tf.function
        def of_bias(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.cast(model(x, training=True), tf.float32))
            # The gradient of a kernel may change how that of the bias is computed.
            weights = [v.value for v in (layer.bias, *layer.trainable_variables)]
            return tape.gradient(loss, weights)

        with fused_layers(model):
            return of_bias(x)[0].numpy()

    np.testing.assert_allclose(
        gradient("mixed_bfloat16"), gradient("float32"), rtol=0.02
    )


def test_convolutions_in_float32_stay_as_they_are():
    model = convolutions("float32")
    with fused_layers(model):
        assert "call" not in vars(model.get_layer("second"))


@pytest.mark.usefixtures("bfloat16_instructions")
@pytest.mark.parametrize(
    ("side", "options", "by_hand"),
    [
        (8, {}, True),
        (9, {}, False),
        (9, {"channels": 144}, True),
        (10, {"channels": 144}, False),
        (4, {"channels": 127}, False),
        (None, {}, False),
        (8, {"strides": 2}, False),
        (9, {"kernel_size": 1}, True),
        (None, {"kernel_size": 1}, False),
        (9, {"kernel_size": 1, "strides": 2}, False),
    ],
)
def test_the_gradient_of_other_convolutions_is_tensorflows(side, options, by_hand):
    import tensorflow as tf

    options = {"kernel_size": 3, "padding": "same", **options}
    shape = (side, side, options.pop("channels", 128))
    layer = keras.layers.Conv2D(5, dtype="mixed_bfloat16", **options)
    model = keras.Sequential([keras.Input(shape), layer])

    @tf.function(input_signature=[tf.TensorSpec((None, *shape))])
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True))
        return tape.gradient(loss, layer.kernel.value)

    with fused_layers(model):
        operations = gradient.get_concrete_function().graph.get_operations()
    kinds = {operation.type for operation in operations}
    assert ("Conv2DBackpropFilter" not in kinds) is by_hand


@pytest.mark.parametrize(
    ("model", "name", "call"),
    [
        (network(), "norm", keras.layers.BatchNormalization.call),
        (gelu(), "gelu", keras.layers.Activation.call),
        (convolutions("mixed_bfloat16"), "second", keras.layers.Conv2D.call),
    ],
)
def test_the_layers_are_as_they_were_afterwards(model, name, call):
    layer = model.get_layer(name)
    with pytest.raises(RuntimeError), fused_layers(model):
        raise RuntimeError
    assert "call" not in vars(layer)
    assert layer.call.__func__ is call


@pytest.mark.parametrize(
    "other",
    [
        keras.Sequential([keras.Input((9,)), keras.layers.BatchNormalization()]),
        keras.Sequential([keras.Input((6, 5, 4)), keras.layers.BatchNormalization(1)]),
        keras.Sequential([keras.Input((6, 5, 4)), keras.layers.LayerNormalization()]),
        keras.Sequential([keras.Input((9,)), keras.layers.Activation("elu")]),
    ],
)
def test_other_layers_stay_as_they_are(other):
    with fused_layers(other):
        assert "call" not in vars(other.layers[0])


def test_a_frozen_layer_keeps_its_statistics():
    model = network()
    model.trainable = False
    before = [v.numpy() for v in model.variables]
    with fused_layers(model):
        model(np.ones((2, 6, 5, 4), "float32"), training=True)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def steps(optimizer, start, gradients):
    """Return a kernel and the optimizer's state of it after some steps."""
    import tensorflow as tf

    kernel = keras.Variable(start)
    optimizer.build([kernel])
    step = tf.function(lambda gradient: optimizer.apply([gradient]))
    for gradient in gradients:
        step(tf.constant(gradient))
    operations = step.get_concrete_function(tf.constant(start)).graph.get_operations()
    fused = any(op.type.startswith("ResourceApply") for op in operations)
    state = [v for v in optimizer.variables if v.shape == kernel.shape]
    return [v.numpy() for v in (kernel, *state)], fused


@pytest.mark.parametrize(
    ("recipe", "reference", "fuses"),
    [
        ({"optimizer": "adam"}, keras.optimizers.Adam(0.01), True),
        ({"optimizer": "adamw"}, keras.optimizers.AdamW(0.01), True),
        ({"momentum": 0.9}, keras.optimizers.SGD(0.01, 0.9), True),
        ({"nesterov": True}, keras.optimizers.SGD(0.01, 0.9, nesterov=True), True),
        ({"momentum": 0.0}, keras.optimizers.SGD(0.01), False),
    ],
)
def test_optimizers_update_as_those_of_keras(recipe, reference, fuses):
    options = {"optimizer": "sgd", "momentum": 0.9, "schedule": "constant", **recipe}
    if options["optimizer"] == "adamw":
        options["weight_decay"] = 0.004  # Keras' default
    model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(5)])
    own = make_optimizer(Recipe(learning_rate=0.01, **options), model, 10)
    rng = np.random.default_rng(0)
    start, *gradients = rng.normal(size=(5, 9, 5)).astype("float32")
    expected, fused = steps(reference, start, gradients)
    assert not fused
    found, fused = steps(own, start, gradients)
    assert fused is fuses
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
