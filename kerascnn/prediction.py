"""What a network answered about an image."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    probabilities: dict[str, float]  # of every class by label, the most probable first
    asked: Any = None  # the image: its file, or its number among several
    # The most probable output, and the names of all; None where a server does not tell.
    class_id: int | None = field(default=None, compare=False)
    labels: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def ranking(self) -> dict[str, float]:
        """The same as `probabilities`."""
        return self.probabilities

    def top(self, number: int = 3) -> str:
        """Return the most probable classes in words: "cat 98.1%, dog 1.7%"."""
        best = list(self.probabilities.items())[:number]
        return ", ".join(f"{label} {value:.1%}" for label, value in best)

    def __str__(self) -> str:
        return self.top() if self.asked is None else f"{self.asked}: {self.top()}"

    def to_dict(self) -> dict:
        """Return everything as values that JSON can hold."""
        file = self.asked if isinstance(self.asked, int | None) else str(self.asked)
        return {"file": file, "label": self.label, "probabilities": self.probabilities}


def ranked(probabilities: "np.ndarray", labels=None, asked=None) -> list[Prediction]:
    """Return a prediction for each row of probabilities (N, classes).

    `labels` name the classes, by default "0", "1", …; `asked` says what rows answer.
    """
    number, classes = probabilities.shape
    given = labels is not None and len(labels)
    names = tuple(map(str, labels if given else range(classes)))
    if not len(names) == len(set(names)) == classes:
        received = f"received {len(names)} labels, {len(set(names))} different ones"
        raise ValueError(f"the network has {classes} classes; {received}")
    found = []
    for row, what in zip(probabilities, asked or range(number), strict=True):
        order = (-row).argsort(kind="stable").tolist()
        scores = {names[i]: float(row[i]) for i in order}
        found.append(Prediction(scores, what, order[0], names))
    return found
