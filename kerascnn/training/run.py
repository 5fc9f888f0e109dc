"""The run folder: everything that a training was and what came of it."""

import contextlib
import csv
import errno
import functools
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from kerascnn.training.evaluate import averaged

COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
)


@dataclass
class Run:
    """A finished training.

    Attributes:
        folder: where it is kept.
        name: name of the network.
        config: network, data, recipe, seed, versions and device, as in config.json.
        history: one dict an epoch: epoch (from 1), loss, accuracy (0…1), val_loss,
            val_accuracy, learning_rate, seconds.
        metrics: what was measured at the end, as in metrics.json: test_accuracy
            (percent) and its interval, per_class, validation_accuracy, seconds, …
            Where the recipe averages views or passes at test, so does test_accuracy;
            test_accuracy_averaged is the same and test_accuracy_single is without.
        labels: names of the classes.
    """

    folder: Path
    name: str
    config: dict
    history: list[dict]
    metrics: dict
    labels: tuple[str, ...]
    _model: object = field(default=None, repr=False)

    @property
    def model(self):
        """The trained `keras.Model`, float32; read from the folder when first used."""
        if self._model is None:
            self._model = load_model(self.folder / "model.keras")
        return self._model

    def __str__(self) -> str:
        m, data = self.metrics, self.config["data"]["title"]
        lines = [f"{self.name} on {data}, seed {self.config['seed']}: {self.folder}"]
        low, high = m["test_interval"]
        recipe = self.config["recipe"]
        protocol = averaged(recipe.get("views", 1), recipe.get("passes", 1))
        lines.append(
            f"  test accuracy {m['test_accuracy']:.2f} % (95 % interval {low:.2f} to "
            f"{high:.2f}, {m['test_images']:,} images{protocol})"
        )
        if "validation_accuracy" in m:
            lines.append(f"  validation accuracy {m['validation_accuracy']:.2f} %")
        lines.append(
            f"  {m['epochs']} epoch{'s' * (m['epochs'] > 1)} in {m['seconds']:.0f} s, "
            f"{m['images_per_second']:,.0f} images/s"
        )
        return "\n".join(lines)


def load_model(path: Path):
    """Read a `.keras` file, the zoo's own layers included.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a model that Keras can read.
    """
    import keras

    import zoo.layers  # noqa: F401  (registers the layers with Keras)

    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    # Keras walks a graph by recursion, and ResNet-1202 is deeper than Python's limit.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a readable Keras model: {error}") from error


def load_run(folder) -> Run:
    """Read a finished run folder; the model itself is read when it is first used.

    Raises:
        FileNotFoundError: the folder is not a run folder.
        ValueError: the training in it has not finished.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder} is not a run folder: it has no config.json; kerascnn train "
            "makes one"
        )
    config = read_json(folder / "config.json")
    if not (folder / "metrics.json").exists():
        raise ValueError(
            f"the training in {folder} has not finished; continue it with "
            f"kerascnn train --resume {folder}"
        )
    return Run(
        folder=folder,
        name=config["model"]["name"],
        config=config,
        history=read_history(folder / "history.csv"),
        metrics=read_json(folder / "metrics.json"),
        labels=tuple(config["data"]["labels"]),
    )


def read_json(path: Path) -> dict:
    """Read a JSON file; a broken one is named.

    Raises:
        ValueError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_file(path: Path, content, *, before: Path | None = None) -> None:
    """Write a whole file or leave the old one: a reader never sees a half.

    Args:
        path: of the file.
        content: text, or bytes.
        before: a second name, under which the old file is kept.

    Raises:
        OSError: the file cannot be written (the disk is full, the folder is
            read-only); the old one is untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    if isinstance(content, str):
        content = content.encode()
    with writing(path, temporary):
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            _keep(path, before)
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path, temporary: Path):
    """Say what to do where a file of a run folder cannot be written.

    Args:
        path: of the file.
        temporary: what is written and renamed; removed where that fails.

    Raises:
        OSError: in words, in the place of that of the block.
    """
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "make the folder writable"
        if (path.parent / "checkpoint.npz").exists():
            advice += (
                "; what was there is kept: continue then with kerascnn train --resume "
                f"{path.parent}"
            )
        reason = error.strerror or str(error).splitlines()[0]
        raise type(error)(f"cannot write {path}: {reason}; {advice}") from error


def _keep(path: Path, before: Path) -> None:
    """Give a file a second name as well; there is no moment without the first."""
    if not path.exists():
        return
    before.unlink(missing_ok=True)
    try:
        os.link(path, before)
    except OSError:  # a file system without links
        shutil.copyfile(path, before)


def write_json(path: Path, value) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_history(path: Path, history: list[dict]) -> None:
    """Write the history as CSV, one row an epoch, whole or not at all."""
    columns = [c for c in COLUMNS if any(c in row for row in history)] or COLUMNS
    lines = [",".join(columns)]
    lines += [",".join(repr(row[c]) for c in columns) for row in history]
    write_file(path, "\n".join(lines) + "\n")


def read_history(path: Path) -> list[dict]:
    """Read a history that `write_history` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {k: int(v) if k == "epoch" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def new_folder(runs: Path, name: str) -> Path:
    """Make the next free folder `<name>-<number>`; two callers never get the same.

    Raises:
        OSError: no folder can be made there.
    """
    with _making(runs):
        runs.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    taken = [int(m[1]) for p in runs.iterdir() if (m := pattern.fullmatch(p.name))]
    number = max(taken, default=0)
    while True:
        number += 1
        try:
            with _making(folder := runs / f"{name}-{number}"):
                folder.mkdir()
        except FileExistsError:
            continue
        return folder


def make_folder(folder: Path) -> Path:
    """Make a folder for a run.

    Raises:
        FileExistsError: it is there already.
        OSError: it cannot be made.
    """
    try:
        with _making(folder):
            folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"{folder} is there already and is not overwritten; choose another folder, "
            f"or continue it with kerascnn train --resume {folder}"
        ) from None
    return folder


@contextlib.contextmanager
def _making(folder: Path):
    try:
        yield
    except FileExistsError as error:
        if folder.is_dir():
            raise
        raise NotADirectoryError(
            f"{folder} is a file, not a folder; choose another folder"
        ) from error
    except OSError as error:
        raise type(error)(
            f"cannot make the folder {folder}: {error.strerror}; choose another one"
        ) from error


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import platform
    from importlib import metadata

    import keras

    backend = keras.backend.backend()
    found = {"python": platform.python_version(), "backend": backend}
    for package in ("kerascnn", "keras", "numpy", backend):
        found[package] = metadata.version(package)
    return found


@functools.cache
def commit() -> str | None:
    """Return the git commit of the package's source, None where it is installed."""
    import subprocess

    source = Path(__file__).resolve().parents[2]
    if not (source / "setup.cfg").exists():
        return None
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(source),
                "describe",
                "--always",
                "--abbrev=12",
                "--dirty",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@functools.cache
def hardware() -> str:
    """Return the device that Keras computes on, in words."""
    import platform

    import keras

    accelerators = [d for d in keras.distribution.list_devices() if "cpu" not in d]
    if accelerators and keras.backend.backend() == "jax":
        import jax

        kind = jax.devices()[0].device_kind
        return f"{len(accelerators)} x {kind}"
    if accelerators:
        return ", ".join(accelerators)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = match[1].strip() if match else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count()
    return f"{cores} core{'s' * (cores != 1)} of {model}"
