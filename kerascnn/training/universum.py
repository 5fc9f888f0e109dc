"""Universum prescription: unlabelled images, of none of the classes, as a regulariser.

Zhang and LeCun, "Universum Prescription: Regularization using Unlabeled Data", AAAI
2017, arXiv 1511.03719. With a certain probability a training sample is an unlabelled
image, and the network is told that it belongs to none of the classes:

- "uniform": its target is the same probability for each of the k classes;
- "dustbin": the network has k + 1 logits, and the last is the target;
- "background": to the k logits a constant one is joined, which is the target.

The answer is always given by the first k logits alone.
"""

import os
from dataclasses import dataclass

import keras
import numpy as np

from kerascnn.data import Data, Images, load_data
from kerascnn.data.dataset import fingerprint
from kerascnn.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Universum:
    """Unlabelled images, and what a training does with them.

    Attributes:
        kind: "uniform", "dustbin" or "background".
        x: uint8 (N, height, width, channels), the unlabelled images.
        share: probability that a training sample is drawn from them.
        classes: k, the number of classes of the labelled images.
        logit: the constant logit of "background".
        title: where the images are from.
        fingerprint: of their pixels, 16 hexadecimal digits of a SHA-256.
        origin: the arguments of `load_data` that made them; empty where it was made
            otherwise.
    """

    kind: str
    x: np.ndarray
    share: float
    classes: int
    logit: float
    title: str
    fingerprint: str
    origin: dict

    def describe(self) -> dict:
        """Return what a run folder keeps of it."""
        return {
            "title": self.title,
            "fingerprint": self.fingerprint,
            "images": len(self.x),
            "origin": self.origin,
        }

    def targets(self) -> np.ndarray:
        """Return the target of each class and, as row k, that of unlabelled images.

        Returns:
            float32 (k + 1, k) of "uniform", (k + 1, k + 1) of the others.
        """
        if self.kind == "uniform":
            none = np.full((1, self.classes), 1 / self.classes, np.float32)
            return np.concatenate([np.eye(self.classes, dtype=np.float32), none])
        return np.eye(self.classes + 1, dtype=np.float32)

    def mix(self, x, labels, rng: np.random.Generator):
        """Put unlabelled images in the place of some training images.

        Returns:
            x and labels, in which unlabelled images have the label k.
        """
        replaced = rng.random(len(x)) < self.share
        drawn = rng.integers(len(self.x), size=len(x))
        mixed = x.copy()
        mixed[replaced] = self.x[drawn[replaced]]
        return mixed, np.where(replaced, self.classes, labels)

    def extend(self, model):
        """Join the constant logit to every output of the model that is trained.

        Returns:
            A model of the same class and layers, with outputs (N, k + 1); of "uniform"
            and "dustbin" the model itself.
        """
        if self.kind != "background":
            return model
        # The logit has no parameters: padding, whose gradient is nought.
        outputs = [
            keras.ops.pad(logits, ((0, 0), (0, 1)), constant_values=self.logit)
            for logits in model.outputs
        ]
        return type(model)(model.inputs[0], _one_or_all(outputs))

    def labelled(self, model):
        """Return the model that is trained, of the same layers, with k logits alone."""
        if self.kind == "uniform":
            return model
        outputs = [logits[:, : self.classes] for logits in model.outputs]
        return keras.Model(model.inputs[0], _one_or_all(outputs))


