"""Streaming what tensorflow-datasets has prepared."""

import logging
import os
import subprocess
import sys

import numpy as np
import prepared
import pytest

from kerascnn.data import DataError, Images, Stream, load_data, tfds
from kerascnn.data.dataset import Data

LABELS = ("left", "middle", "right")
TRAIN, TEST = prepared.bands(40), prepared.bands(12, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("tfds")
    return prepared.write(
        base / "bands" / "1.0.0", {"train": TRAIN, "test": TEST}, LABELS
    )


@pytest.fixture
def stream(folder):
    return load_data(folder, stream=True)


def read(part, batch_size=9, **options):
    """All of a part: pixels, classes, numbers, and the sizes of the batches."""
    batches = list(part.batches(batch_size, **options))
    x, y, numbers = (np.concatenate(column) for column in zip(*batches, strict=True))
    return x, y, numbers, [len(batch[0]) for batch in batches]


def test_it_describes_itself_without_reading_images(stream, folder):
    assert isinstance(stream, Stream) and isinstance(stream, Data)
    assert (stream.name, stream.title, stream.labels) == ("bands", "bands", LABELS)
    assert stream.input_shape == (12, 12, 3) and stream.classes == 3
    assert [len(p) for p in (stream.train, stream.validation, stream.test)] == [
        36,
        4,
        12,
    ]
    assert stream.origin == {
        "source": str(folder),
        "validation": None,
        "seed": 0,
        "stream": True,
    }
    again = load_data(**stream.origin)
    assert again.fingerprint == stream.fingerprint
    assert "36" in str(stream) and "streamed" in str(stream)
    assert "streamed" in repr(stream.train)


def test_every_image_comes_once_with_its_class(stream):
    for seed in (None, (3, 1)):
        seen = []
        for part, batches in ((stream.train, [9] * 4), (stream.validation, [4])):
            x, y, numbers, sizes = read(part, seed=seed)
            assert sizes == batches
            assert x.dtype == np.uint8 and y.dtype == np.int64
            for image, label, number in zip(x, y, numbers, strict=True):
                assert (image == TRAIN[number][0]).all() and label == TRAIN[number][1]
            seen += numbers.tolist()
        assert sorted(seen) == list(range(40))
    x, y, numbers, _ = read(stream.test)
    assert numbers.tolist() == list(range(12))  # as they are stored
    assert all((image == TEST[i][0]).all() for i, image in enumerate(x))


def test_the_seed_alone_decides_the_order(stream):
    def order(*seed):
        return read(stream.train, seed=seed)[2].tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)
    # Neighbours in the files are not neighbours in an epoch.
    assert np.mean(np.abs(np.diff(order(0, 1))) == 1) < 0.3


