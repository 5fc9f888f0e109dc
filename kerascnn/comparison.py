"""Many models, one table and one picture: what an accuracy costs.

print(compare("lecture_cnn", "dense_mlp", "vgg19"))
compare("lecture_cnn", my_model, run).plot("accuracy.png")
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from kerascnn.arithmetic import storage
from kerascnn.tables import Column, Table, format_bytes
from kerascnn.twin import mlp_twin
from zoo.references import HUMAN


@dataclass(frozen=True)
class Accuracy:
    """A test accuracy and how it came about."""

    percent: float
    std: float | None = None  # over the seeds, in points
    seeds: int | None = None  # how many runs it is the mean of
    data: str = "cifar10"  # the test set
    title: str = ""  # what exactly it was, such as "CIFAR-10 (JPEG copy)"
    source: str = ""  # paper, conditions or recipe
    confidence: str = "published"  # as on a card: published, second-hand, remembered

    def __str__(self) -> str:
        text = f"{self.percent:.2f}"
        if self.std is not None:
            text += f" ± {self.std:.2f}"
        if self.seeds is not None and self.seeds > 1:
            text += f" (n={self.seeds})"
        return text if self.confidence == "published" else f"{text} ({self.confidence})"


@dataclass(frozen=True)
class Entry:
    """One model of a comparison. None is unknown."""

    name: str
    kind: str  # "zoo", "model" or "run": where the numbers come from
    trainable: int
    non_trainable: int
    macs: int | None  # multiply-accumulates, forward, one image
    depth: int | None  # layers with weights on the longest way
    memory: int | None  # bytes of the activations of one image in float32
    published: Accuracy | None
    measured: Accuracy | None
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.trainable + self.non_trainable

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in float32: the size of a file of weights."""
        return int(storage(self.parameters))


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value >= 100 else f"{value:.2f}×"


