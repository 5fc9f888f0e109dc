"""Unlabelled images in training: targets, mixing, heads, whole runs."""

import keras
import numpy as np
import pytest

import kerascnn
import zoo
from kerascnn.data import Augmentation, Images
from kerascnn.training import Recipe, load_run, resume, train
from kerascnn.training.feed import Feed
from kerascnn.training.network import logits_model
from kerascnn.training.universum import (
    LabelledAccuracy,
    open_universum,
    without_dustbin,
)

KINDS = ("uniform", "dustbin", "background")
QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.01, "precision": "float32"}


@pytest.fixture(scope="module")
def pool():
    """Images of none of the classes: vertical stripes."""
    rng = np.random.default_rng(7)
    stripes = np.where(np.arange(12) // 3 % 2, 200, 60)[None, None, :, None]
    x = rng.normal(stripes, 30, (50, 12, 12, 3))
    return np.clip(x, 0, 255).astype(np.uint8)


def universum(data, pool, kind="dustbin", **options):
    return open_universum(Recipe(universum=kind, **options), data, pool)


def small(outputs=3, several=1, softmax="layer"):
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2)(keras.layers.Flatten()(x))
    ends = []
    for i in range(several):
        fused = "softmax" if softmax == "fused" else None
        end = keras.layers.Dense(outputs, activation=fused, name=f"fc{i}")(x)
        if softmax == "layer":
            end = keras.layers.Activation("softmax", name=f"out{i}")(end)
        ends.append(end)
    return keras.Model(inputs, ends if several > 1 else ends[0], name="small")


def test_targets(data, pool):
    uniform = universum(data, pool, "uniform").targets()
    np.testing.assert_allclose(
        uniform, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3], rtol=1e-6
    )
    for kind in ("dustbin", "background"):
        targets = universum(data, pool, kind).targets()
        assert (targets == np.eye(4)).all() and targets.dtype == np.float32


def test_so_many_samples_are_unlabelled(data, pool):
    made = universum(data, pool, universum_share=0.3)
    x = np.zeros((4000, 12, 12, 3), np.uint8)
    labels = np.arange(4000) % 3
    mixed, found = made.mix(x, labels, np.random.default_rng(0))
    unlabelled = found == 3
    assert unlabelled.mean() == pytest.approx(0.3, abs=0.03)
    assert (found[~unlabelled] == labels[~unlabelled]).all()
    assert (mixed[~unlabelled] == 0).all() and (x == 0).all()
    known = {image.tobytes() for image in pool}
    drawn = [image.tobytes() for image in mixed[unlabelled]]
    assert set(drawn) == known  # each comes up among 1,200
    none, same = universum(data, pool, universum_share=0.0).mix(
        x, labels, np.random.default_rng(0)
    )
    assert (none == 0).all() and (same == labels).all()


def test_a_batch_follows_from_seed_epoch_and_index(data, pool):
    def feed(seed=0, share=0.5, **options):
        return Feed(
            data.train,
            3,
            16,
            seed=seed,
            augmentation=Augmentation(flip=True, crop=2),
            universum=universum(data, pool, universum_share=share),
            **options,
        )

    one, other = feed(), feed()
    for epoch in (0, 1, 2):
        one.start(epoch)
        batches = [one[i] for i in range(len(one))]
    other.start(2)
    for i in reversed(range(len(other))):
        x, y = other[i]
        assert (x == batches[i][0]).all() and (y == batches[i][1]).all()
    assert batches[0][1].shape == (16, 4)
    labels = np.concatenate([y for _, y in batches]).argmax(1)
    assert 20 < (labels == 3).sum() < 50  # of 70

    def unlabelled(made, epoch=0):
        made.start(epoch)
        return (np.concatenate([made[i][1] for i in range(5)])[:, 3] == 1).tolist()

    first = unlabelled(feed())
    assert first == unlabelled(feed())
    assert first != unlabelled(feed(), 1) and first != unlabelled(feed(seed=1))
    _, y = feed(outputs=2)[0]
    assert len(y) == 2 and (y[0] == y[1]).all()


def test_unlabelled_images_are_augmented_like_the_others(data, pool):
    grey = np.full((5, 12, 12, 3), 77, np.uint8)
    feed = Feed(
        data.train,
        3,
        16,
        seed=0,
        augmentation=Augmentation(crop=2, crop_padding="zeros"),
        universum=universum(data, grey, universum_share=0.9),
    )
    x, y = feed[0]
    images = x[y[:, 3] == 1]
    assert set(np.unique(images)) == {0, 77}


