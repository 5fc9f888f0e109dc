"""Many models in one table: what an accuracy costs; the lecture's ranking.

Networks of the zoo are read from their cards, without Keras.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zoo
from kerascnn.graph import without_weights
from kerascnn.summary import Counted, summarize
from kerascnn.tables import Column, Table, Tabled, format_bytes
from zoo.references import HUMAN, SLIDE
from zoo.registry import cards


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
        if "(" in self.title:  # another copy of the images, whose pixels differ
            text += f" {self.title[self.title.index('(') :]}"
        return text if self.confidence == "published" else f"{text} ({self.confidence})"


@dataclass(frozen=True)
class Entry(Counted):
    """One model of a comparison. None is unknown."""

    name: str
    kind: str  # "zoo", "model" or "run": where the numbers come from
    trainable: int
    non_trainable: int
    macs: int | None  # multiply-accumulates, forward, one image
    depth: int | None  # layers with weights on the longest way
    memory: int | None  # bytes of the activations of one image in float32
    published: Accuracy | None = None
    measured: Accuracy | None = None
    notes: tuple[str, ...] = ()


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value >= 100 else f"{value:.2f}×"


COLUMNS: dict[str, Column] = {
    c.key: c
    for c in (
        Column("parameters", "Parameters", "{:,}".format),
        Column("ratio", "to the first", _ratio, optional=2),
        Column("macs", "MACs", "{:,}".format, optional=1, unknown="?"),
        Column("memory", "Activations", format_bytes, optional=3, unknown="?"),
        Column("weight_bytes", "Weights", format_bytes, optional=4),
        Column("depth", "Depth", optional=5),
        Column("published", "Published %"),
        Column("measured", "Measured %"),
    )
}
_PLAIN = (
    *("name", "kind", "parameters", "trainable", "non_trainable", "ratio"),
    *("macs", "memory", "weight_bytes", "depth"),
)
# Memory is not on a card, the graph must be built for it.
DEFAULT_COLUMNS = tuple(key for key in COLUMNS if key != "memory")


@dataclass(frozen=True)
class Comparison(Tabled):
    """What `compare` found; `str()` is a table, and so are the three exports."""

    entries: tuple[Entry, ...]
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    data: str = "cifar10"  # the test set of the accuracies
    notes: bool = True  # whether text and Markdown give the models' notes

    def accuracy(self, entry: Entry, key: str) -> Accuracy | None:
        """Return an entry's "published" or "measured", if it is on `data`."""
        accuracy = getattr(entry, key)
        return accuracy if accuracy and accuracy.data == self.data else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the entries as plain data, every column among them."""
        first, rows = self.entries[0].parameters, []
        for entry in self.entries:
            row: dict[str, Any] = {k: getattr(entry, k, None) for k in _PLAIN}
            row["ratio"] = entry.parameters / first if first else None
            for key in ("published", "measured"):
                accuracy = getattr(entry, key)
                row[key] = accuracy and accuracy.percent
                row[f"{key}_data"] = accuracy and accuracy.data
                row[f"{key}_source"] = accuracy and accuracy.source
            row["published_confidence"] = entry.published and entry.published.confidence
            row["measured_std"] = entry.measured and entry.measured.std
            row["measured_seeds"] = entry.measured and entry.measured.seeds
            rows.append({**row, "notes": list(entry.notes)})
        return rows

    def table(self) -> Table:
        """Return the chosen columns as a table, the models' notes below."""
        chosen = (COLUMNS[key] for key in self.columns)
        columns = (Column("name", "Model", right=False), *chosen)
        rows = self.rows()
        for row, entry in zip(rows, self.entries, strict=True):
            # People see an accuracy with its spread, programs see each number apart.
            for key in ("published", "measured"):
                if accuracy := getattr(entry, key):
                    where = "" if accuracy.data == self.data else f" on {accuracy.data}"
                    row[key] = f"{accuracy}{where}"
        notes, human = [], ""
        if self.data == "cifar10":
            low, high = HUMAN.interval
            human = f"; a human: {HUMAN.accuracy:g}, from {low:.1f} to {high:.1f}"
            human += f" ({HUMAN.conditions}, Karpathy 2011)"
        if any(e.published or e.measured for e in self.entries):
            notes = [f"Accuracies on {self.data}, where nothing else is said{human}"]
        titles = {e.measured.title for e in self.entries if e.measured} - {""}
        if titles and "measured" in self.columns:
            notes.append(f"Measured on {', '.join(sorted(titles))}")
        if self.notes:
            notes += [f"{e.name}: {note}" for e in self.entries for note in e.notes]
        return Table(columns, rows, notes=notes)

    def to_csv(self) -> str:
        """Render as CSV, a line a model, all columns; unknown is empty."""
        return Table((), self.rows()).to_csv()

    def to_json(self) -> str:
        """Render as a JSON object: `data`, and `rows` with all columns."""
        return Table((), self.rows()).to_json(data=self.data)

    def plot(self, path: str | os.PathLike, named: Sequence[str] | None = None) -> Path:
        """Draw accuracies (bars, where none is known) against parameters and MACs.

        `named` are the models that have their names beside them, by default all.
        """
        from kerascnn.plotting.comparison import bars, scatter

        keys = ("published", "measured")
        drawn = any(self.accuracy(e, key) for e in self.entries for key in keys)
        human = HUMAN if self.data == "cifar10" else None
        figure = scatter(self, human, named) if drawn else bars(self)
        figure.savefig(path, dpi=150)
        return Path(path)


