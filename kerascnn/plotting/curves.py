"""The pictures of trainings: loss and accuracy against the epoch, and confusion."""

from kerascnn.plotting.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, canvas

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def plot_history(history: list[dict], *, title: str):
    """Draw loss and accuracy of one training; returns a matplotlib Figure.

    Each row of `history` has epoch, loss, accuracy and, where there are validation
    images, val_loss and val_accuracy.
    """
    return _plot({"": history}, title)


def plot_confusion(evaluation, title: str):
    """Draw the confusion matrix of an `Evaluation`; returns a matplotlib Figure."""
    import numpy as np

    n = len(evaluation.labels)
    side = 3 + 0.45 * n
    figure = canvas(side + 1, side)
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
    """Draw loss and accuracy of trainings, each in its own colour; returns a Figure.

    `runs` are by the names for the legend; ValueError for more than six.
    """
    if len(runs) > len(COLOURS):
        raise ValueError(f"at most {len(COLOURS)} runs; received {len(runs)}")
    return _plot({name: run.history for name, run in runs.items()}, title)


def _plot(histories: dict[str, list[dict]], title: str):
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = canvas(9, 3.8)
    figure.suptitle(title, parse_math=False)
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            epochs = [row["epoch"] for row in history]
            marker = "o" if len(history) < 15 else ""
            parts = {key: ("training", "--"), f"val_{key}": ("validation", "-")}
            for column, (part, line) in parts.items():
                if column in history[0]:
                    axes.plot(
                        epochs,
                        [row[column] for row in history],
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
