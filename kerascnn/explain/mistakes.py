"""Where a network errs: the confusion of its classes, and its surest wrong answers."""

from dataclasses import dataclass

import numpy as np

from kerascnn.data import Data, Images
from kerascnn.explain.recording import batch
from kerascnn.heads import SAMPLE, head
from kerascnn.plotting.style import GREEN, VERMILION, canvas, drawn
from kerascnn.tables import Column, Table
from kerascnn.training.evaluate import Evaluation, evaluate, predict_batches

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Confusion:
    """Which classes a network takes for which.

    Attributes:
        title: the network and the data.
        evaluation: with `.confusion` (true class, answer), `.accuracy`, `.labels`.
    """

    title: str
    evaluation: Evaluation

    @property
    def matrix(self) -> np.ndarray:
        """Images by true class (rows) and answer (columns)."""
        return self.evaluation.confusion

    @property
    def pairs(self) -> list[tuple[str, str, int, float]]:
        """True class, wrong answer, images, and their share of the class in percent.

        The greatest share comes first; pairs that do not occur are left out.
        """
        totals = np.maximum(self.matrix.sum(1), 1)
        labels = self.evaluation.labels
        found = [
            (labels[i], labels[j], int(n), 100 * float(n / totals[i]))
            for (i, j), n in np.ndenumerate(self.matrix)
            if n and i != j
        ]
        return sorted(found, key=lambda pair: -pair[3])

    @property
    def table(self) -> Table:
        """The matrix as a table."""
        labels = self.evaluation.labels
        columns = [Column("true", "true \\ answer", right=False)]
        columns += [Column(f"answer {name}", name) for name in labels]
        columns.append(Column("right", "right %", lambda v: f"{v:.1f}"))
        rows = []
        for i, name in enumerate(labels):
            counts = self.matrix[i]
            answers = {
                f"answer {other}": int(n)
                for other, n in zip(labels, counts, strict=True)
            }
            right = 100 * float(counts[i] / counts.sum()) if counts.sum() else None
            rows.append({"true": name, **answers, "right": right})
        e = self.evaluation
        title = f"{self.title}: {e.accuracy:.2f} % of {e.images:,} images right"
        return Table(columns, rows, title=title)

    def __str__(self) -> str:
        lines = [str(self.table)]
        if pairs := self.pairs[:5]:
            lines.append("most often confused:")
            lines += [
                f"  {true} taken for {answer}: {count} images, "
                f"{share:.1f} % of the class"
                for true, answer, count, share in pairs
            ]
        else:
            lines.append("no answer is wrong")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return matrix, labels and accuracy as values that JSON can hold."""
        e = self.evaluation
        return {
            "title": self.title,
            "labels": list(e.labels),
            "accuracy": e.accuracy,
            "confusion": self.matrix.tolist(),
        }

    @drawn
    def plot(self):
        """Draw the matrix."""
        figure = self.evaluation.plot(self.title)
        return figure


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The wrong answers of which a network is surest.

    Attributes:
        title: the network and the data.
        indices: int (n,), which images of the part, the surest wrong answer first.
        images: (n, H, W, C).
        truth: int (n,), their classes.
        answers: int (n,), what the network takes them for.
        probabilities: float32 (n, classes).
        labels: names of the classes.
        wrong, total: number of wrong answers, and of images.
    """

    title: str
    indices: np.ndarray
    images: np.ndarray
    truth: np.ndarray
    answers: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]
    wrong: int
    total: int

    @property
    def table(self) -> Table:
        """The mistakes as a table."""
        columns = [
            Column("image", "image"),
            Column("true", "true class", right=False),
            Column("answer", "answer", right=False),
            Column("sure", "probability of it", lambda v: f"{v:.1%}"),
            Column("of_true", "of the true class", lambda v: f"{v:.1%}"),
        ]
        rows = [
            {
                "image": int(i),
                "true": self.labels[t],
                "answer": self.labels[a],
                "sure": float(p[a]),
                "of_true": float(p[t]),
            }
            for i, t, a, p in zip(
                self.indices, self.truth, self.answers, self.probabilities, strict=True
            )
        ]
        title = f"{self.title}: {self.wrong:,} of {self.total:,} answers are wrong"
        notes = ["the surest first"] if rows else []
        return Table(columns, rows, title=title, notes=notes)

    def __str__(self) -> str:
        return str(self.table)

    def to_dict(self) -> dict:
        """Return the table as values that JSON can hold."""
        return {
            "title": self.title,
            "wrong": self.wrong,
            "total": self.total,
            "mistakes": [dict(row) for row in self.table.rows],
        }

    @drawn
    def plot(self):
        """Draw the images with their classes and answers.

        Raises:
            ValueError: there are no mistakes to draw.
        """
        if not len(self.images):
            raise ValueError(f"{self.title}: no answer is wrong, nothing to draw")
        figure = gallery(
            self.images,
            self.truth,
            {"taken for": self.probabilities},
            self.labels,
            title=f"{self.title}: the surest of {self.wrong:,} wrong answers\n"
            "(above the true class, below the answer and its probability)",
        )
        return figure


class _Answers:
    """One output of a model, under the name that evaluation calls: `predict`."""

    def __init__(self, model, images, output: int | None):
        self.model, self.name = model, model.name
        self.head = head(model, batch(model, images[:SAMPLE]), output)

    def predict(self, x, batch_size=256, verbose=0) -> np.ndarray:
        """Return class probabilities (N, classes) for images (N, H, W, C)."""
        answers = predict_batches(self.model, batch(self.model, x), batch_size)
        return self.head.probabilities(answers)


