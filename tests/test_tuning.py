"""The search for a recipe: what it tries, shares, keeps, and never reads."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kerascnn
import zoo
from kerascnn.data import Images
from kerascnn.training import Recipe, TrainingDivergedError, resume
from kerascnn.training.recipe import builder_defaults, check_options
from kerascnn.tuning import Trial, Tuning, parse_space, search, space_from, tune
from kerascnn.tuning import space as spaces
from kerascnn.tuning.space import (
    Choices,
    Range,
    default_space,
    plain_space,
    starting_point,
)

pytest.importorskip("optuna")
pytest.importorskip("filelock")

from kerascnn.tuning.study import SharedStudy

RATES = {"learning_rate": [1e-4, 0.1, "log"]}
QUICK = {"epochs": 2, "batch_size": 24}


class Sealed(Images):
    """Test images that nobody may look at."""

    def __init__(self, number):
        object.__setattr__(self, "number", number)

    def __len__(self):
        return self.number

    @property
    def x(self):
        raise AssertionError("the test images were read")

    y = x


def small_data(test=None, images=60):
    data = kerascnn.load_data("shapes", images=images, image_size=16, validation=20)
    if test is None:
        return data
    return kerascnn.Data(
        **{key: value for key, value in vars(data).items() if key != "test"}, test=test
    )


@pytest.fixture(scope="module")
def data():
    return small_data(Sealed(12))


def folders(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("trial-"))


# The space


def test_a_space_is_read_and_written():
    space = space_from(
        {
            "learning_rate": [1e-3, 0.3, "log"],
            "crop": [0, 6],
            "warmup": {"low": 0, "high": 5, "int": True},
            "flip": {"choices": [False, True]},
            "optimizer": {"choices": ["adam", "sgd"]},
            "milestones": {"choices": [[10, 20], [15]]},
            "option:width": [1, 2],
            "option:hidden_dropout": [0.2, 0.7],
        }
    )
    assert space["learning_rate"] == Range(1e-3, 0.3, log=True)
    assert space["crop"] == Range(0, 6, whole=True)
    assert space["warmup"] == Range(0, 5, whole=True)
    assert space["milestones"] == Choices(("10,20", "15"))
    assert space["option:width"].whole and not space["option:hidden_dropout"].whole
    assert space_from(json.loads(json.dumps(plain_space(space)))) == space
    assert space["learning_rate"].rounded(0.29999999) == 0.3
    assert space["learning_rate"].rounded(0.012345678) == 0.01235
    assert Range(0.12344, 1).rounded(0.12344) == 0.12344  # not below the range
    parsed = parse_space(
        {
            "learning_rate": "1e-3:0.3:log",
            "crop": "0:6",
            "flip": "false/true",
            "milestones": "10,20/15",
            "batch_size": "32/64",
        }
    )
    assert space_from(parsed) == {
        **{key: space[key] for key in ("learning_rate", "crop", "flip", "milestones")},
        "batch_size": Choices((32, 64)),
    }


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "nothing to search"),
        ({"learning_rat": [1, 2]}, "did you mean 'learning_rate'"),
        ({"learning_rate": [0.1, 0.01]}, "low must be below high"),
        ({"learning_rate": [0, 0.1, "log"]}, "learning_rate: a logarithmic range"),
        ({"learning_rate": [0.1, 0.2, "lin"]}, "is searched in"),
        ({"learning_rate": {"low": 0.1}}, "is searched in"),
        ({"momentum": [0.5, 1.0]}, "momentum must be from 0 to 0.9999"),
        ({"crop": [0.5, 4]}, "whole numbers"),
        ({"crop": ["0", "4"]}, "the ends must be numbers"),
        ({"optimizer": [0, 1]}, "has no order"),
        ({"flip": [0, 1]}, "has no order"),
        ({"optimizer": {"choices": ["lion"]}}, "must be one of adam, adamw, muon, sgd"),
        ({"flip": {"choices": ["yes"]}}, "flip must be true or false"),
        ({"flip": {"choices": [True, True]}}, "each choice once"),
        ({"flip": {"choices": []}}, "choices must be a list"),
        ({"option:2": [0, 1]}, "option:NAME"),
    ],
)
def test_a_wrong_space_is_told(table, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        space_from(table)


@pytest.mark.parametrize("text", ["0.1", "a:b", "0.1:0.2:lin", "0.1:0.2:log:log", ""])
def test_a_wrong_range_of_the_command_line_is_told(text):
    with pytest.raises(ValueError, match="--space takes crop=low:high"):
        parse_space({"crop": text})


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(crop=2),
        Recipe(optimizer="sgd", crop=2),
        Recipe(optimizer="sgd", crop=2, l2=5e-4),
        Recipe(optimizer="adamw", crop=2, weight_decay=0.01),
    ],
    ids=["adam", "sgd", "sgd-l2", "adamw"],
)
def test_default_spaces_hold_their_recipe(recipe):
    space = space_from(default_space(recipe, (32, 32, 3)))
    assert ("momentum" in space) == (recipe.optimizer == "sgd")
    assert ("l2" in space) == (recipe.optimizer == "sgd")
    start = starting_point(space, recipe, {})
    assert set(start) == set(space) and start["crop"] == 2
    for place in (0, -1):  # every corner is a recipe
        recipe.replace(
            **{
                key: entry.values[place]
                if isinstance(entry, Choices)
                else (entry.low, entry.high)[place]
                for key, entry in space.items()
            }
        )
    assert "crop" not in default_space(recipe, (7, 40, 1))


@pytest.mark.parametrize(
    "name", [name for name in zoo.names() if zoo.card(name).search]
)
def test_the_cards_spaces_are_possible(name):
    card = zoo.card(name)
    space = space_from(card.search)
    names = [key.removeprefix("option:") for key in space if key.startswith("option:")]
    check_options(name, names)
    # The card's own recipe, and its builder's defaults, are the first trial.
    recipe = kerascnn.training.recipe_for(name)
    start = starting_point(space, recipe, builder_defaults(name))
    assert {f"option:{option}" for option in names} <= set(start)
    assert start["learning_rate"] == recipe.learning_rate


def test_a_variant_may_have_a_space_of_its_own():
    from zoo.registry import _card

    own = {
        "title": "t",
        "new": "n",
        "input_shape": [8, 8, 3],
        "classes": 2,
        "trainable": 1,
        "non_trainable": 0,
        "macs": 1,
        "depth": 1,
    }
    shared = {"search": {"momentum": [0.8, 0.9]}}
    assert _card("a", "f", shared, own).search == shared["search"]
    assert _card("a", "f", shared, {**own, "search": RATES}).search == RATES
    assert _card("a", "f", {}, own).search == {}


# The study, without trainings


def analytic(values):
    """A made-up accuracy: the learning rate decides, the momentum hardly."""
    distance = np.log10(values["learning_rate"]) + 2
    return 90 - 20 * distance**2 - abs(values["momentum"] - 0.9)


def shared_study(folder, seed=0, start=None, epochs=3):
    space = {"learning_rate": [1e-4, 1.0, "log"], "momentum": [0.8, 0.99]}
    setup = {"space": space, "seed": seed}
    return SharedStudy(folder, setup, start=start or {}, epochs=epochs)


@pytest.mark.parametrize("keys", [("statistics",), ("views", "passes"), ()])
def test_a_study_from_before_a_recipe_knew_a_key_is_continued(keys, tmp_path):
    setup = {"space": {"momentum": [0.8, 0.99]}, "seed": 0, "recipe": vars(Recipe())}
    SharedStudy(tmp_path / "s", setup, start={}, epochs=3).close()
    path = tmp_path / "s" / "study.json"
    before = json.loads(path.read_text())
    for key in keys:
        del before["recipe"][key]
    path.write_text(json.dumps(before))
    SharedStudy(tmp_path / "s", setup, start={}, epochs=3).close()
    other = {**setup, "recipe": vars(Recipe(statistics=100))}
    with pytest.raises(ValueError, match="its recipe, statistics is 0; received 100"):
        SharedStudy(tmp_path / "s", other, start={}, epochs=3)


def run_trials(study, total):
    while (trial := study.claim(total)) is not None:
        reached = analytic(study.values(trial.params))
        study.tell(trial, "finished", accuracy=reached)
    return study.trials()


def test_the_search_finds_what_decides(tmp_path):
    studies = [shared_study(tmp_path / f"study{seed}", seed) for seed in (0, 1)]
    runs = [run_trials(study, 40) for study in studies]
    assert all(len(trials) == 40 for trials in runs)
    assert max(t.accuracy for t in runs[0]) > 89
    # A random search would reach 90 - 20 * 4 / 3 = 63.3 on average.
    assert np.mean([t.accuracy for trials in runs for t in trials[20:]]) > 67
    shares = studies[0].importances()
    assert list(shares) == ["learning_rate", "momentum"]
    assert sum(shares.values()) == pytest.approx(1) and shares["learning_rate"] > 0.8
    few = shared_study(tmp_path / "few")
    run_trials(few, 9)
    assert few.importances() == {}


def test_a_study_that_was_broken_off_goes_on_as_if_it_had_not_been(tmp_path):
    start = {"learning_rate": 0.3, "momentum": 0.8}
    whole = run_trials(shared_study(tmp_path / "whole", 5, start), 16)
    assert whole[0].values == start
    run_trials(shared_study(tmp_path / "broken", 5, start), 12)
    broken = run_trials(shared_study(tmp_path / "broken", 5, start), 16)
    assert [t.values for t in broken] == [t.values for t in whole]
    other = run_trials(shared_study(tmp_path / "other", 6, start), 16)
    assert [t.values for t in other[1:]] != [t.values for t in whole[1:]]


def test_two_at_one_study_try_different_things_and_no_more_than_asked(tmp_path):
    one, two = (shared_study(tmp_path / "study", 3) for _ in range(2))
    first, second = one.claim(3), two.claim(3)
    assert (first.number, second.number) == (0, 1)
    assert first.params != second.params
    third = one.claim(3)
    assert two.claim(3) is None and one.claim(3) is None
    ends = [t.end for t in two.trials()]
    assert ends == ["running"] * 3
    for study, trial in ((one, first), (two, second), (one, third)):
        study.tell(trial, "finished", accuracy=50.0)
    assert [t.end for t in one.trials()] == ["finished"] * 3
    assert one.claim(3) is None


def test_trials_of_the_dead_are_failed_and_replaced(tmp_path):
    study = shared_study(tmp_path / "study")
    dead = shared_study(tmp_path / "study")
    number = dead.claim(2).number
    dead.run_folder(number).mkdir()
    dead.close()  # what the system does for a process that ends
    assert [t.end for t in study.trials()] == ["failed"]
    assert not dead.run_folder(number).exists()
    again = [study.claim(2).number for _ in range(2)]
    assert again == [1, 2] and study.claim(2) is None
    study.close()
    assert study.trials()[0].why == "it was killed"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="something other than a study"):
        shared_study(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        shared_study(tmp_path / "file")
    shared_study(tmp_path / "study", seed=1)
    with pytest.raises(ValueError, match=r"its seed is 1; received 2\. Ask for the"):
        shared_study(tmp_path / "study", seed=2)
    (tmp_path / "study" / "study.journal").write_text("torn\n{}\n")
    with pytest.raises(ValueError, match=r"study\.journal is damaged"):
        shared_study(tmp_path / "study", seed=1)


# The trainings


@pytest.fixture(scope="module")
def tuning(data, tmp_path_factory):
    """Three trials of the lecture's network, the last one by a second call."""
    folder = tmp_path_factory.mktemp("tuned") / "search"
    space = {**RATES, "flip": {"choices": [False, True]}}
    for trials in (2, 3):
        found = tune(
            "lecture_cnn",
            data,
            space=space,
            recipe="quick",
            trials=trials,
            folder=folder,
            options={"use_bias": True},
            progress=False,
            **QUICK,
        )
        assert len(found.trials) == trials
    return found


