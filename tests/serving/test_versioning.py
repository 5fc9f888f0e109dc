"""Versions are listed, published again, removed; what has changed is named."""

import json
import os
import shutil

import numpy as np
import pytest

from kerascnn import serving
from kerascnn.serving import versioning
from kerascnn.serving.publish import changes, publish, read_manifest, staging
from kerascnn.serving.verification import golden_arrays

GOLDEN = {
    "request": {
        "image": {"dtype": "uint8", "shape": [1, 2, 2, 1], "base64": "AAAAAA=="}
    },
    "answer": {"probabilities": [[0.25, 0.75]], "class_id": [1], "label": ["bee"]},
    "tolerance": 1e-5,
}


def put(folder, content="weights", **fields):
    """Publish a version without a network: its files, and its manifest."""
    with staging(folder) as staged:
        (staged / "variables").mkdir()
        (staged / "saved_model.pb").write_text("graph", encoding="utf-8")
        (staged / "variables" / "data").write_text(content, encoding="utf-8")
        told = {"model": "tiny", "format": "savedmodel", "golden": GOLDEN, **fields}
        return publish(staged, folder, told)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(version):
    return (version / "variables" / "data").read_text(encoding="utf-8")


def test_versions(tmp_path):
    put(tmp_path, accuracy=61.5, created="2026-01-02T03:04:05+00:00")
    put(tmp_path)
    (tmp_path / "9").mkdir()  # no version
    (tmp_path / "10").write_text("a file", encoding="utf-8")
    (tmp_path / "notes").mkdir()
    old = tmp_path / "4"  # without a manifest, as others write them
    old.mkdir()
    (old / "saved_model.pb").write_text("graph", encoding="utf-8")
    first, second, third = serving.versions(tmp_path)
    assert [v.number for v in (first, second, third)] == [1, 2, 4]
    assert (first.model, first.format, first.accuracy) == ("tiny", "savedmodel", 61.5)
    assert first.path == tmp_path / "1" and first.copy_of is None
    assert first.bytes == sum(
        p.stat().st_size for p in first.path.rglob("*") if p.is_file()
    )
    assert "61.50 %" in str(first) and "2026-01-02" in str(first)
    assert (first.verifiable, third.verifiable) == (True, False)
    assert str(third).endswith("no manifest") and "\n" not in str(third)
    text = versioning.table([first, second, third]).to_text(100)
    assert "61.50 %" in text and "without a manifest: 4" in text
    json.dumps([v.to_dict() for v in (first, second, third)])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        serving.versions(tmp_path / "nowhere")


def test_rollback(tmp_path):
    for number in "123":
        put(tmp_path, f"weights {number}")
    new = serving.rollback(tmp_path)
    assert (new.number, new.copy_of, new.path) == (4, 2, tmp_path / "4")
    assert content(new.path) == "weights 2"
    assert changes(new.path, read_manifest(new.path)) == []
    # Nothing is written twice, and nothing is lost with the old version.
    assert os.path.samefile(new.path / "saved_model.pb", tmp_path / "2/saved_model.pb")
    shutil.rmtree(tmp_path / "2")
    assert content(new.path) == "weights 2"
    # Back again is one further back, not forth.
    assert serving.rollback(tmp_path).copy_of == 1
    assert names(tmp_path) == ["1", "3", "4", "5"]
    with pytest.raises(ValueError, match=r"no version before 1 .* has 1, 3, 4, 5"):
        serving.rollback(tmp_path)
    assert serving.rollback(tmp_path, 3).copy_of == 3
    assert serving.rollback(tmp_path, to=4).copy_of == 2  # what 4 is a copy of
    assert content(tmp_path / "7") == "weights 2"


def test_rollback_without_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    put(tmp_path, "old")
    put(tmp_path, "new")
    monkeypatch.setattr(os, "link", refuse)
    new = serving.rollback(tmp_path)
    assert content(new.path) == "old"
    assert not os.path.samefile(
        new.path / "saved_model.pb", tmp_path / "1" / "saved_model.pb"
    )


