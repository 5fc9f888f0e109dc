"""The lab as a figure: the directive `lab`, and the one page that it shows parts of."""

from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

NETWORK = "lecture_cnn"
PAGE = f"lab/{NETWORK}.html"
# What chapters show of it, by their number.
CHAPTERS = {
    3: ("show=bench", "A filter slides over an image: change its numbers"),
    4: ("show=strip,stage&layer=conv1", "What the filters of conv1 answer to"),
    5: ("show=bench&stride=3", "Stride, padding and dilation: a stride that fails"),
    6: ("show=strip,stage&layer=pool1", "What pooling keeps of each window"),
    7: ("show=strip,stage&layer=conv2", "The whole network, value by value"),
}


def setup(app):
    """Connect this extension to Sphinx."""
    app.add_directive("lab", Lab)
    app.connect("build-finished", write_page, priority=400)  # before it is checked
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Lab(SphinxDirective):
    """A part of the lab: the query of its address, and below it the title."""

    required_arguments = 1
    has_content = True

    def run(self):
        """Make the frame."""
        title = " ".join(self.content) or f"The lab: {NETWORK}"
        up = "../" * self.env.docname.count("/")
        frame = nodes.raw(
            "",
            f'<iframe class="lab" loading="lazy" title="{title}" '
            f'src="{up}{PAGE}?{self.arguments[0]}"></iframe>'
            f'<p class="lab-link">{title}. <a href="{up}{PAGE}">The whole lab</a></p>',
            format="html",
        )
        return [frame]


def figure(number: int) -> str:
    """Return the Markdown that shows a chapter's part, empty where it has none."""
    if number not in CHAPTERS:
        return ""
    query, title = CHAPTERS[number]
    return f"\n```{{lab}} {query}\n{title}\n```\n"


def write_page(app, exception) -> None:
    """Write the page beside the site's own."""
    if exception is None and app.builder.format == "html":
        from kerascnn.lab import write

        path = Path(app.outdir) / PAGE
        path.parent.mkdir(exist_ok=True)
        write(NETWORK, path)
