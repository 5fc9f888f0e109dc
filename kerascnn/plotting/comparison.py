"""The pictures of a comparison: accuracy against cost, or cost alone."""

import math

from kerascnn.plotting.style import BLUE, GREEN, INK, VERMILION
from zoo.references import Reference

MEASURED, PUBLISHED, HUMAN = BLUE, VERMILION, GREEN
COSTS = (
    ("parameters", "Parameters"),
    ("macs", "Multiply-accumulates for one image"),
)
_TICKS = (10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5)


def scatter(comparison, human: Reference | None):
    """Draw accuracy against parameters and against multiply-accumulates.

    The error, 100 % less the accuracy, has a logarithmic scale: from 90 to 95 % is as
    far as from 80 to 90 %.

    Args:
        comparison: a `kerascnn.comparison.Comparison` with at least one accuracy.
        human: what a human reaches on the same images, if that is known.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [e for e in comparison.entries if _accuracies(comparison, e)]
    height = 7.5 + 0.12 * max(0, len(shown) - 12)  # room for many names
    figure = Figure(figsize=(14, height), layout="constrained")
    FigureCanvasAgg(figure)  # measures the names, so that they do not overlap
    panels = figure.subplots(1, 2, sharey=True)
    values = [a.percent for e in shown for a in _accuracies(comparison, e).values()]
    if human:
        values += human.interval
    low, high = _limits(values)
    for axes, (key, title) in zip(panels, COSTS, strict=True):
        points = [(getattr(e, key), e) for e in shown if getattr(e, key)]
        # Below 0.001 % the scale ends: no test set can tell.
        axes.set_yscale(
            "function",
            functions=(
                lambda y: -np.log10(np.maximum(100 - y, 1e-3)),
                lambda z: 100 - 10.0**-z,
            ),
        )
        axes.set_xscale("log")
        axes.set_ylim(low, high)
        _widen(axes, [x for x, _ in points])
        axes.set_yticks([t for t in _TICKS if low <= t <= high], minor=False)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(_none())
        if human:
            _draw_human(axes, human)
        for x, entry in points:
            _draw_point(axes, x, _accuracies(comparison, entry))
        axes.set_title(f"Accuracy and {title.lower()}")
        axes.set_xlabel(f"{title} (log scale)")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(
        f"Test accuracy on {_data(comparison)} (%), error on a log scale"
    )
    _legend(figure, comparison, shown, human)
    _say_missing(figure, comparison, shown)
    figure.draw_without_rendering()
    for axes, (key, _) in zip(panels, COSTS, strict=True):
        labels = [
            (getattr(e, key), a.percent, e.name)
            for e in shown
            if getattr(e, key)
            for a in list(_accuracies(comparison, e).values())[:1]
        ]
        others = [
            (getattr(e, key), a.percent)
            for e in shown
            if getattr(e, key)
            for a in _accuracies(comparison, e).values()
        ]
        _label(figure, axes, labels, others)
    return figure


def bars(comparison):
    """Draw the parameters and multiply-accumulates of each model as bars.

    Args:
        comparison: a `kerascnn.comparison.Comparison`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    entries = comparison.entries
    height = 1.8 + 0.42 * len(entries)
    figure = Figure(figsize=(13, height), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    places = range(len(entries))
    for axes, (key, title), colour in zip(
        panels, COSTS, (MEASURED, PUBLISHED), strict=True
    ):
        values = [getattr(e, key) for e in entries]
        known = [v for v in values if v]
        axes.set_xscale("log")
        least = 10 ** math.floor(math.log10(min(known)) - 0.5) if known else 0.1
        most = max(known, default=10)
        # Room for the numbers behind the bars.
        axes.set_xlim(least, most * (most / least) ** 0.32)
        for place, value in zip(places, values, strict=True):
            if value:
                axes.barh(place, value - least, left=least, color=colour, height=0.66)
            axes.annotate(
                "unknown" if value is None else f"{value:,}",
                (value or least, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.set_title(title)
        axes.set_xlabel(f"{title} (log scale)")
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
    panels[0].set_yticks(places, [e.name for e in entries])
    panels[0].set_ylim(len(entries) - 0.4, -0.6)  # the first model on top
    return figure


def _accuracies(comparison, entry) -> dict:
    found = {key: comparison.accuracy(entry, key) for key in ("measured", "published")}
    return {key: accuracy for key, accuracy in found.items() if accuracy}


def _limits(values) -> tuple[float, float]:
    """Limits of the accuracy: the same room in the scale below and above."""
    places = [-math.log10(max(100 - v, 1e-3)) for v in values]
    room = 0.08 * max(max(places) - min(places), 0.2)
    return tuple(100 - 10**-(p) for p in (min(places) - room, max(places) + room))


def _widen(axes, values) -> None:
    if values:
        room = (max(values) / min(values)) ** 0.14 * 1.6
        axes.set_xlim(min(values) / room, max(values) * room)


def _none():
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _draw_human(axes, human) -> None:
    axes.axhspan(*human.interval, color=HUMAN, alpha=0.13, lw=0)
    axes.axhline(human.accuracy, color=HUMAN, lw=1.2, ls="--")


def _draw_point(axes, x, accuracies) -> None:
    if len(accuracies) == 2:
        ends = [a.percent for a in accuracies.values()]
        axes.plot([x, x], ends, color="#999999", lw=1, zorder=2)
    if (measured := accuracies.get("measured")) is not None:
        axes.errorbar(
            x,
            measured.percent,
            yerr=measured.std or None,
            fmt="o",
            color=MEASURED,
            ms=7,
            capsize=3,
            zorder=3,
        )
    if (published := accuracies.get("published")) is not None:
        axes.plot(
            x, published.percent, "D", mfc="white", mec=PUBLISHED, mew=1.6, zorder=3
        )


def _legend(figure, comparison, shown, human) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = {key for e in shown for key in _accuracies(comparison, e)}
    handles = []
    if "measured" in drawn:
        found = [_accuracies(comparison, e).get("measured") for e in shown]
        titles = sorted({a.title for a in found if a and a.title})
        label = f"measured on {', '.join(titles) or comparison.data}"
        if any(a and a.std is not None for a in found):
            label += ", ± one standard deviation over the seeds"
        handles.append(Line2D([], [], color=MEASURED, marker="o", ls="", label=label))
    if "published" in drawn:
        handles.append(
            Line2D(
                [],
                [],
                mfc="white",
                mec=PUBLISHED,
                mew=1.6,
                marker="D",
                ls="",
                label="published",
            )
        )
    if human:
        low, high = human.interval
        label = f"human: {human.accuracy:g} %, 95 % interval {low:.1f} to {high:.1f}"
        handles.append(Patch(color=HUMAN, alpha=0.35, label=label))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
    )


def _data(comparison) -> str:
    return {"cifar10": "CIFAR-10"}.get(comparison.data, comparison.data)


_NAMED = 6  # of those that are not drawn


def _say_missing(figure, comparison, shown) -> None:
    missing = [e.name for e in comparison.entries if e not in shown]
    missing += [f"{e.name} (MACs)" for e in shown if not e.macs]
    title = f"What accuracy on {_data(comparison)} costs"
    if len(missing) > _NAMED:
        missing[_NAMED:] = [f"{len(missing) - _NAMED} more"]
    if missing:
        title += f"\nnot drawn, as unknown: {', '.join(missing)}"
    figure.suptitle(title, wrap=True)


# Where a name may stand: directions around its point, and distances in points.
_DIRECTIONS = [
    math.radians(d) for d in (0, 180, *range(30, 180, 30), *range(210, 360, 30))
]
_DISTANCES = (9, 14, 21, 30, 41, 54, 69, 86, 105, 126)
# Costs, in points of distance: what a line from a name to its point may run across.
_ACROSS_LINE, _ACROSS_POINT = 60, 25


def _label(figure, axes, labels, points) -> None:
    """Write each name near its point where it hides nothing.

    Args:
        figure: the figure, drawn with Agg.
        axes: the panel.
        labels: (x, y, name) of each model.
        points: (x, y) of all markers.
    """
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    scale = figure.dpi / 72  # pixels of a point
    spots = [tuple(axes.transData.transform(point)) for point in points]
    markers = {(x, y): (x - 6, y - 6, x + 6, y + 6) for x, y in spots}
    names: list[tuple] = []
    lines: list[tuple] = []
    # The most crowded first: it has the fewest places to choose from.
    places = {label: tuple(axes.transData.transform(label[:2])) for label in labels}
    crowd = {
        label: sum(math.dist(place, other) < 60 for other in spots)
        for label, place in places.items()
    }
    for label in sorted(labels, key=lambda label: (-crowd[label], label)):
        spot = places[label]
        width, height = _size(figure, renderer, label[2])
        taken = [*markers.values(), *names]
        best, least = None, math.inf
        for distance in _DISTANCES:
            for direction in _DIRECTIONS:
                x = spot[0] + scale * distance * math.cos(direction)
                y = spot[1] + scale * distance * math.sin(direction)
                # The side of the name that is nearest to the point is at (x, y).
                left = x - width * (1 - math.cos(direction)) / 2
                low = y - height * (1 - math.sin(direction)) / 2
                box = (left, low, left + width, low + height)
                line = (spot, (x, y))
                inside = left > frame.x0 and box[2] < frame.x1
                inside = inside and low > frame.y0 and box[3] < frame.y1
                if not inside or any(_overlap(box, other) for other in taken):
                    continue
                cost = distance
                cost += _ACROSS_LINE * sum(
                    _crossing(line, other) or _through(other, box) for other in lines
                )
                cost += _ACROSS_POINT * sum(
                    _through(line, other)
                    for place, other in markers.items()
                    if place != spot
                )
                cost += _ACROSS_POINT * sum(_through(line, name) for name in names)
                if cost < least:
                    best, least = (box, line, distance), cost
        if best is None:  # more names than room: better one that hides than none
            best = ((*spot, spot[0] + width, spot[1] + height), (spot, spot), 0)
        box, line, distance = best
        names.append(box)
        if distance > _DISTANCES[0]:
            lines.append(line)
            ends = axes.transData.inverted().transform(line)
            axes.plot(*ends.T, color="#AAAAAA", lw=0.8, zorder=1)
        axes.annotate(
            label[2],
            axes.transData.inverted().transform(box[:2]),
            fontsize=_NAMES,
            color=INK,
        )


_NAMES = 8.5


def _size(figure, renderer, name: str) -> tuple[float, float]:
    """Width and height of a name in pixels."""
    text = figure.text(0, 0, name, fontsize=_NAMES)
    box = text.get_window_extent(renderer)
    text.remove()
    return box.width, box.height


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _crossing(one, other) -> bool:
    """Whether two lines, each from one point to another, cross."""

    def side(a, b, c):
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    (a, b), (c, d) = one, other
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _through(line, box) -> bool:
    """Whether a line runs through a box."""
    x0, y0, x1, y1 = box
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    sides = zip(corners, [*corners[1:], corners[0]], strict=True)
    return any(_crossing(line, side) for side in sides)