def test_rollback_to_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        serving.rollback(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no version"):
        serving.rollback(tmp_path)
    put(tmp_path)
    with pytest.raises(ValueError, match="no version before 1"):
        serving.rollback(tmp_path)
    with pytest.raises(ValueError, match=r"no version 7 in .* it has 1"):
        serving.rollback(tmp_path, 7)
    with pytest.raises(ValueError, match="1 is the newest"):
        serving.rollback(tmp_path, 1)
    assert names(tmp_path) == ["1"]


def test_rollback_to_what_is_damaged(tmp_path):
    old = put(tmp_path)
    put(tmp_path)
    (old / "variables" / "data").write_text("weighty", encoding="utf-8")
    with pytest.raises(serving.ExportError, match=r"variables/data has changed"):
        serving.rollback(tmp_path)
    assert names(tmp_path) == ["1", "2"]


def test_rollback_to_a_version_without_a_manifest(tmp_path):
    old = put(tmp_path, "old")
    (old / "manifest.json").unlink()
    put(tmp_path)
    new = serving.rollback(tmp_path)
    assert content(new.path) == "old" and not new.verifiable


def test_rollback_of_a_version_that_vanishes(tmp_path, monkeypatch):
    old = put(tmp_path)
    put(tmp_path)

    def vanish(source, target):
        shutil.rmtree(old)
        raise FileNotFoundError(2, "No such file or directory", source)

    monkeypatch.setattr(versioning, "_link", vanish)
    with pytest.raises(serving.ExportError, match="was removed"):
        serving.rollback(tmp_path)
    assert names(tmp_path) == ["2"]


def test_prune(tmp_path):
    for _ in range(4):
        put(tmp_path)
    (tmp_path / "5").mkdir()  # no version
    (tmp_path / "notes").mkdir()
    assert [v.number for v in serving.prune(tmp_path, 2)] == [1, 2]
    assert names(tmp_path) == ["3", "4", "5", "notes"]
    assert serving.prune(tmp_path, 2) == []
    with pytest.raises(ValueError, match="received 0"):
        serving.prune(tmp_path, 0)
    assert [v.number for v in serving.prune(tmp_path, keep=1)] == [3]
    assert put(tmp_path).name == "6"


def test_prune_leaves_what_labels_name(tmp_path):
    for _ in range(5):
        put(tmp_path)
    (tmp_path / "labels.json").write_text('{"stable": 2}', encoding="utf-8")
    assert [v.number for v in serving.prune(tmp_path, 2)] == [1, 3]
    (tmp_path / "labels.json").write_text("[", encoding="utf-8")
    assert [v.number for v in serving.prune(tmp_path, 2)] == [2]


def test_prune_that_is_killed_leaves_no_half(tmp_path, monkeypatch):
    for number in "12":
        put(tmp_path, number)

    def killed(path, **_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            serving.prune(tmp_path, 1)
    left = names(tmp_path)
    assert len(left) == 2 and left[0].startswith(".staging-") and left[1] == "2"
    assert put(tmp_path).name == "3"  # and what was left is removed
    assert names(tmp_path) == ["2", "3"]


def test_prune_twice_at_once(tmp_path, monkeypatch):
    for _ in range(3):
        put(tmp_path)
    seen = serving.versions(tmp_path)
    assert len(serving.prune(tmp_path, 1)) == 2
    monkeypatch.setattr(versioning, "versions", lambda folder: seen)  # seen before
    assert serving.prune(tmp_path, 1) == []
    assert names(tmp_path) == ["3"]


# What is damaged, and what is numbered strangely

DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no object": lambda text: "[1, 2]",
    "no files": lambda text: "{}",
    "deep": lambda text: "[" * 100_000,
    "no text": lambda text: b"\xff\xfe\x00",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_newest_is_damaged(tmp_path, damage):
    for number in "123":
        put(tmp_path, f"weights {number}")
    file = tmp_path / "3/manifest.json"
    broken = damage(file.read_text(encoding="utf-8"))
    file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    *_, newest = serving.versions(tmp_path)
    assert (newest.number, newest.format, newest.verifiable) == (3, "savedmodel", False)
    assert "manifest.json is damaged" in newest.damaged
    assert "damaged" in str(newest) and "\n" not in str(newest)
    assert "damaged: 3" in versioning.table(serving.versions(tmp_path)).to_text(100)
    json.dumps(newest.to_dict())
    assert not only(tmp_path / "3").ok
    assert serving.rollback(tmp_path).copy_of == 2
    assert serving.rollback(tmp_path, to=1).copy_of == 1
    with pytest.raises(serving.ExportError, match="is damaged"):
        serving.rollback(tmp_path, to=3)
    assert [v.number for v in serving.prune(tmp_path, 1)] == [1, 2, 3, 4]


def test_prune_where_the_newest_is_damaged(tmp_path):
    """What can be gone back to is not what is removed."""
    for _ in range(4):
        put(tmp_path)
    (tmp_path / "4/manifest.json").write_text("{", encoding="utf-8")
    assert [v.number for v in serving.prune(tmp_path, 2)] == [1]
    assert [v.number for v in serving.prune(tmp_path, 1)] == [2]
    assert serving.rollback(tmp_path).copy_of == 3


def test_rollback_passes_over_what_is_damaged(tmp_path):
    for number in "123":
        put(tmp_path, f"weights {number}")
    (tmp_path / "2/manifest.json").write_text("{", encoding="utf-8")
    assert serving.rollback(tmp_path).copy_of == 1
    with pytest.raises(ValueError, match=r"which has 1, 2 \(damaged\), 3, 4"):
        serving.rollback(tmp_path)


def test_version_zero(tmp_path):
    os.rename(put(tmp_path, "zero"), tmp_path / "0")
    put(tmp_path, "one")
    put(tmp_path, "two")
    assert [v.number for v in serving.versions(tmp_path)] == [0, 1, 2]
    assert [serving.rollback(tmp_path).copy_of for _ in range(2)] == [1, 0]
    assert content(tmp_path / "4") == "zero"
    with pytest.raises(ValueError, match="no version before 0"):
        serving.rollback(tmp_path)


@pytest.mark.parametrize("other", ["01", "001", "00000000001"])
def test_one_number_is_one_version(tmp_path, other):
    put(tmp_path, "plain")
    put(tmp_path, "two")
    shutil.copytree(tmp_path / "2", tmp_path / other)
    assert [(v.number, v.path.name) for v in serving.versions(tmp_path)] == [
        (1, "1"),
        (2, "2"),
    ]
    assert content(serving.rollback(tmp_path).path) == "plain"


@pytest.mark.parametrize("name", [str(2**63), "9" * 20, "9" * 5000])
def test_numbers_that_servers_do_not_know(tmp_path, name):
    put(tmp_path, "one")
    put(tmp_path, "two")
    try:
        shutil.copytree(tmp_path / "1", tmp_path / name)
    except OSError:  # too long a name for this file system
        pytest.skip("no folder can be called so")
    assert [v.number for v in serving.versions(tmp_path)] == [1, 2]
    assert serving.rollback(tmp_path).path.name == "3"


# Verification


@pytest.fixture(scope="module")
def kept(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    return serving.export(tiny_model, folder, format="keras", labels=list("abc"))


@pytest.fixture(scope="module")
def tiny_model():
    import keras

    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 2))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1.0)(image))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(flat))


