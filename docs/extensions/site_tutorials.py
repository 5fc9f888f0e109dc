"""The tutorials' pages: each script, executed as a notebook, with its figures."""

import hashlib
import re
import shutil
import time
from binascii import a2b_base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import executed
from sphinx.errors import ConfigError
from sphinx.util import logging

from kerascnn import notebooks

SIZES = ("kept", "full", "smoke")
# Two notebooks at smoke size load TensorFlow at the same time; at full size one has
# the machine for itself, so that the times it prints are its own.
AT_ONCE = {"smoke": 2, "full": 1}
DESCRIPTIONS: dict[str, str] = {}  # of the tutorials' pictures, by their digest
log = logging.getLogger(__name__)


def setup(app):
    """Connect this extension to Sphinx."""
    app.add_config_value("site_size", "kept", "env", str)
    app.add_config_value("site_repository", "", "env", str)
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
    kept = Path(app.config.site_executed)

    def execute(number):
        start = time.monotonic()
        path = executed.execute(number, kept / size, smoke=size == "smoke")
        log.info("tutorial %s: %.0f s", path.stem, time.monotonic() - start)
        return _read(path)

    if size == "kept":
        try:
            contents = {n: executed.kept(n, kept / "full") for n in numbers}
        except ValueError as error:
            raise ConfigError(str(error)) from None
    else:
        with ThreadPoolExecutor(AT_ONCE[size]) as pool:
            contents = dict(zip(numbers, pool.map(execute, numbers), strict=True))
    _slides(contents, folder / "figures.pdf")
    for number, content in contents.items():
        DESCRIPTIONS.update(_descriptions(content))
        _page(number, content, size, folder, app.config.site_repository)
    stems = {notebooks.script(number).stem for number in numbers}
    for path in folder.glob("[0-9]*"):  # of tutorials that have gone
        if path.stem not in stems:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    script = notebooks.script(numbers[0])
    replace(folder / "index.md", _index(script.parent / "README.md"))


def _read(path: Path):
    import nbformat

    return nbformat.read(path, as_version=4)


def _page(number: int, content, size: str, folder: Path, repository: str) -> None:
    """Write a notebook's page, with its head; what interrupts the story is folded."""
    import nbformat
    from site_lab import figure

    script = notebooks.script(number)
    shutil.copyfile(script, folder / script.name)
    # As a reader runs it: without this site's head.
    download = folder / f"{script.stem}.download"
    download.mkdir(exist_ok=True)
    nbformat.write(content, download / f"{script.stem}.ipynb")
    title, _, rest = content.cells[0].source.partition("\n")
    content.cells[
        0
    ].source = (
        f"{title}\n\n{_head(script.stem, size, repository)}\n{rest}{figure(number)}"
    )
    part = ""
    for cell in content.cells:
        if cell.cell_type == "markdown":
            parts = re.findall("^## (Solutions|Appendix|.)", cell.source, flags=re.M)
            part = parts[-1] if parts else part
            cell.source = captions(cell.source)
        elif cell.id == "show-figures":
            cell.metadata["tags"] = ["remove-cell"]
        elif part == "Solutions":
            cell.metadata["tags"] = ["hide-cell"]
        elif part == "Appendix" or cell.source.startswith(("import ", "from ")):
            cell.metadata["tags"] = ["hide-input"]
    replace(folder / f"{script.stem}.ipynb", nbformat.writes(content) + "\n")


def captions(text: str) -> str:
    """Name pictures by their place: a reader of the site does not see their files."""
    pattern = r"(?:The (?:picture|animation) )?`\d\d_\w+\.(png|gif)`"
    pictures = [m[1] for m in re.finditer(pattern, text)].count("png")
    ordinals = iter(("first ", "second ", "third ") if pictures > 1 else ("",))

    def place(found):
        return "The animation" if found[1] == "gif" else f"The {next(ordinals)}picture"

    return re.sub(pattern, place, text)


def _head(stem: str, size: str, repository: str) -> str:
    links = [
        f"{{download}}`Script <{stem}.py>`",
        f"{{download}}`notebook <{stem}.download/{stem}.ipynb>`",
    ]
    if repository:
        where = f"{repository}/blob/main"
        colab = f"https://colab.research.google.com/github/{where}"
        links.append(f"[open in Colab]({colab}/docs/executed/full/{stem}.ipynb)")
        links.append(f"[source](https://github.com/{where}/tutorials/{stem}.py)")
    links.append("{download}`all figures <figures.pdf>`")
    links.append(f"`kerascnn tutorial {int(stem[:2])}`")
    head = " · ".join(links) + "\n"
    if size == "smoke":
        head += (
            "\n```{warning}\nExecuted at **smoke size**: little data and few steps. "
            "The numbers of the prose are those of the full size.\n```\n"
        )
    return head


def _slides(contents, path: Path) -> None:
    """Write a PDF with a page for each figure, to show in a lecture."""
    import textwrap
    from io import BytesIO

    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure
    from PIL import Image

    with PdfPages(path, metadata={"Title": "kerascnn: the figures"}) as pdf:
        for number, content in contents.items():
            title = notebooks.title(notebooks.script(number))
            for cell in content.cells:
                for output in cell.get("outputs", []):
                    if "image/png" not in output.get("data", {}):
                        continue
                    data = BytesIO(a2b_base64(output.data["image/png"]))
                    text = output.metadata["image/png"]["alt"]
                    figure = Figure(figsize=(13.33, 7.5))
                    axes = figure.add_axes((0.04, 0.14, 0.92, 0.76))
                    axes.imshow(Image.open(data))
                    axes.axis("off")
                    figure.text(0.04, 0.94, title, fontsize=20)
                    text = textwrap.shorten(text, 300, placeholder=" …")
                    figure.text(0.04, 0.03, textwrap.fill(text, 130), fontsize=12)
                    pdf.savefig(figure, dpi=150)


def _index(readme: Path) -> str:
    """The list of the tutorials: that of the repository, with links to the pages."""
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"\]\((\d\d_\w+)\.py\)", r"](\1.ipynb)", text)
    text += "\nAll figures as slides: {download}`figures.pdf <figures.pdf>`.\n"
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
