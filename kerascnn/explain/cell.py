"""The sum behind one value of a feature map: patch times filter, term by term."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kerascnn.arithmetic import output_size
from kerascnn.costs import is_a
from kerascnn.explain.receptive_field import Region, region
from kerascnn.explain.recording import Recording, numbers
from kerascnn.plotting import style
from kerascnn.plotting.style import BLUE, PALE, VERMILION, exact, number
from kerascnn.receptive_field import cut_before

# How far the sum may be from the model's value, as a share of the sum of the terms'
# absolute values: a GPU multiplies float32 with 11 bits, half precision has 8 or 11.
_TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
_TOLERANCE_HALF = 3e-2
_KINDS = {
    "transposed": "Conv2DTranspose",
    "depthwise": "DepthwiseConv2D",
    "separable": "SeparableConv2D",
    "convolution": "Conv2D",
    "dense": "Dense",
}
_ALL_TERMS = 80  # sums of up to so many terms are written out
_STRONGEST = 3  # channels that are shown of longer ones


@dataclass(frozen=True, eq=False)
class Cell:
    """One value of a layer's output, and the exact sum that made it."""

    layer: str  #: name of the layer's call
    kind: str  #: class of the layer
    place: tuple[int, ...]  #: (row, column, channel); (unit,) of a dense layer
    patch: np.ndarray  #: float32 (height, width, channels): what the filter met
    #: float32, of the same shape. Of a separable convolution it is what its two steps
    #: amount to: Σ depthwise·pointwise.
    filter: np.ndarray
    #: Where rows and columns of the patch lie in the layer's input; outside are the
    #: zeros of a padding. None for taps of a transposed convolution that fall between
    #: two pixels. Empty for a dense layer on a vector.
    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]
    channels: tuple[int, ...]  #: of the layer's input, those of the patch
    inside: np.ndarray  #: bool (height, width), whether there the filter meets a value
    bias: float | None  #: added to the sum; None where the layer has none
    activation: str | None  #: name of the layer's own activation; None for none
    total: float  #: the sum of the products, without bias
    value: float  #: what sum, bias and activation give
    model_value: float  #: what the model has there
    region: Region | None  #: pixels that the value depends on; None if not known
    image: np.ndarray  #: (H, W, C), the image

    @property
    def products(self) -> np.ndarray:
        """Patch times filter, float64 (height, width, channels)."""
        return self.patch.astype(np.float64) * self.filter.astype(np.float64)

    @property
    def difference(self) -> float:
        """How far the sum is from the model's value."""
        return abs(self.value - self.model_value)

    @property
    def terms(self) -> list[dict[str, Any]]:
        """Each product: row, column, channel of the input, its value and the weight."""
        products = self.products
        return [
            {
                "row": self.rows[i] if self.rows else None,
                "column": self.columns[j] if self.columns else None,
                "channel": self.channels[c],
                "padding": not bool(self.inside[i, j]),
                "input": float(self.patch[i, j, c]),
                "weight": float(self.filter[i, j, c]),
                "product": float(products[i, j, c]),
            }
            for i, j, c in np.ndindex(*self.patch.shape)
        ]

    def to_dict(self) -> dict:
        """Return everything but the image as values that JSON can hold."""
        names = ("layer", "kind", "bias", "activation", "value", "model_value")
        return {
            **{name: getattr(self, name) for name in names},
            "place": list(self.place),
            "receptive_field": self.region and asdict(self.region),
            "terms": self.terms,
            "sum": self.total,
        }

    def __str__(self) -> str:
        height, width, channels = self.patch.shape
        names = ("row", "column", "channel") if len(self.place) == 3 else ("unit",)
        where = ", ".join(f"{n} {p}" for n, p in zip(names, self.place, strict=True))
        lines = [f"{self.layer} ({self.kind}), {where}: {exact(self.model_value)}"]
        if self.region is not None:
            lines.append(f"sees of the image: {self.region}")
        lines.append(
            f"the sum has {height}·{width}·{channels} = {self.patch.size:,} products"
            + self._span()
        )
        if zeros := int((~self.inside).sum()):
            lines.append(f"{zeros} of the {height * width} places are zeros of padding")
        lines += self._terms_text()
        before = self.total + (self.bias or 0.0)
        text = f"sum {exact(self.total)}"
        if self.bias is not None:
            text += f" + bias {exact(self.bias)} = {exact(before)}"
        if self.activation:
            text += f"; {self.activation}: {exact(self.value)}"
        own = f"the model's own value is {exact(self.model_value)}"
        return "\n".join([*lines, text, f"{own}; difference {self.difference:.1e}"])

    def _span(self) -> str:
        axes = (self.rows, self.columns)
        rows, columns = ([p for p in axis if p is not None] for axis in axes)
        if not rows or not columns:
            return ""
        text = f", of rows {rows[0]} to {rows[-1]} and columns {columns[0]} to "
        return f"{text}{columns[-1]} of the layer's input"

    def _terms_text(self) -> list[str]:
        """The products: of a long sum the greatest, and what the rest amounts to."""
        products = self.products
        few = self.patch.size <= _ALL_TERMS
        if self.inside.size == 1 and not few:
            shown = np.argsort(-np.abs(products[0, 0]), kind="stable")[:10]
            lines = ["the ten greatest products (input·weight):"]
            lines += [
                f"  {self.channels[c]}: {exact(self.patch[0, 0, c])}·"
                f"{exact(self.filter[0, 0, c])} = {exact(products[0, 0, c])}"
                for c in shown
            ]
        else:
            shown = range(len(self.channels)) if few else self.strongest(_STRONGEST)
            lines = []
            for c in shown:
                lines.append(f"channel {self.channels[c]}, input·weight:")
                lines += product_lines(self.patch[..., c], self.filter[..., c])
                lines.append(f"  = {exact(products[..., c].sum())}")
        if not few:
            rest = self.patch.size - len(shown) * self.inside.size
            part = self.total - products[..., list(shown)].sum()
            text = f"the other {rest:,} products: {exact(part)}"
            lines.append(f"{text} (all are in .terms)")
        return lines

    def strongest(self, count: int) -> list[int]:
        """Return the channels of the patch whose products add up to most or least."""
        sums = np.abs(self.products.sum((0, 1)))
        return [int(c) for c in np.argsort(-sums, kind="stable")[:count]]

    @style.drawn
    def plot(self):
        """Draw the receptive field on the image, and patch times filter.

        Of more than three channels those three are drawn whose products amount to
        most, and the sums of all as bars.
        """
        few = len(self.channels) <= _STRONGEST
        shown = list(range(len(self.channels))) if few else self.strongest(_STRONGEST)
        flat = self.inside.size == 1
        lines = 1.4 if flat else max(len(shown), 1.4) + (0 if few else 0.8)
        figure = style.canvas(12, 1.6 + 2.5 * lines)
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.9))
        axes = left.subplots()
        style.draw_image(axes, self.image, "receptive field on the image")
        if self.region is not None and self.region.height:
            r = self.region
            style.rectangle(axes, r.rows[0], r.columns[0], r.height, r.width)
            axes.set_xlabel(f"column (pixels)\n{r}")
        if flat:
            self._plot_terms(right.subplots())
        else:
            self._plot_channels(right, shown)
        names = ", ".join(map(str, self.place))
        text = f"Σ patch·filter = {self.total:.5g}"
        if self.bias is not None:
            text += f"; + bias {self.bias:.4g}"
        if self.activation:
            text += f"; {self.activation}"
        figure.suptitle(
            f"{self.layer} at ({names}): {text} → {self.value:.5g}", fontsize=11
        )
        return figure

    def _plot_channels(self, figure, shown) -> None:
        products, few = self.products, len(shown) == len(self.channels)
        heights = [1.0] * len(shown) + ([] if few else [0.7])
        grid = figure.add_gridspec(len(heights), 3, height_ratios=heights)
        parts = ((self.patch, "patch"), (self.filter, "filter"), (products, "product"))
        for column, (values, name) in enumerate(parts):
            limit = float(np.abs(values[..., shown]).max()) or 1.0
            for line, c in enumerate(shown):
                axes = figure.add_subplot(grid[line, column])
                title = f"{name}, channel {self.channels[c]}"
                if name == "product":
                    title += f": sum {number(values[..., c].sum())}"
                style.draw_matrix(axes, values[..., c], title, limit=limit)
                for i, j in np.argwhere(~self.inside):
                    style.rectangle(axes, i, j, 1, 1, "#999999", lw=0.5, hatch="////")
        if not few:
            axes, sums = figure.add_subplot(grid[-1, :]), products.sum((0, 1))
            colours = [PALE] * len(sums)
            for c in shown:
                colours[c] = VERMILION if sums[c] < 0 else BLUE
            axes.bar(self.channels, sums, color=colours, edgecolor="#777777", lw=0.4)
            axes.axhline(0, color="#333333", lw=0.8)
            axes.set_title(f"sums of all {len(sums)} channels", fontsize=9)
            axes.set_xlabel("channel")
        note = "orange: negative, purple: positive; hatched: zeros of the padding"
        figure.supxlabel(note, fontsize=9)

    def _plot_terms(self, axes) -> None:
        products = self.products[0, 0]
        order = np.argsort(-np.abs(products), kind="stable")[:20]
        colours = [VERMILION if products[c] < 0 else BLUE for c in order]
        axes.barh(range(len(order)), products[order], color=colours)
        axes.set_yticks(range(len(order)), [str(self.channels[c]) for c in order])
        axes.invert_yaxis()
        axes.axvline(0, color="#333333", lw=0.8)
        axes.set_xlabel("input·weight")
        axes.set_ylabel("number of the input")
        axes.set_title(f"the {len(order)} greatest of {len(products):,} products")