def test_the_last_epochs_are_plain(data, pool):
    feed = Feed(
        data.train,
        3,
        70,
        seed=0,
        augmentation=Augmentation(affine=0.2, color=25.0),
        alternate_flip=True,
        plain_from=2,
    )
    known = {image.tobytes() for image in data.train.x}
    for epoch, plain in ((0, False), (1, False), (2, True), (3, True)):
        feed.start(epoch)
        assert ({image.tobytes() for image in feed[0][0]} == known) == plain


def test_the_constant_logit_has_no_parameters_and_is_what_is_asked(data, pool):
    trained, _ = logits_model(small())
    made = universum(data, pool, "background", universum_logit=-1.5)
    wide = made.extend(trained)
    assert type(wide) is type(trained)
    assert wide.count_params() == trained.count_params()
    answers = np.asarray(wide(data.test.x))
    np.testing.assert_array_equal(answers[:, 3], np.full(20, -1.5, np.float32))
    np.testing.assert_array_equal(answers[:, :3], np.asarray(trained(data.test.x)))
    judged = made.labelled(wide)
    np.testing.assert_array_equal(np.asarray(judged(data.test.x)), answers[:, :3])
    assert [id(v) for v in judged.weights] == [id(v) for v in trained.weights]


def test_the_dustbin_is_left_out_of_the_answer(data, tmp_path):
    model = small(outputs=4, several=2)
    finished = without_dustbin(model, logits_model(model)[0], 3)
    logits = np.asarray(logits_model(model)[0](data.test.x)[1])[:, :3]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = finished(data.test.x)
    assert len(answers) == 2 and finished.name == "small"
    np.testing.assert_allclose(np.asarray(answers[1]), expected, rtol=1e-5)
    finished.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        np.asarray(again(data.test.x)[0]), np.asarray(answers[0])
    )
    bare = small(outputs=4, softmax="none")
    finished = without_dustbin(bare, logits_model(bare)[0], 3)
    np.testing.assert_array_equal(
        np.asarray(finished(data.test.x)), np.asarray(bare(data.test.x))[:, :3]
    )


