"""The lecture's ranking, reproduced: network after network by its card's recipe.

    python benchmarks/ranking.py --dry-run            # what is done, what is left
    python benchmarks/ranking.py --hours 3            # the most valuable that is left
    python benchmarks/ranking.py resnet20 --seeds 3
    python benchmarks/ranking.py --retest             # shipped weights of another copy

Trains on CIFAR-10 what is asked for, or all of `QUEUE` in its order, one seed after the
other, and lets `kerascnn record` write the card when all seeds of a network are there.
When the hours are over it stops at the end of an epoch; the same command goes on from
there. Hours that are left are those of epochs measured here, else of the table. Recipes
are settled, so all 50,000 images train; the lecture's own networks, whose recipes are
compared in the tutorials, hold 5,000 out.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from kerascnn.data import load_data
from kerascnn.data.cifar10 import COPIES
from kerascnn.tables import Column, Table
from kerascnn.training import load_run, recipe_for
from kerascnn.training.run import read_history


@dataclass(frozen=True)
class Wanted:
    """What the ranking wants of a network."""

    accuracy: float  # percent of the test images, at least
    epoch: float | None = None  # seconds on two cores in bfloat16, 45,000 images
    seeds: int = 1
    held_out: bool = False  # whether 5,000 images are held out of the training


QUEUE = {  # in the order of value
    "airbench94": Wanted(94.0, 110, 3),
    "resnet20": Wanted(91.2, 45),
    "lecture_cnn": Wanted(78.5, seeds=3, held_out=True),
    "dense_mlp": Wanted(60.5, seeds=3, held_out=True),
    "lenet5": Wanted(67.0, seeds=3, held_out=True),
    "cuda_convnet": Wanted(82.0),
    "all_cnn_c": Wanted(91.0, 110),
    "elu_cnn_11": Wanted(90.5, 110),
    "resnet32": Wanted(91.9),
    "nin": Wanted(90.0, 160),
    "vgg16_bn": Wanted(92.6, 180),
    "dngo_cnn": Wanted(91.0),
    "resnet56": Wanted(92.5, 140),
    "vgg19_bn": Wanted(92.4),
    "apl_nin": Wanted(91.0, 225),
    "tree_gated_nin": Wanted(91.5, 225),
    "recurrent_cnn_96": Wanted(90.5, 300),
    "deep_cnin_100": Wanted(90.0, 375),
    "maxout_nin": Wanted(91.0, 450),
    "fitnet4": Wanted(90.5, 450),
    "fit_resnet4": Wanted(91.0, 450),
    "fractional_max_pooling_32": Wanted(91.5, 560),
    "googlenet": Wanted(92.5, 900),
    "competitive_multiscale": Wanted(91.0, 1100),
}
PER_MAC = 7e-7  # seconds an epoch for each multiply-accumulate, as those above have it
ORIGINAL = {mark for mark, title in COPIES.items() if title == "CIFAR-10"}
COLUMNS = (
    Column("name", "network", right=False),
    Column("state", "state", right=False),
    Column("hours", "hours left", "{:.1f}".format),
    Column("measured", "test %", "{:.2f}".format),
    Column("wanted", "at least", "{:.1f}".format),
    Column("published", "published", "{:.2f}".format),
)


def folder_of(runs: Path, name: str, recipe: str, seed: int) -> Path:
    """Return where a training of the ranking is kept."""
    return runs / f"{name}-{recipe}-{seed}"


def result_of(name: str, recipe: str, marks=ORIGINAL) -> dict | None:
    """Return what the card has measured by a recipe on the original pixels."""
    for result in zoo.card(name).results:
        if result["recipe"] == recipe and result["fingerprint"] in marks:
            return result
    return None


def seeds_of(name: str, seeds: int | None = None) -> range:
    """Return the seeds of a network: so many, or as many as the ranking wants."""
    return range(seeds or (QUEUE[name].seeds if name in QUEUE else 1))


def row(name: str, recipe: str, runs: Path, seeds=None, marks=ORIGINAL) -> dict:
    """Say what of a network is done and what is left.

    Returns:
        A row of the table: name, state, hours left, test accuracy where the card has
        it, what is wanted and what was published.
    """
    card, wanted = zoo.card(name), QUEUE.get(name)
    result = result_of(name, recipe, marks)
    asked = seeds_of(name, seeds)
    measured = result is not None and set(asked) <= set(result["seeds"])
    epochs, left, trained, seconds = recipe_for(name, recipe).epochs, 0, 0, []
    for seed in () if measured else asked:
        folder = folder_of(runs, name, recipe, seed)
        history = folder / "history.csv"
        done = read_history(history) if history.exists() else []
        seconds += [epoch["seconds"] for epoch in done]
        if (folder / "metrics.json").exists():
            trained += 1
            continue
        left += epochs - len(done)
    epoch = (wanted and wanted.epoch) or PER_MAC * card.macs
    if seconds:
        epoch = sum(seconds) / len(seconds)
    total = epochs * len(asked)
    state = f"{total - left} of {total} epochs" if total > left else "to train"
    if not left:
        state = "to record" if trained else "done"
    best = card.best_published
    return {
        "name": name,
        "state": state,
        "hours": left * epoch / 3600,
        "measured": result["accuracy_mean"] if result else None,
        "wanted": wanted.accuracy if wanted else None,
        "published": best.accuracy if best else None,
    }


def table(names: Sequence[str], recipe: str, runs: Path, seeds=None) -> Table:
    """Return what is done and what is left, a row a network."""
    rows = [row(name, recipe, runs, seeds) for name in names]
    hours = sum(one["hours"] for one in rows)
    notes = [f"{hours:.0f} hours are left, as far as the epochs are known."]
    return Table(COLUMNS, rows, title="The ranking on CIFAR-10", notes=notes)


class OutOfTimeError(Exception):
    """The hours are over; what was trained is kept."""


def clock(end: float):
    """Return a callback that stops a training after the epoch in which time is up."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if time.monotonic() > end and epoch + 1 < self.params["epochs"]:
                raise OutOfTimeError

    return Clock()


