"""The pictures of trainings: loss and accuracy against the epoch, and confusion."""

from kerascnn.plotting.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def plot_history(history: list[dict], *, title: str):
    """Draw loss and accuracy of one training.

    Args:
        history: rows with epoch, loss, accuracy and, where there are validation
            images, val_loss and val_accuracy.
        title: of the figure; name the data, the figures hold on it alone.

    Returns:
        A matplotlib Figure.
    """
    return _plot({"": history}, title)


def plot_confusion(evaluation, title: str):
    """Draw the confusion matrix of an `Evaluation`; returns a matplotlib Figure."""
    import numpy as np
    from matplotlib.figure import Figure

    n = len(evaluation.labels)
    side = 3 + 0.45 * n
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    # Shares of a row, so that classes of unequal size can be compared.
    counts = evaluation.confusion
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    if n <= 20:
        for row, column in np.ndindex(n, n):
            if count := counts[row, column]:
                # cividis is dark below about a half.
                colour = "black" if share[row, column] > 0.5 else "white"
                axes.text(column, row, count, ha="center", va="center", color=colour)
        axes.set_xticks(
            range(n), evaluation.labels, rotation=45, ha="right", parse_math=False
        )
        axes.set_yticks(range(n), evaluation.labels, parse_math=False)
    axes.set_xlabel("answer of the network")
    axes.set_ylabel("true class")
    axes.set_title(
        f"{title}: {evaluation.accuracy:.2f} % of {evaluation.images:,} images right",
        parse_math=False,
    )
    figure.colorbar(shown, ax=axes, label="share of the true class")
    return figure


def plot_comparison(runs: dict, *, title: str):
    """Draw loss and accuracy of several trainings, each in its own colour.

    Args:
        runs: the runs by the name that the legend gives them, six at most.
        title: of the figure; name the data, the figures hold on it alone.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: more runs than there are colours.
    """
    if len(runs) > len(COLOURS):
        raise ValueError(f"at most {len(COLOURS)} runs; received {len(runs)}")
    return _plot({name: run.history for name, run in runs.items()}, title)


def _plot(histories: dict[str, list[dict]], title: str):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            epochs = [row["epoch"] for row in history]
            marker = "o" if len(history) < 15 else ""
            for prefix, part, line in (
                ("", "training", "--"),
                ("val_", "validation", "-"),
            ):
                if prefix + key in history[0]:
                    axes.plot(
                        epochs,
                        [row[prefix + key] for row in history],
                        color=colour,
                        linestyle=line,
                        marker=marker,
                        markersize=4,
                        label=f"{name} {part}".strip(),
                    )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("cross-entropy (nats)" if key == "loss" else "accuracy")
        axes.grid(alpha=0.3)
        axes.legend()
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
