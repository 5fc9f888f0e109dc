"""How good a network is, on images that it has not seen."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from kerascnn.data import Images, Shards, steps
from kerascnn.data.tfds import keras_dataset
from kerascnn.statistics import wilson

CHUNK = 4096  # streamed images that are in memory at a time


@dataclass(frozen=True)
class Evaluation:
    """What a network gets right.

    Attributes:
        accuracy: percent.
        interval: the 95 % confidence interval of the accuracy, percent (Wilson's).
        images: number of images.
        loss: mean cross-entropy, in nats.
        calibration_error: expected calibration error, percent: how far confidence and
            accuracy are apart, over 15 bins (Guo et al. 2017, arXiv 1706.04599,
            section 2).
        per_class: accuracy of each class, percent, by label; absent where the class
            has no image.
        confusion: int (classes, classes); row: the true class, column: the answer.
        labels: names of the classes.
        images_per_second: throughput of predictions, without the first one; all
            views and passes of an image count as one image.
        views: views of each image that were averaged.
        passes: passes of each view that were averaged.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    loss: float
    calibration_error: float
    per_class: dict[str, float]
    confusion: np.ndarray
    labels: tuple[str, ...]
    images_per_second: float
    views: int = 1
    passes: int = 1

    def __str__(self) -> str:
        low, high = self.interval
        lines = [
            f"accuracy {self.accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f}), "
            f"{self.images:,} images{averaged(self.views, self.passes)}",
            f"loss {self.loss:.4f}, calibration error {self.calibration_error:.2f} %, "
            f"{self.images_per_second:,.0f} images/s",
        ]
        lines += [
            f"  {name:<16}{value:6.2f} %" for name, value in self.per_class.items()
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return everything as values that JSON can hold."""
        return {**vars(self), "confusion": self.confusion.tolist()}

    def plot(self, title: str = "Confusion"):
        """Draw the confusion matrix; returns a matplotlib Figure.

        Args:
            title: name the network and the data, on which the figures hold.
        """
        from matplotlib.figure import Figure

        n = len(self.labels)
        side = 3 + 0.45 * n
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        # Shares of a row, so that classes of unequal size can be compared.
        share = self.confusion / np.maximum(self.confusion.sum(1, keepdims=True), 1)
        shown = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
        if n <= 20:
            for row, column in np.ndindex(n, n):
                if count := self.confusion[row, column]:
                    # cividis is dark below about a half.
                    colour = "black" if share[row, column] > 0.5 else "white"
                    axes.text(
                        column, row, count, ha="center", va="center", color=colour
                    )
            axes.set_xticks(range(n), self.labels, rotation=45, ha="right")
            axes.set_yticks(range(n), self.labels)
        axes.set_xlabel("answer of the network")
        axes.set_ylabel("true class")
        axes.set_title(
            f"{title}: {self.accuracy:.2f} % of {self.images:,} images right"
        )
        figure.colorbar(shown, ax=axes, label="share of the true class")
        return figure


def averaged(views: int, passes: int) -> str:
    """Return in words what is averaged, empty where nothing is: ", mean of 6 views"."""
    parts = [f"{views} views"] * (views > 1) + [f"{passes} passes"] * (passes > 1)
    return f", mean of {' and '.join(parts)}" if parts else ""


def evaluate(
    model,
    images: Images | Shards,
    *,
    labels=None,
    batch_size: int = 250,
    views: int = 1,
    passes: int = 1,
) -> Evaluation:
    """Measure a network on images with known classes.

    Args:
        model: a Keras model that answers with probabilities or logits (N, classes);
            of several outputs the first counts.
        images: the images; streamed ones are read 4,096 at a time.
        labels: names of the classes; default "0", "1", ….
        batch_size: images a batch; where it divides their number, JAX compiles once.
        views: 1, 2 or 6 views of each image, see `predict_probabilities`.
        passes: passes of each view, for a network that draws at inference.

    Raises:
        ValueError: there are no images, or no such number of views or passes.
    """
    number = len(images)
    if not number:
        raise ValueError("there are no images to evaluate on; received 0")
    chunks = [images]
    if isinstance(images, Shards):
        chunks = images.chunks(max(CHUNK // batch_size, 1) * batch_size)
    seconds, confusion, found = 0.0, None, []
    for part in chunks:
        if confusion is None:  # the first call compiles
            predict_batches(model, part.x[:batch_size], batch_size)
        start = time.perf_counter()
        probabilities = predict_probabilities(
            model, part.x, batch_size, views=views, passes=passes
        )
        seconds += time.perf_counter() - start
        answers = probabilities.argmax(1)
        if confusion is None:
            confusion = np.zeros((probabilities.shape[1],) * 2, int)
        np.add.at(confusion, (part.y, answers), 1)
        true_probability = probabilities[np.arange(len(part)), part.y]
        found.append((true_probability, probabilities.max(1), answers == part.y))
    true_probability, confidence, correct = map(
        np.concatenate, zip(*found, strict=True)
    )
    labels = tuple(labels or map(str, range(len(confusion))))
    right, totals = confusion.diagonal(), confusion.sum(1)
    return Evaluation(
        accuracy=100 * float(right.sum()) / number,
        interval=tuple(100 * end for end in wilson(right.sum() / number, number)),
        images=number,
        loss=float(-np.log(np.maximum(true_probability, 1e-12)).mean()),
        calibration_error=_calibration_error(confidence, correct),
        per_class={
            label: 100 * float(r) / int(t)
            for label, r, t in zip(labels, right, totals, strict=True)
            if t
        },
        confusion=confusion,
        labels=labels,
        images_per_second=number / seconds,
        views=views,
        passes=passes,
    )


def predict_probabilities(
    model, x: np.ndarray, batch_size: int = 250, *, views: int = 1, passes: int = 1
) -> np.ndarray:
    """Return float32 class probabilities (N, classes) for images (N, H, W, C).

    Logits, where the model ends in them, become probabilities here. Of several views
    and passes the probabilities are averaged, which suits any network, whatever the
    scale of its logits; the code of airbench averages logits.

    Args:
        model: a Keras model; of several outputs the first counts.
        x: the images, pixels 0…255.
        batch_size: images a batch.
        views: 1, the image; 2, also its mirror image; 6, both also shifted by one
            pixel up and left, and down and right, with the edge reflected; the
            unshifted two weigh a quarter each, the shifted four an eighth (Jordan
            2024, arXiv 2404.00498, section 3.5).
        passes: how often to ask the network for each view; where it draws nothing at
            inference, every pass answers the same.

    Raises:
        ValueError: another number of views, or no pass.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be 1, 2 or 6; received {views}")
    if passes < 1:
        raise ValueError(f"passes must be 1 or more; received {passes}")
    if views == passes == 1:
        return _probabilities(model, x, batch_size)
    total = 0.0
    for weight, view in _views(x, views):
        for _ in range(passes):
            answers = _probabilities(model, view, batch_size)
            total = total + weight / passes * answers.astype(np.float64)
    return total.astype(np.float32)


VIEWS = (1, 2, 6)


def _views(x: np.ndarray, views: int):
    """Yield each view of the images and its weight; the weights add up to 1."""
    places = [({1: 1, 2: 2, 6: 4}[views], x)]
    if views == 6:
        height, width = x.shape[1:3]
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        places += [(8, wide[:, i : i + height, i : i + width]) for i in (0, 2)]
    for parts, image in places:
        yield 1 / parts, image
        if views > 1:
            yield 1 / parts, np.ascontiguousarray(image[:, :, ::-1])


def _probabilities(model, x: np.ndarray, batch_size: int) -> np.ndarray:
    answers = predict_batches(model, x, batch_size)
    if isinstance(answers, (list, tuple)):
        answers = answers[0]
    answers = np.asarray(answers, np.float32)
    if (answers < 0).any() or np.abs(answers.sum(1) - 1).max() > 1e-2:
        shifted = np.exp(answers - answers.max(1, keepdims=True))
        answers = shifted / shifted.sum(1, keepdims=True)
    return answers


def predict_batches(model, x: np.ndarray, batch_size: int):
    """Return what `model.predict` does, without its wait at the end.

    Of arrays it makes a `tf.data.Dataset` whose tuning thread it waits for: a fifth of
    the time of ten thousand images of a small network; see `keras_dataset`.
    """
    if not isinstance(model, keras.Model) or keras.backend.backend() != "tensorflow":
        return model.predict(x, batch_size=batch_size, verbose=0)

    def batches():
        return ((x[i : i + batch_size],) for i in range(0, len(x), batch_size))

    signature = (((None, *x.shape[1:]), x.dtype.name),)
    data = keras_dataset(batches, steps(len(x), batch_size), signature)
    return model.predict(data, verbose=0)


def calibration_error(probabilities, classes, bins: int = 15) -> float:
    """Return the expected calibration error in percent.

    Over bins of equal width: |accuracy - mean confidence|, weighted by the share of
    images in the bin (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Args:
        probabilities: (N, classes).
        classes: (N,), the true classes.
        bins: number of bins.
    """
    right = probabilities.argmax(1) == classes
    return _calibration_error(probabilities.max(1), right, bins)


def _calibration_error(confidence, right, bins: int = 15) -> float:
    # The bins are (0, 1/15], …, (14/15, 1].
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    error = 0.0
    for b in range(bins):
        inside = place == b
        if inside.any():
            error += inside.mean() * abs(
                right[inside].mean() - confidence[inside].mean()
            )
    return 100 * float(error)