def work(
    names: Sequence[str],
    recipe: str,
    runs: Path,
    load: Callable[[bool], Any],
    *,
    hours: float,
    seeds: int | None = None,
    zoo_folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train what is left, in order, until it is done or the hours are over.

    Args:
        names: of networks.
        recipe: name of the recipe on their cards.
        runs: where the run folders are; those that are there are continued.
        load: returns the `kerascnn.data.Data`, with images held out or without.
        hours: that it may take, to the end of an epoch.
        seeds: of each network; default as the ranking wants.
        zoo_folder: where the cards lie; default those of this installation.
        say: called with a line for each training and each result.

    Raises:
        OutOfTimeError: the hours are over.
    """
    from kerascnn.record import record
    from kerascnn.training import resume, train

    end = time.monotonic() + hours * 3600
    for name in names:
        data = load(name not in QUEUE or QUEUE[name].held_out)
        result = result_of(name, recipe, {data.fingerprint})
        wanted = seeds_of(name, seeds)
        if result and set(wanted) <= set(result["seeds"]):
            continue
        folders = [folder_of(runs, name, recipe, seed) for seed in wanted]
        for seed, folder in zip(wanted, folders, strict=True):
            if (folder / "metrics.json").exists():
                continue
            if time.monotonic() > end:
                raise OutOfTimeError
            say(f"{name}, recipe {recipe}, seed {seed}: {folder}")
            if folder.exists():
                run = resume(folder, data=data, callbacks=[clock(end)])
            else:
                calls = [clock(end)]
                run = train(
                    name, data, recipe, seed=seed, folder=folder, callbacks=calls
                )
            say(str(run))
        keep = name == "lecture_cnn"  # its filters are described in the tutorials
        record(folders, zoo_folder, recipe=recipe, keep_weights=keep)
        accuracies = [load_run(one).metrics["test_accuracy"] for one in folders]
        say(f"recorded {name}: {', '.join(f'{a:.2f} %' for a in accuracies)}")


def retest(test, fingerprint: str, zoo_folder: Path | None = None, say=print) -> None:
    """Measure weights that were trained on another copy on these test images.

    Their cards get the accuracy, and as `tested` the fingerprint of these images.
    """
    import keras
    import tomlkit

    from kerascnn.training import evaluate

    zoo_folder = zoo_folder or Path(zoo.__file__).parent
    for name in zoo.names():
        weights = zoo.card(name).weights or {}
        if not weights or weights.get("tested", weights["fingerprint"]) == fingerprint:
            continue
        keras.utils.set_random_seed(weights["seed"])  # for a network that draws
        accuracy = round(evaluate(zoo.load(name), test).accuracy, 3)
        say(f"{name}: {accuracy:.2f} %, {weights['accuracy']:.2f} on the other copy")
        path = zoo_folder / f"{zoo.card(name).family}.toml"
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        document[name]["weights"]["accuracy"] = accuracy
        document[name]["weights"]["tested"] = fingerprint
        path.write_text(tomlkit.dumps(document), encoding="utf-8")


def main() -> None:
    """Train, or say what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; default: all that count")
    parser.add_argument("--recipe", default="default", help="of the cards")
    parser.add_argument("--hours", type=float, default=3, help="that it may take")
    parser.add_argument("--seeds", type=int, help="of each network; default: 1 or 3")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "ranking")
    parser.add_argument("--dry-run", action="store_true", help="say what is left")
    parser.add_argument(
        "--retest", action="store_true", help="measure shipped weights on these images"
    )
    asked = parser.parse_args()
    names = asked.names or list(QUEUE)
    if asked.retest:
        data = load_data("cifar10")
        retest(data.test, data.fingerprint)
        return
    if not asked.dry_run:

        @functools.cache
        def load(held_out):
            return load_data("cifar10", validation=None if held_out else 0)

        try:
            work(
                names,
                asked.recipe,
                asked.runs,
                load,
                hours=asked.hours,
                seeds=asked.seeds,
            )
        except OutOfTimeError:
            print(f"{asked.hours:g} hours are over; the same command goes on")
        zoo.registry.cards.cache_clear()  # they were written meanwhile
    print(table(names, asked.recipe, asked.runs, asked.seeds))


if __name__ == "__main__":
    main()
