"""Mixed, gated and tree pooling, and pooling that rounds up, against plain NumPy."""

import keras
import numpy as np
import pytest
from differentiation import layer_gradients

from kerascnn.arithmetic import evaluate
from zoo.layers import (
    CeilMaxPooling2D,
    GatedPooling2D,
    MixedPooling2D,
    TreePooling2D,
)

# --- The reference: the formulas, window by window ---


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def before(size, k, s, padding):
    """Cells that the first window reaches over the border, and the windows' number."""
    if padding == "valid":
        return 0, (size - k) // s + 1
    number = -(-size // s)
    return max(0, (number - 1) * s + k - size) // 2, number


def by_windows(pool, x, layer):
    """Call pool(cells, row indices, column indices, channel) for every window.

    `cells` are those within the image, the indices their places in the window.
    """
    k, s = layer.pool_size, layer.strides
    images, height, width, channels = x.shape
    top, rows = before(height, k, s, layer.padding)
    left, columns = before(width, k, s, layer.padding)
    y = np.zeros((images, rows, columns, channels))
    for n, r, c, channel in np.ndindex(y.shape):
        up, aside = r * s - top, c * s - left
        i = [i for i in range(k) if 0 <= up + i < height]
        j = [j for j in range(k) if 0 <= aside + j < width]
        cells = x[n, up + i[0] : up + i[-1] + 1, aside + j[0] : aside + j[-1] + 1]
        y[n, r, c, channel] = pool(cells[..., channel], i, j, channel)
    return y


def mask_of(weights, number, channel):
    """The k x k mask `number`, of the layer or of the channel."""
    return weights[..., number] if weights.ndim == 3 else weights[..., channel, number]


def response(mask, cells, i, j):
    return (mask[np.ix_(i, j)] * cells).sum()  # the other cells count as 0


def mixed(x, layer, weights):
    (logit,) = weights

    def pool(cells, i, j, channel):
        a = sigmoid(logit[channel] if logit.ndim else logit)
        return a * cells.max() + (1 - a) * cells.mean()

    return by_windows(pool, x, layer)


def gated(x, layer, weights):
    (gate,) = weights

    def pool(cells, i, j, channel):
        g = sigmoid(response(mask_of(gate, 0, channel), cells, i, j))
        return g * cells.max() + (1 - g) * cells.mean()

    return by_windows(pool, x, layer)


def tree(x, layer, weights):
    filters, gates = weights

    def pool(cells, i, j, channel):
        v = [
            response(mask_of(filters, n, channel), cells, i, j)
            for n in range(filters.shape[-1])
        ]
        g = [
            sigmoid(response(mask_of(gates, n, channel), cells, i, j))
            for n in range(gates.shape[-1])
        ]
        if layer.levels == 2:
            return g[0] * v[0] + (1 - g[0]) * v[1]
        # The paper's formula of three levels, written out.
        left = g[0] * v[0] + (1 - g[0]) * v[1]
        right = g[1] * v[2] + (1 - g[1]) * v[3]
        return g[2] * left + (1 - g[2]) * right

    return by_windows(pool, x, layer)


LAYERS = {
    "mixed": (MixedPooling2D, mixed, {}),
    "gated": (GatedPooling2D, gated, {}),
    "tree2": (TreePooling2D, tree, {"levels": 2}),
    "tree3": (TreePooling2D, tree, {"levels": 3}),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)
sharing = pytest.mark.parametrize("per_channel", [False, True])


def make(kind, x, seed=0, **options):
    """A layer whose weights are large enough to matter, and its reference."""
    kind, reference, own = LAYERS[kind]
    layer = kind(**own, **options)
    layer.build(x.shape)
    random = np.random.default_rng(seed)
    weights = [random.normal(size=w.shape) for w in layer.weights]
    layer.set_weights(weights)
    return layer, weights, lambda x, weights: reference(x, layer, weights)


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


# --- Forward ---


@every_layer
@sharing
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((8, 8), {}),  # the last windows are cut off
        ((7, 5), {}),  # the first and the last
        ((6, 9), {"padding": "valid"}),
        ((6, 4), {"pool_size": 2, "strides": None}),
        ((5, 6), {"pool_size": 4, "strides": 3}),
        ((1, 2), {}),  # smaller than a window
    ],
)
def test_a_window_pools_as_the_formula_says(kind, per_channel, size, options):
    x = images(2, *size, 3)
    layer, weights, reference = make(kind, x, per_channel=per_channel, **options)
    y = keras.ops.convert_to_numpy(layer(x.astype("float32")))
    expected = reference(x, weights)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == y.shape