def product_lines(inputs, weights) -> list[str]:
    """Write the products of two matrices out, a line for each row."""
    return [
        "  " + " + ".join(f"{exact(x)}·{exact(w)}" for x, w in zip(*rows, strict=True))
        for rows in zip(inputs, weights, strict=True)
    ]


def cell_at(recording: Recording, position: int, place=None, image=None) -> Cell:
    """Work out one value of a convolutional or dense layer's output by hand.

    Args:
        recording: of the model, for one image.
        position: of the layer's call.
        place: (row, column, channel); for a dense layer (unit,), or its row, column
            and unit on feature maps; default: where the output is greatest.
        image: (H, W, C) to show; default: the model's input.

    Raises:
        ValueError: the layer is none whose sum is known, or has no such place.
        RuntimeError: the sum is not the model's value.
    """
    call = recording.calls[position]
    layer, name = call.operation, recording.names[position]
    kind = _kind(layer)
    if kind is None:
        calls = zip(recording.names, recording.calls, strict=True)
        able = [n for n, c in calls if _kind(c.operation)]
        raise ValueError(
            f"{name} is a {type(layer).__name__}, no convolution or dense layer, whose "
            f"values are one sum each: choose one of {', '.join(able) or '(none)'}"
        )
    given = recording.array(call.inputs[0])[0]
    out = recording.values(position)[0]
    place = place_in(name, out, place)
    row, column, k = place if len(place) == 3 else (0, 0, *place)
    # A vector is a feature map of one pixel.
    given = given if given.ndim == 3 else given.reshape(1, 1, -1)
    rows, columns = _taps(layer, kind, given, (row, column), out.shape)
    patch, inside = _met(given, rows, columns)
    kernel = _kernel(layer, kind)
    share, filters = kernel.shape[2:]
    filters_of_group = filters * share // given.shape[-1]

    def channels(f):
        first = f // filters_of_group * share
        return slice(first, first + share)

    # Every filter's sum at this place: softmax needs them all.
    wide, weights = patch.astype(np.float64), kernel.astype(np.float64)
    sums = np.array(
        [(wide[..., channels(f)] * weights[..., f]).sum() for f in range(filters)]
    )
    bias = numbers(layer.bias) if getattr(layer, "use_bias", False) else None
    cell = Cell(
        layer=name,
        kind=type(layer).__name__,
        place=place,
        patch=patch[..., channels(k)],
        filter=kernel[..., k],
        rows=rows if out.ndim == 3 else (),
        columns=columns if out.ndim == 3 else (),
        channels=tuple(range(given.shape[-1]))[channels(k)],
        inside=inside,
        bias=None if bias is None else float(bias[k]),
        activation=_activation(layer),
        total=float(sums[k]),
        value=float(_activated(layer, sums + (0 if bias is None else bias))[k]),
        model_value=float(out[place]),
        region=region(recording, position, row, column),
        image=recording.array(recording.graph.inputs[0])[0] if image is None else image,
    )
    size = np.abs(cell.products).sum() + abs(cell.bias or 0.0) + 1e-6
    dtype = str(layer.compute_dtype)
    if cell.difference > _TOLERANCE.get(dtype, _TOLERANCE_HALF) * size:
        raise RuntimeError(
            f"{name} has {cell.model_value} at {place}, its sum is {cell.value}: the "
            f"layer ({type(layer).__name__}) does more than its filters say"
        )
    return cell


