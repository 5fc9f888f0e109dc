"""What a version answers, from every kind of network and of source."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerascnn.training
import zoo
from kerascnn import serving
from kerascnn.serving import exporting, verification
from kerascnn.serving.exporting import Expected, check_images, refer
from zoo.googlenet import googlenet_imagenet


def probabilities(version, images):
    return serving.open_version(version).ask(images)["probabilities"]


def prove(version, reference, labels):
    made = serving.FORMATS["savedmodel"]
    return verification.prove(version, reference, labels, made, 1e-5)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_signatures(version):
    signatures = tf.saved_model.load(str(version)).signatures
    assert set(signatures) == {"serving_default", "serve_bytes"}
    taken = {
        name: signature.structured_input_signature[1]
        for name, signature in signatures.items()
    }
    assert taken == {
        "serving_default": {
            "image": tf.TensorSpec((None, 32, 32, 3), tf.uint8, name="image")
        },
        "serve_bytes": {
            "image_bytes": tf.TensorSpec((None,), tf.string, name="image_bytes")
        },
    }
    for signature in signatures.values():
        given = {
            name: (tuple(spec.shape), spec.dtype)
            for name, spec in signature.structured_outputs.items()
        }
        assert given["probabilities"] == ((None, 10), tf.float32)
        assert given["class_id"] == ((None,), tf.int64)
        assert given["label"] == ((None,), tf.string)
        assert len(given) == 3


def test_answers_are_those_of_the_network(version, network, images):
    answer = serving.open_version(version).ask(images)
    expected = network.predict(images, verbose=0)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert answer["probabilities"].dtype == np.float32
    assert answer["class_id"].dtype == np.int64
    assert answer["class_id"].tolist() == expected.argmax(axis=-1).tolist()
    assert answer["label"] == [f"animal {n}" for n in expected.argmax(axis=-1)]


def test_batches_of_one(version, images):
    served = serving.open_version(version)
    all_of_them = served.ask(images)["probabilities"]
    one = served.ask(images[:1])["probabilities"]
    assert np.abs(one - all_of_them[:1]).max() <= 1e-5


def test_weights_are_saved_once(version, network):
    """Keras saves those of a tracked model twice, which doubles a version's size."""
    saved = tf.train.list_variables(str(version / "variables" / "variables"))
    numbers = sum(int(np.prod(shape)) for _, shape in saved if shape)
    assert numbers == network.count_params()


def test_labels_beside_the_version(version):
    text = (version / "assets.extra" / "labels.txt").read_text(encoding="utf-8")
    assert text.splitlines() == [f"animal {number}" for number in range(10)]


def test_nothing_is_printed(tiny, tmp_path, capfd):
    serving.export(tiny(channels=3), tmp_path)
    assert capfd.readouterr().out == ""


# Networks


def test_augmentation_inside_is_off(tiny, tmp_path, tiny_images):
    layers = keras.layers
    model = tiny(
        layers.RandomFlip(),
        layers.RandomTranslation(0.3, 0.3),
        layers.RandomCrop(8, 8),
        layers.RandomBrightness(0.5),
        layers.Dropout(0.5),
    )
    four = np.repeat(tiny_images[:1], 4, axis=0)
    live = np.asarray(model(four))  # as `model.export` would trace it
    assert np.ptp(live, axis=0).max() > 1e-3
    version = serving.export(model, tmp_path)
    same = probabilities(version, four)
    assert np.ptp(same, axis=0).max() == 0
    expected = model.predict(tiny_images, verbose=0)
    assert np.abs(probabilities(version, tiny_images) - expected).max() <= 1e-5


