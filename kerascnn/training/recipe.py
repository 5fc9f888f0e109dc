"""Recipes: everything about a training that is not the network or the data."""

import dataclasses
import difflib
import inspect
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import zoo


@dataclass(frozen=True)
class Recipe:
    """How to train a network. Times are in epochs, so that any data set fits.

    The cards of the zoo hold named recipes; every value can be overridden.
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "adam"  # "adam", "adamw", "muon" (see `ScaledMuon`), "sgd"
    learning_rate: float = 0.002  # the peak, after the warm-up
    momentum: float = 0.9  # of sgd and muon
    nesterov: bool = False  # of sgd; muon always has it
    schedule: str = "cosine"  # "constant", "cosine", "linear", "steps", "exponential"
    # or "points": straight lines through (milestones[i] epochs, rates[i] · peak),
    # constant before the first and after the last point, a warm-up included
    final_rate: float = 0.0  # cosine, linear: last learning rate, as part of the peak
    milestones: tuple[float, ...] = ()  # steps: epochs after which the rate is decayed
    decay: float = 0.1  # steps: factor of each decay; exponential: factor an epoch,
    # continuous: peak · decay^(epochs since the warm-up)
    rates: tuple[float, ...] = ()  # factors of the peak; steps: after each milestone,
    # in place of powers of decay; points: at each milestone
    bias_rate: float = 1.0  # factor of the learning rate of the offsets (beta) of
    # normalisation layers, with any optimizer (arXiv 2404.00498, section 3.4: 64)
    warmup: float = 0.0  # epochs of linear growth from 0 to the peak
    weight_decay: float = 0.0  # decoupled: w -= rate · weight_decay · w (AdamW)
    l2: float = 0.0  # in the gradient: g += l2 · w, as papers with SGD mean it
    clip_norm: float = 0.0  # largest norm of the whole gradient; 0 = off
    label_smoothing: float = 0.0
    ema: float = 0.0  # momentum of the average of the weights; 0 = off
    lookahead: int = 0  # steps between blendings of the weights with a slow average,
    # which is the result (arXiv 2404.00498, section 3.4); 0 = off
    flip: bool = False  # mirror half of the images
    alternate_flip: bool = False  # mirror half of the images in the first epoch, the
    # other half in the next, and so on (arXiv 2404.00498, section 3.6)
    crop: int = 0  # pad by so many pixels, then crop at random
    crop_padding: str = "reflect"  # "reflect" or "zeros"
    cutout: int = 0  # side of the square that is blanked; 0 = off
    affine: float = 0.0  # strength of random stretches, shears and turns (Graham: 0.2)
    color: float = 0.0  # grey levels of random offsets and slopes (Graham: 25)
    plain_epochs: int = 0  # last epochs, which see the images without augmentation
    initialization: str = ""  # "lsuv": see `lsuv`; of networks built by their name
    universum: str = ""  # what the network learns to say of unlabelled images:
    # "uniform", "dustbin" or "background" (arXiv 1511.03719)
    universum_data: str = ""  # the unlabelled images: what `load_data` takes
    universum_share: float = 0.2  # probability that a training sample is one of them
    universum_logit: float = 0.0  # background: the constant logit
    precision: str = "auto"  # "auto", "float32", "mixed_bfloat16", "mixed_float16"
    early_stopping: int = 0  # epochs without a better validation accuracy; 0 = off
    keep: str = "last"  # weights after the "last" epoch, or of the "best" one
    loss_weights: tuple[float, ...] = ()  # of the outputs, where there are several
    views: int = 1  # views of a test image whose probabilities are averaged: 1; 2 =
    # also mirrored; 6 = also shifted by one pixel (see `evaluate`)
    passes: int = 1  # passes averaged at test, for networks that draw there
    statistics: int = 0  # training images on which the batch normalisations are
    # measured anew after the last epoch, with dropout off; 0 = off
    # Arguments of the zoo's builder, such as the dropout of a short training.
    options: dict = field(default_factory=dict, hash=False)

    def __post_init__(self):
        for name in (*CHOICES, *RANGES):
            _check(name, getattr(self, name))
        self._check_schedule()
        if self.flip and self.alternate_flip:
            told = "flip and alternate_flip mirror the same images"
            raise ValueError(f"{told}: set one to false; received both")
        if self.ema and self.lookahead:
            told = f"received ema={self.ema} and lookahead={self.lookahead}"
            raise ValueError(f"one of two averages is kept: set the other to 0; {told}")
        if self.universum_data and not self.universum:
            told = "of use with universum=uniform, dustbin or background"
            raise ValueError(f"universum_data is {told}; received universum=''")
        if self.optimizer == "adamw" and not self.weight_decay:
            told = "received 0 (or choose adam)"
            raise ValueError(f"optimizer=adamw needs a weight_decay above 0; {told}")

    def _check_schedule(self):
        """Check what the schedules with milestones, and a decay an epoch, need."""
        kind, milestones, rates = self.schedule, self.milestones, self.rates
        if kind == "exponential" and not self.decay:
            told = "the factor of the learning rate an epoch; received 0"
            raise ValueError(f"schedule=exponential needs a decay above 0, {told}")
        if kind not in ("steps", "points"):
            return
        if not milestones:
            told = "the epochs at which the learning rate is decayed or given"
            raise ValueError(f"schedule={kind} needs milestones, {told}; received none")
        ordered = all(a < b for a, b in itertools.pairwise(milestones))
        if not ordered or not all(0 <= m < INF for m in milestones):
            told = "epochs from 0 on, each later than the one before"
            raise ValueError(f"milestones must be {told}; received {milestones}")
        if not all(0 <= rate < INF for rate in rates):
            told = "factors of the peak, 0 or more"
            raise ValueError(f"rates must be {told}; received {rates}")
        if (rates or kind == "points") and len(rates) != len(milestones):
            raise ValueError(
                f"schedule={kind} needs as many rates as milestones; received "
                f"{len(rates)} rates and {len(milestones)} milestones"
            )
        if kind == "points" and self.warmup:
            told = f"set warmup to 0; received warmup={self.warmup}"
            raise ValueError(f"schedule=points holds the warm-up in its points: {told}")

    def replace(self, **overrides: Any) -> "Recipe":
        """Return a copy with some values changed.

        Values may be strings, as the command line has them: "0.1", "true", "60,80".
        Raises ValueError where a key is not known or a value not possible.
        """
        check_keys(overrides)
        values = {k: read_value(k, value) for k, value in overrides.items()}
        return dataclasses.replace(self, **values)


def check_keys(names) -> None:
    """Raise ValueError where one of some names is no key of a recipe."""
    _only(names, KEYS, "a recipe has no")


def _only(names, known, told: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            told += f" {name!r}" + (f", did you mean {close[0]!r}?" if close else ";")
            raise ValueError(f"{told} it has {', '.join(known) or 'none'}")


INF = float("inf")
CHOICES = {
    "optimizer": ("adam", "adamw", "muon", "sgd"),
    "schedule": ("constant", "cosine", "linear", "steps", "exponential", "points"),
    "crop_padding": ("reflect", "zeros"),
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "keep": ("last", "best"),
    "views": (1, 2, 6),
    "initialization": ("", "lsuv"),
    "universum": ("", "uniform", "dustbin", "background"),
}
FROM_ZERO = ("warmup", "weight_decay", "l2", "clip_norm", "crop", "cutout")
FROM_ZERO += ("plain_epochs", "early_stopping", "lookahead", "statistics")
RANGES = {
    **dict.fromkeys(FROM_ZERO, (0, INF)),
    **dict.fromkeys(("epochs", "batch_size", "passes"), (1, INF)),
    **dict.fromkeys(("final_rate", "decay"), (0, 1)),
    "learning_rate": (1e-12, INF),
    "bias_rate": (1e-6, INF),
    "momentum": (0, 0.9999),
    "label_smoothing": (0, 0.999),
    "ema": (0, 0.99999),
    "affine": (0, 0.99),
    "color": (0, 255),
    "universum_share": (0, 0.99),
    "universum_logit": (-1000, 1000),
}


def _check(name: str, value) -> None:
    if name in CHOICES and value not in CHOICES[name]:
        choices = ", ".join(str(choice) or '""' for choice in CHOICES[name])
        raise ValueError(f"{name} must be one of {choices}; received {value!r}")
    low, high = RANGES.get(name, (-INF, INF))
    if name in RANGES and not low <= value <= high:
        limits = f"from {low} to {high}" if high < INF else f"at least {low}"
        raise ValueError(f"{name} must be {limits}; received {value}")


KEYS: dict[str, Any] = Recipe.__annotations__  # the type of each
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "a table of the builder's arguments, { dropout = 0.1 }",
}


def read_option(text: str):
    """Read a builder's argument: numbers, true and false as JSON has them, or text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_value(key: str, value):
    """Return a value as a recipe has it, of TOML, of Python or of the command line.

    Raises ValueError where it is not one that the key may have.
    """
    wanted = KEYS[key]
    try:
        found = _convert(value, wanted)
    except (ValueError, TypeError, KeyError, OverflowError):
        kind = KINDS.get(wanted, "numbers with commas between them")
        raise ValueError(f"{key} must be {kind}; received {value!r}") from None
    _check(key, found)
    return found


