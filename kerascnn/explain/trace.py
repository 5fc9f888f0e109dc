"""An image's way through a network: shapes, the strongest maps, one value's sum."""

import contextlib
from dataclasses import dataclass

import numpy as np

from kerascnn import graph
from kerascnn.explain.cell import Cell, cell_at
from kerascnn.explain.recording import Recording, prepared, record, shown_image
from kerascnn.heads import head
from kerascnn.plotting import style
from kerascnn.plotting.style import number, shape_text
from kerascnn.prediction import Prediction, ranked
from kerascnn.receptive_field import most_pixels, receptive_fields
from kerascnn.tables import Column, Table

_SURE = 0.5  # below it no class is said to fit
_BARS = 5  # classes that are drawn
# Where one of these follows, it alone is drawn of a network of many layers.
_FOLLOWING = ("Activation", "BatchNormalization", "Dropout", "Gelu", "ReLU", "Relu")


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
    maps: np.ndarray | None  #: float32 (H, W, n), the strongest; None for vectors
    joint: bool  #: whether the whole answer passes through it, as a block's end


@dataclass(frozen=True, eq=False)
class Trace:
    """The way of an image through a network."""

    model: str  #: name of the model
    image: np.ndarray  #: (H, W, C)
    stages: tuple[Stage, ...]  #: one for each call of a layer, in order
    cell: Cell | None  #: the sum behind one value, where a layer was named
    answer: Prediction | None  #: None where the network is no classifier

    @property
    def table(self) -> Table:
        """The stages as a table: text, Markdown, CSV, JSON."""
        columns = [
            Column("name", "layer", right=False),
            Column("kind", "kind", right=False, optional=3),
            Column("shape", "output", shape_text),
            Column("field", "sees", lambda v: v if v == "all" else shape_text(v)),
            Column("least", "least", number, optional=2),
            Column("mean", "mean", number),
            Column("greatest", "greatest", number),
            Column("zeros", "zeros %", "{:.0f}".format, optional=1),
            Column(
                "strongest", "strongest maps", lambda v: ", ".join(map(str, v)), False
            ),
        ]
        rows = [{c.key: getattr(s, c.key) for c in columns} for s in self.stages]
        note = "sees: receptive field on the image, in pixels. Strongest maps: "
        note += "channels (units) of the greatest mean absolute value."
        title = f"{shape_text(self.image.shape)} image through {self.model}"
        return Table(columns, rows, title, [note])

    @property
    def fits(self) -> bool:
        """Whether a class has a probability of half or more."""
        return max(self.answer.probabilities.values(), default=0) >= _SURE

    def __str__(self) -> str:
        lines = [str(self.table)]
        if self.answer is not None:
            lines.append(f"the answer: {self.answer.top()}")
            if not self.fits:
                lines.append("no class reaches 50 %: the image may show none of them")
        return "\n".join(lines) + (f"\n\n{self.cell}" if self.cell else "")

    def to_dict(self) -> dict:
        """Return the stages, the answer and the cell as values that JSON can hold."""
        return {
            "model": self.model,
            "stages": [dict(row) for row in self.table.rows],
            "answer": self.answer and self.answer.probabilities,
            "cell": self.cell and self.cell.to_dict(),
        }

    def _drawn(self, most: int) -> list[Stage]:
        """The stages that are drawn: all that have maps, or the ends of blocks."""
        stages = [s for s in self.stages if s.maps is not None]
        if len(stages) > most:
            stages = [s for s in stages if s.joint] or stages
            kinds = [*(s.kind for s in stages[1:]), ""]  # what follows each
            shown = zip(stages, kinds, strict=True)
            stages = [s for s, then in shown if then not in _FOLLOWING]
            stages = [s for s in stages if "Padding" not in s.kind]
        places = np.linspace(0, len(stages) - 1, min(len(stages), most))
        return [stages[i] for i in places.round().astype(int)]

    @style.drawn
    def plot(self, *, most: int = 16):
        """Draw the image, the strongest maps of the layers in rows, and the answer.

        Args:
            most: the most layers to draw; of more, the ends of blocks, evenly.
        """
        shown = style.picture(self.image)
        if shown.ndim == 2:  # grey, and not the colours of the maps
            shown = np.repeat(shown[..., None], 3, -1)
        rows = [[(shown, "image")]]
        heads = [f"image\n{shape_text(self.image.shape)}"]
        for stage in self._drawn(most):
            heads.append(f"{stage.name}\n{stage.kind}\n{shape_text(stage.shape)}")
            maps = zip(stage.strongest, np.moveaxis(stage.maps, -1, 0), strict=True)
            rows.append([style.tile(k, values) for k, values in maps])
        tall, bars = 0.6 + 1.5 * len(rows), 0.0 if self.answer is None else 1.9
        figure = style.canvas(2.6 + 1.3 * max(map(len, rows)), tall + bars)
        heights = [tall, bars] if bars else [tall]
        parts = figure.subfigures(len(heights), 1, False, height_ratios=heights)[:, 0]
        style.tiles(parts[0].subplots(), rows, heads=heads, cmap=style.SEQUENTIAL)
        title = f"The strongest maps of {self.model},\neach from its least value (dark)"
        figure.suptitle(f"{title} to its greatest (bright)", fontsize=10)
        if bars:
            self._draw_answer(parts[1].subplots())
        return figure

    def _draw_answer(self, axes) -> None:
        best = list(self.answer.probabilities.items())[:_BARS]
        values = [100 * value for _, value in best]
        colour = style.BLUE if self.fits else style.ORANGE
        bars = axes.barh([label for label, _ in best], values, color=colour)
        axes.bar_label(bars, fmt="%.1f %%", padding=3, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlim=(0, 119), xticks=[0, 50, 100])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        title = "the answer, %" if self.fits else "no class reaches 50 %"
        axes.set_title(title, fontsize=9)


