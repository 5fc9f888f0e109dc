"""The study on disk: an Optuna study that several processes work at together.

The folder holds

    study.json      what is searched; who comes later must search the same
    study.journal   Optuna's log of every trial
    trial-7/        the run folder of the best trial, and of those that run now
    .locks/         which process works at what

Optuna's journal is only ever appended to, so that a process that is killed leaves it
whole. What it lacks is to see that a process died: whoever asks for a trial holds the
study's lock, and the trial's as long as it trains; the system frees those of the dead.
"""

import contextlib
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna import distributions, importance
from optuna.samplers import TPESampler
from optuna.storages import journal
from optuna.trial import FrozenTrial, TrialState

from kerascnn.training.recipe import Recipe
from kerascnn.training.run import read_json, write_json
from kerascnn.tuning.search import Trial
from kerascnn.tuning.space import Range, Space, space_from

NAME = "tuning"  # of the study in the journal
# How a trial may end, and what Optuna's sampler makes of it.
ENDS = {
    "finished": TrialState.COMPLETE,
    **dict.fromkeys(("pruned", "diverged", "impossible"), TrialState.PRUNED),
    "failed": TrialState.FAIL,  # another takes its place
}
UNPRUNED = 5  # trials that are finished whatever they promise, to know a median
FEWEST = 10  # finished trials from which importances are told


class SeededTPE(TPESampler):
    """The tree-structured Parzen estimator, whose draws depend on seed and trial alone.

    So two processes with one seed do not try the same, and a study that was broken off
    goes on as if it had not been. Trials that other processes run count as poor ones:
    their neighbourhood is left to them.
    """

    def __init__(self, seed: int):
        super().__init__(seed=seed, constant_liar=True)
        self._of_study = seed

    def before_trial(self, study, trial) -> None:
        """Begin the draws of a trial, with a generator of its own."""
        seeds = np.random.SeedSequence([self._of_study, trial.number])
        super().__init__(seed=int(seeds.generate_state(1)[0]), constant_liar=True)
        super().before_trial(study, trial)


def _distribution(entry):
    if not isinstance(entry, Range):
        return distributions.CategoricalDistribution(entry.values)
    numbers = distributions.FloatDistribution, distributions.IntDistribution
    return numbers[entry.whole](entry.low, entry.high, log=entry.log)


