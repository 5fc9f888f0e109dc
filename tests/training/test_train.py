"""The shared routine: what it writes, resumes, refuses and learns."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import Stop, assert_same_weights, busy_model
from PIL import Image

import kerascnn
import zoo
from kerascnn.data import Augmentation
from kerascnn.training import (
    TrainingDivergedError,
    evaluate,
    load_run,
    resume,
    train,
)
from kerascnn.training.feed import Feed
from kerascnn.training.network import in_logits, logits_model, set_precision

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01}


def test_a_run_folder_holds_everything(data, tmp_path):
    run = train("lecture_cnn", data, QUICK, runs=tmp_path, progress=False)
    assert run.folder == tmp_path / "lecture_cnn-bands-1"
    assert {p.name for p in run.folder.iterdir()} == {
        "config.json",
        "curves.png",
        "history.csv",
        "metrics.json",
        "model.keras",
        "summary.txt",
    }
    again = load_run(run.folder)
    assert again.history == run.history and len(run.history) == 2
    assert again.metrics == json.loads(json.dumps(run.metrics))
    assert again.labels == data.labels
    assert again.config["recipe"]["epochs"] == 2
    assert again.config["data"]["fingerprint"] == data.fingerprint
    np.testing.assert_array_equal(
        again.model.predict(data.test.x, verbose=0),
        run.model.predict(data.test.x, verbose=0),
    )
    assert (
        "512·3" in (run.folder / "summary.txt").read_text()
        or "conv1" in (run.folder / "summary.txt").read_text()
    )
    second = train("lecture_cnn", data, QUICK, runs=tmp_path, progress=False)
    assert second.folder.name == "lecture_cnn-bands-2"
    assert_same_weights(run.model, second.model)  # one seed, one result


def test_seeds_differ(data, tmp_path):
    one, two = (
        train("linear", data, QUICK, runs=tmp_path, progress=False, seed=seed)
        for seed in (1, 2)
    )
    kernels = [np.asarray(run.model.get_layer("fc").kernel) for run in (one, two)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_it_learns_for_two_classes_and_other_sizes(data_maker, tmp_path):
    for classes, shape in ((2, (9, 14, 1)), (5, (16, 16, 4))):
        data = data_maker(classes, shape, train=200)
        run = train(
            "lecture_cnn",
            data,
            {**QUICK, "epochs": 8, "learning_rate": 0.005, "flip": True, "crop": 1},
            runs=tmp_path,
            progress=False,
        )
        assert run.metrics["test_accuracy"] > 80
        assert run.history[-1]["loss"] < run.history[0]["loss"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "nesterov": True, "flip": True, "crop": 2},
        pytest.param({"ema": 0.9, "keep": "best", "cutout": 4}, marks=SLOW),
        pytest.param({"optimizer": "muon", "weight_decay": 0.01}, marks=SLOW),
        {
            "optimizer": "adamw",
            "weight_decay": 0.01,
            "ema": 0.9,
            "warmup": 1,
            "schedule": "exponential",
            "decay": 0.7,
        },
        pytest.param(
            {
                "optimizer": "sgd",
                "nesterov": True,
                "schedule": "points",
                "milestones": (0, 1, 4),
                "rates": (0.2, 1, 0.1),
                "lookahead": 3,
                "bias_rate": 8,
                "alternate_flip": True,
                "keep": "best",
            },
            marks=SLOW,
        ),
    ],
    ids=["sgd", "ema-best", "muon", "adamw-ema", "airbench-best"],
)
def test_resumed_equals_uninterrupted(data, tmp_path, recipe):
    recipe = {**QUICK, "epochs": 4, **recipe}
    keras.utils.set_random_seed(1)  # also seeds the dropout of the model
    whole = train(busy_model(), data, recipe, seed=3, runs=tmp_path, progress=False)
    keras.utils.set_random_seed(1)
    broken = busy_model()
    folder = tmp_path / "broken"
    for epoch in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            if epoch == 0:
                train(
                    broken,
                    data,
                    recipe,
                    seed=3,
                    folder=folder,
                    progress=False,
                    callbacks=[Stop(epoch)],
                )
            else:
                resume(folder, data=data, progress=False, callbacks=[Stop(epoch)])
    run = resume(folder, data=data, progress=False)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]
    for one, other in zip(whole.history, run.history, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert one[key] == other[key]
    assert_same_weights(whole.model, run.model)
    assert resume(folder, data=data).metrics == load_run(folder).metrics


def test_early_stopping_and_the_best_epoch(data, tmp_path):
    recipe = {**QUICK, "epochs": 30, "early_stopping": 2, "keep": "best"}
    run = train("linear", data, recipe, runs=tmp_path, progress=False)
    best = run.metrics["best_epoch"]
    assert run.metrics["stopped_early"]
    assert len(run.history) == best + 2 < 30
    kept = run.metrics["validation_accuracy"]
    assert kept == pytest.approx(100 * run.history[best - 1]["val_accuracy"], abs=1e-3)


def test_label_smoothing_and_average_change_the_result(data, tmp_path):
    losses = [
        train("linear", data, {**QUICK, **more}, runs=tmp_path, progress=False)
        for more in ({}, {"label_smoothing": 0.2}, {"ema": 0.99})
    ]
    kernels = [np.asarray(run.model.get_layer("fc").kernel) for run in losses]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-4


def test_the_recipe_reaches_the_training(data, tmp_path):
    recipe = {**QUICK, "epochs": 1, "schedule": "points", "milestones": (0, 2)}
    runs = [
        train("linear", data, {**recipe, **more}, runs=tmp_path, progress=False)
        for more in ({"rates": (1, 1)}, {"rates": (1, 1), "alternate_flip": True})
    ]
    assert runs[0].history[0]["loss"] != runs[1].history[0]["loss"]
    run = train("linear", data, {**recipe, "rates": (1, 0)}, runs=tmp_path)
    assert run.history[0]["learning_rate"] == pytest.approx(0.005, rel=1e-5)
    with pytest.raises(ValueError, match="linear trains none: set it to 1; received 2"):
        train("linear", data, {**QUICK, "bias_rate": 2}, runs=tmp_path)


def test_lookahead_against_a_plain_loop(data, tmp_path):
    """Blended after 4 and 8 of 10 steps, 5 an epoch, all of which Keras runs at once.

    What counts, at the end of an epoch and of the training, are the slow weights.
    """
    recipe = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "schedule": "constant",
        "lookahead": 4,
        "precision": "float32",
    }
    model = busy_model(dropout=0)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    run = train(model, data, recipe, seed=3, runs=tmp_path, progress=False)

    feed = Feed(data.train, 3, 16, seed=3, augmentation=Augmentation())
    trained, heads = logits_model(other)
    from_logits = in_logits(heads[0])
    trained.compile(
        keras.optimizers.SGD(0.5, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=from_logits),
    )
    slow, step, total = other.get_weights(), 0, 2 * len(feed)
    assert total == 10
    for row in run.history:
        feed.start(row["epoch"] - 1)
        for i in range(len(feed)):
            trained.train_on_batch(*feed[i])
            step += 1
            if step % 4 == 0:
                decay = 0.95**4 * (step / total) ** 3
                pairs = zip(slow, other.get_weights(), strict=True)
                slow = [decay * s + (1 - decay) * w for s, w in pairs]
                other.set_weights(slow)
        fast = other.get_weights()
        other.set_weights(slow)
        table = np.eye(3, dtype=np.float32)
        loss = trained.evaluate(data.validation.x, table[data.validation.y], verbose=0)
        assert row["val_loss"] == pytest.approx(loss, rel=1e-3)
        other.set_weights(fast)
    for found, expected, other in zip(model.get_weights(), slow, fast, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert np.abs(other - expected).max() > 1e-3


def test_float16_with_lookahead(data, tmp_path):
    run = train(
        busy_model(),
        data,
        {**QUICK, "precision": "mixed_float16", "lookahead": 2, "bias_rate": 2},
        runs=tmp_path,
        progress=False,
    )
    assert np.isfinite(run.history[-1]["loss"])


@pytest.mark.slow
def test_the_test_set_is_measured_by_the_protocol_of_the_recipe(data, tmp_path):
    recipe = {**QUICK, "views": 6, "passes": 2}
    run = train("linear", data, recipe, runs=tmp_path, progress=False)
    single = evaluate(run.model, data.test)
    averaged = evaluate(run.model, data.test, views=6, passes=2)
    assert averaged.loss != single.loss
    assert run.metrics["test_loss"] == pytest.approx(averaged.loss, rel=1e-5)
    assert run.metrics["test_accuracy"] == averaged.accuracy
    assert run.metrics["test_accuracy_averaged"] == averaged.accuracy
    assert run.metrics["test_accuracy_single"] == single.accuracy
    assert "20 images, mean of 6 views and 2 passes" in str(run)
    config = load_run(run.folder).config["recipe"]
    assert (config["views"], config["passes"]) == (6, 2)
    plain = train("linear", data, QUICK, runs=tmp_path, progress=False)
    assert "test_accuracy_single" not in plain.metrics
    assert plain.metrics["test_loss"] == pytest.approx(
        evaluate(plain.model, data.test).loss, rel=1e-5
    )


def test_half_precision_trains_and_leaves_a_float32_model(data, tmp_path):
    run = train(
        "lecture_cnn",
        data,
        {**QUICK, "epochs": 4, "precision": "mixed_bfloat16"},
        runs=tmp_path,
        progress=False,
    )
    assert run.config["precision"] == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in run.model.layers} == {"float32"}
    assert {v.dtype for v in run.model.weights} == {"float32"}
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    trained, _ = logits_model(zoo.build("lecture_cnn"))
    set_precision(trained, "mixed_bfloat16")
    output = trained(np.zeros((1, 32, 32, 3), np.uint8))
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"


def test_float16_scales_its_loss(data, tmp_path):
    run = train(
        "linear",
        data,
        {**QUICK, "precision": "mixed_float16"},
        runs=tmp_path,
        progress=False,
    )
    assert np.isfinite(run.history[-1]["loss"])


def test_several_outputs_with_their_weights(data, tmp_path):
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = [
        keras.layers.Dense(3, activation="softmax", name=f"out{i}")(x) for i in range(3)
    ]
    model = keras.Model(inputs, outputs, name="three")
    recipe = {**QUICK, "epochs": 6, "loss_weights": (1, 0.3, 0.3)}
    run = train(model, data, recipe, runs=tmp_path, progress=False)
    assert run.metrics["test_accuracy"] > 60
    with pytest.raises(ValueError, match="3 outputs; received loss_weights"):
        train(model, data, {**recipe, "loss_weights": (1, 2)}, runs=tmp_path)


def test_the_model_that_is_trained_ends_in_logits():
    model = zoo.build("lecture_cnn")
    trained, heads = logits_model(model)
    assert in_logits(heads[0])
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    logits = keras.ops.convert_to_tensor(trained(x))
    np.testing.assert_allclose(
        keras.ops.softmax(logits), np.asarray(model(x)), atol=1e-6
    )
    sequential = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    trained, heads = logits_model(sequential)
    assert not in_logits(heads[0])  # the softmax is inside the dense layer


def test_a_loss_that_is_not_finite_stops_with_advice(data, tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"epoch \d.*learning rate of 1e\+"):
        train(
            "lecture_cnn",
            data,
            {
                "epochs": 5,
                "optimizer": "sgd",
                "learning_rate": 1e20,
                "schedule": "constant",
            },
            runs=tmp_path,
            progress=False,
        )


def test_what_does_not_fit_is_named(data, tmp_path):
    with pytest.raises(ValueError, match=r"the images of bands are \(12, 12, 3\)"):
        train(zoo.build("lecture_cnn"), data, QUICK, runs=tmp_path)
    with pytest.raises(ValueError, match=r"answers with \(7,\), bands has 3 classes"):
        train(zoo.build("lecture_cnn", (12, 12, 3), 7), data, QUICK, runs=tmp_path)
    with pytest.raises(ValueError, match="not built"):
        train(keras.Sequential([keras.layers.Dense(3)]), data, QUICK, runs=tmp_path)
    with pytest.raises(ValueError, match="options are for the builder"):
        train(busy_model(), data, QUICK, runs=tmp_path, options={"use_bias": True})
    with pytest.raises(zoo.UnknownNetworkError, match="lecture_cnn"):
        train("lecture_cn", data, QUICK, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_a_folder_is_never_overwritten(data, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="not overwritten"):
        train("linear", data, QUICK, folder=tmp_path / "mine")


def test_resume_refuses_other_data_and_empty_folders(data, data_maker, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train("linear", data, QUICK, folder=folder, progress=False, callbacks=[Stop(0)])
    with pytest.raises(ValueError, match="the data is not the same as before"):
        resume(folder, data=data_maker(seed=9))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\.npz"):
        resume(tmp_path)
    state = folder / "checkpoint.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        resume(folder, data=data)


def test_l2_does_not_stay_in_the_model(data, tmp_path):
    model = busy_model()
    train(model, data, {**QUICK, "l2": 0.1}, runs=tmp_path, progress=False)
    assert model.losses == []


NO_TENSORFLOW = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'")
sys.meta_path.insert(0, Block())
sys.path.insert(0, sys.argv[2])
from conftest import make_data
import kerascnn
run = kerascnn.train("lecture_cnn", make_data(), epochs=1, runs=sys.argv[1])
print(run.metrics["epochs"], "tensorflow" in sys.modules)
"""