COLUMNS: dict[str, Column] = {
    c.key: c
    for c in (
        Column("parameters", "Parameters", "{:,}".format),
        Column("ratio", "to the first", _ratio, optional=2),
        Column("macs", "MACs", "{:,}".format, optional=1),
        Column("memory", "Activations", format_bytes, optional=3),
        Column("weight_bytes", "Weights", format_bytes, optional=4),
        Column("depth", "Depth", optional=5),
        Column("published", "Published %"),
        Column("measured", "Measured %"),
    )
}
# Memory is not on a card, the graph must be built for it.
DEFAULT_COLUMNS = tuple(key for key in COLUMNS if key != "memory")


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `str()` is a table, and so are the three exports."""

    entries: tuple[Entry, ...]
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    data: str = "cifar10"  # the test set of the accuracies
    notes: bool = True  # whether text and Markdown give the models' notes

    def accuracy(self, entry: Entry, key: str) -> Accuracy | None:
        """Return an entry's "published" or "measured", if it is on `data`."""
        accuracy = getattr(entry, key)
        return accuracy if accuracy is not None and accuracy.data == self.data else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the entries as plain data, every column among them."""
        return [self._row(entry) for entry in self.entries]

    def _row(self, entry: Entry) -> dict[str, Any]:
        first = self.entries[0].parameters
        row: dict[str, Any] = {
            "name": entry.name,
            "kind": entry.kind,
            "parameters": entry.parameters,
            "trainable": entry.trainable,
            "non_trainable": entry.non_trainable,
            "ratio": entry.parameters / first if first else None,
            "macs": entry.macs,
            "memory": entry.memory,
            "weight_bytes": entry.weight_bytes,
            "depth": entry.depth,
        }
        for key in ("published", "measured"):
            accuracy = getattr(entry, key)
            row[key] = accuracy and accuracy.percent
            row[f"{key}_data"] = accuracy and accuracy.data
            row[f"{key}_source"] = accuracy and accuracy.source
        row["published_confidence"] = entry.published and entry.published.confidence
        row["measured_std"] = entry.measured and entry.measured.std
        row["measured_seeds"] = entry.measured and entry.measured.seeds
        return {**row, "notes": list(entry.notes)}

    def table(self) -> Table:
        """Return the chosen columns as a table, the models' notes below."""
        columns = (
            Column("name", "Model", right=False),
            *(COLUMNS[key] for key in self.columns),
        )
        # People see an accuracy with its spread, programs see each number apart.
        rows = [
            {**self._row(e), "published": e.published, "measured": e.measured}
            for e in self.entries
        ]
        notes = []
        if any(e.published or e.measured for e in self.entries):
            notes.append(f"Accuracies on {self.data}, where nothing else is said")
        if self.data == "cifar10" and notes:
            low, high = HUMAN.interval
            notes[0] += f"; a human: {HUMAN.accuracy:g}, from {low:.1f} to {high:.1f}"
            notes[0] += f" ({HUMAN.conditions}, Karpathy 2011)"
        titles = {e.measured.title for e in self.entries if e.measured} - {""}
        if titles and "measured" in self.columns:
            notes.append(f"Measured on {', '.join(sorted(titles))}")
        if self.notes:
            notes += [f"{e.name}: {note}" for e in self.entries for note in e.notes]
        for key in {"published", "measured"} & set(self.columns):
            for row in rows:
                row[key] = row[key] and self._cell(row[key])
        return Table(columns, rows, notes=notes)

    def _cell(self, accuracy: Accuracy) -> str:
        elsewhere = accuracy.data != self.data
        return f"{accuracy} on {accuracy.data}" if elsewhere else str(accuracy)

    def to_text(self, width: int | None = None, ascii: bool | None = None) -> str:
        """Render for a terminal; see `kerascnn.tables.Table.to_text`."""
        return self.table().to_text(width, ascii)

    def __str__(self) -> str:
        return self.to_text()

    def to_markdown(self) -> str:
        """Render as a Markdown table, the notes below."""
        return self.table().to_markdown()

    def to_csv(self) -> str:
        """Render as CSV, a line a model, all columns; unknown is empty."""
        return Table((), self.rows()).to_csv()

    def to_json(self) -> str:
        """Render as a JSON object: `data`, and `rows` with all columns."""
        return Table((), self.rows()).to_json(data=self.data)

    def plot(self, path: str | os.PathLike) -> Path:
        """Draw the accuracy against parameters and against MACs.

        Models without an accuracy are named below the picture. Where none has one, the
        picture shows the parameters and MACs of each as bars.

        Args:
            path: file to write; its ending says the format: .png, .svg, .pdf.

        Returns:
            The path.

        Raises:
            ValueError: the ending names no format.
        """
        from kerascnn.plotting.comparison import bars, scatter

        keys = ("published", "measured")
        known = any(self.accuracy(e, key) for e in self.entries for key in keys)
        if known:
            figure = scatter(self, HUMAN if self.data == "cifar10" else None)
        else:
            figure = bars(self)
        figure.savefig(path, dpi=150)
        return Path(path)


def compare(
    *models: Any,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    data: str | None = None,
    notes: bool = True,
) -> Comparison:
    """Compare models by what they cost and what they reach.

    A network of the zoo is read from its card, without Keras, unless `columns` asks for
    "memory", which is not on the card: then its graph is built, but no weights. All
    counts hold at the card's input shape and classes.

    Args:
        *models: each a name of the zoo, a built `keras.Model`, a run (as
            `kerascnn.train` returns it) or the folder of one.
        columns: columns of the table, of "parameters", "ratio" (of the parameters to
            those of the first model), "macs", "memory" (activations of one image in
            float32), "weight_bytes" (file of the weights in float32), "depth",
            "published" (the card's best figure), "measured".
        data: name of the data whose accuracies are compared; default: that of the
            runs where they all share one, else "cifar10". What was measured on other
            data is marked in the table and left out of the picture.
        notes: give the notes of the cards below text and Markdown.

    Returns:
        The comparison, models in the order given.

    Raises:
        UnknownNetworkError: a name is neither in the zoo nor a folder.
        TypeError: a model is something else.
        ValueError: no model, or an unknown column.

    Example:
        >>> print(compare("lecture_cnn", "dense_mlp"))  # doctest: +SKIP
    """
    if not models:
        raise ValueError(
            f"compare takes at least one model; the zoo has {', '.join(zoo.names())}"
        )
    if unknown := [key for key in columns if key not in COLUMNS]:
        raise ValueError(
            f"columns are {', '.join(COLUMNS)}; received {', '.join(unknown)}"
        )
    models = tuple(_opened(model) for model in models)
    if data is None:
        used = {_data_of(model) for model in models if _is_run(model)}
        data = used.pop() if len(used) == 1 else "cifar10"
    built = "memory" in columns
    entries = tuple(_entry(model, data, built) for model in models)
    return Comparison(entries, tuple(columns), data, notes)


