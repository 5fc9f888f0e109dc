"""The measured speed and memory: the tables of benchmarks/results on one page."""

import math
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
    """Write docs/speed.md: each table behind the sentence that answers it."""
    parts = [
        "# Speed and memory\n\nWhat the scripts in `benchmarks/` measured. Machines "
        "differ, and this one was shared: what counts are ratios within one table."
    ]
    there = os.path.relpath(RESULTS, app.srcdir)
    for path in sorted(RESULTS.glob("*.md")):
        if path.stem not in SECTIONS:  # of a run that was given another --name
            continue
        text = path.read_text(encoding="utf-8").strip()
        title, answer = SECTIONS[path.stem]
        text = re.sub(r"^# .*", f"# {title}\n\n**{answer(tables(text))}**", text)
        text = re.sub(r"^#", "##", text, flags=re.M)  # a level down
        parts.append(re.sub(r"(!\[[^]]*\]\()", rf"\1{there}/", text))  # its pictures
    replace(Path(app.srcdir) / "speed.md", "\n\n".join(parts) + "\n")


def tables(text: str) -> list[list[dict[str, str]]]:
    """Read the Markdown tables of a text: rows that map a column's head to its cell."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, flags=re.M):
        heads, _, *rows = (
            [cell.strip() for cell in line.strip("|\n ").split("|")]
            for line in block.strip().splitlines()
        )
        found.append([dict(zip(heads, row, strict=True)) for row in rows])
    return found


def number(text: str) -> float:
    """The number that a cell begins with; infinity where it was not reached."""
    found = re.match(r"[\d,.]+", text)
    return float(found[0].replace(",", "")) if found else float("inf")


def _accuracy(found) -> str:
    rows = {row["network"]: number(row["60 %"]) for row in found[0]}
    ours = min(value for name, value in rows.items() if ":" in name)
    theirs = min(value for name, value in rows.items() if ":" not in name)
    return (
        f"lecture_cnn has 60 % right after {ours:.0f} seconds of training, the "
        f"quickest of three well-known tutorials after {theirs:.0f}."
    )


def _inference(found) -> str:
    first, last = found[0][0], found[0][-1]
    return (
        f"{first['runtime']} answers {first['images/s']} images a second, "
        f"{number(first['beside model.predict']):.0f} times as many as "
        f"{last['runtime']}; a single image takes {first['single image, ms']} ms "
        f"instead of {last['single image, ms']}."
    )


def _memory(found) -> str:
    most = {row["read"]: row["peak MB"] for row in found[0]}  # the last: most images
    return (
        f"{found[0][-1]['training images']} images take {most['streamed']} MB where "
        f"they are streamed, {most['in memory']} MB where they are held."
    )


def _serving(found) -> str:
    many = [row for row in found[0] if row["clients"] == "64"]
    best = max(many, key=lambda row: number(row["images/s"]))
    failed = sum(number(row["failed"]) for row in found[0])
    return (
        f"64 clients with an image each get {best['images/s']} answers a second "
        f"({best['through']}); {failed:.0f} requests of all failed."
    )


def _startup(found) -> str:
    seconds = {row["command"]: row["seconds"] for row in found[0]}
    return (
        f"`kerascnn --help` is there after {seconds['kerascnn --help']} s and "
        f"`kerascnn models` after {seconds['kerascnn models']}, where importing Keras "
        f"alone takes {seconds['import keras']}."
    )


def _training(found) -> str:
    ratios = []
    for rows in found:
        rates = {row.get("training"): number(row.get("images/s", "")) for row in rows}
        theirs = [v for k, v in rates.items() if k and k.startswith("PyTorch")]
        peers = [rate for rate in theirs if math.isfinite(rate)]  # those that are here
        if "kerascnn, bfloat16" in rates and peers:
            ratios.append(rates["kerascnn, bfloat16"] / max(peers))
    return (
        f"Beside the best PyTorch, kerascnn in bfloat16 trains {min(ratios):.1f} to "
        f"{max(ratios):.1f} times as fast, by network and batch."
    )


SECTIONS = {
    "accuracy": ("Time to accuracy, beside well-known tutorials", _accuracy),
    "inference": ("Inference", _inference),
    "memory": ("Memory of a training", _memory),
    "serving": ("The server under load", _serving),
    "startup": ("Start of the commands", _startup),
    "training": ("Training throughput", _training),
}