def _convert(value, wanted):
    if wanted is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if wanted is int:
        if float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    if wanted in (float, str):
        return wanted(value)
    if wanted is dict:  # as a run folder holds it
        plain = {"default": lambda v: getattr(v, "tolist", v.__str__)()}  # of NumPy's
        return json.loads(json.dumps(dict(value), **plain))
    # What is left are the tuples of numbers.
    parts = value.split(",") if isinstance(value, str) and value else value
    parts = [value] if isinstance(value, int | float) else parts
    return tuple(float(part) for part in parts)


def recipe_for(name: str | None, recipe: "str | dict | Recipe" = "default") -> Recipe:
    """Return a recipe: one of a network's card by its name, or a dict, or a `Recipe`.

    A network without a card has "default", `Recipe()`. ValueError for another one.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return Recipe().replace(**recipe)
    card = zoo.registry.cards().get(name)
    recipes = card.recipes if card else {"default": {}}
    if recipe not in recipes:
        told = f"no recipe {recipe!r}; it has {', '.join(recipes)}"
        raise ValueError(f"{name or 'this model'} has {told}")
    return Recipe().replace(**recipes[recipe])


# Arguments of every builder that are not the network's own.
COMMON = {"input_shape", "classes", "classifier_activation", "name"}


def builder_defaults(name: str) -> dict:
    """Return the options of a network's builder with their default values."""
    parameters = inspect.signature(zoo.builder(name)).parameters.values()
    options = (p for p in parameters if p.name not in COMMON)
    return {p.name: p.default for p in options if p.default is not p.empty}


