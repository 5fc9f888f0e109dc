"""Where a network errs: the confusion of its classes, and its surest wrong answers."""

from dataclasses import dataclass

import numpy as np

from kerascnn.data import Data, Images
from kerascnn.explain.recording import batch, shown_image
from kerascnn.heads import SAMPLE, head
from kerascnn.plotting import style
from kerascnn.plotting.style import GREEN, VERMILION
from kerascnn.tables import Column, Table
from kerascnn.training.evaluate import Evaluation, evaluate, predict_batches

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Confusion:
    """Which classes a network takes for which."""

    title: str  #: the network and the data
    evaluation: Evaluation  #: with `.accuracy`, `.labels`, …

    @property
    def matrix(self) -> np.ndarray:
        """Images by true class (rows) and answer (columns)."""
        return self.evaluation.confusion

    @property
    def pairs(self) -> list[tuple[str, str, int, float]]:
        """True class, wrong answer, images, and their share of the class in percent."""
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
        e, labels = self.evaluation, self.evaluation.labels
        columns = [Column("true", "true \\ answer", right=False)]
        columns += [Column(f"answer {name}", name) for name in labels]
        columns.append(Column("right", "right %", lambda v: f"{v:.1f}"))
        rows = []
        for i, counts in enumerate(self.matrix):
            row = {"true": labels[i]}
            row |= {f"answer {labels[j]}": int(n) for j, n in enumerate(counts)}
            right = 100 * float(counts[i] / counts.sum()) if counts.any() else None
            rows.append({**row, "right": right})
        title = f"{self.title}: {e.accuracy:.2f} % of {e.images:,} images right"
        return Table(columns, rows, title=title)

    def __str__(self) -> str:
        lines = [
            f"  {true} taken for {answer}: {count} images, {share:.1f} % of the class"
            for true, answer, count, share in self.pairs[:5]
        ]
        head = "most often confused:" if lines else "no answer is wrong"
        return "\n".join([str(self.table), head, *lines])

    def to_dict(self) -> dict:
        """Return matrix, labels and accuracy as values that JSON can hold."""
        e = self.evaluation
        return {
            "title": self.title,
            "labels": list(e.labels),
            "accuracy": e.accuracy,
            "confusion": self.matrix.tolist(),
        }

    @style.drawn
    def plot(self):
        """Draw the matrix."""
        return self.evaluation.plot(self.title)


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The wrong answers of which a network is surest."""

    title: str  #: the network and the data
    indices: np.ndarray  #: int (n,), of the images, the surest wrong answer first
    images: np.ndarray  #: (n, H, W, C)
    truth: np.ndarray  #: int (n,), their classes
    answers: np.ndarray  #: int (n,), what the network takes them for
    probabilities: np.ndarray  #: float32 (n, classes)
    labels: tuple[str, ...]  #: names of the classes
    wrong: int  #: number of wrong answers
    total: int  #: number of images

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
        rows = []
        for n, (t, a) in enumerate(zip(self.truth, self.answers, strict=True)):
            sure, of_true = (float(self.probabilities[n][k]) for k in (a, t))
            row = {"image": int(self.indices[n]), "true": self.labels[t]}
            row |= {"answer": self.labels[a], "sure": sure, "of_true": of_true}
            rows.append(row)
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

    @style.drawn
    def plot(self):
        """Draw the images with their classes and answers; ValueError without any."""
        if not len(self.images):
            raise ValueError(f"{self.title}: no answer is wrong, nothing to draw")
        title = f"{self.title}: the surest of {self.wrong:,} wrong answers\n"
        title += "(above the true class, below the answer and its probability)"
        answers = {"taken for": self.probabilities}
        return gallery(self.images, self.truth, answers, self.labels, title=title)


class _Answers:
    """One output of a model, as class probabilities, for evaluation to call."""

    def __init__(self, model, images, output: int | None):
        self.model, self.name = model, model.name
        self.head = head(model, batch(model, images[:SAMPLE]), output)

    def predict(self, x, batch_size=256, verbose=0) -> np.ndarray:
        answers = predict_batches(self.model, batch(self.model, x), batch_size)
        return self.head.probabilities(answers)


def images_of(data, part: str = "test") -> tuple[Images, tuple[str, ...] | None, str]:
    """Return images with classes, names of the classes, and a title.

    `data` and `part` are those of `confusion`, as are the errors.
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
    if isinstance(data, tuple | list) and len(data) == 2:
        data = Pair(np.asarray(data[0]), np.asarray(data[1]).reshape(-1).astype(int))
    if not isinstance(data, Images):
        raise TypeError(
            "data is a kerascnn.Data, a kerascnn.Images, or a pair (x, y); received "
            f"{type(data).__name__}"
        )
    if not len(data):
        raise ValueError("there are no images; received 0")
    return data, None, f"{len(data):,} images"


class Pair(Images):
    """Images and classes of any type of pixels."""

    def __post_init__(self):
        """Check nothing: the model says what it takes."""


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

    Raises ValueError: there are no images, or no such part or output; TypeError: the
    data are something else.
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
    """Find the wrong answers of which a network is surest, `count` at most.

    The other arguments and the errors are those of `confusion`; ValueError also for a
    `count` below 1. Returns a `Mistakes`: `print` it, `.plot()` it.
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
        title: of the figure that is returned.
        columns: images a row.

    Raises ValueError where there are no images, or not as many answers as images.
    """
    if not len(images):
        raise ValueError("a gallery needs images; received none")
    for name, probabilities in answers.items():
        if len(probabilities) != len(images):
            raise ValueError(
                f"{name} has {len(probabilities)} answers for {len(images)} images"
            )
    rows = -(-len(images) // columns)
    figure = style.canvas(1.75 * columns, (1.95 + 0.2 * len(answers)) * rows + 0.5)
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    look = {"xycoords": "axes fraction", "ha": "center", "va": "top", "fontsize": 7.5}
    for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
        style.draw_image(axes, shown_image(image), "")
        axes.set_title(labels[classes[i]], fontsize=9)
        for line, (name, probabilities) in enumerate(answers.items()):
            answer, place = int(np.argmax(probabilities[i])), (0.5, -0.02 - 0.11 * line)
            sign, colour = ("✓", GREEN) if answer == classes[i] else ("✗", VERMILION)
            text = f"{sign} {name}: {labels[answer]} {probabilities[i][answer]:.0%}"
            axes.annotate(text, place, color=colour, **look)
    return figure
