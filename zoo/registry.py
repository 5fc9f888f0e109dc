"""The register of the zoo: one card for each network, one builder for each card.

The cards are the TOML files beside the family modules. They are read without
importing Keras; a family's module is imported when one of its networks is built.
"""

import difflib
import fnmatch
import functools
import importlib
import importlib.resources
import inspect
import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

_builders: dict[str, Callable] = {}


class UnknownNetworkError(ValueError):
    """No network of the zoo has the name that was asked for."""


@dataclass(frozen=True)
class Paper:
    """Where a network was published."""

    title: str
    authors: str
    year: int
    venue: str = ""
    arxiv: str = ""


@dataclass(frozen=True)
class Published:
    """A CIFAR-10 test accuracy that its authors, or others, reported.

    `conditions` says what the figure is (single run, best of five, …), `confidence`
    how far this project could check it: "published" (read in the source),
    "second-hand" (quoted by another source) or "remembered".
    """

    accuracy: float  # percent
    conditions: str
    source: str
    confidence: str = "published"


@dataclass(frozen=True)
class Card:
    """What is known of one network; every count holds at `input_shape`, `classes`."""

    name: str
    family: str
    title: str
    new: str  # what is new in it, in one sentence
    input_shape: tuple[int, int, int]
    classes: int
    trainable: int
    non_trainable: int
    macs: int  # multiply-accumulates of convolutions and dense layers, one image
    depth: int  # layers with weights on the longest path, normalisation left out
    paper: Paper | None = None
    published: tuple[Published, ...] = ()
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    slim: dict[str, Any] = field(default_factory=dict)  # arguments of a small version
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)  # what `tune` searches
    results: tuple[dict[str, Any], ...] = ()  # written by `kerascnn record`
    weights: dict[str, Any] = field(default_factory=dict)  # likewise

    @property
    def parameters(self) -> int:
        """All parameters, as `model.count_params()` counts them."""
        return self.trainable + self.non_trainable

    @property
    def best_published(self) -> Published | None:
        """The highest of the published accuracies, as rankings quote it."""
        return max(self.published, key=lambda p: p.accuracy, default=None)

    def measured(self, data: str = "cifar10") -> dict[str, Any] | None:
        """Return this project's result on some data, None where there is none.

        It is that of the recipe "default" where there is one, else of the most epochs,
        of several that of the most seeds; not the best: that would be a choice made on
        the test set.
        """

        def order(result):
            named = result.get("recipe") != "default"
            return named, -result.get("epochs", 0), -len(result.get("seeds", ()))

        results = [r for r in self.results if r.get("data") == data]
        return min(results, key=order, default=None)


def _required(field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _card(name: str, family: str, shared: dict, own: dict) -> Card:
    table = {**shared, **own}
    # A variant adds its recipes to those of its family.
    table["recipes"] = {**shared.get("recipes", {}), **own.get("recipes", {})}
    known = {f.name for f in fields(Card)} - {"name", "family"}
    if unknown := sorted(set(table) - known):
        raise ValueError(
            f"zoo/{family}.toml, [{name}]: unknown key {unknown[0]!r}; "
            f"a card has {', '.join(sorted(known))}"
        )
    required = {f.name for f in fields(Card) if _required(f)} - {"name", "family"}
    if missing := sorted(required - set(table)):
        raise ValueError(
            f"zoo/{family}.toml, [{name}]: the card has no {', '.join(missing)}; add it"
        )
    if "paper" in table:
        table["paper"] = Paper(**table["paper"])
    table["published"] = tuple(Published(**p) for p in table.get("published", ()))
    for key in ("input_shape", "deviations", "notes", "results"):
        table[key] = tuple(table.get(key, ()))
    return Card(name=name, family=family, **table)


@functools.cache
def cards() -> dict[str, Card]:
    """Every card of the zoo, by name, in the order of the names."""
    found: dict[str, Card] = {}
    for file in importlib.resources.files("zoo").iterdir():
        if not file.name.endswith(".toml"):
            continue
        family = file.name.removesuffix(".toml")
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        shared = tables.pop("family", {})
        for name, own in tables.items():
            if name in found:
                raise ValueError(
                    f"two cards are named {name!r}: in zoo/{found[name].family}.toml "
                    f"and in zoo/{family}.toml"
                )
            found[name] = _card(name, family, shared, own)
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list:
    """Sort key that puts resnet20 before resnet110."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def names(pattern: str = "*") -> list[str]:
    """Return the names in the zoo that match a shell pattern, such as "vgg*"."""
    return fnmatch.filter(dict.fromkeys([*cards(), *_builders]), pattern)


def card(name: str) -> Card:
    """Return the card of a network.

    Raises:
        UnknownNetworkError: no network has this name; lists close matches.
        ValueError: it was registered, and has none.
    """
    if name in _builders and name not in cards():
        told = "is registered without a card: no weights ship; give its run folder"
        raise ValueError(f"{name!r} {told}")
    if name not in cards():
        close = difflib.get_close_matches(name, cards(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else ""
        raise UnknownNetworkError(
            f"no network of the zoo is named {name!r}: "
            + (hint or f"it has {', '.join(cards())}")
        )
    return cards()[name]


def register(builder: Callable) -> Callable:
    """Add a builder to the zoo under its `__name__`; use as a decorator.

    Raises:
        ValueError: another builder has this name, or a card of the zoo.
    """
    name = builder.__name__
    other = _builders.get(name, builder)
    # A card's name is its family's, whose module may not be imported yet.
    home = f"zoo.{cards()[name].family}" if name in cards() else other.__module__
    if other is not builder or builder.__module__ != home:
        raise ValueError(
            f"a builder named {name!r} is registered already, in {home}; choose "
            "another name"
        )
    _builders[name] = builder
    return builder


def input_shape(name: str) -> tuple[int, int, int]:
    """Return the image shape that a network has unless another one is asked for."""
    return inspect.signature(builder(name)).parameters["input_shape"].default


def builder(name: str) -> Callable:
    """Return the builder of a network; imports its family, and Keras with it.

    Raises:
        UnknownNetworkError: no network has this name; lists close matches.
    """
    if name not in _builders:
        importlib.import_module(f"zoo.{card(name).family}")
    return _builders[name]
