"""The pictures of a search: its trials in order, and what its values decide."""

from kerascnn.plotting.style import BLUE, GREEN, INK, ORANGE, VERMILION

FINISHED, PRUNED, LOST, BEST = BLUE, ORANGE, VERMILION, GREEN


def plot_trials(tuning):
    """Draw the validation accuracy of each trial, and the best one so far.

    Args:
        tuning: a `kerascnn.tuning.Tuning`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    done = [t for t in tuning.trials if t.end == "finished"]
    pruned = [t for t in tuning.trials if t.end == "pruned" and t.accuracy is not None]
    lost = [t for t in tuning.trials if t.end in ("diverged", "impossible")]
    axes.plot(
        [t.number for t in done],
        [t.accuracy for t in done],
        "o",
        color=FINISHED,
        label="finished",
    )
    if pruned:
        axes.plot(
            [t.number for t in pruned],
            [t.accuracy for t in pruned],
            "v",
            mfc="white",
            mec=PRUNED,
            mew=1.6,
            label="pruned: its last epoch",
        )
    if done:
        best = [max(t.accuracy for t in done[: n + 1]) for n in range(len(done))]
        places = [t.number for t in done]
        last = tuning.trials[-1].number
        axes.step(
            [*places, last],
            [*best, best[-1]],
            where="post",
            color=BEST,
            lw=1.5,
            zorder=1,
            label="best so far",
        )
        axes.annotate(
            f"{tuning.best.accuracy:.2f} %",
            (tuning.best.number, tuning.best.accuracy),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
        axes.margins(y=0.12)
    if lost:
        # They have no accuracy: they stand on the lower edge.
        axes.plot(
            [t.number for t in lost],
            [0.02] * len(lost),
            "x",
            color=LOST,
            mew=2,
            transform=axes.get_xaxis_transform(),
            label="diverged or impossible",
        )
    axes.set_title(f"Search for a recipe: {tuning.name} on {tuning.data}")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_importances(tuning):
    """Draw the share of each searched value in the success.

    Args:
        tuning: a `kerascnn.tuning.Tuning`; where it has no importances, as too few
            trials are finished, the picture says so.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    shares = tuning.importances
    figure = Figure(figsize=(9, 1.8 + 0.4 * max(len(shares), 2)), layout="constrained")
    axes = figure.subplots()
    done = sum(t.end == "finished" for t in tuning.trials)
    axes.set_title(
        f"What decides: {tuning.name} on {tuning.data}, {done} finished trials"
    )
    if not shares:
        text = "too few finished trials to tell (ten are needed)"
        axes.text(0.5, 0.5, text, ha="center", va="center", color=INK)
        axes.set_axis_off()
        return figure
    names = [key.removeprefix("option:") for key in shares]
    bars = axes.barh(names, [100 * s for s in shares.values()], color=FINISHED)
    axes.bar_label(bars, fmt="%.0f %%", padding=3, color=INK)
    axes.invert_yaxis()  # the largest on top
    axes.margins(x=0.12)
    axes.set_xlabel("share of the importance (%), PED-ANOVA")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    return figure
