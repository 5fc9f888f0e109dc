"""Grad-CAM: which places of the last feature maps speak for a class."""

import numpy as np

from kerascnn.explain.heatmap import Heatmap, ask, resized
from kerascnn.explain.recording import gradient, last_maps, prepared
from kerascnn.explain.trace import shown_image


def gradcam(
    model, image, *, layer=None, target=None, output: int = 0, labels=None
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
        output: which output, for a model with several.
        labels: names of the classes.

    Returns:
        A `Heatmap`, `.coarse` of the size of the layer's maps, `.heat` of the image's.

    Raises:
        ValueError: the model has no feature maps; no such layer, class or output; or
            the image is not of the model's shape.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization" (ICCV 2017, arXiv 1610.02391), equations 1 and 2.
    """
    images = prepared(model, image)
    question = ask(model, images, target, output, labels)
    seen, end, k = question.seen, question.head, question.target
    position = last_maps(seen, output) if layer is None else seen.find(layer)
    maps = seen.values(position)
    if maps.ndim != 4:
        raise ValueError(
            f"{seen.names[position]} has outputs of shape {maps.shape[1:]}; Grad-CAM "
            "needs maps (rows, columns, channels)"
        )
    with end.without_activation():
        slopes = gradient(model, images, lambda s: end.scores(s)[:, k], at=position)
    if seen.channels_first:
        slopes = np.moveaxis(slopes, 1, -1)
    weights = slopes[0].mean((0, 1))  # (channels,)
    coarse = np.maximum(maps[0] @ weights, 0)  # (rows, columns)
    shown = shown_image(image)
    return Heatmap(
        method="Grad-CAM",
        model=model.name,
        image=shown,
        heat=resized(coarse, shown.shape[:2]),
        meaning=f"weighted sum of the maps that raise the {end.kind}",
        target=k,
        label=question.label,
        probability=question.probability,
        score=end.kind,
        layer=seen.names[position],
        coarse=coarse,
    )
