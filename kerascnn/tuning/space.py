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

import difflib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerascnn.training import Recipe
from kerascnn.training.recipe import CHOICES, RANGES

OPTION = "option:"  # what the names of builder options begin with
DIGITS = 4  # significant digits of a value that is drawn: more make no difference
# What is tried where a recipe has no weight cost: of the gradient, and decoupled.
WEIGHT_COSTS = {"l2": (1e-5, 1e-4, 5e-4, 1e-3), "weight_decay": (1e-3, 1e-2, 1e-1)}
_FORMS = (
    '[low, high], [low, high, "log"], {low = …, high = …, log = true, int = true} or '
    "{choices = [...]}"
)
_TYPES = typing.get_type_hints(Recipe)
del _TYPES["options"]  # each is searched by itself


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False  # uniform in the logarithm
    whole: bool = False

    def plain(self) -> dict[str, Any]:
        """Return it as `space_from` reads it."""
        ends = {"low": self.low, "high": self.high}
        return {**ends, "log": self.log, "int": self.whole}

    def holds(self, value) -> bool:
        """Tell whether a value is one of its numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (
            not self.whole or value == int(value)
        )

    def rounded(self, value):
        """Return the number to train with: few digits, inside the range."""
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choices:
    """Some values, without an order among them."""

    values: tuple

    def plain(self) -> dict[str, Any]:
        """Return it as `space_from` reads it."""
        return {"choices": list(self.values)}

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

    Returns:
        The space, by key.

    Raises:
        ValueError: it is empty, a key is not known, or a value is not possible.
    """
    if not table:
        raise ValueError(
            "there is nothing to search: give a space such as "
            '{"learning_rate": [1e-3, 0.1, "log"]}; received none'
        )
    return {key: _entry(key, given) for key, given in table.items()}


