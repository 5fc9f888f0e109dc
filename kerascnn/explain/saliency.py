"""Saliency: how much a class's score changes with each pixel."""

import numpy as np

from kerascnn.explain.heatmap import Heatmap, ask
from kerascnn.explain.recording import gradient, prepared
from kerascnn.explain.trace import shown_image


def saliency(
    model,
    image,
    *,
    target=None,
    output: int = 0,
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
        model: a Keras model of one image.
        image: (H, W, C), pixels as the model takes them.
        target: number of the class, or its name if there are labels; default: the
            model's answer.
        output: which output, for a model with several.
        labels: names of the classes.
        samples: copies of the image; 1 for the image itself, without noise.
        noise: standard deviation of the noise, as a share of the image's range.
        seed: of the noise.

    Returns:
        A `Heatmap`.

    Raises:
        ValueError: no such class or output, the image is not of the model's shape, or
            a number is out of range.

    Source: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks" (2014,
    arXiv 1312.6034), section 3.1; Smilkov et al., "SmoothGrad: removing noise by
    adding noise" (2017, arXiv 1706.03825), equation 1.
    """
    if samples < 1 or noise < 0:
        raise ValueError(
            f"samples is 1 or more, noise 0 or more; received samples={samples}, "
            f"noise={noise}"
        )
    images = prepared(model, image)
    question = ask(model, images, target, output, labels)
    end, k = question.head, question.target
    copies = images.astype(np.float32)
    if samples > 1:
        spread = noise * float(copies.max() - copies.min())
        random = np.random.default_rng(seed)
        copies = copies + random.normal(0, spread, (samples, *copies.shape[1:]))
        copies = copies.astype(np.float32)
    with end.without_activation():
        slopes = gradient(model, copies, lambda s: end.scores(s)[:, k]).mean(0)
    if slopes.ndim == 2:  # images without an axis for their one channel
        slopes = slopes[..., None]
    elif question.seen.channels_first:
        slopes = np.moveaxis(slopes, 0, -1)
    return Heatmap(
        method="saliency" if samples == 1 else f"saliency (mean of {samples})",
        model=model.name,
        image=shown_image(image),
        heat=np.abs(slopes).max(-1),
        meaning=f"|change of the {end.kind}| for one unit of a pixel",
        target=k,
        label=question.label,
        probability=question.probability,
        score=end.kind,
        layer=None,
        coarse=None,
    )