def trace(
    model, image, layer=None, cell=None, *, strongest: int = 3, labels=None
) -> Trace:
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
        labels: names of the classes; default: their numbers.

    Raises:
        ValueError: the image is not of the model's shape; there is no such layer or
            place; a cell without a layer; the layer is no convolution or dense layer;
            or there are not as many labels as classes.
        RuntimeError: the sum by hand differs from the model's value.
    """
    if cell is not None and layer is None:
        raise ValueError(f"a cell is in a layer: name the layer; received cell={cell}")
    if strongest < 1:
        raise ValueError(f"strongest must be 1 or more; received {strongest}")
    images, shown = prepared(model, image), shown_image(image)
    seen, found, answer = record(model, images), None, None
    if layer is not None:
        found = cell_at(seen, seen.find(layer), cell, shown)
    fields = receptive_fields(seen.graph) if seen.connected else {}
    joints, calls = _joints(model, seen), range(len(seen.calls))
    stages = tuple(_stage(seen, i, fields, strongest, i in joints) for i in calls)
    # No classifier has no answer; its maps can be looked at all the same.
    with contextlib.suppress(ValueError):
        answer = seen.probabilities(head(model, images))
    if answer is not None:
        names = [f"class {k}" for k in range(answer.shape[1])]
        answer = ranked(answer, names if labels is None else labels)[0]
    return Trace(model.name, shown, stages, found, answer)


def _joints(model, seen: Recording) -> set[int]:
    """The calls whose output everything on the way to the answer passes through."""
    known = graph.trace(model) if seen.connected else None
    if known is None or len(known.calls) != len(seen.calls):
        return set(range(len(seen.calls)))
    joints = {id(x) for x in graph.bottlenecks(known, known.outputs[0])}
    return {i for i, c in enumerate(known.calls) if id(c.outputs[0]) in joints}


def _stage(seen: Recording, position: int, fields, count: int, joint: bool) -> Stage:
    call = seen.calls[position]
    values = seen.values(position)[0]
    flat = np.atleast_1d(values)
    strength = np.abs(flat.reshape(-1, flat.shape[-1])).mean(0)
    order = np.argsort(-strength, kind="stable")[:count]
    return Stage(
        name=seen.names[position],
        kind=type(call.operation).__name__,
        shape=values.shape,
        field=most_pixels([fields.get(id(call.outputs[0]))]),
        **style.extent(values),
        zeros=100 * float((values == 0).mean()),
        strongest=tuple(int(i) for i in order),
        maps=values[..., order] if values.ndim == 3 else None,
        joint=joint,
    )
