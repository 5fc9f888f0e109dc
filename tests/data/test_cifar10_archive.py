import pickle
import sys
import tarfile
from pathlib import Path

import archives
import numpy as np
import pytest

from kerascnn.data import (
    DataError,
    cifar10,
    cifar10_archive,
    import_cifar10,
    load_data,
)

FOLDER = "cifar-10-batches-bin"


# ---- Reading ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_both_archives_hold_the_images_in_their_order(published, kind):
    labels, train, test = cifar10_archive.read_archive(published(kind=kind))
    x, y = archives.images()
    assert labels == cifar10.LABELS
    assert (np.concatenate([train.x, test.x]) == x).all()
    assert (np.concatenate([train.y, test.y]) == y).all()


def test_load_data_reads_an_archive_without_tensorflow(published):
    data = load_data(str(published(kind="python")), validation=10)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert (data.name, data.title) == ("cifar10", "CIFAR-10 (altered copy)")
    with pytest.raises(ValueError, match="are 32x32 pixels"):
        load_data(published(), image_size=64)


def test_the_checksums_are_those_of_others():
    tfds = pytest.importorskip("tensorflow_datasets")
    known = Path(tfds.__file__).parent / "url_checksums" / "cifar10.txt"
    url, size, sha256, _ = known.read_text().split()
    archive = cifar10_archive.BINARY
    assert url == cifar10_archive.HOST + archive.name
    assert (int(size), sha256) == (archive.size, archive.sha256)
    keras = Path(sys.modules["tensorflow_datasets"].__file__).parents[1] / "keras"
    source = keras / "src" / "datasets" / "cifar10.py"
    assert cifar10_archive.PYTHON.sha256 in source.read_text()


# ---- Hostile and broken archives ----------------------------------------------------


def test_another_checksum_is_refused_before_anything_is_read(published, tmp_path):
    path = published()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    data = tmp_path / "data"
    with pytest.raises(DataError, match=r"is not cifar-10-binary.tar.gz.*SHA-256"):
        import_cifar10(path, data)
    with pytest.raises(DataError, match=r"cannot read the archive.*No such file"):
        import_cifar10(path.with_name("none.tar.gz"), data)
    assert not data.exists()


class Calls:
    """A pickle of it creates a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_before_the_checksum_is_known(published, tmp_path):
    files = archives.python_files()
    bait = tmp_path / "called"
    files["cifar-10-batches-py/data_batch_1"] = pickle.dumps(Calls(bait))
    hostile = archives.write(tmp_path / "hostile.tar.gz", files)
    published(kind="python")  # another file is the one that was published
    with pytest.raises(DataError, match=r"is not cifar-10-binary.tar.gz.*SHA-256"):
        cifar10_archive.read_archive(hostile)
    assert not bait.exists()


def test_other_members_are_left_alone(published, tmp_path):
    """Nothing is written, under whatever name: an archive is read where it is."""
    extra = [(tarfile.TarInfo(name), b"x") for name in ("../outside.txt", "/x", "y")]
    before = set(tmp_path.rglob("*"))
    path = published(extra=extra)
    labels, train, _ = cifar10_archive.read_archive(path)
    assert labels == cifar10.LABELS and len(train) == 100
    assert set(tmp_path.rglob("*")) - before <= {path, path.parent}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2.bin", b"short", "61,460 bytes were expected, 5 received"),
        ("data_batch_2.bin", b"\xff" * 61460, "20 classes, 0 to 9, were expected"),
        ("batches.meta.txt", b"cat\ndog\n", "the classes are cat, dog"),
        ("data_batch_2.bin", None, "not what was published: 'data_batch_2'"),
        ("batches.meta.txt", None, "not what was published: 'meta'"),
    ],
)
def test_wrong_content_is_named(published, name, content, message):
    files = archives.binary_files()
    files[f"{FOLDER}/{name}"] = content
    files = {name: content for name, content in files.items() if content is not None}
    with pytest.raises(DataError, match=message):
        cifar10_archive.read_archive(published(files))


def test_what_is_no_archive_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    for content in (
        b"text",
        archives.write(path, {"a/b": b"c" * 999}).read_bytes()[:60],
    ):
        path.write_bytes(content)
        archives.publish(monkeypatch, binary=path)
        with pytest.raises(
            DataError, match=r"is not what was published|cannot read the archive"
        ):
            cifar10_archive.read_archive(path)


# ---- Preparing ----------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_import_makes_what_tensorflow_datasets_finds(published, tmp_path, no_network):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = import_cifar10(published(), tmp_path / "data")
    assert folder == tmp_path / "data" / "cifar10" / "3.0.2"
    assert [path.name for path in folder.parents[1].iterdir()] == ["cifar10"]

    data = load_data("cifar10", data_dir=tmp_path / "data", validation=0)
    x, y = archives.images()
    assert (np.concatenate([data.train.x, data.test.x]) == x).all()
    assert (np.concatenate([data.train.y, data.test.y]) == y).all()
    assert data.labels == cifar10.LABELS
    archive = load_data(published(), validation=0)
    assert archive.fingerprint == data.fingerprint

    # As its own users load it, by name, with the ids of the original builder.
    splits, info = tfds.load(
        "cifar10", data_dir=tmp_path / "data", download=False, with_info=True
    )
    assert info.full_name == "cifar10/3.0.2"
    assert info.splits["train"].num_examples == 100
    assert info.features["label"].names == list(cifar10.LABELS)
    rows = {row["id"].decode(): row for row in tfds.as_numpy(splits["test"])}
    assert sorted(rows) == [f"test_{n:05d}" for n in range(20)]
    assert (rows["test_00007"]["image"] == x[107]).all()
    assert rows["test_00007"]["label"] == y[107]


def test_import_replaces_only_when_asked(published, tmp_path, monkeypatch, no_network):
    pytest.importorskip("tensorflow_datasets")
    there = tmp_path / "cifar10" / "3.0.2"
    there.mkdir(parents=True)
    (there / "old").touch()
    path = published()
    with pytest.raises(DataError, match=r"there is a CIFAR-10 in .* already"):
        import_cifar10(path, tmp_path)

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cifar10_archive, "_write_prepared", fail)
        with pytest.raises(OSError, match="disk full"):
            import_cifar10(path, tmp_path, replace=True)
    assert (there / "old").exists()  # a failure leaves what was there
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "cifar10"]
    import_cifar10(path, tmp_path, replace=True)
    assert not (there / "old").exists()
    assert (there / "dataset_info.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "cifar10"]


def test_a_failed_import_leaves_nothing(published, tmp_path, monkeypatch):
    def fail(labels, train, test, data_dir):
        (data_dir / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar10_archive, "_write_prepared", fail)
    with pytest.raises(KeyboardInterrupt):
        import_cifar10(published(), tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())
