"""What happens around every epoch: order, validation, history, checkpoint."""

import contextlib
import json
import math
import time
from pathlib import Path

import keras
import numpy as np

from kerascnn.data import Augmentation, Data
from kerascnn.training import checkpoint
from kerascnn.training.adaptation import finalize_layers
from kerascnn.training.feed import Feed, make_feed
from kerascnn.training.recipe import Recipe
from kerascnn.training.run import write_history
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

    def begin(self, model, judged, *, twins=(), saved: bytes | None = None) -> None:
        """Take up the saved state, or save the first one.

        Args:
            model: the model that is trained.
            judged: the model that is validated.
            twins: two models, where the trained weights are not those of the judged
                model: the one that has them, and the one that gets them.
            saved: what `checkpoint.read` returned.
        """
        self.trained = model
        self.judged = judged
        self.twins = twins
        if saved:
            self.history, self.best = checkpoint.restore(
                saved, self.folder, model, model.optimizer
            )
            finalize_layers(model)
        elif self.folder:
            checkpoint.save(self.folder, model, model.optimizer, self.history)

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
            self._hand_over()
            row = self._measured() if self.place.first else {}
            row = json.loads(bytes(self.place.broadcast(json.dumps(row).encode())))
            earlier = [before["val_accuracy"] for before in self.history]
            better = row["val_accuracy"] > max(earlier, default=-1.0)
            if self.recipe.keep == "best" and better:
                self.best = checkpoint.values(self.trained.weights)
        return row

    def _measured(self) -> dict:
        feed = make_feed(
            self.data.validation,
            self.data.classes,
            max(self.recipe.batch_size, 128),
            seed=None,
            augmentation=Augmentation(),
            outputs=len(self.judged.outputs),
        )
        with self.place.alone():
            logs = self.judged.evaluate(feed.for_keras(), verbose=0, return_dict=True)
        return {"val_loss": float(logs["loss"]), "val_accuracy": float(_accuracy(logs))}

    def _hand_over(self) -> None:
        """Give the judged model the trained weights, where it has others."""
        if self.twins:
            source, target = self.twins
            with self.place.alone():
                checkpoint.copy(source.weights, target.weights)

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

    def finish(self) -> None:
        """Leave in the network the weights that the recipe keeps."""
        if self.best:
            for variable, value in zip(self.trained.weights, self.best, strict=True):
                variable.assign(value)
        elif self.recipe.ema or self.recipe.lookahead:
            self._take_average()
        self._hand_over()
        if self.twins:
            finalize_layers(self.twins[1])
        if self.folder:  # a process that is killed may leave it a row behind
            write_history(self.folder / "history.csv", self.history)


def _accuracy(logs: dict) -> float:
    """Return the accuracy of the first output, whatever Keras named it."""
    return next(value for name, value in logs.items() if name.endswith("accuracy"))


def best_epoch(history: list[dict]) -> int:
    """Return the first epoch (from 1) with the best validation accuracy."""
    return 1 + int(np.argmax([row["val_accuracy"] for row in history]))