def check_options(model, names) -> None:
    """Check that a network has the options that are set or searched.

    A model that is given, and no name of the zoo, has none. Raises ValueError.
    """
    if isinstance(model, str):
        known = builder_defaults(model)  # which tells an unknown name
        _only([n for n in names if n not in COMMON], known, f"{model} has no option")
    elif names:
        told = f"received a model and {', '.join(names)}"
        raise ValueError(f"options are for the builder of a named network; {told}")


def settle_recipe(model, recipe, options: dict, overrides: dict) -> Recipe:
    """Return the recipe of a training, which also has the options of the builder.

    Raises ValueError for an unknown name, recipe, option or value, and where a model
    that is given is to be built or initialised by its recipe.
    """
    check_options(model, options)  # wrong names are told first
    name = model if isinstance(model, str) else model.name
    recipe = recipe_for(name, recipe).replace(**overrides)
    if isinstance(model, str):
        check_options(model, recipe.options)
        return recipe.replace(options={**recipe.options, **options})
    if recipe.options:
        raise ValueError(
            f"the recipe builds {name} with {recipe.options}, and received a model: "
            "train it by its name, or by recipe_for(name, recipe).replace(options={})"
        )
    if recipe.initialization:
        raise ValueError(
            f"a model that is given, {name}, is trained from the weights that it has: "
            'call kerascnn.lsuv(model, data.train) before, with initialization=""; '
            f"received {recipe.initialization!r}"
        )
    return recipe
