"""What is searched: keys of the recipe and options of the builder, as data.

    {
        "learning_rate": [1e-3, 0.3, "log"],
        "crop": [0, 6],                                # whole pixels, as the recipe has
        "l2": {"low": 1e-5, "high": 3e-3, "log": True},
        "optimizer": {"choices": ["adam", "sgd"]},
        "option:hidden_dropout": [0.2, 0.7],           # an argument of the builder
    }

A card's table `[name.search]` has the same form.
"""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerascnn.training import Recipe
from kerascnn.training.recipe import CHOICES, KEYS, check_keys, read_option, read_value

OPTION = "option:"  # what the names of builder options begin with
DIGITS = 4  # significant digits of a value that is drawn: more make no difference
# What is tried where a recipe has no weight cost: of the gradient, and decoupled.
WEIGHT_COSTS = {"l2": (1e-5, 1e-4, 5e-4, 1e-3), "weight_decay": (1e-3, 1e-2, 1e-1)}
_FORMS = (
    '[low, high], [low, high, "log"], {low = …, high = …, log = true, int = true} or '
    "{choices = [...]}"
)


as_json = functools.partial(json.dumps, separators=(",", ":"))  # one word of a shell


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # uniform in the logarithm
    whole: bool = False

    def holds(self, value) -> bool:
        """Tell whether a value is one of its numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        fits = not self.whole or value == int(value)
        return fits and self.low <= value <= self.high

    def rounded(self, value):
        """Return the number to train with: few digits, inside the range."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """Some values, without an order among them."""

    values: tuple

    def holds(self, value) -> bool:
        """Tell whether a value is one of them."""
        return any(type(v) is type(value) and v == value for v in self.values)

    def rounded(self, value):
        """Return the value: nothing is rounded."""
        return value


Space = dict[str, Range | Choices]


def space_from(table: Mapping[str, Any]) -> Space:
    """Read a search space.

    Args:
        table: from keys of the recipe, or `option:NAME` for an argument of the
            builder, to what is tried: `[low, high]`, `[low, high, "log"]`, a table
            with low, high, log and int, or a table with choices. Ends are included.
            What the recipe counts in whole numbers is searched in whole numbers; an
            option is where both ends are integers, unless `int` says otherwise. A
            choice that is a list, such as milestones, is kept as text: "60,80".

    Raises ValueError where it is empty, a key is not known, or a value not possible.
    """
    if not table:
        told = 'give a space such as {"learning_rate": [1e-3, 0.1, "log"]}'
        raise ValueError(f"there is nothing to search: {told}; received none")
    return {key: _entry(key, given) for key, given in table.items()}


def parse_space(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Read a space as the command line has it; ValueError where a text has no form."""
    table: dict[str, Any] = {}
    for key, text in pairs.items():
        low, _, rest = text.partition(":")
        high, colon, log = rest.partition(":")
        ends = [read_option(low), read_option(high)]
        if "/" in text:
            parts = text.split("/")  # which the recipe reads, if it is a key of it
            if key.startswith(OPTION):
                parts = [read_option(part) for part in parts]
            table[key] = {"choices": parts}
        elif any(isinstance(end, str) for end in ends) or (colon and log != "log"):
            forms = f"{key}=low:high, {key}=low:high:log or {key}=one/other"
            raise ValueError(f"--space takes {forms}; received {key}={text}")
        else:
            table[key] = [*ends, "log"] if log else ends
    return table


def plain_space(space: Space) -> dict[str, dict[str, Any]]:
    """Return a space as JSON and TOML can hold it; `space_from` reads it again."""
    plain = {}
    for key, entry in space.items():
        if isinstance(entry, Choices):
            plain[key] = {"choices": list(entry.values)}
        else:
            plain[key] = dict(vars(entry))
            plain[key]["int"] = plain[key].pop("whole")
    return plain