def test_trials_are_trainings_by_validation_accuracy(tuning):
    own = kerascnn.training.recipe_for("lecture_cnn", "quick")
    assert tuning.trials[0].values == {
        "learning_rate": own.learning_rate,
        "flip": own.flip,
    }
    assert [t.end for t in tuning.trials] == ["finished"] * 3
    assert [t.epochs for t in tuning.trials] == [2] * 3
    assert tuning.best_value == max(t.accuracy for t in tuning.trials)
    rates = [t.values["learning_rate"] for t in tuning.trials]
    assert len(set(rates)) == 3 and all(1e-4 <= rate <= 0.1 for rate in rates)
    assert tuning.importances == {}


def test_only_the_best_run_is_kept_and_only_the_test_is_left_to_do(tuning, data):
    best = tuning.best
    assert folders(tuning.folder) == [f"trial-{best.number}"]
    assert not (tuning.best_folder / "metrics.json").exists()
    assert not list((tuning.folder / ".locks").glob("trial-*"))
    config = json.loads((tuning.best_folder / "config.json").read_text())
    assert config["recipe"]["learning_rate"] == best.values["learning_rate"]
    assert config["recipe"]["epochs"] == 2 and config["data"]["test"] == 12
    # The test images are read when somebody asks for them, without more training.
    with pytest.raises(AssertionError, match="test images were read"):
        resume(tuning.best_folder, data=data, progress=False)
    run = resume(tuning.best_folder, data=small_data(), progress=False)
    assert run.metrics["validation_accuracy"] == pytest.approx(tuning.best_value)
    assert len(run.history) == 2 and run.metrics["test_images"] == 12


