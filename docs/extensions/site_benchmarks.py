"""The measured speed and memory: the tables of benchmarks/results on one page."""

import os
import re
from pathlib import Path

from site_tutorials import replace

import kerascnn

RESULTS = Path(kerascnn.__file__).resolve().parents[1] / "benchmarks" / "results"


def setup(app):
    """Connect this extension to Sphinx."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_page(app) -> None:
    """Write docs/speed.md."""
    parts = [
        "# Speed and memory\n\nWhat the scripts in `benchmarks/` measured. Machines "
        "differ, and this one was shared: what counts are ratios within one table."
    ]
    there = os.path.relpath(RESULTS, app.srcdir)
    for path in sorted(RESULTS.glob("*.md")):
        text = path.read_text(encoding="utf-8").strip()
        text = re.sub(r"^#", "##", text, flags=re.M)  # a level down
        parts.append(re.sub(r"(!\[[^]]*\]\()", rf"\1{there}/", text))  # its pictures
    replace(Path(app.srcdir) / "speed.md", "\n\n".join(parts) + "\n")
