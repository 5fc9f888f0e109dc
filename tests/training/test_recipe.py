import json

import keras
import numpy as np
import pytest

import zoo
from kerascnn.training import Recipe, load_run, recipe_for, resume, train
from zoo import registry


def test_strings_of_the_command_line_become_values():
    recipe = Recipe().replace(
        epochs="5",
        learning_rate="1e-3",
        flip="true",
        milestones="60,80",
        optimizer="sgd",
    )
    assert recipe.epochs == 5
    assert recipe.learning_rate == 0.001
    assert recipe.flip is True
    assert recipe.milestones == (60.0, 80.0)


def test_unknown_key_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'epoch', did you mean 'epochs'.*batch_size"):
        Recipe().replace(epoch=5)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epochs", "2.5", "whole number"),
        ("epochs", 0, "at least 1"),
        ("flip", "perhaps", "true or false"),
        ("flip", 1, "true or false"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", 0, "at least"),
        ("learning_rate", float("nan"), "at least"),
        ("momentum", 1.5, "from 0 to"),
        ("optimizer", "magic", "adam, adamw, muon, sgd"),
        ("schedule", "steps", "milestones"),
        ("precision", "float8", "mixed_bfloat16"),
        ("milestones", "a,b", "numbers with commas"),
        ("lookahead", -1, "at least 0"),
        ("bias_rate", 0, "at least"),
        ("alternate_flip", "perhaps", "true or false"),
        ("views", 3, "1, 2, 6; received 3"),
        ("passes", 0, "at least 1"),
        ("schedule", "points", "points needs milestones"),
    ],
)
def test_wrong_value_is_named(key, value, said):
    with pytest.raises(ValueError, match=said):
        Recipe().replace(**{key: value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"schedule": "points", "milestones": (0, 2), "rates": (1,)},
            "as many rates as milestones; received 1 rates and 2 milestones",
        ),
        ({"schedule": "points", "milestones": (0, 2)}, "received 0 rates and 2"),
        (
            {"schedule": "steps", "milestones": (1, 2), "rates": (1, 1, 1)},
            "schedule=steps needs as many rates",
        ),
        ({"schedule": "steps", "milestones": (2, 1)}, "each later than the one before"),
        ({"schedule": "steps", "milestones": (2, 2)}, "each later than the one before"),
        (
            {"schedule": "points", "milestones": (-1, 2), "rates": (1, 1)},
            "epochs from 0 on",
        ),
        (
            {"schedule": "points", "milestones": (0, 2), "rates": (1, -1)},
            r"0 or more; received \(1.0, -1.0\)",
        ),
        (
            {"schedule": "points", "milestones": (1,), "rates": (1,), "warmup": 2},
            "set warmup to 0; received warmup=2",
        ),
        ({"schedule": "exponential", "decay": 0}, "a decay above 0"),
        ({"flip": True, "alternate_flip": True}, "flip and alternate_flip"),
        ({"ema": 0.9, "lookahead": 5}, "received ema=0.9 and lookahead=5"),
    ],
)
def test_values_that_do_not_go_together_are_named(values, said):
    with pytest.raises(ValueError, match=said):
        Recipe().replace(**values)


def test_a_card_has_its_recipes_and_others_are_refused():
    assert (
        recipe_for("lecture_cnn", "quick").epochs
        == (zoo.card("lecture_cnn").recipes["quick"]["epochs"])
    )
    with pytest.raises(ValueError, match="no recipe 'slow'; it has default"):
        recipe_for("lecture_cnn", "slow")


def test_a_model_without_a_card_has_the_default():
    assert recipe_for("my_model") == Recipe()
    with pytest.raises(ValueError, match="no recipe 'quick'"):
        recipe_for("my_model", "quick")


# --- Options of the builder ---

SHORT = {"epochs": 1, "options": {"use_bias": True}}


@pytest.fixture
def short(monkeypatch):
    """Give the card of lecture_cnn a recipe that builds it with biases."""
    card = zoo.card("lecture_cnn")
    recipes = {**card.recipes, "short": SHORT}
    card = registry.Card(**{**vars(card), "recipes": recipes})
    cards = {**registry.cards(), "lecture_cnn": card}
    monkeypatch.setattr(registry, "cards", lambda: cards)


@pytest.mark.parametrize(
    ("asked", "built"),
    [
        ({}, {"use_bias": True}),
        ({"options": {"use_bias": False}}, {"use_bias": False}),
        ({"recipe": {"epochs": 1}}, {}),
        ({"recipe": {"epochs": 1}, "options": {"use_bias": True}}, {"use_bias": True}),
    ],
)
def test_a_recipe_builds_its_network(asked, built, short, data, tmp_path):
    """What is asked for goes before the recipe's; what was built is told."""
    asked = {"recipe": "short", **asked}
    run = train("lecture_cnn", data, folder=tmp_path / "run", progress=False, **asked)
    again = load_run(run.folder)
    assert again.config["recipe"]["options"] == built
    assert again.model.get_layer("conv1").use_bias is built.get("use_bias", False)
    assert ("built with use_bias=" in str(again)) is bool(built)


def test_what_was_built_is_continued(short, data, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    recipe = recipe_for("lecture_cnn", "short").replace(epochs=2)
    folder = tmp_path / "run"
    options = {"folder": folder, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        train("lecture_cnn", data, recipe, callbacks=[Stop()], **options)
    run = resume(folder, data=data, progress=False)
    assert run.config["recipe"]["options"] == {"use_bias": True}
    assert run.model.get_layer("conv1").use_bias
    assert np.isfinite(run.metrics["test_loss"])
    whole = train("lecture_cnn", data, recipe, folder=tmp_path / "2", progress=False)
    assert run.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"])


def test_a_model_that_is_given_cannot_be_built_by_a_recipe(short, data):
    model = zoo.build("lecture_cnn", data.input_shape, data.classes)
    with pytest.raises(ValueError, match=r"builds lecture_cnn with {'use_bias': True}"):
        train(model, data, "short", progress=False)


def test_an_option_that_the_builder_has_not_is_told_at_once():
    recipe = {"options": {"use_bais": True}}
    with pytest.raises(ValueError, match="no option 'use_bais', did you mean 'use_b"):
        train("lecture_cnn", "nowhere", recipe, progress=False)


@pytest.mark.parametrize("options", [{"hidden": (8, 4)}, {"dropout": 0.1}, {}])
def test_options_are_as_a_run_folder_holds_them(options):
    recipe = Recipe().replace(options=options)
    assert json.loads(json.dumps(vars(recipe)))["options"] == recipe.options
    assert recipe_for(None, json.loads(json.dumps(vars(recipe)))) == recipe
    assert hash(recipe) == hash(Recipe())


@pytest.mark.parametrize("value", ["dropout=0.1", 0.1, ["dropout"]])
def test_options_that_are_no_table_are_refused(value):
    with pytest.raises(ValueError, match="options must be a table of the builder's"):
        Recipe().replace(options=value)


@pytest.mark.parametrize("name", zoo.names())
def test_a_card_asks_for_options_that_its_builder_has(name):
    import inspect

    for recipe in zoo.card(name).recipes.values():
        if options := recipe.get("options"):
            assert set(options) <= set(inspect.signature(zoo.builder(name)).parameters)
