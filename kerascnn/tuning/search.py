"""The search: trials with other values, one after the other, and what they found."""

import gc
import logging
import math
import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

import zoo
from kerascnn.data import Data
from kerascnn.environment import first_missing
from kerascnn.tables import Column, Table
from kerascnn.training import Recipe, TrainingDivergedError, recipe_for, train
from kerascnn.training.checkpoint import finalize_layers
from kerascnn.training.network import data_for
from kerascnn.training.recipe import builder_defaults, check_options
from kerascnn.tuning import space as spaces
from kerascnn.tuning.space import as_json, space_from, split

DATA = ("name", "fingerprint", "input_shape")  # what of it a study keeps


@dataclass(frozen=True)
class Trial:
    """One training of a search; its number counts from 0."""

    number: int
    # "finished"; "pruned", given up as worse than the others; "diverged"; "impossible",
    # for values that do not go together; "failed", interrupted or killed; "running",
    # here or in another process.
    end: str
    # On the validation images, percent, after the last epoch, or of the best one where
    # the recipe keeps that; None where there is none.
    accuracy: float | None
    epochs: int  # that were trained
    seconds: float | None  # from start to end; None while it runs
    values: dict[str, Any]  # of all that is searched
    why: str = ""  # it ended early


@dataclass(frozen=True)
class Tuning:
    """What `tune` found; `str()` is a table and what to type next.

    What is of the best trial raises ValueError where no trial is finished.
    """

    folder: Path  # of the study
    name: str  # of the network
    data: str  # title of the images
    trials: tuple[Trial, ...]  # in order; those of other processes too
    # The share of each searched value in the success, the largest first; empty where
    # fewer than ten trials are finished.
    importances: dict[str, float]
    # Of the recipe that was searched from, with what was set; builder options; and
    # the recipe of the card that the lines of `settings` are given against.
    _recipe: Any = field(repr=False)
    _options: dict[str, Any] = field(repr=False)
    _card_recipe: Any = field(repr=False)
    _command: tuple[str, ...] | None = field(repr=False, default=None)

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best validation accuracy; None without any."""
        done = [t for t in self.trials if t.end == "finished"]
        return max(done, key=lambda trial: trial.accuracy, default=None)

    def _the_best(self) -> Trial:
        if self.best is None:
            told = "run more trials, or search where the loss does not diverge"
            raise ValueError(f"no trial of {self.folder} is finished; {told}")
        return self.best

    @property
    def best_value(self) -> float:
        """Validation accuracy of the best trial, in percent.

        It was chosen as the best of many, so that other images promise a little less.
        """
        return self._the_best().accuracy

    @property
    def best_folder(self) -> Path:
        """The best trial's run folder, complete but for the test: `resume` makes it."""
        return self.folder / f"trial-{self._the_best().number}"

    @property
    def best_recipe(self) -> dict[str, Any]:
        """Every value of the best trial's recipe: `train(name, data, best_recipe)`."""
        values, _ = split(self._the_best().values)
        return dict(vars(self._recipe.replace(**values)))

    @property
    def best_options(self) -> dict[str, Any]:
        """The best trial's arguments of the builder: `train(…, options=…)`."""
        _, options = split(self._the_best().values)
        return {**self._options, **options}

    @property
    def settings(self) -> list[str]:
        """What to add to `kerascnn train`: `--set key=value` and `--option key=value`.

        One for each value that differs from the card's recipe or was searched.
        """
        searched = self._the_best().values
        own = vars(self._card_recipe)
        lines = [
            f"--set {key}={_text(value)}"
            for key, value in self.best_recipe.items()
            if key != "options" and (key in searched or value != own[key])
        ]
        for key, value in self.best_options.items():
            text = value if isinstance(value, str) else as_json(value)
            lines.append(f"--option {key}={text}")
        return lines

    @property
    def command(self) -> str | None:
        """The command that trains the best recipe; None where words cannot name it."""
        if self._command is None:
            return None
        parts = [part for line in self.settings for part in line.split(" ", 1)]
        return shlex.join([*self._command, *parts])

    def table(self) -> Table:
        """Return a row for each trial: accuracy, epochs, seconds, end, values."""
        keys = list(dict.fromkeys(key for t in self.trials for key in t.values))
        columns = [
            Column("trial", "trial"),
            Column("accuracy", "validation %", "{:.2f}".format),
            Column("epochs", "epochs"),
            Column("seconds", "seconds", "{:.1f}".format, optional=2),
            Column("end", "end", right=False),
            *(Column(key, key.removeprefix("option:"), _text) for key in keys),
        ]
        own = ("accuracy", "epochs", "seconds", "end")
        rows = []
        for t in self.trials:
            row = {"trial": t.number, **{key: getattr(t, key) for key in own}}
            row |= {key: t.values.get(key) for key in keys}
            rows.append({**row, "why": t.why or None})
        return Table(columns, rows, title=f"{self.name} on {self.data}")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it; `best` is None without any."""
        best = self.best and {
            "trial": self.best.number,
            "validation_accuracy": self.best_value,
            "recipe": self.best_recipe,
            "options": self.best_options,
            "settings": self.settings,
            "command": self.command,
            "run": str(self.best_folder),
        }
        return {
            "folder": str(self.folder),
            "model": self.name,
            "data": self.data,
            "best": best,
            "importances": self.importances,
            "trials": list(self.table().rows),
        }

    def __str__(self) -> str:
        return f"{self.table().to_text()}\n\n{self.conclusion()}"

    def conclusion(self) -> str:
        """Return in words which trial is the best, and what to type next."""
        lines = []
        if running := sum(t.end == "running" for t in self.trials):
            lines.append(f"running, in another process: {running}")
        if self.best is None:
            return "\n".join([*lines, "no trial is finished"])
        reached = f"validation accuracy {self.best_value:.2f} %"
        lines.append(f"best: trial {self.best.number}, {reached}")
        lines += [f"  {setting}" for setting in self.settings]
        if self.command:
            lines.append(f"train it anew: {self.command}")
        command = f"kerascnn train --resume {shlex.quote(str(self.best_folder))}"
        lines.append(f"measure it on the test images, once: {command}")
        return "\n".join(lines)

    def plot(self, folder: str | os.PathLike | None = None) -> tuple[Path, Path]:
        """Draw, as Optuna does, the history of the search and the importances.

        Returns the paths of `history.png` and `importances.png`, which are written to
        the given folder, by default that of the study.
        """
        from kerascnn.tuning.study import pictures

        folder = self.folder if folder is None else Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        of = f"{self.name} on {self.data}"
        few = "" if self.importances else ", too few finished trials to tell"
        titles = f"Search for a recipe: {of}", f"What decides: {of}{few}"
        paths = folder / "history.png", folder / "importances.png"
        drawn = pictures(self.trials, self.importances)
        for path, title, figure in zip(paths, titles, drawn, strict=True):
            figure.axes[0].set_title(title, parse_math=False)
            figure.savefig(path, dpi=150, bbox_inches="tight")
        return paths


def _text(value: Any) -> str:
    """A value as the command line reads it."""
    if isinstance(value, list | tuple):
        return ",".join(map(repr, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def tune(
    model: str | keras.Model,
    data: Any = "shapes",
    *,
    space: dict | None = None,
    recipe: str | dict | Recipe = "default",
    trials: int = 30,
    epochs: int | None = None,
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    timeout: float | None = None,
    options: dict | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Tuning:
    """Search for the values of a recipe that reach the best validation accuracy.

    A sequence of trainings of one seed, each with values that the results so far make
    promising: Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 2011).
    The first has the recipe's own values, as far as the space holds them. One whose
    accuracy is below the others' median at an epoch is given up, after a third of all.

    The test images are never read. The best trial's run folder is kept as a training
    that has all its epochs and lacks its test: `resume(tuning.best_folder)`, or
    `kerascnn train --resume`, reads them, once.

    Called again with the same arguments, the search goes on until there are `trials` in
    all; what Ctrl-C broke off is made anew. Several processes may work at one folder;
    on one GPU with TF_FORCE_GPU_ALLOW_GROWTH=true, or of JAX
    XLA_PYTHON_CLIENT_PREALLOCATE=false.

    Args:
        model: a name of the zoo, or a built Keras model as `train` takes it: every
            trial trains a copy of it, from the weights that it has.
        data: a `Data` with validation images, or what `load_data` takes.
        space: what is searched, such as `{"learning_rate": [1e-3, 0.1, "log"]}`; see
            `space_from`. Default: the card's, else `space.default_space`; without what
            is set below.
        recipe: where the search starts: a name on the card, a dict, or a `Recipe`.
        trials: number of trials in all, those that were pruned or diverged included.
        epochs: of each trial; default those of the recipe.
        folder: of the study; default `tuning/<model>-<data>`.
        seed: of the search and of every training.
        timeout: seconds after which no further trial begins; the one that runs ends.
        options: further arguments of the zoo's builder, for every trial.
        progress: show a line a trial on standard error.
        **overrides: values of the recipe for every trial, such as `batch_size=64`.

    Raises ModuleNotFoundError without Optuna, FileExistsError where the folder holds no
    study, and ValueError for an unknown name, key or value, where there are no
    validation images, and where the folder's study is of something else.
    """
    if package := first_missing(("optuna",)):
        told = f'tuning needs {package}: pip install "kerascnn[tune]"'
        raise ModuleNotFoundError(told)
    from kerascnn.tuning.study import SharedStudy

    if trials < 1:
        raise ValueError(f"trials must be 1 or more; received {trials}")
    named = model if isinstance(model, str) else None
    if named:
        zoo.builder(named)  # an unknown name is told before images are read
    if space is not None:
        space_from(space)  # likewise
    if epochs is not None:
        overrides["epochs"] = epochs
    name = named or model.name
    base = recipe_for(name, recipe).replace(**overrides)
    data = data if isinstance(data, Data) else data_for(model, data)
    if not len(data.validation):
        told = f"{data.title} has none; load_data(…, validation=…) holds some out"
        raise ValueError(f"a search decides on validation images, and {told}")
    searched = _space(space, name, base, data, {*overrides}, options or {})
    options = {**base.options, **(options or {})}
    check_options(model, [*options, *split(searched)[1]])
    own = {**builder_defaults(named), **options} if named else {}
    # All that makes the trials of a study comparable.
    parts = {part: len(getattr(data, part)) for part in ("train", "validation")}
    setup = {
        "model": {"name": name, "options": options},
        "data": {key: getattr(data, key) for key in DATA} | parts,
        "recipe": {k: v for k, v in vars(base).items() if k != "options"},
        "space": spaces.plain_space(searched),
        "seed": seed,
    }
    if not named:  # names of layers are counted on in a process: two have other ones
        setup["model"]["weights"] = [list(w.shape) for w in model.weights]
    shared = SharedStudy(
        Path(folder or Path("tuning") / f"{name}-{data.name}"),
        setup,
        start=spaces.starting_point(searched, base, own),
        epochs=base.epochs,
    )
    show = _Lines(shared.trials()) if progress else None
    begun, logger = time.monotonic(), logging.getLogger("tensorflow")
    logger.addFilter(_worth_telling)
    try:
        while timeout is None or time.monotonic() - begun < timeout:
            trial = shared.claim(trials)
            if trial is None:
                break
            values = shared.values(trial.params)
            _attempt(shared, trial, values, model, data, base, options, seed, show)
            gc.collect()  # a network is a ring of references: many do not fit
            if show:
                show.line(shared.trials(), trial.number)
    finally:
        logger.removeFilter(_worth_telling)
        shared.close()
        if show:
            show.status.stop()
    # A command starts from the named recipe, else from the card's default.
    card = zoo.registry.cards().get(name)
    known = isinstance(recipe, str) or (card and "default" in card.recipes)
    start = recipe if isinstance(recipe, str) else "default"
    return Tuning(
        folder=shared.folder,
        name=name,
        data=data.title,
        trials=shared.trials(),
        importances=shared.importances(),
        _recipe=base,
        _options=options,
        _card_recipe=recipe_for(name, start) if known else Recipe(),
        _command=_command(named, data, recipe, seed),
    )


def _space(space, name, base: Recipe, data: Data, fixed: set, options: dict):
    """Return what is searched; what was set is not."""
    fixed = fixed | {f"option:{key}" for key in options}
    if space is None:
        card = zoo.registry.cards().get(name)
        table = card and card.search
        table = table or spaces.default_space(base, data.input_shape)
        return space_from({key: v for key, v in table.items() if key not in fixed})
    searched = space_from(space)
    if both := sorted(fixed & set(searched)):
        raise ValueError(f"a value is set or searched; received {both[0]} twice")
    return searched


def _command(named, data: Data, recipe, seed: int) -> tuple[str, ...] | None:
    """Return the words of the training's command, its settings left out, if any."""
    asked = {k: v for k, v in data.origin.items() if v is not None}
    size = asked.pop("image_size", None)
    plain = {*asked} <= {"source", "seed"} and asked.get("seed", 0) == 0
    plain = plain and (size is None or isinstance(size, int))
    if not named or "source" not in asked or not plain:
        return None
    words = ["kerascnn", "train", named, "--data", asked["source"]]
    if size is not None:
        words += ["--image-size", str(size)]
    if isinstance(recipe, str) and recipe != "default":
        words += ["--recipe", recipe]
    return (*words, "--seed", str(seed))


