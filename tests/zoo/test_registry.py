"""The register of the zoo and its cards."""

import importlib
import inspect
import subprocess
import sys

import pytest

import zoo
from zoo import registry


@pytest.fixture
def more_cards(tmp_path, monkeypatch):
    """Read the cards from a folder of the test's own, then the real ones again."""
    registry.cards.cache_clear()
    monkeypatch.setattr(registry.importlib.resources, "files", lambda _: tmp_path)
    yield tmp_path
    registry.cards.cache_clear()


CARD = """
[{name}]
title = "A net"
new = "Nothing."
input_shape = [32, 32, 3]
classes = 10
trainable = 1
non_trainable = 2
macs = 3
depth = 1
"""


def test_every_card_has_a_builder_and_every_builder_a_card():
    for name in registry.cards():
        assert zoo.builder(name).__name__ == name
    ours = {name for name, f in registry._builders.items() if f.__module__[:3] == "zoo"}
    assert ours == set(registry.cards())


def test_a_name_is_registered_once():
    def lecture_cnn():
        """Take the name of another network."""

    zoo.builder("lecture_cnn")
    with pytest.raises(ValueError, match="'lecture_cnn' is registered already, in zoo"):
        zoo.register(lecture_cnn)
    assert zoo.builder("lecture_cnn") is not lecture_cnn


def test_registering_a_function_again_is_no_duplicate():
    builder = zoo.builder("lecture_cnn")
    assert zoo.register(builder) is builder


def test_a_network_of_ones_own_joins_the_zoo(monkeypatch):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))

    @zoo.register
    def my_own_net(input_shape=(32, 32, 3), classes=10):
        """Stand for a network."""
        return (input_shape, classes)

    assert zoo.names("my_*") == ["my_own_net"]
    assert zoo.build("my_own_net", classes=3) == ((32, 32, 3), 3)


@pytest.mark.parametrize(
    ("asked", "meant"), [("vgg_19", "vgg19"), ("GoogleNet", "googlenet")]
)
def test_an_unknown_name_lists_close_matches(asked, meant):
    for ask in (zoo.card, zoo.builder, zoo.build, zoo.load):
        with pytest.raises(zoo.UnknownNetworkError, match=f"{asked}.* mean .*{meant}"):
            ask(asked)


def test_a_name_unlike_any_lists_all():
    with pytest.raises(ValueError, match=r"'q': it has airbench94, .*lecture_cnn"):
        zoo.card("q")


def test_names_follow_a_pattern():
    assert zoo.names("vgg1?") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert zoo.names("nothing*") == []
    assert {"lecture_cnn", "googlenet"} <= set(zoo.names())


def test_names_are_in_natural_order(more_cards):
    for name in ("net110", "net20", "a"):
        (more_cards / f"{name}.toml").write_text(CARD.format(name=name))
    assert list(registry.cards()) == ["a", "net20", "net110"]


def test_a_key_that_no_card_has_is_named(more_cards):
    (more_cards / "nets.toml").write_text(CARD.format(name="net") + "parametres = 1\n")
    with pytest.raises(ValueError, match=r"zoo/nets.toml, \[net\].*'parametres'.*macs"):
        registry.cards()


def test_a_key_that_is_missing_is_named(more_cards):
    (more_cards / "nets.toml").write_text('[net]\ntitle = "A net"\nnew = "Nothing."\n')
    with pytest.raises(ValueError, match=r"\[net\]: the card has no classes, depth"):
        registry.cards()


def test_two_cards_of_one_name_are_named(more_cards):
    for family in ("one", "two"):
        (more_cards / f"{family}.toml").write_text(CARD.format(name="net"))
    with pytest.raises(ValueError, match="two cards are named 'net': in zoo/"):
        registry.cards()


def test_variants_share_what_their_family_has(more_cards):
    (more_cards / "nets.toml").write_text(
        '[family]\nnotes = ["shared"]\n[family.recipes.default]\nepochs = 3\n'
        + CARD.format(name="small")
        + "[small.recipes.long]\nepochs = 300\n"
        + CARD.format(name="large")
        + 'notes = ["own"]\n[large.recipes.default]\nepochs = 7\n'
    )
    small, large = zoo.card("small"), zoo.card("large")
    assert small.notes == ("shared",)
    assert large.notes == ("own",)
    assert small.recipes == {"default": {"epochs": 3}, "long": {"epochs": 300}}
    assert large.recipes == {"default": {"epochs": 7}}
    assert small.parameters == 3


def test_a_card_reads_as_its_file_says():
    card = zoo.card("vgg16_bn")
    assert card.family == "vgg"
    assert card.paper.arxiv == "1409.1556"
    assert card.input_shape == (32, 32, 3)
    assert card.published[0].accuracy == 92.64
    assert card.parameters == 14_728_266 + 8_448


@pytest.mark.parametrize(
    ("results", "shown"),
    [
        ([("quick", 3, 71), ("short", 14, 76), ("default", 10, 74)], "default"),
        ([("quick", 1, 43), ("short", 2, 40)], "short"),  # the longest, not the best
        ([("quick", 1, 43)], "quick"),
        ([], None),
    ],
)
def test_the_figure_shown_is_of_the_default_recipe_or_the_longest(results, shown):
    results = [
        {"data": "cifar10", "recipe": recipe, "epochs": epochs, "accuracy_mean": mean}
        for recipe, epochs, mean in results
    ]
    card = registry.Card(**{**vars(zoo.card("linear")), "results": results})
    assert (card.measured() or {}).get("recipe") == shown
    assert card.measured("digits") is None


def test_of_one_recipe_on_two_machines_the_figure_of_more_seeds_is_shown():
    same = {"data": "cifar10", "recipe": "default", "epochs": 9}
    results = [{**same, "seeds": [0]}, {**same, "seeds": [0, 1, 2]}]
    card = registry.Card(**{**vars(zoo.card("linear")), "results": results})
    assert card.measured()["seeds"] == [0, 1, 2]


def test_reading_cards_imports_neither_keras_nor_tensorflow():
    script = (
        "import sys, zoo; zoo.names(); zoo.card('vgg19').macs; zoo.names('vgg*');"
        "print([m for m in ('keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_builder_is_a_name_of_the_package_however_often_it_is_asked_for():
    import kerascnn

    for name in ("googlenet", "lecture_cnn", "vgg19"):
        importlib.import_module(f"zoo.{zoo.card(name).family}")
        for _ in range(2):
            assert inspect.isfunction(getattr(kerascnn, name)), name


@pytest.mark.parametrize("name", ["vgg16", "lecture_cnn", "all_cnn_large"])
def test_the_name_of_a_card_is_its_familys(name, monkeypatch):
    """Whether its family is imported yet or not."""
    monkeypatch.setattr(registry, "_builders", {})

    def mine(input_shape=(32, 32, 3), classes=10):
        return None

    mine.__name__ = name
    with pytest.raises(ValueError, match=f"'{name}' is registered already, in zoo"):
        zoo.register(mine)
    assert registry._builders == {}
    mine.__name__ = f"my_{name}"
    assert zoo.register(mine) is zoo.builder(f"my_{name}")


def test_after_a_name_was_refused_the_family_is_built():
    script = """
import zoo
def vgg16(): pass
try: zoo.register(vgg16)
except ValueError: pass
print(zoo.builder("vgg16").__module__, zoo.builder("vgg11_bn").__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["zoo.vgg", "zoo.vgg"]
