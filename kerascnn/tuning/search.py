"""The search: trials are trained one after the other, each with other values."""

import contextlib
import functools
import gc
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

import zoo
from kerascnn.data import Data, load_data
from kerascnn.environment import first_missing
from kerascnn.training import Recipe, TrainingDivergedError, recipe_for, train
from kerascnn.training.network import builder_defaults, check_options
from kerascnn.tuning.result import Tuning
from kerascnn.tuning.space import (
    default_space,
    plain_space,
    space_from,
    split,
    starting_point,
)


class _PrunedError(Exception):
    """A trial is worse than the others at the same epoch."""


class _TrainedError(Exception):
    """A trial was trained to its end: it is not measured on the test images."""


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

    A sequence of trainings, each with values that the results so far make promising:
    Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), in place
    of the neural network of Snoek et al. (ICML 2015, arXiv 1502.05700). The first trial
    has the recipe's own values, as far as the space holds them. A trial whose accuracy
    is below the median of the others at the same epoch is given up, after a third of
    its epochs.

    The test images are never read. The best trial's run folder is kept as a training
    that has all its epochs and lacks its test: `resume(tuning.best_folder)`, or
    `kerascnn train --resume`, reads them, once. All trials have one seed, so that they
    differ in their values alone; the best of many is partly luck, and a training with
    other seeds tells how much.

    Everything is in the folder. Called again with the same arguments, the search goes
    on until there are `trials` in all. Several processes may work at one folder at the
    same time; on one GPU they need TF_FORCE_GPU_ALLOW_GROWTH=true, or with JAX
    XLA_PYTHON_CLIENT_PREALLOCATE=false, so that they share its memory. Ctrl-C leaves
    the finished trials; the one that ran is recorded as failed and another takes its
    place.

    Args:
        model: a name of the zoo, or a built Keras model as `train` takes it: every
            trial trains a copy of it, from the weights that it has.
        data: a `Data` with validation images, or what `load_data` takes.
        space: what is searched, such as `{"learning_rate": [1e-3, 0.1, "log"]}`; see
            `kerascnn.tuning.space.space_from`. Default: that of the network's card,
            else learning rate, weight cost, label smoothing, crop, flip and, of SGD,
            the momentum; without what the arguments below set.
        recipe: where the search starts: name of a recipe on the card, a dict, or a
            `Recipe`.
        trials: number of trials in all, those that were pruned or diverged included.
        epochs: of each trial; default those of the recipe.
        folder: of the study; default `tuning/<model>-<data>`.
        seed: of the search and of every training.
        timeout: seconds after which no further trial begins; the one that runs ends.
        options: further arguments of the zoo's builder, for every trial.
        progress: show a line a trial on standard error.
        **overrides: values of the recipe for every trial, such as `batch_size=64`.

    Returns:
        Every trial of the folder, the best recipe among them, and the importances.

    Raises:
        ModuleNotFoundError: Optuna is not installed.
        ValueError: unknown name, key or value; no validation images; the folder's study
            is of something else.
        FileExistsError: the folder holds something other than a study.
    """
    _require_optuna()
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
    data = data if isinstance(data, Data) else load_data(data)
    if not len(data.validation):
        raise ValueError(
            f"a search decides on validation images, and {data.title} has none; "
            "load_data(..., validation=...) holds some out"
        )
    searched = _space(space, name, base, data, {*overrides}, options or {})
    options = {**base.options, **(options or {})}
    check_options(model, [*options, *split(searched)[1]])
    own = {**builder_defaults(named), **options} if named else {}
    shared = SharedStudy(
        Path(folder or Path("tuning") / f"{name}-{data.name}"),
        _setup(model, name, data, base, options, searched, seed),
        start=starting_point(searched, base, own),
        epochs=base.epochs,
    )
    show = _Lines(trials, base.epochs) if progress else None
    begun = time.monotonic()
    try:
        while timeout is None or time.monotonic() - begun < timeout:
            trial = shared.claim(trials)
            if trial is None:
                break
            values = shared.values(trial.params)
            with _every_network_is_new():
                _attempt(shared, trial, values, model, data, base, options, seed, show)
            gc.collect()  # a network is a ring of references: many do not fit
            if show:
                show.line(shared.trials(), trial.number)
    finally:
        shared.close()
        if show:
            show.close()
    return Tuning(
        folder=shared.folder,
        name=name,
        data=data.title,
        trials=shared.trials(),
        importances=shared.importances(),
        _recipe=base,
        _options=options,
        _card_recipe=_card_recipe(name, recipe),
        _command=_command(named, data, recipe, seed),
    )


def _require_optuna() -> None:
    if package := first_missing(("optuna",)):
        raise ModuleNotFoundError(
            f'tuning needs {package}: pip install "kerascnn[tune]"'
        )


def _space(space, name, base: Recipe, data: Data, fixed: set, options: dict):
    """Return what is searched; what was set is not."""
    fixed = fixed | {f"option:{key}" for key in options}
    if space is not None:
        searched = space_from(space)
        if both := sorted(fixed & set(searched)):
            raise ValueError(f"a value is set or searched; received {both[0]} twice")
        return searched
    card = zoo.registry.cards().get(name)
    table = card.search if card and card.search else None
    if table is None:
        table = default_space(base, data.input_shape)
    return space_from({key: v for key, v in table.items() if key not in fixed})


def _setup(model, name, data: Data, base: Recipe, options, searched, seed) -> dict:
    """Return all that makes the trials of a study comparable."""
    network = {"name": name, "options": options}
    if not isinstance(model, str):
        # Names of layers are counted on in a process: two have other ones.
        network["weights"] = [list(w.shape) for w in model.weights]
    return {
        "model": network,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "input_shape": list(data.input_shape),
            "train": len(data.train),
            "validation": len(data.validation),
        },
        "recipe": {k: v for k, v in vars(base).items() if k != "options"},
        "space": plain_space(searched),
        "seed": seed,
    }


def _card_recipe(name: str, recipe) -> Recipe:
    """Return the recipe that a command starts from: the named one, else the default."""
    if isinstance(recipe, str):
        return recipe_for(name, recipe)
    card = zoo.registry.cards().get(name)
    return recipe_for(name) if card and "default" in card.recipes else Recipe()


def _command(named, data: Data, recipe, seed: int) -> tuple[str, ...] | None:
    """Return the words of the training's command, its settings left out."""
    asked = {k: v for k, v in data.origin.items() if v is not None}
    size = asked.pop("image_size", None)
    plain = set(asked) <= {"source", "seed"} and asked.get("seed", 0) == 0
    if (
        not named
        or "source" not in asked
        or not plain
        or not (size is None or isinstance(size, int))
    ):
        return None
    words = ["kerascnn", "train", named, "--data", asked["source"]]
    if size is not None:
        words += ["--image-size", str(size)]
    if isinstance(recipe, str) and recipe != "default":
        words += ["--recipe", recipe]
    return (*words, "--seed", str(seed))


