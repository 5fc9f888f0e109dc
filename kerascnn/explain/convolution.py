"""Convolution by hand: the window, its products, their sum, ReLU, the growing map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerascnn.arithmetic import OutputSize, output_size
from kerascnn.explain.cell import drawn_channels, product_lines
from kerascnn.plotting import style
from kerascnn.plotting.style import exact, number, place


@dataclass(frozen=True, eq=False)
class Step:
    """One place of the filter: one number of the map."""

    row: int  #: of the map
    column: int  #: of the map
    filter: int  #: its number
    top: int  #: of the window on the image; negative in the zeros of a padding
    left: int  #: of the window
    window: np.ndarray  #: float64 (height, width, channels), what the filter meets
    weights: np.ndarray  #: the filter, of the same shape
    bias: float  #: added to the sum of the products
    output: float  #: after bias and ReLU, where there is one
    relu: bool  #: whether there is one
    dilation: int  #: pixels from one tap of the filter to the next

    @property
    def products(self) -> np.ndarray:
        """Window times filter, (height, width, channels)."""
        return self.window * self.weights

    @property
    def total(self) -> float:
        """The sum of the products, without bias."""
        return float(self.products.sum())

    def __str__(self) -> str:
        tall, wide = (self.dilation * (n - 1) for n in self.window.shape[:2])
        lines = [
            f"row {self.row}, column {self.column} of map {self.filter}: the window is "
            f"rows {self.top} to {self.top + tall}, columns {self.left} to "
            f"{self.left + wide}"
        ]
        channels = self.window.shape[-1]
        for c in range(channels):
            rows = product_lines(self.window[..., c], self.weights[..., c])
            if channels > 1:
                total = exact(self.products[..., c].sum())
                rows = [f"  channel {c}:", *rows, f"  = {total}"]
            lines += rows
        text, before = f"  sum {exact(self.total)}", exact(self.total + self.bias)
        if self.bias:
            text += f" + bias {exact(self.bias)} = {before}"
        if self.relu:
            text += f"; ReLU max(0, {before}) = {exact(self.output)}"
        return "\n".join([*lines, text])


class _Steps(Sequence):
    """The steps of a convolution, each made when it is looked at."""

    def __init__(self, slide):
        self._slide = slide

    def __len__(self) -> int:
        return int(self._slide.sums.size)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} steps; received {index}")
        rows, columns, _ = self._slide.sums.shape
        # One filter's whole map, then the next filter's.
        f, place = divmod(int(index) % len(self), rows * columns)
        return self._slide.step(*divmod(place, columns), f)


@dataclass(frozen=True, eq=False)
class Slide:
    """A convolution, step by step."""

    image: np.ndarray  #: float64 (H, W, C)
    filters: np.ndarray  #: float64 (height, width, C, F)
    bias: np.ndarray  #: float64 (F,)
    rows: OutputSize  #: where the windows lie along the first axis
    columns: OutputSize  #: and along the second
    padded: np.ndarray  #: the image with its zeros
    sums: np.ndarray  #: float64 (rows, columns, F), with the bias
    relu: bool  #: whether ReLU follows

    @property
    def output(self) -> np.ndarray:
        """The maps (rows, columns, F): the sums after ReLU, where there is one."""
        return np.maximum(self.sums, 0) if self.relu else self.sums

    @property
    def steps(self) -> Sequence[Step]:
        """Every step: row by row, one filter after the other."""
        return _Steps(self)

    def step(self, row: int, column: int, filter: int = 0) -> Step:
        """Return the step that makes one number of a map; ValueError for none."""
        place = (row, column, filter)
        if not all(0 <= i < n for i, n in zip(place, self.sums.shape, strict=True)):
            raise ValueError(
                f"a step is (row, column, filter) within {self.sums.shape}; received "
                f"{place}"
            )
        total = float(self.sums[place])
        return Step(
            row=row,
            column=column,
            filter=filter,
            top=row * self.rows.stride - self.rows.before,
            left=column * self.columns.stride - self.columns.before,
            window=_window(self.padded, self.rows, self.columns, row, column),
            weights=self.filters[..., filter],
            bias=float(self.bias[filter]),
            output=max(total, 0.0) if self.relu else total,
            relu=self.relu,
            dilation=self.rows.dilation,
        )

    def strongest(self, filter: int = 0) -> int:
        """Return the number of the step that makes the greatest value of a map."""
        rows, columns, _ = self.sums.shape
        return filter * rows * columns + int(self.sums[..., filter].argmax())

    def __str__(self) -> str:
        height, width, channels = self.image.shape
        tall, wide, _, count = self.filters.shape
        lines = [
            f"{count} filter{'s' * (count > 1)} of {tall}×{wide}×{channels} over "
            f"{height}×{width}×{channels}: {len(self.steps):,} steps of "
            f"{tall * wide * channels} products",
            f"size of a map: rows {self.rows}; columns {self.columns}",
            "the first step:",
            str(self.steps[0]),
        ]
        for f, values in enumerate(np.moveaxis(self.output, -1, 0)):
            if max(values.shape) > 16:
                row, column = place(values)
                lines.append(
                    f"map {f}: {number(values.min())} to {number(values.max())}, the "
                    f"greatest at row {row}, column {column}"
                )
            else:
                lines.append(f"map {f}{', after ReLU' if self.relu else ''}:")
                lines.append(style.matrix_text(values))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return sizes, first step and maps as values that JSON can hold."""
        step = self.steps[0]
        first = {
            "window": step.window.tolist(),
            "filter": step.weights.tolist(),
            "products": step.products.tolist(),
            "sum": step.total,
            "bias": step.bias,
            "output": step.output,
        }
        sizes = {"rows": str(self.rows), "columns": str(self.columns)}
        return {**sizes, "first": first, "maps": self.output.tolist()}

    def plot(self, path=None, *, step: int = 0, channel=None, inverted: bool = False):
        """Draw one step: the window on the image, the products, the map so far.

        Args:
            path: where to write it too: .png, .svg or .pdf.
            step: which; negative from the end.
            channel: of the image, whose window is drawn; default: all of up to three,
                else the three whose products amount to most.
            inverted: draw 0 white and the greatest value black, as the slides do.

        Returns a matplotlib Figure.
        """
        few = drawn_channels(self.steps[step].products)
        shown = few if channel is None else [channel]
        figure = self._draw(step % len(self.steps), shown, inverted)
        style.save(figure, path, f"{self.steps[step]}")
        return figure

    def _draw(self, index: int, shown, inverted, numbers=True, **options):
        step = self.steps[index]
        # Places that are fixed: a layout that is worked out costs more than all else,
        # frame by frame.
        wide, count = max(self.filters.shape[:2]) > 3, len(shown)
        high = 1.2 + (2.3 if wide else 2) * max(count, 1.5)
        figure = style.canvas(11, high, layout=None, **options)
        widths = (
            (1.3, 1.8, 1.8, 1.8, 0.1, 1.2) if wide else (1.8, 1.1, 1.1, 1.1, 0.1, 1.7)
        )
        sides = {"left": 0.05, "right": 0.94, "top": 0.88, "bottom": 0.09}
        areas = figure.add_gridspec(count, 6, width_ratios=widths, wspace=0.15, **sides)
        channels = self.image.shape[-1]
        names = style.channel_names(channels)
        axes, image, title = figure.add_subplot(areas[:, 0]), self.image, "image"
        if channels not in style.CHANNELS:  # a map, from its least to its greatest
            title = names[shown[0]]
            image = image[..., shown[:1]] - image[..., shown[0]].min()
            image = image / (image.max() or 1.0)
        self._draw_window(axes, image, f"{title} and window", step, inverted)
        parts = {"window": step.window, "filter": step.weights}
        parts["product"] = step.products
        for column, (title, values) in enumerate(parts.items(), start=1):
            limit = float(np.abs(values).max()) or 1.0
            for line, c in enumerate(shown):
                text = title if channels == 1 else f"{title}, {names[c]}"
                if title == "product" and channels > 1:
                    text += f": {number(values[..., c].sum())}"
                axes = figure.add_subplot(areas[line, column])
                style.draw_matrix(axes, values[..., c], text, limit, _short, numbers)
        note = "window · filter = product, place by place"
        if rest := channels - len(shown):
            others = number(step.total - step.products[..., shown].sum())
            note += f"; the products of the other {rest} channels sum to {others}"
        figure.text(0.5, 0.02, note, ha="center", size=9)
        self._draw_map(figure.add_subplot(areas[:, 5]), step, index)
        text = f"step {index + 1} of {len(self.steps)}: the products sum to "
        text += number(step.total)
        if step.bias:
            text += f", with bias {number(step.bias)}: {number(step.total + step.bias)}"
        if self.relu:
            text += f", after ReLU: {number(step.output)}"
        figure.suptitle(text)
        return figure

    def _draw_window(self, axes, image, title, step, inverted) -> None:
        height, width, _ = self.padded.shape
        top, left = -self.rows.before, -self.columns.before
        # The zeros of the padding are grey, whatever the image makes of a zero.
        style.draw_image(axes, image, title, grey="gray_r" if inverted else "gray")
        axes.set_facecolor("#BBBBBB")
        axes.set_xlim(left - 0.5, left + width - 0.5)
        axes.set_ylim(top + height - 0.5, top - 0.5)
        if max(image.shape[:2]) <= 9 and self.image.shape[-1] == 1:
            tones = self.image[..., 0]
            bright = (tones > (tones.max() + tones.min()) / 2) != inverted
            style.draw_numbers(axes, tones, 8, bright=bright)
        taps, gap = self.filters.shape[:2], step.dilation
        # With dilation each tap has a frame of its own.
        for i, j in np.ndindex(*taps) if gap > 1 else [(0, 0)]:
            size = (1, 1) if gap > 1 else taps
            style.rectangle(axes, step.top + i * gap, step.left + j * gap, *size)

    def _draw_map(self, axes, step, index: int) -> None:
        values = self.output[..., step.filter]
        rows, columns = values.shape
        done = index - step.filter * rows * columns
        seen = np.arange(rows * columns).reshape(rows, columns) <= done
        low, high = values.min(), values.max()
        high = high if high > low else low + 1
        scale = {"cmap": style.SEQUENTIAL, "vmin": low, "vmax": high}
        axes.imshow(values, alpha=0.15, **scale)  # what is still to come
        shown = axes.imshow(np.ma.masked_where(~seen, values), **scale)
        if max(rows, columns) <= 9:
            bright = values > (low + high) / 2
            style.draw_numbers(axes, values, 8, bright=bright, shown=seen)
        style.rectangle(axes, step.row, step.column, 1, 1)
        style.whole_ticks(axes)
        title = f"map {step.filter}{', after ReLU' if self.relu else ''}"
        axes.set(xlabel="column of the map", ylabel="row of the map")
        axes.set_title(title, fontsize=10)
        bar = {"location": "bottom", "shrink": 0.9, "aspect": 12, "pad": 0.2}
        axes.figure.colorbar(shown, ax=axes, label="value", **bar)

    def animate(
        self, path, *, seconds: float = 0.6, most: int = 64, inverted: bool = False
    ):
        """Write the steps as an animated GIF; returns the path.

        Filters of more than 27 weights are drawn in colours alone, without numbers.

        Args:
            path: of the .gif file.
            seconds: that each step is shown.
            most: the most frames; of more steps so many are chosen evenly, the first
                and the last among them.
            inverted: as in `plot`.

        Raises ValueError: the file is no .gif, or a number is not positive.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        if not str(path).lower().endswith(".gif"):
            raise ValueError(f"an animation is a .gif file; received {path}")
        if seconds <= 0 or most < 1:
            raise ValueError(
                f"seconds and most must be positive; received {seconds=}, {most=}"
            )
        count = len(self.steps)
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round())
        # More numbers could not be read at the size of a frame, and take their time.
        few = self.filters[..., 0].size <= 27
        # The same channels in all frames.
        shown = drawn_channels(self.steps[self.strongest()].products)
        frames = []
        for index in chosen.astype(int):
            figure = self._draw(int(index), shown, inverted, few, dpi=80)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            frame = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            frames.append(frame.quantize(256))
        more = {"append_images": frames[1:], "duration": round(1000 * seconds)}
        frames[0].save(path, save_all=True, loop=0, **more)
        return path


def slide(
    image, filters, stride=1, padding=0, *, bias=None, relu=True, dilation=1
) -> Slide:
    """Convolve an image by hand, and keep every step.

    As in every network, the filter is not turned around: it is a cross-correlation.

    Args:
        image: (H, W) or (H, W, C).
        filters: one filter (height, width) or (height, width, C), or several
            (height, width, C, F), as Keras keeps them.
        stride: pixels that the filter moves; one number, or (rows, columns).
        padding: zeros on each side; a pair (before, after); "valid" or "same".
        bias: a number for each filter; default: none.
        relu: whether max(0, x) follows.
        dilation: pixels from one tap of the filter to the next.

    Raises ValueError: the shapes do not agree, the filter does not fit the image, or an
    argument of `kerascnn.arithmetic.output_size` is out of range.

    Source: the lecture, slides "Convolution", "Stride" and "Padding".
    """
    image = np.asarray(image, np.float64)
    image = image[..., None] if image.ndim == 2 else image
    filters = np.asarray(filters, np.float64)
    while filters.ndim in (2, 3):
        filters = filters[..., None]
    if image.ndim != 3 or filters.ndim != 4 or image.shape[2] != filters.shape[2]:
        raise ValueError(
            "an image is (height, width, channels), a filter as deep as it: (height, "
            f"width, channels); received shapes {image.shape} and {filters.shape[:3]}"
        )
    count = filters.shape[-1]
    bias = np.zeros(count) if bias is None else np.atleast_1d(np.asarray(bias, float))
    if bias.shape != (count,):
        raise ValueError(
            f"there is one bias for each of the {count} filters; received shape "
            f"{bias.shape}"
        )
    strides = stride if isinstance(stride, Sequence) else (stride, stride)
    rows, columns = (
        output_size(image.shape[axis], filters.shape[axis], s, padding, dilation)
        for axis, s in enumerate(strides)
    )
    zeros = ((rows.before, rows.after), (columns.before, columns.after), (0, 0))
    padded = np.pad(image, zeros)
    sums = np.zeros((rows, columns, count))
    for i, j in np.ndindex(rows, columns):
        window = _window(padded, rows, columns, i, j)
        sums[i, j] = (window[..., None] * filters).sum((0, 1, 2)) + bias
    return Slide(image, filters, bias, rows, columns, padded, sums, relu)


def _window(padded, rows, columns, row, column) -> np.ndarray:
    """What the filter meets at one place."""
    top, left, gap = row * rows.stride, column * columns.stride, rows.dilation
    tall, wide = rows.window * gap, columns.window * gap
    return padded[top : top + tall : gap, left : left + wide : gap]


def _short(value: float) -> str:
    """Write a number in two digits, a whole one whole, of small ones thousandths."""
    if abs(value) >= 10 or value == int(value):
        return str(round(value))
    return f"{value:.2g}" if abs(value) >= 0.01 else f"{round(value, 3) + 0.0:.3f}"