def _opened(model: Any) -> Any:
    """Read the folder of a run; leave all else."""
    named = isinstance(model, str) and (
        model in zoo.names() or not os.path.isdir(model)
    )
    if named or not isinstance(model, (str, Path)):
        return model
    from kerascnn.training import load_run

    return load_run(model)


def _is_model(model: Any) -> bool:
    # A Keras model exists only where Keras was imported.
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _is_run(model: Any) -> bool:
    return (
        hasattr(model, "metrics") and hasattr(model, "model") and not _is_model(model)
    )


def _data_of(run: Any) -> str:
    return run.config["data"]["name"]


def _entry(model: Any, data: str, built: bool) -> Entry:
    if isinstance(model, str):
        return _from_card(model, data, built)
    if _is_model(model):
        return _from_model(model)
    if _is_run(model):
        return _from_run(model)
    raise TypeError(
        "compare takes names of the zoo, Keras models, runs and run folders; received "
        f"{type(model).__name__}"
    )


def _from_card(name: str, data: str, built: bool) -> Entry:
    card = zoo.card(name)
    memory = None
    if built:
        from kerascnn.graph import without_weights
        from kerascnn.summary import summarize

        with without_weights():  # which would take half a minute for VGG19
            network = zoo.build(name, card.input_shape, card.classes)
            memory = summarize(network).memory
    return Entry(
        name=name,
        kind="zoo",
        trainable=card.trainable,
        non_trainable=card.non_trainable,
        macs=card.macs,
        depth=card.depth,
        memory=memory,
        published=published(card, data),
        measured=measured(card, data),
        notes=tuple(card.notes),
    )


def published(card, data: str) -> Accuracy | None:
    """The card's best figure; cards quote accuracies on CIFAR-10 only."""
    best = card.best_published
    if data != "cifar10" or best is None:
        return None
    source = f"{best.source}, {best.conditions}"
    return Accuracy(best.accuracy, source=source, confidence=best.confidence)


def measured(card, data: str) -> Accuracy | None:
    """The card's result on the data, of the default recipe where it has one."""
    result = card.measured(data)
    return result and accuracy_of(result)


def accuracy_of(result: dict) -> Accuracy:
    """Return the accuracy of one of a card's results."""
    number = len(result.get("seeds", ()))
    return Accuracy(
        result["accuracy_mean"],
        # One run has no spread, whatever the card says.
        std=result.get("accuracy_std") if number > 1 else None,
        seeds=number or None,
        data=result.get("data", "cifar10"),
        title=result.get("data_title", ""),
        source=f"recipe {result.get('recipe')}, {result.get('epochs')} epochs",
    )


def _from_model(model) -> Entry:
    from kerascnn.summary import summarize

    summary = summarize(model)
    return Entry(
        name=summary.name,
        kind="model",
        trainable=summary.trainable,
        non_trainable=summary.non_trainable,
        macs=summary.macs,
        depth=summary.depth,
        memory=summary.memory,
        published=None,
        measured=None,
    )


def _from_run(run) -> Entry:
    """A run: the counts of its model, its test accuracy, what its card published."""
    entry = _from_model(run.model)
    data = _data_of(run)
    known = run.name in zoo.names()
    accuracy = run.metrics.get("test_accuracy")
    return Entry(
        **{
            **vars(entry),
            "name": run.name,
            "kind": "run",
            "published": published(zoo.card(run.name), data) if known else None,
            "measured": None
            if accuracy is None
            else Accuracy(
                float(accuracy),
                data=data,
                title=run.config["data"].get("title", ""),
                source=f"run {run.folder}",
            ),
        }
    )


# The public face finds both comparisons here.
__all__ = ["Accuracy", "Comparison", "Entry", "compare", "mlp_twin"]
