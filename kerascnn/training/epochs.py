"""Around every epoch: order, validation, history, checkpoint, and what is seen."""

import contextlib
import math
import sys
import time

import keras
from rich.console import Console

from kerascnn.data import Augmentation
from kerascnn.environment import progress_bar
from kerascnn.training import checkpoint
from kerascnn.training.feed import make_feed
from kerascnn.training.network import borrowed, compile_model, logits_model
from kerascnn.training.optimizers import learning_rate
from kerascnn.training.run import best_epoch, write_history

CHANGES = ("flip", "crop", "crop_padding", "cutout", "affine", "color")


class TrainingDivergedError(RuntimeError):
    """The loss is not finite any more."""


class Epochs(keras.callbacks.Callback):
    """The routine between two epochs, as a Keras callback.

    `history` has the rows of the epochs that are done, `best` the weights of the best
    one where the recipe keeps them. What is shown goes to standard error: a line an
    epoch and, on a terminal, a bar with the time left for all.
    """

    def __init__(self, folder, validation, recipe, feed, trained, judged, shown):
        super().__init__()
        self.folder = folder  # a Path; None on another host than host 0
        self.validation = validation  # Images or Shards
        self.recipe = recipe
        self.feed = feed
        self.place = feed.place
        self.trained = trained
        self.judged = judged  # of the same weights; what is validated
        self.history, self.best = [], []
        self.console = Console(stderr=True, quiet=not shown, highlight=False)

    def run(self, callbacks, saved: bytes | None) -> None:
        """Train the epochs that are left, and leave the weights that are kept."""
        trained = self.trained
        if saved:
            self.history, self.best = checkpoint.restore(saved, self.folder, trained)
        elif self.folder:
            checkpoint.save(self.folder, trained, self.history)
        done, epochs = len(self.history), self.recipe.epochs
        if done < epochs and not self.should_stop():
            self.console.print(
                f"{'epoch':>9}  {'loss':>7}  {'accuracy':>8}  {'val. acc.':>9}  "
                f"{'rate':>8}  {'seconds':>7}"
            )
            console, total = self.console, epochs * len(self.feed)
            shown = not console.quiet
            bar = progress_bar("training", total=total, enabled=shown, console=console)
            try:
                with bar as self.advance, self.place.fitting():
                    trained.fit(
                        self.feed.for_keras(),
                        epochs=epochs,
                        initial_epoch=done,
                        shuffle=False,  # the feed has its own order
                        callbacks=[self, *callbacks],
                        verbose=0,
                    )
            except Exception:
                if isinstance(failure := self.feed.failure, ValueError):
                    raise failure from None  # which TensorFlow wraps in pages
                raise
        if self.best:
            checkpoint.assign(trained.weights, self.best)
        elif self.recipe.ema or self.recipe.lookahead:
            self._take_average()
        if self.place.replicas > 1:
            self.place.hand_over()
        if self.folder:  # a process that is killed may leave it a row behind
            write_history(self.folder / "history.csv", self.history)

    def on_epoch_begin(self, epoch, logs=None):
        """Order the images."""
        self.feed.start(epoch)
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Stop where the loss is not finite; move the bar."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            # The rate of this step cannot be read: JAX holds the variables meanwhile.
            rate = self.recipe.learning_rate
            raise TrainingDivergedError(
                f"the loss is {loss} in epoch {self.feed.epoch + 1}, with a peak "
                f"learning rate of {rate:g}: train again with a lower learning_rate, a "
                "longer warmup or clip_norm=1"
            )
        told = f"epoch {self.feed.epoch + 1}/{self.recipe.epochs}, loss {loss:.4f}"
        steps = len(self.feed)
        done = min(batch + 1, steps)  # Keras counts its last call as a whole one
        self.advance(self.feed.epoch * steps + done, description=told)

    def on_epoch_end(self, epoch, logs=None):
        """Validate, save and show; stop early where the recipe says so."""
        row = {"epoch": epoch + 1}
        row |= {"loss": float(logs["loss"]), "accuracy": _accuracy(logs)}
        if len(self.validation):
            row |= self._validate()
        row["learning_rate"] = float(self.trained.optimizer.learning_rate)
        row["seconds"] = time.perf_counter() - self._start
        self.history.append(row)
        logs.update(row)
        if self.folder:
            checkpoint.save(self.folder, self.trained, self.history, self.best)
            write_history(self.folder / "history.csv", self.history)
        if self.should_stop():
            self.trained.stop_training = True
        steps = len(self.feed)
        # Of the last step; after it the rate is that of a step to come, or 0.
        rate = float(learning_rate(self.recipe, steps)((epoch + 1) * steps - 1))
        validation = f"{row['val_accuracy']:.2%}" if "val_accuracy" in row else "-"
        self.console.print(
            f"{epoch + 1:>4}/{self.recipe.epochs:<4}  {row['loss']:7.4f}  "
            f"{row['accuracy']:8.2%}  {validation:>9}  {rate:8.2g}  "
            f"{row['seconds']:7.1f}"
        )

    def _validate(self) -> dict:
        """Measure on the validation images; with an average of weights, that one."""
        with self._averaged():
            if self.place.replicas > 1:
                self.place.hand_over()
            row = {}
            if self.place.first:
                size, outputs = max(self.recipe.batch_size, 128), self.judged.outputs
                images, units = self.validation, self.feed.units
                feed = make_feed(images, units, size, outputs=len(outputs)).for_keras()
                with self.place.alone():
                    logs = self.judged.evaluate(feed, verbose=0, return_dict=True)
                row = {"val_loss": float(logs["loss"]), "val_accuracy": _accuracy(logs)}
            if self.place.hosts > 1:
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
            checkpoint.assign(weights, own)

    def _take_average(self) -> None:
        if lookahead := self.trained.lookahead:
            checkpoint.assign(lookahead.weights, checkpoint.values(lookahead.slow))
        else:
            weights = self.trained.trainable_variables
            self.trained.optimizer.finalize_variable_values(weights)
            checkpoint.assign(weights, checkpoint.values(weights))  # of the average

    def should_stop(self) -> bool:
        """Tell whether the validation accuracy has not grown for too long."""
        patience, done = self.recipe.early_stopping, len(self.history)
        return bool(patience and done) and done - best_epoch(self.history) >= patience