def _attempt(shared, trial, values, model, data, base, options, seed, show) -> None:
    """Train one trial and record how it ended."""
    found, built = split(values)
    try:
        recipe = base.replace(**found)
    except ValueError as error:
        # Each value is possible by itself; together they are not.
        shared.prune(trial, "impossible", str(error))
        return
    report = _Report(trial, recipe, show)
    network = model
    if not isinstance(model, str):
        keras.utils.set_random_seed(seed)  # of the copy's dropout
        network = keras.models.clone_model(model)
        network.set_weights(model.get_weights())
    try:
        train(
            network,
            data,
            recipe,
            seed=seed,
            folder=shared.run_folder(trial.number),
            options={**options, **built} or None,
            progress=False,
            callbacks=[report],
        )
        raise RuntimeError("a trial was measured on the test images; this is a fault")
    except _TrainedError:
        shared.complete(trial, report.result())
    except _PrunedError as pruned:
        shared.prune(trial, "pruned", str(pruned))
    except TrainingDivergedError as error:
        shared.prune(trial, "diverged", str(error))
    except BaseException as error:
        # Ctrl-C among it: the search ends, the study stays in order.
        shared.fail(trial, str(error) or type(error).__name__)
        raise


@contextlib.contextmanager
def _every_network_is_new():
    """Leave out TensorFlow's warning that functions are traced again and again."""

    def wanted(record) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


class _Report(keras.callbacks.Callback):
    """Tells the study of every epoch, and ends the training before the test.

    `train` reads the test images after Keras' `fit`. The end of `fit` is the last that
    a callback sees; what it raises there leaves a run folder with all epochs and
    without a measurement, which `resume` completes.
    """

    def __init__(self, trial, recipe: Recipe, show):
        super().__init__()
        self.trial = trial
        self.recipe = recipe
        self.show = show
        self.accuracies: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        """Report the validation accuracy; give a poor trial up."""
        accuracy = 100 * logs["val_accuracy"]
        self.accuracies.append(accuracy)
        self.trial.report(accuracy, step=epoch)
        if self.show:
            self.show.epoch(self.trial.number, epoch + 1, accuracy)
        # A trial that has all its epochs is a finished one, however poor.
        if epoch + 1 < self.recipe.epochs and self.trial.should_prune():
            raise _PrunedError(
                f"{max(self.accuracies):.2f} % after {epoch + 1} epochs is below the "
                "median of the finished trials"
            )

    def on_train_end(self, logs=None):
        """End the training; also where it stopped early."""
        raise _TrainedError

    def result(self) -> float:
        """Return the accuracy of the weights that the recipe keeps, in percent."""
        best = self.recipe.keep == "best"
        return max(self.accuracies) if best else self.accuracies[-1]


class _Lines:
    """A line a trial on standard error and, on a terminal, the epoch that runs."""

    def __init__(self, trials: int, epochs: int):
        self.console = Console(stderr=True)
        self.trials = trials
        self.epochs = epochs
        self.say(f"{'trial':>7}  {'val. acc.':>9}  {'best':>7}  {'seconds':>7}  values")

    @functools.cached_property
    def status(self):
        """What is shown of the running trial; made when it is first needed."""
        return self.console.status("")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def epoch(self, number: int, epoch: int, accuracy: float) -> None:
        """Show how far a trial is."""
        if self.console.is_terminal:
            self.status.update(
                f"trial {number}: epoch {epoch} of {self.epochs}, {accuracy:.2f} %"
            )
            self.status.start()

    def close(self) -> None:
        """Show no epoch any more."""
        if self.console.is_terminal:
            self.status.stop()

    def line(self, trials, number: int) -> None:
        """Write the line of a trial that is over."""
        self.close()
        trial = next(t for t in trials if t.number == number)
        done = [t.accuracy for t in trials if t.end == "finished"]
        best = f"{max(done):.2f}" if done else "-"
        reached = "-" if trial.accuracy is None else f"{trial.accuracy:.2f}"
        if trial.end != "finished":
            reached = trial.end if trial.accuracy is None else f"({reached})"
        values = " ".join(f"{key}={value}" for key, value in trial.values.items())
        seconds = math.ceil(trial.seconds or 0)
        self.say(f"{number:>7}  {reached:>9}  {best:>7}  {seconds:>7}  {values}")
