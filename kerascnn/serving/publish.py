"""Numbered versions of a served model, each put in place in one step.

A server such as TensorFlow Serving watches the folder and loads the child with the
largest number as soon as it appears. A version is therefore completed in a staging
directory beside the others, whose name is no number, and then renamed.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

PREFIX = ".staging-"
LOCK = ".lock"  # ends the name of the file that is locked while its directory is filled
LARGEST = 2**63 - 1  # a server reads a version's number as int64


def published(folder) -> list[int]:
    """Return the numbers in use in a folder of versions, ascending.

    Args:
        folder: the folder of one model, whose children 1, 2, … are its versions.

    Returns:
        The number of every child with a decimal number as its name ("7", "007");
        empty if the folder does not exist.
    """
    return sorted(number for number, _ in numbered(folder))


def numbered(folder) -> list[tuple[int, Path]]:
    """Return number and path of every child with a decimal number as its name.

    As for servers, of "7" and "007" the plain one counts, and none beyond 64 bits.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = {
        int(name): Path(folder) / name
        for name in sorted(names)  # "007" comes before "7"
        if re.fullmatch("[0-9]{1,30}", name) and int(name) <= LARGEST
    }
    return sorted(found.items())


def withdraw(version: Path) -> bool:
    """Take a version out of its folder in one step, then remove it.

    It is renamed to a staging directory first, so that nobody sees half a version, and
    what a killed process leaves is removed by the next export.

    Returns:
        False if it was not there any more.

    Raises:
        OSError: it cannot be renamed.
    """
    away = version.with_name(f"{PREFIX}{secrets.token_hex(4)}")
    try:
        os.rename(version, away)
    except FileNotFoundError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make an empty staging directory in `folder`; remove it if it is still there.

    A file beside it is locked while this process lives. Staging directories that no
    living process holds are removed first.

    Args:
        folder: the folder of versions; made if it does not exist.

    Yields:
        The path of the staging directory.

    Raises:
        OSError: the folder cannot be made or written to, or is a file.
    """
    staged = folder / f"{PREFIX}{secrets.token_hex(4)}"
    lock = FileLock(f"{staged}{LOCK}")
    try:
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _clean(folder)
            # The lock first: who sees the directory finds it held.
            lock.acquire()
            # mkdir, not tempfile.mkdtemp: a server may run as another user, and must
            # be able to read what the process's umask lets it read.
            staged.mkdir()
        yield staged
    finally:
        _remove(staged, lock)


def _remove(staged: Path, lock: FileLock) -> None:
    shutil.rmtree(staged, ignore_errors=True)
    if lock.is_locked:
        lock.release()
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


def _clean(folder: Path) -> None:
    """Remove the staging directories of processes that have ended."""
    for name in {path.name.removesuffix(LOCK) for path in folder.glob(f"{PREFIX}*")}:
        lock = FileLock(folder / f"{name}{LOCK}")
        with contextlib.suppress(OSError):  # another process holds it, or owns it
            lock.acquire(blocking=False)
            _remove(folder / name, lock)


def publish(staged: Path, folder: Path) -> Path:
    """Rename a complete staging directory to the next number; return the new path.

    The next number is one more than the largest in use, whether or not what bears it
    is a version. An export that finishes in the meantime takes that number, and this
    one the number after it.

    Raises:
        OSError: the directory cannot be renamed, or there is no greater number.
    """
    while True:
        number = max(published(folder), default=0) + 1
        if number > LARGEST:
            raise OSError(
                f"{folder} has the version {LARGEST}, the greatest that servers know; "
                "publish into another folder"
            )
        version = folder / str(number)
        # POSIX lets a directory replace an empty one; a version replaces nothing.
        if os.path.lexists(version):
            continue
        try:
            os.rename(staged, version)
        except OSError:
            if os.path.lexists(version):  # another export was faster
                continue
            raise
        return version


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        file = next((p for p in (folder, *folder.parents) if p.is_file()), folder)
        raise NotADirectoryError(
            f"{file} is a file, not a folder; export to a folder"
        ) from error
    except OSError as error:
        raise type(error)(
            f"cannot write to {folder}: {error.strerror}; export to another folder"
        ) from error
