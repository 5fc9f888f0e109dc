"""The tutorials: scripts that run as they are, and as notebooks."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
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
    """Write a tutorial as a notebook `NN_name.ipynb`, not yet executed.

    Beside the script's cells it has one that shows each figure below the cell that
    draws it. FileExistsError where the file is there already; see `cells`.
    """
    content = cells(number)
    target = Path(folder) / f"{script(number).stem}.ipynb"
    if target.exists():
        raise FileExistsError(f"{target} exists already; move it, and try again")
    _write(content, target)
    return target


def execute(
    number: int, folder: Path, *, smoke: bool = False, cell_seconds: int = 3600
) -> Path:
    """Run a tutorial as a notebook, and keep the notebook with all its output.

    It runs in a folder of its own, which is deleted. A notebook that is in `folder`
    already is kept where it has the same size and comes from the same script, package,
    Keras and backend. `smoke` has small data and few steps: it shows that all of it
    runs. `cell_seconds` limits one cell.

    Returns the file, `NN_name.ipynb`; its metadata `kerascnn` hold `size` ("smoke" or
    "full"), `sources` (a digest) and `seconds`. RuntimeError where a cell failed, with
    its traceback; see `cells`.
    """
    try:
        import ipykernel  # noqa: F401 - the kernel runs in a process of its own
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError
    except ImportError as error:
        raise ImportError(
            f'executing a notebook needs {error.name}: pip install "kerascnn[docs]"'
        ) from None
    content = cells(number)
    made = {"size": "smoke" if smoke else "full", "sources": _digest(number)}
    target = Path(folder) / f"{script(number).stem}.ipynb"
    if target.exists():
        old = json.loads(target.read_text(encoding="utf-8"))["metadata"]
        if made.items() <= old.get("kerascnn", {}).items():
            return target
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    environment.pop("KERASCNN_SMOKE", None)
    environment |= {"KERASCNN_SMOKE": "1"} if smoke else {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        client = NotebookClient(
            content,
            timeout=cell_seconds,
            kernel_name="python3",
            # It warns that its ports on this machine are not encrypted.
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": place}},
        )
        try:
            client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError) as error:
            plain = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # without colours
            raise RuntimeError(
                f"{script(number).name}, as a notebook of {made['size']} size: {plain}"
            ) from None
    made["seconds"] = round(time.monotonic() - start, 1)
    content.metadata["kerascnn"] = made
    _write(content, target)
    return target


def cells(number: int):
    """Return a tutorial as a notebook in memory, a `nbformat.NotebookNode`.

    ImportError where jupytext is not installed, ValueError where there is no such one.
    """
    try:
        import jupytext
        from nbformat import v4
    except ImportError:
        raise ImportError(
            'notebooks are written by jupytext: pip install "kerascnn[notebook]"'
        ) from None
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
# Where the package is not installed, as in Colab: %pip install kerascnn
# Figures are written to tutorials/output; in a notebook they are shown, too.
from kerascnn.notebooks import show_figures

show_figures()"""


def show_figures(folder: Path = Path("tutorials/output")) -> None:
    """In a notebook, show from now on each figure below the cell that writes it.

    These are the new PNG and GIF files of `folder`. RuntimeError elsewhere.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None:
        raise RuntimeError(
            "show_figures works in a notebook; elsewhere open the files in "
            f"{folder}, which the tutorial names"
        )
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
        text = picture.info.get("Description") or picture.info.get("comment") or ""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return text or path.stem.replace("_", " ")


def _digest(number: int) -> str:
    """Digest of all that an executed notebook depends on."""
    import zoo

    digest = hashlib.sha256(script(number).read_bytes())
    for package in (Path(__file__).parent, Path(zoo.__file__).parent):
        for path in sorted(package.rglob("*")):
            source = path.suffix in (".py", ".toml", ".npz")
            if source and "tutorials" not in path.parts:
                digest.update(path.read_bytes())
    backend = os.environ.get("KERAS_BACKEND", "")
    digest.update(f"{version('keras')} {backend}".encode())
    return digest.hexdigest()[:16]


def kept(number: int, folder: Path):
    """Return a tutorial as it is now, with the output that an earlier execution had.

    Args:
        number: of the tutorial.
        folder: where `execute` has put the notebook.

    Raises:
        ValueError: the notebook is not there, or comes of other code; the prose may
            have changed.
    """
    import nbformat

    content = cells(number)
    path = Path(folder) / f"{script(number).stem}.ipynb"
    if not path.exists():
        raise ValueError(f"{path} is not there: KERASCNN_DOCS=full makes it")
    old = nbformat.read(path, as_version=4)
    code, ran = (
        [cell for cell in book.cells if cell.cell_type == "code"]
        for book in (content, old)
    )
    if [cell.source for cell in code] != [cell.source for cell in ran]:
        raise ValueError(
            f"{path} comes of other code than {script(number).name} has now: "
            "KERASCNN_DOCS=full makes it anew"
        )
    for cell, before in zip(code, ran, strict=True):
        cell.outputs = before.outputs
        cell.execution_count = before.execution_count
    content.metadata["kerascnn"] = old.metadata["kerascnn"]
    return content


def _write(content, target: Path) -> None:
    import nbformat

    target.parent.mkdir(parents=True, exist_ok=True)
    # A reader sees the whole of it or nothing.
    unfinished = target.with_suffix(".part")
    nbformat.write(content, unfinished)
    unfinished.replace(target)
