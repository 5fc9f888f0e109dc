"""How good a network is on images with known classes, and what it says of others."""

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerascnn.data import Data, Images, Shards, load_data, read_image, steps
from kerascnn.data.tfds import keras_dataset
from kerascnn.graph import image_shape
from kerascnn.heads import Head, head
from kerascnn.plotting.curves import plot_confusion, plot_history
from kerascnn.prediction import Prediction, ranked
from kerascnn.statistics import calibration_error, wilson
from kerascnn.training import checkpoint
from kerascnn.training.initialization import fits, measure_statistics
from kerascnn.training.network import answering_model
from kerascnn.training.recipe import CHOICES
from kerascnn.training.run import (
    Run,
    averaged,
    best_epoch,
    mend_name,
    open_network,
    write_file,
    write_json,
    writing,
)

CHUNK = 4096  # streamed images that are in memory at a time


@dataclass(frozen=True)
class Evaluation:
    """What a network gets right; accuracies and errors in percent."""

    accuracy: float
    interval: tuple[float, float]  # 95 % confidence, of the accuracy (Wilson's)
    images: int
    loss: float  # mean cross-entropy, in nats; of independent sigmoids over the classes
    # How far confidence and accuracy are apart, over 15 bins (arXiv 1706.04599).
    calibration_error: float
    per_class: dict[str, float]  # by label, where the class has images
    confusion: np.ndarray  # int (classes, classes): the true class, the answer
    labels: tuple[str, ...]
    images_per_second: float  # with all views and passes; without the first call
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
        classes = self.per_class.items()
        return "\n".join([*lines, *(f"  {name:<16}{v:6.2f} %" for name, v in classes)])

    def to_dict(self) -> dict:
        """Return everything as values that JSON can hold."""
        return {**vars(self), "confusion": self.confusion.tolist()}

    def plot(self, title: str = "Confusion"):
        """Draw the confusion matrix, as a matplotlib Figure."""
        return plot_confusion(self, title)


