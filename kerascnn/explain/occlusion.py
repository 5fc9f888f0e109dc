"""Occlusion: how much less probable a class is where a part of the image is hidden."""

import numpy as np

from kerascnn.explain.heatmap import Heatmap, ask, probabilities
from kerascnn.explain.recording import batch, numbers, prepared, record
from kerascnn.explain.trace import shown_image


def occlusion(
    model,
    image,
    *,
    size: int | None = None,
    stride: int | None = None,
    fill=None,
    target=None,
    output: int = 0,
    labels=None,
    batch_size: int = 64,
) -> Heatmap:
    """Hide one square of an image after the other, and see what that costs a class.

    A value is the probability of the class less that with the square hidden, averaged
    over the squares that lie on the pixel; below 0 the class is more probable with
    the pixel hidden. It needs no gradients: any classifier will do.

    Args:
        model: a Keras model of one image.
        image: (H, W, C), pixels as the model takes them.
        size: height and width of the square, in pixels; default: a quarter of the
            shorter side.
        stride: pixels from one square to the next; default: a quarter of the size. The
            last squares end at the border.
        fill: what the square is filled with: a number, or one for each channel;
            default: the image's mean, channel by channel.
        target: number of the class, or its name if there are labels; default: the
            model's answer.
        output: which output, for a model with several.
        labels: names of the classes.
        batch_size: hidden images that are asked about at once.

    Returns:
        A `Heatmap`; `.coarse` has a value for each square.

    Raises:
        ValueError: no such class or output, the image is not of the model's shape, or
            the square does not fit it.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks"
    (ECCV 2014, arXiv 1311.2901), section 4.2.
    """
    shown = shown_image(image)
    height, width, channels = shown.shape
    size = max(1, min(height, width) // 4) if size is None else size
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"the square is of 1 to {min(height, width)} pixels; received size={size}"
        )
    stride = max(1, size // 4) if stride is None else stride
    if stride < 1:
        raise ValueError(f"stride must be 1 or more; received {stride}")
    question = ask(model, prepared(model, image), target, output, labels)
    fill = shown.mean((0, 1)) if fill is None else fill
    fill = np.broadcast_to(np.asarray(fill, np.float64), (channels,))
    if np.issubdtype(shown.dtype, np.integer):
        fill = np.rint(fill)
    rows, columns = _starts(height, size, stride), _starts(width, size, stride)
    places = [(r, c) for r in rows for c in columns]
    drops = np.zeros(len(places))
    for first in range(0, len(places), batch_size):
        some = places[first : first + batch_size]
        hidden = np.repeat(shown[None], len(some), 0)
        for i, (r, c) in enumerate(some):
            hidden[i, r : r + size, c : c + size] = fill
        found = record(model, batch(model, hidden)).output(output)
        answers = probabilities(numbers(found))[:, question.target]
        drops[first : first + len(some)] = question.probability - answers
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (r, c), drop in zip(places, drops, strict=True):
        total[r : r + size, c : c + size] += drop
        count[r : r + size, c : c + size] += 1
    return Heatmap(
        method="occlusion",
        model=model.name,
        image=shown,
        # Strides beyond the size leave pixels that are never hidden: they cost nothing.
        heat=(total / np.maximum(count, 1)).astype(np.float32),
        meaning=f"drop of the probability with a {size}×{size} square hidden",
        target=question.target,
        label=question.label,
        probability=question.probability,
        score="probability",
        layer=None,
        coarse=drops.reshape(len(rows), len(columns)),
        signed=True,
    )


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Where squares begin along an axis; the last ends at the border."""
    return sorted({*range(0, length - size + 1, stride), length - size})
