"""The lecture's formulas, as numbers that say how they were worked out.

Every function returns a `Worked`, usable wherever an int is; `print` shows its
expression too: 5·5·3·32 = 2,400; `f"{n:,}"` the number alone. Pure Python.
"""

import ast
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction

# Bytes that one number takes.
BYTES = {"float64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2}
BYTES |= {"uint8": 1, "int8": 1}
Sizes = int | Sequence[int]  # one for a square, or one for each axis
Padding = int | str | Sequence[int]


class Worked(int):
    """An integer and the expression it was worked out from."""

    expression: str  # the left side, such as "5·5·3·32"; `evaluate` takes it
    remark: str = ""  # what the expression leaves unsaid

    def __new__(cls, value: int, expression: str = ""):
        """Join a value and its expression."""
        self = super().__new__(cls, value)
        self.expression = expression or str(int(value))
        return self

    def _result(self) -> str:
        return f"{int(self):,}"

    def __str__(self) -> str:
        text = self._result()
        if self.expression.replace(",", "") != str(int(self)):
            text = f"{self.expression} = {text}"
        return f"{text} ({self.remark})" if self.remark else text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)}, {self.expression!r})"


class OutputSize(Worked):
    """How many places a window takes along one axis; all positions are of the input."""

    size: int  # pixels of the input
    window: int  # taps of the window (the filter's or the pool's size)
    stride: int  # pixels from one window to the next
    dilation: int  # pixels from one tap to the next
    before: int  # zeros before the first pixel
    after: int  # zeros after the last
    padding: int | str | tuple[int, int]  # as it was asked for

    @property
    def exact(self) -> Fraction:
        """The formula's value before it is rounded down: 29/2 for 14.5."""
        return evaluate(self.expression)

    @property
    def left_over(self) -> int:
        """Columns (zeros included) after the last window: 0 when the stride fits."""
        return int((self.exact - int(self)) * self.stride)

    @property
    def fits(self) -> bool:
        """Whether the last window ends where the padded input ends."""
        return self.left_over == 0

    @property
    def symmetric(self) -> bool:
        """Whether as many zeros stand before as after."""
        return self.before == self.after

    @property
    def windows(self) -> tuple[range, ...]:
        """Positions of the taps of each window, first window first."""
        starts = (i * self.stride - self.before for i in range(int(self)))
        length = self.dilation * self.window
        return tuple(range(s, s + length, self.dilation) for s in starts)

    @property
    def unread(self) -> tuple[int, ...]:
        """Pixels of the input that no window reads."""
        read = set().union(*self.windows)
        return tuple(p for p in range(self.size) if p not in read)

    def _result(self) -> str:
        if self.fits:
            return f"{int(self):,}"
        # The columns left over are the last zeros first, then the last pixels.
        zeros = min(self.left_over, self.after)
        counts = {"pixel": self.left_over - zeros, "zero": zeros}
        left = [f"{n} {noun}{'s' * (n > 1)}" for noun, n in counts.items() if n]
        rounded = f"{_decimal(self.exact)}, rounded down to {int(self):,}"
        return f"{rounded}: {' and '.join(left)} left over"


class ReceptiveField(Worked):
    """The pixels of the input, along one axis, that one output value depends on."""

    sizes: tuple[int, ...]  # the receptive field after each layer of the stack
    jump: int  # pixels of the input between two neighbouring outputs of the last layer


