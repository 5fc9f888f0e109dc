"""Numbered versions of a served model, each put in place whole, with its manifest.

A server loads the child with the largest number as soon as it appears: a version is
completed beside the others under a name that is no number. Its manifest.json has

    manifest     1, the number of this layout
    model, format, created (UTC), accuracy (percent, where known), copy_of
    input, outputs, signatures, activations, labels
    source       the run (configuration and metrics), weights or file it comes from
    versions     of the packages that wrote it
    parity       how far its answers were from the network's, on how many images
    golden       a request, its answer, and how far a later answer may be off
    files        size and SHA-256 of every other file of the version
"""

import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from kerascnn.serving.formats import MANIFEST, ExportError, first_line

LAYOUT = 1
PREFIX = ".staging-"
LOCK = ".lock"  # ends the name of the file that is locked while its directory is filled
LARGEST = 2**63 - 1  # a server reads a version's number as int64


def published(folder) -> list[int]:
    """Return the numbers ("7", "007") in use in a folder of versions, ascending."""
    return [number for number, _ in numbered(folder)]


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


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make an empty staging directory in `folder`; remove it if it is still there.

    Those that no living process holds, by the lock beside each, are removed first.

    Raises OSError: the folder cannot be made or written to, or is a file.
    """
    staged = folder / f"{PREFIX}{secrets.token_hex(4)}"
    lock = FileLock(f"{staged}{LOCK}")
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            left = {p.name.removesuffix(LOCK) for p in folder.glob(f"{PREFIX}*")}
            for name in left:
                other = FileLock(folder / f"{name}{LOCK}")
                with contextlib.suppress(OSError):  # a process holds it, or owns it
                    other.acquire(blocking=False)
                    _remove(folder / name, other)
            # The lock first: who sees the directory finds it held.
            lock.acquire()
            # mkdir, not tempfile.mkdtemp: a server may run as another user, and must
            # be able to read what the process's umask lets it read.
            staged.mkdir()
        except (FileExistsError, NotADirectoryError) as error:
            file = next((p for p in (folder, *folder.parents) if p.is_file()), folder)
            raise NotADirectoryError(
                f"{file} is a file, not a folder; export to a folder"
            ) from error
        except OSError as error:
            raise type(error)(
                f"cannot write to {folder}: {error.strerror}; export to another folder"
            ) from error
        yield staged
    finally:
        _remove(staged, lock)


def _remove(staged: Path, lock: FileLock) -> None:
    shutil.rmtree(staged, ignore_errors=True)
    if lock.is_locked:
        lock.release()
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)


@contextlib.contextmanager
def explained(staged: Path) -> Iterator[None]:
    """Turn a failure to write into an ExportError that tells the space that is left."""
    tensorflow = sys.modules.get("tensorflow")
    own = (OSError, tensorflow.errors.OpError) if tensorflow else (OSError,)
    try:
        yield
    except own as error:
        free = shutil.disk_usage(staged).free / 1e6
        raise ExportError(
            f"cannot write a version into {staged.parent}: {first_line(error)}; "
            f"nothing was published, and {free:,.0f} MB are free there"
        ) from error


def publish(staged: Path, folder: Path, about: dict | None = None) -> Path:
    """Rename a complete staging directory to the next number; return the new path.

    The next number is one more than the largest in use, whether or not what bears it
    is a version. `about` is what the manifest says beside the time and the files;
    without it, none is written. OSError: the directory cannot be renamed.
    """
    if about is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told = {"manifest": LAYOUT, "created": now, **about, "files": _listing(staged)}
        text = json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n"
        with explained(staged):
            (staged / MANIFEST).write_text(text, encoding="utf-8")
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


def withdraw(version: Path) -> bool:
    """Take a version out of its folder in one step, then remove it.

    As it is renamed to a staging directory first, nobody sees half a version, and the
    next export removes what a killed process leaves. False: it was not there any more.
    """
    away = version.with_name(f"{PREFIX}{secrets.token_hex(4)}")
    try:
        os.rename(version, away)
    except FileNotFoundError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def read_manifest(version) -> dict | None:
    """Return the manifest of a version, None if it has none; ValueError: damaged."""
    file = Path(version) / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise ValueError(f"{file} is damaged: it does not list the version's files")
    return content


def _listing(version: Path) -> dict[str, dict]:
    """Return bytes and sha256 of every file of a version but the manifest, by path."""
    found = {}
    for path in sorted(version.rglob("*")):
        if path.is_file() and path != version / MANIFEST:
            about = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            found[path.relative_to(version).as_posix()] = about
    return found


def changes(version: Path, content: dict) -> list[str]:
    """Name the files of a version that are not what its manifest lists, a line each."""
    said, there = content["files"], _listing(version)
    lines = []
    for name in sorted(said.keys() | there.keys()):
        if name not in there:
            lines.append(f"{name} is missing")
        elif name not in said:
            lines.append(f"{name} was added after the export")
        elif there[name]["sha256"] != said[name].get("sha256"):
            lines.append(
                f"{name} has changed: its SHA-256 is {there[name]['sha256'][:12]}…, "
                f"at the export it was {str(said[name].get('sha256'))[:12]}…"
            )
    return lines


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