def test_a_layer_random_at_inference_is_refused(tiny, tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + keras.random.uniform(keras.ops.shape(x), 0, 100)

    folder = tmp_path / "served"
    with pytest.raises(serving.ExportError, match=r"differs by .* random numbers"):
        serving.export(tiny(Noise()), folder)
    assert leftovers(folder) == []


@pytest.mark.parametrize("backbone", ["functional", "sequential"])
def test_nested_model(tiny, tmp_path, tiny_images, backbone):
    image = keras.Input((8, 8, 2), dtype="uint8")
    flipped = keras.layers.RandomFlip()(image)
    inner = tiny(keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization())
    if backbone == "functional":
        inner = keras.Model(inner.inputs[0], inner.outputs[0])
    model = keras.Model(image, inner(flipped))
    version = serving.export(model, tmp_path)
    expected = model.predict(tiny_images, verbose=0)
    assert np.abs(probabilities(version, tiny_images) - expected).max() <= 1e-5


def test_mixed_precision_answers_float32(tmp_path, tiny_images):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        image = keras.Input((8, 8, 2), name="image")
        x = keras.layers.Conv2D(8, 3, activation="relu")(image / 255.0)
        x = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x))
        model = keras.Model(image, x)
    finally:
        keras.config.set_dtype_policy(policy)
    expected = model.predict(tiny_images, verbose=0)
    assert expected.dtype != np.float32  # the model itself answers bfloat16
    served = probabilities(serving.export(model, tmp_path), tiny_images)
    assert served.dtype == np.float32
    assert np.abs(served - expected.astype(np.float32)).max() <= 1e-5


def test_logits_get_their_softmax(tiny, tmp_path, tiny_images):
    model = tiny(activation=None)
    served = probabilities(serving.export(model, tmp_path), tiny_images)
    logits = model.predict(tiny_images, verbose=0).astype(np.float64)
    powers = np.exp(logits)
    expected = powers / powers.sum(axis=-1, keepdims=True)
    assert np.abs(served - expected).max() <= 1e-5
    assert np.allclose(served.sum(axis=-1), 1, atol=1e-6)


def test_which_outputs_are_logits(tiny):
    layers, image = keras.layers, keras.Input((8, 8, 2))
    flat = layers.Flatten()(image / 255.0)
    logits, softmax = layers.Dense(3), layers.Dense(3, activation="softmax")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(image / 255.0))
    cases = [
        (logits(flat), True),
        (layers.Dropout(0.5)(logits(flat)), True),
        (layers.Activation(None, name="logits")(pooled), True),
        (softmax(flat), False),
        (layers.Softmax()(logits(flat)), False),
        (keras.ops.softmax(logits(flat)), False),
        (layers.Activation("softmax")(pooled), False),
        (layers.Activation("linear", dtype="float32")(softmax(flat)), False),
        (tiny()(image), False),
        (tiny(activation=None)(image), True),
        # not told by the last layer, but they are not negative and add up to 1
        (softmax(flat) * 1.0, False),
    ]
    for output, expected in cases:
        kind = "logits" if expected else "softmax"
        assert refer(keras.Model(image, output)).head.kind == kind, output


def test_averages_of_logits_are_logits(tmp_path, tiny_images):
    image = keras.Input((8, 8, 2))
    scaled = keras.layers.Rescaling(1 / 255)(image)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(scaled))
    model = keras.Model(image, pooled)
    expected = keras.ops.softmax(model.predict(tiny_images, verbose=0))
    for said in (None, True):
        version = serving.export(model, tmp_path, from_logits=said)
        assert np.abs(probabilities(version, tiny_images) - expected).max() <= 1e-5


