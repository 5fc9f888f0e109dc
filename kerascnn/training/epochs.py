"""Around every epoch: order, validation, history, checkpoint, and what is seen."""

import contextlib
import math
import sys
import time
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kerascnn.data import Augmentation, Data
from kerascnn.training import checkpoint
from kerascnn.training.feed import Feed, make_feed
from kerascnn.training.network import (
    borrowed,
    compile_model,
    fused_layers,
    logits_model,
)
from kerascnn.training.optimizers import learning_rate
from kerascnn.training.recipe import Recipe
from kerascnn.training.run import best_epoch, write_history
from kerascnn.training.strategy import Place


class TrainingDivergedError(RuntimeError):
    """The loss is not finite any more."""


class Epochs(keras.callbacks.Callback):
    """The routine between two epochs, as a Keras callback.

    Args:
        folder: the run folder; None on another host than host 0.
        data: the data set.
        recipe: the recipe.
        feed: the training images.
        place: the devices.

    Attributes:
        history: rows of the epochs that are done.
        best: the weights of the best epoch, where the recipe keeps them.
    """

    def __init__(
        self, folder: Path | None, data: Data, recipe: Recipe, feed: Feed, place: Place
    ):
        super().__init__()
        self.folder = folder
        self.data = data
        self.recipe = recipe
        self.feed = feed
        self.place = place
        self.history: list[dict] = []
        self.best: list[np.ndarray] = []

    def begin(self, model, judged, saved: bytes | None = None) -> None:
        """Take up the saved state, or save the first one."""
        self.trained = model
        self.judged = judged
        if saved:
            self.history, self.best = checkpoint.restore(
                saved, self.folder, model, model.optimizer
            )
            checkpoint.finalize_layers(model)
        elif self.folder:
            checkpoint.save(self.folder, model, model.optimizer, self.history)

    def run(self, progress: bool, callbacks) -> None:
        """Train the epochs that are left, and leave the weights that are kept."""
        done = len(self.history)
        shown = progress and self.place.first
        bar = [TrainingProgress(self.recipe, len(self.feed), done)] if shown else []
        try:
            if done < self.recipe.epochs and not self.should_stop():
                with self.place.fitting():
                    self.trained.fit(
                        self.feed.for_keras(),
                        epochs=self.recipe.epochs,
                        initial_epoch=done,
                        shuffle=False,  # the feed has its own order
                        callbacks=[self, *callbacks, *bar],
                        verbose=0,
                    )
        except Exception:
            if isinstance(failure := self.feed.failure, ValueError):
                raise failure from None  # which TensorFlow wraps in pages of its own
            raise
        finally:
            for one in bar:
                one.close()
        if self.best:
            for variable, value in zip(self.trained.weights, self.best, strict=True):
                variable.assign(value)
        elif self.recipe.ema or self.recipe.lookahead:
            self._take_average()
        self.place.hand_over()
        if self.folder:  # a process that is killed may leave it a row behind
            write_history(self.folder / "history.csv", self.history)

    def on_epoch_begin(self, epoch, logs=None):
        """Order the images."""
        self.feed.start(epoch)
        self._epoch = epoch
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stop where the loss is not finite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            # The rate of this step cannot be read: JAX holds the variables meanwhile.
            rate = self.recipe.learning_rate
            raise TrainingDivergedError(
                f"the loss is {loss} in epoch {self._epoch + 1}, with a peak learning "
                f"rate of {rate:g}: train again with a lower learning_rate, a longer "
                "warmup or clip_norm=1"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Validate and save; stop early where the recipe says so."""
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(_accuracy(logs)),
        }
        if len(self.data.validation):
            row |= self._validate()
        row["learning_rate"] = float(self.trained.optimizer.learning_rate)
        row["seconds"] = time.perf_counter() - self._start
        self.history.append(row)
        logs.update(row)
        if self.folder:
            checkpoint.save(
                self.folder,
                self.trained,
                self.trained.optimizer,
                self.history,
                self.best,
            )
            write_history(self.folder / "history.csv", self.history)
        if self.should_stop():
            self.trained.stop_training = True

    def _validate(self) -> dict:
        """Measure on the validation images; with an average of weights, that one."""
        with self._averaged():
            self.place.hand_over()
            row = {}
            if self.place.first:
                feed = make_feed(
                    self.data.validation,
                    self.feed.units,
                    max(self.recipe.batch_size, 128),
                    seed=None,
                    augmentation=Augmentation(),
                    outputs=len(self.judged.outputs),
                ).for_keras()
                with self.place.alone():
                    logs = self.judged.evaluate(feed, verbose=0, return_dict=True)
                row = {
                    "val_loss": float(logs["loss"]),
                    "val_accuracy": float(_accuracy(logs)),
                }
            row = self.place.agree(row)
            earlier = [before["val_accuracy"] for before in self.history]
            better = row["val_accuracy"] > max(earlier, default=-1.0)
            if self.recipe.keep == "best" and better:
                self.best = checkpoint.values(self.trained.weights)
        return row

    @contextlib.contextmanager
    def _averaged(self):
        """Put the average of the weights in place of the weights, for a while."""
        if not (self.recipe.ema or self.recipe.lookahead):
            yield
            return
        weights = self.trained.weights
        own = checkpoint.values(weights)
        self._take_average()
        try:
            yield
        finally:
            for variable, value in zip(weights, own, strict=True):
                variable.assign(value)

    def _take_average(self) -> None:
        if self.recipe.lookahead:
            self.trained.lookahead.take_slow()
        else:
            weights = self.trained.trainable_variables
            self.trained.optimizer.finalize_variable_values(weights)
            checkpoint.copy(weights, weights)  # the average keeps its arrays

    def should_stop(self) -> bool:
        """Tell whether the validation accuracy has not grown for too long."""
        if not self.recipe.early_stopping or not self.history:
            return False
        return (
            len(self.history) - best_epoch(self.history) >= self.recipe.early_stopping
        )


class TrainingProgress(keras.callbacks.Callback):
    """A line an epoch and, on a terminal, a bar with the time left for all of them.

    On standard error, so that a program can read what a command prints.
    """

    def __init__(self, recipe: Recipe, steps: int, done: int = 0):
        super().__init__()
        self.console = Console(stderr=True)
        self.epochs = recipe.epochs
        self.done = done
        self.schedule = learning_rate(recipe, steps)
        self.steps = steps

    def on_train_begin(self, logs=None):
        """Open the bar."""
        self.console.print(
            f"{'epoch':>9}  {'loss':>7}  {'accuracy':>8}  {'val. acc.':>9}  "
            f"{'rate':>8}  {'seconds':>7}",
            highlight=False,
        )
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(
            "training", total=self.epochs * self.steps, completed=self.done * self.steps
        )
        self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        """Remember when the epoch began."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        loss = f", loss {logs['loss']:.4f}" if logs and "loss" in logs else ""
        self.bar.update(
            self.task,
            completed=self._epoch * self.steps + batch + 1,
            description=f"epoch {self._epoch + 1}/{self.epochs}{loss}",
        )

    def on_epoch_end(self, epoch, logs=None):
        """Write the line of the epoch."""
        validation = logs.get("val_accuracy")
        # Of the last step; after it the rate is that of a step to come, or 0.
        rate = float(self.schedule((epoch + 1) * self.steps - 1))
        self.console.print(
            f"{epoch + 1:>4}/{self.epochs:<4}  {logs['loss']:7.4f}  "
            f"{logs['accuracy']:8.2%}  "
            + (f"{validation:9.2%}" if validation is not None else f"{'-':>9}")
            + f"  {rate:8.2g}  {logs['seconds']:7.1f}",
            highlight=False,
        )

    def close(self):
        """Remove the bar; also after an interruption."""
        if hasattr(self, "bar"):
            self.bar.stop()


def _accuracy(logs: dict) -> float:
    """Return the accuracy of the first output, whatever Keras named it."""
    return next(value for name, value in logs.items() if name.endswith("accuracy"))


def train_epochs(
    model,
    data: Data,
    recipe: Recipe,
    config: dict,
    folder: Path | None,
    place: Place,
    universum,
    progress: bool,
    callbacks,
    saved: bytes | None = None,
) -> list[dict]:
    """Train a network until the end of its recipe; the history is returned."""
    if progress and folder:
        told = [
            f"{model.name} on {data.title}: {folder}",
            f"  train {len(data.train):,}, validation {len(data.validation):,}, test "
            f"{len(data.test):,} images of {data.classes} classes",
            *(f"  {note}" for note in data.notes),
        ]
        print("\n".join(told), file=sys.stderr, flush=True)
    ends, heads = logits_model(model)
    feed = make_feed(
        data.train,
        1 if heads[0].units == 1 else data.classes,
        recipe.batch_size,
        seed=config["seed"],
        augmentation=Augmentation(
            recipe.flip,
            recipe.crop,
            recipe.crop_padding,
            recipe.cutout,
            recipe.affine,
            recipe.color,
        ),
        alternate_flip=recipe.alternate_flip,
        outputs=len(heads),
        plain_from=recipe.epochs - recipe.plain_epochs,
        universum=universum,
        place=place,
    )
    judged = universum.labelled(ends) if universum else ends
    with place.scope():
        trained = place.spread(model, ends)
        if universum:
            trained = universum.extend(trained)
        trained.sizes = place.sizes(len(data.train), recipe.batch_size)
    with (
        borrowed(trained, config["precision"]),
        borrowed(ends, config["precision"]),
        fused_layers(trained),
    ):
        with place.scope():
            compile_model(trained, heads, recipe, universum, place, len(feed))
        if judged is not trained:
            compile_model(judged, heads, recipe, None)
        epochs = Epochs(folder, data, recipe, feed, place)
        epochs.begin(trained, judged, saved)
        try:
            epochs.run(progress, callbacks)
        except KeyboardInterrupt:
            if not folder:
                raise
            raise KeyboardInterrupt(
                f"interrupted; continue with kerascnn train --resume {folder}"
            ) from None
    return epochs.history
