"""Which pixels of the image one place of a feature map depends on."""

import math
from dataclasses import dataclass
from fractions import Fraction

from kerascnn.arithmetic import output_size
from kerascnn.costs import ALL, Field, seen
from kerascnn.explain.recording import Recording


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels, first and last row and column included.

    Attributes:
        rows, columns: (first, last); cut at the border of the image; (0, -1) where the
            place sees zeros of a padding alone.
        exact: False where a layer on the way does not say what it sees, so that the
            whole of its input was taken.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    exact: bool = True

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.rows[1] - self.rows[0] + 1

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.columns[1] - self.columns[0] + 1

    def __str__(self) -> str:
        if not self.height:
            return "nothing, only zeros of the padding"
        text = (
            f"rows {self.rows[0]} to {self.rows[1]}, "
            f"columns {self.columns[0]} to {self.columns[1]} "
            f"({self.height}×{self.width} pixels)"
        )
        return text if self.exact else f"at most {text}"


def region(recording: Recording, position: int, row: int, column: int) -> Region | None:
    """Find the pixels that one place of a call's output depends on.

    The way from the images is walked back, window by window, with strides, padding and
    dilation; where branches meet, the region spans them all. Values outside of a
    feature map are the zeros of a padding, which depend on nothing.

    Args:
        recording: of the model.
        position: of the call.
        row, column: the place; any for an output without places, as of a dense layer.

    Returns:
        The region; None for a subclassed model, whose graph is not known.

    Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
    networks" (Distill, 2019), section "Computing the receptive field region".
    """
    if not recording.connected:
        return None
    image = recording.graph.inputs[0]
    start = recording.calls[position].outputs[0]
    here = ((row, row), (column, column)) if len(start.shape) == 4 else None
    # Per tensor: an interval per axis, and whether it is exact.
    needed = {id(start): (here or _whole(recording, start), True)}
    for call in reversed(recording.calls[: position + 1]):
        wanted = [needed[id(x)] for x in call.outputs if id(x) in needed]
        if not wanted:
            continue
        for given in call.inputs:
            if len(given.shape) < 3:
                found = (_whole(recording, given), True)
            else:
                found = _before(recording, call, given, *_join(wanted))
            if found[0] is None:
                continue
            old = [needed[id(given)]] if id(given) in needed else []
            needed[id(given)] = _join([*old, found])
    spans, exact = needed.get(id(image), (((0, -1), (0, -1)), True))
    return Region(spans[0], spans[1], exact)


def _join(entries):
    """The least intervals that hold all of several."""
    spans = tuple(
        (min(a for a, _ in axis), max(b for _, b in axis))
        for axis in zip(*(spans for spans, _ in entries), strict=True)
    )
    return spans, all(exact for _, exact in entries)


def _sizes(recording, tensor) -> tuple[int, int]:
    """Height and width of a feature map; 1 and 1 of a vector."""
    shape = tuple(tensor.shape)
    if len(shape) == 3:  # images without an axis for their one channel
        return shape[1:]
    if len(shape) != 4:
        return 1, 1
    return shape[2:] if recording.channels_first else shape[1:3]


def _whole(recording, tensor):
    return tuple((0, size - 1) for size in _sizes(recording, tensor))


def _before(recording, call, given, spans, exact):
    """The intervals of an input that the intervals of an output depend on."""
    layer, kind = call.operation, type(call.operation).__name__
    sizes, after = _sizes(recording, given), _sizes(recording, call.outputs[0])
    whole = _whole(recording, given)
    if len(given.shape) != len(call.outputs[0].shape):
        # What changes the rank: flattening, global pooling; a new axis is not looked
        # into.
        return whole, exact
    if "Transpose" in kind and hasattr(layer, "kernel_size"):
        return _cut(_spread(layer, spans, sizes, after), sizes), exact
    if kind == "UpSampling2D":
        return _cut(_enlarged(layer, spans), sizes), exact
    if kind in ("ZeroPadding2D", "Cropping2D"):
        offsets = _offsets(layer, kind)
        moved = [(a + d, b + d) for (a, b), d in zip(spans, offsets, strict=True)]
        return _cut(moved, sizes), exact
    ones = (Fraction(1),) * 2
    field = seen(call, Field(ones, ones))
    if field == ALL:
        return whole, exact
    if field is None:
        return whole, False
    if kind == "GetItem":
        return _sliced(call, recording, spans, sizes, whole, exact)
    if field.size == ones and field.jump == ones:
        return _pointwise(spans, sizes, after, whole, exact)
    result = []
    for axis in range(2):
        window, stride = field.pixels[axis], int(field.jump[axis])
        before = _zeros_before(layer, sizes[axis], window, stride, after[axis])
        if before is None:
            return whole, False
        low, high = spans[axis]
        result.append((low * stride - before, high * stride - before + window - 1))
    return _cut(result, sizes), exact


