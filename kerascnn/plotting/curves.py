"""The pictures of trainings: loss and accuracy against the epoch, and confusion."""

from kerascnn.plotting import style
from kerascnn.plotting.style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)


def plot_history(history: list[dict], *, title: str):
    """Draw loss and accuracy of one training; returns a matplotlib Figure.

    Each row of `history` has epoch, loss, accuracy and, where there are validation
    images, val_loss and val_accuracy.
    """
    return _plot({"": history}, title)


def plot_confusion(evaluation, title: str):
    """Draw the confusion matrix of an `Evaluation`; returns a matplotlib Figure."""
    labels, counts = evaluation.labels, evaluation.confusion
    side = 3 + 0.45 * len(labels)
    figure = style.canvas(side + 1, side)
    axes = figure.subplots()
    # Shares of a row, so that classes of unequal size can be compared.
    share = counts / counts.sum(1, keepdims=True).clip(1)
    shown = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    if len(labels) <= 20:
        # cividis is dark below about a half.
        look = {"form": str, "bright": share > 0.5, "shown": counts > 0}
        style.draw_numbers(axes, counts, 10, **look)
        plain, places = {"parse_math": False}, range(len(labels))
        axes.set_xticks(places, labels, rotation=45, ha="right", **plain)
        axes.set_yticks(places, labels, **plain)
    axes.set(xlabel="answer of the network", ylabel="true class")
    title += f": {evaluation.accuracy:.2f} % of {evaluation.images:,} images right"
    axes.set_title(title, parse_math=False)
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

    figure = style.canvas(9, 3.8)
    figure.suptitle(title, parse_math=False)
    for axes, key in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            epochs = [row["epoch"] for row in history]
            look = {"color": colour, "marker": "o" if len(history) < 15 else ""}
            parts = {key: ("training", "--"), f"val_{key}": ("validation", "-")}
            for column, (part, line) in parts.items():
                if column in history[0]:
                    values = [row[column] for row in history]
                    look |= {"ls": line, "label": f"{name} {part}".strip()}
                    axes.plot(epochs, values, ms=4, **look)
        unit = "cross-entropy (nats)" if key == "loss" else key
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
