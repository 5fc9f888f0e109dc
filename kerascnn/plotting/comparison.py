"""The pictures of a comparison: accuracy against cost, or cost alone."""

import math

from kerascnn.plotting.style import BLUE, GREEN, INK, VERMILION, canvas
from zoo.references import Reference

MEASURED, PUBLISHED, HUMAN = BLUE, VERMILION, GREEN
COSTS = (("parameters", "Parameters"), ("macs", "Multiply-accumulates for one image"))
_TICKS = (10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5)
_NAMED = 6  # of those that are not drawn
_HOLLOW = {"mfc": "white", "mec": PUBLISHED, "mew": 1.6, "marker": "D", "ls": ""}


def scatter(comparison, human: Reference | None, named=None):
    """Draw accuracy against parameters and against multiply-accumulates.

    The error, 100 % less the accuracy, has a logarithmic scale: from 90 to 95 % is as
    far as from 80 to 90 %. `human` is what a human reaches on the same images, if that
    is known. `named` are the models with a name, the others are dots; None names all.
    Returns a `matplotlib.figure.Figure`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown = {e: found for e in comparison.entries if (found := _found(comparison, e))}
    names = [e.name for e in shown if named is None or e.name in named]
    # With room for many names; no wider, as a page would make the letters too small.
    figure = canvas(11, 7 + 0.12 * max(0, len(names) - 12))
    FigureCanvasAgg(figure)  # measures the names
    panels = figure.subplots(1, 2, sharey=True)
    values = [a.percent for found in shown.values() for a in found.values()]
    low, high = _limits([*values, *(human.interval if human else ())])
    data = {"cifar10": "CIFAR-10"}.get(comparison.data, comparison.data)
    for axes, (key, title) in zip(panels, COSTS, strict=True):
        # Below 0.001 % the scale ends: no test set can tell.
        axes.set_yscale("function", functions=(_scaled, lambda z: 100 - 10.0**-z))
        axes.set_xscale("log")
        axes.set_ylim(low, high)
        if costs := [cost for e in shown if (cost := getattr(e, key))]:
            room = (max(costs) / min(costs)) ** 0.07 * 1.5
            axes.set_xlim(min(costs) / room, max(costs) * room)
        axes.set_yticks([t for t in _TICKS if low <= t <= high], minor=False)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.minorticks_off()
        if human:
            axes.axhspan(*human.interval, color=HUMAN, alpha=0.13, lw=0)
            axes.axhline(human.accuracy, color=HUMAN, lw=1.2, ls="--")
        for entry, found in shown.items():
            if cost := getattr(entry, key):
                _draw_point(axes, cost, found, entry.name in names)
        axes.set_xlabel(f"{title} (log scale)")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(f"Test accuracy on {data} (%), error on a log scale")
    handles = _legend(comparison.data, shown.values(), human, len(names) < len(shown))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    missing = [e.name for e in comparison.entries if e not in shown]
    missing += [f"{e.name} (MACs)" for e in shown if not e.macs]
    if len(missing) > _NAMED:
        missing[_NAMED:] = [f"{len(missing) - _NAMED} more"]
    without = f"\nnot drawn, as unknown: {', '.join(missing)}" if missing else ""
    figure.suptitle(f"What accuracy on {data} costs{without}", size=10.5, wrap=True)
    figure.draw_without_rendering()  # lays out the panels, in which names take room
    for axes, (key, _) in zip(panels, COSTS, strict=True):
        points = [
            (cost, accuracy.percent, "" if i or entry.name not in names else entry.name)
            for entry, found in shown.items()
            if (cost := getattr(entry, key))
            for i, accuracy in enumerate(found.values())
        ]
        if any(name for *_, name in points):
            _name(axes, points)
    return figure


def bars(comparison):
    """Draw the parameters and multiply-accumulates of each model as bars.

    Returns a `matplotlib.figure.Figure`.
    """
    entries = comparison.entries
    figure = canvas(13, 1.8 + 0.42 * len(entries))
    panels = figure.subplots(1, 2, sharey=True)
    look = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    colours = (MEASURED, PUBLISHED)
    for axes, (key, title), colour in zip(panels, COSTS, colours, strict=True):
        values = [getattr(e, key) for e in entries]
        known = [v for v in values if v]
        axes.set_xscale("log")
        least = 10 ** math.floor(math.log10(min(known)) - 0.5) if known else 0.1
        most = max(known, default=10)
        # Room for the numbers behind the bars.
        axes.set_xlim(least, most * (most / least) ** 0.32)
        for place, value in enumerate(values):
            if value:
                axes.barh(place, value - least, left=least, color=colour, height=0.66)
            text = "unknown" if value is None else f"{value:,}"
            axes.annotate(text, (value or least, place), color=INK, **look)
        axes.set(title=title, xlabel=f"{title} (log scale)")
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(entries)), [e.name for e in entries])
    panels[0].set_ylim(len(entries) - 0.4, -0.6)  # the first model on top
    return figure


def _found(comparison, entry) -> dict:
    found = {key: comparison.accuracy(entry, key) for key in ("measured", "published")}
    return {key: accuracy for key, accuracy in found.items() if accuracy}


def _scaled(percent):
    import numpy as np

    return -np.log10(np.maximum(100 - np.asarray(percent), 1e-3))


def _limits(values) -> tuple[float, float]:
    """Limits of the accuracy: the same room in the scale below and above."""
    places = _scaled(values)
    room = 0.08 * max(places.max() - places.min(), 0.2)
    return 100 - 10 ** -(places.min() - room), 100 - 10 ** -(places.max() + room)


def _draw_point(axes, x, found, named) -> None:
    if not named:
        for key, accuracy in found.items():
            colour = MEASURED if key == "measured" else PUBLISHED
            axes.plot(x, accuracy.percent, ".", color=colour, ms=5, alpha=0.5)
        return
    if len(found) == 2:
        ends = [a.percent for a in found.values()]
        axes.plot([x, x], ends, color="#999999", lw=1, zorder=2)
    if measured := found.get("measured"):
        spread = measured.std or None
        look = {"fmt": "o", "color": MEASURED, "ms": 7, "capsize": 3, "zorder": 3}
        axes.errorbar(x, measured.percent, spread, **look)
    if published := found.get("published"):
        axes.plot(x, published.percent, zorder=3, **_HOLLOW)


def _legend(data, shown, human, unnamed) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = []
    if measured := [found["measured"] for found in shown if "measured" in found]:
        titles = sorted({a.title for a in measured if a.title})
        label = f"measured on {', '.join(titles) or data}"
        if any(a.std is not None for a in measured):
            label += ", ± one standard deviation over the seeds"
        handles.append(Line2D([], [], color=MEASURED, marker="o", ls="", label=label))
    if any("published" in found for found in shown):
        handles.append(Line2D([], [], label="published", **_HOLLOW))
    if human:
        low, high = human.interval
        label = f"human: {human.accuracy:g} %, 95 % interval {low:.1f} to {high:.1f}"
        handles.append(Patch(color=HUMAN, alpha=0.35, label=label))
    if unnamed:
        dot = {"color": INK, "alpha": 0.5, "marker": ".", "ls": "", "ms": 5}
        handles.append(Line2D([], [], label="the same of other networks", **dot))
    return handles


def _name(axes, points) -> None:
    """Write the names of points (x, y, name or "") where they hide nothing."""
    import textalloc

    spots = axes.transData.transform([point[:2] for point in points])
    crowd = [sum(math.dist(a, b) < 60 for b in spots) for a in spots]
    # The most crowded first: it has the fewest places to choose from.
    order = sorted(range(len(points)), key=lambda i: (-crowd[i], points[i]))
    all_x, all_y, _ = zip(*points, strict=True)
    x, y, names = zip(*(points[i] for i in order if points[i][2]), strict=True)
    dots = {"x_scatter": all_x, "y_scatter": all_y}
    dots["scatter_sizes"] = [5] * len(points)  # pixels
    look = {"textsize": 9.5, "textcolor": INK, "linecolor": "#888888", "linewidth": 0.6}
    look |= {"margin": 0.001, "min_distance": 0.006, "max_distance": 0.25}
    look |= {"nbr_candidates": 3000, "avoid_crossing_label_lines": True}
    look["direction"] = ["east", "west"]  # first beside the point
    textalloc.allocate(axes, x, y, names, **dots, **look)