def _cut(spans, sizes):
    """Leave out what is not in the map, the zeros of a padding; None for all of it."""
    if any(b < 0 or a >= size for (a, b), size in zip(spans, sizes, strict=True)):
        return None
    return tuple(
        (min(max(a, 0), size - 1), max(min(b, size - 1), 0))
        for (a, b), size in zip(spans, sizes, strict=True)
    )


def _pointwise(spans, sizes, after, whole, exact):
    """Each place depends on its own; a size of 1 is one value for all places."""
    result = []
    for axis in range(2):
        if sizes[axis] == after[axis]:
            result.append(spans[axis])
        elif sizes[axis] == 1:
            result.append((0, 0))
        else:  # joined along rows or columns, or padded by a bare operation
            return whole, False
    return tuple(result), exact


def _zeros_before(layer, size, window, stride, after) -> int | None:
    """Zeros before the first pixel: as the layer says, or as its output's size tells.

    `window` counts the pixels from the first to the last of it, with dilation.
    """
    padding = getattr(layer, "padding", None)
    if padding not in ("same", "valid"):
        padding = None
    if size < window and padding != "valid":
        return output_size(size, window, stride, "same").before
    for name in (padding,) if padding else ("valid", "same"):
        placed = output_size(size, window, stride, name)
        if placed == after:
            return placed.before
    # Windows that may stick out at the end only, as those of pooling that rounds up.
    if after == math.ceil((size - window) / stride) + 1:
        return 0
    return None


def _spread(layer, spans, sizes, after):
    """A transposed convolution: output o meets input i where o = i·S + k·D - before."""
    result = []
    for axis, (low, high) in enumerate(spans):
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        reach = dilation * (layer.kernel_size[axis] - 1) + 1
        before = cut_before(layer, axis, sizes[axis], after[axis])
        result.append(
            (-(-(low + before - reach + 1) // stride), (high + before) // stride)
        )
    return result


def cut_before(layer, axis: int, size: int, after: int) -> int:
    """Return how many rows a transposed convolution cuts off before its output.

    With "same" padding it undoes the padding of the convolution that it transposes.
    """
    if layer.padding != "same":
        return 0
    stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
    reach = dilation * (layer.kernel_size[axis] - 1) + 1
    return max((size - 1) * stride + reach - after, 0) // 2


def _enlarged(layer, spans):
    factors = layer.size if isinstance(layer.size, tuple) else (layer.size,) * 2
    smooth = 0 if layer.interpolation == "nearest" else 2
    return [
        (low // factor - smooth, high // factor + smooth)
        for (low, high), factor in zip(spans, factors, strict=True)
    ]


def _offsets(layer, kind):
    if kind == "ZeroPadding2D":
        return [-before for before, _ in layer.padding]
    return [before for before, _ in layer.cropping]


def _sliced(call, recording, spans, sizes, whole, exact):
    keys = call.arguments[1] if len(call.arguments) > 1 else None
    if recording.channels_first or not isinstance(keys, tuple):
        return whole, False
    # The rows' key is the second, the columns' the third, of those that are there.
    keys = [*keys[1:3], slice(None), slice(None)][:2]
    result = []
    for (low, high), key, size in zip(spans, keys, sizes, strict=True):
        start, _, step = key.indices(size)
        ends = (start + low * step, start + high * step)
        result.append((min(ends), max(ends)))
    return _cut(result, sizes), exact