def test_the_windows_are_caffes_at_even_sizes():
    """They start at the first pixel; the last is cut off. 8 pixels: 0-2, 2-4, 4-6, 6-7.

    A gate that is wide open makes a maximum of the pooling.
    """
    x = np.zeros((1, 8, 1, 1), "float32")
    x[0, :, 0, 0] = [0, 5, 1, 2, 9, 3, 4, 7]
    layer = MixedPooling2D()
    layer.build(x.shape)
    layer.set_weights([np.array(100.0)])
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y.ravel(), [5, 9, 9, 7])
    layer.set_weights([np.array(-100.0)])  # the mean, over the two cells that exist
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(y.ravel(), [2, 4, 16 / 3, 5.5], rtol=1e-6)


# --- Gradient ---


@every_layer
@sharing
def test_the_gradients_are_those_of_finite_differences(kind, per_channel):
    x = images(1, 6, 5, 2, seed=3)
    layer, weights, reference = make(kind, x, seed=4, per_channel=per_channel)
    mixture = images(*layer.compute_output_shape(x.shape), seed=5)

    def total(values):
        *weights, x = values
        return (reference(x, weights) * mixture).sum()

    values = [*weights, x]
    gradients = layer_gradients(layer, x.astype("float32"), mixture.astype("float32"))
    for place, found in zip([-1, *range(len(weights))], gradients, strict=True):
        expected = differences(total, values, place)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert np.abs(expected).max() > 0.01


def differences(function, values, place, step=1e-5):
    """Central differences of `function(values)` to the array at `place`."""
    gradient = np.zeros_like(values[place])
    for index in np.ndindex(gradient.shape):
        up, down = ([np.array(v) for v in values] for _ in range(2))
        up[place][index] += step
        down[place][index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


# --- Weights ---


@pytest.mark.parametrize(
    ("kind", "layer", "channel"),
    [("mixed", 1, 1), ("gated", 9, 9), ("tree2", 27, 27), ("tree3", 63, 63)],
)
def test_the_number_of_weights_is_the_papers(kind, layer, channel):
    x = np.zeros((1, 8, 8, 5))
    for per_channel, expected in ((False, layer), (True, 5 * channel)):
        built, _, _ = make(kind, x, per_channel=per_channel)
        assert built.count_params() == expected
        assert evaluate(built.parameter_expression()) == expected


@every_layer
def test_all_weights_start_from_a_normal_distribution_of_a_tenth(kind):
    keras.utils.set_random_seed(0)
    kind, _, own = LAYERS[kind]
    layer = kind(**own, per_channel=True)
    layer.build((None, 8, 8, 3000))
    for weight in layer.weights:
        values = keras.ops.convert_to_numpy(weight)
        assert abs(values.mean()) < 0.01
        assert values.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("kind", "masks"), [("gated", 1), ("tree2", 3), ("tree3", 7)])
def test_the_multiplications_are_those_of_the_masks(kind, masks):
    layer, _, _ = make(kind, np.zeros((1, 32, 32, 96)))
    output = layer.compute_output_shape((None, 32, 32, 96))
    assert layer.macs((None, 32, 32, 96), output) == 16 * 16 * 96 * 9 * masks


# --- As layers ---


@every_layer
def test_mixed_precision_computes_the_same_less_exactly(kind):
    x = images(2, 8, 8, 3)
    layer, weights, reference = make(kind, x, dtype="mixed_bfloat16")
    y = layer(keras.ops.cast(x, "bfloat16"))
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert {w.dtype for w in layer.weights} == {"float32"}
    y = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, reference(x, weights), atol=0.15)


@every_layer
@sharing
def test_a_config_makes_the_layer_again_with_its_outputs(kind, per_channel):
    x = images(1, 6, 6, 2)
    layer, weights, _ = make(kind, x, per_channel=per_channel, padding="valid")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    again.set_weights(weights)  # it was built with the shape of the first
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(again(x.astype("float32"))),
        keras.ops.convert_to_numpy(layer(x.astype("float32"))),
    )


@every_layer
def test_images_of_any_size_are_pooled(kind):
    kind, reference, own = LAYERS[kind]
    image = keras.Input((None, None, 2))
    layer = kind(**own)
    model = keras.Model(image, layer(image))
    assert model.output_shape == (None, None, None, 2)
    assert layer.window() == ((3, 3), (2, 2))
    for size in ((6, 6), (9, 4)):
        x = images(1, *size, 2)
        weights = [keras.ops.convert_to_numpy(w) for w in layer.weights]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(model(x.astype("float32"))),
            reference(x, layer, weights),
            rtol=1e-4,
            atol=1e-5,
        )


