"""Versions that come and go: what answers, what is drained, what fails."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import types
import weakref
from pathlib import Path

import pytest

from kerascnn.serving.http.limits import Limits, RequestError
from kerascnn.serving.http.metrics import Metrics
from kerascnn.serving.http.repository import Repository, find


def watch(folder, scenario, **settings):
    """Run a scenario with a repository that looks only when it is told to."""

    async def main():
        repository = Repository(
            folder, limits=Limits(), metrics=Metrics(), poll=3600, **settings
        )
        await repository.start()
        try:
            return await scenario(repository)
        finally:
            await repository.stop()

    return asyncio.run(main())


def numbers(repository, name="toy"):
    return sorted(repository.models[name].versions)


def states(repository, name="toy"):
    return {n: s.name for n, s in repository.models[name].states.items()}


async def settle(repository):
    """Look once, and let what nobody holds be unloaded."""
    await repository.refresh()
    for _ in range(50):
        await asyncio.sleep(0.01)


def test_the_newest_answers_and_the_old_one_is_drained(tmp_path, publish):
    folder = tmp_path / "toy"
    publish(folder, 1)

    async def scenario(repository):
        assert numbers(repository) == [1]
        with repository.hold("toy", None, None) as held:
            publish(folder, 2)
            await settle(repository)
            assert numbers(repository) == [2]
            assert states(repository) == {1: "UNLOADING", 2: "AVAILABLE"}
            with repository.hold("toy", None, None) as new:
                assert new.version.number == 2
            # Who holds the old one is still answered by it.
            signature = held.version.signatures["scalar"]
            assert signature.run({"x": 2.0})["y"] == 0.5
            gone = weakref.ref(held.version)
        del held, signature
        await settle(repository)
        assert states(repository) == {1: "END", 2: "AVAILABLE"}
        assert gone() is None  # its memory is free

    watch(tmp_path, scenario)


def test_a_removed_version_gives_way_to_the_one_before(tmp_path, publish):
    publish(tmp_path / "toy", 1)
    publish(tmp_path / "toy", 2)

    async def scenario(repository):
        assert numbers(repository) == [2]
        shutil.rmtree(tmp_path / "toy" / "2")
        await settle(repository)
        assert numbers(repository) == [1]
        shutil.rmtree(tmp_path / "toy")
        await settle(repository)
        with pytest.raises(RequestError, match=r"Latest\(toy\)") as raised:
            repository.find("toy", None, None)
        assert raised.value.status == 404

    watch(tmp_path, scenario)


def test_a_broken_version_leaves_the_old_one(tmp_path, publish, toys):
    folder = tmp_path / "toy"
    publish(folder, 1)

    async def scenario(repository):
        broken = folder / "2"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes(b"no graph")
        await settle(repository)
        assert numbers(repository) == [1]
        state = repository.models["toy"].states[2]
        assert state.name == "END"
        assert state.error_code == "INVALID_ARGUMENT"
        assert "saved_model.pb is damaged" in state.error_message
        missing = folder / "3"
        shutil.copytree(toys[3], missing)
        shutil.rmtree(missing / "variables")
        await settle(repository)
        assert numbers(repository) == [1]
        assert repository.models["toy"].states[3].name == "END"
        # Completed, it is another file than the one that failed: no waiting.
        shutil.rmtree(missing)
        publish(folder, 3)
        await settle(repository)
        assert numbers(repository) == [3]

    watch(tmp_path, scenario)


def test_a_failed_load_is_tried_again_later(tmp_path, publish, monkeypatch):
    from kerascnn.serving.http import repository as module

    calls = []

    def fail(path, number):
        calls.append(number)
        raise OSError("the disk sleeps")

    publish(tmp_path / "toy", 1)
    real = module.load
    monkeypatch.setattr(module, "load", fail)

    async def scenario(repository):
        await repository.refresh()
        await repository.refresh()
        assert calls == [1]
        assert repository.models["toy"].states[1].error_message == "the disk sleeps"
        (key, (tries, due)), *_ = repository.models["toy"].failures.items()
        assert (tries, due > asyncio.get_running_loop().time()) == (1, True)
        repository.models["toy"].failures[key] = (tries, 0.0)
        monkeypatch.setattr(module, "load", real)
        await repository.refresh()
        assert numbers(repository) == [1]
        assert repository.models["toy"].failures == {}

    watch(tmp_path, scenario)


def test_a_replaced_version_is_loaded_anew(tmp_path, publish):
    folder = tmp_path / "toy"
    publish(folder, 1)

    async def scenario(repository):
        shutil.rmtree(folder / "1")
        publish(folder, 1, source=3)
        await settle(repository)
        run = repository.find("toy", 1, None).version.signatures["serving_default"].run
        image = [[[[1], [1]], [[1], [1]]]]
        assert run({"image": image})["mean"] == [3.0]
        assert states(repository) == {1: "AVAILABLE"}

    watch(tmp_path, scenario)


def test_labels(tmp_path, publish):
    folder = tmp_path / "toy"
    for number in (1, 2, 3):
        publish(folder, number)
    file = folder / "labels.json"
    file.write_text('{"stable": 1, "lost": 9}')

    async def scenario(repository):
        assert numbers(repository) == [1, 3]
        assert repository.find("toy", None, "stable").version.number == 1
        assert repository.find("toy", None, None).version.number == 3
        for label in ("lost", "none"):
            with pytest.raises(RequestError, match=f"label: {label}") as raised:
                repository.find("toy", None, label)
            assert raised.value.status == 400
        file.write_text('{"stable": 2}')
        await settle(repository)
        assert numbers(repository) == [2, 3]
        file.write_text("{broken")
        await settle(repository)
        assert repository.find("toy", None, "stable").version.number == 2
        assert "labels.json" in repository.models["toy"].complaint
        file.unlink()
        await settle(repository)
        assert numbers(repository) == [3]

    watch(tmp_path, scenario)


def test_labels_of_the_command(tmp_path, publish):
    publish(tmp_path / "a", 1)
    publish(tmp_path / "a", 2)
    publish(tmp_path / "b", 1)
    publish(tmp_path / "b", 2)

    async def scenario(repository):
        assert numbers(repository, "a") == [1, 2]
        assert numbers(repository, "b") == [2]
        assert repository.find("b", None, "best").version.number == 2

    watch(tmp_path, scenario, labels={"a/stable": 1, "best": 2})


def test_several_versions(tmp_path, publish):
    for number in (1, 2, 3):
        publish(tmp_path, number)

    async def scenario(repository):
        assert numbers(repository, tmp_path.name) == [2, 3]

    watch(tmp_path, scenario, versions=2)


def test_what_is_found(tmp_path, toys):
    (tmp_path / "toy" / ".staging-abc").mkdir(parents=True)
    (tmp_path / "toy" / "2").mkdir()  # nothing in it yet
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").touch()
    assert find(tmp_path) == {}
    shutil.copytree(toys[1], tmp_path / "toy" / "1")
    assert list(find(tmp_path)) == ["toy"]
    assert list(find(tmp_path)["toy"].versions) == [1]
    assert list(find(tmp_path / "toy")) == ["toy"]
    with pytest.raises(ValueError, match="is one version of a model; give the folder"):
        find(tmp_path / "toy" / "1")


@pytest.mark.parametrize(
    "labels", [[], {"a b": 1}, {"a": "1"}, {"a": -1}, {"a": True}, {"a": 1.5}]
)
def test_labels_that_are_none(tmp_path, labels):
    (tmp_path / "toy" / "1").mkdir(parents=True)
    (tmp_path / "toy" / "1" / "saved_model.pb").touch()
    (tmp_path / "toy" / "labels.json").write_text(json.dumps(labels))
    found = find(tmp_path)["toy"]
    assert found.labels == {}
    assert "labels.json" in found.complaint


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; give the one"):
        Repository(tmp_path / "no", limits=Limits(), metrics=Metrics())


def test_a_warm_up_that_fails_keeps_a_version_out(tmp_path, publish):
    import tensorflow as tf

    version = publish(tmp_path / "toy", 1)
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(b"\x32\x04\x0a\x02\x0a\x05")  # a request that ends too early

    async def scenario(repository):
        assert numbers(repository) == []
        state = repository.models["toy"].states[1]
        assert "is damaged" in state.error_message

    watch(tmp_path, scenario)


def test_models_may_be_named_by_numbers(tmp_path, publish):
    for name in ("2023", "2024", "cnn"):
        publish(tmp_path / "several" / name, 1)
    assert sorted(find(tmp_path / "several")) == ["2023", "2024", "cnn"]
    publish(tmp_path / "one", 3)
    (tmp_path / "one" / "4").mkdir()  # not a version yet
    assert list(find(tmp_path / "one")["one"].versions) == [3]


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, publish, monkeypatch):
    publish(tmp_path / "toy", 1)
    (tmp_path / "lost+found").mkdir()
    closed, listed, logged = {"lost+found"}, os.listdir, []

    def listdir(path):
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(
        "kerascnn.serving.http.repository.log",
        lambda event, level="info", **fields: logged.append((level, event, fields)),
    )

    async def scenario(repository):
        assert numbers(repository) == [1]
        publish(tmp_path / "toy", 2)
        await settle(repository)
        assert numbers(repository) == [2]
        closed.add("toy")  # a model that is served stays
        await settle(repository)
        assert numbers(repository) == [2]

    watch(tmp_path, scenario)
    told = [fields["model"] for level, _, fields in logged if level == "error"]
    assert told == ["lost+found", "toy"]  # once each, not at every look


@pytest.mark.parametrize("format", ["keras", "onnx", "litert"])
def test_versions_of_another_format_are_named(tmp_path, format):
    (tmp_path / "m" / "1").mkdir(parents=True)
    manifest = json.dumps({"format": format})
    (tmp_path / "m" / "1" / "manifest.json").write_text(manifest)
    for folder in (tmp_path, tmp_path / "m"):
        found = find(folder)["m"]
        assert found.versions == {} and f"of the format {format}" in found.unusable


def test_labels_that_are_nested_too_deep(tmp_path, publish):
    publish(tmp_path / "toy", 1)
    (tmp_path / "toy" / "labels.json").write_text("[" * 100_000)
    assert "labels.json" in find(tmp_path)["toy"].complaint


def test_tensorflow_is_imported_without_keras():
    """By the thread that asks; another may import Keras at the same time."""
    code = (
        "import sys, threading\n"
        "from kerascnn.serving.http.saved_model import tensorflow\n"
        "tensorflow()\n"
        "assert 'keras' not in sys.modules, 'it was imported'\n"
        "assert sys.meta_path[0].__class__.__name__ != '_NoKeras'\n"
        "import keras\n"
        "print(keras.layers.Dense.__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "Dense\n"


def test_keras_is_found_by_every_other_thread():
    from kerascnn.serving.http.saved_model import _NoKeras

    blind, seen = _NoKeras(), []
    other = threading.Thread(target=lambda: seen.append(blind.find_spec("keras")))
    other.start()
    other.join()
    assert seen == [None] and blind.find_spec("json") is None
    with pytest.raises(ModuleNotFoundError, match="'keras'"):
        blind.exec_module(types.ModuleType(blind.find_spec("keras").name))
