"""The tutorials: scripts that run as they are, and as notebooks."""

import re
import subprocess
import sys
from pathlib import Path


def scripts() -> dict[int, Path]:
    """Return the tutorials that are here, by number."""
    here = Path(__file__).resolve().parent
    folder = here / "tutorials"  # inside an installed package; beside it in a checkout
    if not folder.exists():
        folder = here.parent / "tutorials"
    return {int(path.name[:2]): path for path in sorted(folder.glob("[0-9]*_*.py"))}


def script(number: int) -> Path:
    """Return one tutorial; ValueError where there is none of this number."""
    found = scripts()
    if number not in found:
        names = ", ".join(path.stem for path in found.values())
        raise ValueError(f"there is no tutorial {number}; there are {names}")
    return found[number]


def title(path: Path) -> str:
    """Return the title of a tutorial, from its first heading: "07 The architecture"."""
    found = re.search(r"^# # (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def run(number: int) -> int:
    """Run a tutorial in a process of its own, and return its exit code."""
    # -P: what lies in the folder from which it is run is not imported.
    words = [sys.executable, "-P", "-c", _START, str(script(number))]
    return subprocess.run(words, check=False).returncode


_START = """\
import runpy, sys
from kerascnn.environment import no_stderr

with no_stderr():  # TensorFlow tells its start
    import keras
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")"""


def exercises(number: int) -> str:
    """Return a tutorial's exercises, in Markdown, without their solutions."""
    text = script(number).read_text(encoding="utf-8")
    part = text[text.index("# ## Exercises") :].split("\n\n")[0]
    lines = [line.removeprefix("#").removeprefix(" ") for line in part.splitlines()]
    return f"# {title(script(number))}\n\n" + "\n".join(lines)


def notebook(number: int, folder: Path = Path(".")) -> Path:
    """Write a tutorial as a new notebook `NN_name.ipynb`, not yet executed."""
    target = Path(folder) / f"{script(number).stem}.ipynb"
    content = cells(number)
    if target.exists():
        raise FileExistsError(f"{target} exists already; move it, and try again")
    write(content, target)
    return target


def cells(number: int):
    """Return a tutorial as a `nbformat.NotebookNode`, with a cell for its figures."""
    try:
        import jupytext
        from nbformat import v4
    except ImportError:
        told = 'notebooks are written by jupytext: pip install "kerascnn[notebook]"'
        raise ImportError(told) from None
    content = jupytext.read(script(number))
    first = [cell.cell_type for cell in content.cells].index("code")
    content.cells.insert(first, v4.new_code_cell(_SHOW))
    for place, cell in enumerate(content.cells):
        # Drawn at random they would make each notebook another one.
        cell.id = "show-figures" if place == first else f"cell-{place}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content.metadata["kernelspec"] = kernel
    return content


_SHOW = """\
# Where the package is not installed, as in Colab: %pip install DIRECTORY_OR_URL_OF_IT
# Figures are written to tutorials/output; in a notebook they are shown, too.
from kerascnn.notebooks import show_figures

show_figures()"""


def show_figures(folder: Path = Path("tutorials/output")) -> None:
    """In a notebook, show from now on each picture below the cell that writes it."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None:
        told = f"elsewhere open the files in {folder}"
        raise RuntimeError(f"show_figures works in a notebook; {told}")
    from IPython.display import Image, display

    def written() -> dict[Path, int]:
        paths = (p for p in Path(folder).glob("*") if p.suffix in (".png", ".gif"))
        return {path: path.stat().st_mtime_ns for path in paths}

    def show_new(result):
        found = written()
        new = [path for path, when in found.items() if seen.get(path) != when]
        seen.update(found)
        for path in sorted(new, key=found.__getitem__):
            display(Image(filename=str(path), alt=description(path)))

    seen = written()
    shell.events.register("post_run_cell", show_new)


def description(path: Path) -> str:
    """Return what a PNG or GIF file says about itself; its name where it is silent."""
    from PIL import Image

    with Image.open(path) as picture:
        text = picture.info.get("Description") or picture.info.get("comment") or b""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return text or path.stem.replace("_", " ")


def write(content, target: Path) -> None:
    """Write a notebook, so that a reader sees the whole of it or nothing."""
    import nbformat

    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    nbformat.write(content, unfinished)
    unfinished.replace(target)
