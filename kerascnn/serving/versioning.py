"""Keep the versions of a model: list them, go back to one, remove old ones."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kerascnn.serving.formats import MANIFEST, ExportError, format_of
from kerascnn.serving.publish import (
    changes,
    numbered,
    publish,
    read_manifest,
    staging,
    withdraw,
)
from kerascnn.tables import Column, Table, format_bytes

LABELS = "labels.json"  # words for versions, which `kerascnn serve` answers by


@dataclass(frozen=True)
class Version:
    """One version in a folder of versions; what is not known is None."""

    number: int  # what servers order versions by
    path: Path
    format: str | None  # "savedmodel", "litert", "onnx", "openvino" or "keras"
    model: str | None
    created: str | None  # when it was published, UTC, ISO 8601
    accuracy: float | None  # percent of the test images
    data: str | None  # that the network was trained on
    bytes: int
    verifiable: bool  # whether it has a manifest, so that `verify` can prove it whole
    copy_of: int | None = None  # the version that a rollback published again
    damaged: str | None = None  # what is wrong with its manifest

    def __str__(self) -> str:
        told = [self.model or "unknown network", self.format or "unknown format"]
        told += [format_bytes(self.bytes)]
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
    """Return the versions in a model's folder, by number; servers serve the last.

    Raises FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the folder of versions that kerascnn "
            "export wrote"
        )
    described = (_describe(path, number) for number, path in numbered(folder))
    return [version for version in described if version is not None]


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

    The version numbered `to` is published again; by default the last one before the
    newest whose manifest is not damaged. Of versions with a manifest two rollbacks go
    back two, not back and forth. Returned is the new version, `copy_of` the old one.

    Raises:
        ValueError: there is no such version, none before it, or it is the newest.
        FileNotFoundError: there is no such folder.
        ExportError: the old version is damaged, or was removed meanwhile.
    """
    folder = Path(folder)
    old = _chosen(folder, versions(folder), to)
    content = None if old.damaged else read_manifest(old.path)
    changed = changes(old.path, content) if content else [old.damaged]
    if any(changed):
        raise ExportError(
            f"{old.path} is not published again, it is damaged: {'; '.join(changed)}; "
            "name another version, or export again"
        )
    with staging(folder) as staged:
        try:
            shutil.copytree(old.path, staged, copy_function=_link, dirs_exist_ok=True)
        except (FileNotFoundError, shutil.Error) as error:
            raise ExportError(
                f"{old.path} was removed or cannot be read: {error}; nothing was "
                "published"
            ) from error
        if content:
            (staged / MANIFEST).unlink()  # not to write into the old one's
            content.pop("created", None)
            content["copy_of"] = old.number if old.copy_of is None else old.copy_of
        path = publish(staged, folder, content)
    return _describe(path, int(path.name))


def _chosen(folder: Path, have: list[Version], to: int | None) -> Version:
    """Return the version to go back to."""
    if not have:
        raise ValueError(f"{folder} holds no version; publish one with kerascnn export")
    numbers = ", ".join(f"{v.number}{' (damaged)' * bool(v.damaged)}" for v in have)
    newest = have[-1]
    if to == newest.number:
        raise ValueError(f"version {to} is the newest in {folder} already")
    if to is None:
        served = newest.number if newest.copy_of is None else newest.copy_of
        found = [v for v in have if v.number < served and not v.damaged]
        fault = (
            f"there is no version before {served} in {folder}, which has {numbers}; "
            "name one: rollback(folder, to=NUMBER), or --to NUMBER"
        )
    else:
        found = [v for v in have if v.number == to]
        fault = f"there is no version {to} in {folder}; it has {numbers}"
    if not found:
        raise ValueError(fault)
    return found[-1]


def prune(folder, keep: int) -> list[Version]:
    """Remove all but the newest versions; return those that were removed.

    Each is renamed before its files are removed, so that nobody sees half a version.
    Numbered children that are no versions are left alone, and versions that labels.json
    names. Where the newest is damaged, it stays, and so many sound ones beside it.
    ValueError: `keep` is less than 1.
    """
    if keep < 1:
        raise ValueError(f"keep is 1 or more: the newest is served; received {keep}")
    have = versions(folder)
    kept = [v.number for v in have if not v.damaged][-keep:]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        kept += json.loads((Path(folder) / LABELS).read_text("utf-8")).values()
    return [old for old in have[:-1] if old.number not in kept and withdraw(old.path)]


def _describe(path: Path, number: int) -> Version | None:
    """Return what is known of a version; None if the folder is none."""
    content, damaged = {}, None
    try:
        content = read_manifest(path) or {}
    except ValueError as error:
        damaged = str(error)
    made = format_of(path)
    if made is None and not damaged:
        return None
    source = content.get("source") or {}
    data = (source.get("config") or {}).get("data") or {}
    files = [file for file in path.rglob("*") if file.is_file()]
    return Version(
        number=number,
        path=path,
        format=made.name if made else None,
        model=content.get("model"),
        created=content.get("created"),
        accuracy=content.get("accuracy"),
        data=data.get("title") or (source.get("weights") or {}).get("data_title"),
        bytes=sum(file.stat().st_size for file in files),
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
