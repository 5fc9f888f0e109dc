"""The volumes that an image becomes on its way, and what each of them costs."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from kerascnn.graph import leading_to, trace
from kerascnn.plotting import style
from kerascnn.plotting.style import BLUE, INK, ORANGE, PALE, SKY, VERMILION, shape_text
from kerascnn.summary import Row, Summary, summarize
from kerascnn.tables import Column, Table

_LINES = 4  # of kinds of layers, below a volume
_ACROSS = 9  # volumes in a line: on a page the letters of more would be too small
_FEW = 12  # layers, of which each that changes the shape makes a volume


@dataclass(frozen=True)
class Volume:
    """The layers from one reduction of height and width to the next."""

    shape: tuple[int, ...]  #: of the last output among them: (H, W, C) or (units,)
    layers: tuple[tuple[str, int], ...]  #: class and number, of what computes or pools
    parameters: int  #: of all layers among them
    macs: int | None  #: multiply-accumulates for one image; None if unknown

    @property
    def layers_text(self) -> str:
        """The layers in words: "2 Conv2D, MaxPooling2D"."""
        return ", ".join(_words(self.layers)) or "-"


@dataclass(frozen=True)
class Volumes:
    """A network as the volumes that an image becomes."""

    model: str  #: name of the model
    volumes: tuple[Volume, ...]  #: the image first, the answer last
    aside: int  #: parameters of what only other outputs depend on

    @property
    def table(self) -> Table:
        """The volumes as a table: text, Markdown, CSV, JSON."""
        columns = (
            Column("shape", "Volume", shape_text, right=False),
            Column("layers", "Layers", right=False),
            Column("parameters", "Parameters", "{:,}".format),
            Column("parameter_share", "of all", _percent),
            Column("macs", "MACs", "{:,}".format, unknown="?"),
            Column("mac_share", "of all", _percent),
        )
        rows = []
        shares = (_shares(values) for values in self._costs())
        for volume, parameters, macs in zip(self.volumes, *shares, strict=True):
            row = {"shape": volume.shape, "layers": volume.layers_text}
            row |= {"parameters": volume.parameters, "parameter_share": parameters}
            rows.append({**row, "macs": volume.macs, "mac_share": macs})
        note = f"aside, on the way to other outputs: {self.aside:,} parameters"
        return Table(columns, rows, self.model, (note,) if self.aside else ())

    def _costs(self) -> tuple[list[int], list[int | None]]:
        """The parameters and the multiply-accumulates of the volumes."""
        return [v.parameters for v in self.volumes], [v.macs for v in self.volumes]

    def __str__(self) -> str:
        return self.table.to_text()

    @property
    def description(self) -> str:
        """What the picture shows, in a sentence."""
        parts = [
            f"{shape_text(v.shape)} ({v.layers_text}; {v.parameters:,} parameters)"
            if v.layers
            else shape_text(v.shape)
            for v in self.volumes
        ]
        return (
            f"The volumes of {self.model}, from the image to the answer: "
            f"{', then '.join(parts)}. Below, each one's share of the parameters and "
            "multiply-accumulates."
        )

    @style.drawn
    def plot(self):
        """Draw the volumes as boxes, and below each what it costs."""
        count = len(self.volumes)
        lines = -(-count // _ACROSS)
        across = -(-count // lines)
        size = (max(7.0, 1.3 + 1.1 * across), 0.87 + 5.33 * lines)
        figure = style.canvas(*size, layout=None)
        # Fixed places: to lay them out takes longer than all the rest.
        sides = {"left": 0.75 / size[0], "right": 0.985, "hspace": 0.34}
        parameters, macs = self._costs()
        for line in range(lines):  # each draws all, and shows its part
            top = 1 - (0.87 + 5.33 * line) / size[1]
            bottom = 1 - (0.56 + 5.33 * (line + 1)) / size[1]
            panels = figure.add_gridspec(
                3, 1, height_ratios=(2.6, 1, 1), top=top, bottom=bottom, **sides
            ).subplots(sharex=True)
            _draw_boxes(panels[0], self.volumes)
            panels[0].set_xlim(across * line - 0.6, across * (line + 1) - 0.4)
            _draw_shares(panels[1], "parameters", parameters, BLUE)
            _draw_shares(panels[2], "multiply-accumulates", macs, VERMILION)
        aside = f"; aside: {self.aside:,} parameters" if self.aside else ""
        title = f"{self.model}: from the image to the answer{aside}"
        figure.text(0.5, 1 - 0.25 / size[1], title, ha="center", fontsize=12)
        note = "height and width: root of the pixels; thickness: log of the channels"
        place = 1 - 0.46 / size[1]
        figure.text(0.5, place, note, ha="center", fontsize=8, color=INK)
        return figure


def volumes(model, *, summary: Summary | None = None) -> Volumes:
    """Follow an image through a network as volumes, and count what each one costs.

    A pooling or a stride begins a volume, which holds the layers up to the next: a
    block of branches is part of one, however many layers it has. Fully-connected
    layers make one each; of a network without branches of up to 12 layers, each layer
    that changes the shape does.

    Args:
        model: a functional or Sequential `keras.Model` of images, channels last. Only
            its shapes are read, so that `kerascnn.graph.without_weights` will do.
        summary: what `summarize(model)` returned, where it is at hand.

    Raises TypeError: `model` is no Keras model; ValueError: the model is not built, or
    it is subclassed.

    Source: the lecture, slide "Architecture", which writes the CNN as its volumes.
    """
    summary = summarize(model) if summary is None else summary
    graph = trace(model)
    if graph is None:
        raise ValueError(
            "volumes needs the graph of a functional or Sequential model; received "
            f"the {type(model).__name__} {model.name!r}: summarize shows its parameters"
        )
    calls = leading_to(graph, graph.outputs[0])
    needed = {(c.parents[0] if c.parents else c.operation).name for c in calls}
    rows = [r for r in summary.rows if r.level == 0 and r.output_shape is not None]
    way = [r for r in rows if r.name in needed or r.type == "InputLayer"]
    strides = {x.name: np.max(getattr(x, "strides", 1)) for x in model.operations}
    computing = sum(bool(row.macs) or _pools(row) for row in way)
    apart = computing <= _FEW and all(len(call.inputs) < 2 for call in graph.calls)
    found = tuple(map(_volume, _grouped(way, strides, apart)))
    aside = summary.parameters - sum(v.parameters for v in found)
    return Volumes(model.name, found, aside)


def _grouped(rows: list[Row], strides: dict[str, int], apart: bool) -> list[list[Row]]:
    """Put rows together that make one volume: `apart` as each layer changes the shape.

    Else what a convolution without padding cuts off, or padding adds, opens none.
    """
    groups: list[list[Row]] = [[]]
    places: dict[tuple, list[Row]] = {}  # group of each size that was met
    rank = len(rows[0].output_shape)
    begun = False  # what only scales or pads the image is the image still
    for row in rows:
        size = _size(row)
        computes = bool(row.parameters or row.macs or _pools(row))
        if not begun and not computes and len(row.output_shape) == rank:
            groups[0].append(row)
            continue
        if len(size) < 2:
            # Layer by layer: two fully-connected ones of one length are two volumes.
            if row.macs or size not in places or places[size] is not groups[-1]:
                groups.append([])
                places[size] = groups[-1]
        elif size not in places or (apart and computes):
            last = _size(groups[-1][0])
            changed = row.output_shape != groups[-1][-1].output_shape
            opens = (
                not begun
                or (apart and computes and changed)
                or len(last) < 2
                or _pools(row)
                or strides.get(row.name, 1) > 1
                or math.prod(size) <= 0.36 * math.prod(last)
            )
            if opens:
                groups.append([])
            places[size] = groups[-1]
        begun = True
        places[size].append(row)
    return groups


def _volume(rows: list[Row]) -> Volume:
    kinds = Counter(r.type for r in rows if r.macs or _pools(r))
    # Of the image, what comes in; else what goes out, unless it is only padded.
    unpadded = [r for r in rows if "Padding" not in r.type] or rows
    shown = rows[0] if rows[0].type == "InputLayer" else unpadded[-1]
    return Volume(
        shape=tuple(shown.output_shape),
        layers=tuple(kinds.items()),
        parameters=sum(r.parameters for r in rows),
        macs=None if any(r.macs is None for r in rows) else sum(r.macs for r in rows),
    )


def _size(row: Row) -> tuple[int, ...]:
    """Height and width of maps; the length of a vector."""
    return tuple(row.output_shape[:-1] or row.output_shape)


def _pools(row: Row) -> bool:
    return "Pool" in row.type


def _words(layers) -> list[str]:
    return [kind if number == 1 else f"{number} {kind}" for kind, number in layers]


def _brief(kind: str) -> str:
    """Shorten a long name of a layer, for which a box has no room."""
    kind = kind.removesuffix("2D")
    if len(kind) > 15:
        kind = kind.replace("Normalization", "Norm").replace("Pooling", "Pool")
    return kind


def _shares(values) -> list[float | None]:
    """Shares of the sum, 0…1; None where it is not known."""
    if None in values:
        return [None] * len(values)
    return [value / (sum(values) or 1) for value in values]


def _percent(share: float) -> str:
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share else "0"


def _short(value: int) -> str:
    """Write a number in at most seven signs: "12,800", "1.24 M", "19.6 G"."""
    for size, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {sign}"
    return f"{value:,}"


def _draw_boxes(axes, found) -> None:
    """Draw each volume as a box; a vector as a bar."""
    from matplotlib.patches import Polygon

    side = max((max(v.shape[:-1]) for v in found if len(v.shape) > 1), default=1)
    deep = max(v.shape[-1] for v in found)

    def log(n):
        return math.log(n + 1) / math.log(deep + 1)

    middle = {"ha": "center"}
    for place, volume in enumerate(found):
        maps, last = len(volume.shape) > 1, log(volume.shape[-1])
        tall = math.sqrt(volume.shape[0] / side) if maps else 0.15 + 0.85 * last
        wide = 0.05 + 0.4 * last if maps else 0.08
        # The second side of a map, drawn aslant.
        away = math.sqrt(volume.shape[1] / side) if len(volume.shape) > 2 else 0.05
        dx, dy = 0.26 * away, 0.3 * away
        x, y = place - (wide + dx) / 2, -(tall + dy) / 2
        colour = PALE if place == 0 else SKY if maps else ORANGE
        if place == len(found) - 1:
            colour = VERMILION
        faces = (
            ([(0, 0), (wide, 0), (wide, tall), (0, tall)], 1.0),
            ([(0, tall), (wide, tall), (wide + dx, tall + dy), (dx, tall + dy)], 0.6),
            ([(wide, 0), (wide + dx, dy), (wide + dx, tall + dy), (wide, tall)], 0.8),
        )
        for corners, alpha in faces:
            corners = [(x + a, y + b) for a, b in corners]
            axes.add_patch(Polygon(corners, fc="white", ec="none"))
            axes.add_patch(Polygon(corners, fc=colour, ec=INK, lw=0.8, alpha=alpha))
        text, bold = shape_text(volume.shape), {"fontsize": 9, "fontweight": "bold"}
        axes.annotate(text, (place, 0.72), va="bottom", **bold, **middle)
        # There are no others here, and room is short.
        lines = _words((_brief(kind), n) for kind, n in volume.layers)
        if len(lines) > _LINES:
            lines[_LINES - 1 :] = [f"{len(lines) - _LINES + 1} more kinds"]
        text = "\n".join(lines) if place else "image"
        small = {"fontsize": 8, "linespacing": 1.2}
        axes.annotate(text, (place, -0.72), va="top", **small, **middle)
    axes.set_ylim(-1.15, 0.85)
    axes.axis("off")


def _draw_shares(axes, noun, values, colour) -> None:
    """Draw shares as bars, their values above them."""
    from matplotlib.ticker import MaxNLocator

    heights = [100 * (share or 0) for share in _shares(values)]
    bars = axes.bar(range(len(heights)), heights, color=colour, width=0.5)
    labels = ["unknown" if value is None else _short(value) for value in values]
    axes.bar_label(bars, labels, padding=2, fontsize=8)
    # With room for the values.
    axes.set(ylim=(0, 1.25 * (max(heights) or 100)), ylabel="%", xticks=[])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.set_title(f"Share of the {noun}", fontsize=9, loc="left", pad=3)
    axes.spines[["top", "right"]].set_visible(False)
