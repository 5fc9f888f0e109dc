"""Which pixels of the images each value inside a model depends on.

Along an axis, what is read repeats: a convolution of stride 2 reads two pixels further
on for each position, a transposed one one further on for every second.
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

from kerascnn.arithmetic import output_size
from kerascnn.costs import (
    CONVOLUTIONS,
    HANDED_ON,
    NORMALISATION,
    TRANSPOSED,
    is_a,
    names,
    takes_part,
)
from kerascnn.graph import Call, Graph

# What an output value depends on where it is the whole image.
ALL = "all"

# Layers whose output pixel depends on the input pixel in its place only. Normalisation
# is among them: its statistics are those of the training, or left out, as in `depth`.
_POINTWISE = (
    *(NORMALISATION + HANDED_ON),
    *names("Activation Add Average Concatenate ELU Flatten LeakyReLU Maximum Minimum"),
    *names("Multiply PReLU ReLU Rescaling Softmax Subtract"),
)
# The same among bare operations, as `x + y` and `keras.ops.relu(x)` leave them.
_POINTWISE_OPERATIONS = names(
    "Abs Absolute Add Cast Clip Concatenate Divide Elu Exp Gelu HardSigmoid HardSilu "
    "HardTanh LeakyRelu Log LogSigmoid Maximum Minimum Multiply Negative Pad Power "
    "Relu Relu6 Selu Sigmoid Sign Silu Softplus Sqrt Square Subtract Tanh TrueDivide "
    "Where"
)
_EVERYTHING = (
    *names("GlobalAveragePooling GlobalMaxPooling", axes="123"),
    *names("AdditiveAttention Attention GroupQueryAttention MultiHeadAttention"),
)
_POOLINGS = names("AveragePooling MaxPooling", axes="123")
_MOVED = names("Cropping ZeroPadding", axes="123")
_ENLARGED = names("UpSampling", axes="123")
# Pixels on each side between which an interpolation weighs.
_REACH = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}


@dataclass(frozen=True)
class Reads:
    """What the positions of an output read along one axis of an input."""

    shift: int | Fraction  # how much further on the next period reads
    positions: tuple[tuple[int, ...], ...]  # of the first period; outside are zeros
    exact: bool = True  # False where only the number of positions is known

    def at(self, position: int) -> list[int]:
        """Return the positions of the input that one of the output reads."""
        times, rest = divmod(position, len(self.positions))
        return [p + times * self.shift for p in self.positions[rest]]


@dataclass(frozen=True)
class Axis:
    """A receptive field along one axis: first and last pixel of each position."""

    shift: int | Fraction  # how many pixels further on the next period sees
    spans: tuple[tuple | None, ...]  # of the first period; None sees nothing

    def at(self, position) -> tuple | None:
        """Return first and last pixel that a position sees, not cut at the border."""
        times, rest = position, 0  # of a period of 1, where it may be a fraction
        if len(self.spans) > 1:
            times, rest = divmod(position, len(self.spans))
        span = self.spans[rest]
        return span and tuple(pixel + times * self.shift for pixel in span)

    def through(self, reads: Reads) -> "Axis | None":
        """Return the field of what reads this; None where it is not known."""
        period, repeats, further = len(self.spans), 1, reads.shift
        if period > 1:
            if not reads.exact or further != int(further):
                return None
            # So often is repeated what is read, until this repeats itself too.
            repeats = period // math.gcd(period, int(further))
            further = repeats * int(further) // period
        positions = range(repeats * len(reads.positions))
        spans = (_hull(self.at(p) for p in reads.at(o)) for o in positions)
        return Axis(self.shift * further, tuple(spans))

    @property
    def pixels(self) -> int:
        """Whole pixels that the position sees that sees the most."""
        seen = (math.ceil(b - a + 1) for a, b in filter(None, self.spans))
        return max(seen, default=0)


# A tensor's receptive field: along each axis, `ALL`, or None where it is unknown.
Field = tuple[Axis, ...] | str | None


def _hull(spans) -> tuple | None:
    found = [span for span in spans if span]
    return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def receptive_fields(graph: Graph) -> dict[int, Field]:
    """Work out the receptive field of every tensor of a network, by its `id`.

    Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
    networks" (Distill, 2019), section "Computing the receptive field region".
    """
    formats = (getattr(call.operation, "data_format", None) for call in graph.calls)
    first = next(filter(None, formats), None) == "channels_first"
    fields: dict[int, Field] = {}
    for x in graph.inputs:
        fields[id(x)] = (Axis(1, ((0, 0),)),) * (len(x.shape) - 2)
    for call in graph.calls:
        found = [_through(call, x, fields[id(x)], first) for x in call.inputs]
        field = _joined(found, call.outputs[0], first)
        fields |= {id(x): field for x in call.outputs}
    return fields


def sizes(tensor, first: bool) -> tuple[int | None, ...]:
    """Return the shape of a tensor without images and channels."""
    return tuple(tensor.shape)[2:] if first else tuple(tensor.shape)[1:-1]


def _through(call: Call, given, field, first) -> Field:
    found = reads(call, given, first)
    if ALL in (field, found):
        return ALL
    if found == () and field is not None:  # Flatten, and what follows, one by one
        return field
    if None in (field, found) or len(found) != len(field):
        return None
    axes = tuple(a.through(r) for a, r in zip(field, found, strict=True))
    return None if None in axes else axes


def _joined(fields, output, first) -> Field:
    """The field over several inputs: `ALL`, or what spans them all."""
    if not _alike(fields):
        return ALL if ALL in fields else None
    lengths = sizes(output, first) if len(output.shape) > 2 else ()
    pairs = itertools.zip_longest(zip(*fields, strict=True), lengths)
    axes = tuple(_spanning(list(dict.fromkeys(a)), n) for a, n in pairs if a)
    return None if None in axes else axes


def _alike(fields) -> bool:
    """Whether fields are known and of the same number of axes."""
    known = fields and ALL not in fields and None not in fields
    return bool(known) and len(set(map(len, fields))) == 1


def _spanning(axes: list[Axis], length: int | None) -> Axis | None:
    if len(axes) == 1:
        return axes[0]
    period = math.lcm(*(len(axis.spans) for axis in axes))
    steps = {Fraction(axis.shift) / len(axis.spans) for axis in axes}
    if len(steps) > 1:
        # One value for all places, beside maps: there is no period but the map's.
        if length is None:
            return None
        period *= -(-length // period)
    spans = (_hull(axis.at(p) for axis in axes) for p in range(period))
    return Axis(max(steps) * period, tuple(spans))


def most_pixels(fields) -> tuple[int, ...] | str | None:
    """Return the most pixels along each axis of several fields; `ALL`; or None."""
    if not _alike(fields):
        return ALL if ALL in fields else None
    axes = zip(*fields, strict=True)
    return tuple(max(axis.pixels for axis in several) for several in axes) or None


def reads(call: Call, given, first: bool) -> tuple[Reads, ...] | str | None:
    """Say what each place of a call's output reads of an input, along each axis.

    `ALL` where every place reads all, None where it is unknown; `first`: channels are.
    """
    layer, rank = call.operation, len(given.shape)
    name, kept = type(layer).__name__, rank == len(call.outputs[0].shape)
    if is_a(layer, _EVERYTHING) or (is_a(layer, ("Dense", "EinsumDense")) and rank < 3):
        return ALL
    listed = not hasattr(layer, "weights") and name in _POINTWISE_OPERATIONS
    pointwise = listed or is_a(layer, _POINTWISE)
    if name == "Flatten" or (kept and rank < 3):
        return () if pointwise else None
    if not kept:
        return None
    before, after = sizes(given, first), sizes(call.outputs[0], first)
    if takes_part(layer) and hasattr(layer, "window"):
        return _windows(layer, before, after, *layer.window())
    if is_a(layer, TRANSPOSED):
        axes = enumerate(zip(before, after, strict=True))
        return tuple(_transposed(layer, i, *lengths) for i, lengths in axes)
    if is_a(layer, CONVOLUTIONS):
        windows = layer.kernel_size, layer.strides, layer.dilation_rate
        return _windows(layer, before, after, *windows)
    if is_a(layer, _POOLINGS):
        return _windows(layer, before, after, layer.pool_size, layer.strides)
    if is_a(layer, _ENLARGED):
        factors = layer.size if isinstance(layer.size, tuple) else (layer.size,)
        reach = _REACH[getattr(layer, "interpolation", "nearest")]
        return tuple(_enlarged(factor, reach) for factor in factors)
    if is_a(layer, _MOVED):
        cut = getattr(layer, "cropping", None)
        pairs = layer.padding if cut is None else cut
        pairs = pairs if isinstance(pairs[0], tuple) else (pairs,)
        return tuple(Reads(1, ((-a if cut is None else a,),)) for a, _ in pairs)
    if name == "GetItem":
        return _sliced(call, before, first)
    if pointwise or is_a(layer, ("Dense",)):
        return _pointwise(layer, before, after, first)
    return None


def _windows(layer, before, after, windows, strides, gaps=None):
    if len(windows) != len(before):
        return None
    found, gaps = [], gaps or (1,) * len(before)
    axes = zip(windows, strides, gaps, before, after, strict=True)
    for taps, stride, gap, *lengths in axes:
        zeros = None
        if stride == int(stride):
            stride = int(stride)
            zeros = _zeros_before(layer, *lengths, gap * (taps - 1) + 1, stride)
        start = -(zeros or 0)
        taken = tuple(range(start, start + taps * gap, gap))
        found.append(Reads(stride, (taken,), zeros is not None))
    return tuple(found)


def _zeros_before(layer, size, after, reach, stride) -> int | None:
    """Zeros before the first pixel, by the layer or by the size of its output."""
    padding = getattr(layer, "padding", None)
    if padding == "causal":
        return reach - 1
    if padding in ("valid", "ceil"):
        return 0
    if size is None:  # an open size is taken for a multiple of the stride
        return max(reach - stride, 0) // 2 if padding == "same" else None
    for name in (padding,) if padding == "same" else ("valid", "same"):
        if name == "same" or size >= reach:
            placed = output_size(size, reach, stride, name)
            if placed == after:
                return placed.before
    # Windows that may stick out at the end only, as those of pooling that rounds up.
    return 0 if after == math.ceil((size - reach) / stride) + 1 else None


def cut_before(layer, axis: int, size: int | None, after: int | None) -> int:
    """Return how many rows a transposed convolution with "same" padding cuts off."""
    if layer.padding != "same":
        return 0
    # Of an open size, as of any, the output is `size` strides long.
    lacking = 0 if None in (size, after) else size * layer.strides[axis] - after
    reach = layer.dilation_rate[axis] * (layer.kernel_size[axis] - 1) + 1
    return max(reach - layer.strides[axis] + lacking, 0) // 2


def _transposed(layer, axis: int, size: int | None, after: int | None) -> Reads:
    """Output o meets input i where o = i·stride + tap·gap - cut."""
    taps, stride = layer.kernel_size[axis], layer.strides[axis]
    gap, cut = layer.dilation_rate[axis], cut_before(layer, axis, size, after)
    read = []
    for o in range(stride):
        places = (divmod(o + cut - tap * gap, stride) for tap in range(taps))
        read.append(tuple(sorted(whole for whole, rest in places if rest == 0)))
    return Reads(1, tuple(read))


def _enlarged(factor: int, reach: int) -> Reads:
    """Up-sampling: an interpolation weighs `reach` pixels before and after."""
    read = [(0,)] * factor
    for o in range(factor if reach else 0):
        # The middle of the output pixel, in pixels of the input.
        place = Fraction(2 * o + 1, 2 * factor) - Fraction(1, 2)
        low = math.floor(place)
        if place != low:  # else on a pixel, where the others weigh nothing
            read[o] = tuple(range(low - reach + 1, low + reach + 1))
    return Reads(1, tuple(read))


def _sliced(call: Call, lengths, first: bool) -> tuple[Reads, ...] | None:
    """`x[:, ::2, ::2]` takes every second pixel."""
    keys = call.arguments[1] if len(call.arguments) > 1 else None
    keys = keys if isinstance(keys, tuple) else (keys,)
    if not all(isinstance(key, slice) for key in keys):
        return None
    keys = [*keys, *[slice(None)] * (len(lengths) + 2 - len(keys))]
    found = []
    for key, size in zip(keys[2:] if first else keys[1:-1], lengths, strict=True):
        start, step = key.start or 0, key.step or 1
        known = size is not None or (start >= 0 and step > 0)
        if size is not None:
            start, _, step = key.indices(size)
        found.append(Reads(step, ((start,),), known))
    return tuple(found)


def _pointwise(layer, before, after, first) -> tuple[Reads, ...] | None:
    """Each place reads its own; a size of 1 is one value for all places."""
    rank, exact = len(before) + 2, True
    name = type(layer).__name__
    axis = getattr(layer, "axis", None)
    if name == "Softmax" or (
        is_a(layer, NORMALISATION) and not is_a(layer, ("BatchNormalization",))
    ):
        axes = axis if isinstance(axis, list | tuple) else (axis or -1,)
        along = {a % rank for a in axes} != {1 if first else rank - 1}
        if along and name == "Softmax":
            return None
        # The statistics of the image itself are of all its places.
        exact = not along and name != "GroupNormalization"
    if name == "Pad" and len(getattr(layer, "pad_width", ())) == rank:
        pairs = layer.pad_width[2:] if first else layer.pad_width[1:-1]
        constant = getattr(layer, "mode", None) == "constant"
        return tuple(Reads(1, ((-a,),), constant or a + b == 0) for a, b in pairs)
    found = []
    for size, grown in zip(before, after, strict=True):
        one = size == 1 and grown not in (1, None)
        # Of unequal sizes: joined along rows or columns.
        found.append(Reads(0 if one else 1, ((0,),), exact and (one or size == grown)))
    return tuple(found)