def evaluate(
    model: Any,
    images: "Images | Shards | Data | None" = None,
    *,
    labels: Sequence[str] | None = None,
    batch_size: int = 250,
    views: int | None = None,
    passes: int | None = None,
) -> Evaluation:
    """Measure a network on images with known classes.

    Args:
        model: a Keras model that classifies images, or what `open_network` takes: a
            run, its folder, a `.keras` file, a name. Which of several outputs counts,
            `kerascnn.heads.head` says.
        images: the images, or a `Data`, whose test images are taken; default the test
            images of the run. Streamed ones are read 4,096 at a time.
        labels: names of the classes; default those of the data or of the run, else
            "0", "1", ….
        batch_size: images a batch; where it divides their number, JAX compiles once.
        views: 1, 2 or 6 views of each image, see `predict_probabilities`; default
            those of the run's recipe, else 1.
        passes: passes of each view, for a network that draws at inference; likewise.

    Raises ValueError where there are no images, or not such as the network takes.
    """
    own, known = {}, None
    if isinstance(model, Run | str | os.PathLike):
        network = open_network(model)
        model, known = network.model, network.labels
        own = network.run.config["recipe"] if network.run else {}
        images = own_data(network) if images is None else images
    if isinstance(images, Data):
        known, images = images.labels, images.test
    if images is None:
        raise ValueError("say what images to evaluate on; received none")
    views = own.get("views", 1) if views is None else views
    passes = own.get("passes", 1) if passes is None else passes
    number = len(images)
    if not number:
        raise ValueError("there are no images to evaluate on; received 0")
    chunks = [images]
    if isinstance(images, Shards):
        chunks = images.chunks(max(CHUNK // batch_size, 1) * batch_size)
    labels = tuple(labels or known or ())
    seconds, found, truth = 0.0, [], []
    for part in chunks:
        if not found:  # the first call compiles
            answering = _head(model, part.x)
            predict_batches(model, part.x[: 2 * batch_size], batch_size)
            classes = answering.classes
            told = f"the network tells {classes} classes apart"
            if (most := int(part.y.max(initial=0))) >= classes:
                raise ValueError(f"{told}, an image has class {most}, counted from 0")
            if labels and len(labels) != classes:
                names = f"{len(labels)}: {', '.join(labels[:12])}"
                raise ValueError(f"{told}, there are names of {names}")
        start = time.perf_counter()
        asked = {"views": views, "passes": passes}
        found.append(predict_probabilities(model, part.x, batch_size, **asked))
        seconds += time.perf_counter() - start
        truth.append(part.y)
    probabilities, truth = np.concatenate(found), np.concatenate(truth)
    if not np.isfinite(probabilities).all():
        raise ValueError("the network answers images with NaN: it has diverged")
    answers, confusion = probabilities.argmax(1), np.zeros((classes, classes), int)
    every = np.arange(number)
    np.add.at(confusion, (truth, answers), 1)
    loss = -np.log(np.maximum(probabilities, 1e-12))[every, truth]
    if answering.kind == "sigmoids":
        others = -np.log(np.maximum(1 - probabilities, 1e-12))
        loss = (loss + others.sum(1) - others[every, truth]) / classes
    labels = labels or tuple(map(str, range(classes)))
    right, totals = confusion.diagonal(), confusion.sum(1)
    counts = zip(labels, right, totals, strict=True)
    return Evaluation(
        accuracy=100 * float(right.sum()) / number,
        interval=tuple(100 * end for end in wilson(right.sum() / number, number)),
        images=number,
        loss=float(loss.mean()),
        calibration_error=calibration_error(probabilities.max(1), answers == truth),
        per_class={label: 100 * float(r) / int(t) for label, r, t in counts if t},
        confusion=confusion,
        labels=labels,
        images_per_second=number / seconds,
        views=views,
        passes=passes,
    )


def own_data(network) -> Data:
    """Read the images of a network's run; ValueError where it has none to read."""
    if not (run := network.run):
        raise ValueError(f"say what to evaluate {network.name} on: --data cifar10")
    if not (origin := run.config["data"]["origin"]):
        raise ValueError(f"{run.folder} was trained on data of its own: give --data")
    return load_data(**origin)


def measure(model, data: Data, recipe, config, history, folder: Path, test) -> Run:
    """Read the test images, once, unless `test` is false; write what the folder keeps.

    Where the recipe wants it, the statistics of the batch normalisations are measured
    before.
    """
    if number := recipe.statistics:
        seed, size = config["seed"], recipe.batch_size
        measure_statistics(model, data.train, number, size, seed)
    model = answering_model(model, data, recipe)
    run = Run(folder, model.name, config, history, {}, data.labels, _model=model)
    if not test:
        return run
    temporary = folder / ".model.part.keras"  # Keras asks for the ending
    with writing(folder / "model.keras", temporary):
        model.save(temporary)
        os.replace(temporary, folder / "model.keras")
    title = f"{model.name} on {data.title}, seed {config['seed']}"
    picture = io.BytesIO()
    plot_history(history, title=title).savefig(picture, dpi=150)
    write_file(folder / "curves.png", picture.getbuffer())
    result = single = evaluate(model, data)
    if recipe.views > 1 or recipe.passes > 1:
        result = evaluate(model, data, views=recipe.views, passes=recipe.passes)
    seconds = sum(row["seconds"] for row in history)
    run.metrics = metrics = {
        "test_accuracy": result.accuracy,
        "test_interval": list(result.interval),
        "test_images": result.images,
        "test_loss": result.loss,
        "calibration_error": result.calibration_error,
        "per_class": result.per_class,
        "epochs": len(history),
        "seconds": seconds,
        "images_per_second": len(data.train) * len(history) / seconds,
        "stopped_early": len(history) < recipe.epochs,
    }
    if result is not single:
        metrics["test_accuracy_averaged"] = result.accuracy
        metrics["test_accuracy_single"] = single.accuracy
    if len(data.validation):
        metrics["validation_accuracy"] = evaluate(model, data.validation).accuracy
        metrics["best_epoch"] = best_epoch(history)
    # The metrics come last: with them the run is finished.
    write_json(folder / "metrics.json", metrics)
    checkpoint.remove(folder)
    return run


def predict(
    source: Any,
    files: Sequence[str | os.PathLike],
    *,
    labels: Sequence[str] | None = None,
    views: int = 1,
    passes: int = 1,
) -> list[Prediction]:
    """Classify image files, JPEG or PNG of any size.

    Args:
        source: what `kerascnn.training.open_network` takes: a run, a model, a name.
        files: which are brought to the size that the network takes, as in training.
        labels: names of the classes, where the source does not know them.
        views: 1, 2 or 6 views of each image, see `predict_probabilities`.
        passes: passes of each view, for a network that draws at inference.

    Raises FileNotFoundError, and ValueError for no files, an unreadable image, a wrong
    number of labels, views or passes, and a network of images of another kind.
    """
    if not files:
        raise ValueError("there are no images to predict; received no files")
    network = open_network(source)
    images = read_images(network.model, files)
    found = predict_probabilities(network.model, images, views=views, passes=passes)
    return ranked(found, labels or network.labels, map(Path, files))


def read_images(model, files) -> np.ndarray:
    """Read image files as a model takes them: uint8 (N, height, width, channels).

    Raises FileNotFoundError, and ValueError where a file is no image or the model does
    not take images of a known size and channels.
    """
    shape = image_shape(model)
    one_channel = shape is not None and len(shape) == 2  # (28, 28), as MNIST comes
    size = (*shape, 1) if one_channel else shape
    if shape is None or len(size) != 3 or size[2] not in (1, 3, 4):
        told = f"{model.name} takes {shape or 'no image of a known size'}"
        told += ": channels first" * bool(shape and shape[0] in (1, 3, 4))
        asked = "(height, width, channels) of 1, 3 or 4 channels"
        raise ValueError(f"files are read as {asked}; {told}")
    if None in size:
        raise ValueError(
            f"the size of the images that {model.name} takes is open, {shape}: give it "
            f"one by keras.Model(x, model(x)), x = keras.Input((224, 224, {size[2]}))"
        )
    images = []
    for file in files:
        try:
            images.append(read_image(file, size[:2], size[2]))
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no image {file}") from None
        except Exception as error:  # of Pillow, which has a dozen
            raise ValueError(f"{file} is not a readable image: {error}") from error
    found = np.stack(images)
    return found[..., 0] if one_channel else found


def predict_probabilities(
    model, x: np.ndarray, batch_size: int = 250, *, views: int = 1, passes: int = 1
) -> np.ndarray:
    """Return float32 class probabilities (N, classes) for images (N, H, W, C).

    Logits, and the one unit of a sigmoid, become probabilities here. Of several views
    and passes the probabilities are averaged; the code of airbench averages logits.

    Args:
        model: a Keras model, or anything with a method `predict`.
        x: the images, pixels 0…255.
        batch_size: images a batch.
        views: 1, the image; 2, also its mirror image; 6, both also shifted by one
            pixel up and left, and down and right, with the edge reflected, at half the
            weight (Jordan 2024, arXiv 2404.00498, section 3.5).
        passes: how often to ask for each view, of a network that draws something.
    """
    if views not in CHOICES["views"]:
        raise ValueError(f"views must be 1, 2 or 6; received {views}")
    if passes < 1:
        raise ValueError(f"passes must be 1 or more; received {passes}")
    own = _head(model, x)
    if views == passes == 1:
        return own.probabilities(predict_batches(model, x, batch_size))
    total = 0.0
    for weight, view in _views(x, views):
        for _ in range(passes):
            answers = own.probabilities(predict_batches(model, view, batch_size))
            total = total + weight / passes * answers.astype(np.float64)
    return total.astype(np.float32)


def _views(x: np.ndarray, views: int):
    """Yield each view of the images and its weight; the weights add up to 1."""
    places = [({1: 1, 2: 2, 6: 4}[views], x)]
    if views == 6:
        height, width = x.shape[1:3]
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))[: x.ndim], "reflect")
        places += [(8, wide[:, i : i + height, i : i + width]) for i in (0, 2)]
    for parts, image in places:
        yield 1 / parts, image
        if views > 1:
            yield 1 / parts, np.ascontiguousarray(image[:, :, ::-1])