def test_the_buffer_bounds_what_is_shuffled(stream, monkeypatch):
    """With a buffer of one batch, an image comes at most that much too early."""
    monkeypatch.setattr(tfds, "SHUFFLE_BYTES", 1)
    monkeypatch.setattr(tfds, "CYCLE", 1)
    numbers = read(stream.train, batch_size=4, seed=(0,))[2]
    assert sorted(numbers) == sorted(read(stream.train)[2])
    # The order of the files, as the first image of each tells it, and its places.
    shards = numbers // 7
    files = list(dict.fromkeys(shards))
    stored = [n for s in files for n in sorted(numbers[shards == s])]
    early = [stored.index(n) - place for place, n in enumerate(numbers)]
    assert 0 < max(early) <= 7  # a shard's rest, where the next one came first
    monkeypatch.undo()
    numbers = read(stream.train, batch_size=4, seed=(0,))[2]
    assert len(dict.fromkeys(numbers[:12] // 7)) > 2  # of several shards at once


def test_hosts_decode_their_rows_of_the_same_batches(stream):
    whole = list(stream.train.batches(10, seed=(1, 2)))
    assert [len(batch[0]) for batch in whole] == [10, 10, 10, 6]
    for host in (0, 1):

        def rows(n, host=host):
            return np.arange(host, n + 2, 2) % n

        parts = list(stream.train.batches(10, seed=(1, 2), rows=rows))
        for (x, y, numbers), (px, py, pn) in zip(whole, parts, strict=True):
            wanted = rows(len(x))
            assert (px == x[wanted]).all() and (py == y[wanted]).all()
            assert (pn == numbers[wanted]).all()


@pytest.mark.slow
def test_in_memory_it_is_a_data_set_like_any_other(folder, stream):
    data = load_data(folder)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [36, 4, 12]
    assert np.bincount(data.validation.y, minlength=3).min() >= 1  # in proportion
    assert isinstance(data.train, Images) and data.labels == LABELS
    assert (data.test.x == read(stream.test)[0]).all()
    pixels = {image.tobytes() for image, _ in TRAIN}
    found = [*data.train.x, *data.validation.x]
    assert {image.tobytes() for image in found} == pixels and len(found) == 40
    assert load_data(folder, validation=7).validation.y.shape == (7,)


def test_take_and_chunks(stream):
    some = stream.train.take(10, seed=4)
    assert isinstance(some, Images) and len(some) == 10
    assert (some.x == stream.train.take(10, seed=4).x).all()
    assert len(stream.train.take(1000)) == 36
    assert [len(chunk) for chunk in stream.test.chunks(5)] == [5, 5, 2]
    with pytest.raises(DataError, match="streamed and in no array"):
        _ = stream.train.x


@pytest.mark.parametrize(
    ("classes", "missing"),
    [
        ((1, 2), r"0 \('left'\); the train labels go from 1 to 2"),
        ((0, 2), r"1 \('middle'\); the train labels go from 0 to 2"),
        ((2,), r"0 \('left'\), 1 \('middle'\); the train labels go from 2 to 2"),
    ],
)
def test_a_class_without_images_is_named(tmp_path, classes, missing):
    """Labels that do not begin at 0, or leave a number out; the test part may."""
    train = [example for example in prepared.bands(24) if example[1] in classes]
    splits = {"train": train, "test": TEST}
    folder = prepared.write(tmp_path / "bands" / "1.0.0", splits, LABELS)
    for streamed in (True, False):
        with pytest.raises(DataError, match=f"no training image is of class {missing}"):
            load_data(folder, stream=streamed)
    splits = {"train": TRAIN, "test": train}
    folder = prepared.write(tmp_path / "bands" / "1.0.1", splits, LABELS)
    assert len(load_data(folder, stream=True).test) == len(train)


def test_names_versions_and_own_validation(tmp_path):
    splits = {
        "train": prepared.bands(9),
        "validation": prepared.bands(5),
        "test": prepared.bands(4),
    }
    for version in ("1.0.0", "1.0.10"):
        prepared.write(tmp_path / "more" / version, splits, LABELS)
    stream = load_data("tfds:more", stream=True, data_dir=tmp_path)
    assert [len(p) for p in (stream.train, stream.validation, stream.test)] == [9, 5, 4]
    assert stream.train._reader.folder.name == "1.0.10"
    assert stream.origin["source"] == "tfds:more"
    older = load_data("tfds:more:1.0.0", stream=True, data_dir=tmp_path)
    assert older.fingerprint != stream.fingerprint  # a version is a data set
    for streamed in (True, False):
        with pytest.raises(ValueError, match=r"its own.*received validation=3"):
            load_data("tfds:more", stream=streamed, data_dir=tmp_path, validation=3)
        none = load_data("tfds:more", stream=streamed, data_dir=tmp_path, validation=0)
        assert (len(none.train), len(none.validation), len(none.test)) == (9, 0, 4)
    memory = load_data("tfds:more", data_dir=tmp_path)
    assert len(memory.validation) == 5
    with pytest.raises(DataError, match="tfds:none is not prepared; looked in"):
        load_data("tfds:none", stream=True, data_dir=tmp_path)
    with pytest.raises(DataError, match=r"tfds:more:3\.0\.0 is not prepared"):
        load_data("tfds:more:3.0.0", data_dir=tmp_path)


def test_images_of_several_sizes_are_cut_and_resized(tmp_path):
    rng = np.random.default_rng(0)
    grey = np.full((20, 40, 3), 100, np.uint8)
    grey[:, :10], grey[:, 30:] = 0, 255  # the rims go
    noise = rng.integers(0, 256, (50, 16, 3), np.uint8)
    folder = prepared.write(
        tmp_path / "sizes" / "1.0.0",
        {"train": [(grey, 0), (noise, 1)], "validation": [(noise, 1)]},
        shape=(None, None, 3),
    )
    stream = load_data(folder, stream=True, image_size=(8, 8), validation=0)
    assert stream.input_shape == (8, 8, 3)
    assert "split validation is the test part" in str(stream)
    x = read(stream.train)[0]
    assert x.shape == (2, 8, 8, 3) and (x[0] == 100).all() and x[1].std() > 10
    assert load_data(folder, stream=True).input_shape == (32, 32, 3)


def test_what_cannot_be_streamed_is_told(tmp_path, folder):
    for source, match in (
        (tmp_path, "stream reads what tensorflow-datasets"),
        ("shapes", "no data named 'shapes', and no such folder: stream reads"),
    ):
        with pytest.raises(DataError, match=match):
            load_data(source, stream=True)
    with pytest.raises(ValueError, match="does not take images"):
        load_data(folder, stream=True, images=100)
    with pytest.raises(ValueError, match="0 to 39 can be held out"):
        load_data(folder, stream=True, validation=40)
    for name in ("features.json", "dataset_info.json"):
        (tmp_path / "dataset_info.json").write_text("{}")
        (tmp_path / name).write_text("{")
        match = f"cannot be read as prepared by tensorflow-datasets: {name}: "
        with pytest.raises(DataError, match=match):
            load_data(tmp_path, stream=True)


def test_missing_and_damaged_shards_are_named(tmp_path):
    folder = prepared.write(
        tmp_path / "bands" / "1.0.0", {"train": TRAIN, "test": TEST}, LABELS
    )
    stream = load_data(folder, stream=True)
    shard = sorted(folder.glob("*train*"))[2]
    content = shard.read_bytes()
    shard.write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"missing or damaged: .*; prepare it anew"):
        read(stream.train)
    assert load_data(folder, stream=True).fingerprint != stream.fingerprint
    shard.write_bytes(b"")
    with pytest.raises(DataError, match=r"\d+ of 36 images were found"):
        read(stream.train)
    shard.unlink()
    with pytest.raises(DataError, match="missing or damaged"):
        read(stream.train)
    with pytest.raises(DataError, match=f"{shard.name}: No such file"):
        load_data(folder, stream=True)
    shard.write_bytes(content)
    assert load_data(folder, stream=True).fingerprint == stream.fingerprint


def test_tensorflow_keeps_its_start_to_itself(tmp_path):
    """Also where Keras computes with another backend, and has not imported it."""
    (tmp_path / "tensorflow.py").write_text(
        "import os; os.write(2, b'I0000')\nraise ImportError('it was asked for')"
    )
    code = "from kerascnn.data.tfds import import_tfds as i; i('reading x', 'try y')"
    run = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run(run, env=env, capture_output=True, text=True).stderr
    assert "I0000" not in said
    assert said.strip().endswith("it was asked for; install them, or try y")


def test_nothing_is_said_of_tfds_own_code(folder, caplog):
    logger = logging.getLogger("absl")
    before = logger.level
    load_data(folder)
    assert [r.getMessage() for r in caplog.records if r.name == "absl"] == []
    assert logger.level == before
