"""The ranking's queue: what is done, what is left, and how it goes on."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest

import kerascnn
import zoo
from zoo import registry

pytest.importorskip("tomlkit")

ORIGINAL = "d25b76e8df09d990"


@pytest.fixture
def ranking(monkeypatch):
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    import ranking

    yield ranking
    sys.modules.pop("ranking")


@pytest.fixture
def measured(monkeypatch):
    """Give the card of a network results; returns the function that does."""

    def give(name, *results):
        card = registry.Card(**{**vars(zoo.card(name)), "results": results})
        cards = {**registry.cards(), name: card}
        monkeypatch.setattr(registry, "cards", lambda: cards)

    return give


def result(fingerprint=ORIGINAL, recipe="default", seeds=(0,)):
    common = {"data": "cifar10", "accuracy_mean": 91.5}
    return {**common, "fingerprint": fingerprint, "recipe": recipe, "seeds": [*seeds]}


@pytest.mark.parametrize(
    ("results", "seeds", "state", "share"),
    [
        ([], 1, "to train", 1),
        ([result()], 1, "done", 0),
        ([result(fingerprint="74f060f0e6b2ecc1")], 1, "to train", 1),  # through JPEG
        ([result(recipe="quick")], 1, "to train", 1),
        ([result()], 2, "to train", 2),  # a result is of one set of runs
        ([result(seeds=(0, 1))], 2, "done", 0),
    ],
)
def test_a_row_says_what_is_left(
    results, seeds, state, share, ranking, measured, tmp_path
):
    measured("all_cnn_c", *results)
    row = ranking.row("all_cnn_c", "default", tmp_path, seeds)
    assert row["state"] == state
    assert row["hours"] == pytest.approx(share * 14 * 110 / 3600)
    assert (row["wanted"], row["published"]) == (91.0, 92.75)
    own = result() in results or state == "done"
    assert row["measured"] == (91.5 if own else None)


def test_epochs_that_were_trained_here_tell_the_hours(ranking, measured, tmp_path):
    measured("all_cnn_c")
    folder = ranking.folder_of(tmp_path, "all_cnn_c", "default", 0)
    folder.mkdir()
    lines = ["epoch,loss,seconds", *(f"{n},1.0,{36 * n}" for n in (1, 2, 3))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    row = ranking.row("all_cnn_c", "default", tmp_path)
    assert row["state"] == "3 of 14 epochs"
    assert row["hours"] == pytest.approx(11 * 72 / 3600)
    (folder / "metrics.json").write_text("{}")
    row = ranking.row("all_cnn_c", "default", tmp_path)
    assert (row["state"], row["hours"]) == ("to record", 0)


def test_the_table_is_of_all_that_the_ranking_wants(ranking, tmp_path):
    table = ranking.table(list(ranking.QUEUE), "default", tmp_path)
    assert [row["name"] for row in table.rows] == list(ranking.QUEUE)
    assert len(table.rows) == 24 and set(ranking.QUEUE) <= set(zoo.names())
    text = table.to_text(width=100)
    assert "hours left" in text and "airbench94" in text and "94.01" in text
    hours = sum(row["hours"] for row in table.rows)
    assert f"{hours:.0f} hours are left" in text


def test_it_stops_when_the_hours_are_over_and_goes_on(ranking, measured, tmp_path):
    """With two trainings of a seed each, that of one ends after its first epoch."""
    cards = tmp_path / "cards"
    cards.mkdir()
    for card in Path(zoo.__file__).parent.glob("*.toml"):
        shutil.copy(card, cards)
    measured("linear")
    data = kerascnn.load_data("shapes", images=60)
    said = []
    options = {"zoo_folder": cards, "seeds": 2, "say": said.append}
    asked = (["linear"], "quick", tmp_path / "runs", lambda held_out: data)
    with pytest.raises(ranking.OutOfTimeError):
        ranking.work(*asked, hours=0.001 / 3600, **options)
    assert len(said) == 1 and "linear, recipe quick, seed 0" in said[0]
    row = ranking.row("linear", "quick", tmp_path / "runs", 2)
    epochs = kerascnn.training.recipe_for("linear", "quick").epochs
    assert row["state"] == f"1 of {2 * epochs} epochs"
    ranking.work(*asked, hours=1, **options)
    assert said[-1].startswith("recorded linear: ")
    (written,) = [
        result
        for result in tomllib.loads((cards / "dense_mlp.toml").read_text())["linear"][
            "results"
        ]
        if result["data"] == "shapes" and result["recipe"] == "quick"
    ]
    assert written["seeds"] == [0, 1]
    # What is recorded is not trained again.
    measured("linear", written)
    before = len(said)
    ranking.work(*asked, hours=1, **options)
    assert len(said) == before


def test_weights_of_another_copy_are_tested_on_these_images(
    ranking, tmp_path, monkeypatch
):
    card = zoo.card("linear")
    monkeypatch.setattr(zoo, "names", lambda pattern="*": ("linear",))
    shutil.copy(Path(zoo.__file__).parent / f"{card.family}.toml", tmp_path)
    data = kerascnn.load_data("shapes", images=60)
    said = []
    ranking.retest(data.test, "0" * 16, tmp_path, said.append)
    (line,) = said
    text = (tmp_path / f"{card.family}.toml").read_text()
    weights = tomllib.loads(text)["linear"]["weights"]
    assert weights["tested"] == "0" * 16
    assert weights["fingerprint"] == card.weights["fingerprint"]
    right = (
        zoo.load("linear").predict(data.test.x, verbose=0).argmax(1)
    ) == data.test.y
    assert weights["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-3)
    assert f"linear: {weights['accuracy']:.2f} %" in line
