"""The finished site: it loads nothing from the network, and all its links lead on."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.errors import ExtensionError

# Attributes by which a page loads something when it is opened.
LOADS = {
    "script": ("src",),
    "img": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
}
RELATIONS = ("stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest")


def setup(app):
    """Connect this extension to Sphinx."""
    app.connect("build-finished", check_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def check_site(app, exception) -> None:
    """Look through every page of an HTML build, and fail where one is wrong."""
    if exception is None and app.builder.format == "html":
        wrong = problems(Path(app.outdir))
        if wrong:
            shown = "\n".join(wrong[:20])
            raise ExtensionError(f"the site has {len(wrong)} faults:\n{shown}")


class Page(HTMLParser):
    """What a page loads, links to, names, and shows without a description."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.names, self.silent = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note one element."""
        attributes = dict(attrs)
        if "id" in attributes:
            self.names.add(attributes["id"])
        for key in LOADS.get(tag, ()):
            if attributes.get(key):
                self.loads.append(attributes[key])
        relation = (attributes.get("rel") or "").split()
        if tag == "link" and set(relation) & set(RELATIONS):
            self.loads.append(attributes.get("href") or "")
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img" and not (attributes.get("alt") or "").strip():
            self.silent.append(attributes.get("src") or "an image")

    handle_startendtag = handle_starttag


def problems(folder: Path) -> list[str]:
    """List what is wrong with a site: a line for each fault, none for a good one."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
    }
    found = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        for address in page.loads:
            if not address.startswith("data:"):
                found += _target(pages, path, where, address, "loads", local=True)
        for address in page.links:
            found += _target(pages, path, where, address, "links to", local=False)
        found += [f"{where}: no description of {source}" for source in page.silent]
    for path in sorted(folder.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", text):
            if address.startswith(("http:", "https:", "//")):
                found.append(f"{path.relative_to(folder)}: loads {address}")
    return found


def _target(pages, path, where, address: str, verb: str, local: bool) -> list[str]:
    """The fault of one address, if it has one."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return [f"{where}: {verb} {address}, outside of the site"] if local else []
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return [f"{where}: {verb} {address}, which does not exist"]
    name = unquote(parts.fragment)
    if name and target in pages and name not in pages[target].names:
        return [f"{where}: {verb} {address}, where nothing has this name"]
    return []