@pytest.mark.parametrize("format", ["savedmodel", "keras"])
@pytest.mark.parametrize(
    ("units", "activation"), [(1, "sigmoid"), (1, None), (3, "sigmoid"), (4, None)]
)
def test_sigmoids_and_logits_are_served_as_they_mean(
    tmp_path, units, activation, format
):
    """One unit is the probability of class 1; several, each by itself."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    images = np.random.default_rng(2).integers(0, 256, (6, 8, 8, 2), np.uint8)
    given = model.predict(images, verbose=0).astype(np.float64)
    if activation is None:
        powers = np.exp(given)
        given = powers / (1 + powers if units == 1 else powers.sum(1, keepdims=True))
    expected = np.concatenate([1 - given, given], axis=1) if units == 1 else given
    labels = [f"class {n}" for n in range(max(2, units))]
    version = serving.export(model, tmp_path, labels=labels, format=format)
    answer = serving.open_version(version).ask(images)
    assert answer["probabilities"].dtype == np.float32
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert answer["label"] == [labels[n] for n in expected.argmax(axis=1)]


def test_what_is_not_a_classifier(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"not probabilities: they add up to"):
        serving.export(tiny(activation=None), tmp_path, from_logits=False)
    for activation in ("softmax", "sigmoid"):
        with pytest.raises(ValueError, match=f"ends in a {activation}: its outputs"):
            serving.export(tiny(activation=activation), tmp_path, from_logits=True)
    image = keras.Input((8, 8, 2))
    one = keras.layers.Dense(1, activation="softmax")(keras.layers.Flatten()(image))
    with pytest.raises(ValueError, match="one unit behind a softmax"):
        serving.export(keras.Model(image, one), tmp_path)
    maps = keras.layers.Conv2D(3, 1, activation="softmax")(image)
    with pytest.raises(ValueError, match=r"the shape \(None, 8, 8, 3\)"):
        serving.export(keras.Model(image, maps), tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 28, 28), (3, 16, 24), (4, 20, 8), (3, 8, 5)]
)
@pytest.mark.parametrize("told", ["by a layer", "by the shape"])
def test_channels_first_is_refused(tmp_path, shape, told):
    order = "channels_first" if told == "by a layer" else "channels_last"
    image = keras.Input(shape)
    pooled = keras.layers.GlobalAveragePooling2D(data_format=order)(image)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(pooled))
    with pytest.raises(ValueError, match=r"channels first, .*\(height, width"):
        serving.export(model, tmp_path)
    if told == "by a layer":  # and what the message says to do is taken
        own = keras.Input((*shape[1:], shape[0]))
        mended = keras.Model(own, model(keras.layers.Permute((3, 1, 2))(own)))
        assert serving.export(mended, tmp_path, images=2).name == "1"


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 2, 1), (2, 1, 3), (1, 2, 4)])
def test_images_under_three_pixels(tmp_path, shape):
    image = keras.Input(shape)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(flat))
    images = check_images(shape, 8)
    version = serving.export(model, tmp_path, images=8)
    expected = model.predict(images, verbose=0)
    assert np.abs(probabilities(version, images) - expected).max() <= 1e-5


@pytest.mark.parametrize("export", ["model.export", "tf.saved_model", "unlike"])
def test_savedmodels_of_others_are_named(tiny, tmp_path, export):
    folder = tmp_path / "1"
    if export == "model.export":
        tiny().export(str(folder), verbose=False)
    elif export == "tf.saved_model":
        tf.saved_model.save(tf.Module(), str(folder))
    else:
        module = tf.Module()
        spec = tf.TensorSpec((None, 8, 8, 2), tf.uint8, name="image")
        module.run = tf.function(lambda image: {"scores": image}, [spec])
        tf.saved_model.save(module, str(folder), {"serving_default": module.run})
    with pytest.raises(ValueError, match="none that kerascnn export wrote") as raised:
        serving.open_version(folder).ask(np.zeros((1, 8, 8, 2), np.uint8))
    assert "export the network with kerascnn export" in str(raised.value)


def test_inputs_that_are_no_image_of_a_fixed_size(tmp_path):
    dense = keras.layers.Dense(3, activation="softmax")
    any_size = keras.Input((None, None, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(any_size)
    with pytest.raises(ValueError, match=r"fixed size.*\(None, None, None, 3\)"):
        serving.export(keras.Model(any_size, dense(pooled)), tmp_path)
    row = keras.Input((3,))
    with pytest.raises(ValueError, match=r"fixed size.*\(None, 3\)"):
        serving.export(keras.Model(row, dense(row)), tmp_path)
    with pytest.raises(ValueError, match=r"no defined input.*keras.Model\(image"):
        serving.export(keras.Sequential([keras.layers.Flatten(), dense]), tmp_path)


def test_answers_that_are_not_finite(tiny, tmp_path):
    model = tiny()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(serving.ExportError, match="NaN or infinity"):
        serving.export(model, tmp_path)


@pytest.mark.parametrize("structure", ["list", "dictionary"])
def test_main_output_of_several(tmp_path, tiny_images, structure):
    image = keras.Input((8, 8, 2))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    main = keras.layers.Dense(3, activation="softmax")(flat)
    other = keras.layers.Dense(5, activation="softmax")(flat)
    # Sorted by its keys, as `model.outputs` is, the dictionary has "auxiliary" first.
    outputs = {
        "list": [main, other],
        "dictionary": {"auxiliary": other, "probabilities": main},
    }[structure]
    version = serving.export(keras.Model(image, outputs), tmp_path)
    expected = keras.Model(image, main).predict(tiny_images, verbose=0)
    assert np.abs(probabilities(version, tiny_images) - expected).max() <= 1e-5


@pytest.mark.slow
def test_googlenet_with_its_auxiliary_classifiers(tmp_path):
    model = googlenet_imagenet((96, 96, 3), 10, auxiliary=True)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    version = serving.export(model, tmp_path)
    expected = model.predict(images, verbose=0)[0]
    assert np.abs(probabilities(version, images) - expected).max() <= 1e-5


def test_reference_on_a_gpu_is_not_compiled_with_xla(tiny, monkeypatch):
    model = tiny(keras.layers.RandomFlip())
    on_cpu = refer(model).probabilities
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(model, "predict", None)
    assert np.abs(refer(model).probabilities - on_cpu).max() <= 1e-6


# Labels and sources


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "3 classes; received 2 labels"),
        (["a", "b", 3], "list of strings"),
        ("abc", "list of strings; received 'abc'"),
        (["a", "b", "c\nd"], "one line"),
        (["a", "b", ""], "one line"),
        (["a\n", "b\n", "c\n"], r"one line .*received 'a\\n'"),
        (["crane", "owl", "crane"], "no other class's; received 'crane'"),
    ],
)
def test_labels_that_do_not_fit(tiny, tmp_path, labels, message):
    folder = tmp_path / "served"
    with pytest.raises(ValueError, match=message):
        serving.export(tiny(), folder, labels=labels)
    assert leftovers(folder) == []


def test_labels_default_to_numbers(tiny, tmp_path, tiny_images):
    answer = serving.open_version(serving.export(tiny(), tmp_path)).ask(tiny_images)
    assert answer["label"] == [str(number) for number in answer["class_id"]]


def test_labels_in_other_scripts(tiny, tmp_path, tiny_images):
    names = ["Käfer", "猫", "fire truck"]
    version = serving.export(tiny(), tmp_path, labels=names)
    answer = serving.open_version(version).ask(tiny_images)
    assert answer["label"] == [names[number] for number in answer["class_id"]]
    text = (version / "assets.extra" / "labels.txt").read_text(encoding="utf-8")
    assert text.split("\n") == [*names, ""]


def test_run_folder_and_keras_file(tiny, tmp_path, tiny_images):
    model, labels = tiny(), ("ant", "bee", "cow")
    folder, served = tmp_path / "runs" / "tiny-1", tmp_path / "served"
    folder.mkdir(parents=True)
    file = folder / "model.keras"
    model.save(file)
    config = {"model": {"name": "tiny"}, "data": {"labels": labels}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    (folder / "history.csv").write_text("epoch,loss\n1,0.5\n", encoding="utf-8")

    expected = model.predict(tiny_images, verbose=0)
    names = [labels[number] for number in expected.argmax(axis=-1)]
    for source in (kerascnn.training.load_run(folder), folder, str(folder)):
        answer = serving.open_version(serving.export(source, served)).ask(tiny_images)
        assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
        assert answer["label"] == names
    renamed = serving.export(folder, served, labels=["x", "y", "z"])
    assert set(serving.open_version(renamed).ask(tiny_images)["label"]) <= set("xyz")

    answer = serving.open_version(serving.export(file, served)).ask(tiny_images)
    assert np.abs(answer["probabilities"] - expected).max() <= 1e-5
    assert answer["label"] == [str(number) for number in answer["class_id"]]
    assert leftovers(served) == ["1", "2", "3", "4", "5"]


def test_whatever_has_a_model_and_labels(tiny):
    model = tiny()
    run = types.SimpleNamespace(model=model, labels=("ant", "bee", "cow"))
    about = {"model": model.name, "source": {}, "accuracy": None}
    assert exporting.resolve(run) == (model, ("ant", "bee", "cow"), about)
    assert exporting.resolve(model) == (model, None, about)


def test_name_of_the_zoo(tiny, monkeypatch):
    model = tiny()
    monkeypatch.setattr(zoo, "names", lambda: ["tiny", "bare"])
    monkeypatch.setattr(zoo, "load", lambda name: model)
    cards = {"tiny": {"labels": ["ant", "bee", "cow"], "accuracy": 75.5}, "bare": {}}
    monkeypatch.setattr(
        zoo, "card", lambda name: types.SimpleNamespace(weights=cards[name])
    )
    found, labels, about = exporting.resolve("tiny")
    assert (found, labels) == (model, ("ant", "bee", "cow"))
    assert (about["model"], about["accuracy"]) == ("tiny", 75.5)
    assert about["source"] == {"weights": {"accuracy": 75.5}}
    found, labels, about = exporting.resolve("bare")
    assert (found, labels, about["accuracy"]) == (model, None, None)


def test_sources_that_do_not_exist(tmp_path):
    served = tmp_path / "served"
    with pytest.raises(ValueError, match=r"lecture_cn'.*lecture_cnn"):
        serving.export("lecture_cn", served)
    with pytest.raises(FileNotFoundError, match=r"gone\.keras"):
        serving.export(tmp_path / "gone.keras", served)
    with pytest.raises(FileNotFoundError, match="there is no runs/none"):
        serving.export("runs/none", served)
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        serving.export(tmp_path, served)
    with pytest.raises(TypeError, match="received int"):
        serving.export(3, served)
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no zip file")
    with pytest.raises(ValueError, match=r"broken\.keras"):
        serving.export(broken, served)
    assert leftovers(tmp_path) == ["broken.keras"]


# The comparison itself


def test_images_that_are_compared():
    images = check_images((32, 24, 3))
    assert images.shape == (256, 32, 24, 3) and images.dtype == np.uint8
    assert np.array_equal(images, check_images((32, 24, 3)))
    assert len(np.unique(images.reshape(256, -1), axis=0)) == 256
    # Neighbours of noise differ by a third of the range, those of waves by less.
    steps = np.abs(np.diff(images.astype(int), axis=2)).mean(axis=(1, 2, 3))
    assert steps[:128].min() > 70 and np.median(steps[128:]) < 50
    assert len(check_images((8, 8, 1), 3)) == 3
    with pytest.raises(ValueError, match="2 images or more; received images=1"):
        check_images((8, 8, 1), 1)


def test_proof_finds_what_is_wrong(version, network):
    good = refer(network)
    labels = [f"animal {number}" for number in range(10)]
    proof = prove(version, good, labels)
    parity = proof["parity"]
    assert set(parity) == {"images", "uint8", "encoded", "tolerance"}
    assert len(good.images) == parity["images"] == 256
    assert max(parity["uint8"], parity["encoded"]) <= parity["tolerance"] == 1e-5
    pixels, golden, tolerance = verification.golden_arrays(proof)
    assert np.array_equal(pixels, good.images[[0, -1]]) and tolerance == 1e-5
    assert np.abs(golden - good.probabilities[[0, -1]]).max() <= 1e-5

    def changed(probabilities):
        return Expected(**{**vars(good), "probabilities": probabilities})

    # One image of the last batch, so that none is left out.
    shifted = good.probabilities.copy()
    shifted[-1, 3] += np.float32(2e-5)
    with pytest.raises(serving.ExportError, match=r"uint8 images .* differs by 2"):
        prove(version, changed(shifted), labels)
    with pytest.raises(serving.ExportError, match="labels"):
        prove(version, good, labels[::-1])
    with pytest.raises(serving.ExportError, match=r"shape \(32, 10\)"):
        prove(version, changed(good.probabilities[:, :9]), labels)
    broken = good.probabilities.copy()
    broken[-1] = np.nan
    with pytest.raises(serving.ExportError, match="differs by nan"):
        prove(version, changed(broken), labels)


def test_encoded_images_are_compared_too(version, network, monkeypatch):
    """A version that decodes wrongly is refused."""
    whole = verification.png
    monkeypatch.setattr(verification, "png", lambda pixels: whole(255 - pixels))
    with pytest.raises(serving.ExportError, match="PNG files otherwise"):
        prove(version, refer(network), [f"animal {number}" for number in range(10)])


def test_precision_is_restored(tiny, tmp_path):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    with pytest.raises(ValueError, match="labels"):
        serving.export(tiny(), tmp_path, labels=["a"])
    assert enabled() is before
