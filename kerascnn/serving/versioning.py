"""Keep the versions of a model: list them, go back to one, remove old ones."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kerascnn.serving import manifest
from kerascnn.serving.formats import MANIFEST, ExportError, format_of
from kerascnn.serving.publish import numbered, publish, staging, withdraw
from kerascnn.tables import Column, Table, format_bytes


@dataclass(frozen=True)
class Version:
    """One version in a folder of versions.

    Attributes:
        number: what servers order versions by.
        path: its folder.
        format: "savedmodel", "litert", "onnx", "openvino" or "keras"; None where a
            damaged manifest keeps it.
        model: name of the network, None if it is not known.
        created: when it was published, UTC, ISO 8601; None if it is not known.
        accuracy: percent of the test images; None if it is not known.
        data: the data that the network was trained on; None if it is not known.
        bytes: size of all its files.
        verifiable: whether it has a manifest, so that `verify` can prove it whole.
        copy_of: the version that a rollback published again, otherwise None.
        damaged: what is wrong with its manifest, otherwise None.
    """

    number: int
    path: Path
    format: str | None
    model: str | None
    created: str | None
    accuracy: float | None
    data: str | None
    bytes: int
    verifiable: bool
    copy_of: int | None = None
    damaged: str | None = None

    def __str__(self) -> str:
        told = [self.model or "unknown network", self.format or "unknown format"]
        told.append(format_bytes(self.bytes))
        if self.accuracy is not None:
            told.append(f"{self.accuracy:.2f} %")
        if self.created:
            told.append(self.created)
        if self.copy_of is not None:
            told.append(f"copy of {self.copy_of}")
        if self.damaged:
            told.append(f"damaged: {self.damaged}")
        elif not self.verifiable:
            told.append("no manifest")
        return f"{self.path}: " + ", ".join(told)

    def to_dict(self) -> dict:
        """Return the attributes for JSON."""
        return {**vars(self), "path": str(self.path)}


def versions(folder) -> list[Version]:
    """Return the versions in a folder, by number; the last is what servers serve.

    Args:
        folder: the folder of one model, whose children 1, 2, … are its versions.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the folder of versions that kerascnn "
            "export wrote"
        )
    return [
        described
        for number, path in numbered(folder)
        if (described := describe(path, number)) is not None
    ]


def table(found: list[Version]) -> Table:
    """Return versions as a table."""
    columns = (
        Column("number", "version"),
        Column("model", "network", right=False),
        Column("format", "format", right=False),
        Column("data", "data", right=False, optional=2),
        Column("accuracy", "accuracy", lambda percent: f"{percent:.2f} %"),
        Column("bytes", "size", format_bytes),
        Column("created", "published", right=False),
        Column("copy_of", "copy of", optional=1),
    )
    notes = []
    if damaged := [str(v.number) for v in found if v.damaged]:
        notes.append(f"damaged: {', '.join(damaged)}")
    if without := [str(v.number) for v in found if not (v.verifiable or v.damaged)]:
        notes.append(f"without a manifest: {', '.join(without)}")
    return Table(columns, [v.to_dict() for v in found], notes=notes)


def rollback(folder, to: int | None = None) -> Version:
    """Publish an earlier version again, as the next number, so that servers serve it.

    Nothing is deleted or overwritten: the files of the new version are hard links to
    those of the old one, or copies where the file system has no links. The files are
    compared with the manifest first.

    Args:
        folder: the folder of versions.
        to: number of the version to publish again; default the last one before the
            newest whose manifest is not damaged. After a rollback that is the one
            before the version that was published again: two rollbacks go back two
            versions, not back and forth.

    Returns:
        The new version; its `copy_of` is the number of the old one.

    Raises:
        ValueError: there is no such version, none before it, or it is the newest.
        FileNotFoundError: there is no such folder.
        ExportError: the old version is damaged, or was removed meanwhile.
    """
    folder = Path(folder)
    have = versions(folder)
    numbers = [f"{v.number}{' (damaged)' if v.damaged else ''}" for v in have]
    numbers = ", ".join(numbers) or "none"
    if not have:
        raise ValueError(f"{folder} holds no version; publish one with kerascnn export")
    newest = have[-1]
    if to is None:
        served = newest.number if newest.copy_of is None else newest.copy_of
        before = [v for v in have if v.number < served and not v.damaged]
        if not before:
            raise ValueError(
                f"there is no version before {served} in {folder}, which has {numbers};"
                " name one: rollback(folder, to=NUMBER), or --to NUMBER"
            )
        old = before[-1]
    else:
        if to == newest.number:
            raise ValueError(f"version {to} is the newest in {folder} already")
        named = [v for v in have if v.number == to]
        if not named:
            raise ValueError(f"there is no version {to} in {folder}; it has {numbers}")
        old = named[0]
    content = None if old.damaged else manifest.read(old.path)
    changed = [old.damaged] if old.damaged else []
    if content:
        changed = manifest.differences(old.path, content)
    if changed:
        raise ExportError(
            f"{old.path} is not published again, it is damaged: {'; '.join(changed)}; "
            "name another version, or export again"
        )
    with staging(folder) as staged:
        try:
            shutil.copytree(
                old.path,
                staged,
                copy_function=_link,
                ignore=lambda where, names: [MANIFEST] if content else [],
                dirs_exist_ok=True,
            )
        except (FileNotFoundError, shutil.Error) as error:
            raise ExportError(
                f"{old.path} was removed or cannot be read: {error}; nothing was "
                "published"
            ) from error
        if content:
            from kerascnn.serving.exporting import now

            origin = old.number if old.copy_of is None else old.copy_of
            manifest.write(staged, {**content, "created": now(), "copy_of": origin})
        path = publish(staged, folder)
    return describe(path, int(path.name))


def prune(folder, keep: int) -> list[Version]:
    """Remove all but the newest versions.

    Each is renamed before its files are removed, so that nobody sees half a version.
    Numbered children that are no versions are left alone. Where the newest is damaged,
    it stays, and so many sound ones beside it.

    Args:
        folder: the folder of versions.
        keep: how many to keep, at least 1: the newest is never removed.

    Returns:
        The versions that were removed.

    Raises:
        ValueError: `keep` is less than 1.
        FileNotFoundError: there is no such folder.
        OSError: a version cannot be renamed.
    """
    if keep < 1:
        raise ValueError(
            f"keep is 1 or more: the newest version is served; received {keep}"
        )
    *older, newest = versions(folder) or [None]
    sound = [v.number for v in (*older, newest) if v and not v.damaged]
    kept = sound[-keep:]
    return [old for old in older if old.number not in kept and withdraw(old.path)]


def describe(path: Path, number: int) -> Version | None:
    """Return what is known of a version; None if the folder is none."""
    content, damaged = {}, None
    try:
        content = manifest.read(path) or {}
    except ValueError as error:
        damaged = str(error)
    made = format_of(path)
    if made is None and not damaged:
        return None
    source = content.get("source") or {}
    data = (source.get("config") or {}).get("data") or {}
    title = data.get("title") or (source.get("weights") or {}).get("data_title")
    size = 0
    for parent, _, files in os.walk(path):
        size += sum(os.path.getsize(os.path.join(parent, file)) for file in files)
    return Version(
        number=number,
        path=path,
        format=made.name if made else None,
        model=content.get("model"),
        created=content.get("created"),
        accuracy=content.get("accuracy"),
        data=title,
        bytes=size,
        verifiable=bool(content),
        copy_of=content.get("copy_of"),
        damaged=damaged,
    )


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # no hard links here, or too many to one file
        shutil.copy2(source, target)
    return target
