"""CIFAR-10 from its author's host: slow, so that it resumes, and verified."""

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from kerascnn.data.cifar10_archive import (
    BINARY,
    import_cifar10,
    target_folder,
    verify,
)
from kerascnn.data.dataset import DataError
from kerascnn.environment import progress_bar

HOST = "https://www.cs.toronto.edu/~kriz/"


def download_cifar10(
    data_dir=None, *, progress=True, replace=False, url=HOST + BINARY.name, patience=10
) -> Path:
    """Download CIFAR-10 from its author's host and prepare it.

    A download that is interrupted leaves what it has got, and the next one goes on
    from there. The archive stays in `downloads` of the data directory.

    Args:
        data_dir: data directory of tensorflow-datasets; None for $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
        progress: whether to show a progress bar with the time left, on stderr.
        replace: whether to replace a CIFAR-10 that is there.
        url: of cifar-10-binary.tar.gz or cifar-10-python.tar.gz.
        patience: attempts in a row that bring nothing before it gives up.

    Returns:
        The prepared folder, "…/cifar10/3.0.2".

    Raises:
        DataError: the host does not answer or sends something else, or CIFAR-10 is
            there already.
    """
    root = target_folder(data_dir, replace).parent.parent
    archive = root / "downloads" / url.rpartition("/")[2]
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        partial = archive.with_name(archive.name + ".part")
        _fetch(url, partial, progress, patience)
        try:
            verify(partial)
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
            except urllib.error.HTTPError as failure:
                if failure.code < 500 and failure.code not in (408, 429):
                    raise DataError(f"{url}: {failure.code} {failure.reason}") from None
                error = failure
            except (OSError, http.client.HTTPException) as failure:
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
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        content_range = error.headers.get("Content-Range", "")
        if error.code == 416 and content_range == f"bytes */{have}":
            return True  # it asked for what comes after the last byte
        if error.code == 416:
            partial.unlink()  # longer than what the host has: not this file
            return False
        raise
    with response:
        length = int(response.headers.get("Content-Length") or 0)
        span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        resumes = response.status == 206 and span and int(span[1]) == have
        start = have if resumes else 0  # a host that knows no ranges begins anew
        total = start + length if length else None
        bar(start, total)
        with partial.open("ab" if resumes else "wb") as file:
            shutil.copyfileobj(response, _Counted(file, start, total, bar), 1 << 16)
            end = file.tell()
    return total is None or end >= total


class _Counted:
    """A file that tells the progress bar what is written."""

    def __init__(self, file, start, total, bar):
        self.file, self.done, self.total, self.bar = file, start, total, bar

    def write(self, content):
        self.file.write(content)
        self.done += len(content)
        self.bar(self.done, self.total)
