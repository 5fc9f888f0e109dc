"""The lecture's ranking: every network by the accuracy that was published for it.

    print(ranking("resnet*"))
    ranking().plot("ranking.png")
    print(board())

All of it is read from the cards, without Keras. `board` is what this project measured.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from kerascnn.comparison import accuracy_of, compare, measured, published
from kerascnn.tables import Column, Table
from zoo.references import HUMAN

COLUMNS = (
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


@dataclass(frozen=True)
class Ranking:
    """What `ranking` found; `str()` is a table."""

    cards: tuple[zoo.Card, ...]  # the best published accuracy first

    def table(self) -> Table:
        """Return a row for each network, and one for the human among them."""
        rows = [_row(card) for card in self.cards]
        if any(card.published for card in self.cards):
            better = sum(_accuracy(card) > HUMAN.accuracy for card in self.cards)
            rows.insert(better, _human())
        titles = sorted({r["data_title"] for c in self.cards if (r := c.measured())})
        notes = ["published: on CIFAR-10, as its authors or others report"]
        if titles:
            notes.append(f"measured: by this project, on {', '.join(titles)}")
        return Table(COLUMNS, rows, notes=notes)

    def to_text(self, width: int | None = None, ascii: bool | None = None) -> str:
        """Render for a terminal; see `kerascnn.tables.Table.to_text`."""
        return self.table().to_text(width, ascii)

    def __str__(self) -> str:
        return self.to_text()

    def to_markdown(self) -> str:
        """Render as a Markdown table."""
        return self.table().to_markdown()

    def plot(self, path: str | os.PathLike) -> Path:
        """Draw the accuracies against parameters and against MACs.

        Args:
            path: file to write; its ending says the format: .png, .svg, .pdf.

        Returns:
            The path.

        Raises:
            ValueError: the ending names no format.
        """
        return compare(*(card.name for card in self.cards)).plot(path)


def ranking(pattern: str = "*") -> Ranking:
    """Rank the networks whose names match by the best accuracy that was published.

    Those without one come last, by their names.

    Args:
        pattern: a shell pattern, such as "resnet*".

    Raises:
        UnknownNetworkError: no name matches; lists close matches.
    """
    names = zoo.names(pattern)
    if not names:
        zoo.card(pattern)  # raises, and names the close matches
    cards = [zoo.card(name) for name in names]
    return Ranking(tuple(sorted(cards, key=lambda card: -_accuracy(card))))


def board(pattern: str = "*", data: str = "cifar10") -> Table:
    """Return what this project measured, the best accuracy first.

    Args:
        pattern: a shell pattern of names, such as "resnet*".
        data: the test set, as results on cards name it.

    Returns:
        A row for each result on a card, a recipe of a network on some hardware;
        `difference` is the mean beside the best published accuracy, in points.

    Raises:
        UnknownNetworkError: no name matches; lists close matches.
    """
    results = [
        (card, result)
        for card in ranking(pattern).cards
        for result in card.results
        if result["data"] == data
    ]
    results.sort(key=lambda pair: -pair[1]["accuracy_mean"])
    titles = sorted({result["data_title"] for _, result in results})
    notes = [f"measured on {', '.join(titles)}; the test images were read once"]
    rows = [_measured_row(card, result) for card, result in results]
    return Table(BOARD, rows, notes=notes if titles else ["nothing was measured"])


def _measured_row(card: zoo.Card, result: dict) -> dict[str, Any]:
    theirs = published(card, result["data"])
    return {
        "name": card.name,
        "recipe": result["recipe"],
        "epochs": result["epochs"],
        "measured": str(accuracy_of(result)),
        "accuracies": list(result["accuracies"]),
        "published": theirs and str(theirs),
        "gap": theirs and result["accuracy_mean"] - theirs.percent,
        "seconds": result["seconds"],
        "hardware": result["hardware"],
    }


def _accuracy(card: zoo.Card) -> float:
    return best.accuracy if (best := card.best_published) else 0.0


def _row(card: zoo.Card) -> dict[str, Any]:
    result = card.measured()
    best = card.best_published
    other = result and result["recipe"] != "default"
    return {
        "name": card.name,
        "title": card.title,
        "year": card.paper.year if card.paper else None,
        "published": best and str(published(card, "cifar10")),
        "conditions": best and best.conditions,
        "measured": result
        and str(measured(card, "cifar10")) + f", {result['recipe']}" * other,
        "parameters": card.parameters,
        "macs": card.macs,
        "weights": "ship" if card.weights else None,
    }


def _human() -> dict[str, Any]:
    nothing = dict.fromkeys(column.key for column in COLUMNS)
    low, high = HUMAN.interval
    return {
        **nothing,
        "name": "(human)",
        "title": HUMAN.title,
        "year": 2011,
        "published": f"{HUMAN.accuracy:.2f}",
        "conditions": f"{HUMAN.conditions}; 95 %: {low:.1f} to {high:.1f}",
    }