def _kind(layer) -> str | None:
    """How a layer makes its sums; None where it does otherwise."""
    return next((kind for kind, name in _KINDS.items() if is_a(layer, (name,))), None)


def place_in(name, out, at) -> tuple[int, ...]:
    """Return a place in the output (H, W, C) or (units,) of a call, ValueError outside.

    None is the place of the greatest value.
    """
    if out.ndim not in (1, 3):
        raise ValueError(
            f"{name} has outputs of shape {out.shape}; those of feature maps are "
            "(rows, columns, channels), those of a dense layer (units,)"
        )
    if at is None:
        return style.place(out)
    at = tuple(int(i) for i in np.atleast_1d(at))
    if out.ndim == 1 and len(at) == 3 and at[:2] == (0, 0):
        at = at[2:]
    if len(at) != out.ndim or not all(
        0 <= i < n for i, n in zip(at, out.shape, strict=True)
    ):
        names = "row, column, channel" if out.ndim == 3 else "unit"
        raise ValueError(
            f"a cell of {name} is ({names}), counted from 0, within "
            f"{'x'.join(map(str, out.shape))}; received {at}"
        )
    return at


def _taps(layer, kind, given, place, shape) -> list[tuple[int | None, ...]]:
    """Rows and columns of the input that the filter meets for a place of the output."""
    if kind == "dense":
        return [(at,) for at in place]
    axes = []
    for axis, start in enumerate(place):
        size, window = given.shape[axis], layer.kernel_size[axis]
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        reached = range(0, window * dilation, dilation)
        if kind == "transposed":
            before = cut_before(layer, axis, size, shape[axis])
            # o = i·S + k·D - before
            met = (divmod(start + before - tap, stride) for tap in reached)
            taps = (i if not rest and 0 <= i < size else None for i, rest in met)
        else:
            placed = output_size(size, window, stride, layer.padding, dilation)
            taps = (start * stride - placed.before + tap for tap in reached)
        axes.append(tuple(taps))
    return axes