def parse_space(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Read a space as the command line has it.

    Args:
        pairs: from keys to `low:high`, `low:high:log`, or choices with strokes
            between them: `adam/sgd`.

    Returns:
        A table for `space_from`.

    Raises:
        ValueError: a text has neither form.
    """
    return {key: _parse(key, text) for key, text in pairs.items()}


def _parse(key: str, text: str) -> Any:
    if "/" in text:
        return {"choices": [_value(part) for part in text.split("/")]}
    low, colon, rest = text.partition(":")
    high, colon_log, log = rest.partition(":")
    ends = [_value(low), _value(high)]
    if (
        not colon
        or any(isinstance(end, str) for end in ends)
        or (colon_log and log != "log")
    ):
        raise ValueError(
            f"--space takes {key}=low:high, {key}=low:high:log or {key}=one/other; "
            f"received {key}={text}"
        )
    return [*ends, "log"] if log else ends


def _value(text: str) -> Any:
    """Numbers, true and false as JSON writes them; else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def plain_space(space: Space) -> dict[str, dict[str, Any]]:
    """Return a space as JSON and TOML can hold it; `space_from` reads it again."""
    return {key: entry.plain() for key, entry in space.items()}


def default_space(recipe: Recipe, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return what is worth a search for most networks, around a recipe.

    The learning rate, a factor of ten to either side; what limits overfitting: weight
    cost, label smoothing, crop and flip; with "sgd" the momentum. The recipe's own
    values are mostly among it.

    Args:
        recipe: where the search starts.
        input_shape: height, width and channels of the images: small ones are shifted
            by less.
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
    """Return those of the recipe's and the builder's own values that the space holds.

    The first trial has them, so that the best is compared with what there was.

    Args:
        space: what is searched.
        recipe: the recipe that the search starts from.
        options: values of the builder's options, the defaults included.
    """
    found = {}
    for key, entry in space.items():
        if key.startswith(OPTION):
            own = options.get(key.removeprefix(OPTION))
        else:
            own = _storable(getattr(recipe, key))
        if entry.holds(own):
            found[key] = own
    return found


def split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the values of a trial into those of the recipe and those of the builder."""
    recipe = {k: v for k, v in values.items() if not k.startswith(OPTION)}
    options = {
        k.removeprefix(OPTION): v for k, v in values.items() if k.startswith(OPTION)
    }
    return recipe, options


def _entry(key: str, given: Any) -> Range | Choices:
    if key.startswith(OPTION):
        if not key.removeprefix(OPTION).isidentifier():
            raise ValueError(f"an option is option:NAME; received {key!r}")
    elif key not in _TYPES:
        close = difflib.get_close_matches(key, _TYPES, n=1)
        raise ValueError(
            f"a recipe has no {key!r} to search"
            + (f", did you mean {close[0]!r}?" if close else ".")
            + f" It has {', '.join(_TYPES)}; an argument of the builder is {OPTION}NAME"
        )
    if isinstance(given, Mapping):
        given = dict(given)
        if set(given) == {"choices"}:
            return _choices(key, given["choices"])
        if {"low", "high"} <= set(given) <= {"low", "high", "log", "int"}:
            return _range(key, given)
    elif isinstance(given, list | tuple) and (
        len(given) == 2 or (len(given) == 3 and given[2] == "log")
    ):
        ends = {"low": given[0], "high": given[1]}
        return _range(key, {**ends, "log": len(given) == 3})
    raise ValueError(f"{key} is searched in {_FORMS}; received {given!r}")


def _range(key: str, given: dict[str, Any]) -> Range:
    low, high, log = given["low"], given["high"], given.get("log", False)
    for end in (low, high):
        if (
            isinstance(end, bool)
            or not isinstance(end, int | float)
            or not math.isfinite(end)
        ):
            raise ValueError(f"{key}: the ends must be numbers; received {end!r}")
    wanted = _TYPES.get(key)
    if wanted not in (None, int, float) or key in CHOICES:
        raise ValueError(
            f"{key} has no order: search it as {{choices = [...]}}; received "
            f"{low} to {high}"
        )
    by_ends = wanted is int or (
        wanted is None and isinstance(low, int) and isinstance(high, int)
    )
    whole = given.get("int", by_ends)
    if whole and (low != int(low) or high != int(high)):
        raise ValueError(
            f"{key} is searched in whole numbers; received {low} to {high}"
        )
    if wanted is int and not whole:
        raise ValueError(f"{key} is a whole number; received int = false")
    if not low < high:
        raise ValueError(f"{key}: low must be below high; received {low} to {high}")
    if log and low <= 0:
        raise ValueError(
            f"{key}: a logarithmic range begins above 0; received {low} to {high}"
        )
    for end in (low, high):
        _check(key, end)
    number = int if whole else float
    return Range(number(low), number(high), bool(log), bool(whole))


def _choices(key: str, given: Any) -> Choices:
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(f"{key}: choices must be a list; received {given!r}")
    wanted = _TYPES.get(key)
    several = wanted not in (None, bool, int, float, str)  # numbers, for the recipe
    values = tuple(_storable(value, several) for value in given)
    for value in values:
        if not isinstance(value, bool | int | float | str):
            raise ValueError(
                f"{key}: a choice is a number, true, false or text; received {value!r}"
            )
        _check(key, value)
    if len(set(map(repr, values))) < len(values):
        raise ValueError(f"{key}: each choice once; received {list(values)}")
    return Choices(tuple(map(wanted, values)) if wanted in (int, float) else values)


def _storable(value: Any, several: bool = False) -> Any:
    """Some numbers as the recipe also reads them: "60,80"; one alone if `several`."""
    if several and isinstance(value, int | float):
        value = (value,)
    if isinstance(value, list | tuple):
        return ",".join(f"{part:.12g}" for part in value)
    return value


def _check(key: str, value: Any) -> None:
    """Check one value of a recipe's key by itself; options are left to the builder."""
    wanted = _TYPES.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        None: True,
        bool: isinstance(value, bool),
        int: is_number and value == int(value),
        float: is_number,
        str: isinstance(value, str),
    }.get(wanted, is_number or isinstance(value, str))
    allowed = CHOICES.get(key, (value,))
    low, high = RANGES.get(key, (value, value)) if fits else (value, value)
    if not fits or value not in allowed or not low <= value <= high:
        possible = (
            f"one of {', '.join(map(str, CHOICES[key]))}"
            if key in CHOICES
            else f"from {low} to {high}"
            if fits
            else f"of the type {getattr(wanted, '__name__', wanted)}"
        )
        raise ValueError(f"{key}: a value must be {possible}; received {value!r}")