def images_of(data, part: str = "test") -> tuple[Images, tuple[str, ...] | None, str]:
    """Return images with classes, names of the classes, and a title.

    Args:
        data: a `kerascnn.Data`, a `kerascnn.Images`, or a pair of arrays (x, y).
        part: of a `Data`: "train", "validation" or "test".

    Raises:
        ValueError: there is no such part, or there are no images.
        TypeError: the data are something else.
    """
    if isinstance(data, Data):
        if part not in PARTS:
            raise ValueError(f"part is one of {', '.join(PARTS)}; received {part!r}")
        images = getattr(data, part)
        if images is None or not len(images):
            raise ValueError(f"{data.title} has no {part} images")
        if not hasattr(images, "x"):
            raise TypeError(
                f"{data.title} is streamed, and all images are needed at once: give "
                f"some of them, such as data.{part}.take(1000)"
            )
        return images, data.labels, data.title
    if isinstance(data, Images):
        found = data
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        found = Pair(np.asarray(data[0]), np.asarray(data[1]).reshape(-1).astype(int))
    else:
        raise TypeError(
            "data is a kerascnn.Data, a kerascnn.Images, or a pair (x, y); received "
            f"{type(data).__name__}"
        )
    if not len(found):
        raise ValueError("there are no images; received 0")
    return found, None, f"{len(found):,} images"


@dataclass(frozen=True, eq=False)
class Pair:
    """Images and classes of any type of pixels; `Images` is for uint8."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def confusion(
    model, data, *, part: str = "test", labels=None, output: int | None = None
) -> Confusion:
    """Count which classes a network takes for which.

    Args:
        model: a Keras model that answers with probabilities or logits (N, classes).
        data: a `kerascnn.Data`, `kerascnn.Images`, or a pair of arrays (x, y).
        part: of a `Data`: "train", "validation" or "test".
        labels: names of the classes; default: the data's, else their numbers.
        output: number of the output, for a model with several; default: the one that
            answers, as `kerascnn.heads.head` says.

    Returns:
        A `Confusion`: `print` it, `.plot()` it.

    Raises:
        ValueError: there are no images, or no such part or output.
        TypeError: the data are something else.
    """
    images, own, title = images_of(data, part)
    found = evaluate(_Answers(model, images.x, output), images, labels=labels or own)
    return Confusion(f"{model.name} on {title}", found)


def mistakes(
    model,
    data,
    count: int = 12,
    *,
    part: str = "test",
    labels=None,
    output: int | None = None,
) -> Mistakes:
    """Find the wrong answers of which a network is surest.

    Args:
        model: a Keras model that answers with probabilities or logits (N, classes).
        data: a `kerascnn.Data`, `kerascnn.Images`, or a pair of arrays (x, y).
        count: the most to return.
        part: of a `Data`: "train", "validation" or "test".
        labels: names of the classes; default: the data's, else their numbers.
        output: number of the output, for a model with several; default: the one that
            answers, as `kerascnn.heads.head` says.

    Returns:
        A `Mistakes`: `print` it, `.plot()` it.

    Raises:
        ValueError: there are no images, or no such part or output, or `count` is 0.
        TypeError: the data are something else.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more; received {count}")
    images, own, title = images_of(data, part)
    found = _Answers(model, images.x, output).predict(images.x)
    answers = found.argmax(1)
    wrong = np.flatnonzero(answers != images.y)
    sure = found[wrong, answers[wrong]]
    chosen = wrong[np.argsort(-sure, kind="stable")[:count]]
    return Mistakes(
        title=f"{model.name} on {title}",
        indices=chosen,
        images=np.asarray(images.x)[chosen],
        truth=np.asarray(images.y)[chosen],
        answers=answers[chosen],
        probabilities=found[chosen],
        labels=tuple(labels or own or map(str, range(found.shape[1]))),
        wrong=len(wrong),
        total=len(images.y),
    )


def gallery(images, classes, answers: dict, labels, *, title: str, columns: int = 6):
    """Draw images with their true class and each network's answer below.

    Right answers are marked with a tick and wrong ones with a cross, in colour too.

    Args:
        images: uint8 (N, height, width, channels) with 1 or 3 channels.
        classes: int (N,), the true classes.
        answers: by network name, its probabilities (N, classes).
        labels: names of the classes.
        title: of the figure.
        columns: images a row.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there are no images, or not as many answers as images.
    """
    if not len(images):
        raise ValueError("a gallery needs images; received none")
    for name, probabilities in answers.items():
        if len(probabilities) != len(images):
            raise ValueError(
                f"{name} has {len(probabilities)} answers for {len(images)} images"
            )
    rows = -(-len(images) // columns)
    height = 1.75 + 0.2 * (len(answers) + 1)
    figure = canvas(1.75 * columns, height * rows + 0.5)
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
        axes.imshow(image.squeeze(), cmap="gray", interpolation="nearest")
        axes.set_title(labels[classes[i]], fontsize=9)
        for line, (name, probabilities) in enumerate(answers.items(), start=1):
            answer = int(np.argmax(probabilities[i]))
            right = answer == classes[i]
            mark = "✓" if right else "✗"
            axes.text(
                0.5,
                -0.02 - 0.11 * (line - 1),
                f"{mark} {name}: {labels[answer]} {probabilities[i][answer]:.0%}",
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=6.5,
                color=GREEN if right else VERMILION,
            )
    return figure
