"""What happens to a training may not cost what was there."""

import dataclasses
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import prepared
import pytest
from helpers import Stop, assert_same_weights, busy_model

from kerascnn.data import DataError, load_data
from kerascnn.training import (
    FolderInUseError,
    checkpoint,
    load_run,
    recipe_for,
    resume,
    train,
)
from kerascnn.training.run import load_model, locked, write_file

SCRIPT = Path(__file__).with_name("killed.py")
RECIPE = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}


def interrupted(folder, data, epoch=2, **recipe):
    """A run folder in which all epochs before one are done."""
    with pytest.raises(KeyboardInterrupt):
        train(
            "linear",
            data,
            {**RECIPE, **recipe},
            folder=folder,
            progress=False,
            callbacks=[Stop(epoch)],
        )
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_and_resumed(kills, tmp_path):
    """kill -9, no chance to clean up: the result is that of the run left alone."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(kills), "0"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= kills - 1  # the last one may come too late
    whole, killed = (load_run(tmp_path / name) for name in ("whole", "killed"))
    assert_same_weights(whole.model, killed.model)
    assert [row["epoch"] for row in killed.history] == [1, 2, 3, 4, 5]
    for one, other in zip(whole.history, killed.history, strict=True):
        assert one["val_loss"] == other["val_loss"] and one["loss"] == other["loss"]
    assert killed.metrics["test_loss"] == whole.metrics["test_loss"]
    assert sorted(contents(killed.folder)) == sorted(contents(whole.folder))


def test_a_damaged_state_falls_back_on_the_one_before(data, tmp_path):
    keras.utils.set_random_seed(1)
    whole = train(busy_model(), data, RECIPE, runs=tmp_path, progress=False)
    keras.utils.set_random_seed(1)
    folder = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(
            busy_model(),
            data,
            RECIPE,
            folder=folder,
            progress=False,
            callbacks=[Stop(2)],
        )
    state = folder / checkpoint.NAME
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    state.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"checkpoint\.npz is damaged .*an epoch"):
        run = resume(folder, data=data, progress=False)
    assert_same_weights(whole.model, run.model)
    assert [row["loss"] for row in run.history] == [
        row["loss"] for row in whole.history
    ]


def test_a_state_that_is_damaged_for_good_is_named(data, tmp_path):
    folder = interrupted(tmp_path / "run", data)
    for name in (checkpoint.NAME, checkpoint.BEFORE):
        (folder / name).write_bytes(b"nonsense")
    before = contents(folder)
    with pytest.raises(ValueError, match=r"damaged: .*checkpoint\.npz.*-before\.npz"):
        resume(folder, data=data, progress=False)
    assert contents(folder) == before


def test_any_damage_is_noticed(tmp_path):
    """Bytes at random places of a state: it is as it was, or is said to be damaged."""
    rng = random.Random(0)
    arrays = {f"state{i}": np.arange(i + 3, dtype=np.float32) for i in range(4)}
    arrays["history"] = np.zeros(2, np.uint8)
    good = bytes(checkpoint.pack(arrays))
    for _ in range(400):
        bad = bytearray(good)
        if rng.random() < 0.3:
            bad = bad[: rng.randrange(len(bad))]
        else:
            for _ in range(rng.choice((1, 1, 8))):
                bad[rng.randrange(len(bad))] = rng.randrange(256)
        (tmp_path / checkpoint.NAME).write_bytes(bad)
        try:
            found = checkpoint.unpack(checkpoint.read(tmp_path))
        except ValueError as error:
            assert "damaged" in str(error)
            continue
        assert found.keys() == arrays.keys()
        for name in arrays:
            np.testing.assert_array_equal(found[name], arrays[name])


class Full(keras.callbacks.Callback):
    """From an epoch on no file may be as large as the state of the training."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))


