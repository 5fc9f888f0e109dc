"""One style for every picture: colours, images, matrices, files, and twins in text."""

import functools
import inspect
import math

import numpy as np

# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
INK, PALE = "#333333", "#DDDDDD"
CYCLE = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, "#000000")

CHANNELS = {1: ("grey",), 3: ("red", "green", "blue"), 4: ("red", "green", "blue", "α")}
SHADES = " .:-=+*#%@"
# Both read the same to the colour-blind, the first in grey too.
SEQUENTIAL, DIVERGING = "viridis", "PuOr"


def number(value) -> str:
    """Write a number in about three digits; whole ones whole; -0 is 0."""
    value = float(value)
    if abs(value) < 1e6 and value == int(value):
        return str(int(value))
    if 100 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.2g}"


def exact(value) -> str:
    """Write a number of a sum: six digits, in parentheses below 0."""
    text = f"{float(value):.6g}"
    return f"({text})" if text.startswith("-") else text


def channel_names(channels: int) -> tuple[str, ...]:
    """Name the channels of an image: by their colours, else by their numbers."""
    return CHANNELS.get(channels) or tuple(f"channel {c}" for c in range(channels))


def picture(image) -> np.ndarray:
    """Bring an image (H, W, C) to what matplotlib draws: 0…1, of 1, 3 or 4 channels.

    Numbers outside of 0…1 and 0…255 are stretched from the least to the greatest;
    other numbers of channels are averaged.
    """
    image = np.asarray(image, np.float32)
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255:
        image = (image - low) / (high - low or 1)
    elif high > 1:
        image = image / 255
    if image.shape[-1] not in (1, 3, 4):
        image = image.mean(-1, keepdims=True)
    return image[..., 0] if image.shape[-1] == 1 else image


def draw_image(axes, image, title, *, grey="gray") -> None:
    """Draw an image (H, W, C) with its rows and columns counted from 0."""
    axes.imshow(picture(image), cmap=grey, vmin=0, vmax=1, interpolation="nearest")
    whole_ticks(axes)
    axes.set(title=title, xlabel="column (pixels)", ylabel="row (pixels)")


def draw_numbers(
    axes, values, size, *, form=number, bright=True, shown=True, at=(0, 0)
) -> None:
    """Write each number of a matrix in its cell, or those that are `shown`.

    `form` makes its text; letters are black on what is `bright`, white elsewhere; the
    first cell is `at` (row, column).
    """
    bright, shown = (np.broadcast_to(x, values.shape) for x in (bright, shown))
    look = {"ha": "center", "va": "center", "fontsize": size}
    for row, column in np.argwhere(shown):
        look["color"] = "black" if bright[row, column] else "white"
        axes.text(at[1] + column, at[0] + row, form(values[row, column]), **look)


def draw_matrix(axes, values, title, limit, form=number, numbers=True) -> None:
    """Draw numbers from `-limit` (orange) to `limit` (purple); white is 0.

    Up to 9x9 numbers are written out, by `form`, unless `numbers` is false.
    """
    # Softened at both ends, so that black letters are readable on every cell.
    axes.imshow(values, cmap=DIVERGING, vmin=-limit * 1.6, vmax=limit * 1.6)
    if numbers and max(values.shape) <= 9:
        draw_numbers(axes, values, 8 if max(values.shape) <= 5 else 5.5, form=form)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def rectangle(axes, top, left, height, width, colour=VERMILION, **style) -> None:
    """Frame a rectangle of pixels: whole ones, so from half a pixel before."""
    from matplotlib.patches import Rectangle

    style = {"lw": 2, "fill": False, "edgecolor": colour, **style}
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, **style))


