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
    """Unlabelled images, and what a training does with them."""

    recipe: Recipe  # has a kind, a share of the training samples, and a logit
    x: np.ndarray  # uint8 (N, height, width, channels)
    classes: int  # k, of the labelled images
    title: str
    fingerprint: str
    origin: dict  # the arguments of `load_data` that made them, or empty

    def describe(self) -> dict:
        """Return what a run folder keeps of it."""
        kept = {key: getattr(self, key) for key in ("title", "fingerprint", "origin")}
        return {**kept, "images": len(self.x)}

    def targets(self) -> np.ndarray:
        """Return float32 (k + 1, k or k + 1): a row a class, the last of no class."""
        if self.recipe.universum == "uniform":
            none = np.full((1, self.classes), 1 / self.classes, np.float32)
            return np.concatenate([np.eye(self.classes, dtype=np.float32), none])
        return np.eye(self.classes + 1, dtype=np.float32)

    def mix(self, x, labels, rng: np.random.Generator):
        """Put unlabelled images, with the label k, in the place of some others."""
        replaced = rng.random(len(x)) < self.recipe.universum_share
        drawn = rng.integers(len(self.x), size=len(x))
        mixed = x.copy()
        mixed[replaced] = self.x[drawn[replaced]]
        return mixed, np.where(replaced, self.classes, labels)

    def extend(self, model):
        """Join the constant logit of "background" to every output of a model."""
        if self.recipe.universum != "background":
            return model
        # The logit has no parameters: padding, whose gradient is nought.
        width, one = ((0, 0), (0, 1)), self.recipe.universum_logit
        outputs = [keras.ops.pad(x, width, constant_values=one) for x in model.outputs]
        return type(model)(model.inputs[0], _one_or_all(outputs))

    def labelled(self, model):
        """Return the model that is trained with k logits alone."""
        if self.recipe.universum == "uniform":
            return model
        outputs = [logits[:, : self.classes] for logits in model.outputs]
        return keras.Model(model.inputs[0], _one_or_all(outputs))


def open_universum(
    recipe: Recipe, data: Data, images=None, before: dict | None = None
) -> Universum | None:
    """Read the unlabelled images of a training; None where the recipe has none.

    They are `images`, or those that the recipe names, or, of a training that is
    resumed, those that its folder tells of in `before`.

    Raises ValueError where there are none, or of no use, or not of the size of the
    labelled ones, or these, or not those of before; TypeError for something else.
    """
    if not recipe.universum:
        if images is not None:
            told = "universum=uniform, dustbin or background; received universum=''"
            raise ValueError(f"unlabelled images are of use with {told}")
        return None
    height, width, _ = data.input_shape
    source = recipe.universum_data if images is None else images
    if before and images is None:
        if not before["origin"]:
            raise ValueError(
                f"the training was started with {before['title']}, which load_data had "
                "not made; give the same again: resume(folder, universum_data=…)"
            )
        images = load_data(**before["origin"])
    elif images is None and not source:
        told = "images: give universum_data, a folder or another source; received none"
        raise ValueError(f"universum={recipe.universum} needs unlabelled {told}")
    elif isinstance(source, str | os.PathLike):
        try:
            images = load_data(source, image_size=(height, width))
        except ValueError as error:
            told = f"universum_data for images of {height}x{width} pixels: {error}"
            raise ValueError(told) from error
    origin, title = {}, "images of your own"
    if isinstance(images, Data):
        origin, title = images.origin, images.title
        if images.fingerprint == data.fingerprint:
            told = "are the labelled ones; give images of none of the classes"
            raise ValueError(f"the unlabelled images, {title}, {told}")
        images = images.train
    if isinstance(images, Images):
        images = images.x
    if not isinstance(images, np.ndarray):
        told = f"a Data, Images or a uint8 array; received {type(images).__name__}"
        raise TypeError(f"universum_data takes what load_data takes, {told}")
    if images.shape[1:] != data.input_shape or not len(images):
        raise ValueError(
            f"the unlabelled images, {title}, are {images.shape} (number, height, "
            f"width, channels), the images of {data.title} are {data.input_shape}: "
            "give one or more of the same size"
        )
    unlabelled = Images(images, np.zeros(len(images), np.int64))
    own = fingerprint((), unlabelled)
    if before and own != before["fingerprint"]:
        told = f"{title} has fingerprint {own}, the run was started on "
        told += f"{before['title']}, {before['fingerprint']}"
        raise ValueError(f"the unlabelled images are not the same as before: {told}")
    return Universum(recipe, unlabelled.x, data.classes, title, own, origin)


def without_dustbin(model, trained, classes: int):
    """Return a network of the same name and layers that answers with the first classes.

    Each output is the first k logits and, where `model` has one, a softmax over them.
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
class LabelledAccuracy(keras.metrics.CategoricalAccuracy):
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
        if sample_weight is not None:
            labelled = labelled * keras.ops.cast(sample_weight, self.dtype)
        super().update_state(y_true, y_pred, labelled)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), "classes": self.classes}


def _one_or_all(outputs: list):
    return outputs if len(outputs) > 1 else outputs[0]
