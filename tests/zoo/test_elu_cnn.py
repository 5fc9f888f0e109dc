"""The ELU networks against their formulas."""

import keras
import numpy as np
import pytest

import zoo
from zoo.elu_cnn import DROPOUT, STACKS

# Keras 3.15 copies a variable into an array in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")

# As the paper writes them: "2×640×2" is two convolutions of 640 filters of 2x2.
FORMULAS = {
    "elu_cnn_11": (
        "[1×192×5] [1×192×1, 1×240×3] [1×240×1, 1×260×2] [1×260×1, 1×280×2] "
        "[1×280×1, 1×300×2] [1×300×1] [1×10×1]"
    ),
    "elu_cnn_18": (
        "[1×384×3] [1×384×1, 1×384×2, 2×640×2] [1×640×1, 3×768×2] [1×768×1, 2×896×2] "
        "[1×896×3, 2×1024×2] [1×1024×1, 1×1152×2] [1×1152×1] [1×10×1]"
    ),
}


def rows(formula):
    """Yield (stack, place, filters, size) of every convolution of a formula."""
    for stack, text in enumerate(formula.strip("[]").split("] ["), start=1):
        place = 0
        for row in text.split(", "):
            number, filters, size = map(int, row.split("×"))
            for _ in range(number):
                place += 1
                yield stack, place, filters, size


@pytest.mark.parametrize("name", FORMULAS)
def test_the_convolutions_are_those_of_the_formula(name, blueprint):
    model = blueprint(zoo.builder(name))
    built = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    expected = list(rows(FORMULAS[name]))
    assert [(c.name, c.filters, c.kernel_size) for c in built] == [
        (f"stack{stack}_conv{place}", filters, (size, size))
        for stack, place, filters, size in expected
    ]
    # ELU everywhere but before the softmax.
    assert {c.activation for c in built[:-1]} == {keras.activations.elu}
    assert built[-1].activation is keras.activations.linear
    sides = {c.name: c.output.shape[1] for c in built}
    for stack, place, _, _ in expected:
        assert sides[f"stack{stack}_conv{place}"] == max(1, 32 >> (stack - 1))


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("elu_cnn_11", 10, 1_641_938),
        ("elu_cnn_18", 10, 39_226_634),
        ("elu_cnn_18", 100, 39_330_404),
    ],
)
def test_published_counts(name, classes, parameters, blueprint, count):
    counts = count(blueprint(zoo.builder(name), classes=classes))
    assert (counts.trainable, counts.non_trainable) == (parameters, 0)
    assert counts.depth == {"elu_cnn_11": 11, "elu_cnn_18": 18 + 1}[name]


def test_elu_is_the_function_of_the_paper():
    x = np.float32([-30, -1, -0.1, 0, 0.1, 7])
    expected = np.where(x > 0, x, np.expm1(np.float64(x)))
    y = keras.ops.convert_to_numpy(keras.activations.get("elu")(x))
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_dropout_ends_the_stacks_and_its_rates_can_be_scaled(name, blueprint):
    def rates(**options):
        model = blueprint(zoo.builder(name), width=0.03, **options)
        return {
            layer.name: layer.rate
            for layer in model.layers
            if isinstance(layer, keras.layers.Dropout)
        }

    published = {f"stack{n}_dropout": (n - 1) / 10 for n in range(2, 7)}
    assert rates() == pytest.approx(published)
    scaled = {stack: 1.5 * rate for stack, rate in published.items()}
    assert rates(dropout=1.5) == pytest.approx(scaled)
    assert rates(dropout=0) == {}
    assert len(DROPOUT[name]) == len(STACKS[name])


def test_at_one_pixel_a_window_of_2x2_uses_one_of_its_places(pixels, run):
    """The note on the card: 3/4 of stack 6's 2x2 weights meet zeros at 32x32."""
    model = zoo.build("elu_cnn_18", **zoo.card("elu_cnn_18").slim)
    layer = model.get_layer("stack6_conv2")
    assert layer.input.shape[1:3] == (1, 1)
    before = run(model, pixels((32, 32, 3)))
    kernel, bias = layer.get_weights()
    dead = np.ones((2, 2), bool)
    dead[0, 0] = False
    kernel[dead] = 1e3
    layer.set_weights([kernel, bias])
    np.testing.assert_allclose(run(model, pixels((32, 32, 3))), before, rtol=1e-6)
    kernel[0, 0] = 0
    layer.set_weights([kernel, bias])
    assert np.abs(run(model, pixels((32, 32, 3))) - before).max() > 1e-3
    assert 3 * 1024 * 1152 == 3_538_944


def test_larger_images_are_averaged_into_one_vector(blueprint):
    model = blueprint(zoo.builder("elu_cnn_11"), (96, 70, 3), width=0.03)
    assert model.get_layer("stack7_conv1").output.shape == (None, 3, 2, 10)
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize("dropout", [-0.1, 2, 3])
def test_a_dropout_of_all_is_refused(dropout):
    with pytest.raises(ValueError, match=f"at least 0 and below 2; received {dropout}"):
        zoo.build("elu_cnn_18", dropout=dropout)


def test_a_width_that_is_none_is_refused():
    with pytest.raises(ValueError, match="width must be above 0; received 0"):
        zoo.build("elu_cnn_11", width=0)


def test_the_signal_keeps_its_scale_without_normalisation(pixels):
    keras.utils.set_random_seed(0)
    model = zoo.build("elu_cnn_18", width=0.0625)
    ends = [model.get_layer(n).output for n in ("stack1_conv1", "stack7_conv1")]
    first, last = (
        np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(maps))))
        for maps in keras.Model(model.input, ends)(pixels((32, 32, 3)))
    )
    assert 0.2 < last / first < 5
