"""What stays as it is: networks, the command's words, what was written by before.

The files in tests/golden were made by release 0.1: `network*` and `help*` are written
anew by `pytest --rewrite-golden`, after a look at what differs; `run` and `published`
never are.
"""

import hashlib
import inspect
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import kerascnn
import zoo
from kerascnn import serving

GOLDEN = Path(__file__).parent / "golden"
DEEP = ("resnet1202",)  # takes half a minute

# --- Networks ---


def described(name):
    """Describe a network as its card means it, built without allocating its weights.

    Layers, weights and settings are their number and the digest of lines that can be
    printed: a layer's name, a weight's path and shape; a layer's class and what it is
    given, an option of it and its value.
    """
    with keras.StatelessScope(initialize_variables=False):
        model = zoo.build(name)
    keras.utils.clear_session(free_memory=False)

    def digest(lines):
        text = "\n".join(lines)
        return f"{len(lines)}, sha256 {hashlib.sha256(text.encode()).hexdigest()}"

    return {
        "signature": str(inspect.signature(zoo.builder(name))),
        "layers": digest([layer.name for layer in model.layers]),
        "weights": digest([f"{v.path} {tuple(v.shape)}" for v in model.weights]),
        "settings": digest([line for layer in model.layers for line in set_up(layer)]),
    }


SETTINGS = ("strides", "padding", "pool_size", "groups", "activation", "rate")
SETTINGS += ("epsilon", "momentum", "negative_slope", "use_bias", "axis", "noise_shape")
SETTINGS += ("scale", "offset", "size", "alpha", "beta", "kappa", "kernel_constraint")
SETTINGS += ("steps", "normalization", "mode", "regions", "ratio", "shared", "pieces")


def set_up(layer):
    """Yield what a layer is and is set to, which neither name nor weights show."""
    given = [x for node in layer._inbound_nodes for x in node.input_tensors]
    makers = [x._keras_history.operation.name for x in given]
    yield f"{layer.name} {type(layer).__name__} <- {', '.join(makers)}"
    for key, value in sorted(layer.get_config().items()):
        if key.endswith("_initializer") and value:
            drawn = {k: v for k, v in value["config"].items() if k != "seed"}
            yield f"{layer.name} {key} {value['class_name']} {sorted(drawn.items())}"
        elif key in SETTINGS:
            yield f"{layer.name} {key} {value}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP))
        for name in zoo.names()
    ],
)
def test_a_network_keeps_signature_layers_and_weights(name, request):
    file = GOLDEN / "networks.json"
    frozen = json.loads(file.read_text(encoding="utf-8"))
    found = described(name)
    if request.config.getoption("--rewrite-golden"):
        frozen[name] = found
        frozen = {name: frozen[name] for name in zoo.names() if name in frozen}
        file.write_text(json.dumps(frozen, indent=1) + "\n", encoding="utf-8")
    assert found == frozen[name]


# --- The command ---


def words():
    """Yield the command's own words, in the order of its help."""
    from kerascnn.cli.common import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-").strip("-")
        if name != "deploy":  # goes; ready files take its place
            yield name


def test_the_command_keeps_its_words_and_options(command, golden, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    told = []
    for word in words():
        code, out, err = command(word, "--help")
        assert (code, err) == (0, "")
        # How the program was called is no matter: "Usage: kerascnn train [OPTIONS]".
        out = out[out.index(f"kerascnn {word} ") :]
        told.append("\n".join(line.rstrip() for line in out.strip().splitlines()))
    golden("help.txt", "\n\n\n".join(told))


# --- Run folders and versions ---


def frozen_run():
    return kerascnn.load_run(GOLDEN / "run")


def test_a_run_folder_is_still_read_and_measures_as_it_did():
    run = frozen_run()
    assert (run.name, run.labels[0]) == ("recurrent_cnn_96", "arrow")
    assert [row["epoch"] for row in run.history] == [1]
    data = kerascnn.load_data(**run.config["data"]["origin"])
    assert data.fingerprint == run.config["data"]["fingerprint"]
    measured = kerascnn.evaluate(run.model, data.test)
    assert measured.accuracy == pytest.approx(run.metrics["test_accuracy"])
    assert measured.loss == pytest.approx(run.metrics["test_loss"], rel=1e-4)


@pytest.mark.parametrize("number", [1, 2])
def test_a_version_is_still_listed_and_whole(number):
    """Version 1 is the network of the run as a .keras file, 2 a SavedModel."""
    version = serving.versions(GOLDEN / "published")[number - 1]
    assert version.number == number and version.verifiable
    assert version.format == ("keras", "savedmodel")[number - 1]
    assert version.model == ("recurrent_cnn_96", "linear")[number - 1]


def test_a_version_still_answers_as_it_did(tmp_path):
    version = shutil.copytree(GOLDEN / "published" / "1", tmp_path / "1")
    (verified,) = serving.verify(version)
    assert verified.ok, verified
    run = frozen_run()
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    told = serving.open_version(version).ask(images)
    expected = keras.ops.convert_to_numpy(run.model(images, training=False))
    np.testing.assert_allclose(told["probabilities"], expected, atol=1e-5)
    assert list(told["label"]) == [run.labels[i] for i in expected.argmax(axis=1)]


@pytest.mark.slow
def test_a_saved_model_still_answers_as_it_did(tmp_path):
    version = shutil.copytree(GOLDEN / "published" / "2", tmp_path / "2")
    (verified,) = serving.verify(version)
    assert verified.ok, verified