def default_space(recipe: Recipe, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return what is worth a search for most networks, around a recipe.

    The learning rate, and what limits overfitting. The recipe's own values are mostly
    among it.
    """
    rate = recipe.learning_rate
    space: dict[str, Any] = {"learning_rate": [rate / 10, rate * 10, "log"]}
    if recipe.optimizer == "sgd":
        space["momentum"] = [0.8, 0.99]
    cost = "l2" if recipe.optimizer == "sgd" else "weight_decay"
    cost = next((k for k in ("weight_decay", "l2") if getattr(recipe, k)), cost)
    if own := getattr(recipe, cost):
        space[cost] = [own / 10, own * 10, "log"]
    else:  # none is possible too, which a logarithm does not hold
        space[cost] = {"choices": [0.0, *WEIGHT_COSTS[cost]]}
    space["label_smoothing"] = [0.0, 0.2]
    if most := min(4, *(side // 8 for side in input_shape[:2])):
        space["crop"] = [0, most]
    if not recipe.alternate_flip:
        space["flip"] = {"choices": [False, True]}
    return space


def starting_point(space: Space, recipe: Recipe, options: Mapping) -> dict[str, Any]:
    """Return what the space holds of the recipe's and the builder's own values.

    The first trial has them, so that the best is compared with what there was.
    """
    own = {f"{OPTION}{key}": _storable(value, True) for key, value in options.items()}
    own |= {key: _storable(value) for key, value in vars(recipe).items()}
    return {k: own[k] for k, entry in space.items() if entry.holds(own.get(k))}


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the values of a trial into those of the recipe and those of the builder."""
    recipe, options = {}, {}
    for key, value in values.items():
        if not key.startswith(OPTION):
            recipe[key] = value
        else:  # of several values the text is JSON
            several = isinstance(value, str) and value.startswith("[")
            options[key.removeprefix(OPTION)] = read_option(value) if several else value
    return recipe, options


def _entry(key: str, given: Any) -> Range | Choices:
    if key == "options":
        raise ValueError(f"options are searched one by one, as {OPTION}NAME")
    if not key.startswith(OPTION):
        check_keys([key])
    elif not key.removeprefix(OPTION).isidentifier():
        raise ValueError(f"an option is option:NAME; received {key!r}")
    if isinstance(given, list | tuple) and len(given) in (2, 3):
        if len(given) == 2 or given[2] == "log":
            ends = {"low": given[0], "high": given[1]}
            return _range(key, {**ends, "log": len(given) == 3})
    elif isinstance(given, Mapping):
        if set(given) == {"choices"}:
            return _choices(key, given["choices"])
        if {"low", "high"} <= set(given) <= {"low", "high", "log", "int"}:
            return _range(key, dict(given))
    raise ValueError(f"{key} is searched in {_FORMS}; received {given!r}")


def _range(key: str, given: dict) -> Range:
    low, high, log = given["low"], given["high"], given.get("log", False)
    for end in (low, high):
        number = isinstance(end, int | float) and not isinstance(end, bool)
        if not number or not math.isfinite(end):
            raise ValueError(f"{key}: the ends must be numbers; received {end!r}")
    wanted, received = KEYS.get(key), f"received {low} to {high}"
    if wanted not in (None, int, float) or key in CHOICES:
        told = "has no order: search it as {choices = [...]}"
        raise ValueError(f"{key} {told}; {received}")
    whole = given.get("int")
    if whole is None:
        ends = isinstance(low, int) and isinstance(high, int)
        whole = wanted is int or (wanted is None and ends)
    if whole and (low % 1 or high % 1):
        raise ValueError(f"{key} is searched in whole numbers; {received}")
    if wanted is int and not whole:
        raise ValueError(f"{key} is a whole number; received int = false")
    if not low < high:
        raise ValueError(f"{key}: low must be below high; {received}")
    if log and low <= 0:
        raise ValueError(f"{key}: a logarithmic range begins above 0; {received}")
    if wanted:
        low, high = read_value(key, low), read_value(key, high)
    number = int if whole else float
    return Range(number(low), number(high), bool(log), bool(whole))


def _choices(key: str, given: Any) -> Choices:
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{key}: choices must be a list; received {given!r}")
    if not key.startswith(OPTION):
        given = [read_value(key, value) for value in given]
    values = tuple(_storable(value, key.startswith(OPTION)) for value in given)
    for value in values:
        if not isinstance(value, bool | int | float | str):
            told = f"a number, true, false or text; received {value!r}"
            raise ValueError(f"{key}: a choice is {told}")
    if len(set(map(repr, values))) < len(values):
        raise ValueError(f"{key}: each choice once; received {list(values)}")
    return Choices(values)


def _storable(value: Any, option: bool = False) -> Any:
    """Several values as text: "60,80", as a recipe reads them; an option as JSON."""
    if isinstance(value, list | tuple):
        if option:
            return as_json(value)
        return ",".join(f"{part:.12g}" for part in value)
    return value
