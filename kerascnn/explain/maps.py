"""The activation maps of a layer for an image."""

from dataclasses import dataclass, replace

import numpy as np

from kerascnn.explain.recording import last_maps, prepared, record, shown_image
from kerascnn.plotting import style
from kerascnn.plotting.style import number, shape_text
from kerascnn.tables import Column, Table

_LISTED = 12


@dataclass(frozen=True, eq=False)
class ActivationMaps:
    """What a layer gives for an image."""

    model: str  #: its name
    layer: str  #: name of the layer's call
    kind: str  #: class of the layer
    image: np.ndarray  #: (H, W, C)
    maps: np.ndarray  #: float32 (H, W, channels), or (units,) of a dense layer

    @property
    def strengths(self) -> np.ndarray:
        """Mean absolute value of each map, (channels,)."""
        return np.abs(self.maps.reshape(-1, self.maps.shape[-1])).mean(0)

    @property
    def strongest(self) -> np.ndarray:
        """Numbers of the maps, that of the greatest mean absolute value first."""
        return np.argsort(-self.strengths, kind="stable")

    @property
    def table(self) -> Table:
        """The maps as a table, the strongest first."""
        flat = self.maps.ndim == 1
        columns = [
            Column("map", "map"),
            Column("strength", "mean |value|", number),
            Column("least", "least", number),
            Column("mean", "mean", number),
            Column("greatest", "greatest", number),
            Column("at", "greatest at (row, column)", str, right=False),
            Column("zeros", "zeros %", "{:.0f}".format),
        ]
        if flat:
            columns = [Column("map", "unit"), Column("mean", "value", number)]
        rows, strengths = [], self.strengths
        for k in self.strongest:
            values = self.maps[..., k]
            row = {"map": int(k), "strength": float(strengths[k])}
            row |= style.extent(values)
            row["at"] = None if flat else style.place(values)
            rows.append({**row, "zeros": 100 * float((values == 0).mean())})
        title = f"{self._head()}: {shape_text(self.maps.shape)}"
        return Table(columns, rows, title)

    def _head(self) -> str:
        return f"{self.layer} ({self.kind}) of {self.model}"

    def __str__(self) -> str:
        table = self.table
        lines = [str(replace(table, rows=table.rows[:_LISTED]))]
        if (more := len(table.rows) - _LISTED) > 0:
            lines.append(f"… and {more} weaker ones")
        if self.maps.ndim == 3:
            k = int(self.strongest[0])
            values = self.maps[..., k]
            ends = f"space {number(values.min())}, @ {number(values.max())}"
            lines += [f"map {k}, the strongest ({ends}):", style.shades(values)]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return the table as values that JSON can hold."""
        return {
            "model": self.model,
            "layer": self.layer,
            "shape": list(self.maps.shape),
            "maps": [dict(row) for row in self.table.rows],
        }

    @style.drawn
    def plot(self, *, most: int = 48):
        """Draw the maps beside the image, the strongest first, each on its own scale.

        Args:
            most: the most maps to draw.
        """
        shown, count = self.strongest[:most], self.maps.shape[-1]
        some = f", the {len(shown)} strongest" if len(shown) < count else ""
        if self.maps.ndim == 1:
            shown = np.sort(shown)
            figure = style.canvas(11, 4)
            left, axes = figure.subplots(1, 2, width_ratios=(1, 2.4))
            style.draw_image(left, self.image, "image")
            axes.bar(range(len(shown)), self.maps[shown], color=style.BLUE)
            turned = 90 if shown[-1] > 99 else 0  # long numbers, beside one another
            axes.set_xticks(range(len(shown)), shown, fontsize=7, rotation=turned)
            axes.axhline(0, color="#333333", lw=0.8)
            axes.set(xlabel="unit", ylabel="activation")
            figure.suptitle(f"{self._head()}: {count} units{some}")
            return figure
        maps = np.moveaxis(self.maps, -1, 0)[shown]
        cells = [style.tile(k, values) for k, values in zip(shown, maps, strict=True)]
        rows = style.in_rows(cells, 6)
        wide = 1.25 * len(rows[0])
        figure = style.canvas(3.6 + wide, max(3.6, 1.0 + 1.35 * len(rows)))
        left, right = figure.subfigures(1, 2, width_ratios=(3.2, wide))
        style.draw_image(left.subplots(), self.image, "image")
        style.tiles(right.subplots(), rows, cmap=style.SEQUENTIAL)
        title = f"{self._head()}: {count} maps of {shape_text(self.maps.shape[:2])}"
        title += f"{some}; each from its least (dark) to its greatest value"
        figure.suptitle(title, fontsize=10, wrap=True)
        return figure


def activation_maps(model, image, layer=None) -> ActivationMaps:
    """Return what one layer gives for an image.

    Args:
        model: a Keras model of one image.
        image: (H, W, C), pixels as the model takes them.
        layer: its name, or the layer, as `kerascnn.explain.trace` lists them; default:
            the last layer with feature maps that is no pooling.

    Raises ValueError: there is no such layer, its output is neither maps nor a vector,
    or the image is not of the model's shape.
    """
    seen = record(model, prepared(model, image))
    position = last_maps(seen) if layer is None else seen.find(layer)
    name, kind = seen.names[position], type(seen.calls[position].operation).__name__
    values, shown = seen.maps(position), shown_image(image)
    return ActivationMaps(model.name, name, kind, shown, values)
