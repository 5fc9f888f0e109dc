"""The ranking of the zoo, as the lecture's slide has it."""

import pytest

import zoo
from kerascnn.ranking import ranking
from zoo.references import HUMAN


def test_the_best_published_accuracy_comes_first_and_no_network_is_lost():
    cards = ranking().cards
    assert sorted(card.name for card in cards) == sorted(zoo.names())
    best = [max((p.accuracy for p in card.published), default=0) for card in cards]
    assert best == sorted(best, reverse=True)
    assert cards[0].name == "fractional_max_pooling"  # the head of the lecture's slide


def test_the_human_stands_among_the_networks():
    rows = ranking().table().rows
    (place,) = [i for i, row in enumerate(rows) if row["name"] == "(human)"]
    before, after = rows[place - 1]["name"], rows[place + 1]["name"]
    assert zoo.card(before).best_published.accuracy > HUMAN.accuracy
    assert zoo.card(after).best_published.accuracy <= HUMAN.accuracy
    assert "400 test images" in rows[place]["conditions"]


def test_networks_without_a_published_accuracy_are_held_against_nobody():
    names = [row["name"] for row in ranking("l*e*_*nn").table().rows]
    assert names == ["lecture_cnn"]


def test_a_row_says_how_a_figure_came_about():
    (row,) = ranking("lecture_cnn").table().rows
    result = zoo.card("lecture_cnn").measured()
    assert row["measured"].startswith(f"{result['accuracy_mean']:.2f}")
    assert row["weights"] == "ship"
    rows = {row["name"]: row for row in ranking("resnet*").table().rows}
    assert "flip and shift" in rows["resnet110"]["conditions"]
    assert f"({zoo.card('resnet110').best_published.confidence})" in (
        rows["resnet110"]["published"] + "(published)"
    )
    assert rows["resnet110"]["year"] == zoo.card("resnet110").paper.year
    assert rows["resnet110"]["macs"] > 250e6


def test_no_name_matches():
    with pytest.raises(zoo.UnknownNetworkError, match=r"did you mean .*resnet20"):
        ranking("resnet21")


def test_the_picture_of_the_ranking(tmp_path):
    assert ranking("*cnn*").plot(tmp_path / "ranking.png").stat().st_size > 10_000
