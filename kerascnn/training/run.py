"""The run folder: everything that a training was and what came of it."""

import contextlib
import csv
import errno
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

import zoo

# Keras walks a graph by recursion, and ResNet-1202 is deeper than Python's limit.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))


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
            (percent, by the recipe's views and passes) and its interval, per_class,
            validation_accuracy, seconds, …; empty where the test was left out.
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
        if not m:
            told = "not measured on the test images: kerascnn train --resume"
            return f"{lines[0]}\n  {told} {self.folder}"
        low, high = m["test_interval"]
        recipe = self.config["recipe"]
        protocol = averaged(recipe.get("views", 1), recipe.get("passes", 1))
        lines.append(
            f"  test accuracy {m['test_accuracy']:.2f} % (95 % interval {low:.2f} to "
            f"{high:.2f}, {m['test_images']:,} images{protocol})"
        )
        if options := recipe.get("options"):
            told = ", ".join(f"{key}={value}" for key, value in options.items())
            lines.append(f"  built with {told}")
        if "validation_accuracy" in m:
            lines.append(f"  validation accuracy {m['validation_accuracy']:.2f} %")
        lines.append(
            f"  {m['epochs']} epoch{'s' * (m['epochs'] > 1)} in {m['seconds']:.0f} s, "
            f"{m['images_per_second']:,.0f} images/s"
        )
        lines += [f"  {note}" for note in self.config["data"].get("notes", ())]
        return "\n".join(lines)


def averaged(views: int, passes: int) -> str:
    """Return in words what is averaged, empty where nothing is: ", mean of 6 views"."""
    parts = [f"{views} views"] * (views > 1) + [f"{passes} passes"] * (passes > 1)
    return f", mean of {' and '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Network:
    """A model, its name, the names of its classes where they are known, and its run."""

    model: object
    name: str
    labels: tuple[str, ...] | None
    run: Run | None = None


def open_network(source) -> Network:
    """Return the network that a source names.

    It is a `Run`, a `keras.Model`, the name of a network whose trained weights ship, or
    the path of a run folder or of a `.keras` file. Raises ValueError where there is no
    such name or a file cannot be read, FileNotFoundError for a path, else TypeError.
    """
    if isinstance(source, str | os.PathLike) and source not in zoo.names():
        path = Path(source)
        if path.is_dir():
            source = load_run(path)
        elif path.suffix == ".keras":
            source = load_model(path)
        elif path.exists():
            told = f"{path} is neither a run folder nor a .keras file"
            if path.suffix in (".h5", ".hdf5"):
                told += "; read the h5 by keras.models.load_model, and write it anew by"
                told += f" model.save({path.with_suffix('.keras').name!r})"
            raise ValueError(told)
        elif isinstance(source, os.PathLike) or os.sep in source:
            told = "give a run folder or a .keras file that exists"
            raise FileNotFoundError(f"there is no {path}; {told}")
    if isinstance(source, Run):
        return Network(source.model, source.name, source.labels, source)
    if isinstance(source, str):
        try:
            labels = zoo.card(source).weights.get("labels")
        except zoo.UnknownNetworkError as error:
            told = f"{error} (and there is no folder of that name)"
            raise zoo.UnknownNetworkError(told) from None
        return Network(zoo.load(source), source, tuple(labels) if labels else None)
    import keras

    if isinstance(source, keras.Model):
        return Network(source, source.name, None)
    told = f"received {type(source).__name__}"
    raise TypeError(f"expected a run, a keras.Model, a name or a path; {told}")


def load_model(path: Path):
    """Read a `.keras` file; FileNotFoundError, or ValueError where Keras cannot."""
    import keras

    import zoo.layers  # noqa: F401  (registers the layers with Keras)

    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # of Keras, zipfile and HDF5, which have a dozen kinds
        raise ValueError(f"{path} is not a readable Keras model: {error}") from error
    mend_name(model)
    return model


def mend_name(model) -> None:
    """Give a model a name that TensorFlow takes: "my model" → "my_model"."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", model.name)
    plain = plain if plain[0].isalnum() or plain[0] == "." else f"model{plain}"
    if plain != model.name:
        model.name = plain


def load_run(folder: str | os.PathLike) -> Run:
    """Read a finished run folder; the model itself is read when it is first used.

    Raises FileNotFoundError for no run folder, ValueError for one that is not finished.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} is not a run folder: {_what_else(folder)}")
    config = read_json(folder / "config.json")
    if not (folder / "metrics.json").exists():
        told = f"continue it with kerascnn train --resume {folder}"
        raise ValueError(f"the training in {folder} has not finished; {told}")
    return Run(
        folder=folder,
        name=config["model"]["name"],
        config=config,
        history=read_history(folder / "history.csv"),
        metrics=read_json(folder / "metrics.json"),
        labels=tuple(config["data"]["labels"]),
    )