def _attempt(shared, trial, values, model, data, base, options, seed, show) -> None:
    found, built = split(values)
    try:
        recipe = base.replace(**found)
    except ValueError as error:  # each value is possible, together they are not
        shared.tell(trial, "impossible", str(error))
        return
    report, network = _Report(trial, recipe, show), model
    if not isinstance(model, str):
        keras.utils.set_random_seed(seed)  # of the copy's dropout
        network = keras.models.clone_model(model)
        network.set_weights(model.get_weights())
        finalize_layers(network)
    arguments = {"seed": seed, "options": {**options, **built}, "callbacks": [report]}
    arguments |= {"folder": shared.run_folder(trial.number), "progress": False}
    try:
        train(network, data, recipe, test=False, **arguments)
    except TrainingDivergedError as error:
        shared.tell(trial, "diverged", str(error))
    except BaseException as error:  # Ctrl-C among it: the study stays in order
        shared.tell(trial, "failed", str(error) or type(error).__name__)
        raise
    else:
        if report.pruned:
            shared.tell(trial, "pruned", report.pruned)
        else:
            best = recipe.keep == "best"
            reached = max(report.accuracies) if best else report.accuracies[-1]
            shared.tell(trial, "finished", accuracy=reached)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Whether TensorFlow tells more than that it traces the next trial's network."""
    return "triggered tf.function retracing" not in record.getMessage()


