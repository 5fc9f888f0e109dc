"""Convolution by hand: the window, its products, their sum, ReLU, the growing map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerascnn.arithmetic import OutputSize, output_size
from kerascnn.plotting.style import (
    CHANNELS,
    SEQUENTIAL,
    draw_image,
    draw_matrix,
    draw_numbers,
    exact,
    matrix_text,
    number,
    rectangle,
    save,
    whole_ticks,
)


@dataclass(frozen=True, eq=False)
class Step:
    """One place of the filter: one number of the map.

    Attributes:
        row, column, filter: the place in the map, and the number of the filter.
        top, left: of the window on the image; negative in the zeros of a padding.
        window: float64 (height, width, channels), what the filter meets.
        products: window times filter, of the same shape.
        total: their sum.
        bias: added to it.
        output: after bias and ReLU, where there is one.
        relu: whether there is one.
        weights: the filter, (height, width, channels).
        dilation: pixels from one tap of the filter to the next.
    """

    row: int
    column: int
    filter: int
    top: int
    left: int
    window: np.ndarray
    weights: np.ndarray
    products: np.ndarray
    total: float
    bias: float
    output: float
    relu: bool
    dilation: int

    def __str__(self) -> str:
        tall, wide = (self.dilation * (n - 1) for n in self.window.shape[:2])
        lines = [
            f"row {self.row}, column {self.column} of map {self.filter}: the window is "
            f"rows {self.top} to {self.top + tall}, columns {self.left} to "
            f"{self.left + wide}"
        ]
        channels = self.window.shape[-1]
        for c in range(channels):
            if channels > 1:
                lines.append(f"  channel {c}:")
            for xs, ws in zip(self.window[..., c], self.weights[..., c], strict=True):
                terms = (f"{exact(x)}·{exact(w)}" for x, w in zip(xs, ws, strict=True))
                lines.append("  " + " + ".join(terms))
            if channels > 1:
                lines.append(f"  = {exact(self.products[..., c].sum())}")
        lines.append(f"  sum {exact(self.total)}")
        if self.bias:
            total = exact(self.total + self.bias)
            lines[-1] += f" + bias {exact(self.bias)} = {total}"
        if self.relu:
            before = exact(self.total + self.bias)
            lines[-1] += f"; ReLU max(0, {before}) = {exact(self.output)}"
        return "\n".join(lines)


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
    """A convolution, step by step.

    Attributes:
        image: float64 (H, W, C).
        filters: float64 (height, width, C, F).
        bias: float64 (F,).
        rows, columns: where the windows lie along each axis; see
            `kerascnn.arithmetic.OutputSize`.
        padded: the image with its zeros.
        sums: float64 (rows, columns, F), with the bias.
        output: the maps: the sums after ReLU, where there is one.
        relu: whether there is one.
    """

    image: np.ndarray
    filters: np.ndarray
    bias: np.ndarray
    rows: OutputSize
    columns: OutputSize
    padded: np.ndarray
    sums: np.ndarray
    output: np.ndarray
    relu: bool

    @property
    def steps(self) -> Sequence[Step]:
        """Every step: row by row, one filter after the other."""
        return _Steps(self)

    def step(self, row: int, column: int, filter: int = 0) -> Step:
        """Return the step that makes one number of a map.

        Raises:
            ValueError: there is no such place or filter.
        """
        place = (row, column, filter)
        if not all(0 <= i < n for i, n in zip(place, self.sums.shape, strict=True)):
            raise ValueError(
                f"a step is (row, column, filter) within {self.sums.shape}; received "
                f"{place}"
            )
        window = _window(self.padded, self.rows, self.columns, row, column)
        weights = self.filters[..., filter]
        products = window * weights
        return Step(
            row=row,
            column=column,
            filter=filter,
            top=self.rows.windows[row][0],
            left=self.columns.windows[column][0],
            window=window,
            weights=weights,
            products=products,
            total=float(products.sum()),
            bias=float(self.bias[filter]),
            output=float(self.output[row, column, filter]),
            relu=self.relu,
            dilation=self.rows.dilation,
        )

    def _arithmetic(self) -> str:
        return f"rows {self.rows}; columns {self.columns}"

    def __str__(self) -> str:
        height, width, channels = self.image.shape
        tall, wide, _, count = self.filters.shape
        filters = "filter" if count == 1 else "filters"
        lines = [
            f"{count} {filters} of {tall}×{wide}×{channels} over {height}×{width}×"
            f"{channels}: {len(self.steps):,} steps of {tall * wide * channels} "
            "products",
            f"size of a map: {self._arithmetic()}",
            "the first step:",
            str(self.steps[0]),
        ]
        for f in range(count):
            if max(self.output.shape[:2]) > 16:
                highest = self.output[..., f]
                place = np.unravel_index(highest.argmax(), highest.shape)
                lines.append(
                    f"map {f}: {number(highest.min())} to {number(highest.max())}, the "
                    f"greatest at row {place[0]}, column {place[1]}"
                )
            else:
                lines.append(f"map {f}{', after ReLU' if self.relu else ''}:")
                lines.append(matrix_text(self.output[..., f]))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return sizes, first step and maps as values that JSON can hold."""
        first = self.steps[0]
        return {
            "rows": str(self.rows),
            "columns": str(self.columns),
            "first": {
                "window": first.window.tolist(),
                "filter": first.weights.tolist(),
                "products": first.products.tolist(),
                "sum": first.total,
                "bias": first.bias,
                "output": first.output,
            },
            "maps": self.output.tolist(),
        }

    def plot(
        self,
        path=None,
        *,
        step: int = 0,
        channel: int | None = None,
        inverted: bool = False,
    ):
        """Draw one step: the window on the image, the products, the map so far.

        Args:
            path: where to write it too: .png, .svg or .pdf.
            step: which; negative from the end.
            channel: of the image, whose window is drawn; default: all of up to three,
                else the first.
            inverted: draw 0 white and the greatest value black, as the slides do.

        Returns:
            A matplotlib Figure.
        """
        from matplotlib.figure import Figure

        size = (14, 1.2 + 2.3 * self._lines(channel))
        figure = Figure(figsize=size)
        self._draw(figure, step % len(self.steps), channel, inverted)
        save(figure, path, f"{self.steps[step]}")
        return figure

    def _lines(self, channel) -> int:
        shown = self._channels(channel)
        return max(len(shown), 1.5)

    def _channels(self, channel) -> list[int]:
        count = self.image.shape[-1]
        if channel is not None:
            return [channel]
        return list(range(count)) if count <= 3 else [0]

    def _draw(self, figure, index: int, channel, inverted, numbers=True) -> None:
        step = self.steps[index]
        shown = self._channels(channel)
        # Places that are fixed: a layout that is worked out costs more than all else,
        # frame by frame.
        areas = figure.add_gridspec(
            len(shown),
            6,
            width_ratios=(1.5, 1, 1, 1, 0.1, 1.6),
            left=0.05,
            right=0.96,
            top=0.88,
            bottom=0.09,
            wspace=0.15,
        )
        self._draw_window(figure.add_subplot(areas[:, 0]), step, inverted)
        names = CHANNELS.get(self.image.shape[-1])
        parts = (
            (step.window, "window"),
            (step.weights, "filter"),
            (step.products, "product"),
        )
        for column, (values, title) in enumerate(parts):
            limit = float(np.abs(values).max()) or 1.0
            for line, c in enumerate(shown):
                text = f"{title}, {names[c]}" if names else f"{title}, channel {c}"
                text = title if self.image.shape[-1] == 1 else text
                if title == "product" and len(shown) > 1:
                    text += f": {number(values[..., c].sum())}"
                axes = figure.add_subplot(areas[line, 1 + column])
                draw_matrix(axes, values[..., c], text, limit=limit, numbers=numbers)
        figure.text(
            0.5, 0.02, "window · filter = product, place by place", ha="center", size=9
        )
        self._draw_map(figure.add_subplot(areas[:, 5]), step, index)
        text = f"step {index + 1} of {len(self.steps)}: the products sum to "
        text += number(step.total)
        if step.bias:
            text += f", with bias {number(step.bias)}: {number(step.total + step.bias)}"
        if self.relu:
            text += f", after ReLU: {number(step.output)}"
        figure.suptitle(text)

    def _draw_window(self, axes, step, inverted) -> None:
        extent = self.padded.shape
        top, left = -self.rows.before, -self.columns.before
        # The zeros of the padding are grey, whatever the image makes of a zero.
        grey = "gray_r" if inverted else "gray"
        draw_image(axes, self.image, "image and window", grey=grey)
        axes.set_facecolor("#BBBBBB")
        axes.set_xlim(left - 0.5, left + extent[1] - 0.5)
        axes.set_ylim(top + extent[0] - 0.5, top - 0.5)
        if max(self.image.shape[:2]) <= 9 and self.image.shape[-1] == 1:
            tones = self.image[..., 0]
            middle = (tones.max() + tones.min()) / 2

            def colour(row, column):
                bright = (tones[row, column] > middle) != inverted
                return "black" if bright else "white"

            draw_numbers(axes, tones, size=8, colours=colour)
        taps = self.filters.shape[:2]
        gap = step.dilation
        if gap == 1:
            rectangle(axes, step.top, step.left, *taps)
            return
        for i, j in np.ndindex(*taps):
            rectangle(axes, step.top + i * gap, step.left + j * gap, 1, 1)

    def _draw_map(self, axes, step, index: int) -> None:
        rows, columns, _ = self.output.shape
        done = index - step.filter * rows * columns
        values = self.output[..., step.filter].copy()
        seen = np.ma.masked_where(
            np.arange(rows * columns).reshape(rows, columns) > done, values
        )
        low, high = values.min(), values.max()
        high = high if high > low else low + 1
        shown = axes.imshow(seen, cmap=SEQUENTIAL, vmin=low, vmax=high)
        axes.set_facecolor("white")
        if max(rows, columns) <= 9:
            middle = (low + high) / 2
            for i, j in np.argwhere(~np.ma.getmaskarray(seen)):
                axes.text(
                    j,
                    i,
                    number(values[i, j]),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="black" if values[i, j] > middle else "white",
                )
        rectangle(axes, step.row, step.column, 1, 1)
        axes.set_title(f"map {step.filter}" + (", after ReLU" if self.relu else ""))
        whole_ticks(axes)
        axes.set_xlabel("column of the map")
        axes.set_ylabel("row of the map")
        axes.figure.colorbar(shown, ax=axes, shrink=0.6, label="value")

    def animate(
        self, path, *, seconds: float = 0.6, most: int = 64, inverted: bool = False
    ):
        """Write the steps as an animated GIF.

        Filters of more than 27 weights are drawn in colours alone, without numbers.

        Args:
            path: of the .gif file.
            seconds: that each step is shown.
            inverted: as in `plot`.
            most: the most frames; of more steps so many are chosen evenly, the first
                and the last among them.

        Returns:
            The path.

        Raises:
            ValueError: the file is no .gif, or a number is not positive.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        if not str(path).lower().endswith(".gif"):
            raise ValueError(f"an animation is a .gif file; received {path}")
        if seconds <= 0 or most < 1:
            raise ValueError(
                "seconds and most must be positive; received "
                f"seconds={seconds}, most={most}"
            )
        count = len(self.steps)
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round())
        # More numbers could not be read at the size of a frame, and take their time.
        few = self.filters[..., 0].size <= 27
        frames = []
        for index in chosen.astype(int):
            size = (14, 1.2 + 2.3 * self._lines(None))
            figure = Figure(figsize=size, dpi=80)
            canvas = FigureCanvasAgg(figure)
            self._draw(figure, int(index), None, inverted, few)
            canvas.draw()
            frame = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            frames.append(frame.quantize(128))
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 * seconds),
            loop=0,
        )
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

    Returns:
        A `Slide`: `.steps`, `.output`; `print` it, `.plot(step=3)`, `.animate(path)`.

    Raises:
        ValueError: the shapes do not agree, the filter does not fit the image, or an
            argument of `kerascnn.arithmetic.output_size` is out of range.

    Source: the lecture, slides "Convolution", "Stride" and "Padding".
    """
    image = np.asarray(image, np.float64)
    image = image[..., None] if image.ndim == 2 else image
    filters = np.asarray(filters, np.float64)
    if filters.ndim == 2:
        filters = filters[..., None]
    if filters.ndim == 3:
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
    output = np.maximum(sums, 0) if relu else sums
    return Slide(image, filters, bias, rows, columns, padded, sums, output, relu)


def _window(padded, rows, columns, row, column) -> np.ndarray:
    """What the filter meets at one place; positions count from the first zero."""
    ys = [p + rows.before for p in rows.windows[row]]
    xs = [p + columns.before for p in columns.windows[column]]
    return padded[np.ix_(ys, xs)]