def test_the_best_recipe_trains_to_the_same_accuracy(tuning, tmp_path):
    """Also where it is written as words of the command."""
    run = kerascnn.train(
        tuning.name,
        small_data(),
        tuning.best_recipe,
        options=tuning.best_options,
        folder=tmp_path / "run",
        progress=False,
    )
    assert run.metrics["validation_accuracy"] == pytest.approx(tuning.best_value)
    values = dict(
        setting.removeprefix("--set ").split("=", 1)
        for setting in tuning.settings
        if setting.startswith("--set ")
    )
    assert set(values) == {"epochs", "batch_size", "learning_rate", "flip"}
    quick = kerascnn.training.recipe_for(tuning.name, "quick")
    assert vars(quick.replace(**values)) == tuning.best_recipe
    assert "--option use_bias=true" in tuning.settings
    assert tuning.command is None  # the command cannot make 60 images
    shown = str(tuning)
    assert f"trial {tuning.best.number}, validation accuracy" in shown
    assert all(setting in shown for setting in tuning.settings)
    assert f"kerascnn train --resume {tuning.best_folder}" in shown


def test_another_search_in_the_same_folder_is_refused(tuning, data):
    with pytest.raises(ValueError, match="its recipe, epochs is 2; received 3"):
        tune(
            "lecture_cnn",
            data,
            space={**RATES, "flip": {"choices": [False, True]}},
            recipe="quick",
            folder=tuning.folder,
            options={"use_bias": True},
            **{**QUICK, "epochs": 3},
        )