class _Report(keras.callbacks.Callback):
    """Tells the study of every epoch, and gives a poor trial up."""

    def __init__(self, trial, recipe: Recipe, show):
        super().__init__()
        self.trial = trial
        self.recipe = recipe
        self.show = show
        self.accuracies: list[float] = []
        self.pruned = ""

    def on_epoch_end(self, epoch, logs=None):
        """Report the validation accuracy, in percent."""
        accuracy = 100 * logs["val_accuracy"]
        self.accuracies.append(accuracy)
        self.trial.report(accuracy, step=epoch)
        if self.show and self.show.console.is_terminal:
            now = f"epoch {epoch + 1} of {self.recipe.epochs}, {accuracy:.2f} %"
            self.show.status.update(f"trial {self.trial.number}: {now}")
            self.show.status.start()
        # A trial that has all its epochs is a finished one, however poor.
        if epoch + 1 < self.recipe.epochs and self.trial.should_prune():
            self.model.stop_training = True
            told = f"{max(self.accuracies):.2f} % after {epoch + 1} epochs is below"
            self.pruned = f"{told} the median of the finished trials"


class _Lines:
    """A line a trial on standard error and, on a terminal, the epoch that runs."""

    def __init__(self, before):
        self.console = Console(stderr=True)
        self.status = self.console.status("")
        self._say(
            f"{'trial':>7}  {'val. acc.':>9}  {'best':>7}  {'seconds':>7}  values"
        )
        for trial in before:  # of a search that is continued
            self.line(before[: trial.number + 1], trial.number)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def line(self, trials, number: int) -> None:
        """Write the line of a trial that is over."""
        self.status.stop()
        trial = next(t for t in trials if t.number == number)
        done = [t.accuracy for t in trials if t.end == "finished"]
        best = f"{max(done):.2f}" if done else "-"
        reached = "-" if trial.accuracy is None else f"{trial.accuracy:.2f}"
        if trial.end != "finished":
            reached = trial.end if trial.accuracy is None else f"({reached})"
        values = " ".join(f"{key}={value}" for key, value in trial.values.items())
        seconds = math.ceil(trial.seconds or 0)
        self._say(f"{number:>7}  {reached:>9}  {best:>7}  {seconds:>7}  {values}")