def _met(given, rows, columns) -> tuple[np.ndarray, np.ndarray]:
    """What taps meet of an input (H, W, C), and where they meet a value."""
    height, width, channels = given.shape
    patch = np.zeros((len(rows), len(columns), channels), np.float32)
    inside = np.zeros(patch.shape[:2], bool)
    for i, j in np.ndindex(*inside.shape):
        if rows[i] in range(height) and columns[j] in range(width):
            patch[i, j], inside[i, j] = given[rows[i], columns[j]], True
    return patch, inside


def _kernel(layer, kind) -> np.ndarray:
    """All filters of a layer, (height, width, channels that each sees, filters)."""
    if kind == "separable":
        deep = numbers(layer.depthwise_kernel)  # (height, width, channels, m)
        point = numbers(layer.pointwise_kernel)[0, 0]  # (channels·m, filters)
        return np.einsum("hwcm,cmf->hwcf", deep, point.reshape(*deep.shape[2:], -1))
    kernel = numbers(layer.kernel)
    if kind == "dense":
        return kernel[None, None]
    if kind == "transposed":  # kept by Keras as (height, width, filters, channels)
        return np.swapaxes(kernel, 2, 3)
    if kind == "depthwise":
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    return kernel


def _activation(layer) -> str | None:
    import keras

    activation = getattr(layer, "activation", None)
    if activation is None or activation is keras.activations.linear:
        return None
    name = getattr(activation, "__name__", None) or getattr(activation, "name", None)
    return name or type(activation).__name__


def _activated(layer, sums: np.ndarray) -> np.ndarray:
    """Apply a layer's own activation to the sums of all its filters at one place."""
    from keras import ops

    if _activation(layer) is None:
        return sums
    values = layer.activation(ops.convert_to_tensor(sums[None].astype(np.float32)))
    return np.asarray(ops.convert_to_numpy(values), np.float64)[0]