@pytest.fixture
def room():
    """Give the room back that `Full` takes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_a_full_disk_costs_nothing_that_was_there(data, tmp_path, room):
    whole = train("linear", data, RECIPE, runs=tmp_path, progress=False)
    folder = tmp_path / "full"
    with pytest.raises(OSError) as caught:
        train(
            "linear",
            data,
            RECIPE,
            folder=folder,
            progress=False,
            callbacks=[Full(1)],
        )
    room()
    message = str(caught.value)
    assert message.startswith(f"cannot write {folder}/checkpoint.npz: File too large")
    assert message.endswith(f"continue then with kerascnn train --resume {folder}")
    assert "make room" in message and "\n" not in message
    assert not list(folder.glob(".*"))  # no half of a file
    run = resume(folder, data=data, progress=False)
    assert_same_weights(whole.model, run.model)


def test_a_disk_that_is_full_at_the_end(data, tmp_path, room):
    folder = interrupted(tmp_path / "end", data, epochs=2, epoch=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Late(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            Full(0).on_epoch_begin(0)

    with pytest.raises(OSError, match=r"cannot write .*\.keras: .*make room; what was"):
        resume(folder, data=data, progress=False, callbacks=[Late()])
    room()
    assert (folder / checkpoint.NAME).exists() and not list(folder.glob(".*"))
    assert resume(folder, data=data, progress=False).metrics["epochs"] == 2


def test_a_folder_that_cannot_be_made_or_written(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for options in ({"runs": tmp_path / "file"}, {"folder": tmp_path / "file" / "x"}):
        with pytest.raises(NotADirectoryError, match="choose another"):
            train("linear", data, RECIPE, progress=False, **options)

    def refuse(self, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for options in ({"runs": tmp_path / "a"}, {"folder": tmp_path / "b"}):
        with pytest.raises(
            PermissionError, match=r"cannot make the folder .*denied; ch"
        ):
            train("linear", data, RECIPE, progress=False, **options)
    monkeypatch.undo()
    kept = tmp_path / "kept.json"
    kept.write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=r"cannot write .*kept\.json: Perm.*writ"):
        write_file(kept, "new")
    assert kept.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [
        "file",
        "kept.json",
    ]


def test_the_file_before_is_kept_also_without_links(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EPERM, "no links here")

    for text in ("one", "two", "three"):
        write_file(tmp_path / "a", text, before=tmp_path / "b")
    assert [(tmp_path / n).read_text() for n in "ab"] == ["three", "two"]
    monkeypatch.setattr(os, "link", refuse)
    write_file(tmp_path / "a", "four", before=tmp_path / "b")
    assert [(tmp_path / n).read_text() for n in "ab"] == ["four", "three"]


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_two_trainings_do_not_share_a_folder(data, tmp_path):
    folder = interrupted(tmp_path / "run", data)
    ours, theirs = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:  # another process, which holds the folder until it is told to go
        with locked(folder):
            os.write(theirs, b"held")
            os.read(wait, 1)
        os._exit(0)
    try:
        assert os.read(ours, 4) == b"held"
        before = contents(folder)
        with pytest.raises(FolderInUseError, match="another process trains in"):
            resume(folder, data=data, progress=False)
        assert contents(folder) == before
    finally:
        os.kill(child, signal.SIGKILL)  # its lock goes with it
        os.waitpid(child, 0)
        for end in (ours, theirs, wait, go):
            os.close(end)
    assert resume(folder, data=data, progress=False).metrics["epochs"] == 3
    with pytest.raises(FileExistsError, match="not overwritten"):
        train("linear", data, RECIPE, folder=folder, progress=False)


def test_a_run_killed_at_the_very_end_is_tidied(data, tmp_path):
    """Between the last file and the removal of what is not needed any more."""
    folder = interrupted(tmp_path / "run", data)
    left = contents(folder)
    run = resume(folder, data=data, progress=False)
    finished = sorted(contents(folder))
    for name in (checkpoint.NAME, "architecture.json"):
        (folder / name).write_bytes(left[name])
    (folder / ".checkpoint.npz.part").write_bytes(b"half")
    again = resume(folder, data=data)
    assert sorted(contents(folder)) == finished and again.history == run.history


def test_interrupted_while_it_is_measured(data, tmp_path, monkeypatch):
    """All epochs are there: the way to go on is told, and measures alone."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["kerascnn.training.train"], "measure", interrupt)
        with pytest.raises(KeyboardInterrupt, match=f"--resume {folder}"):
            train("linear", data, RECIPE, folder=folder, progress=False)
    assert resume(folder, data=data, progress=False).metrics["epochs"] == 3


def test_a_finished_run_in_a_read_only_folder_is_returned(data, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run = train("linear", data, RECIPE, folder=folder, progress=False)

    def refused(*_, **__):
        raise PermissionError("read only")

    monkeypatch.setattr("kerascnn.training.run.FileLock", refused)
    assert resume(folder, data=data).history == run.history


def test_moved_images_are_held_out_as_before(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (40, 8, 8, 3), np.uint8),
        "y_train": np.arange(40) % 2,
        "x_test": rng.integers(0, 256, (8, 8, 8, 3), np.uint8),
        "y_test": np.arange(8) % 2,
    }
    np.savez(tmp_path / "here.npz", **arrays)
    given = load_data(tmp_path / "here.npz", validation=12, seed=3)
    whole = train("linear", given, RECIPE, folder=tmp_path / "whole", progress=False)
    folder = interrupted(tmp_path / "run", given)
    shutil.move(tmp_path / "here.npz", tmp_path / "there.npz")
    other = load_data(tmp_path / "there.npz", validation=12, seed=4)
    with pytest.raises(ValueError, match=r"the data is not the same .*28, 4.*28, 3"):
        resume(folder, data=other, progress=False)
    run = resume(folder, data=tmp_path / "there.npz", progress=False)
    assert_same_weights(whole.model, run.model)