def open_universum(recipe: Recipe, data: Data, images=None) -> Universum | None:
    """Read the unlabelled images of a training.

    Returns:
        The universum, None where the recipe has none.

    Raises:
        ValueError: there are no such images, the recipe makes no use of them, they
            differ in size from the labelled ones, or they are the labelled ones.
        TypeError: `images` is something else.
    """
    if not recipe.universum:
        if images is not None:
            raise ValueError(
                "unlabelled images are of use with universum=uniform, dustbin or "
                f"background; received universum={recipe.universum!r}"
            )
        return None
    origin: dict = {}
    title = "images of your own"
    if images is None:
        images = _load(recipe, data)
    if isinstance(images, Data):
        origin, title = images.origin, images.title
        if images.fingerprint == data.fingerprint:
            raise ValueError(
                f"the unlabelled images, {title}, are the labelled ones; give images "
                "that belong to none of the classes"
            )
        images = images.train
    if isinstance(images, Images):
        images = images.x
    if not isinstance(images, np.ndarray):
        raise TypeError(
            "universum_data takes what load_data takes, a Data, Images or a uint8 "
            f"array; received {type(images).__name__}"
        )
    if images.shape[1:] != data.input_shape or not len(images):
        raise ValueError(
            f"the unlabelled images, {title}, are {images.shape} (number, height, "
            f"width, channels), the images of {data.title} are {data.input_shape}: "
            "give one or more of the same size"
        )
    unlabelled = Images(images, np.zeros(len(images), np.int64))
    return Universum(
        kind=recipe.universum,
        x=unlabelled.x,
        share=recipe.universum_share,
        classes=data.classes,
        logit=recipe.universum_logit,
        title=title,
        fingerprint=fingerprint((), unlabelled),
        origin=origin,
    )


def _load(recipe: Recipe, data: Data) -> Data:
    source = recipe.universum_data
    if not source:
        raise ValueError(
            f"universum={recipe.universum} needs unlabelled images: give "
            "universum_data, a folder or another source of images; received none"
        )
    try:
        return load_data(source, image_size=data.input_shape[:2])
    except ValueError as error:
        raise ValueError(
            f"universum_data for images of {data.input_shape[0]}x"
            f"{data.input_shape[1]} pixels: {error}"
        ) from error


def reopen_universum(recipe: Recipe, data: Data, before: dict | None, images=None):
    """Read the unlabelled images of a training that is resumed.

    Returns:
        The universum, None where the recipe has none.

    Raises:
        ValueError: the images are not the same as before, or have to be given.
    """
    if before is None:
        return open_universum(recipe, data, images)
    if images is None and not before["origin"]:
        raise ValueError(
            f"the training was started with unlabelled images, {before['title']}, "
            "which load_data had not made; give the same again: resume(folder, "
            "universum_data=…)"
        )
    if images is None:
        images = load_data(**before["origin"])
    elif isinstance(images, str | os.PathLike):
        images = load_data(images, image_size=data.input_shape[:2])
    universum = open_universum(recipe, data, images)
    if universum is not None and universum.fingerprint != before["fingerprint"]:
        raise ValueError(
            f"the unlabelled images are not the same as before: {universum.title} has "
            f"fingerprint {universum.fingerprint}, the run was started on "
            f"{before['title']}, {before['fingerprint']}"
        )
    return universum


def without_dustbin(model, trained, classes: int):
    """Return a network that answers with the first classes alone.

    Returns:
        A functional `keras.Model` of the same name and layers; each output is the
        first k logits and, where `model` has one, a softmax over them.
    """
    outputs = []
    for output, logits in zip(model.outputs, trained.outputs, strict=True):
        kept = logits[:, :classes]
        if output is not logits:
            name = output._keras_history.operation.name
            softmax = keras.layers.Activation("softmax", dtype="float32", name=name)
            kept = softmax(kept)
        outputs.append(kept)
    return keras.Model(model.inputs[0], _one_or_all(outputs), name=model.name)


@keras.saving.register_keras_serializable(package="kerascnn")
class LabelledAccuracy(keras.metrics.Mean):
    """The share of right answers among the first k, over labelled images alone."""

    def __init__(self, classes, name="accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.classes = classes

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch: targets and answers, both (batch, k or k + 1)."""
        y_true = keras.ops.convert_to_tensor(y_true)[:, : self.classes]
        y_pred = keras.ops.convert_to_tensor(y_pred)[:, : self.classes]
        # The target of a class is 1 there; of none, at most one half.
        labelled = keras.ops.cast(keras.ops.max(y_true, axis=-1) > 0.75, self.dtype)
        answers = keras.ops.argmax(y_pred, axis=-1)
        right = keras.ops.equal(keras.ops.argmax(y_true, axis=-1), answers)
        if sample_weight is not None:
            labelled = labelled * keras.ops.cast(sample_weight, self.dtype)
        super().update_state(keras.ops.cast(right, self.dtype), labelled)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), "classes": self.classes}


def _one_or_all(outputs: list):
    return outputs if len(outputs) > 1 else outputs[0]
