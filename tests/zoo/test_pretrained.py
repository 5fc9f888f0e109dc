"""Weights that ship: what is written is what is read, and nothing else is."""

import hashlib
import json
import pathlib

import keras
import matplotlib
import numpy as np
import pytest

import zoo
from zoo import pretrained, registry

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implement:DeprecationWarning")
SHAPE = (32, 32, 3)


@pytest.fixture
def model():
    """A network with normalisation, so that there are moving averages too."""
    return zoo.build("vgg11_bn", SHAPE, width=1 / 32)


def test_weights_come_back_as_float16_keeps_them(model, tmp_path, pixels, run):
    pretrained.write_weights(model, tmp_path / "weights.npz")
    again = zoo.build("vgg11_bn", SHAPE, width=1 / 32)
    pretrained.read_weights(again, tmp_path / "weights.npz")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one.astype("float16").astype("float32"), other)
    images = pixels(SHAPE)
    np.testing.assert_allclose(run(again, images), run(model, images), atol=0.01)
    largest = max(np.abs(w).max() for w in model.get_weights())
    assert largest > 0


def test_the_file_takes_two_bytes_a_weight(tmp_path):
    model = zoo.build("linear")
    pretrained.write_weights(model, tmp_path / "weights.npz")
    size = (tmp_path / "weights.npz").stat().st_size
    assert size < 2 * model.count_params() + 2000


def test_weights_of_another_network_are_refused(model, tmp_path):
    pretrained.write_weights(model, tmp_path / "weights.npz")
    before = [w.copy() for w in model.get_weights()]
    for other in (
        zoo.build("vgg13_bn", SHAPE, width=1 / 32),
        zoo.build("vgg11_bn", SHAPE, width=1 / 16),
        zoo.build("vgg11_bn", SHAPE, 11, width=1 / 32),
    ):
        with pytest.raises(ValueError, match=f"another network than {other.name}.* in"):
            pretrained.read_weights(other, tmp_path / "weights.npz")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("value", [65_536.0, -1e30, np.nan, np.inf])
def test_a_weight_that_float16_cannot_hold_is_refused(value, tmp_path):
    model = zoo.build("linear", (2, 2, 1), 2)
    kernel, bias = model.get_weights()
    kernel[0, 0] = value
    model.set_weights([kernel, bias])
    with pytest.raises(ValueError, match="fc/kernel of linear does not fit float16"):
        pretrained.write_weights(model, tmp_path / "weights.npz")
    assert not (tmp_path / "weights.npz").exists()


def test_a_network_without_weights_says_how_to_get_them(monkeypatch):
    card = registry.Card(**{**vars(zoo.card("linear")), "weights": {}})
    monkeypatch.setattr(pretrained, "card", lambda name: card)
    with pytest.raises(ValueError, match="no trained weights ship for 'linear'; train"):
        zoo.load("linear")


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """Let `linear` ship with the weights of a model that the test knows."""
    model = zoo.build("linear")
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "linear.npz"
    pretrained.write_weights(model, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = {"file": "linear.npz", "sha256": digest}
    card = registry.Card(**{**vars(zoo.card("linear")), "weights": weights})
    monkeypatch.setattr(pretrained, "card", lambda name: card)
    monkeypatch.setattr(
        pretrained.importlib.resources, "files", lambda package: tmp_path
    )
    return model, file


def test_loading_gives_the_trained_network(shipping, pixels, run):
    model, _ = shipping
    images = pixels((32, 32, 3))
    np.testing.assert_allclose(
        run(zoo.load("linear"), images), run(model, images), atol=0.01
    )


def test_loading_builds_as_the_card_tells_of_the_weights(shipping, monkeypatch):
    _, file = shipping
    model = zoo.build("linear", use_bias=False)
    pretrained.write_weights(model, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = {"file": "linear.npz", "sha256": digest, "options": {"use_bias": False}}
    card = registry.Card(**{**vars(zoo.card("linear")), "weights": told})
    monkeypatch.setattr(pretrained, "card", lambda name: card)
    assert [v.path for v in zoo.load("linear").weights] == ["fc/kernel"]


def test_a_file_that_is_not_the_one_on_the_card_is_refused(shipping):
    _, file = shipping
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not the weights file of the card"):
        zoo.load("linear")


BACKEND = keras.config.backend()
PHOTO = pathlib.Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
SHIPPED = [name for name in zoo.names() if zoo.card(name).weights]


def test_weights_ship():
    assert "lecture_cnn" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_those_of_the_card(name):
    """`load` checks the sha256; a trained network is sure of some of its answers."""
    import kerascnn

    model = zoo.load(name)
    card = zoo.card(name)
    labels = card.weights["labels"]
    assert len(labels) == model.output_shape[1]
    x = np.random.default_rng(0).integers(0, 256, (8, *model.input_shape[1:]), np.uint8)
    (found,) = kerascnn.predict(name, [PHOTO])
    assert sorted(found.probabilities) == sorted(labels)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    # One that was taught not to be too sure says of noise that it could be anything.
    taught = [card.recipes[r["recipe"]].get("label_smoothing") for r in card.results]
    sure = found.probabilities.values() if all(taught) else np.ravel(model(x))
    assert max(sure) > 2 / len(labels)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others draw other random numbers")
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_answer_as_they_did(name, request):
    """What a photograph was answered when the weights were recorded."""
    import kerascnn

    file = pathlib.Path(__file__).parents[1] / "golden" / "shipped.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    keras.utils.set_random_seed(0)  # for a network that draws
    (found,) = kerascnn.predict(name, [PHOTO])
    found = [round(found.probabilities[label], 4) for label in found.labels]
    if request.config.getoption("--rewrite-golden"):
        kept[name] = found
        text = json.dumps(dict(sorted(kept.items())), indent=1)
        file.write_text(text + "\n", encoding="utf-8")
    np.testing.assert_allclose(found, kept[name], atol=2e-3)


@pytest.mark.slow
@pytest.mark.cifar10
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_reach_the_accuracy_of_the_card(name):
    import kerascnn

    weights = zoo.card(name).weights
    try:
        data = kerascnn.load_data("cifar10")
    except kerascnn.data.DataError:
        pytest.skip("CIFAR-10 is not prepared here: see `kerascnn data`")
    if data.fingerprint != weights.get("tested", weights["fingerprint"]):
        pytest.skip("the card's figure is on another copy of CIFAR-10")
    keras.utils.set_random_seed(weights["seed"])  # for a network that draws
    measured = kerascnn.evaluate(zoo.load(name), data.test).accuracy
    assert measured == pytest.approx(weights["accuracy"], abs=0.1)
