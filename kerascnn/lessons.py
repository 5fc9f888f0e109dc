"""The tutorials: scripts that run as they are, and as notebooks."""

import subprocess
import sys
from pathlib import Path


def scripts() -> dict[int, Path]:
    """Return the tutorials that are here, by number.

    They lie inside an installed package, and beside it in a checkout.
    """
    here = Path(__file__).resolve().parent
    folder = here / "tutorials"
    if not folder.exists():
        folder = here.parent / "tutorials"
    return {int(path.name[:2]): path for path in sorted(folder.glob("[0-9]*_*.py"))}


def script(number: int) -> Path:
    """Return one tutorial.

    Raises:
        ValueError: there is no tutorial of this number; says which there are.
    """
    found = scripts()
    if number not in found:
        raise ValueError(
            f"there is no tutorial {number}; there are "
            + ", ".join(path.stem for path in found.values())
        )
    return found[number]


def title(path: Path) -> str:
    """Return the title of a tutorial, from its first heading: "07 The architecture"."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# # "):
            return line.removeprefix("# # ")
    return path.stem


def run(number: int) -> int:
    """Run a tutorial in a process of its own; figures go to tutorials/output/.

    Returns:
        Its exit code.
    """
    return subprocess.run([sys.executable, str(script(number))], check=False).returncode


def notebook(number: int, folder: Path = Path(".")) -> Path:
    """Write a tutorial as a notebook, not yet executed.

    Returns:
        The file, `NN_name.ipynb`.

    Raises:
        ImportError: jupytext is not installed.
        FileExistsError: the file is there already; nothing is written over.
    """
    try:
        import jupytext
    except ImportError:
        raise ImportError(
            'notebooks are written by jupytext: pip install "kerascnn[notebook]"'
        ) from None
    source = script(number)
    target = folder / f"{source.stem}.ipynb"
    if target.exists():
        raise FileExistsError(f"{target} exists already; move it, and try again")
    jupytext.write(jupytext.read(source), target)
    return target
