"""What in an image an answer depends on: Grad-CAM, saliency and occlusion."""

import contextlib
from dataclasses import dataclass

import numpy as np

from kerascnn.explain import recording
from kerascnn.heads import head
from kerascnn.plotting import style
from kerascnn.plotting.style import number
from kerascnn.prediction import ranked


@dataclass(frozen=True, eq=False)
class Heatmap:
    """How much each place of an image matters for a class."""

    method: str  #: "Grad-CAM", "saliency" or "occlusion"
    model: str  #: name of the model
    image: np.ndarray  #: (H, W, C)
    heat: np.ndarray  #: float32 (H, W), in the unit of `meaning`
    meaning: str  #: what a value of `heat` says
    target: int  #: number of the class
    label: str  #: name of the class
    probability: float  #: that the model gives the class
    score: str  #: of which value of the class it is: "logit", "output" or "probability"
    layer: str | None = None  #: whose maps were used, for Grad-CAM
    coarse: np.ndarray | None = None  #: the map of layer or squares, not yet enlarged
    signed: bool = False  #: whether values below 0 speak against the class

    @property
    def scaled(self) -> np.ndarray:
        """The map divided by its greatest absolute value; all 0 where that is 0."""
        return self.heat / (float(np.abs(self.heat).max()) or 1.0)

    @property
    def _title(self) -> str:
        where = f", layer {self.layer}" if self.layer else ""
        return (
            f"{self.method} of {self.model} for {self.label!r} "
            f"(probability {self.probability:.1%}){where}"
        )

    def __str__(self) -> str:
        lines = [self._title, f"a value is {self.meaning}"]
        least, most = self.heat.min(), self.heat.max()
        if not most > 0:
            text = "0 everywhere: the answer does not depend on any pixel"
            if self.signed or self.layer:
                text = "nowhere above 0: nothing in the image speaks for this class"
            lines.append(text)
            if not self.signed:
                return "\n".join(lines)
        row, column = style.place(self.heat)
        text = f"from {number(least)} to {number(most)}, the greatest at row {row}, "
        lines.append(f"{text}column {column}")
        if most > 0:
            half = self.heat >= most / 2
            rows, columns = np.nonzero(half)
            lines.append(
                f"half of it or more lies within rows {rows.min()} to {rows.max()}, "
                f"columns {columns.min()} to {columns.max()}: "
                f"{100 * half.mean():.0f} % of the image"
            )
        lines.append("space 0 or less, @ the greatest:")
        return "\n".join([*lines, style.shades(self.heat, low=0.0)])

    def to_dict(self) -> dict:
        """Return everything but the image as values that JSON can hold."""
        names = ("method", "model", "layer", "target", "label", "probability", "score")
        return {
            **{name: getattr(self, name) for name in (*names, "meaning")},
            "heat": np.round(self.heat.astype(float), 8).tolist(),
        }

    @style.drawn
    def plot(self):
        """Draw the image, the map, and the map over the image."""
        figure = style.canvas(13, 4.6)
        first, second, third = figure.subplots(1, 3)
        style.draw_image(first, self.image, "image")
        most = float(np.abs(self.heat).max()) or 1.0
        scale = {"cmap": style.SEQUENTIAL, "vmin": 0.0, "vmax": most}
        if self.signed and self.heat.min() < 0:
            scale |= {"cmap": style.DIVERGING, "vmin": -most}
        shown = second.imshow(self.heat, interpolation="nearest", **scale)
        figure.colorbar(shown, ax=second, label=self.meaning, shrink=0.85)
        below = style.picture(self.image)
        if below.ndim == 3:  # grey, so that colour is the map's alone
            below = below[..., :3] @ (0.299, 0.587, 0.114)
        third.imshow(below, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        # The picture shows through where the map is near 0.
        alpha = 0.8 * np.abs(self.scaled)
        third.imshow(self.heat, alpha=alpha, interpolation="nearest", **scale)
        for axes, title in ((second, self.method), (third, "over the image")):
            axes.set(title=title, xlabel="column (pixels)")
        figure.suptitle(self._title)
        return figure


class _Question:
    """A class of a model's answer to one image, which a map is to explain.

    Without two labels, the one unit of a sigmoid is its only class.
    """

    def __init__(self, model, image, target, output: int | None, labels):
        """Run the model on the image; find the class, and where its score is."""
        self.model, self.image = model, recording.shown_image(image)
        self.images = recording.prepared(model, image)  # a batch of one
        self.head = head(model, self.images, output)
        self.seen = recording.record(model, self.images)
        answer = self.seen.probabilities(self.head)
        classes = self.head.units if labels is None else self.head.classes
        names = [f"class {k}" for k in range(classes)] if labels is None else labels
        found = ranked(answer[:, -classes:], names)[0]
        number = found.class_id if target is None else target
        if isinstance(target, str):
            number = found.labels.index(target) if target in found.labels else -1
        if not 0 <= number < classes:
            named = f" or one of {', '.join(found.labels)}" if labels else ""
            raise ValueError(
                f"target is a number below {classes}{named}; received {target!r}"
            )
        self.target, self.label = int(number), found.labels[int(number)]
        self.column = answer.shape[1] - classes + self.target  # of the probabilities
        self.probability = float(answer[0, self.column])
        self.logits = recording.logits(self.seen, self.head)
        self.score = "output" if self.logits is None else "logit"

    def gradient(self, images, at: int | None = None) -> np.ndarray:
        """Differentiate the class's score by images, or by the output of a call.

        Returns an array (N, …, channels).
        """
        import keras

        single = self.head.units == 1
        position, fused = self.logits or (None, None)

        def scores(seen):
            found = seen.graph.outputs[self.head.index]
            if position is not None:
                call = seen.calls[position]
                given = call.inputs[0] if fused is None else call.outputs[0]
                found = keras.ops.reshape(given, found.shape)
            return found[:, 0 if single else self.column]

        with contextlib.ExitStack() as after:
            if fused is not None:
                after.callback(setattr, fused, "activation", fused.activation)
                fused.activation = keras.activations.linear
            slopes = recording.gradient(self.model, images, scores, at=at)
        if self.seen.channels_first and slopes.ndim == 4:
            slopes = np.moveaxis(slopes, 1, -1)
        # One unit speaks for class 1, and against class 0.
        return -slopes if single and self.column == 0 else slopes

    def heatmap(self, method: str, meaning: str, heat, **more) -> Heatmap:
        names = ("image", "target", "label", "probability", "score")
        own = {name: getattr(self, name) for name in names}
        found = {"method": method, "meaning": meaning, "heat": heat, **own, **more}
        return Heatmap(model=self.model.name, **found)


def gradcam(
    model, image, *, layer=None, target=None, output: int | None = None, labels=None
) -> Heatmap:
    """Show where a convolutional network sees a class.

    The maps A of a layer are added up, each with the mean of the gradient of the
    class's score as its weight, and what is negative is left out:
    ReLU(Σ_k mean(∂y/∂A_k)·A_k). The score y is the one before the softmax, where the
    model ends in one.

    Args:
        model: a Keras model of one image.
        image: (H, W, C), pixels as the model takes them.
        layer: name of a layer with feature maps; default: the last that is no pooling.
        target: number of the class, or its name if there are labels; default: the
            model's answer.
        output: number of the output, for a model with several; default: the one that
            answers, as `kerascnn.heads.head` says.
        labels: names of the classes.

    Returns a `Heatmap`, `.coarse` as large as the layer's maps, `.heat` as the image.
    Raises ValueError where the model has no feature maps, or no such layer, class or
    output, or the image is not of the model's shape.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, arXiv 1610.02391, equations 1, 2.
    """
    from keras import ops

    question = _Question(model, image, target, output, labels)
    seen, output = question.seen, question.head.index
    position = recording.last_maps(seen, output) if layer is None else seen.find(layer)
    maps = seen.values(position)
    if maps.ndim != 4:
        raise ValueError(
            f"{seen.names[position]} has outputs of shape {maps.shape[1:]}; Grad-CAM "
            "needs maps (rows, columns, channels)"
        )
    slopes = question.gradient(question.images, position)[0]
    coarse = np.maximum(maps[0] @ slopes.mean((0, 1)), 0)  # (rows, columns)
    heat = ops.image.resize(
        ops.convert_to_tensor(coarse[None, ..., None]),
        question.image.shape[:2],
        interpolation="bilinear",
        data_format="channels_last",
    )
    return question.heatmap(
        "Grad-CAM",
        f"weighted sum of the maps that raise the {question.score}",
        recording.numbers(heat)[0, ..., 0],
        layer=seen.names[position],
        coarse=coarse,
    )


def saliency(
    model,
    image,
    *,
    target=None,
    output: int | None = None,
    labels=None,
    samples: int = 1,
    noise: float = 0.1,
    seed: int = 0,
) -> Heatmap:
    """Show which pixels change a class's score most.

    A value is the greatest absolute gradient of the score over the channels of the
    pixel: how much the score changes for one grey level, were the network linear. With
    `samples` above 1 the gradients of noisy copies of the image are averaged
    (SmoothGrad), which takes the speckle out of the map.

    Args:
        model, image, target, output, labels: as of `gradcam`; any classifier will do.
        samples: copies of the image; 1 for the image itself, without noise.
        noise: standard deviation of the noise, as a share of the image's range.
        seed: of the noise.

    Raises ValueError as `gradcam`, and for a number that is out of range.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks" (2014,
    arXiv 1312.6034), section 3.1; Smilkov et al., "SmoothGrad: removing noise by
    adding noise" (2017, arXiv 1706.03825), equation 1.
    """
    if samples < 1 or noise < 0:
        raise ValueError(
            f"samples is 1 or more, noise 0 or more; received {samples=}, {noise=}"
        )
    question = _Question(model, image, target, output, labels)
    copies = question.images.astype(np.float32)
    if samples > 1:
        spread = noise * float(copies.max() - copies.min())
        random = np.random.default_rng(seed)
        copies = copies + random.normal(0, spread, (samples, *copies.shape[1:]))
    slopes = question.gradient(copies).mean(0)
    if slopes.ndim == 2:  # images without an axis for their one channel
        slopes = slopes[..., None]
    return question.heatmap(
        "saliency" if samples == 1 else f"saliency (mean of {samples})",
        f"|change of the {question.score}| for one unit of a pixel",
        np.abs(slopes).max(-1),
    )


def occlusion(
    model,
    image,
    *,
    size: int | None = None,
    stride: int | None = None,
    fill=None,
    target=None,
    output: int | None = None,
    labels=None,
    batch_size: int = 64,
) -> Heatmap:
    """Hide one square of an image after the other, and see what that costs a class.

    A value is the probability of the class less that with the square hidden, averaged
    over the squares that lie on the pixel; below 0 the class is more probable with
    the pixel hidden. It needs no gradients: any classifier will do.

    Args:
        model, image, target, output, labels: as of `gradcam`.
        size: height and width of the square, in pixels; default: a quarter of the
            shorter side.
        stride: pixels from one square to the next; default: a quarter of the size. The
            last squares end at the border.
        fill: what the square is filled with: a number, or one for each channel;
            default: the image's mean, channel by channel.
        batch_size: hidden images that are asked about at once.

    Returns a `Heatmap`, `.coarse` of a value for each square; raises ValueError as
    `gradcam`, and where the square does not fit the image.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks"
    (ECCV 2014, arXiv 1311.2901), section 4.2.
    """
    shown = recording.shown_image(image)
    height, width, channels = shown.shape
    size = max(1, min(height, width) // 4) if size is None else size
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"the square is of 1 to {min(height, width)} pixels; received {size=}"
        )
    stride = max(1, size // 4) if stride is None else stride
    if stride < 1:
        raise ValueError(f"stride must be 1 or more; received {stride}")
    question = _Question(model, image, target, output, labels)
    fill = shown.mean((0, 1)) if fill is None else fill
    fill = np.broadcast_to(np.asarray(fill, np.float64), (channels,))
    if np.issubdtype(shown.dtype, np.integer):
        fill = np.rint(fill)
    rows, columns = (
        # The last ends at the border.
        sorted({*range(0, length - size + 1, stride), length - size})
        for length in (height, width)
    )
    places = [(slice(r, r + size), slice(c, c + size)) for r in rows for c in columns]
    drops = np.zeros(len(places))
    for first in range(0, len(places), batch_size):
        some = places[first : first + batch_size]
        hidden = np.repeat(shown[None], len(some), 0)
        for copy, square in zip(hidden, some, strict=True):
            copy[square] = fill
        seen = recording.record(model, recording.batch(model, hidden))
        answers = seen.probabilities(question.head)[:, question.column]
        drops[first : first + len(some)] = question.probability - answers
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for square, drop in zip(places, drops, strict=True):
        total[square] += drop
        count[square] += 1
    return question.heatmap(
        "occlusion",
        f"drop of the probability with a {size}×{size} square hidden",
        # Strides beyond the size leave pixels that are never hidden: they cost nothing.
        (total / np.maximum(count, 1)).astype(np.float32),
        score="probability",
        coarse=drops.reshape(len(rows), len(columns)),
        signed=True,
    )
