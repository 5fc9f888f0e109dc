"""What a search found: its trials, the best recipe, and two pictures."""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerascnn.tables import Column, Table


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: from 0.
        end: "finished"; "pruned", given up as worse than the others; "diverged";
            "impossible", for values that do not go together; "failed", interrupted or
            killed; or "running", here or in another process.
        accuracy: on the validation images, in percent: after the last epoch, or of the
            best one where the recipe keeps that; of a pruned trial, its last. None
            where there is none.
        epochs: how many were trained.
        seconds: from start to end; None while it runs.
        values: what it was trained with, of all that is searched.
        why: why it ended early, "" where it did not.
    """

    number: int
    end: str
    accuracy: float | None
    epochs: int
    seconds: float | None
    values: dict[str, Any]
    why: str = ""


@dataclass(frozen=True)
class Tuning:
    """What `tune` found; `str()` is a table and what to type next.

    Attributes:
        folder: of the study.
        name: of the network.
        data: title of the images.
        trials: every trial, in order; those of other processes too.
        importances: the share of each searched value in the success, the largest
            first; empty where fewer than ten trials are finished.
    """

    folder: Path
    name: str
    data: str
    trials: tuple[Trial, ...]
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

    @property
    def best_value(self) -> float:
        """Validation accuracy of the best trial, in percent.

        It was chosen as the best of many, so that other images promise a little less.

        Raises:
            ValueError: no trial is finished.
        """
        return self._the_best().accuracy

    def _the_best(self) -> Trial:
        if self.best is None:
            raise ValueError(
                f"no trial of {self.folder} is finished; run more trials, or search "
                "where the loss does not diverge"
            )
        return self.best

    @property
    def best_folder(self) -> Path:
        """The best trial's run folder, complete but for the test: `resume` makes it.

        Raises:
            ValueError: no trial is finished.
        """
        return self.folder / f"trial-{self._the_best().number}"

    @property
    def best_recipe(self) -> dict[str, Any]:
        """Every value of the best trial's recipe: `train(name, data, best_recipe)`.

        Raises:
            ValueError: no trial is finished.
        """
        from kerascnn.tuning.space import split

        values, _ = split(self._the_best().values)
        return dict(vars(self._recipe.replace(**values)))

    @property
    def best_options(self) -> dict[str, Any]:
        """The best trial's arguments of the builder: `train(…, options=…)`.

        Raises:
            ValueError: no trial is finished.
        """
        from kerascnn.tuning.space import split

        _, options = split(self._the_best().values)
        return {**self._options, **options}

    @property
    def settings(self) -> list[str]:
        """What to add to `kerascnn train`: `--set key=value` and `--option key=value`.

        One for each value that differs from the card's recipe or was searched.

        Raises:
            ValueError: no trial is finished.
        """
        searched = self._the_best().values
        own = vars(self._card_recipe)
        lines = [
            f"--set {key}={_text(value)}"
            for key, value in self.best_recipe.items()
            if key != "options" and (key in searched or value != own[key])
        ]
        options = self.best_options.items()
        lines += [f"--option {key}={_text(value)}" for key, value in options]
        return lines

    @property
    def command(self) -> str | None:
        """The command that trains the best recipe; None where words cannot name it.

        Raises:
            ValueError: no trial is finished.
        """
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
        rows = [
            {
                "trial": t.number,
                "accuracy": t.accuracy,
                "epochs": t.epochs,
                "seconds": t.seconds,
                "end": t.end,
                **{key: t.values.get(key) for key in keys},
                "why": t.why or None,
            }
            for t in self.trials
        ]
        return Table(columns, rows, title=f"{self.name} on {self.data}")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it; `best` is None without any."""
        best = None
        if self.best is not None:
            best = {
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
        lines = [self.table().to_text(), ""]
        if running := sum(t.end == "running" for t in self.trials):
            lines.append(f"running, in another process: {running}")
        if self.best is None:
            return "\n".join([*lines, "no trial is finished"])
        lines.append(
            f"best: trial {self.best.number}, validation accuracy "
            f"{self.best_value:.2f} %"
        )
        lines += [f"  {setting}" for setting in self.settings]
        if self.command:
            lines.append(f"train it anew: {self.command}")
        lines.append(
            f"measure it on the test images, once: kerascnn train --resume "
            f"{shlex.quote(str(self.best_folder))}"
        )
        return "\n".join(lines)

    def plot(self, folder: str | os.PathLike | None = None) -> tuple[Path, Path]:
        """Draw the history of the search and the importances of its values.

        Args:
            folder: where to write; default the folder of the study.

        Returns:
            The paths of `history.png` and `importances.png`.
        """
        from kerascnn.tuning.pictures import plot_importances, plot_trials

        folder = self.folder if folder is None else Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "history.png", folder / "importances.png"
        for path, draw in zip(paths, (plot_trials, plot_importances), strict=True):
            draw(self).savefig(path, dpi=150)
        return paths


def _text(value: Any) -> str:
    """A value as the command line reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(f"{part!r}" for part in value)
    return str(value)
