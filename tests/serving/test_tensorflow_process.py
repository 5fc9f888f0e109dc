"""Networks of JAX and PyTorch, exported through a TensorFlow process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerascnn import serving
from kerascnn.serving import FORMATS
from kerascnn.serving.publish import read_manifest

jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)

LAYER = """
import keras


@keras.saving.register_keras_serializable(package="elsewhere_test")
class Negative(keras.layers.Layer):
    def call(self, x):
        return 255.0 - x


@keras.saving.register_keras_serializable(package="elsewhere_test")
def halved_relu(x):
    return keras.ops.relu(x) / 2


class Plain(keras.layers.Layer):  # not registered: found by its module
    def call(self, x):
        return x * 0.5
"""

SCRIPT = """
import json, sys
import keras, numpy as np
from kerascnn import serving
from elsewhere_layers import Negative, Plain, halved_relu

folder, images = sys.argv[1], np.load(sys.argv[2])
keras.utils.set_random_seed(5)
model = keras.Sequential([
    keras.Input((16, 16, 3)),
    keras.layers.RandomFlip(),
    Negative(),
    Plain(),
    keras.layers.Rescaling(1 / 255),
    keras.layers.Conv2D(8, 3, activation=halved_relu),
    keras.layers.BatchNormalization(),
    keras.layers.Lambda(lambda x: x * 2),
    keras.layers.GlobalAveragePooling2D(),
    keras.layers.Dropout(0.5),
    keras.layers.Dense(4),
])
version = serving.export(model, folder, labels=list("abcd"))
image = keras.Input((16, 16, 3))
flat = keras.layers.Flatten()(image)
small = keras.Model(image, keras.layers.Dense(4, activation="softmax")(flat))
kept = serving.export(small, folder + "-keras", format="keras")
logits = np.asarray(model.predict(images, verbose=0), np.float64)
powers = np.exp(logits)
np.save(sys.argv[3], powers / powers.sum(axis=-1, keepdims=True))


class Local(keras.layers.Layer):
    def call(self, x):
        return x


try:
    serving.export(keras.Sequential([model, Local()]), folder, from_logits=True)
    refused = None
except serving.ExportError as error:
    refused = str(error)
print(json.dumps({
    "backend": keras.backend.backend(),
    "tensorflow": "tensorflow" in sys.modules,
    "version": str(version),
    "keras": str(kept),
    "refused": refused,
}))
"""


@pytest.fixture(scope="module", params=["jax", "torch"])
def exported(request, tmp_path_factory):
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "elsewhere_layers.py").write_text(LAYER, encoding="utf-8")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    np.save(folder / "images.npy", images)
    root = Path(serving.__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            folder / "script.py",
            folder / "served",
            folder / "images.npy",
            folder / "expected.npy",
        ],
        env={
            **os.environ,
            "KERAS_BACKEND": request.param,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(root),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)  # and nothing else was printed
    return report, images, np.load(folder / "expected.npy"), folder / "served"


def test_the_network_answers_the_same(exported):
    report, images, expected, _ = exported
    answer = serving.open_version(report["version"]).ask(images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert answer["label"] == ["abcd"[n] for n in expected.argmax(axis=-1)]
    four = np.repeat(images[:1], 4, axis=0)
    same = serving.open_version(report["version"]).ask(four)["probabilities"]
    assert np.ptp(same, axis=0).max() == 0


def test_its_keras_file_is_read_with_tensorflow(exported):
    version, backend = exported[0]["keras"], exported[0]["backend"]
    content = read_manifest(version)
    assert content["versions"]["backend"] == backend != "tensorflow"
    assert content["parity"]["images"] == 256
    (result,) = serving.verify(version)
    assert result.ok, result


@jax
@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "onnx", "openvino"])
def test_jax_network_in_other_formats(tmp_path, format):
    """They are written by the TensorFlow process."""
    pytest.importorskip(FORMATS[format].runtime, reason="its runtime is not there")
    script = (
        "import sys, keras\n"
        "from kerascnn import serving\n"
        "from zoo.lecture_cnn import lecture_cnn\n"
        "keras.utils.set_random_seed(3)\n"
        "model = lecture_cnn()\n"
        "model.save(sys.argv[1] + '/model.keras')\n"
        "folder, format = sys.argv[1:]\n"
        "serving.export(model, folder, format=format, activations=['pool1'])\n"
    )
    root = Path(serving.__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", script, tmp_path, format],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(root),
        },
        check=True,
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    expected = keras.saving.load_model(tmp_path / "model.keras").predict(images)
    answer = serving.open_version(tmp_path / "1").ask(images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    content = read_manifest(tmp_path / "1")
    assert content["versions"]["backend"] == "jax"
    assert content["activations"] == ["pool1"]
    assert content["parity"]["encoded"] <= 1e-5


def test_the_network_is_plain_tensorflow(exported):
    """No XlaCallModule, which a server on a CPU does not run."""
    served = tf.saved_model.load(exported[0]["version"])
    assert set(served.signatures) == {"serving_default", "serve_bytes"}
    content = (Path(exported[0]["version"]) / "saved_model.pb").read_bytes()
    (graph,) = SavedModel.FromString(content).meta_graphs
    operations = {
        node.op
        for function in graph.graph_def.library.function
        for node in function.node_def
    }
    assert "XlaCallModule" not in operations
    assert "Conv2D" in operations


def test_layers_of_a_script_are_refused(exported):
    report, _, _, folder = exported
    assert report["refused"].startswith("Local of __main__ cannot be imported")
    assert "define it at the top of a module" in report["refused"]
    assert "\n" not in report["refused"]
    assert sorted(path.name for path in folder.iterdir()) == ["1"]


def test_custom_classes_are_imported_by_module_and_name():
    from kerascnn.serving.tensorflow_process import _classes

    assert _classes([["collections", "OrderedDict"]])["OrderedDict"]
    for module, name in [("no_such_module", "Layer"), ("collections", "NoSuchLayer")]:
        with pytest.raises(serving.ExportError, match=rf"{name} of {module} cannot be"):
            _classes([[module, name]])


def test_without_tensorflow(tiny, tmp_path, monkeypatch):
    from kerascnn.serving import tensorflow_process

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(serving.ExportError, match="pip install tensorflow"):
        made = FORMATS["savedmodel"]
        tensorflow_process.build(tiny(), tmp_path, None, None, made, (), 1e-4)
