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
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = ".staging-"
ABANDONED = 24 * 3600  # seconds; where files cannot be locked, age has to tell


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
    """Return number and path of every child with a decimal number as its name."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [name for name in names if re.fullmatch("[0-9]+", name)]
    return sorted((int(name), Path(folder) / name) for name in found)


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

    The directory is locked while this process lives. Staging directories that no
    living process holds are removed first.

    Args:
        folder: the folder of versions; made if it does not exist.

    Yields:
        The path of the staging directory.

    Raises:
        OSError: the folder cannot be made or written to, or is a file.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
        staged, lock = _stage(folder)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def publish(staged: Path, folder: Path) -> Path:
    """Rename a complete staging directory to the next number; return the new path.

    The next number is one more than the largest in use, whether or not what bears it
    is a version. An export that finishes in the meantime takes that number, and this
    one the number after it.

    Raises:
        OSError: the directory cannot be renamed.
    """
    while True:
        version = folder / str(max(published(folder), default=0) + 1)
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


def _stage(folder: Path) -> tuple[Path, int | None]:
    while True:
        staged = folder / f"{PREFIX}{secrets.token_hex(4)}"
        # mkdir, not tempfile.mkdtemp: a server may run as another user, and must be
        # able to read what the process's umask lets it read.
        staged.mkdir()
        if fcntl is None:
            return staged, None
        lock = None
        try:
            lock = os.open(staged, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(staged)):
                return staged, lock
        except (FileNotFoundError, BlockingIOError):
            # Another export took the directory for abandoned before it was locked.
            pass
        except OSError:  # the file system knows no locks
            os.close(lock)
            return staged, None
        if lock is not None:
            os.close(lock)


def _clean(folder: Path) -> None:
    """Remove the staging directories of processes that have ended."""
    for staged in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError), _abandoned(staged) as abandoned:
            if abandoned:
                shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _abandoned(staged: Path) -> Iterator[bool]:
    """Tell whether no living process holds a staging directory.

    While the answer is used the directory is locked: an export that has just made it,
    and not locked it yet, sees that it was taken for abandoned.
    """
    by_age = time.time() - staged.stat().st_mtime > ABANDONED
    if fcntl is None:
        yield by_age
        return
    lock = os.open(staged, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        abandoned = True
    except BlockingIOError:
        abandoned = False
    except OSError:  # the file system knows no locks
        abandoned = by_age
    try:
        yield abandoned
    finally:
        os.close(lock)


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
