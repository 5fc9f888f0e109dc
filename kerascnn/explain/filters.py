"""The filters of a layer."""

from dataclasses import dataclass, replace

import numpy as np

from kerascnn.explain.cell import arranged
from kerascnn.graph import find_layer, functional, leading_to, trace
from kerascnn.plotting import style
from kerascnn.plotting.style import number, shape_text
from kerascnn.tables import Column, Table

_LISTED = 12
_KERNELS = ("kernel", "depthwise_kernel")
_DEPTHWISE = "depthwise: each channel has filters of its own, one after the other"
_NOTES = {"DepthwiseConv2D": _DEPTHWISE, "SeparableConv2D": _DEPTHWISE}
_NOTES["Conv2DTranspose"] = "a transposed convolution's filters"


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of a layer."""

    model: str  #: its name
    layer: str  #: its name
    kind: str  #: class of the layer
    #: float32 (height, width, channels, filters). Of a dense layer behind a flattened
    #: image or map, each unit's weights laid out as the map is.
    filters: np.ndarray
    note: str  #: what was done to have them in this form; may be empty

    @property
    def norms(self) -> np.ndarray:
        """Length of each filter as a vector, (filters,)."""
        return np.sqrt((self.filters.astype(np.float64) ** 2).sum((0, 1, 2)))

    @property
    def table(self) -> Table:
        """The filters as a table, in their order."""
        columns = [
            Column("filter", "filter"),
            Column("norm", "length", number),
            Column("least", "least", number),
            Column("mean", "mean", number),
            Column("greatest", "greatest", number),
            Column("channel", "strongest channel"),
        ]
        rows = []
        for k, norm in enumerate(self.norms):
            ends = style.extent(self.filters[..., k])
            row = {"filter": k, "norm": float(norm), **ends, "channel": self.channel(k)}
            rows.append(row)
        *shape, count = self.filters.shape
        title = f"{self.layer} ({self.kind}) of {self.model}: {count} filters of "
        title += f"{shape_text(shape)}: {self.filters.size:,} weights"
        return Table(columns, rows, title, [self.note] if self.note else [])

    def channel(self, filter: int) -> int:
        """Return which of the channels that a filter sees it is longest in."""
        return int((self.filters[..., filter] ** 2).sum((0, 1)).argmax())

    def __str__(self) -> str:
        table = self.table
        lines = [str(replace(table, rows=table.rows[:_LISTED]))]
        if (more := len(table.rows) - _LISTED) > 0:
            lines.append(f"… and {more} more")
        height, width, channels, _ = self.filters.shape
        if max(height, width) <= 9:
            for c in range(channels) if channels <= 4 else [self.channel(0)]:
                lines.append(f"filter 0, channel {c}:")
                lines.append(style.matrix_text(self.filters[..., c, 0]))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return the table as values that JSON can hold."""
        return {
            "model": self.model,
            "layer": self.layer,
            "shape": list(self.filters.shape),
            "filters": [dict(row) for row in self.table.rows],
        }

    def _tile(self, k: int):
        """One filter's picture and title."""
        weights, channels = self.filters[..., k], self.filters.shape[2]
        if channels == 3:
            return 0.5 + weights / (2 * (float(np.abs(weights).max()) or 1.0)), f"{k}"
        c = self.channel(k)
        return weights[..., c], f"{k}" if channels == 1 else f"{k}: channel {c}"

    @style.drawn
    def plot(self, *, most: int = 64):
        """Draw the filters: in colour where they see an RGB image, else by sign.

        Filters over three channels are drawn as pictures, each with its weights from
        -m to m (m: its greatest absolute weight) as black to full colour, so that grey
        is 0. Of others, the channel in which the filter is longest is drawn.

        Args:
            most: the most filters to draw.
        """
        *shape, count = self.filters.shape
        rows = style.in_rows([self._tile(k) for k in range(min(count, most))])
        figure = style.canvas(1.6 + 1.2 * len(rows[0]), 1.5 + 1.35 * len(rows))
        axes = figure.subplots()
        limit = float(np.abs(self.filters).max()) or 1.0
        drawn = style.tiles(axes, rows, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
        what = "; red, green and blue weights as a colour, grey is 0"
        if shape[-1] != 3:
            figure.colorbar(drawn, ax=axes, label="weight", shrink=0.8)
            several = shape[-1] > 1
            what = "; each by the channel where it is longest" if several else ""
        some = f"the first {most} of " if most < count else ""
        title = f"{self.layer} of {self.model}: {some}{count} filters of "
        figure.suptitle(title + shape_text(shape) + what, fontsize=10, wrap=True)
        return figure


def filters(model, layer=None) -> Filters:
    """Return the filters of a layer.

    Args:
        model: a built Keras model.
        layer: name of a convolutional or dense layer, or the layer itself, also inside
            of a nested model ("encoder/conv1"); default: the first layer with filters.

    Raises ValueError: there is no such layer, or it has no filters.
    """
    layers = _layers(model)
    kernels = {n: k for n, x in layers.items() if (k := _kernel(x)) is not None}
    if not kernels:
        raise ValueError(f"{model.name} has no layer with filters")
    if layer is None:
        layer = next(iter(kernels))
    elif not isinstance(layer, str):
        layer = next((n for n, x in layers.items() if x is layer), layer.name)
    name = find_layer(layer, layers)
    found, kind = layers[name], type(layers[name]).__name__
    if name not in kernels:
        able = ", ".join(kernels)
        raise ValueError(f"{name} ({kind}) has no filters; those that have: {able}")
    weights, note = arranged(found, kernels[name]), _NOTES.get(kind, "")
    if len(kernels[name].shape) == 2:
        shape = _flattened(model, found)
        note = "a dense layer: each unit's weights, one channel each"
        if shape and np.prod(shape) == weights.shape[2]:
            weights = weights.reshape(*shape, -1)
            note = f"each unit's weights as the {shape_text(shape)} map that was "
            note += "flattened"
    return Filters(model.name, name, kind, weights, note)


def _layers(model) -> dict:
    """Every layer, by its name behind those of the models around it."""
    found: dict = {}

    def walk(part, path):
        for layer in part._flatten_layers(include_self=False, recursive=False):
            if layer is functional(part):  # what a Sequential model keeps inside
                continue
            name = f"{path}{layer.name}"
            if functional(layer) is None:
                found.setdefault(name, layer)
            walk(layer, f"{name}/")

    walk(model, "")
    return found


def _kernel(layer):
    """The weights that are filters: of 2 (dense) or 4 dimensions."""
    kernels = (getattr(layer, name, None) for name in _KERNELS)
    known = (k for k in kernels if k is not None and len(k.shape) in (2, 4))
    return next(known, None)


def _flattened(model, layer) -> tuple[int, ...] | None:
    """The shape (H, W, C) that was flattened before a dense layer, if one was."""
    graph = trace(model)
    calls = graph.calls if graph else ()
    own = next((call for call in calls if call.operation is layer), None)
    for call in reversed(leading_to(graph, own.inputs[0])) if own else ():
        kind = type(call.operation).__name__
        if kind in ("Flatten", "Reshape"):
            shape = tuple(call.inputs[0].shape[1:])
            return shape if len(shape) == 3 and None not in shape else None
        if "Dropout" not in kind and kind not in ("Activation", "Identity"):
            break
    return None
