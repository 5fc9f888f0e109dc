"""The tutorials as executed notebooks: run, and kept with their output."""

import hashlib
import json
import os
import re
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import kerascnn
import zoo
from kerascnn.notebooks import cells, script, write


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
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    content = cells(number)
    made = {"size": "smoke" if smoke else "full", "sources": digest_of(number)}
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
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = list(filter(_is_the_chapters, cell.outputs))
    content.metadata["kerascnn"] = made
    write(content, target)
    return target


def _is_the_chapters(output) -> bool:
    """Whether an output is the chapter's own: TensorFlow has messages beside it."""
    if output.get("name") != "stdout":
        return output.get("name") != "stderr"
    lines = output.text.splitlines(keepends=True)
    output.text = "".join(n for n in lines if not n.startswith("WARNING:tensorflow"))
    return bool(output.text)


def digest_of(number: int) -> str:
    """Digest of all that an executed notebook depends on."""
    digest = hashlib.sha256(script(number).read_bytes())
    for package in (Path(kerascnn.__file__).parent, Path(zoo.__file__).parent):
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
