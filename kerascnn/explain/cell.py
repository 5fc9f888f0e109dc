"""The sum behind one value of a feature map: patch times filter, term by term."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerascnn.arithmetic import output_size
from kerascnn.explain.receptive_field import Region, region
from kerascnn.explain.recording import Recording
from kerascnn.plotting.style import (
    BLUE,
    VERMILION,
    canvas,
    draw_image,
    draw_matrix,
    drawn,
    exact,
    number,
    rectangle,
)
from kerascnn.receptive_field import cut_before

# How far the sum may be from the model's value, as a share of the sum of the terms'
# absolute values: a GPU multiplies float32 with 11 bits, half precision has 8 or 11.
_TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
_TOLERANCE_HALF = 3e-2
_ALL_TERMS = 80  # sums of up to so many terms are written out
_STRONGEST = 3  # channels that are shown of longer ones


@dataclass(frozen=True, eq=False)
class Cell:
    """One value of a layer's output, and the exact sum that made it.

    Attributes:
        layer: name of the layer's call.
        kind: class of the layer.
        place: (row, column, channel); (unit,) of a dense layer.
        patch: float32 (height, width, channels), what the filter met; 0 in a padding.
        filter: float32, of the same shape. Of a separable convolution it is what its
            two steps amount to: Σ depthwise·pointwise.
        rows, columns: of each row and column of the patch, where it lies in the
            layer's input; None where it meets nothing (a transposed convolution's
            filter taps that fall between two pixels). Positions outside of the input
            are the zeros of a padding. Empty for a dense layer on a vector.
        channels: of each channel of the patch, its number in the layer's input.
        bias: added to the sum; None where the layer has none.
        activation: name of the layer's own activation; None for none.
        total: the sum of the products, without bias.
        value: what sum, bias and activation give.
        model_value: what the model has there.
        region: pixels of the image that the value depends on; None if not known.
        image: (H, W, C), the image.
    """

    layer: str
    kind: str
    place: tuple[int, ...]
    patch: np.ndarray
    filter: np.ndarray
    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]
    channels: tuple[int, ...]
    inside: np.ndarray  # bool (height, width): whether there the filter meets a value
    bias: float | None
    activation: str | None
    total: float
    value: float
    model_value: float
    region: Region | None
    image: np.ndarray

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
        found = []
        for i, j, c in np.ndindex(*self.patch.shape):
            found.append(
                {
                    "row": self.rows[i] if self.rows else None,
                    "column": self.columns[j] if self.columns else None,
                    "channel": self.channels[c],
                    "padding": not bool(self.inside[i, j]),
                    "input": float(self.patch[i, j, c]),
                    "weight": float(self.filter[i, j, c]),
                    "product": float(products[i, j, c]),
                }
            )
        return found

    def to_dict(self) -> dict:
        """Return everything but the image as values that JSON can hold."""
        where = self.region
        return {
            "layer": self.layer,
            "kind": self.kind,
            "place": list(self.place),
            "receptive_field": None
            if where is None
            else {
                "rows": list(where.rows),
                "columns": list(where.columns),
                "exact": where.exact,
            },
            "terms": self.terms,
            "sum": self.total,
            "bias": self.bias,
            "activation": self.activation,
            "value": self.value,
            "model_value": self.model_value,
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
            + (self._span() if self.rows else "")
        )
        if zeros := int((~self.inside).sum()):
            lines.append(f"{zeros} of the {height * width} places are zeros of padding")
        lines += self._sum_text()
        return "\n".join(lines)

    def _span(self) -> str:
        known = [
            [p for p in axis if p is not None] for axis in (self.rows, self.columns)
        ]
        if not all(known):
            return ""
        (top, bottom), (left, right) = ((axis[0], axis[-1]) for axis in known)
        return (
            f", of rows {top} to {bottom} and columns {left} to {right} of the "
            "layer's input"
        )

    def _sum_text(self) -> list[str]:
        products, lines = self.products, []
        few = self.patch.size <= _ALL_TERMS
        shown = range(len(self.channels)) if few else self.strongest(_STRONGEST)
        flat = self.patch.shape[:2] == (1, 1)
        if flat and not few:
            order = np.argsort(-np.abs(products[0, 0]), kind="stable")[:10]
            lines.append("the ten greatest products (input·weight):")
            lines += [
                f"  {self.channels[c]}: {exact(self.patch[0, 0, c])}·"
                f"{exact(self.filter[0, 0, c])} = {exact(products[0, 0, c])}"
                for c in order
            ]
        else:
            for c in shown:
                lines.append(f"channel {self.channels[c]}, input·weight:")
                lines += [
                    "  "
                    + " + ".join(
                        f"{exact(x)}·{exact(w)}" for x, w in zip(xs, ws, strict=True)
                    )
                    for xs, ws in zip(
                        self.patch[..., c], self.filter[..., c], strict=True
                    )
                ]
                lines.append(f"  = {exact(products[..., c].sum())}")
        if not few:
            rest = self.patch.size - (10 if flat else len(shown) * self.inside.size)
            part = products[0, 0, order].sum() if flat else products[..., shown].sum()
            lines.append(
                f"the other {rest:,} products: {exact(self.total - part)} (all are in "
                ".terms)"
            )
        lines.append(f"sum {exact(self.total)}")
        before = self.total + (self.bias or 0.0)
        if self.bias is not None:
            lines[-1] += f" + bias {exact(self.bias)} = {exact(before)}"
        if self.activation:
            lines[-1] += f"; {self.activation}: {exact(self.value)}"
        lines.append(
            f"the model's own value is {exact(self.model_value)}; difference "
            f"{self.difference:.1e}"
        )
        return lines

    def strongest(self, count: int) -> list[int]:
        """Return the channels of the patch whose products add up to most or least."""
        sums = np.abs(self.products.sum((0, 1)))
        return [int(c) for c in np.argsort(-sums, kind="stable")[:count]]

    @drawn
    def plot(self):
        """Draw the receptive field on the image, and patch times filter.

        Of more than three channels those three are drawn whose products amount to
        most.
        """
        few = len(self.channels) <= _STRONGEST
        shown = list(range(len(self.channels))) if few else self.strongest(_STRONGEST)
        flat = self.patch.shape[:2] == (1, 1)
        if flat:
            shown = shown[:1]
        count = len(shown)
        figure = canvas(12, 1.6 + 2.5 * max(count, 1.4))
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.9))
        axes = left.subplots()
        draw_image(axes, self.image, "receptive field on the image")
        if self.region is not None and self.region.height:
            r = self.region
            rectangle(axes, r.rows[0], r.columns[0], r.height, r.width)
            axes.set_xlabel(f"column (pixels)\n{r}")
        if flat:
            self._plot_terms(right.subplots())
        else:
            self._plot_channels(right, shown)
        names = ", ".join(map(str, self.place))
        figure.suptitle(f"{self.layer} at ({names}): {self._equation()}", fontsize=11)
        return figure

    def _equation(self) -> str:
        text = f"Σ patch·filter = {self.total:.5g}"
        if self.bias is not None:
            text += f"; + bias {self.bias:.4g}"
        if self.activation:
            text += f"; {self.activation}"
        return f"{text} → {self.value:.5g}"

    def _plot_channels(self, figure, shown) -> None:
        products = self.products
        panels = figure.subplots(len(shown), 3, squeeze=False)
        parts = ((self.patch, "patch"), (self.filter, "filter"), (products, "product"))
        for column, (values, name) in enumerate(parts):
            limit = float(np.abs(values[..., shown]).max()) or 1.0
            for axes, c in zip(panels[:, column], shown, strict=True):
                title = f"{name}, channel {self.channels[c]}"
                if name == "product":
                    title += f": sum {number(values[..., c].sum())}"
                draw_matrix(axes, values[..., c], title, limit=limit)
                for i, j in np.argwhere(~self.inside):
                    rectangle(axes, i, j, 1, 1, "#999999", lw=0.5, hatch="////")
        total = len(self.channels)
        note = "orange: negative, purple: positive; hatched: zeros of the padding"
        if len(shown) < total:
            note += f"\nthe {len(shown)} strongest of {total} channels"
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


@dataclass(frozen=True, eq=False)
class _Taps:
    """A filter laid on its input: what meets what, for all filters at one place."""

    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]
    patch: np.ndarray  # (height, width, channels)
    inside: np.ndarray  # (height, width)


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
        able = [
            n
            for n, c in zip(recording.names, recording.calls, strict=True)
            if _kind(c.operation)
        ]
        raise ValueError(
            f"{name} is a {type(layer).__name__}, no convolution or dense layer, whose "
            f"values are one sum each: choose one of {', '.join(able) or '(none)'}"
        )
    given = recording.array(call.inputs[0])[0]
    out = recording.values(position)[0]
    place = _checked(name, out, place)
    spots = place if len(place) == 3 else (0, 0, *place)
    # A vector is a feature map of one pixel.
    given = given if given.ndim == 3 else given.reshape(1, 1, -1)
    row, column, k = spots
    taps = _taps(layer, kind, given, row, column, out.shape)
    kernel, channels = _kernels(layer, kind, given.shape[-1])
    # Every filter's sum at this place: softmax needs them all.
    sums = np.array(
        [
            (
                taps.patch[..., channels(f)].astype(np.float64)
                * kernel[..., f].astype(np.float64)
            ).sum()
            for f in range(kernel.shape[-1])
        ]
    )
    bias = numbers_of(layer.bias) if getattr(layer, "use_bias", False) else None
    value = _activated(layer, sums + (0 if bias is None else bias))[k]
    chosen = channels(k)
    cell = Cell(
        layer=name,
        kind=type(layer).__name__,
        place=place,
        patch=taps.patch[..., chosen],
        filter=kernel[..., k],
        rows=taps.rows if out.ndim == 3 else (),
        columns=taps.columns if out.ndim == 3 else (),
        channels=tuple(range(given.shape[-1]))[chosen],
        inside=taps.inside,
        bias=None if bias is None else float(bias[k]),
        activation=_activation(layer),
        total=float(sums[k]),
        value=float(value),
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
    """How a layer makes its sums; None where it does otherwise.

    A subclass counts where it leaves Keras' `call` as it is.
    """
    import keras

    kinds = {
        "transposed": keras.layers.Conv2DTranspose,
        "depthwise": keras.layers.DepthwiseConv2D,
        "separable": keras.layers.SeparableConv2D,
        "convolution": keras.layers.Conv2D,
        "dense": keras.layers.Dense,
    }
    for kind, known in kinds.items():
        if isinstance(layer, known):
            own = type(layer).call.__module__.split(".")[0] == "keras"
            return kind if own else None
    return None


def _checked(name, out, place) -> tuple[int, ...]:
    """A place in an output (H, W, C) or (units,)."""
    if out.ndim not in (1, 3):
        raise ValueError(
            f"{name} has outputs of shape {out.shape}; those of feature maps are "
            "(rows, columns, channels), those of a dense layer (units,)"
        )
    if place is None:
        return tuple(int(i) for i in np.unravel_index(np.argmax(out), out.shape))
    place = tuple(int(i) for i in np.atleast_1d(place))
    if out.ndim == 1 and len(place) == 3 and place[:2] == (0, 0):
        place = place[2:]
    names = "row, column, channel" if out.ndim == 3 else "unit"
    right = len(place) == out.ndim and all(
        0 <= i < n for i, n in zip(place, out.shape, strict=True)
    )
    if not right:
        raise ValueError(
            f"a cell of {name} is ({names}), counted from 0, within "
            f"{'x'.join(map(str, out.shape))}; received {place}"
        )
    return place


def _taps(layer, kind, given, row, column, shape) -> _Taps:
    """Lay the filter down for one place of the output."""
    if kind == "dense":
        return _Taps(
            (row,), (column,), given[row : row + 1, column : column + 1], _true(1, 1)
        )
    axes = []
    for axis, start in enumerate((row, column)):
        size, window = given.shape[axis], layer.kernel_size[axis]
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        if kind == "transposed":
            before = cut_before(layer, axis, size, shape[axis])
            places = []
            for tap in range(window):
                # o = i·S + k·D - before
                whole, rest = divmod(start + before - tap * dilation, stride)
                places.append(whole if rest == 0 and 0 <= whole < size else None)
            axes.append(tuple(places))
            continue
        placed = output_size(size, window, stride, layer.padding, dilation)
        first = start * stride - placed.before
        axes.append(tuple(first + tap * dilation for tap in range(window)))
    rows, columns = axes
    height, width, channels = given.shape
    patch = np.zeros((len(rows), len(columns), channels), np.float32)
    inside = np.zeros(patch.shape[:2], bool)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            if r is not None and c is not None and 0 <= r < height and 0 <= c < width:
                patch[i, j], inside[i, j] = given[r, c], True
    return _Taps(rows, columns, patch, inside)


def _true(*shape):
    return np.ones(shape, bool)


def _kernels(layer, kind, channels: int):
    """All filters, (height, width, channels, filters), and which channels each sees."""
    if kind == "dense":
        return numbers_of(layer.kernel)[None, None], lambda f: slice(0, channels)
    if kind == "transposed":
        # Keras keeps these as (height, width, filters, channels).
        kernel = np.swapaxes(numbers_of(layer.kernel), 2, 3)
        return kernel, lambda f: slice(0, channels)
    if kind == "separable":
        deep = numbers_of(layer.depthwise_kernel)  # (height, width, channels, m)
        point = numbers_of(layer.pointwise_kernel)[0, 0]  # (channels·m, filters)
        point = point.reshape(*deep.shape[2:], -1)
        return np.einsum("hwcm,cmf->hwcf", deep, point), lambda f: slice(0, channels)
    kernel = numbers_of(layer.kernel)
    if kind == "depthwise":
        many = kernel.shape[-1]  # filters of each channel
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
        return kernel, lambda f: slice(f // many, f // many + 1)
    share = kernel.shape[2]  # channels of a group
    per_group = kernel.shape[-1] // getattr(layer, "groups", 1)
    return kernel, lambda f: slice(f // per_group * share, (f // per_group + 1) * share)


def numbers_of(variable) -> np.ndarray:
    """Return a weight as a float32 array."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


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
