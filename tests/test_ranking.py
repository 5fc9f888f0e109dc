"""The ranking of the zoo, as the lecture's slide has it."""

import pytest

import zoo
from kerascnn.ranking import board, ranking
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


def test_the_board_has_every_result_beside_what_was_published():
    rows = board().rows
    results = [
        (name, result)
        for name in zoo.names()
        for result in zoo.card(name).results
        if result["data"] == "cifar10"
    ]
    assert len(rows) == len(results) > 5
    means = [sum(row["accuracies"]) / len(row["accuracies"]) for row in rows]
    assert means == sorted(means, reverse=True)
    row = next(row for row in rows if row["name"] == "cuda_convnet")
    (accuracy,) = row["accuracies"]
    assert row["gap"] == pytest.approx(accuracy - 82)  # 18 % error, its author says
    (row,) = board("linear").rows  # nobody published an accuracy of it
    assert row["published"] is None and row["gap"] is None


def test_a_board_without_results_says_so():
    assert board("*", data="shapes").rows == []
    assert "nothing was measured" in str(board("*", data="shapes"))
