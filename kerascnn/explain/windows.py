"""Where the windows of a convolution or pooling fall along one axis, drawn."""

import itertools
from dataclasses import dataclass

from kerascnn.arithmetic import OutputSize, output_size, pooling_size
from kerascnn.plotting import style
from kerascnn.plotting.style import BLUE, INK, ORANGE, PALE, SKY, VERMILION

_MANY = 12  # windows that are shown one by one; of more, the first and the last
_ENDS = 4


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows along one axis."""

    placed: OutputSize  #: the output size, with `windows`, `unread`, `left_over`, …
    pooling: bool = False  #: whether a pool takes the place of a filter

    @property
    def shown(self) -> list[int]:
        """Numbers of the windows that are drawn: all of up to 12, else the ends."""
        count = int(self.placed)
        if count <= _MANY:
            return list(range(count))
        return [*range(_ENDS), *range(count - _ENDS, count)]

    @property
    def _noun(self) -> str:
        return "pool" if self.pooling else "filter"

    def __str__(self) -> str:
        p = self.placed
        gaps, every = "", ""
        if p.dilation > 1:
            gaps, every = f", dilation {p.dilation}", f", every {p.dilation}."
        zeros = f"zeros: {p.before} before, {p.after} after"
        if not p.symmetric:
            zeros += ", which is not symmetric"
        if self.pooling and p.before + p.after:
            zeros += " (they only place the pools)"
        text = f"{p.size} pixels, {self._noun} {p.window}, stride {p.stride}{gaps}"
        lines = [f"{text}, padding {p.padding}: output {p}", zeros]
        positions = range(-p.before, p.size + p.after)
        # Of each position, the sign of a tap and of another.
        signs = {q: "#." if 0 <= q < p.size else "0o" for q in positions}
        if drawn := len(signs) <= 72:
            lines.append(
                "# a pixel in the window, . another; 0 a zero in the window, o another"
            )
        for line, i in enumerate(self.shown):
            if line == _ENDS < i:
                lines.append("  …")
            taps = p.windows[i]
            text = f"window {i}: {taps[0]} to {taps[-1]}{every}"
            if drawn:
                row = "".join(pair[q not in taps] for q, pair in signs.items())
                text = f"{row}  {text}"
            lines.append(f"  {text}")
        text = "the last window ends where the input ends: the stride fits"
        if not p.fits:
            text = f"{p.left_over} of the last columns are left over: the stride does "
            text += "not fit"
        lines.append(text)
        if p.unread:
            lines.append(f"pixels that no window reads: {_ranges(p.unread)}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return the sizes and windows as values that JSON can hold."""
        p = self.placed
        sizes = {"before": p.before, "after": p.after, "left_over": p.left_over}
        return {
            "output": int(p),
            "expression": str(p),
            **sizes,
            "unread": list(p.unread),
            "windows": [list(taps) for taps in p.windows],
        }

    @style.drawn
    def plot(self):
        """Draw the pixels, the zeros, the windows one below the other, what is left."""
        from matplotlib.patches import Patch, Rectangle

        p, shown = self.placed, self.shown
        wide = p.size + p.before + p.after
        across = min(max(5.0, 2.2 + 0.36 * wide), 16)
        figure = style.canvas(across, 2.2 + 0.34 * len(shown))
        axes = figure.subplots()
        end = p.windows[-1][-1] if p.windows else -1
        kinds = {
            "pixel": (SKY, ""),
            "zero of the padding": (PALE, "///"),
            "left over: behind the last window": (ORANGE, "xx"),
            "pixel that no window reads": (VERMILION, ".."),
        }
        used = set()
        for q in range(-p.before, p.size + p.after):
            inside = 0 <= q < p.size
            name = "pixel" if inside else "zero of the padding"
            if q > end:
                name = "left over: behind the last window"
            elif inside and q in p.unread:
                name = "pixel that no window reads"
            used.add(name)
            colour, hatch = kinds[name]
            look = {"facecolor": colour, "edgecolor": INK, "hatch": hatch}
            axes.add_patch(Rectangle((q - 0.5, -0.9), 1, 0.8, **look))
            if wide <= 40 and not inside:
                sign = axes.text(q, -0.5, "0", ha="center", va="center", fontsize=8)
                sign.set_bbox({"facecolor": "white", "lw": 0, "pad": 1})
        for line, i in enumerate(shown):
            taps = p.windows[i]
            axes.plot([taps[0] - 0.4, taps[-1] + 0.4], [line + 0.5] * 2, color=BLUE)
            for q in taps:
                tap = Rectangle((q - 0.42, line + 0.2), 0.84, 0.6, facecolor=BLUE)
                axes.add_patch(tap)
        names = ["input", *(f"window {i}" for i in shown)]
        axes.set_yticks([n - 0.5 for n in range(len(names))], names)
        if len(shown) < int(p):
            axes.axhline(_ENDS, color=INK, ls=":", lw=1)
            skipped = int(p) - len(shown)
            note = f"windows {_ENDS} to {int(p) - _ENDS - 1} ({skipped}) are not drawn"
            middle = {"ha": "center", "va": "center", "fontsize": 8}
            where = ((p.size - 1) / 2, _ENDS)
            axes.text(*where, note, backgroundcolor="white", **middle)
        limits = {"xlim": (-p.before - 0.8, p.size + p.after - 0.2)}
        limits["ylim"] = (len(shown) + 0.2, -1.1)
        axes.set(xlabel="position (pixels; 0 is the image's first)", **limits)
        handles = [
            Patch(facecolor=colour, hatch=hatch, edgecolor=INK, label=name)
            for name, (colour, hatch) in kinds.items()
            if name in used
        ]
        handles.append(Patch(facecolor=BLUE, label=f"taps of the {self._noun}"))
        place = {"loc": "outside lower center", "ncols": 2, "frameon": False}
        figure.legend(handles=handles, **place)
        figure.suptitle(f"Output size: {p}", fontsize=11, wrap=True)
        return figure


def _ranges(positions) -> str:
    """Write positions with runs as "3 to 7"."""
    # In a run a position and its number go up together.
    groups = itertools.groupby(enumerate(positions), lambda pair: pair[1] - pair[0])
    runs = ([position for _, position in group] for _, group in groups)
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def windows(
    size: int, window: int, stride=None, padding=0, dilation: int = 1, *, pooling=False
) -> Windows:
    """Place the windows of a convolution or a pooling along one axis, to be drawn.

    Args:
        size, window, stride, padding, dilation: of `kerascnn.arithmetic.output_size`;
            the default stride is 1, or the size of the pool.
        pooling: whether it is a pool.

    Raises ValueError: as `kerascnn.arithmetic.output_size`; or a pool with dilation.

    Source: the lecture, slides "Stride", "Padding" and "Pooling"; Dumoulin and Visin,
    "A guide to convolution arithmetic for deep learning" (2016).
    """
    if pooling:
        if dilation != 1:
            raise ValueError(f"a pool has no dilation; received {dilation=}")
        return Windows(pooling_size(size, window, stride, padding), True)
    stride = 1 if stride is None else stride
    return Windows(output_size(size, window, stride, padding, dilation))
