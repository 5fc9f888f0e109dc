"""A map over an image of what an answer depends on, as numbers, text and picture."""

from dataclasses import dataclass

import numpy as np

from kerascnn.explain.recording import Head, Recording, head, numbers, record
from kerascnn.plotting.figures import (
    DIVERGING,
    SEQUENTIAL,
    draw_image,
    number,
    picture,
    place,
    save,
    shades,
)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How much each place of an image matters for a class.

    Attributes:
        method: "Grad-CAM", "saliency" or "occlusion".
        model: name of the model.
        image: (H, W, C).
        heat: float32 (H, W), in the unit of `meaning`.
        meaning: what a value of `heat` says.
        target, label: number and name of the class.
        probability: that the model gives the class.
        score: "logit" or "output": of which value of the class it is; "probability"
            for occlusion.
        layer: name of the layer whose maps were used, for Grad-CAM.
        coarse: the map before it was enlarged, for Grad-CAM and occlusion.
        signed: whether values below 0 speak against the class.
    """

    method: str
    model: str
    image: np.ndarray
    heat: np.ndarray
    meaning: str
    target: int
    label: str
    probability: float
    score: str
    layer: str | None
    coarse: np.ndarray | None
    signed: bool = False

    @property
    def scaled(self) -> np.ndarray:
        """The map divided by its greatest absolute value; all 0 where that is 0."""
        most = float(np.abs(self.heat).max())
        return self.heat / most if most else self.heat

    @property
    def half(self) -> tuple[int, int, int, int]:
        """First and last row and column of what reaches half of the greatest value."""
        rows, columns = np.nonzero(self.heat >= self.heat.max() / 2)
        return tuple(
            int(n) for n in (rows.min(), rows.max(), columns.min(), columns.max())
        )

    def _head(self) -> str:
        where = f", layer {self.layer}" if self.layer else ""
        return (
            f"{self.method} of {self.model} for {self.label!r} "
            f"(probability {self.probability:.1%}){where}"
        )

    def __str__(self) -> str:
        lines = [self._head(), f"a value is {self.meaning}"]
        if not self.heat.max() > 0:
            lines.append(
                "nowhere above 0: nothing in the image speaks for this class"
                if self.signed or self.layer
                else "0 everywhere: the answer does not depend on any pixel"
            )
            if not self.signed:
                return "\n".join(lines)
        row, column = place(self.heat)
        lines.append(
            f"from {number(self.heat.min())} to {number(self.heat.max())}, the "
            f"greatest at row {row}, column {column}"
        )
        if self.heat.max() > 0:
            top, bottom, left, right = self.half
            share = (self.heat >= self.heat.max() / 2).mean()
            lines.append(
                f"half of it or more lies within rows {top} to {bottom}, columns "
                f"{left} to {right}: {100 * share:.0f} % of the image"
            )
        lines.append("space 0 or less, @ the greatest:")
        lines.append(shades(self.heat, low=0.0))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return everything but the image as values that JSON can hold."""
        return {
            "method": self.method,
            "model": self.model,
            "layer": self.layer,
            "target": self.target,
            "label": self.label,
            "probability": self.probability,
            "score": self.score,
            "meaning": self.meaning,
            "heat": np.round(self.heat.astype(float), 8).tolist(),
        }

    def plot(self, path=None):
        """Draw the image, the map, and the map over the image.

        Args:
            path: where to write it too: .png, .svg or .pdf.

        Returns:
            A matplotlib Figure.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 4.6), layout="constrained")
        first, second, third = figure.subplots(1, 3)
        draw_image(first, self.image, "image")
        most = float(np.abs(self.heat).max()) or 1.0
        signed = bool(self.signed and self.heat.min() < 0)
        scale = {
            "cmap": DIVERGING if signed else SEQUENTIAL,
            "vmin": -most if signed else 0.0,
            "vmax": most,
        }
        shown = second.imshow(self.heat, interpolation="nearest", **scale)
        second.set_title(self.method)
        second.set_xlabel("column (pixels)")
        figure.colorbar(shown, ax=second, label=self.meaning, shrink=0.85)
        # Grey below, so that colour is the map's alone.
        below = picture(self.image)
        below = below if below.ndim == 2 else below[..., :3] @ (0.299, 0.587, 0.114)
        third.imshow(below, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        third.imshow(self.heat, alpha=0.55, interpolation="nearest", **scale)
        third.set_title("over the image")
        third.set_xlabel("column (pixels)")
        figure.suptitle(self._head())
        save(figure, path, str(self))
        return figure


def resized(values: np.ndarray, size) -> np.ndarray:
    """Enlarge a map (h, w) to (H, W), bilinear."""
    from keras import ops

    image = ops.convert_to_tensor(values.astype(np.float32)[None, ..., None])
    large = ops.image.resize(
        image, tuple(size), interpolation="bilinear", data_format="channels_last"
    )
    return np.asarray(ops.convert_to_numpy(large))[0, ..., 0]


@dataclass(frozen=True, eq=False)
class Question:
    """A class of a model's answer to one image, which a map is to explain."""

    seen: Recording
    head: Head
    target: int
    label: str
    probability: float


def ask(model, images, target, output: int, labels) -> Question:
    """Run a model on one image; find the class to explain, and where its score is.

    Args:
        model: a Keras model.
        images: (1, H, W, C) as `kerascnn.explain.recording.batch` returns it.
        target: number or name of the class; None for the answer.
        output: number of the model's output.
        labels: names of the classes, or None.

    Raises:
        ValueError: there is no such class or output.
    """
    seen = record(model, images)
    values = numbers(seen.output(output))
    classes = values.shape[1]
    labels = [str(name) for name in labels] if labels is not None else None
    if labels is not None and len(labels) != classes:
        raise ValueError(
            f"the model has {classes} classes; received {len(labels)} labels"
        )
    answer = probabilities(values)[0]
    if target is None:
        target = int(answer.argmax())
    elif isinstance(target, str):
        if labels is None or target not in labels:
            raise ValueError(
                f"target is a number below {classes}"
                + (f" or one of {', '.join(labels)}" if labels else "")
                + f"; received {target!r}"
            )
        target = labels.index(target)
    if not 0 <= target < classes:
        raise ValueError(f"target is a number below {classes}; received {target}")
    label = labels[target] if labels else f"class {target}"
    return Question(seen, head(seen, output), int(target), label, float(answer[target]))


def probabilities(values: np.ndarray) -> np.ndarray:
    """Return probabilities (N, classes) from probabilities or logits.

    What is not negative and adds up to 1 is taken for probabilities; a single value
    between 0 and 1, as a sigmoid gives it, too.
    """
    values = np.asarray(values, np.float32)
    if values.shape[1] == 1:
        if values.min() >= 0 and values.max() <= 1:
            return values
        return 1 / (1 + np.exp(-values))
    if values.min() < 0 or np.abs(values.sum(1) - 1).max() > 1e-2:
        shifted = np.exp(values - values.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)
    return values