@pytest.fixture
def mine(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "served" / "1")


def only(folder):
    (result,) = serving.verify(folder)
    return result


def test_verify_a_savedmodel(version):
    """In a process that has neither Keras nor kerascnn."""
    result = only(version)
    assert result.ok and result.difference <= 1e-5, result
    assert str(result).startswith(f"{version}: whole; the golden answer differs by")


def test_verify_a_folder(mine):
    shutil.copytree(mine, mine.with_name("2"))
    (mine / "labels.txt").write_text("a\nb\nx\n", encoding="utf-8")
    first, second = serving.verify(mine.parent)
    assert (first.version, second.version) == (mine, mine.with_name("2"))
    assert (first.ok, second.ok) == (False, True)
    assert first.problems[0].startswith("labels.txt has changed: its SHA-256 is ")
    assert first.difference is None and second.difference <= 1e-5
    assert second.to_dict()["problems"] == ()


def test_verify_names_each_file(mine):
    with open(mine / "model.keras", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
    (mine / "labels.txt").unlink()
    (mine / "extra").mkdir()
    (mine / "extra" / "notes.txt").write_text("note", encoding="utf-8")
    problems = only(mine).problems
    assert problems[0] == "extra/notes.txt was added after the export"
    assert problems[1] == "labels.txt is missing"
    assert problems[2].startswith("model.keras has changed")
    assert len(problems) == 3
    shutil.rmtree(mine / "extra")
    (mine / "model.keras").unlink()
    assert only(mine.parent).problems == (
        "labels.txt is missing",
        "model.keras is missing",
    )


def test_verify_without_a_manifest(mine):
    file = mine / "manifest.json"
    file.write_text("{", encoding="utf-8")
    assert "manifest.json is damaged" in only(mine).problems[0]
    file.unlink()
    with pytest.raises(ValueError, match="holds no version"):
        serving.verify(mine)  # a lone model.keras
    (mine / "saved_model.pb").touch()
    assert "manifest.json is missing" in only(mine).problems[0]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        serving.verify(mine / "nowhere")


def change(version, edit):
    """Change the manifest of a version."""
    told = read_manifest(version)
    edit(told)
    (version / "manifest.json").write_text(json.dumps(told), encoding="utf-8")


def test_verify_replays_the_golden_request(mine, tiny_model):
    images, expected, tolerance = golden_arrays(read_manifest(mine))
    assert images.shape == (2, 8, 8, 2) and tolerance == 1e-5
    assert np.abs(tiny_model.predict(images, verbose=0) - expected).max() <= 1e-5

    def shift(told):
        told["golden"]["answer"]["probabilities"][1][2] += 1e-3

    change(mine, shift)
    result = only(mine)
    assert result.problems == ("the golden answer differs by 0.001, more than 1e-05",)
    assert not result.ok and result.difference == pytest.approx(1e-3, rel=0.01)

    def shorten(told):
        for row in told["golden"]["answer"]["probabilities"]:
            row.pop()

    change(mine, shorten)
    assert (
        "of shape (2, 3); received expected probabilities of shape (2, 2)"
        in only(mine).problems[0]
    )

    def remove(told):
        del told["golden"]

    change(mine, remove)
    assert "no golden request" in only(mine).problems[0]


@pytest.mark.parametrize("name", ["tflite", "", None, ["onnx"], {}])
def test_verify_an_unknown_format(mine, name):
    change(mine, lambda told: told.update(format=name))
    (problem,) = only(mine).problems
    assert f"names the format {name!r}" in problem


def test_verify_after_rollback(mine):
    shutil.copytree(mine, mine.with_name("2"))
    serving.rollback(mine.parent)
    results = serving.verify(mine.parent)
    assert [r.ok for r in results] == [True] * 3
