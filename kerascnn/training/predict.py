"""From image files to labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerascnn.data import read_image
from kerascnn.training.evaluate import predict_probabilities
from kerascnn.training.open_network import open_network


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        file: the image.
        probabilities: of every class, by label, the most probable first.
    """

    file: Path
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    def __str__(self) -> str:
        best = list(self.probabilities.items())[:3]
        return f"{self.file}: " + ", ".join(f"{k} {v:.1%}" for k, v in best)


def predict(
    source,
    files: Sequence[str | os.PathLike],
    *,
    labels=None,
    views: int = 1,
    passes: int = 1,
) -> list[Prediction]:
    """Classify image files.

    The images are brought to the size that the network takes as the images of a folder
    are when it is trained on them.

    Args:
        source: a run, a model, a name of the zoo with trained weights, a run folder or
            a `.keras` file.
        files: JPEG or PNG files of any size.
        labels: names of the classes, where the source does not know them.
        views: 1, 2 or 6 views of each image whose probabilities are averaged, see
            `kerascnn.training.evaluate.predict_probabilities`.
        passes: passes of each view, for a network that draws at inference.

    Raises:
        ValueError: no files, an unreadable image, a wrong number of labels, or no such
            number of views or passes.
        FileNotFoundError: an image is not there.
    """
    if not files:
        raise ValueError("there are no images to predict; received no files")
    network = open_network(source)
    height, width, channels = network.model.inputs[0].shape[1:]
    images = np.stack([_read(file, (height, width), channels) for file in files])
    probabilities = predict_probabilities(
        network.model, images, views=views, passes=passes
    )
    answers = ranked(probabilities, labels or network.labels)
    return [Prediction(Path(f), a) for f, a in zip(files, answers, strict=True)]


def _read(file, size, channels):
    try:
        return read_image(file, size, channels)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {file}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error


def ranked(probabilities: np.ndarray, labels=None) -> list[dict[str, float]]:
    """Return each row of probabilities (N, classes) by label, the greatest first.

    Raises:
        ValueError: the number of labels is not the number of classes.
    """
    classes = probabilities.shape[1]
    labels = list(labels or map(str, range(classes)))
    if len(labels) != classes:
        raise ValueError(
            f"the network has {classes} classes; received {len(labels)} labels"
        )
    return [
        {labels[i]: float(row[i]) for i in np.argsort(-row, kind="stable")}
        for row in probabilities
    ]
