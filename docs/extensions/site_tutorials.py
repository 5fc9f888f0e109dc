"""The tutorials' pages: each script, executed as a notebook, with its figures."""

import hashlib
import re
import shutil
import time
from binascii import a2b_base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sphinx.errors import ConfigError
from sphinx.util import logging

from kerascnn import notebooks

SIZES = ("smoke", "full", "none")
# Two notebooks at smoke size load TensorFlow at the same time; at full size one has
# the machine for itself, so that the times it prints are its own.
AT_ONCE = {"smoke": 2, "full": 1}
DESCRIPTIONS: dict[str, str] = {}  # of the tutorials' pictures, by their digest
log = logging.getLogger(__name__)


def setup(app):
    """Connect this extension to Sphinx."""
    app.add_config_value("site_size", "smoke", "env", str)
    app.add_config_value("site_executed", "executed", "env", str)
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", describe_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app) -> None:
    """Execute the tutorials as far as is asked, and write docs/tutorials."""
    size = app.config.site_size
    if size not in SIZES:
        raise ConfigError(
            f"KERASCNN_DOCS must be one of {', '.join(SIZES)}; received {size!r}"
        )
    numbers = list(notebooks.scripts())
    folder = Path(app.srcdir) / "tutorials"
    folder.mkdir(exist_ok=True)
    kept = Path(app.config.site_executed) / size

    def execute(number):
        start = time.monotonic()
        path = notebooks.execute(number, kept, smoke=size == "smoke")
        log.info("tutorial %s: %.0f s", path.stem, time.monotonic() - start)
        return path

    if size != "none":
        with ThreadPoolExecutor(AT_ONCE[size]) as pool:
            executed = dict(zip(numbers, pool.map(execute, numbers), strict=True))
    for number in numbers:
        content = _read(executed[number]) if size != "none" else notebooks.cells(number)
        DESCRIPTIONS.update(_descriptions(content))
        _page(number, content, size, folder)
    stems = {notebooks.script(number).stem for number in numbers}
    for path in folder.glob("[0-9]*"):  # of tutorials that have gone
        if path.stem not in stems:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    script = notebooks.script(numbers[0])
    replace(folder / "index.md", _index(script.parent / "README.md"))


def _read(path: Path):
    import nbformat

    return nbformat.read(path, as_version=4)


def _page(number: int, content, size: str, folder: Path) -> None:
    """Write a notebook's page: with its head, its solutions folded."""
    import nbformat

    script = notebooks.script(number)
    shutil.copyfile(script, folder / script.name)
    # As a reader runs it: without this site's head.
    download = folder / f"{script.stem}.download"
    download.mkdir(exist_ok=True)
    nbformat.write(content, download / f"{script.stem}.ipynb")
    title, _, rest = content.cells[0].source.partition("\n")
    seconds = content.metadata.get("kerascnn", {}).get("seconds")
    content.cells[0].source = f"{title}\n\n{_head(script.stem, size, seconds)}\n{rest}"
    solutions = False
    for cell in content.cells:
        if cell.cell_type == "markdown":
            solutions = solutions or "## Solutions" in cell.source
        elif cell.id == "show-figures":
            cell.metadata["tags"] = ["remove-cell"]
        elif solutions:
            cell.metadata["tags"] = ["hide-cell"]
    replace(folder / f"{script.stem}.ipynb", nbformat.writes(content) + "\n")


def _head(stem: str, size: str, seconds: float | None) -> str:
    how = {
        "full": f"Executed at full size, in {seconds or 0:.0f} seconds.",
        "smoke": (
            "Executed at **smoke size**: little data and few steps. What is printed "
            "and drawn below shows that the code runs; the numbers of the prose are "
            "those of the full size, at which the script asserts them."
        ),
        "none": "This page was built without executing the tutorial.",
    }[size]
    return (
        f"```{{admonition}} How this page was made\n{how}\n\n"
        f"Take it along: {{download}}`the script <{stem}.py>`, "
        f"{{download}}`the notebook <{stem}.download/{stem}.ipynb>`, or run "
        f"`kerascnn tutorial {int(stem[:2])}`.\n```\n"
    )


def _index(readme: Path) -> str:
    """The list of the tutorials: that of the repository, with links to the pages."""
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"\]\((\d\d_\w+)\.py\)", r"](\1.ipynb)", text)
    return f"{text}\n```{{toctree}}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"


def replace(path: Path, text: str) -> None:
    """Write a file where its text is new, so that Sphinx reads what has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _descriptions(content) -> dict[str, str]:
    """What each picture of a notebook shows, by the digest that MyST-NB names it by.

    It is what the picture's file says, or where that is silent the paragraph of the
    prose that names the file.
    """
    prose = [
        paragraph
        for cell in content.cells
        if cell.cell_type == "markdown"
        for paragraph in cell.source.split("\n\n")
    ]
    found = {}
    for cell in content.cells:
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/gif"} & set(output.get("data", {})):
                digest = hashlib.sha256(a2b_base64(output.data[kind])).hexdigest()
                text = output.metadata[kind]["alt"]
                name = f"`{text.replace(' ', '_')}.{kind[-3:]}`"
                text = next((p.strip("*") for p in prose if name in p), text)
                found[digest] = " ".join(text.replace("`", "").split())
    return found


def describe_pictures(app, doctree) -> None:
    """Give pictures their description as alt text; of others, what their file says."""
    from docutils import nodes

    for node in doctree.findall(nodes.image):
        path = Path(app.srcdir) / node["uri"]
        if node.get("alt"):
            continue
        if path.stem in DESCRIPTIONS:
            node["alt"] = DESCRIPTIONS[path.stem]
        elif path.suffix in (".png", ".gif") and path.exists():
            node["alt"] = notebooks.description(path)