@contextlib.contextmanager
def _quiet(level: int = logging.WARNING):
    """Leave out what Optuna tells of its work, for a while."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class SharedStudy:
    """A study in a folder; each process that works at it has an object of its own.

    Raises FileExistsError: the folder holds something else; ValueError: its study has
    another setup, or its journal is damaged.
    """

    def __init__(self, folder: Path, setup: dict, *, start: dict, epochs: int):
        self.folder = folder
        self.start = start
        self.space: Space = space_from(setup["space"])
        self._distributions = {k: _distribution(e) for k, e in self.space.items()}
        self._held: dict[int, FileLock] = {}
        _make(folder)
        self._lock = self._lock_for("study")
        with self._lock, _quiet():
            _agree(folder, setup)
            self._study = self._open(setup["seed"], epochs)
            if start and not self._study.get_trials(deepcopy=False):
                self._study.enqueue_trial(start)

    def _open(self, seed: int, epochs: int) -> optuna.Study:
        path = self.folder / "study.journal"
        # A lock that also works where links need privileges.
        lock = journal.JournalFileOpenLock(str(path))
        file = journal.JournalFileBackend(str(path), lock)
        try:
            return optuna.create_study(
                storage=journal.JournalStorage(file),
                study_name=NAME,
                sampler=SeededTPE(seed),
                # A trial ends where its best epoch so far is below the median of the
                # others at the same epoch. Not in the first third: a high learning
                # rate begins below a low one and overtakes it.
                pruner=optuna.pruners.MedianPruner(UNPRUNED, epochs // 3),
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:  # of JSON, or a log that is not one
            told = f"{error}; restore it, or begin anew in another folder"
            raise ValueError(f"{path} is damaged: {told}") from error

    def _lock_for(self, name: str) -> FileLock:
        return FileLock(self.folder / ".locks" / f"{name}.lock")

    def claim(self, total: int) -> optuna.Trial | None:
        """Return the next trial to train, None where there are `total` already.

        Those that were interrupted do not count.
        """
        with self._lock:
            self._bury()
            states = [t.state for t in self._study.get_trials(deepcopy=False)]
            counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            if sum(state in counted for state in states) >= total:
                return None
            trial = self._study.ask(self._distributions)
            self._held[trial.number] = self._lock_for(f"trial-{trial.number}")
            self._held[trial.number].acquire(timeout=0)
            return trial

    def values(self, params: dict) -> dict[str, Any]:
        """Return the values that a trial trains with, from those that were drawn."""
        own = self.start  # kept as it is: the recipe's own may have more digits
        return {
            key: value if own.get(key) == value else self.space[key].rounded(value)
            for key, value in params.items()
        }

    def tell(self, trial: optuna.Trial, end: str, why="", accuracy=None) -> None:
        """Record how a trial ended; one that is finished by its accuracy in percent."""
        with self._lock:
            trial.set_user_attr("end", end)
            trial.set_user_attr("why", why)
            self._study.tell(trial, accuracy, ENDS[end])
            self._held.pop(trial.number).release()
            self._clean()

    def close(self) -> None:
        """Let go of what this process still holds."""
        while self._held:
            self._held.popitem()[1].release()

    def _bury(self) -> None:
        """Record as failed the trials whose process is gone; holds the study's lock."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            try:
                with self._lock_for(f"trial-{trial.number}").acquire(timeout=0):
                    self._study.tell(trial.number, state=TrialState.FAIL)
            except Timeout:
                continue  # its process lives
        if running:
            self._clean()

    def _clean(self) -> None:
        """Remove what trials that are over left; holds the study's lock."""
        trials = self._study.get_trials(deepcopy=False)
        done = [t for t in trials if t.state == TrialState.COMPLETE]
        best = max(done, key=lambda trial: trial.value, default=None)
        for trial in trials:
            if trial.state.is_finished():
                lock = self.folder / ".locks" / f"trial-{trial.number}.lock"
                lock.unlink(missing_ok=True)
                run = self.run_folder(trial.number)
                if trial is not best and run.exists():
                    shutil.rmtree(run)

    def run_folder(self, number: int) -> Path:
        """Return where the run of a trial is kept, while it is."""
        return self.folder / f"trial-{number}"

    def trials(self) -> tuple[Trial, ...]:
        """Return every trial so far, those of other processes too."""
        with self._lock:
            self._bury()
            all_of_them = self._study.get_trials(deepcopy=False)
            begun = (t for t in all_of_them if t.state != TrialState.WAITING)
            return tuple(map(self._plain, begun))

    def _plain(self, trial: FrozenTrial) -> Trial:
        ends = {TrialState.RUNNING: "running", TrialState.FAIL: "failed"}
        end = trial.user_attrs.get("end", ends.get(trial.state, "failed"))
        counts = end in ("finished", "pruned") and trial.value is not None
        return Trial(
            number=trial.number,
            end=end,
            accuracy=trial.value if counts else None,
            epochs=len(trial.intermediate_values),
            seconds=trial.duration.total_seconds() if trial.duration else None,
            values=self.values(trial.params),
            why=trial.user_attrs.get("why", "it was killed" * (end != "running")),
        )

    def importances(self) -> dict[str, float]:
        """Return how much of the success each value decides, the largest first.

        How far the distribution of a value among the best finished trials, a tenth or
        five, differs from that among all (Watanabe et al., "PED-ANOVA", IJCAI 2023).
        The shares add up to 1; there are none where fewer than ten are finished.
        """
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < FEWEST:
            return {}
        best = max(0.1, 5 / len(done))
        evaluator = importance.PedAnovaImportanceEvaluator(target_quantile=best)
        return importance.get_param_importances(self._study, evaluator=evaluator)


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; choose another folder")
    locks = folder / ".locks"
    if folder.exists() and not locks.exists() and any(folder.iterdir()):
        told = "something other than a study of kerascnn tune; choose another folder"
        raise FileExistsError(f"{folder} holds {told}")
    locks.mkdir(parents=True, exist_ok=True)


def _agree(folder: Path, setup: dict) -> None:
    """Write the setup of a new study; compare with that of an old one."""
    path = folder / "study.json"
    setup = json.loads(json.dumps(setup))
    if not path.exists():
        write_json(path, setup)
    before = read_json(path)
    if "recipe" in before:  # without what recipes have learnt since: it is off
        known = json.loads(json.dumps(vars(Recipe())))
        late = {k: known[k] for k in setup.get("recipe", {}) if k in known}
        before["recipe"] = {**late, **before["recipe"]}
    for key in {**before, **setup}:
        old, new = before.get(key), setup.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            part = next(k for k in {**old, **new} if old.get(k) != new.get(k))
            key, old, new = f"{key}, {part}", old.get(part), new.get(part)
        raise ValueError(
            f"the study in {folder} is of something else: its {key} is {old}; received "
            f"{new}. Ask for the same again to continue it, or choose another folder"
        )


class _Known(importance.BaseImportanceEvaluator):
    """Importances that are known already, for Optuna's picture of them."""

    def __init__(self, shares: dict[str, float]):
        self.shares = shares

    def evaluate(self, study, params=None, *, target=None):
        """Return them, as Optuna asks for it."""
        return self.shares


def pictures(trials, importances: dict[str, float]):
    """Return Optuna's Figures of the history of a search and of its importances."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as optuna_pictures

    with warnings.catch_warnings(), _quiet(logging.ERROR):
        warnings.simplefilter("ignore")  # Optuna's pictures are experimental
        study = optuna.create_study(direction="maximize")
        for trial in trials:
            state = ENDS.get(trial.end, TrialState.FAIL)
            value = trial.accuracy if trial.end == "finished" else None
            study.add_trial(optuna.trial.create_trial(state=state, value=value))
        history = optuna_pictures.plot_optimization_history(
            study, target_name="validation accuracy (%)"
        )
        shares = optuna_pictures.plot_param_importances(
            study, evaluator=_Known(importances), target_name="validation accuracy"
        )
    figures = history.figure, shares.figure
    for figure in figures:
        pyplot.close(figure)  # which pyplot would keep
    return figures
