"""Which pixels of the images each value inside a model depends on.

Along one axis a position of an output reads some positions of the input, and what it
reads repeats: a convolution of stride 2 reads two further on for each position, a
transposed one reads one further on for every second. `reads` says this of one call,
which `receptive_fields` follows from the images on, and a region of
`kerascnn.explain.receptive_field` from one place back.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from kerascnn.arithmetic import output_size
from kerascnn.costs import (
    CONVOLUTIONS,
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
    *NORMALISATION,
    *names(
        "Activation ActivityRegularization Add AlphaDropout Average Concatenate "
        "Dropout ELU Flatten GaussianDropout GaussianNoise Identity LeakyReLU Maximum "
        "Minimum Multiply PReLU ReLU Rescaling Softmax Subtract"
    ),
    *names("SpatialDropout", axes="123"),
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
    """What the positions of an output read along one axis of an input.

    Attributes:
        shift: how much further on every `period`-th position reads.
        positions: what each of the first `period` positions reads. Those outside of
            the input are the zeros of a padding.
        exact: False where the positions are not known, only how many they are.
    """

    shift: int | Fraction
    positions: tuple[tuple[int, ...], ...]
    exact: bool = True

    def at(self, position: int) -> list[int]:
        """Return the positions of the input that one of the output reads."""
        times, rest = divmod(position, len(self.positions))
        return [p + times * self.shift for p in self.positions[rest]]


@dataclass(frozen=True)
class Axis:
    """A receptive field along one axis: first and last pixel of each position.

    Attributes:
        shift: how many pixels further on every `period`-th position sees.
        spans: of the first `period` positions; None for one that sees nothing.
    """

    shift: int | Fraction
    spans: tuple[tuple | None, ...]

    def at(self, position) -> tuple | None:
        """Return first and last pixel that a position sees, not cut at the border."""
        times, rest = divmod(position, len(self.spans))
        if len(self.spans) == 1:  # where positions may be fractions
            times, rest = position, 0
        span = self.spans[rest]
        return span and tuple(pixel + times * self.shift for pixel in span)

    @property
    def step(self) -> Fraction:
        """Pixels from one position to the next, on average."""
        return Fraction(self.shift) / len(self.spans)

    def through(self, reads: Reads) -> "Axis | None":
        """Return the field of what reads this; None where it is not known."""
        period, shift = len(self.spans), reads.shift
        if period > 1 and not (reads.exact and shift == int(shift)):
            return None
        # So often is repeated what is read, until this repeats itself too.
        repeats = period // math.gcd(period, int(shift)) if period > 1 else 1
        further = shift if period == 1 else repeats * int(shift) // period
        positions = range(repeats * len(reads.positions))
        spans = (_hull(self.at(p) for p in reads.at(o)) for o in positions)
        return Axis(self.shift * further, tuple(spans))


@dataclass(frozen=True)
class Field:
    """A receptive field, axis by axis."""

    axes: tuple[Axis, ...]

    @property
    def pixels(self) -> tuple[int, ...]:
        """Whole pixels along each axis, of the position that sees the most."""
        return tuple(
            max((math.ceil(b - a + 1) for a, b in filter(None, axis.spans)), default=0)
            for axis in self.axes
        )


def _hull(spans) -> tuple | None:
    found = [span for span in spans if span]
    return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def receptive_fields(graph: Graph) -> dict[int, Field | str | None]:
    """Work out the receptive field of every tensor of a network.

    Where branches meet, a field goes from the first to the last pixel of them all.

    Args:
        graph: what `kerascnn.graph.trace` returned.

    Returns:
        By `id` of the tensor: its field, `ALL` where each value depends on the whole
        image, or None where it is unknown. Fields are not cut at the image's border.

    Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
    networks" (Distill, 2019), section "Computing the receptive field region".
    """
    first, itself = channels_first(graph), Axis(1, ((0, 0),))
    fields: dict[int, Field | str | None] = {
        id(x): Field((itself,) * max(len(x.shape) - 2, 0)) for x in graph.inputs
    }
    for call in graph.calls:
        found = [_through(call, x, fields[id(x)], first) for x in call.inputs]
        field = _joined(found, call.outputs[0], first)
        fields.update({id(x): field for x in call.outputs})
    return fields


def channels_first(graph: Graph) -> bool:
    """Tell whether the feature maps of a graph have their channels first."""
    formats = (getattr(call.operation, "data_format", None) for call in graph.calls)
    return next(filter(None, formats), None) == "channels_first"


def sizes(tensor, first: bool) -> tuple[int | None, ...]:
    """Return the shape of a tensor without images and channels."""
    return tuple(tensor.shape)[2:] if first else tuple(tensor.shape)[1:-1]


def _through(call: Call, given, field, first) -> Field | str | None:
    found = reads(call, given, first)
    if field == ALL or found == ALL:
        return ALL
    if field is None or found is None:
        return None
    if type(call.operation).__name__ == "Flatten":
        return field
    if len(found) != len(field.axes):
        return None
    axes = [a.through(r) for a, r in zip(field.axes, found, strict=True)]
    return None if None in axes else Field(tuple(axes))


def _joined(fields, output, first) -> Field | str | None:
    """The field over several inputs: `ALL`, or what spans them all."""
    if ALL in fields:
        return ALL
    if not fields or None in fields or len({len(f.axes) for f in fields}) > 1:
        return None
    several = zip(*(field.axes for field in fields), strict=True)
    lengths = sizes(output, first) if len(output.shape) > 2 else ()
    axes = [
        _spanning(list(dict.fromkeys(axes)), lengths[i] if i < len(lengths) else None)
        for i, axes in enumerate(several)
    ]
    return None if None in axes else Field(tuple(axes))


def _spanning(axes: list[Axis], length: int | None) -> Axis | None:
    if len(axes) == 1:
        return axes[0]
    period = math.lcm(*(len(axis.spans) for axis in axes))
    if len({axis.step for axis in axes}) > 1:
        # One value for all places, beside maps: there is no period but the map's.
        if length is None:
            return None
        period *= -(-length // period)
    step = max(axis.step for axis in axes)
    spans = (_hull(axis.at(p) for axis in axes) for p in range(period))
    return Axis(step * period, tuple(spans))


def most_pixels(fields) -> tuple[int, ...] | str | None:
    """Return the most pixels along each axis of several fields; `ALL`; or None."""
    if ALL in fields:
        return ALL
    if not fields or None in fields or len({len(f.axes) for f in fields}) > 1:
        return None
    return tuple(map(max, zip(*(f.pixels for f in fields), strict=True))) or None


def reads(call: Call, given, first: bool) -> tuple[Reads, ...] | str | None:
    """Say what each place of a call's output reads of an input, axis by axis.

    Args:
        call: of a layer or a bare operation.
        given: one of the tensors that it was called with.
        first: whether the channels are the first axis of an image.

    Returns:
        One for each axis, `ALL` where every place reads all, None where it is unknown.
    """
    layer, rank = call.operation, len(given.shape)
    name, kept = type(layer).__name__, rank == len(call.outputs[0].shape)
    if is_a(layer, _EVERYTHING) or (is_a(layer, ("Dense", "EinsumDense")) and rank < 3):
        return ALL
    if name == "Flatten" or (kept and rank < 3):
        known = name in _POINTWISE_OPERATIONS or is_a(layer, _POINTWISE)
        return () if known else None
    if not kept:
        return None
    before, after = sizes(given, first), sizes(call.outputs[0], first)
    if takes_part(layer) and hasattr(layer, "window"):
        return _windows(layer, *layer.window(), (1,) * len(before), before, after)
    if is_a(layer, TRANSPOSED):
        steps = zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
        return tuple(
            _transposed(taps, stride, gap, cut_before(layer, i, before[i], after[i]))
            for i, (taps, stride, gap) in enumerate(steps)
        )
    if is_a(layer, CONVOLUTIONS):
        rates = layer.dilation_rate
        return _windows(layer, layer.kernel_size, layer.strides, rates, before, after)
    if is_a(layer, _POOLINGS):
        gaps = (1,) * len(before)
        return _windows(layer, layer.pool_size, layer.strides, gaps, before, after)
    if is_a(layer, _ENLARGED):
        factors = layer.size if isinstance(layer.size, tuple) else (layer.size,)
        reach = _REACH[getattr(layer, "interpolation", "nearest")]
        return tuple(_enlarged(factor, reach) for factor in factors)
    if is_a(layer, _MOVED):
        cut = getattr(layer, "cropping", None)
        pairs = layer.padding if cut is None else cut
        pairs = pairs if isinstance(pairs[0], tuple) else (pairs,)
        return tuple(_one(-a if cut is None else a) for a, _ in pairs)
    if name == "GetItem":
        return _sliced(call, before, first)
    if not is_a(layer, (*_POINTWISE, "Dense")) and (
        hasattr(layer, "weights") or name not in _POINTWISE_OPERATIONS
    ):
        return None
    return _pointwise(layer, before, after, first)


def _one(offset=0, exact=True) -> Reads:
    return Reads(1, ((offset,),), exact)


def _windows(layer, windows, strides, gaps, before, after) -> tuple[Reads, ...] | None:
    if len(windows) != len(before):
        return None
    found = []
    for taps, stride, gap, *lengths in zip(
        windows, strides, gaps, before, after, strict=True
    ):
        zeros = None
        if stride == int(stride):
            stride = int(stride)
            zeros = _zeros_before(layer, *lengths, gap * (taps - 1) + 1, stride)
        start = -(zeros or 0)
        taken = tuple(range(start, start + taps * gap, gap))
        found.append(Reads(stride, (taken,), zeros is not None))
    return tuple(found)


def _zeros_before(layer, size, after, reach, stride) -> int | None:
    """Zeros before the first pixel: as the layer says, or as its output's size tells.

    `reach` counts the pixels from the first to the last of a window, with dilation.
    """
    padding = getattr(layer, "padding", None)
    if padding == "causal":
        return reach - 1
    if padding == "valid":
        return 0
    if size is None:  # an open size is taken for a multiple of the stride
        return max(reach - stride, 0) // 2 if padding == "same" else None
    for name in (padding,) if padding == "same" else ("valid", "same"):
        if name == "valid" and size < reach:
            continue
        placed = output_size(size, reach, stride, name)
        if placed == after:
            return placed.before
    # Windows that may stick out at the end only, as those of pooling that rounds up.
    return 0 if after == math.ceil((size - reach) / stride) + 1 else None


def cut_before(layer, axis: int, size: int | None, after: int | None) -> int:
    """Return how many rows a transposed convolution cuts off before its output.

    With "same" padding it undoes the padding of the convolution that it transposes.
    """
    if layer.padding != "same":
        return 0
    stride = layer.strides[axis]
    reach = layer.dilation_rate[axis] * (layer.kernel_size[axis] - 1) + 1
    if size is None or after is None:
        return max(reach - stride, 0) // 2
    return max((size - 1) * stride + reach - after, 0) // 2


def _transposed(taps: int, stride: int, gap: int, cut: int) -> Reads:
    """Output o meets input i where o = i·stride + tap·gap - cut."""
    read = []
    for o in range(stride):
        places = (divmod(o + cut - tap * gap, stride) for tap in range(taps))
        read.append(tuple(sorted(whole for whole, rest in places if rest == 0)))
    return Reads(1, tuple(read))


def _enlarged(factor: int, reach: int) -> Reads:
    """Up-sampling: an interpolation weighs `reach` pixels before and after."""
    read = []
    for o in range(factor):
        # The middle of the output pixel, in pixels of the input.
        place = Fraction(2 * o + 1, 2 * factor) - Fraction(1, 2)
        low = math.floor(place)
        if not reach or place == low:  # on a pixel the others weigh nothing
            read.append((o // factor if not reach else low,))
        else:
            read.append(tuple(range(low - reach + 1, low + reach + 1)))
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
        return tuple(_one(-a, constant or a + b == 0) for a, b in pairs)
    found = []
    for size, grown in zip(before, after, strict=True):
        if size == 1 and grown not in (1, None):
            found.append(Reads(0, ((0,),), exact))
        else:  # of unequal sizes: joined along rows or columns
            found.append(_one(0, exact and size == grown))
    return tuple(found)