def _what_else(folder: Path) -> str:
    """Say of a folder that is no run folder what it may be, and what to do."""
    if (folder / "saved_model.pb").exists():
        return (
            "it is a SavedModel, which kerascnn predict and serve take; to train, "
            "measure or look at the network, give its run folder or .keras file"
        )
    if numbers := [p.name for p in folder.glob("[0-9]*") if p.name.isdecimal()]:
        one = folder / max(numbers, key=int)
        told = f"kerascnn predict takes one, such as {one}, and kerascnn serve all"
        return f"it holds exported versions; {told}"
    return "it has no config.json; kerascnn train makes one"


def read_json(path: Path) -> dict:
    """Read a JSON file; ValueError names a broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def write_file(path: Path, content, *, before: Path | None = None) -> None:
    """Write a whole file (text or bytes), or leave the old one: never a half.

    The old one is kept under the name `before`, if any. An OSError is told in words.
    """
    temporary = path.with_name(f".{path.name}.part")
    if isinstance(content, str):
        content = content.encode()
    with writing(path, temporary):
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            before.unlink(missing_ok=True)
            try:
                os.link(path, before)  # there is no moment without the first name
            except OSError:  # a file system without links
                shutil.copyfile(path, before)
        os.replace(temporary, path)


@contextlib.contextmanager
def writing(path: Path, temporary: Path):
    """Raise an OSError of the block in words: what to do, and where it is continued."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room" if full else "make the folder writable"
        if (path.parent / "checkpoint.npz").exists():
            command = f"kerascnn train --resume {path.parent}"
            advice += f"; what was there is kept: continue then with {command}"
        reason = error.strerror or str(error).splitlines()[0]
        raise type(error)(f"cannot write {path}: {reason}; {advice}") from error


def write_json(path: Path, value) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_history(path: Path, history: list[dict]) -> None:
    """Write the history as CSV, one row an epoch, whole or not at all."""
    lines = [",".join(history[0])]
    lines += [",".join(map(repr, row.values())) for row in history]
    write_file(path, "\n".join(lines) + "\n")


def read_history(path: Path) -> list[dict]:
    """Read a history that `write_history` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {k: int(v) if k == "epoch" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def best_epoch(history: list[dict]) -> int:
    """Return the first epoch (from 1) with the best validation accuracy."""
    accuracies = [row["val_accuracy"] for row in history]
    return 1 + accuracies.index(max(accuracies))


def _make_folder(folder, runs, name: str) -> Path:
    """Make a given folder, or the next one; two callers never get the same."""
    if folder is not None:
        folder = Path(folder)
        try:
            with _making(folder):
                folder.mkdir(parents=True)
        except FileExistsError:
            told = f"{folder} is there and is not overwritten; choose another folder, "
            told += f"or continue it with kerascnn train --resume {folder}"
            raise FileExistsError(told) from None
        return folder
    runs = Path(runs)
    name = re.sub(r'[<>:"/\\|?*\s]', "_", name)  # for every file system
    with _making(runs):
        runs.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    taken = [int(m[1]) for p in runs.iterdir() if (m := pattern.fullmatch(p.name))]
    for number in itertools.count(1 + max(taken, default=0)):
        folder = runs / f"{name}-{number}"
        with contextlib.suppress(FileExistsError), _making(folder):
            folder.mkdir()
            return folder


@contextlib.contextmanager
def _making(folder: Path):
    try:
        yield
    except FileExistsError as error:
        if folder.is_dir():
            raise
        told = f"{folder} is a file, not a folder; choose another folder"
        raise NotADirectoryError(told) from error
    except OSError as error:
        told = f"cannot make the folder {folder}: {error.strerror}; choose another one"
        raise type(error)(told) from error


class FolderInUseError(RuntimeError):
    """Another process trains in a run folder."""


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Hold a run folder, if any, for this process, unless another one holds it."""
    if folder is None:
        yield
        return
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        told = "wait until it has finished, or stop it, and resume then"
        raise FolderInUseError(f"another process trains in {folder}: {told}") from None
    try:
        with lock:
            yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)


@contextlib.contextmanager
def new_run(
    folder, runs, name: str, config: dict, files: dict[str, str]
) -> Iterator[Path]:
    """Make and hold the folder of a run, with what describes it: files by their names.

    It is `folder`, which must not be there, or the next `<runs>/<name>-<number>`.
    """
    folder = _make_folder(folder, runs, name)
    with locked(folder):
        for file, content in files.items():
            write_file(folder / file, content)
        write_json(folder / "config.json", config)
        yield folder
