"""What a network answered about an image, wherever it answered."""

import numpy as np
import pytest

from kerascnn.prediction import Prediction, ranked


def test_classes_are_ranked_and_keep_their_numbers():
    rows = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]], np.float32)
    first, second = ranked(rows, ["ant", "bee", "cow"], ["a.png", "b.png"])
    assert list(first.probabilities.items()) == [
        ("bee", 0.5),
        ("ant", 0.25),  # of equal ones the first
        ("cow", 0.25),
    ]
    assert (first.label, first.class_id, first.asked) == ("bee", 1, "a.png")
    assert (second.label, second.class_id) == ("cow", 2)
    assert first.labels == second.labels == ("ant", "bee", "cow")
    assert first == Prediction({"ant": 0.25, "bee": 0.5, "cow": 0.25}, "a.png")
    assert str(second) == "b.png: cow 75.0%, ant 12.5%, bee 12.5%"


def test_names_of_classes_differ():
    with pytest.raises(ValueError, match="3 classes; received 3 labels, 2 different"):
        ranked(np.array([[0.9, 0.04, 0.06]]), ["crane", "crane", "owl"])