def test_wrong_use_is_told_before_anything_is_written(data, tmp_path):
    folder = tmp_path / "search"
    cases = [
        ({"trials": 0}, "trials must be 1 or more"),
        ({"space": RATES, "learning_rate": 0.1}, "received learning_rate twice"),
        ({"space": {"option:depth": [1, 2]}}, "has no option 'depth'; it has use_bias"),
        ({"options": {"depth": 3}}, "has no option 'depth'"),
        ({"recipe": "slow"}, "no recipe 'slow'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
    ]
    for arguments, said in cases:
        with pytest.raises(ValueError, match=re.escape(said)):
            tune("lecture_cnn", data, folder=folder, progress=False, **arguments)
    with pytest.raises(ValueError, match="did you mean lecture_cnn"):
        tune("lecture_cn", data, folder=folder)
    unheld = kerascnn.load_data("shapes", images=60, image_size=16, validation=0)
    with pytest.raises(ValueError, match="decides on validation images"):
        tune("lecture_cnn", unheld, folder=folder)
    assert not folder.exists()


def made_up(network, data, recipe, *, folder, callbacks, **named):
    """Stand in for a training: quick, and diverging where the rate is high."""
    folder.mkdir()
    (report,) = callbacks
    for epoch in range(recipe.epochs):
        if recipe.learning_rate > 0.05:
            raise TrainingDivergedError(f"the loss is nan in epoch {epoch + 1}")
        report.on_epoch_end(epoch, {"val_accuracy": 0.5 + recipe.learning_rate})
    report.on_train_end()


def test_diverged_and_impossible_trials_are_recorded_and_the_search_goes_on(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(search, "train", made_up)
    found = tune(
        "linear",
        data,
        space={
            "learning_rate": [0.001, 0.2],
            "optimizer": {"choices": ["sgd", "adamw"]},
        },
        recipe={"optimizer": "sgd", "learning_rate": 0.001},
        trials=16,
        folder=tmp_path / "search",
        **QUICK,
    )
    ends = [t.end for t in found.trials]
    assert len(ends) == 16 and set(ends) == {"finished", "diverged", "impossible"}
    for trial in found.trials:
        assert (trial.end == "impossible") == (trial.values["optimizer"] == "adamw")
        if trial.end == "impossible":
            assert "weight_decay" in trial.why and trial.accuracy is None
        else:
            rate = trial.values["learning_rate"]
            assert (trial.end == "diverged") == (rate > 0.05)
    assert found.best.accuracy == max(t.accuracy or 0 for t in found.trials)
    assert folders(found.folder) == [f"trial-{found.best.number}"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 17
    assert sum(" diverged " in line for line in lines) == ends.count("diverged")


def test_a_search_in_which_nothing_is_found(data, tmp_path):
    """The loss of a real training diverges."""
    found = tune(
        "linear",
        data,
        space={"learning_rate": {"choices": [1e38]}},
        recipe={"optimizer": "sgd", "schedule": "constant"},
        trials=1,
        folder=tmp_path / "search",
        precision="float32",
        progress=False,
        **QUICK,
    )
    assert found.trials[0].end == "diverged" and "the loss is" in found.trials[0].why
    assert folders(found.folder) == []
    assert "no trial is finished" in str(found) and found.to_dict()["best"] is None
    with pytest.raises(ValueError, match=r"no trial of .* is finished"):
        _ = found.best_value
    for path in found.plot(tmp_path / "empty"):
        assert Image.open(path).width > 300


def test_a_poor_trial_is_pruned(tmp_path):
    """Five good trials, then one that cannot learn."""
    study = shared_study(tmp_path / "study", epochs=3)
    for _ in range(5):
        trial = study.claim(6)
        for epoch, accuracy in enumerate((40.0, 60.0, 70.0)):
            trial.report(accuracy, epoch)
            assert not trial.should_prune()
        study.tell(trial, "finished", accuracy=70.0)
    trial = study.claim(6)
    trial.report(10.0, 0)
    assert not trial.should_prune()  # in the first third
    trial.report(10.0, 1)
    assert trial.should_prune()
    study.tell(trial, "pruned", "too low")
    pruned = study.trials()[-1]
    assert (pruned.end, pruned.accuracy, pruned.epochs) == ("pruned", 10.0, 2)


def test_a_trial_is_given_up_between_its_epochs(data, tmp_path, monkeypatch):
    class Never:
        """A trial whose study finds it poor after the second of three epochs."""

        number, params = 0, {"learning_rate": 0.01}
        reported: tuple = ()

        def report(self, value, step):
            self.reported = (*self.reported, step)

        def should_prune(self):
            return len(self.reported) == 2

    class Study:
        pruned = None

        def run_folder(self, number):
            return tmp_path / "trial"

        def tell(self, trial, end, why):
            self.pruned = (end, why)

    study, trial = Study(), Never()
    base = Recipe(**{**QUICK, "epochs": 3})
    search._attempt(study, trial, trial.params, "linear", data, base, {}, 0, None)
    assert trial.reported == (0, 1)
    assert study.pruned[0] == "pruned" and "after 2 epochs" in study.pruned[1]


def test_early_stopping_and_the_best_epoch(data, tmp_path):
    """A trial that stops early is not measured either; its best epoch counts."""
    found = tune(
        "linear",
        data,
        space={"learning_rate": [1e-12, 2e-12]},
        trials=1,
        epochs=9,
        early_stopping=1,
        keep="best",
        folder=tmp_path / "search",
        progress=False,
    )
    (trial,) = found.trials
    assert trial.end == "finished" and trial.epochs < 9
    run = resume(found.best_folder, data=small_data(), progress=False)
    assert run.metrics["validation_accuracy"] == pytest.approx(trial.accuracy)
    assert run.metrics["stopped_early"]


def test_an_interruption_keeps_what_was_finished(data, tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments, **named):
        calls.append(named["folder"].name)
        if len(calls) == 2:
            named["folder"].mkdir()
            raise KeyboardInterrupt
        return made_up(*arguments, **named)

    monkeypatch.setattr(search, "train", interrupted)
    space = {"learning_rate": [1e-4, 0.05, "log"]}
    arguments = {"space": space, "trials": 3, "folder": tmp_path / "s", **QUICK}
    with pytest.raises(KeyboardInterrupt):
        tune("linear", data, progress=False, **arguments)
    assert folders(tmp_path / "s") == ["trial-0"]
    found = tune("linear", data, progress=False, **arguments)
    assert calls == ["trial-0", "trial-1", "trial-2", "trial-3"]
    ends = ["finished", "failed", "finished", "finished"]
    assert [t.end for t in found.trials] == ends
    assert found.trials[1].why == "KeyboardInterrupt"
    later = tune("linear", data, timeout=0, **{**arguments, "trials": 9})
    assert later.trials == found.trials


def test_a_model_of_ones_own_is_copied_for_every_trial(data, tmp_path):
    keras.utils.set_random_seed(4)
    inputs = keras.Input((16, 16, 3))
    normalization = keras.layers.Normalization()  # which computes with constants
    normalization.adapt(data.train.x)
    x = normalization(inputs)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D(4)(x))
    outputs = keras.layers.Dense(10, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="mine")
    before = [np.array(w) for w in model.get_weights()]
    found = tune(
        model,
        data,
        space={"learning_rate": {"choices": [0.01]}},
        trials=1,
        folder=tmp_path / "search",
        progress=False,
        **QUICK,
    )
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert found.name == "mine" and found.command is None
    whole = small_data()
    run = resume(found.best_folder, data=whole, progress=False)
    again = kerascnn.evaluate(run.model, whole.validation).accuracy
    assert again == pytest.approx(found.best_value)
    with pytest.raises(ValueError, match="options are for the builder"):
        tune(model, data, space=RATES, options={"width": 2}, folder=tmp_path / "o")


def trials_like(number=24):
    rng = np.random.default_rng(0)
    for i in range(number):
        rate = round(float(10 ** rng.uniform(-3, -0.5)), 5)
        accuracy = 88 - 14 * (np.log10(rate) + 1.6) ** 2 + rng.normal(0, 0.8)
        end = "pruned" if accuracy < 80 and i > 5 else "finished"
        if rate > 0.25:
            yield Trial(i, "diverged", None, 1, 9.0, {"learning_rate": rate}, "nan")
        else:
            epochs = 4 if end == "pruned" else 15
            yield Trial(i, end, accuracy, epochs, 20.0, {"learning_rate": rate})


def test_pictures(tmp_path):
    shares = {"learning_rate": 0.62, "option:hidden_dropout": 0.2, "l2": 0.13}
    tuning = Tuning(
        tmp_path,
        "dngo_cnn",
        "CIFAR-10",
        tuple(trials_like()),
        {**shares, "crop": 0.05},
        Recipe(),
        {},
        Recipe(),
    )
    history, importances = tuning.plot()
    assert (history, importances) == (
        tmp_path / "history.png",
        tmp_path / "importances.png",
    )
    for path in (history, importances):
        assert Image.open(path).width > 800


# The command, and a second process


def test_the_command(command, tmp_path):
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 210)):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(level, 20, (12, 12, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "mine" / label / f"{i}.png"
            )
    words = ("tune", "linear", "--data", "mine", "--image-size", 12, "--epochs", 1)
    words += ("--space", "learning_rate=1e-3:0.1:log", "--space", "flip=false/true")
    words += ("--set", "batch_size=8", "--folder", "found", "--trials", 2)
    code, out, err = command(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["trials"]) == 2 and found["best"]["recipe"]["batch_size"] == 8
    assert {"history.png", "importances.png"} <= {
        p.name for p in (tmp_path / "found").iterdir()
    }
    code, out, err = command(*words)  # nothing is left to do
    assert code == 0 and "picture: found/history.png" in out, err
    line = next(x for x in out.splitlines() if x.startswith("train it anew: "))
    assert line.endswith(found["best"]["command"])
    assert f"--data {tmp_path / 'mine'} --image-size 12 --seed 0" in line
    code, out, _ = command("train", "--resume", found["best"]["run"])
    reached = f"validation accuracy {found['best']['validation_accuracy']:.2f} %"
    assert code == 0 and "test accuracy" in out and reached in out


def test_the_command_tells_wrong_use(command, monkeypatch):
    for words, said in (
        (["--space", "crop"], "--space takes key=value"),
        (["--space", "crop=1"], "--space takes crop=low:high"),
        (["--space", "crops=0:4"], "did you mean 'crop'"),
        (["--trials", "0"], "1"),
    ):
        code, _, err = command("tune", "lecture_cnn", *words)
        assert code == 2 and said in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = command("tune", "lecture_cnn")
    assert code == 1
    assert err == 'error: tuning needs optuna: pip install "kerascnn[tune]"\n'


SECOND = """
import importlib.util, sys, time
from pathlib import Path
from kerascnn.tuning import search

spec = importlib.util.spec_from_file_location("test_tuning", {file!r})
test_tuning = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_tuning)

def held(*arguments, **named):
    while not Path(str(named["folder"]) + ".go").exists():
        Path(str(named["folder"]) + ".held").touch()
        time.sleep(0.05)
    return test_tuning.made_up(*arguments, **named)

search.train = held
search.tune("linear", test_tuning.small_data(), space=test_tuning.RATES, trials=4,
            folder=sys.argv[1], progress=False, **test_tuning.QUICK)
"""


def wait_for(path, process):
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise TimeoutError(path)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_two_processes_work_at_one_search_and_one_is_killed(
    data, tmp_path, monkeypatch
):
    folder = tmp_path / "search"
    script = SECOND.format(file=os.path.abspath(__file__))
    second = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    monkeypatch.setattr(search, "train", made_up)
    arguments = {"space": RATES, "folder": folder, "progress": False, **QUICK}
    try:
        wait_for(folder / "trial-0.held", second)
        # The other process holds trial 0; this one does what is left.
        found = tune("linear", data, trials=3, **arguments)
        running = [t.end == "running" for t in found.trials]
        assert running == [True, False, False]
        (folder / "trial-0.go").touch()
        wait_for(folder / "trial-3.held", second)
        second.send_signal(signal.SIGKILL)
        second.wait()
    finally:
        second.kill()
        second.communicate()
    found = tune("linear", data, trials=4, **arguments)
    over = {"finished", "diverged"}
    assert [t.end in over for t in found.trials] == [True, True, True, False, True]
    assert found.trials[3].end == "failed" and found.trials[3].why == "it was killed"
    assert len({t.values["learning_rate"] for t in found.trials}) == 5
    kept = [name for name in folders(folder) if "." not in name]
    assert kept == [f"trial-{found.best.number}"]


def test_settings_are_words_of_the_command():
    """Of several values, and of none."""
    options = {"hidden": {"choices": [[512, 256], [256]]}}
    space = spaces.space_from({f"option:{k}": v for k, v in options.items()})
    assert spaces.starting_point(space, Recipe(), {"hidden": [256]}) == {
        "option:hidden": "[256]"
    }
    recipe, options = spaces.split({"option:hidden": "[512,256]", "crop": 2})
    assert (recipe, options) == ({"crop": 2}, {"hidden": [512, 256]})
    card = Recipe(milestones=(1, 2), rates=(0.1,))
    trial = Trial(0, "finished", 50.0, 1, 1.0, {"option:hidden": "[512,256]"})
    made = Tuning(Path(), "n", "d", (trial,), {}, Recipe(), {"use_bias": None}, card)
    assert "--option hidden=[512,256]" in made.settings
    assert "--option use_bias=null" in made.settings
    assert {"--set milestones=", "--set rates="} <= set(made.settings)
    lines = [s.removeprefix("--set ") for s in made.settings if s.startswith("--set ")]
    assert card.replace(**dict(line.split("=") for line in lines)) == Recipe()