def output_size(
    size: int, window: int, stride: int = 1, padding: Padding = 0, dilation: int = 1
) -> OutputSize:
    """Work out the output size of a convolution: O = (I + 2·P - F)/S + 1.

    `size` is the lecture's I, `window` F, `stride` S, in pixels along one axis;
    `dilation` leads from one tap to the next. `padding` is the zeros on each side (P),
    a pair (before, after), "valid" for none, or "same" for Keras' own, which may need
    one more after than before. A stride that does not fit is rounded down as in Keras.
    ValueError for an argument out of range, or a filter that does not fit.

    Source: the lecture, slides "Stride" and "Padding"; Dumoulin and Visin, "A guide to
    convolution arithmetic for deep learning" (2016), section 2.
    """
    size, window = _whole("size", size, 1), _whole("window", window, 1)
    stride, dilation = _whole("stride", stride, 1), _whole("dilation", dilation, 1)
    reach = dilation * (window - 1) + 1
    before, after = _zeros(size, reach, stride, padding)
    space = size + before + after - reach
    if space < 0:
        raise ValueError(
            f"a window that reaches over {reach} pixels does not fit an input of "
            f"{size} pixels; received {size=}, {window=}, {dilation=}, {padding=}: "
            "use a smaller window or more padding"
        )
    zeros = f"{before} + {after}" if before != after else f"2·{before}"
    zeros = f" + {zeros}" if before or after else ""
    taps = str(window) if dilation == 1 else f"({dilation}·({window} - 1) + 1)"
    placed = OutputSize(space // stride + 1, f"({size}{zeros} - {taps})/{stride} + 1")
    placed.size, placed.window, placed.stride = size, window, stride
    placed.dilation, placed.before, placed.after = dilation, before, after
    placed.padding = padding if isinstance(padding, str | int) else (before, after)
    if padding == "same" and stride > 1:
        placed.remark = f"'same' is {size}/{stride} rounded up; "
        placed.remark += f"zeros: {before} before, {after} after"
        if before != after:
            halves = _decimal(Fraction(before + after, 2))
            placed.remark += f", where the lecture's P would have to be {halves}"
    return placed


def pooling_size(
    size: int, pool: int, stride: int | None = None, padding: Padding = 0
) -> OutputSize:
    """Work out the output size of pooling: O = I/P where windows do not overlap.

    For the rest see `output_size`; `stride` is by default the pool's size. Keras'
    "same" pooling leaves the zeros out. Source: the lecture, slide "Pooling".
    """
    found = output_size(size, pool, pool if stride is None else stride, padding)
    if found.stride == found.window and not (found.before or found.after):
        found.expression = f"{found.size}/{found.window}"
    return found


def keeping_padding(window: int, dilation: int = 1) -> Worked:
    """Work out the zeros on each side that keep the size: P = (F - 1)/2, F odd."""
    window, dilation = _whole("window", window, 1), _whole("dilation", dilation, 1)
    total = dilation * (window - 1)
    if total % 2:
        same = f"an odd one, or padding=({total // 2}, {total - total // 2})"
        received = f"received {window=}, {dilation=}"
        raise ValueError(f"sides cannot share {total} zeros; {received}: use {same}")
    factor = f"{dilation}·" if dilation > 1 else ""
    return Worked(total // 2, f"{factor}({window} - 1)/2")


def product(*factors: int) -> Worked:
    """Multiply whole numbers: `product(16, 16, 32)` is 16·16·32 = 8,192."""
    factors = tuple(_whole("factor", f, 0) for f in factors)
    return Worked(math.prod(factors), "·".join(map(str, factors)))


def convolution_parameters(
    window: Sizes, channels: int, filters: int, *, groups: int = 1, bias: bool = False
) -> Worked:
    """Count the parameters of a convolution: F·F·channels·filters.

    `window` is one number for a square or one for each axis; each of the `groups`,
    which divide both, sees channels/groups. `bias` counts one for each filter, the
    lecture none. ValueError for an argument out of range. Source: slide "Parameters".
    """
    channels, filters = _whole("channels", channels, 1), _whole("filters", filters, 1)
    groups = _whole("groups", groups, 1)
    if channels % groups or filters % groups:
        received = f"received {groups=}, {channels=}, {filters=}"
        raise ValueError(f"groups must divide channels and filters; {received}")
    share = f"({channels}/{groups})" if groups > 1 else channels
    text = "·".join(map(str, (*_axes(window), share, filters)))
    return _evaluated(f"{text} + {filters}" if bias else text)


def depthwise_parameters(
    window: Sizes, channels: int, multiplier: int = 1, *, bias: bool = False
) -> Worked:
    """Count the parameters of a depthwise convolution: F·F·channels·multiplier."""
    biases = _whole("channels", channels, 1) * _whole("multiplier", multiplier, 1)
    count = product(*_axes(window), channels, multiplier)
    return Worked(count + biases, f"{count.expression} + {biases}") if bias else count


def dense_parameters(inputs: int, units: int, *, bias: bool = False) -> Worked:
    """Count the parameters of a fully-connected layer; see `mlp_parameters`."""
    return mlp_parameters(inputs, units, bias=bias)


def mlp_parameters(*sizes: int, bias: bool = False) -> Worked:
    """Count the parameters of an MLP: 3072·h1 + h1·h2 + h2·10.

    `sizes` are the units, the input first; `bias` counts one for each unit, the lecture
    none. ValueError for fewer than two. Source: slides "MLP" and "Parameters".
    """
    if len(sizes) < 2:
        raise ValueError(f"an MLP has an input and an output; received sizes={sizes}")
    pairs = itertools.pairwise(_whole("size", s, 1) for s in sizes)
    terms = (f"{a}·{b} + {b}" if bias else f"{a}·{b}" for a, b in pairs)
    return _evaluated(" + ".join(terms))


def mlp_units(*sizes: int) -> Worked:
    """Count the units of an MLP, as its slide does: 3072 + h1 + h2 + 10."""
    return _evaluated(" + ".join(f"{_whole('size', s, 1)}" for s in sizes))


def convolution_macs(
    output: Sizes, window: Sizes, channels: int, filters: int, *, groups: int = 1
) -> Worked:
    """Count the multiply-accumulates of a convolution, forward, for one image.

    Every pixel of the `output` (one number for a square or one for each axis) costs as
    many as the filters have weights, products with zeros among them; biases none.
    """
    kernel = convolution_parameters(window, channels, filters, groups=groups)
    return _evaluated("·".join([*map(str, _axes(output)), kernel.expression]))


def dense_macs(inputs: int, units: int) -> Worked:
    """Count the multiply-accumulates of a fully-connected layer: inputs·units."""
    return dense_parameters(inputs, units)


def receptive_field(layers: Iterable[Sequence[int]]) -> ReceptiveField:
    """Work out the receptive field of a stack: 1 + Σ (F - 1)·(strides before it).

    `layers` are (window, stride) or (window, stride, dilation), from the input on; the
    image's border cuts nothing. ValueError for what is no such layer.

    Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
    networks" (Distill, 2019), equation 2.
    """
    size, jump, terms, sizes = 1, 1, ["1"], []
    for layer in layers:
        if len(layer) not in (2, 3):
            raise ValueError(f"a layer is window, stride[, dilation]; received {layer}")
        numbers = zip(("window", "stride", "dilation"), (*layer, 1), strict=False)
        window, stride, dilation = (_whole(name, value, 1) for name, value in numbers)
        factor = f"{dilation}·" if dilation > 1 else ""
        terms.append(f"{factor}({window} - 1)·{jump}")
        size += dilation * (window - 1) * jump
        jump *= stride
        sizes.append(size)
    result = ReceptiveField(size, " + ".join(terms))
    result.sizes, result.jump = tuple(sizes), jump
    return result


def storage(numbers: int, dtype: str = "float32") -> Worked:
    """Count the bytes that numbers take: `storage(33120)` is 33120·4 = 132,480."""
    if dtype not in BYTES:
        raise ValueError(f"dtype must be one of {', '.join(BYTES)}; received {dtype!r}")
    return product(_whole("numbers", numbers, 0), BYTES[dtype])


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_SIGNS = str.maketrans({"·": "*", "×": "*", "−": "-", "²": "**2", "³": "**3"})


def evaluate(expression: str) -> Fraction:
    """Work out an expression such as "2·(3·3·16·32 + 32)" exactly, else ValueError."""

    def value(node) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise SyntaxError

    plain = expression.replace(",", "").translate(_SIGNS)
    try:
        return value(ast.parse(plain.strip(), mode="eval").body)
    except SyntaxError:
        told = "whole numbers joined by + - · / and parentheses"
        raise ValueError(f"an expression is {told}; received {expression!r}") from None


def _evaluated(expression: str) -> Worked:
    return Worked(int(evaluate(expression)), expression)


def _zeros(size: int, reach: int, stride: int, padding) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        # As TensorFlow defines it: ceil(I/S) windows, and the odd zero goes after.
        total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        return total // 2, total - total // 2
    pair = padding if isinstance(padding, Sequence) else (padding, padding)
    if isinstance(padding, str) or len(pair) != 2:
        kinds = "a number, a pair (before, after), 'valid' or 'same'"
        raise ValueError(f"padding is {kinds}; received {padding!r}")
    return _whole("padding", pair[0], 0), _whole("padding", pair[1], 0)


def _axes(window: int | Sequence[int]) -> tuple[int, ...]:
    window = window if isinstance(window, Sequence) else (window, window)
    return tuple(_whole("window", w, 1) for w in window)


def _whole(name: str, value, minimum: int) -> int:
    try:
        if (number := operator.index(value)) >= minimum:
            return int(number)
    except TypeError:
        pass
    told = f"a whole number of {minimum} or more; received {value!r}"
    raise ValueError(f"{name} must be {told}")


def _decimal(value: Fraction) -> str:
    """14.5 for 29/2, 4.666… for 14/3."""
    whole, thousandths = divmod(value * 1000 // 1, 1000)
    text = f"{whole}.{thousandths:03}".rstrip("0").rstrip(".")
    return text if Fraction(text) == value else f"{text}…"
