"""Archives in CIFAR-10's format, a fraction of its size, for the tests."""

import hashlib
import io
import pickle
import struct
import tarfile
from typing import ClassVar

import numpy as np

from kerascnn.data import cifar10, cifar10_archive

BATCH = 20


def shrink(monkeypatch):
    """Expect 20 images a file rather than 10,000: 100 to train, 20 to test on."""
    monkeypatch.setattr(cifar10_archive, "BATCH", BATCH)
    monkeypatch.setattr(cifar10, "TRAIN", 5 * BATCH)
    monkeypatch.setattr(cifar10, "TEST", BATCH)


def publish(monkeypatch, binary=None, python=None):
    """Take files for the published archives: their checksums become the known ones."""
    known = []
    published = ((cifar10_archive.BINARY, binary), (cifar10_archive.PYTHON, python))
    for archive, path in published:
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path else "0" * 64
        size = path.stat().st_size if path else 1
        known.append(
            cifar10_archive.Archive(archive.name, archive.folder, size, digest)
        )
    monkeypatch.setattr(cifar10_archive, "BINARY", known[0])
    monkeypatch.setattr(cifar10_archive, "PYTHON", known[1])
    monkeypatch.setattr(cifar10_archive, "ARCHIVES", tuple(known))


def images():
    """Pixels uint8 (120, 32, 32, 3) and classes (120,), training images first."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6 * BATCH, 32, 32, 3), np.uint8)
    return x, rng.permutation(np.arange(6 * BATCH) % 10)


def _batches():
    x, y = images()
    for number, name in enumerate([*cifar10_archive.TRAIN_FILES, "test_batch"]):
        part = slice(number * BATCH, (number + 1) * BATCH)
        planes = x[part].transpose(0, 3, 1, 2).reshape(BATCH, 3072)
        yield name, np.ascontiguousarray(planes), y[part]


def binary_files():
    """Names and contents as in cifar-10-binary.tar.gz."""
    folder = "cifar-10-batches-bin"
    files = {
        f"{folder}/{name}.bin": np.hstack([y[:, None].astype(np.uint8), x]).tobytes()
        for name, x, y in _batches()
    }
    files[f"{folder}/batches.meta.txt"] = "\n".join(cifar10.LABELS).encode() + b"\n\n"
    files[f"{folder}/readme.html"] = b"<html>"
    return files


class _Python2(pickle._Pickler):
    """Pickles as Python 2 did at protocol 2: text and bytes are both its strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        content = value.encode("ascii") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python_2(table):
    """Pickle a table as Python 2 and NumPy 1 did."""
    file = io.BytesIO()
    _Python2(file, protocol=2).dump(table)
    return file.getvalue().replace(b"numpy._core.multi", b"numpy.core.multi")


def python_files():
    """Names and contents as in cifar-10-python.tar.gz."""
    folder = "cifar-10-batches-py"
    files = {
        f"{folder}/{name}": python_2(
            {"batch_label": name, "labels": [int(n) for n in y], "data": x}
        )
        for name, x, y in _batches()
    }
    meta = {"num_cases_per_batch": BATCH, "label_names": list(cifar10.LABELS)}
    files[f"{folder}/batches.meta"] = python_2(meta)
    return files


def write(path, files, extra=()):
    """Write a .tar.gz of files and of further members (TarInfo, content)."""
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo(next(iter(files)).split("/")[0])
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member, content in extra:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
