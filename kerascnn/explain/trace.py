"""An image's way through a network: shapes, the strongest maps, one value's sum."""

from dataclasses import dataclass

import numpy as np

from kerascnn.explain.cell import Cell, cell_at
from kerascnn.explain.recording import Recording, prepared, record, shown_image
from kerascnn.plotting.style import (
    SEQUENTIAL,
    canvas,
    drawn,
    number,
    picture,
    shape_text,
    tiles,
)
from kerascnn.receptive_field import most_pixels, receptive_fields
from kerascnn.tables import Column, Table


@dataclass(frozen=True, eq=False)
class Stage:
    """What one call of a layer gives for the image."""

    name: str  #: of the call
    kind: str  #: class of the layer
    shape: tuple[int, ...]  #: of its output, without the batch
    field: tuple[int, ...] | str | None  #: (height, width) that it sees; "all"; unknown
    least: float  #: of the output's values
    mean: float
    greatest: float
    zeros: float  #: share of the values that are exactly 0, in percent
    strongest: tuple[int, ...]  #: channels of the greatest mean absolute value
    strengths: tuple[float, ...]  #: their mean absolute values
    maps: np.ndarray | None  #: float32 (H, W, n), the strongest; None for vectors


@dataclass(frozen=True, eq=False)
class Trace:
    """The way of an image through a network."""

    model: str  #: name of the model
    image: np.ndarray  #: (H, W, C)
    stages: tuple[Stage, ...]  #: one for each call of a layer, in order
    cell: Cell | None  #: the sum behind one value, where a layer was named

    @property
    def table(self) -> Table:
        """The stages as a table: text, Markdown, CSV, JSON."""
        columns = [
            Column("name", "layer", right=False),
            Column("kind", "kind", right=False, optional=3),
            Column("shape", "output", shape_text),
            Column("field", "sees", _field_text),
            Column("least", "least", number, optional=2),
            Column("mean", "mean", number),
            Column("greatest", "greatest", number),
            Column("zeros", "zeros %", lambda v: f"{v:.0f}", optional=1),
            Column("strongest", "strongest maps", _numbers, right=False),
        ]
        rows = [
            {c.key: getattr(stage, c.key) for c in columns} for stage in self.stages
        ]
        notes = [
            "sees: receptive field on the image, in pixels. Strongest maps: channels "
            "(units) of the greatest mean absolute value."
        ]
        title = f"{shape_text(self.image.shape)} image through {self.model}"
        return Table(columns, rows, title=title, notes=notes)

    def __str__(self) -> str:
        text = str(self.table)
        return text if self.cell is None else f"{text}\n\n{self.cell}"

    def to_dict(self) -> dict:
        """Return the stages and the cell as values that JSON can hold."""
        rows = [dict(row) for row in self.table.rows]
        return {
            "model": self.model,
            "stages": rows,
            "cell": None if self.cell is None else self.cell.to_dict(),
        }

    @drawn
    def plot(self, *, most: int = 16):
        """Draw the image and the strongest maps of the layers, a row for each layer.

        Args:
            most: the most layers to draw; of more, those with kernels and the last
                of each size are chosen evenly.
        """
        stages = [s for s in self.stages if s.maps is not None]
        if len(stages) > most:
            chosen = np.linspace(0, len(stages) - 1, most).round().astype(int)
            stages = [stages[i] for i in chosen]
        columns = max([s.maps.shape[-1] for s in stages], default=1)
        shown = picture(self.image)
        if shown.ndim == 2:  # grey, and not the colours of the maps
            shown = np.repeat(shown[..., None], 3, -1)
        rows = [[(shown, "image")]]
        heads = [f"image\n{shape_text(self.image.shape)}"]
        for stage in stages:
            heads.append(f"{stage.name}\n{stage.kind}\n{shape_text(stage.shape)}")
            row = []
            for i, k in enumerate(stage.strongest):
                values = stage.maps[..., i]
                ends = f"{number(values.min())} … {number(values.max())}"
                row.append((values, f"map {k}: {ends}"))
            rows.append(row)
        figure = canvas(1.6 + 1.3 * columns, 0.6 + 1.5 * len(rows))
        tiles(figure.subplots(), rows, heads=heads, cmap=SEQUENTIAL)
        figure.suptitle(
            f"The strongest maps of {self.model},\neach from its least value (dark) to "
            "its greatest (bright)",
            fontsize=10,
        )
        return figure


def _field_text(field) -> str:
    return field if isinstance(field, str) else shape_text(field)


def _numbers(values) -> str:
    return ", ".join(map(str, values))


def trace(model, image, layer=None, cell=None, *, strongest: int = 3) -> Trace:
    """Follow an image through a model, layer by layer, and one value down to its sum.

    Args:
        model: a Keras model of one image: functional, Sequential, nested, with custom
            and shared layers; a subclassed one too, without receptive fields.
        image: (H, W, C), pixels as the model takes them.
        layer: name of a convolutional or dense layer, to take one of its values apart;
            "encoder/conv1" inside a nested model, "conv1:2" for the second call of a
            shared layer.
        cell: (row, column, channel) of the value, (unit,) of a dense layer; default:
            where the layer's output is greatest.
        strongest: how many maps of each layer to keep.

    Returns:
        A `Trace`: `print` it, `.plot()` it; `.cell` is the sum, with its `.plot()`.

    Raises:
        ValueError: the image is not of the model's shape; there is no such layer or
            place; a cell without a layer; or the layer is no convolution or dense
            layer.
        RuntimeError: the sum by hand differs from the model's value.
    """
    if cell is not None and layer is None:
        raise ValueError(f"a cell is in a layer: name the layer; received cell={cell}")
    if strongest < 1:
        raise ValueError(f"strongest must be 1 or more; received {strongest}")
    seen = record(model, prepared(model, image))
    shown = shown_image(image)
    found = None
    if layer is not None:
        found = cell_at(seen, seen.find(layer), cell, shown)
    fields = receptive_fields(seen.graph) if seen.connected else {}
    stages = tuple(
        _stage(seen, position, fields, strongest) for position in range(len(seen.calls))
    )
    return Trace(model.name, shown, stages, found)


def _stage(seen: Recording, position: int, fields, count: int) -> Stage:
    call = seen.calls[position]
    values = seen.values(position)[0]
    flat = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    strength = np.abs(flat).mean(0)
    order = np.argsort(-strength, kind="stable")[:count]
    return Stage(
        name=seen.names[position],
        kind=type(call.operation).__name__,
        shape=values.shape,
        field=most_pixels([fields.get(id(call.outputs[0]))]),
        least=float(values.min()),
        mean=float(values.mean()),
        greatest=float(values.max()),
        zeros=100 * float((values == 0).mean()),
        strongest=tuple(int(i) for i in order),
        strengths=tuple(float(s) for s in strength[order]),
        maps=values[..., order] if values.ndim == 3 else None,
    )
