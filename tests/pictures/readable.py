"""How small a figure's letters are where the site shows it; runs a script and looks.

python tests/pictures/readable.py SCRIPT
"""

import runpy
import sys

# Pixels: the site's column in a window of 1,280, and the margins that wide pictures
# take beside it; a browser holds that the pages are so.
SHOWN = 16 * (46 + 5.5)
LEAST = 8


def letters(figure, dpi=150) -> float:
    """Return the height of a figure's smallest letters, in pixels, on a page."""
    from matplotlib.text import Text

    sizes = [
        text.get_fontsize()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    width = figure.get_figwidth() * dpi
    return min(sizes) * dpi / 72 * min(1, SHOWN / width)


def watch() -> None:
    """Let figures be saved only where their letters are large enough."""
    from matplotlib.figure import Figure

    save = Figure.savefig

    def savefig(figure, path, **options):
        save(figure, path, **options)
        height = letters(figure, options.get("dpi") or 100)
        assert height >= LEAST, f"{path} has letters of {height:.1f} pixels"

    Figure.savefig = savefig


if __name__ == "__main__":
    watch()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