def test_weights_of_bfloat16_are_kept_between_epochs(data, tmp_path):
    """Variables of bfloat16, as of a model that is all of that type."""
    image = keras.Input((12, 12, 3))
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(3, activation="softmax", dtype="bfloat16")(x)
    model = keras.Model(image, x)
    with pytest.raises(KeyboardInterrupt):
        options = {"progress": False, "callbacks": [Stop(1)]}
        train(model, data, RECIPE, folder=tmp_path / "run", **options)
    assert resume(tmp_path / "run", data=data, progress=False).metrics["epochs"] == 3


def test_a_run_without_test_images_does_not_begin(data, tmp_path):
    none = dataclasses.replace(data, test=data.test.take(np.arange(0)))
    with pytest.raises(ValueError, match="ends with its test, and bands has no test"):
        train("linear", none, RECIPE, folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_are_numbers(data, tmp_path):
    options = {"use_bias": np.False_, "filters": [np.int64(4), 8]}
    recipe = recipe_for("lecture_cnn", {**RECIPE, "options": options})
    assert recipe.options == {"use_bias": False, "filters": [4, 8]}
    told = dataclasses.replace(data, origin={"validation": np.int64(20)})
    run = train("linear", told, RECIPE, folder=tmp_path / "run", progress=False)
    assert load_run(run.folder).config["data"]["origin"] == {"validation": 20}


def test_a_damaged_model_file_is_named(data, tmp_path):
    run = train("linear", data, RECIPE, folder=tmp_path / "run", progress=False)
    file = run.folder / "model.keras"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not a readable Keras model"):
        load_model(file)


def test_graphs_as_deep_as_resnet1202_are_read_back():
    code = "import sys, kerascnn.training.run; print(sys.getrecursionlimit())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert int(run.stdout) >= 10_000, run.stderr


def test_damaged_descriptions_are_named(data, tmp_path):
    folder = interrupted(tmp_path / "run", data)
    for name in ("config.json", "architecture.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:20])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            resume(folder, data=data)
        (folder / name).write_bytes(content)
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        resume(tmp_path / "nothing", data=data)


LABELS = ("a", "b", "c")
STREAMED = {**RECIPE, "flip": True, "crop": 1, "alternate_flip": False}


@pytest.fixture
def shards(tmp_path):
    splits = {"train": prepared.bands(50), "test": prepared.bands(12, seed=1)}
    return prepared.write(tmp_path / "bands" / "1.0.0", splits, LABELS)


@pytest.mark.slow
def test_a_streamed_training_resumes_to_the_same_weights(shards, tmp_path):
    stream = load_data(shards, stream=True)
    whole = train("linear", stream, STREAMED, folder=tmp_path / "one", progress=False)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]
    assert whole.metrics["test_accuracy"] > 60 and whole.metrics["test_images"] == 12
    folder = interrupted(tmp_path / "two", stream, **STREAMED)
    run = resume(folder, progress=False)  # the folder knows where the data is
    assert_same_weights(whole.model, run.model)
    assert [row["val_loss"] for row in run.history] == [
        row["val_loss"] for row in whole.history
    ]
    # The same images in memory, in another order, come to much the same.
    memory = train("linear", load_data(shards), STREAMED, runs=tmp_path, progress=False)
    assert memory.metrics["test_accuracy"] > 60


@pytest.mark.slow
def test_a_deleted_data_set_is_told_and_nothing_lost(shards, tmp_path):
    class Delete(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                shutil.move(shards, tmp_path / "elsewhere")

    stream = load_data(shards, stream=True)
    folder = tmp_path / "run"
    with pytest.raises(DataError, match=r"is missing or damaged: .*prepare it anew$"):
        train(
            "linear",
            stream,
            STREAMED,
            folder=folder,
            progress=False,
            callbacks=[Delete()],
        )
    with pytest.raises(DataError, match="no such folder"):
        resume(folder, progress=False)
    shutil.move(tmp_path / "elsewhere", shards)
    run = resume(folder, progress=False)
    whole = train("linear", stream, STREAMED, runs=tmp_path, progress=False)
    assert_same_weights(whole.model, run.model)


def test_streams_adapt_layers_and_initialise(shards, tmp_path):
    stream = load_data(shards, stream=True)
    recipe = {**RECIPE, "epochs": 1, "initialization": "lsuv", "alternate_flip": True}
    run = train("lecture_cnn", stream, recipe, runs=tmp_path, progress=False)
    assert np.isfinite(run.history[0]["val_loss"])