@every_layer
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool_size": 0}, "pool_size must be .*received 0"),
        ({"pool_size": (3, 3)}, r"pool_size must be .*received \(3, 3\)"),
        ({"strides": 1.5}, r"strides must be .*received 1\.5"),
        ({"padding": "full"}, "padding must be 'same' or 'valid'; received 'full'"),
    ],
)
def test_options_that_make_no_window_are_refused(kind, options, message):
    kind, _, own = LAYERS[kind]
    with pytest.raises(ValueError, match=message):
        kind(**own, **options)


def test_inputs_that_are_no_maps_are_refused():
    with pytest.raises(ValueError, match=r"needs maps .*received shape \(3, 4\)"):
        GatedPooling2D()(np.zeros((3, 4), "float32"))


@pytest.mark.parametrize("levels", [1, 0, 2.0])
def test_a_tree_without_a_gate_is_refused(levels):
    with pytest.raises(ValueError, match=f"levels must be .*received {levels}"):
        TreePooling2D(levels)


# --- Max pooling that rounds up ---


def ceil_max(x, k, s):
    images, height, width, channels = x.shape
    rows, columns = (max(0, int(np.ceil((n - k) / s))) + 1 for n in (height, width))
    y = np.empty((images, rows, columns, channels))
    for r, c in np.ndindex(rows, columns):
        y[:, r, c] = x[:, r * s : r * s + k, c * s : c * s + k].max(axis=(1, 2))
    return y


@pytest.mark.parametrize(
    ("size", "k", "s"),
    [
        ((33, 33), 4, 2),  # the three poolings of the maxout network
        ((15, 15), 4, 2),
        ((9, 9), 2, 2),
        ((8, 8), 3, 2),
        ((7, 10), 3, 3),
        ((2, 3), 4, 2),  # smaller than a window
        ((5, 6), 1, 1),
    ],
)
def test_ceil_pooling_covers_the_last_pixel(size, k, s):
    x = images(2, *size, 2).astype("float32") - 3  # no 0 is a maximum by accident
    layer = CeilMaxPooling2D(k, s)
    y = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_array_equal(y, ceil_max(x, k, s))
    assert layer.compute_output_shape(x.shape) == y.shape
    assert layer.window() == ((k, k), (s, s))


def test_ceil_pooling_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    x = images(2, 9, 12, 3).astype("float32")
    theirs = torch.nn.functional.max_pool2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), 4, 3, ceil_mode=True
    )
    y = keras.ops.convert_to_numpy(CeilMaxPooling2D(4, 3)(x))
    np.testing.assert_array_equal(y, theirs.numpy().transpose(0, 2, 3, 1))


def test_the_gradient_of_ceil_pooling_goes_to_the_maxima():
    """Also where the last window is cut off: 5 pixels, windows 0-2, 2-4 and 4."""
    x = np.array([1, 7, 2, 3, 9], "float32").reshape(1, 5, 1, 1)
    mixture = np.array([10, 20], "float32").reshape(1, 2, 1, 1)
    (found,) = layer_gradients(CeilMaxPooling2D(3, 2), x, mixture)
    np.testing.assert_array_equal(found.ravel(), [0, 10, 0, 0, 20])
    x = np.array([1, 7, 2, 9], "float32").reshape(1, 4, 1, 1)
    (found,) = layer_gradients(CeilMaxPooling2D(3, 2), x, mixture)
    np.testing.assert_array_equal(found.ravel(), [0, 10, 0, 20])


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_ceil_pooling_in_mixed_precision_is_finite(dtype):
    layer = CeilMaxPooling2D(4, 2, dtype=dtype)
    y = layer(images(1, 5, 5, 1).astype("float32"))
    y = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
    assert y.shape == (1, 2, 2, 1)
    assert np.isfinite(y).all()


def test_ceil_pooling_keeps_its_config_and_refuses_what_it_cannot_do():
    layer = CeilMaxPooling2D(3)
    assert layer.strides == 3
    again = CeilMaxPooling2D.from_config(layer.get_config())
    assert (again.pool_size, again.strides) == (3, 3)
    with pytest.raises(ValueError, match=r"at most pool_size=2.*received 3"):
        CeilMaxPooling2D(2, 3)
    with pytest.raises(ValueError, match=r"pool_size must be .*received 0"):
        CeilMaxPooling2D(0)
    assert layer.compute_output_shape((None, None, 7, 1)) == (None, None, 3, 1)
    with pytest.raises(ValueError, match="known height and width; received"):
        CeilMaxPooling2D(3)(keras.Input((None, 7, 1)))