def _accuracy(logs: dict) -> float:
    """Return the accuracy of the first output, whatever Keras named it."""
    return float(next(v for name, v in logs.items() if name.endswith("accuracy")))


def train_epochs(
    model, data, recipe, config, folder, place, universum, progress, callbacks, saved
) -> list[dict]:
    """Train a network until the end of its recipe; the history is returned.

    `folder` is None on another host than host 0; `saved` what `checkpoint.read` gave.
    """
    shown = progress and folder is not None
    if shown:
        told = [
            f"{model.name} on {data.title}: {folder}",
            f"  train {len(data.train):,}, validation {len(data.validation):,}, test "
            f"{len(data.test):,} images of {data.classes} classes",
            *(f"  {note}" for note in data.notes),
        ]
        print(*told, sep="\n", file=sys.stderr, flush=True)
    ends, heads = logits_model(model)
    feed = make_feed(
        data.train,
        1 if heads[0].units == 1 else data.classes,
        recipe.batch_size,
        seed=config["seed"],
        augmentation=Augmentation(*(getattr(recipe, key) for key in CHANGES)),
        alternate_flip=recipe.alternate_flip,
        outputs=len(heads),
        plain_from=recipe.epochs - recipe.plain_epochs,
        universum=universum,
        place=place,
    )
    judged = universum.labelled(ends) if universum else ends
    several = place.replicas > 1
    with place.scope():
        trained = place.spread(model, ends) if several else ends
        if universum:
            trained = universum.extend(trained)
        if several:
            trained.sizes = place.sizes(len(data.train), recipe.batch_size)
    with contextlib.ExitStack() as stack:
        for network in (trained, ends) if several else (trained,):
            stack.enter_context(borrowed(network, config["precision"]))
        with place.scope():
            compile_model(trained, heads, recipe, universum, place, len(feed))
        if judged is not trained:
            compile_model(judged, heads, recipe, None)
        epochs = Epochs(folder, data.validation, recipe, feed, trained, judged, shown)
        epochs.run(callbacks, saved)
    return epochs.history
