"""Each format, read by its own runtime, answers as the network in Keras."""

import importlib.util
import json
import types
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import zoo
from kerascnn import serving
from kerascnn.serving import formats, publish, verification
from kerascnn.serving.verification import png

CONVERTED = ("litert", "onnx", "openvino")
WATCHED = ("conv1", "pool2")


def runtime(name):
    return pytest.importorskip(
        formats.FORMATS[name].runtime, reason=f"the runtime of {name} is not installed"
    )


class Outside:
    """A version as a program without kerascnn reads it: names, types, numbers."""

    def __init__(self, version, format):
        getattr(self, format)(runtime(format), version)

    def litert(self, litert, version):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(version / "model.tflite"))
        runner = self.interpreter.get_signature_runner("serving_default")
        details = runner.get_input_details()
        self.inputs = {k: np.dtype(v["dtype"]).name for k, v in details.items()}
        self.run = lambda images: runner(image=images)

    def onnx(self, onnxruntime, version):
        session = onnxruntime.InferenceSession(version / "model.onnx")
        kinds = {"tensor(uint8)": "uint8"}
        self.inputs = {v.name: kinds[v.type] for v in session.get_inputs()}
        names = [v.name for v in session.get_outputs()]
        self.run = lambda images: dict(
            zip(names, session.run(None, {"image": images}), strict=True)
        )

    def openvino(self, openvino, version):
        file = version / "model.xml"
        self.network = openvino.Core().compile_model(
            file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        self.inputs = {
            v.get_any_name(): v.get_element_type().to_dtype().name
            for v in self.network.inputs
        }
        self.run = lambda images: {
            output.get_any_name(): values
            for output, values in self.network({"image": images}).items()
        }


@pytest.fixture(scope="module")
def custom():
    """A network with layers of the zoo's own: fractional max pooling."""
    keras.utils.set_random_seed(11)
    model = zoo.build(
        "fractional_max_pooling", (9, 9, 3), width=0.05, levels=3, deterministic=True
    )
    # Untrained, its answers are all but equal: weights that tell images apart.
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(weight * 1.5)
    return model


@pytest.fixture(scope="module", params=CONVERTED)
def converted(request, network, tmp_path_factory):
    runtime(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    version = serving.export(
        network, folder, labels=ANIMALS, format=request.param, activations=WATCHED
    )
    return request.param, version


ANIMALS = [f"animal {number}" for number in range(10)]


def test_a_runtime_answers_as_the_network(converted, network, images):
    format, version = converted
    outside = Outside(version, format)
    assert outside.inputs == {"image": "uint8"}
    expected = network.predict(images, verbose=0)
    for count in (64, 1, 5):  # whatever number of images
        answer = outside.run(images[:count])
        assert answer["probabilities"].dtype == np.float32
        assert np.abs(answer["probabilities"] - expected[:count]).max() <= 1e-5
        assert answer["class_id"].dtype == np.int64
        assert answer["class_id"].tolist() == expected[:count].argmax(-1).tolist()


def test_answers_in_every_format(converted, version, network, images):
    """The same words for pixels and for files as a SavedModel has."""
    format, other = converted
    served = serving.open_version(other)
    assert (served.format, served.shape) == (format, (32, 32, 3))
    assert served.labels == ANIMALS
    expected = network.predict(images, verbose=0)
    answer = serving.open_version(other).ask(images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert answer["label"] == [ANIMALS[n] for n in expected.argmax(axis=-1)]
    files = [png(image) for image in images[:5]]
    by_file = served.ask(files)["probabilities"]
    by_graph = serving.open_version(version).ask(files)["probabilities"]
    assert np.abs(by_file - by_graph).max() <= 1e-5
    with pytest.raises(ValueError, match=r"\(N, 32, 32, 3\); received uint8 \(2, 8"):
        served.ask(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="received float64"):
        served.ask(np.zeros((2, 32, 32, 3)))
    with pytest.raises(ValueError, match="9 bytes are not a readable image"):
        served.ask([b"no image."])


def test_predict_files_in_every_format(converted, network, images, tmp_path):
    _, version = converted
    file = tmp_path / "image.png"
    file.write_bytes(png(images[0]))
    (prediction,) = serving.predict_files(version, [file])
    assert serving.answers(version, images[:1]) == [replace(prediction, asked=0)]
    found, answer = prediction.asked, prediction.probabilities
    expected = network.predict(images[:1], verbose=0)[0]
    assert found == file and list(answer) == [ANIMALS[i] for i in np.argsort(-expected)]
    assert np.abs(np.array(list(answer.values())) - np.sort(expected)[::-1]).max() < (
        1e-5
    )


def test_activations(converted, network, images):
    """Under a signature of their own in LiteRT, as further outputs elsewhere."""
    format, version = converted
    outside = Outside(version, format)
    if format == "litert":
        look = outside.interpreter.get_signature_runner("activations")
        seen = look(image=images[:3])
        assert set(seen) == set(WATCHED)
        assert set(outside.run(images[:3])) == {"probabilities", "class_id"}
    else:
        seen = outside.run(images[:3])
        assert set(seen) == {*WATCHED, "probabilities", "class_id"}
    for name in WATCHED:
        model = keras.Model(network.inputs, network.get_layer(name).output)
        expected = model.predict(images[:3], verbose=0)
        assert seen[name].shape == expected.shape
        assert np.abs(seen[name] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert publish.read_manifest(version)["activations"] == list(WATCHED)


@pytest.mark.parametrize("format", CONVERTED)
def test_layers_of_the_zoo(custom, tmp_path, format):
    runtime(format)
    images = np.random.default_rng(1).integers(0, 256, (8, 9, 9, 3), np.uint8)
    version = serving.export(custom, tmp_path, format=format, images=32)
    expected = custom.predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it tells images apart
    answer = Outside(version, format).run(images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5


@pytest.mark.parametrize("format", ["savedmodel", *CONVERTED])
def test_operations_that_converters_stumble_over(tiny, tmp_path, tiny_images, format):
    """A convolution in groups, for Keras a function to be compiled by XLA; GELU."""
    runtime(format)
    model = tiny(
        keras.layers.Rescaling(1 / 127.5, -1.0),
        keras.layers.Conv2D(4, 3, groups=2, activation="gelu"),
        keras.layers.Rescaling(127.5, 127.5),
    )
    version = serving.export(model, tmp_path, format=format, images=2)
    expected = model.predict(tiny_images, verbose=0)
    answer = serving.open_version(version).ask(tiny_images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    if format == "savedmodel":  # nor does a server compile for a CPU
        graph = (version / "saved_model.pb").read_bytes()
        assert b"Conv2D" in graph and b"_XlaMustCompile" not in graph
    assert tf.config.functions_run_eagerly() is False


class TensorFlowOnly(keras.layers.Layer):
    """A layer that no other runtime knows."""

    def call(self, x):
        pooled = tf.raw_ops.FractionalMaxPool(
            value=tf.cast(x, tf.float32),
            pooling_ratio=[1.0, 1.44, 1.44, 1.0],
            deterministic=True,
            seed=1,
            seed2=1,
        )
        return tf.ensure_shape(pooled.output, (None, 5, 5, x.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 5, 5, input_shape[-1])


@pytest.mark.parametrize("format", CONVERTED)
def test_what_a_format_cannot_express(tiny, tmp_path, format):
    runtime(format)
    folder = tmp_path / "served"
    with pytest.raises(serving.ExportError) as raised:
        serving.export(tiny(TensorFlowOnly()), folder, format=format)
    message = str(raised.value)
    assert message.startswith(f"{formats.FORMATS[format].title} cannot express")
    assert "FractionalMaxPool" in message and "\n" not in message
    assert list(folder.iterdir()) == []


def test_openvino_reads_the_savedmodel_itself(version, network, images):
    openvino = runtime("openvino")
    core = openvino.Core()
    served = core.compile_model(
        core.read_model(version), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answer = served({"image": images})
    expected = network.predict(images, verbose=0)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert list(answer["label"]) == [ANIMALS[n] for n in expected.argmax(axis=-1)]


@pytest.mark.slow
@pytest.mark.parametrize("format", CONVERTED)
@pytest.mark.parametrize("name", zoo.names())
def test_every_network_of_the_zoo(name, format, tmp_path):
    """`export` itself compares."""
    runtime(format)
    model = zoo.build(name, **zoo.card(name).slim)
    version = serving.export(model, tmp_path, format=format, images=4)
    parity = publish.read_manifest(version)["parity"]
    assert max(parity["uint8"], parity["encoded"]) <= 1e-5


# Keras


def test_keras_file(tiny, tmp_path, tiny_images):
    model = tiny()
    version = serving.export(model, tmp_path, format="keras")
    expected = model.predict(tiny_images, verbose=0)
    answer = serving.open_version(version).ask(tiny_images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    read = keras.saving.load_model(version / "model.keras")
    assert [layer.name for layer in read.layers] == [v.name for v in model.layers]


def test_tolerance(tiny, tmp_path):
    with pytest.raises(serving.ExportError, match="pass a greater tolerance"):
        serving.export(tiny(), tmp_path, format="keras", images=2, tolerance=-1.0)
    version = serving.export(tiny(), tmp_path, format="keras", images=2, tolerance=0.5)
    content = publish.read_manifest(version)
    assert content["parity"]["tolerance"] == content["golden"]["tolerance"] == 0.5


def test_keras_file_ends_in_probabilities_alone(tiny, tmp_path, tiny_images):
    logits = tiny(activation=None)
    version = serving.export(logits, tmp_path, format="keras")
    expected = keras.ops.softmax(logits.predict(tiny_images, verbose=0))
    answer = serving.open_version(version).ask(tiny_images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5

    image = keras.Input((8, 8, 2))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    main, other = (keras.layers.Dense(3, activation="softmax")(flat) for _ in range(2))
    model = keras.Model(image, {"auxiliary": other, "probabilities": main})
    version = serving.export(model, tmp_path, format="keras")
    expected = keras.Model(image, main).predict(tiny_images, verbose=0)
    answer = serving.open_version(version).ask(tiny_images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5


def test_keras_file_that_cannot_be_read_back(tiny, tmp_path):
    model = tiny(keras.layers.Lambda(lambda x: x * 2.0))
    with pytest.raises(serving.ExportError, match="Keras that was written cannot be"):
        serving.export(model, tmp_path, format="keras")
    with pytest.raises(ValueError, match=r"leave activations out, received \('a',\)"):
        serving.export(tiny(), tmp_path, format="keras", activations=("a",))
    assert list(tmp_path.iterdir()) == []


# Activations


def test_activations_of_a_savedmodel(tmp_path, tiny_images):
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 2), name="image")
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, name="conv1"),
            keras.layers.RandomFlip(),
            keras.layers.Conv2D(5, 3, name="conv2"),
        ],
        name="encoder",
    )
    x = keras.layers.Flatten(name="flat")(inner(image / 255.0))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    names = ("encoder/conv1", "encoder", "flat", "encoder/conv2")
    version = serving.export(model, tmp_path, activations=names)
    signatures = tf.saved_model.load(str(version)).signatures
    assert set(signatures) == {"serving_default", "activations"}
    seen = signatures["activations"](image=tf.constant(tiny_images))
    assert set(seen) == set(names)
    conv1, _, conv2 = inner.layers
    first = conv1(tiny_images / np.float32(255))
    expected = {"encoder/conv1": first, "encoder/conv2": conv2(first)}
    expected["encoder"] = expected["encoder/conv2"]
    expected["flat"] = np.reshape(expected["encoder"], (6, -1))
    for name in names:
        assert seen[name].dtype == tf.float32
        assert np.abs(seen[name] - expected[name]).max() <= 1e-5, name
    assert publish.read_manifest(version)["signatures"] == [
        "serving_default",
        "activations",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv_1"], "no layer 'conv_1': did you mean conv1"),
        (["zzz"], "no layer 'zzz': it has "),
        (["conv1", "conv1"], "'conv1' twice"),
        (["probabilities"], "output 'probabilities' already"),
        (["shared"], "'shared' is called 2 times"),
        (["two"], "output of the layer 'two' is 2 tensors"),
    ],
)
def test_activations_that_are_not_there(tmp_path, names, message):
    class Two(keras.layers.Layer):
        def call(self, x):
            return x, x + 1.0

        def compute_output_shape(self, input_shape):
            return input_shape, input_shape

    image = keras.Input((8, 8, 2))
    shared = keras.layers.Conv2D(2, 3, padding="same", name="shared")
    x = keras.layers.Conv2D(2, 3, padding="same", name="conv1")(image / 255.0)
    x, _ = Two(name="two")(shared(shared(x)))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
    with pytest.raises(ValueError, match=message):
        serving.export(keras.Model(image, x), tmp_path / "served", activations=names)
    with pytest.raises(TypeError, match="received 'conv1'"):
        serving.export(keras.Model(image, x), tmp_path, activations="conv1")
    assert list(tmp_path.iterdir()) == []


# What is needed


def test_unknown_format(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"savedmodel, litert, .*received 'tflite'"):
        serving.export(tiny(), tmp_path, format="tflite")


@pytest.mark.parametrize(
    ("format", "missing", "command"),
    [
        ("savedmodel", "tensorflow", "pip install tensorflow"),
        ("onnx", "tensorflow", "pip install tensorflow"),
        ("onnx", "tf2onnx", 'pip install "kerascnn[onnx]"'),
        ("onnx", "onnxruntime", 'pip install "kerascnn[onnx]"'),
        ("openvino", "openvino", 'pip install "kerascnn[openvino]"'),
        ("litert", "ai_edge_litert", 'pip install "kerascnn[litert]"'),
    ],
)
def test_a_package_that_is_missing(tmp_path, monkeypatch, format, missing, command):
    find = importlib.util.find_spec
    for package in formats.FORMATS[format].writers:
        if package != missing and find(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == missing else find(n)
    )
    with pytest.raises(ModuleNotFoundError) as raised:
        serving.export("no such network", tmp_path, format=format)
    assert str(raised.value) == f"the format {format} needs {missing}: {command}"


def test_a_runtime_that_is_missing(converted, monkeypatch):
    format, version = converted
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=rf'"kerascnn\[{format}\]"'):
        serving.open_version(version)


def test_which_folders_are_versions(converted, version, tmp_path):
    assert formats.format_of(version).name == "savedmodel"
    assert formats.format_of(converted[1]).name == converted[0]
    assert not serving.is_version(version.parent)
    assert not serving.is_version(tmp_path / "nowhere")
    (tmp_path / "model.keras").touch()  # a run folder has one too
    assert not serving.is_version(tmp_path)
    with pytest.raises(ValueError, match="holds no version"):
        serving.open_version(tmp_path).ask(np.zeros((1, 8, 8, 3), np.uint8))
    (tmp_path / "model.onnx").touch()
    assert formats.format_of(tmp_path).name == "onnx"
    (tmp_path / "manifest.json").write_text("{", encoding="utf-8")
    assert formats.format_of(tmp_path).name == "onnx"


# The manifest


def test_manifest(version, network):
    content = publish.read_manifest(version)
    assert content["manifest"] == 1
    assert (content["model"], content["format"]) == ("lecture_cnn", "savedmodel")
    assert content["input"] == {
        "name": "image",
        "dtype": "uint8",
        "shape": [None, 32, 32, 3],
    }
    assert content["outputs"]["probabilities"]["shape"] == [None, 10]
    assert set(content["outputs"]) == {"probabilities", "class_id", "label"}
    assert content["signatures"] == ["serving_default", "serve_bytes"]
    assert content["labels"] == ANIMALS
    assert {"python", "backend", "keras", "kerascnn", "numpy"} <= set(
        content["versions"]
    )
    assert content["versions"]["backend"] == keras.backend.backend()
    parity = content["parity"]
    assert parity["images"] == 256 and parity["tolerance"] == 1e-5
    assert max(parity["uint8"], parity["encoded"]) <= 1e-5
    files = {
        path.relative_to(version).as_posix()
        for path in version.rglob("*")
        if path.is_file()
    }
    assert set(content["files"]) == files - {"manifest.json"}
    pixels, expected, _ = verification.golden_arrays(content)
    assert np.abs(network.predict(pixels, verbose=0) - expected).max() <= 1e-5
    assert content["golden"]["answer"]["class_id"] == expected.argmax(-1).tolist()


def test_manifest_tells_the_run(tiny, tmp_path):
    config = {"data": {"title": "Insects", "fingerprint": "1f"}, "seed": 3}
    run = types.SimpleNamespace(
        model=tiny(),
        labels=("ant", "bee", "cow"),
        name="tiny",
        folder=tmp_path / "runs" / "tiny-1",
        config=config,
        metrics={"test_accuracy": 61.5},
    )
    path = serving.export(run, tmp_path / "served", format="keras", images=4)
    content = publish.read_manifest(path)
    assert content["source"] == {
        "run": "tiny-1",
        "config": config,
        "metrics": {"test_accuracy": 61.5},
    }
    assert (content["model"], content["accuracy"]) == ("tiny", 61.5)
    (found,) = serving.versions(tmp_path / "served")
    assert (found.data, found.accuracy, found.model) == ("Insects", 61.5, "tiny")
    file = tmp_path / "a.keras"
    run.model.save(file)
    path = serving.export(file, tmp_path / "served", format="keras", images=4)
    assert publish.read_manifest(path)["source"] == {
        "file": "a.keras",
        "sha256": publish.sha256(file),
    }


def test_damaged_manifest(tmp_path):
    assert publish.read_manifest(tmp_path) is None
    file = tmp_path / "manifest.json"
    for content in ("{", "[]", json.dumps({"files": 3}), "\xff"):
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            publish.read_manifest(tmp_path)
    with pytest.raises(ValueError, match="no golden request"):
        verification.golden_arrays({"files": {}})
