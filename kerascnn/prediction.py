"""What a network answered about an image."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        probabilities: of every class, by label, the most probable first.
        asked: the image: its file, or its number among several.
    """

    probabilities: dict[str, float]
    asked: Any = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    def top(self, number: int = 3) -> str:
        """Return the most probable classes in words: "cat 98.1%, dog 1.7%"."""
        best = list(self.probabilities.items())[:number]
        return ", ".join(f"{label} {value:.1%}" for label, value in best)

    def __str__(self) -> str:
        return self.top() if self.asked is None else f"{self.asked}: {self.top()}"

    def to_dict(self) -> dict:
        """Return everything as values that JSON can hold."""
        asked = self.asked if isinstance(self.asked, int | None) else str(self.asked)
        return {
            "file": asked,
            "label": self.label,
            "probabilities": self.probabilities,
        }


def ranked(probabilities: np.ndarray, labels=None, asked=None) -> list[Prediction]:
    """Return a prediction for each row of probabilities (N, classes).

    Args:
        probabilities: as `kerascnn.heads.Head.probabilities` returns them.
        labels: names of the classes; default "0", "1", ….
        asked: what the rows are the answers to; default their numbers.

    Raises:
        ValueError: the number of labels is not the number of classes.
    """
    number, classes = probabilities.shape
    labels = [str(name) for name in labels] if labels is not None else None
    labels = labels or list(map(str, range(classes)))
    if len(labels) != classes:
        raise ValueError(
            f"the network has {classes} classes; received {len(labels)} labels"
        )
    return [
        Prediction(
            {labels[i]: float(row[i]) for i in np.argsort(-row, kind="stable")}, what
        )
        for row, what in zip(
            probabilities, range(number) if asked is None else asked, strict=True
        )
    ]