def test_accuracy_counts_labelled_images_and_the_first_classes():
    metric = LabelledAccuracy(2)
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], "float32")
    answers = np.array([[2, 1, 9], [1, 0, 0], [1, 0, 0], [0, 1, 9]], "float32")
    metric.update_state(targets, answers)  # right, wrong, right, not counted
    assert float(metric.result()) == pytest.approx(2 / 3)
    metric.reset_state()
    uniform = np.array([[0.5, 0.5], [0, 1]], "float32")
    metric.update_state(uniform, np.array([[9, 1], [0, 1]], "float32"))
    assert float(metric.result()) == 1
    assert LabelledAccuracy.from_config(metric.get_config()).classes == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_network_learns_both(data_maker, pool, tmp_path, kind):
    """What it says of unlabelled images differs from a training without them."""
    data = data_maker(train=200)
    recipe = {**QUICK, "epochs": 6, "universum": kind, "universum_share": 0.3}
    run = train(
        "lecture_cnn",
        data,
        recipe,
        runs=tmp_path,
        progress=False,
        universum_data=pool,
    )
    assert run.metrics["test_accuracy"] > 80
    assert run.history[-1]["accuracy"] > 0.8
    assert run.history[-1]["val_accuracy"] > 0.8
    described = run.config["universum"]
    assert described["images"] == 50 and described["origin"] == {}
    assert run.model.output_shape == (None, 3)
    again = load_run(run.folder)
    np.testing.assert_array_equal(
        again.model.predict(data.test.x, verbose=0),
        run.model.predict(data.test.x, verbose=0),
    )
    logits, _ = logits_model(run.model)
    if kind == "uniform":
        answers = run.model.predict(pool, verbose=0)
        assert answers.max(1).mean() < 0.6
        assert run.model.predict(data.test.x, verbose=0).max(1).mean() > 0.7
    elif kind == "dustbin":
        wide = keras.Model(run.model.inputs, run.model.get_layer("fc").output)
        assert wide.output_shape == (None, 4)
        assert (wide.predict(pool, verbose=0).argmax(1) == 3).mean() > 0.9
        assert (wide.predict(data.test.x, verbose=0).argmax(1) != 3).mean() > 0.8
        network = zoo.build("lecture_cnn", (12, 12, 3), 4)
        assert run.model.count_params() == network.count_params()
        assert "probabilities" in (run.folder / "summary.txt").read_text()
        version = kerascnn.export(run, tmp_path / "served")
        assert (version / "saved_model.pb").exists()
    else:
        # The constant logit, 0, is the largest for images of none of the classes.
        assert (logits.predict(pool, verbose=0).max(1) < 0).mean() > 0.9
        assert (logits.predict(data.test.x, verbose=0).max(1) > 0).mean() > 0.8
        assert run.model.count_params() == (
            zoo.build("lecture_cnn", (12, 12, 3), 3).count_params()
        )


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(
            "dustbin",
            {"ema": 0.9, "keep": "best", "affine": 0.1, "plain_epochs": 1},
            marks=pytest.mark.slow,
        ),
        ("background", {"alternate_flip": True, "lookahead": 2, "color": 20.0}),
    ],
)
def test_resumed_equals_uninterrupted(data, pool, tmp_path, kind, options):
    recipe = {**QUICK, "epochs": 3, "universum": kind, **options}
    classes = 4 if kind == "dustbin" else 3
    arguments = {"progress": False, "universum_data": Images(pool, np.zeros(50, int))}
    keras.utils.set_random_seed(1)  # also seeds the dropout
    whole = train(small(classes), data, recipe, folder=tmp_path / "a", **arguments)
    keras.utils.set_random_seed(1)
    folder = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        train(
            small(classes),
            data,
            recipe,
            folder=folder,
            callbacks=[Stop()],
            **arguments,
        )
    with pytest.raises(ValueError, match="give the same again: resume"):
        resume(folder, data=data)
    with pytest.raises(ValueError, match="unlabelled images are not the same"):
        resume(folder, data=data, universum_data=pool[:-1])
    run = resume(folder, data=data, **arguments)
    for one, other in zip(whole.history, run.history, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert one[key] == other[key]
    for one, other in zip(whole.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert run.model.output_shape == (None, 3)


def test_several_outputs_in_half_precision(data, pool, tmp_path):
    run = train(
        small(3, several=2),
        data,
        {**QUICK, "universum": "background", "precision": "mixed_bfloat16"},
        runs=tmp_path,
        progress=False,
        label_smoothing=0.1,
        loss_weights=(1, 0.3),
        universum_data=pool,
    )
    assert [o.shape[1] for o in run.model.outputs] == [3, 3]
    assert np.isfinite(run.history[-1]["loss"])


def test_a_source_is_read_at_the_size_of_the_images_and_found_again(
    data_maker, tmp_path
):
    data = data_maker(shape=(16, 16, 3))
    recipe = {**QUICK, "universum": "uniform", "universum_data": "shapes"}

    class Break(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            "linear",
            data,
            recipe,
            folder=tmp_path / "run",
            progress=False,
            callbacks=[Break()],
        )
    run = resume(tmp_path / "run", data=data, progress=False)
    described = run.config["universum"]
    assert described["title"] == "shapes" and described["images"] == 9000
    assert described["origin"]["image_size"] == [16, 16]
    assert run.config["recipe"]["universum_data"] == "shapes"


def test_a_model_with_the_softmax_inside_can_be_uniform(data, pool, tmp_path):
    run = train(
        small(softmax="fused"),
        data,
        {**QUICK, "universum": "uniform"},
        runs=tmp_path,
        progress=False,
        universum_data=pool,
    )
    assert np.isfinite(run.history[-1]["loss"])


def test_what_does_not_fit_is_named(data, data_maker, pool, tmp_path):
    def start(model="linear", images=pool, kind="dustbin", **options):
        train(
            model,
            data,
            {**QUICK, "universum": kind},
            runs=tmp_path,
            universum_data=images,
            **options,
        )

    for kind in ("dustbin", "background"):
        with pytest.raises(ValueError, match="end in them, or in a softmax that is"):
            start(small(4 if kind == "dustbin" else 3, softmax="fused"), kind=kind)
    with pytest.raises(ValueError, match=r"has 3 classes.*dustbin needs one more"):
        start(small(3))
    with pytest.raises(ValueError, match=r"are \(50, 8, 12, 3\).*bands are \(12, 12"):
        start(images=pool[:, :8])
    with pytest.raises(ValueError, match=r"are \(0, 12, 12, 3\)"):
        start(images=pool[:0])
    with pytest.raises(ValueError, match="received float64"):
        start(images=pool / 255)
    with pytest.raises(TypeError, match="received int"):
        start(images=3)
    with pytest.raises(ValueError, match="are the labelled ones"):
        start(images=data_maker())
    with pytest.raises(ValueError, match="needs unlabelled images"):
        start(images=None)
    with pytest.raises(ValueError, match="12x12 pixels: image_size must be"):
        start(images="shapes")
    with pytest.raises(ValueError, match="12x12 pixels: no data named 'nothing'"):
        start(images="nothing")
    with pytest.raises(ValueError, match="of use with universum"):
        start(kind="")
    with pytest.raises(ValueError, match="of use with universum"):
        Recipe(universum_data="shapes")
    with pytest.raises(ValueError, match='universum must be one of "", uniform'):
        Recipe(universum="noise")
    with pytest.raises(ValueError, match=r"share must be from 0 to 0\.99"):
        Recipe(universum="uniform", universum_share=1.0)
    assert list(tmp_path.iterdir()) == []  # nothing half written
