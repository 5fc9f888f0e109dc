"""CIFAR-10 from its author's archives: downloaded, verified, read, prepared.

Nothing of an archive is read, unpickled or written before its SHA-256 has told, through
the same open file, that it is one of the two that the author published.
"""

import contextlib
import hashlib
import io
import os
import pickle
import re
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import urllib3

from kerascnn.data import cifar10
from kerascnn.data.dataset import DataError, Images
from kerascnn.data.tfds import import_tfds
from kerascnn.environment import progress_bar

HOST = "https://www.cs.toronto.edu/~kriz/"  # slow
BATCH = 10_000  # images in each file of an archive
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILE = "test_batch"


@dataclass(frozen=True)
class Archive:
    """An archive as its author published it."""

    name: str
    folder: str  # in which its members lie
    size: int  # bytes
    sha256: str


# Sizes and checksums: tensorflow-datasets, url_checksums/cifar10.txt, for the first;
# keras.datasets.cifar10 and torchvision.datasets.CIFAR10 for the second.
BINARY = Archive(
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
PYTHON = Archive(
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    170_498_071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
ARCHIVES = (BINARY, PYTHON)


def verify(file) -> Archive:
    """Say which of the published archives an open file is, by its SHA-256.

    Raises DataError: it is neither.
    """
    received = hashlib.file_digest(file, "sha256").hexdigest()
    for archive in ARCHIVES:
        if received == archive.sha256:
            return archive
    published = " or ".join(f"{a.name} ({a.size:,} bytes)" for a in ARCHIVES)
    raise DataError(
        f"{file.name} is not {published} as published, or was damaged or cut off on "
        f"the way: it has {file.tell():,} bytes, SHA-256 {received}; download it again"
    )


def read_archive(path) -> tuple[tuple[str, ...], Images, Images]:
    """Read one of the two archives; its checksum decides which it is, not its name.

    Returned are the names of the classes, 50,000 Images to train on and 10,000 to test
    on, in their original order. DataError: the checksum is not the published one, or
    the content is not what it should be.
    """
    path = Path(path)
    files = [*TRAIN_FILES, TEST_FILE]
    x = np.empty((len(files) * BATCH, 32, 32, 3), np.uint8)
    y = np.empty(len(files) * BATCH, np.int64)
    try:
        with path.open("rb") as file:
            archive = verify(file)
            file.seek(0)
            suffix = ".bin" if archive is BINARY else ""
            meta = "batches.meta" + (".txt" if suffix else "")
            wanted = {f"{archive.folder}/{name}{suffix}": name for name in files}
            wanted[f"{archive.folder}/{meta}"] = "meta"
            with tarfile.open(fileobj=file, mode="r|gz") as members:  # one pass
                content = {
                    wanted[member.name]: members.extractfile(member).read()
                    for member in members
                    if member.name in wanted
                }
        labels = _meta(content["meta"], archive)
        for number, name in enumerate(files):
            part = slice(number * BATCH, (number + 1) * BATCH)
            pixels, y[part] = _batch(content[name], archive)
            # Three planes, red first: (N, 3, 32, 32).
            x[part] = pixels.reshape(BATCH, 3, 32, 32).transpose(0, 2, 3, 1)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the archive {path}: {error}") from error
    except (KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{path} is not what was published: {error}") from error
    train = len(TRAIN_FILES) * BATCH
    return labels, Images(x[:train], y[:train]), Images(x[train:], y[train:])


def _batch(content, archive):
    """Pixels uint8 (BATCH, 3072) and classes (BATCH,) of one file."""
    if archive is BINARY:
        records = np.frombuffer(content, np.uint8)
        if records.size != BATCH * 3073:  # a class, then 3·32·32 pixels
            raise ValueError(
                f"{BATCH * 3073:,} bytes were expected, {records.size:,} received"
            )
        records = records.reshape(BATCH, 3073)
        pixels, classes = records[:, 1:], records[:, 0]
    else:
        table = pickle.loads(content, encoding="bytes")  # as Python 2 wrote it
        pixels, classes = table[b"data"], np.array(table[b"labels"], np.int64)
        if pixels.shape != (BATCH, 3072):
            raise ValueError(f"{BATCH} x 3072 bytes were expected")
    if classes.shape != (BATCH,) or classes.min() < 0 or classes.max() > 9:
        raise ValueError(f"{BATCH} classes, 0 to 9, were expected")
    return pixels, classes


def _meta(content, archive):
    """Names of the classes."""
    if archive is PYTHON:
        content = b" ".join(pickle.loads(content, encoding="bytes")[b"label_names"])
    labels = tuple(content.decode("ascii").split())
    if labels != cifar10.LABELS:
        raise ValueError(f"the classes are {', '.join(labels)}")
    return labels


def import_cifar10(archive, data_dir=None, *, replace=False) -> Path:
    """Prepare CIFAR-10 for tensorflow-datasets from an archive that is at hand.

    Afterwards `load_data("cifar10")` and `tfds.load("cifar10", download=False)` find
    it: complete, or not at all.

    `archive` is cifar-10-binary.tar.gz or cifar-10-python.tar.gz, as published;
    `data_dir` the data directory of tensorflow-datasets, None for $TFDS_DATA_DIR, else
    ~/tensorflow_datasets; `replace` says whether to replace a CIFAR-10 that is there,
    of whichever copy. Returned is the prepared folder, "…/cifar10/3.0.2".

    Raises DataError: the archive is not one as published, CIFAR-10 is there already, or
    TensorFlow is not installed.
    """
    target = target_folder(data_dir, replace)
    labels, train, test = read_archive(archive)
    root = target.parent.parent
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".kerascnn-import-", dir=root) as folder:
        written = _write_prepared(labels, train, test, Path(folder))
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            # Out of the way first: what lies there is one copy or the other, whole.
            target.rename(Path(folder) / "replaced")
        written.rename(target)
    return target


def target_folder(data_dir, replace):
    """Where CIFAR-10 is to be prepared, unless it is there already."""
    target = cifar10.data_dirs(data_dir)[0] / "cifar10" / cifar10.VERSION
    if target.exists() and not replace:
        raise DataError(
            f"there is a CIFAR-10 in {target} already; name another data directory, or "
            "ask for it to be replaced (replace=True)"
        )
    return target


def _write_prepared(labels, train, test, data_dir):
    """Have tensorflow-datasets write the images; returns the folder of the version."""
    otherwise = "give load_data the archive itself"
    tfds = import_tfds("preparing CIFAR-10", otherwise)[1]
    from tensorflow_datasets.core import registered

    def examples(split, images):
        # The keys and the ids of the original builder, so that its order on disk and
        # its ids come out too.
        for index, (image, label) in enumerate(zip(images.x, images.y, strict=True)):
            name = f"{split}_{index:05d}"
            yield index, {"id": name, "image": image, "label": int(label)}

    # Not registered: tfds.load("cifar10") goes on meaning the original builder, which
    # finds these files, for they bear its name and version.
    with registered.skip_registration():

        class Cifar10(tfds.image_classification.Cifar10):
            """CIFAR-10 from arrays in place of a download."""

            code_path = None  # its module, which would be asked for checksums

            def _split_generators(self, dl_manager):
                self.info.features["label"].names = list(labels)
                parts = {"train": train, "test": test}
                return {name: examples(name, part) for name, part in parts.items()}

    builder = Cifar10(data_dir=os.fspath(data_dir), version=cifar10.VERSION)
    # It prints of a download, and of the temporary folder; its progress bar, on stderr,
    # is enough.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return Path(builder.data_dir)


def download_cifar10(
    data_dir=None, *, progress=True, replace=False, url=HOST + BINARY.name, patience=10
) -> Path:
    """Download CIFAR-10 from its author's host and prepare it.

    A download that is interrupted leaves what it has got, and the next one goes on
    from there. The archive stays in `downloads` of the data directory.

    Args:
        data_dir: as for `import_cifar10`.
        progress: whether to show a progress bar with the time left, on stderr.
        replace: whether to replace a CIFAR-10 that is there.
        url: of cifar-10-binary.tar.gz or cifar-10-python.tar.gz.
        patience: attempts in a row that bring nothing before it gives up.

    Returns the prepared folder, "…/cifar10/3.0.2". Raises DataError where the host
    does not answer or sends something else, or CIFAR-10 is there already.
    """
    root = target_folder(data_dir, replace).parent.parent
    archive = root / "downloads" / url.rpartition("/")[2]
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        partial = archive.with_name(archive.name + ".part")
        _fetch(url, partial, progress, patience)
        try:
            with partial.open("rb") as file:
                verify(file)
        except DataError:
            partial.unlink()  # no use in going on from it
            raise
        partial.replace(archive)
    return import_cifar10(archive, data_dir, replace=replace)


def _fetch(url, partial, progress, patience):
    """Append to a partial file until it is complete."""
    failures = 0
    with progress_bar("CIFAR-10", total=None, in_bytes=True, enabled=progress) as bar:
        while True:
            have = partial.stat().st_size if partial.exists() else 0
            try:
                if _receive(url, partial, have, bar):
                    return
                error = "the connection closed early"
            except (OSError, urllib3.exceptions.HTTPError) as failure:
                error = failure
            got = (partial.stat().st_size if partial.exists() else 0) - have
            failures = 0 if got > 0 else failures + 1
            if failures >= patience:
                raise DataError(
                    f"{url} brought nothing in {patience} attempts: {error}; "
                    f"{partial} holds {have:,} bytes, and the next download goes on "
                    "from there"
                )
            time.sleep(min(2**failures - 1, 30))


def _receive(url, partial, have, bar):
    """Make one request for what is missing; returns whether the file is complete."""
    headers = {"User-Agent": "kerascnn", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    # What came before a connection closed early is kept: its length is counted below.
    asked = {"preload_content": False, "enforce_content_length": False}
    pool = urllib3.PoolManager(timeout=60, headers=headers)
    with pool.request("GET", url, **asked) as response:
        status, told = response.status, response.headers
        if status == 416:
            # It asked for what comes after the last byte, or has more than the host.
            complete = told.get("Content-Range") == f"bytes */{have}"
            if not complete:
                partial.unlink()
            return complete
        if status >= 400:
            passing = status >= 500 or status in (408, 429)
            kind = urllib3.exceptions.HTTPError if passing else DataError
            raise kind(f"{url}: {status} {response.reason}")
        length = int(told.get("Content-Length") or 0)
        span = re.match(r"bytes (\d+)-", told.get("Content-Range", ""))
        resumes = status == 206 and span and int(span[1]) == have
        start = have if resumes else 0  # a host that knows no ranges begins anew
        total = start + length if length else None
        bar(start, total)
        with partial.open("ab" if resumes else "wb") as file:
            for content in response.stream(1 << 16):
                file.write(content)
                bar(file.tell(), total)
            return total is None or file.tell() >= total