def compare(
    *models: Any,
    columns: Sequence[str] = DEFAULT_COLUMNS,
    data: str | None = None,
    notes: bool = True,
) -> Comparison:
    """Compare models by what they cost and what they reach.

    Each is a name of the zoo (read from its card, without Keras, unless "memory" is
    asked for), a built `keras.Model`, a `.keras` file, a run or the folder of one.
    `columns` are of "parameters", "ratio" (to the first model's), "macs", "memory"
    (activations of one image) and "weight_bytes", both in float32, "depth", "published"
    (the card's best) and "measured". `data` is that of the accuracies, by default the
    runs' own where they share one, else "cifar10"; others are marked. `notes` gives
    those of the cards. UnknownNetworkError where a name is not known.
    """
    if not models:
        known = ", ".join(zoo.names())
        raise ValueError(f"compare takes at least one model; the zoo has {known}")
    if unknown := ", ".join(key for key in columns if key not in COLUMNS):
        raise ValueError(f"columns are {', '.join(COLUMNS)}; received {unknown}")
    opened = [_opened(model) for model in models]
    if data is None:
        used = {run.config["data"]["name"] for run in opened if _is_run(run)}
        data = used.pop() if len(used) == 1 else "cifar10"
    entries = [_entry(model, data, "memory" in columns) for model in opened]
    names = Counter(entry.name for entry in entries)
    for i, (model, entry) in enumerate(zip(opened, entries, strict=True)):
        if names[entry.name] > 1 and entry.kind != "zoo":
            beside = model.folder if _is_run(model) else entry.kind
            entries[i] = replace(entry, name=f"{entry.name} ({beside})")
    return Comparison(tuple(entries), tuple(columns), data, notes)


def _opened(model: Any) -> Any:
    """Read the folder of a run; leave all else, a name of the zoo among it."""
    path = isinstance(model, str | os.PathLike) and model not in zoo.names()
    if not path or not os.path.isdir(model):
        return model
    from kerascnn.training import load_run

    return load_run(model)


def _is_run(model: Any) -> bool:
    return hasattr(model, "metrics") and hasattr(model, "folder")


def _entry(model: Any, data: str, built: bool) -> Entry:
    if isinstance(model, str) and model in zoo.names() and model not in cards():
        return _from_model(zoo.build(model), name=model)  # registered by the user
    # A word alone can only be a name; all else is looked for, which needs Keras.
    if isinstance(model, str) and (
        model in cards() or not (os.path.exists(model) or Path(model).suffix)
    ):
        return _from_card(zoo.card(model), data, built)
    if isinstance(model, str | os.PathLike):
        from kerascnn.training import open_network

        return _from_model(open_network(model).model, name=str(model))
    if _is_run(model):
        return _from_run(model)
    # A Keras model exists only where Keras was imported.
    if "keras" in sys.modules and isinstance(model, sys.modules["keras"].Model):
        return _from_model(model)
    kinds = "names of the zoo, Keras models, .keras files, runs and their folders"
    raise TypeError(f"compare takes {kinds}; received {type(model).__name__}")


def _from_card(card: zoo.Card, data: str, built: bool) -> Entry:
    memory = None
    if built:
        with without_weights():  # which would take half a minute for VGG19
            network = zoo.build(card.name, card.input_shape, card.classes)
            memory = summarize(network).memory
    keys = ("name", "trainable", "non_trainable", "macs", "depth")
    return Entry(
        kind="zoo",
        **{key: getattr(card, key) for key in keys},
        memory=memory,
        published=_published(card, data),
        measured=_measured(card.measured(data)),
        notes=tuple(card.notes),
    )


def _published(card: zoo.Card, data: str = "cifar10") -> Accuracy | None:
    best = card.best_published
    if data != "cifar10" or best is None:  # cards quote accuracies on CIFAR-10 only
        return None
    source = f"{best.source}, {best.conditions}"
    return Accuracy(best.accuracy, source=source, confidence=best.confidence)


def _measured(result: dict | None) -> Accuracy | None:
    if not result:
        return None
    number = len(result.get("seeds", ()))
    source = f"recipe {result.get('recipe')}, {result.get('epochs')} epochs"
    if images := result.get("train_images"):
        source += f" on {images:,} images"
    return Accuracy(
        result["accuracy_mean"],
        # One run has no spread, whatever the card says.
        std=result.get("accuracy_std") if number > 1 else None,
        seeds=number or None,
        data=result.get("data", "cifar10"),
        title=result.get("data_title", ""),
        source=source,
    )


def _from_model(model, **told) -> Entry:
    summary = summarize(model)
    keys = ("name", "trainable", "non_trainable", "macs", "depth", "memory")
    counts = {key: getattr(summary, key) for key in keys}
    return Entry(**{"kind": "model", **counts, **told})


