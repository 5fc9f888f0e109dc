"""One training a folder: a lock that ends with its process, however that ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderInUseError(RuntimeError):
    """Another process trains in a run folder."""


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Hold a run folder for this process.

    The folder itself is locked (flock), so that nothing is left behind and the lock is
    gone with the process. Where files cannot be locked (Windows, some network file
    systems) only the making of a folder keeps two new trainings apart, and two
    processes must not be told to resume one.

    Args:
        folder: that exists; None for a host that keeps none.

    Raises:
        FolderInUseError: another process, or another training of this one, holds it.
    """
    if folder is None or fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(
                f"another process trains in {folder}: wait until it has finished, or "
                "stop it, and resume then"
            ) from None
        except OSError:  # the file system knows no locks
            pass
        yield
    finally:
        os.close(lock)