def test_jax_trains_where_tensorflow_is_not_installed(tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed: pip install kerascnn[jax]")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            NO_TENSORFLOW,
            str(tmp_path),
            os.path.dirname(__file__),
        ],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["1", "False"], done.stderr[-2000:]


def test_kerascnn_names_are_public():
    assert kerascnn.train is train and kerascnn.resume is resume


def small(end, units=3, name=None, layer="fc", shape=(12, 12, 3)):
    """A linear network with a start of its own, and any end."""
    keras.utils.set_random_seed(1)
    image = keras.Input(shape)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, end(keras.layers.Dense(units, name=layer)(x)), name=name)


def test_a_softmax_is_trained_alike_however_it_is_written(data, tmp_path):
    def cast(x):
        x = keras.layers.Softmax()(x)
        return keras.layers.Activation("linear", dtype="float32")(x)

    ends = (keras.layers.Softmax(), keras.ops.softmax, cast, lambda x: x)
    runs = [
        train(small(end), data, QUICK, runs=tmp_path, progress=False) for end in ends
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(
            run.model.get_layer("fc").kernel, runs[0].model.get_layer("fc").kernel
        )
        assert run.metrics["test_loss"] == pytest.approx(
            runs[0].metrics["test_loss"], rel=1e-4
        )


@pytest.mark.parametrize(
    ("units", "activation"), [(1, "sigmoid"), (1, None), (3, "sigmoid")]
)
def test_sigmoids_are_trained_by_their_own_loss(
    data_maker, tmp_path, units, activation
):
    data = data_maker(classes=max(units, 2))
    recipe = {**QUICK, "epochs": 4, "precision": "float32"}
    model = small(keras.layers.Activation(activation), units)
    run = train(model, data, recipe, runs=tmp_path, progress=False)
    assert run.metrics["test_accuracy"] > 90
    assert run.history[-1]["val_accuracy"] == pytest.approx(
        run.metrics["validation_accuracy"] / 100
    )
    # The binary cross-entropy, by hand.
    found = np.asarray(model.predict(data.validation.x, verbose=0), np.float64)
    p = found if activation else 1 / (1 + np.exp(-found))
    y = np.eye(units)[data.validation.y] if units > 1 else data.validation.y[:, None]
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert run.history[-1]["val_loss"] == pytest.approx(loss, rel=1e-3)
    assert evaluate(model, data.validation).loss == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("names", [("probabilities",), ("b", "a"), ("a", "logits")])
def test_of_a_dictionary_the_answer_is_trained(data, tmp_path, names):
    def end(x):
        return {n: keras.layers.Dense(3, "softmax")(x) for n in names} | {"features": x}

    model = small(end, 5)
    run = train(model, data, {**QUICK, "epochs": 6}, runs=tmp_path, progress=False)
    assert run.metrics["test_accuracy"] > 60
    again = load_run(run.folder)
    assert evaluate(again, data).accuracy == run.metrics["test_accuracy"]
    name = "logits" if "logits" in names else names[0]
    answers = again.model.predict(data.test.x, verbose=0)[name].argmax(1)
    assert 100 * (answers == data.test.y).mean() == run.metrics["test_accuracy"]


@pytest.mark.parametrize("name", ["my model", "réseau", "_x", "a:b", "$a_{$"])
def test_no_work_is_lost_to_a_name(data, tmp_path, name):
    small(keras.layers.Softmax(), name=name).save(tmp_path / "mine.keras")
    for model in (
        small(keras.layers.Softmax(), name=name),
        keras.models.load_model(tmp_path / "mine.keras"),
    ):
        run = train(model, data, QUICK, runs=tmp_path, progress=False)
        assert evaluate(load_run(run.folder), data).images == 20
    folder = tmp_path / "broken off"
    with pytest.raises(KeyboardInterrupt, match=r"--resume .*broken off$"):
        model = small(keras.layers.Softmax(), name=name)
        train(model, data, QUICK, folder=folder, progress=False, callbacks=[Stop(1)])
    assert resume(folder, data=data, progress=False).metrics["epochs"] == 2


class Unwritable(keras.layers.Layer):
    def call(self, x):
        return keras.ops.softmax(x)

    def get_config(self):
        raise NotImplementedError("this layer has no config")


class Unsavable(keras.layers.Layer):
    def call(self, x):
        return keras.ops.softmax(x)

    def save_own_variables(self, store):
        raise RuntimeError("these variables are secret")


def test_what_cannot_be_kept_is_refused_before_there_is_a_folder(data, tmp_path):
    for layer, why in ((Unwritable, "no config"), (Unsavable, "secret")):
        with pytest.raises(ValueError, match=f"cannot be written to a file.*{why}"):
            train(small(layer()), data, QUICK, runs=tmp_path)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=r"name of a layer.*received 'my layer'"):
            model = small(keras.layers.Softmax(), layer="my layer")
            train(model, data, QUICK, runs=tmp_path)
    with pytest.raises(ValueError, match=r"did you mean 'use_bias'.*it has use_bias"):
        train("lecture_cnn", data, QUICK, runs=tmp_path, options={"usebias": True})
    assert list(tmp_path.iterdir()) == []


def test_the_test_can_be_left_for_later(data, tmp_path):
    run = train("linear", data, QUICK, runs=tmp_path, progress=False, test=False)
    assert run.metrics == {} and len(run.history) == 2
    assert f"not measured on the test images: kerascnn train --resume {run.folder}" in (
        str(run)
    )
    later = resume(run.folder, data=data, progress=False)
    whole = train("linear", data, QUICK, runs=tmp_path, progress=False)
    assert later.metrics["test_loss"] == whole.metrics["test_loss"]


def test_a_model_s_own_size_is_the_default_of_a_folder(tmp_path):
    for label, level in (("bright", 200), ("dark", 40)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(6):
            image = Image.new("RGB", (20, 30), (level + i,) * 3)
            image.save(tmp_path / "data" / label / f"{i}.png")
    model = small(keras.layers.Softmax(), 2, shape=(9, 7, 3))
    run = train(model, str(tmp_path / "data"), QUICK, runs=tmp_path, progress=False)
    assert run.config["data"]["input_shape"] == [9, 7, 3]
    notes = run.config["data"]["notes"]
    assert any(note.startswith("Without a test folder") for note in notes)
    assert all(note in str(run) for note in notes)
    assert evaluate(run).images == run.metrics["test_images"]