def whole_ticks(axes) -> None:
    """Count rows and columns in whole numbers."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def tiles(axes, rows, *, heads=(), **image):
    """Draw small pictures in rows on one axes: many times quicker than one axes each.

    `rows` are of pairs (array, title), `heads` texts to their left; `image` goes to
    `imshow`, whose last result is returned.
    """
    columns = max(map(len, rows))
    step, line = 1.12, 1.3  # from one to the next, with a gap, and room for a title
    for i, row in enumerate(rows):
        if i < len(heads):
            axes.text(-0.12, i * line + 0.5, heads[i], ha="right", va="center", size=8)
        for j, (values, title) in enumerate(row):
            left, top = j * step, i * line
            extent = (left, left + 1, top + 1, top)
            own = {} if np.ndim(values) == 3 else image
            shown = axes.imshow(values, extent=extent, interpolation="nearest", **own)
            place = left + 0.5, top - 0.03
            axes.text(*place, title, ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.05, columns * step)
    axes.set_ylim(len(rows) * line - 0.1, -0.3)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return shown


def tile(title, values) -> tuple:
    """Return a map with a title that says between what its values lie, for `tiles`."""
    return values, f"{title}: {number(values.min())} … {number(values.max())}"


def in_rows(cells: list, most: int = 8) -> list[list]:
    """Lay small pictures out in a square, of many in rows of `most`."""
    columns = min(most, math.ceil(math.sqrt(len(cells))))
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def canvas(width: float, height: float, **options):
    """Return an empty matplotlib Figure, in inches, that lays out what is drawn."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **{"layout": "constrained", **options})


def drawn(draw):
    """Make a method `plot(path=None, …)` of one that draws and returns a Figure.

    Where there is a path, the figure is written there, with its text twin: the object's
    `description` where it has one, else itself as text.
    """

    @functools.wraps(draw)
    def plot(self, path=None, **options):
        figure = draw(self, **options)
        if path is not None:
            save(figure, path, getattr(self, "description", None) or str(self))
        return figure

    own = inspect.signature(draw)
    first, *options = own.parameters.values()
    path = first.replace(name="path", default=None)
    plot.__signature__ = own.replace(parameters=[first, path, *options])
    plot.__doc__ += """
        `path` says where to write it too: .png, .svg or .pdf. Returns a matplotlib
        Figure.
        """
    return plot


def save(figure, path, text="") -> None:
    """Write a figure to a .png, .svg or .pdf file; None writes nothing.

    `text` says in words what it shows; PNG and SVG files keep it.
    """
    if path is None:
        return
    kept = str(path).lower().endswith((".png", ".svg"))
    figure.savefig(path, dpi=150, metadata={"Description": text} if kept else None)


def matrix_text(values) -> str:
    """Lay out a matrix of numbers in columns."""
    cells = [[number(v) for v in row] for row in values]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  " + " ".join(c.rjust(width) for c in row) for row in cells)


def shades(values, *, low=None) -> str:
    """Draw a map (H, W) in letters: a space is the least value, @ the greatest.

    Maps of more than 32 rows or columns are averaged down; a value takes two letters.
    """
    values = np.asarray(values, np.float64)
    step = -(-max(values.shape) // 32)
    if step > 1:
        wide = [(0, -side % step) for side in values.shape]
        values = np.pad(values, wide, constant_values=np.nan)
        parts = (length for side in values.shape for length in (side // step, step))
        values = np.nanmean(values.reshape(*parts), (1, 3))
    low = values.min() if low is None else low
    share = (values - low) / ((values.max() - low) or 1)
    levels = np.clip((share * len(SHADES)).astype(int), 0, len(SHADES) - 1)
    rows = ("".join(SHADES[i] * 2 for i in row) for row in levels)
    return "\n".join(f"  {row}".rstrip() for row in rows)


def place(values) -> tuple[int, ...]:
    """Return the indices of the greatest value."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(values), values.shape))


def extent(values) -> dict[str, float]:
    """Return the least, mean and greatest of some values."""
    ends = {"least": values.min(), "mean": values.mean(), "greatest": values.max()}
    return {name: float(value) for name, value in ends.items()}


def shape_text(shape) -> str:
    """Write a shape: "32×32×3"."""
    return "×".join("?" if n is None else str(n) for n in shape)
