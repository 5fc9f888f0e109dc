"""The pictures of trainings: loss and accuracy against the epoch."""

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