def _head(model, x) -> Head:
    """Return what a model's numbers are; ValueError where it takes other images."""
    own, given = image_shape(model), tuple(x.shape[1:])
    if isinstance(model, keras.Model):
        mend_name(model)
    if own and len(own) == len(given) - 1 and given[-1] == 1:
        given = given[:-1]  # Keras leaves the axis of the one channel out
    if own and not fits(own, given):
        raise ValueError(f"{model.name} takes images {own}; received {given}")
    return head(model, x)


def predict_batches(model, x: np.ndarray, batch_size: int):
    """Return what `model.predict` does, without its wait at the end.

    A single batch takes no loop: a millisecond for an image, where `predict` takes 40.
    Of arrays it makes a `tf.data.Dataset` whose tuning thread it waits for, a fifth of
    the time of ten thousand images of a small network; see `keras_dataset`.
    """
    own = isinstance(model, keras.Model)
    if own and len(x) <= batch_size:
        return model.predict_on_batch(x)  # by the function that Keras keeps compiled
    if not own or keras.backend.backend() != "tensorflow":
        return model.predict(x, batch_size=batch_size, verbose=0)

    def batches():
        return ((x[i : i + batch_size],) for i in range(0, len(x), batch_size))

    signature = (((None, *x.shape[1:]), x.dtype.name),)
    data = keras_dataset(batches, steps(len(x), batch_size), signature)
    return model.predict(data, verbose=0)
