import pytest

import zoo
from kerascnn.training import Recipe, recipe_for


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
