"""A picture beside its numbers, the channels apart."""

from dataclasses import dataclass

import numpy as np

from kerascnn.explain.recording import shown_image
from kerascnn.plotting import style
from kerascnn.plotting.style import number

_SIDE = 12  # rows and columns of numbers that a page holds
# From black to the colour of a channel.
_TINTS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image as numbers."""

    image: np.ndarray  #: (H, W, C)
    names: tuple[str, ...]  #: of the channels: grey; red, green, blue; or their numbers
    window: tuple[int, int, int, int]  #: (row, column, height, width) that is shown

    @property
    def shown(self) -> np.ndarray:
        """The part whose numbers are shown, (height, width, C)."""
        row, column, height, width = self.window
        return self.image[row : row + height, column : column + width]

    @property
    def whole(self) -> bool:
        """Whether the numbers of the whole image are shown."""
        return self.shown.shape == self.image.shape

    def __str__(self) -> str:
        height, width, channels = self.image.shape
        product = "·".join(map(str, self.image.shape))
        lines = [
            f"an image of {height} rows and {width} columns, {channels} "
            f"channel{'s' * (channels > 1)}: {product} = {self.image.size:,} numbers, "
            f"{self.image.dtype}, from {number(self.image.min())} to "
            f"{number(self.image.max())}"
        ]
        if not self.whole:
            row, column, tall, wide = self.window
            lines.append(
                f"shown: rows {row} to {row + tall - 1}, columns {column} to "
                f"{column + wide - 1}"
            )
        for c, name in enumerate(self.names):
            mean = number(self.image[..., c].mean())
            lines.append(f"{name} (mean of the whole {mean}):")
            lines.append(style.matrix_text(self.shown[..., c]))
        if channels == 3:
            row, column = self.window[:2]
            values = ", ".join(number(v) for v in self.image[row, column])
            lines.append(f"the pixel at row {row}, column {column} is ({values})")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return the numbers as values that JSON can hold."""
        return {"shape": list(self.image.shape), "pixels": self.image.tolist()}

    @style.drawn
    def plot(self):
        """Draw the picture, and its numbers by channel."""
        count = 1 + len(self.names)
        lines = -(-count // 2)  # two in a row: on a page more would be too small
        figure = style.canvas(8.4, 4.6 * lines)
        panels = [figure.add_subplot(lines, 2, place + 1) for place in range(count)]
        title = f"the image, {style.shape_text(self.image.shape)}"
        style.draw_image(panels[0], self.image, title)
        row, column, height, width = self.window
        if not self.whole:
            style.rectangle(panels[0], *self.window)
        tones = style.picture(self.image)
        if tones.ndim == 2 or tones.shape[-1] != self.image.shape[-1]:
            channels = np.moveaxis(self.image, -1, 0)
            tones = np.stack([style.picture(c[..., None]) for c in channels], -1)
        tones = tones[row : row + height, column : column + width]
        extent = (column - 0.5, column + width - 0.5, row + height - 0.5, row - 0.5)
        size = 6.5 if max(height, width) > 9 else 8
        for c, (axes, name) in enumerate(zip(panels[1:], self.names, strict=True)):
            tint, tone = np.array(_TINTS.get(name, (1, 1, 1))), tones[..., c]
            axes.imshow(tone[..., None] * tint, extent=extent, interpolation="nearest")
            # What the eye makes of a colour's brightness (ITU-R BT.709).
            bright = tone * float(tint @ (0.2126, 0.7152, 0.0722)) > 0.5
            values = self.shown[..., c]
            style.draw_numbers(axes, values, size, bright=bright, at=(row, column))
            style.whole_ticks(axes)
            axes.set(title=name, xlabel="column (pixels)")
        panels[1].set_ylabel("row (pixels)")
        figure.suptitle("An image is numbers: one for each pixel and channel")
        return figure


def pixels(image, *, window=None) -> Pixels:
    """Show an image as numbers beside the picture, channel by channel.

    Args:
        image: (H, W, C) or (H, W), uint8 or float.
        window: (row, column, height, width) of the part whose numbers are shown;
            default: all of an image of up to 12x12 pixels, else 8x8 in the middle.

    Raises ValueError: this is no image, or the window is not inside of it.

    Source: the lecture, slides "Back to image classification".
    """
    image = shown_image(image)
    height, width, channels = image.shape
    if window is None:
        most = 8 if max(height, width) > _SIDE else _SIDE
        tall, wide = min(most, height), min(most, width)
        window = ((height - tall) // 2, (width - wide) // 2, tall, wide)
    row, column, tall, wide = window = tuple(int(n) for n in window)
    inside = row >= 0 and column >= 0 and tall > 0 and wide > 0
    if not inside or row + tall > height or column + wide > width:
        raise ValueError(
            f"window is (row, column, height, width) inside of the {height}x{width} "
            f"image; received {window}"
        )
    return Pixels(image, style.channel_names(channels), window)