def _from_run(run) -> Entry:
    data, accuracy = run.config["data"], run.metrics.get("test_accuracy")
    told: dict[str, Any] = {"name": run.name, "kind": "run"}
    if accuracy is not None:
        where = {"data": data["name"], "title": data.get("title", "")}
        told["measured"] = Accuracy(accuracy, **where, source=f"run {run.folder}")
    if run.name in zoo.registry.cards():
        told["published"] = _published(zoo.card(run.name), data["name"])
    return _from_model(run.model, **told)


RANKING = (
    Column("name", "name", right=False),
    Column("title", "title", right=False, optional=3),
    Column("year", "year", optional=4),
    Column("published", "published %"),
    Column("conditions", "conditions", right=False, optional=2),
    Column("measured", "measured %"),
    Column("parameters", "parameters", "{:,}".format),
    Column("macs", "MACs", "{:,}".format, optional=1),
    Column("weights", "weights", right=False),
)


@dataclass(frozen=True)
class Ranking(Tabled):
    """What `ranking` found; `str()` is a table."""

    cards: tuple[zoo.Card, ...]  # the best published accuracy first
    pattern: str = "*"  # that was asked for

    def table(self) -> Table:
        """Return a row for each network, and one for the human among them."""
        rows = [_ranked(card) for card in self.cards]
        if any(card.published for card in self.cards):
            low, high = HUMAN.interval
            human = dict.fromkeys(column.key for column in RANKING)
            human |= {"name": "(human)", "title": HUMAN.title, "year": 2011}
            human["published"] = f"{HUMAN.accuracy:.2f}"
            human["conditions"] = f"{HUMAN.conditions}; 95 %: {low:.1f} to {high:.1f}"
            rows.insert(sum(_best(c) > HUMAN.accuracy for c in self.cards), human)
        titles = sorted({r["data_title"] for c in self.cards if (r := c.measured())})
        notes = ["published: on CIFAR-10, as its authors or others report"]
        if titles:
            by = "by the recipe default where none is named"
            notes.append(f"measured: by this project, on {', '.join(titles)}, {by}")
        ship = "ship: the trained weights come with the package: kerascnn predict NAME"
        notes += [ship] * any(card.weights for card in self.cards)
        return Table(RANKING, rows, notes=notes)

    def plot(self, path: str | os.PathLike) -> Path:
        """Draw the accuracies against costs; see `Comparison.plot`.

        Of the whole zoo only the networks of the lecture's slide are named.
        """
        named = SLIDE if self.pattern == "*" else None
        return compare(*(card.name for card in self.cards)).plot(path, named)


def ranking(pattern: str = "*") -> Ranking:
    """Rank the networks whose names match by the best accuracy that was published."""
    names = [name for name in zoo.names(pattern) if name in cards()]
    if not names:
        zoo.card(pattern)  # raises, and names the close matches
    found = [zoo.card(name) for name in names]
    return Ranking(tuple(sorted(found, key=lambda card: -_best(card))), pattern)


def _best(card: zoo.Card) -> float:
    return best.accuracy if (best := card.best_published) else 0.0


def _ranked(card: zoo.Card) -> dict[str, Any]:
    result, best = card.measured(), card.best_published
    measured = result and str(_measured(result))
    if result and result["recipe"] != "default":
        measured = f"{measured}, {result['recipe']}"
    return {
        **{key: getattr(card, key) for key in ("name", "title", "parameters", "macs")},
        "year": card.paper and card.paper.year,
        "published": best and str(_published(card)),
        "conditions": best and best.conditions,
        "measured": measured,
        "weights": "ship" if card.weights else None,
    }


BOARD = (
    Column("name", "network", right=False),
    Column("recipe", "recipe", right=False),
    Column("epochs", "epochs"),
    Column("measured", "measured %"),
    Column("published", "published %", optional=2),
    Column("gap", "difference", "{:+.2f}".format, optional=2),
    Column("seconds", "training", lambda seconds: f"{seconds / 60:.1f} min"),
    Column("hardware", "on", right=False, optional=3),
)


def board(pattern: str = "*", data: str = "cifar10") -> Table:
    """Return the results on `data` that this project measured, the best first."""
    found = [(card, r) for card in ranking(pattern).cards for r in card.results]
    found = [(card, result) for card, result in found if result["data"] == data]
    rows = []
    for card, result in sorted(found, key=lambda pair: -pair[1]["accuracy_mean"]):
        theirs = _published(card, data)
        row: dict[str, Any] = {"name": card.name, "measured": str(_measured(result))}
        row |= {k: result[k] for k in ("recipe", "epochs", "seconds", "hardware")}
        row["accuracies"] = list(result["accuracies"])
        row["published"] = theirs and str(theirs)
        row["gap"] = theirs and result["accuracy_mean"] - theirs.percent
        rows.append(row)
    titles = ", ".join(sorted({result["data_title"] for _, result in found}))
    note = f"measured on {titles}; the test images were read once"
    return Table(BOARD, rows, notes=[note if titles else "nothing was measured"])
