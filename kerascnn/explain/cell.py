"""The sum behind one value of a feature map: patch times filter, term by term."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kerascnn.arithmetic import output_size
from kerascnn.costs import TRANSPOSED, is_a, names
from kerascnn.explain.receptive_field import Region, region
from kerascnn.explain.recording import Recording, numbers
from kerascnn.plotting import style
from kerascnn.plotting.style import BLUE, PALE, VERMILION, exact, number
from kerascnn.receptive_field import cut_before

# How far the sum may be from the model's value, as a share of the sum of the terms'
# absolute values: a GPU multiplies float32 with 11 bits, half precision has 8 or 11.
_TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
_SUMS = (*names("Conv2D Conv2DTranspose DepthwiseConv2D SeparableConv2D"), "Dense")
_ALL_TERMS = 80  # sums of up to so many terms are written out
SHOWN = 3  # channels that are shown of longer ones


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

    @property
    def _zeros(self) -> str:
        between = None in (*self.rows, *self.columns)
        return "zeros between pixels or of padding" if between else "zeros of padding"

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
        axes = ("row", "column", "channel") if len(self.place) == 3 else ("unit",)
        where = ", ".join(f"{n} {p}" for n, p in zip(axes, self.place, strict=True))
        own = exact(self.model_value)
        lines = [f"{self.layer} ({self.kind}), {where}: {own}"]
        if self.region is not None:
            lines.append(f"sees of the image: {self.region}")
        text = f"the sum has {height}·{width}·{channels} = {self.patch.size:,} products"
        met = [[p for p in axis if p is not None] for axis in (self.rows, self.columns)]
        if all(met):
            rows, columns = (f"{min(places)} to {max(places)}" for places in met)
            text += f", of rows {rows} and columns {columns} of the layer's input"
        lines.append(text)
        if zeros := int((~self.inside).sum()):
            lines.append(f"{zeros} of the {height * width} places are {self._zeros}")
        lines += self._terms_text()
        before = self.total + (self.bias or 0.0)
        text = f"sum {exact(self.total)}"
        if self.bias is not None:
            text += f" + bias {exact(self.bias)} = {exact(before)}"
        if self.activation:
            text += f"; {self.activation}: {exact(self.value)}"
        own = f"the model's own value is {own}; difference {self.difference:.1e}"
        return "\n".join([*lines, text, own])

    def _terms_text(self) -> list[str]:
        """The products: of a long sum the greatest, and what the rest amounts to."""
        products = self.products
        few = self.patch.size <= _ALL_TERMS
        flat = self.inside.size == 1 and not few
        lines = ["the ten greatest products (input·weight):"] if flat else []
        shown = list(range(len(self.channels)))
        if not few:
            shown = self.strongest(10 if flat else SHOWN)
        for c in shown:
            terms = product_lines(self.patch[..., c], self.filter[..., c])
            total = f"= {exact(products[..., c].sum())}"
            if flat:
                lines.append(f"  {self.channels[c]}: {terms[0].strip()} {total}")
            else:
                lines.append(f"channel {self.channels[c]}, input·weight:")
                lines += [*terms, f"  {total}"]
        if not few:
            rest = self.patch.size - len(shown) * self.inside.size
            part = exact(self.total - products[..., shown].sum())
            lines.append(f"the other {rest:,} products: {part} (all are in .terms)")
        return lines

    def strongest(self, count: int) -> list[int]:
        """Return the channels of the patch whose products add up to most or least."""
        return strongest(self.products, count)

    @style.drawn
    def plot(self):
        """Draw the receptive field on the image, and patch times filter.

        Of more than three channels those three are drawn whose products amount to
        most, and the sums of all as bars.
        """
        shown = drawn_channels(self.products)
        flat, few = self.inside.size == 1, len(shown) == len(self.channels)
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
        text = f"{self.layer} at ({', '.join(map(str, self.place))}): "
        text += f"Σ patch·filter = {self.total:.5g}"
        if self.bias is not None:
            text += f"; + bias {self.bias:.4g}"
        if self.activation:
            text += f"; {self.activation}"
        figure.suptitle(f"{text} → {self.value:.5g}", fontsize=11)
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
                style.draw_matrix(axes, values[..., c], title, limit)
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
        note = f"orange: negative, purple: positive; hatched: {self._zeros}"
        figure.supxlabel(note, fontsize=9)

    def _plot_terms(self, axes) -> None:
        products, order = self.products[0, 0], self.strongest(20)
        colours = [VERMILION if products[c] < 0 else BLUE for c in order]
        axes.barh(range(len(order)), products[order], color=colours)
        axes.set_yticks(range(len(order)), [str(self.channels[c]) for c in order])
        axes.invert_yaxis()
        axes.axvline(0, color="#333333", lw=0.8)
        title = f"the {len(order)} greatest of {len(products):,} products"
        axes.set(title=title, xlabel="input·weight", ylabel="number of the input")


def product_lines(inputs, weights) -> list[str]:
    """Write the products of two matrices out, a line for each row."""
    return [
        "  " + " + ".join(f"{exact(x)}·{exact(w)}" for x, w in zip(*rows, strict=True))
        for rows in zip(inputs, weights, strict=True)
    ]


def strongest(products, count: int) -> list[int]:
    """Return the channels of (height, width, C) that add up to most or least."""
    sums = np.abs(products.sum((0, 1)))
    return [int(c) for c in np.argsort(-sums, kind="stable")[:count]]


def drawn_channels(products) -> list[int]:
    """Return all of up to three channels, else the three strongest."""
    count = products.shape[-1]
    return list(range(count)) if count <= SHOWN else strongest(products, SHOWN)


def cell_at(recording: Recording, position: int, place=None, image=None) -> Cell:
    """Work out one value of a convolutional or dense layer's output by hand.

    Args:
        recording: of the model, for one image.
        position: of the layer's call.
        place: (row, column, channel); for a dense layer (unit,), or its row, column
            and unit on feature maps; default: where the output is greatest.
        image: (H, W, C) to show; default: the model's input.

    ValueError where the layer's sums are not known, or it has no such place;
    RuntimeError where the sum is not the model's value.
    """
    call = recording.calls[position]
    layer, name = call.operation, recording.names[position]
    if not is_a(layer, _SUMS):
        calls = zip(recording.names, recording.calls, strict=True)
        able = [n for n, c in calls if is_a(c.operation, _SUMS)]
        raise ValueError(
            f"{name} is a {type(layer).__name__}, no convolution or dense layer, whose "
            f"values are one sum each: choose one of {', '.join(able) or '(none)'}"
        )
    given = recording.array(call.inputs[0])[0]
    out = recording.maps(position)
    place = place_in(name, out, place)
    row, column, k = place if len(place) == 3 else (0, 0, *place)
    # A vector is a feature map of one pixel.
    given = given if given.ndim == 3 else given.reshape(1, 1, -1)
    rows, columns = _taps(layer, given, (row, column), out.shape)
    patch, inside = _met(given, rows, columns)
    kernel = kernel_of(layer)
    # A group of filters sees a share of the channels.
    groups = given.shape[-1] // kernel.shape[2]
    seen = patch.reshape(*inside.shape, groups, -1).astype(np.float64)
    weights = kernel.reshape(*kernel.shape[:3], groups, -1).astype(np.float64)
    # Every filter's sum at this place: softmax needs them all.
    sums = np.einsum("hwgc,hwcgf->gf", seen, weights).ravel()
    first = k * groups // len(sums) * kernel.shape[2]
    own = slice(first, first + kernel.shape[2])
    bias = numbers(layer.bias) if getattr(layer, "use_bias", False) else None
    cell = Cell(
        layer=name,
        kind=type(layer).__name__,
        place=place,
        patch=patch[..., own],
        filter=kernel[..., k],
        rows=rows if out.ndim == 3 else (),
        columns=columns if out.ndim == 3 else (),
        channels=tuple(range(given.shape[-1]))[own],
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
    # Another type is of half precision.
    if cell.difference > _TOLERANCE.get(str(layer.compute_dtype), 3e-2) * size:
        raise RuntimeError(
            f"{name} has {cell.model_value} at {place}, its sum is {cell.value}: the "
            f"layer ({type(layer).__name__}) does more than its filters say"
        )
    return cell


def place_in(name, out, at) -> tuple[int, ...]:
    """Return a place in the maps of a call, ValueError outside; None: the greatest."""
    if at is None:
        return style.place(out)
    at = tuple(int(i) for i in np.atleast_1d(at))
    if out.ndim == 1 and len(at) == 3 and at[:2] == (0, 0):
        at = at[2:]
    inside = (0 <= i < n for i, n in zip(at, out.shape, strict=False))
    if len(at) != out.ndim or not all(inside):
        names = "row, column, channel" if out.ndim == 3 else "unit"
        raise ValueError(
            f"a cell of {name} is ({names}), counted from 0, within "
            f"{'x'.join(map(str, out.shape))}; received {at}"
        )
    return at


def _taps(layer, given, place, shape) -> list[tuple[int | None, ...]]:
    """Rows and columns of the input that the filter meets for a place of the output."""
    if is_a(layer, ("Dense",)):
        return [(at,) for at in place]
    axes = []
    for axis, start in enumerate(place):
        size, window = given.shape[axis], layer.kernel_size[axis]
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        if is_a(layer, TRANSPOSED):
            end = start + cut_before(layer, axis, size, shape[axis])
            # o = i·S + k·D - before
            met = (divmod(end - tap * dilation, stride) for tap in range(window))
            taps = (i if not rest and 0 <= i < size else None for i, rest in met)
        else:
            placed = output_size(size, window, stride, layer.padding, dilation)
            taps = placed.windows[start]
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


def kernel_of(layer) -> np.ndarray:
    """All filters of a layer, (height, width, channels that each sees, filters)."""
    if not is_a(layer, ("SeparableConv2D",)):
        return arranged(layer, layer.kernel)
    deep = numbers(layer.depthwise_kernel)  # (height, width, channels, m)
    point = numbers(layer.pointwise_kernel)[0, 0]  # (channels·m, filters)
    return np.einsum("hwcm,cmf->hwcf", deep, point.reshape(*deep.shape[2:], -1))


def arranged(layer, kernel) -> np.ndarray:
    """Arrange a layer's kernel as (height, width, channels that each sees, filters)."""
    from keras import layers

    weights = numbers(kernel)
    if weights.ndim == 2:
        return weights[None, None]
    if isinstance(layer, layers.Conv2DTranspose):
        return np.swapaxes(weights, 2, 3)
    if isinstance(layer, layers.DepthwiseConv2D | layers.SeparableConv2D):
        return weights.reshape(*weights.shape[:2], 1, -1)
    return weights


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
