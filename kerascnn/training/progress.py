"""What a person sees of a training while it runs."""

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class TrainingProgress(keras.callbacks.Callback):
    """A line an epoch and, on a terminal, a bar with the time left for all of them.

    Args:
        epochs: number of epochs in all.
        done: number of epochs done before, where a training is resumed.
        console: where to write; default standard error, so that a program can read
            what a command prints on standard output.
    """

    def __init__(self, epochs: int, done: int = 0, console: Console | None = None):
        super().__init__()
        self.console = console or Console(stderr=True)
        self.epochs = epochs
        self.done = done

    def on_train_begin(self, logs=None):
        """Open the bar."""
        steps = self.params["steps"]
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
            "training", total=self.epochs * steps, completed=self.done * steps
        )
        self.bar.start()
        self._steps = steps

    def on_epoch_begin(self, epoch, logs=None):
        """Remember when the epoch began."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        loss = f", loss {logs['loss']:.4f}" if logs and "loss" in logs else ""
        self.bar.update(
            self.task,
            completed=self._epoch * self._steps + batch + 1,
            description=f"epoch {self._epoch + 1}/{self.epochs}{loss}",
        )

    def on_epoch_end(self, epoch, logs=None):
        """Write the line of the epoch."""
        validation = logs.get("val_accuracy")
        self.console.print(
            f"{epoch + 1:>4}/{self.epochs:<4}  {logs['loss']:7.4f}  "
            f"{logs['accuracy']:8.2%}  "
            + (f"{validation:9.2%}" if validation is not None else f"{'-':>9}")
            + f"  {logs['learning_rate']:8.6f}  {logs['seconds']:7.1f}",
            highlight=False,
        )

    def close(self):
        """Remove the bar; also after an interruption."""
        if hasattr(self, "bar"):
            self.bar.stop()
