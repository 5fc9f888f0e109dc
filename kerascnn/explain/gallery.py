"""A picture of images with what a network, or several, answered."""

import numpy as np

from kerascnn.plotting.style import GREEN, VERMILION


def gallery(images, classes, answers: dict, labels, *, title: str, columns: int = 6):
    """Draw images with their true class and each network's answer below.

    Right answers are marked with a tick and wrong ones with a cross, in colour too.

    Args:
        images: uint8 (N, height, width, channels) with 1 or 3 channels.
        classes: int (N,), the true classes.
        answers: by network name, its probabilities (N, classes).
        labels: names of the classes.
        title: of the figure.
        columns: images a row.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there are no images, or not as many answers as images.
    """
    from matplotlib.figure import Figure

    if not len(images):
        raise ValueError("a gallery needs images; received none")
    for name, probabilities in answers.items():
        if len(probabilities) != len(images):
            raise ValueError(
                f"{name} has {len(probabilities)} answers for {len(images)} images"
            )
    rows = -(-len(images) // columns)
    height = 1.75 + 0.2 * (len(answers) + 1)
    figure = Figure(figsize=(1.75 * columns, height * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
        axes.imshow(image.squeeze(), cmap="gray", interpolation="nearest")
        axes.set_title(labels[classes[i]], fontsize=9)
        for line, (name, probabilities) in enumerate(answers.items(), start=1):
            answer = int(np.argmax(probabilities[i]))
            right = answer == classes[i]
            mark = "✓" if right else "✗"
            axes.text(
                0.5,
                -0.02 - 0.11 * (line - 1),
                f"{mark} {name}: {labels[answer]} {probabilities[i][answer]:.0%}",
                transform=axes.transAxes,
                ha="center",
                va="top",
                fontsize=6.5,
                color=GREEN if right else VERMILION,
            )
    return figure
