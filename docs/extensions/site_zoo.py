"""The zoo's pages: a network each, from its card, its summary and its volumes."""

import fnmatch
import hashlib
import html
import importlib
import re
from pathlib import Path

from site_tutorials import replace
from sphinx.util import logging
from sphinx.util.display import status_iterator

import kerascnn
import zoo
from kerascnn.summary import summarize

HEAD, TAIL = 150, 30  # rows of a summary that are shown, where there are more
log = logging.getLogger(__name__)


def setup(app):
    """Connect this extension to Sphinx."""
    app.add_config_value("site_networks", "*", "env", str)
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app) -> None:
    """Write docs/zoo: the ranking, a page for each family and for each network."""
    folder = Path(app.srcdir) / "zoo"
    folder.mkdir(exist_ok=True)
    patterns = [p.strip() for p in app.config.site_networks.split(",")]
    chosen = [n for n in zoo.names() if any(fnmatch.fnmatch(n, p) for p in patterns)]
    key = _digest(chosen)
    done = folder / ".made_from"
    if done.exists() and done.read_text() == key:
        return
    families: dict[str, list] = {}
    for name in chosen:
        families.setdefault(zoo.card(name).family, []).append(zoo.card(name))
    for family, cards in families.items():
        replace(folder / family / "index.md", _family(family, cards))
    for name in status_iterator(chosen, "the zoo: ", "brown", len(chosen)):
        card = zoo.card(name)
        replace(folder / card.family / f"{name}.md", _network(card, folder))
    compared = kerascnn.compare("lecture_cnn", "dense_mlp", "vgg19")
    replace(folder / "_comparison.md", _brief(compared.to_markdown()))
    replace(folder / "index.md", _zoo(families, set(chosen)))
    expected = {folder / card.family for cards in families.values() for card in cards}
    for path in sorted(folder.glob("*/*")):  # of networks that have gone
        known = path.stem in chosen or path.stem == "index"
        if path.parent not in expected or not known:
            path.unlink()
    done.write_text(key)


def _digest(chosen) -> str:
    """Digest of what the pages are made from."""
    digest = hashlib.sha256(" ".join(chosen).encode())
    packages = [Path(module.__file__).parent for module in (kerascnn, zoo)]
    files = [path for folder in packages for path in sorted(folder.rglob("*"))]
    for path in [Path(__file__), *files]:
        if path.suffix in (".py", ".toml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def escape(text: str) -> str:
    """Keep Markdown from reading signs of a plain text as its own."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*<>\[\]|$])", r"\\\1", part)
        for part in parts
    )


def _table(heads, rows, right=()) -> str:
    """A Markdown table; of `right`, numbers of columns."""
    rule = ["--:" if n in right else ":--" for n in range(len(heads))]
    lines = [heads, rule, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _percent(accuracy) -> str:
    return "-" if accuracy is None else f"{accuracy:.2f}"


def _zoo(families, chosen) -> str:
    rows = []
    for family, cards in families.items():
        paper = cards[0].paper
        links = ", ".join(f"[{c.name}]({family}/{c.name}.md)" for c in cards)
        title = f"[{escape(_title(family))}]({family}/index.md)"
        rows.append((title, paper.year if paper else "-", links))
    rows.sort(key=lambda row: (str(row[1]), row[0]))
    tree = "\n".join(f"{family}/index" for family in families)
    return f"""# The zoo

Every network of the lecture and of its CIFAR-10 ranking, with the ancestors of both.
`kerascnn.build(name)` or `kerascnn.<name>()` builds one; each page has its card, where
its parameters and multiply-accumulates are, and every layer.

## Families

{_table(("family", "year", "networks"), rows)}

## The ranking

{_picture(chosen)}

*Published accuracy on CIFAR-10 and multiply-accumulates for one image; named are the
networks of the lecture's slide. Point at a dot for its name; it leads to its page.*

{_ranking(chosen)}

```{{toctree}}
:hidden:

{tree}
```
"""


def _link(name: str, chosen) -> str:
    return f"[{name}]({zoo.card(name).family}/{name}.md)" if name in chosen else name


def _ranking(chosen) -> str:
    """The ranking as a table that fits a page: conditions stand below it, by number."""
    from kerascnn.comparison import ranking

    conditions, rows = {}, []
    for row in ranking("*").table().rows:
        said = row["conditions"]
        mark = f" [{conditions.setdefault(said, len(conditions) + 1)}]" if said else ""
        known = row["parameters"] is not None
        rows.append(
            (
                _link(row["name"], chosen) if known else row["title"],
                row["year"] or "-",
                f"{row['published'] or '-'}{escape(mark)}",
                row["measured"] or "-",
                f"{row['parameters']:,}" if known else "-",
                f"{row['macs'] / 1e6:,.1f}" if known else "-",
            )
        )
    heads = ("network", "year", "published % [conditions]", "measured %")
    heads += ("parameters", "MACs, millions")
    notes = "\n".join(f"{n}. {escape(said)}" for said, n in conditions.items())
    return f"{_table(heads, rows, right=(1, 4, 5))}\n\nThe conditions:\n\n{notes}"


def _picture(chosen) -> str:
    """The ranking as a picture whose dots have names and lead to the pages."""
    import io

    from matplotlib.figure import Figure

    from kerascnn.comparison import ranking
    from zoo.references import SLIDE

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    titles = {}
    for card in ranking("*").cards:
        best = card.best_published
        if best is None or best.accuracy < 85:
            continue
        named = card.name in SLIDE
        titles[f"dot-{card.name}"] = f"{card.name}: {best.accuracy:.2f} %"
        axes.scatter(
            [card.macs],
            [best.accuracy],
            s=60 if named else 25,
            color="#D55E00" if named else "#888888",
            gid=f"dot-{card.name}",
            urls=[f"{card.family}/{card.name}.html" if card.name in chosen else None],
        )
    # Names stand at the right, each as near its own height as the one above lets it.
    height = 98.0
    for name in sorted(SLIDE, key=lambda n: -zoo.card(n).best_published.accuracy):
        card = zoo.card(name)
        height = min(card.best_published.accuracy, height - 0.45)
        axes.annotate(
            name,
            (card.macs, card.best_published.accuracy),
            xytext=(1.03, height),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=10,
            arrowprops={
                "arrowstyle": "-",
                "color": "#888888",
                "lw": 0.6,
                "relpos": (0, 0.5),
            },
        )
    axes.set_xscale("log")
    axes.set(xlabel="multiply-accumulates", ylabel="published test accuracy (%)")
    axes.grid(alpha=0.25)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    for gid, title in titles.items():
        svg = svg.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{title}</title>')
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg, count=1)
    label = "Published accuracy and multiply-accumulates of the ranking's networks"
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return "```{raw} html\n" + re.sub(r"\n\s*\n", "\n", svg) + "\n```"


def _brief(table: str) -> str:
    """A comparison with the notes on the lecture's slip alone; all are on the pages."""
    lines = table.splitlines()
    kept = [n for n in lines if not n.startswith("- ") or "slide prints" in n]
    return "\n".join(kept) + "\n"


def _title(family: str) -> str:
    """What a family's module says of itself in its first line, up to the colon."""
    first = (importlib.import_module(f"zoo.{family}").__doc__ or family).split("\n\n")[
        0
    ]
    title = " ".join(first.split()).rstrip(".").split(": ")[0]
    return title if len(title) < 60 else family.replace("_", " ")


def _family(family: str, cards) -> str:
    first, _, rest = (importlib.import_module(f"zoo.{family}").__doc__ or "").partition(
        "\n\n"
    )
    # Indented lines are code; the others are prose.
    prose = "\n".join(
        line if line.startswith("    ") else escape(line) for line in rest.splitlines()
    )
    rows = [
        (
            f"[{card.name}]({card.name}.md)",
            escape(card.title),
            "×".join(map(str, card.input_shape)),
            f"{card.parameters:,}",
            f"{card.macs / 1e6:,.1f}",
            card.depth,
            _percent(card.best_published and card.best_published.accuracy),
            _percent((card.measured() or {}).get("accuracy_mean")),
        )
        for card in cards
    ]
    heads = ("name", "network", "image", "parameters", "MACs, millions", "depth")
    heads += ("published %", "measured %")
    names = "\n".join(card.name for card in cards)
    return f"""# {escape(_title(family))}

{escape(" ".join(first.split()))}

{prose}

{_table(heads, rows, right=range(3, 8))}

Accuracies are those on CIFAR-10; the conditions are on the pages.

```{{toctree}}
:hidden:

{names}
```
"""


def _network(card, folder: Path) -> str:
    from kerascnn import explain
    from kerascnn.graph import without_weights

    with without_weights():
        model = zoo.build(card.name, card.input_shape, card.classes)
        summary = summarize(model)
    found = explain.volumes(model, summary=summary)
    picture = folder / card.family / f"{card.name}.png"
    found.plot(picture)
    parts = [
        f"# {escape(card.title)}",
        f"`{card.name}`, of the family [{escape(_title(card.family))}](index.md).",
        f"**What is new.** {escape(card.new)}",
        _paper(card.paper),
        f"```python\nmodel = kerascnn.build({card.name!r})\n"
        "print(kerascnn.summarize(model))\n```",
        _table(
            ("image", "classes", "trainable", "non-trainable", "MACs", "depth"),
            [
                (
                    "×".join(map(str, card.input_shape)),
                    card.classes,
                    f"{card.trainable:,}",
                    f"{card.non_trainable:,}",
                    f"{card.macs:,}",
                    card.depth,
                )
            ],
            right=range(1, 6),
        ),
        f"![]({picture.name})",
        *_accuracies(card),
        *_list("Where it differs from the paper", [*card.deviations, *_built(card)]),
        *_list("Notes", card.notes),
        *_recipes(card),
        "## Layers",
        _rows(summary),
        "## Builder",
        f"```{{eval-rst}}\n.. autofunction:: kerascnn.{card.name}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _paper(paper) -> str:
    if paper is None:
        return ""
    where = f"{paper.venue}, " if paper.venue else ""
    text = (
        f"{escape(paper.authors)}, *{escape(paper.title)}*, {escape(where)}{paper.year}"
    )
    if paper.arxiv:
        text += f", [arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
    return f"**Paper.** {text}."


def _accuracies(card) -> list[str]:
    parts = []
    if card.published:
        rows = [
            (
                f"{p.accuracy:.2f}",
                escape(p.conditions),
                escape(p.source),
                {"published": "read there"}.get(p.confidence, p.confidence),
            )
            for p in card.published
        ]
        parts += ["## Published accuracy on CIFAR-10"]
        parts += [_table(("%", "conditions", "source", "how known"), rows, right=(0,))]
    if card.results:
        rows = []
        for result in card.results:
            std = result.get("accuracy_std")
            mean = f"{result['accuracy_mean']:.2f}"
            images = escape(result.get("data_title") or result["data"])
            if number := result.get("train_images"):
                images += f", {number:,} trained on"
            rows.append(
                (
                    images,
                    result.get("recipe", "-"),
                    mean if std is None else f"{mean} ± {std:.2f}",
                    len(result.get("seeds", ())) or "-",
                    result.get("epochs", "-"),
                    f"{result['seconds']:,}" if "seconds" in result else "-",
                    escape(result.get("hardware", "-")),
                )
            )
        heads = ("images", "recipe", "test %", "seeds", "epochs", "seconds", "hardware")
        parts += ["## Measured by this project", _table(heads, rows, right=range(2, 6))]
    if card.weights:
        parts.append(
            f"Weights ship with the package: `kerascnn.load({card.name!r})`, "
            f"{card.weights['accuracy']:.2f} % of the test images right."
        )
    return parts


def _list(title: str, items) -> list[str]:
    return [f"## {title}", "\n".join(f"- {escape(t)}" for t in items)] if items else []


def _recipes(card) -> list[str]:
    if not card.recipes:
        return []
    keys = list(
        dict.fromkeys(key for recipe in card.recipes.values() for key in recipe)
    )
    rows = [
        (f"`{key}`", *(_value(recipe, key) for recipe in card.recipes.values()))
        for key in keys
    ]
    first = f"`kerascnn train {card.name} --recipe {next(iter(card.recipes))}`"
    table = _table(("", *(f"`{name}`" for name in card.recipes)), rows)
    return ["## Recipes", f"{first} trains it; what a recipe leaves out is `-`.", table]


def _built(card) -> list[str]:
    """Say by which recipes the network is built otherwise than by default."""
    return [
        f"By the recipe `{name}` it is built with {_options(recipe['options'])}."
        for name, recipe in card.recipes.items()
        if recipe.get("options")
    ]


def _options(options) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.items())


def _value(recipe, key) -> str:
    value = recipe.get(key, "-")
    if isinstance(value, dict):
        return escape(_options(value))
    return (
        {True: "yes", False: "no"}[value]
        if isinstance(value, bool)
        else escape(str(value))
    )


def _rows(summary) -> str:
    """The summary as an HTML table: Sphinx takes minutes to make as many cells."""
    table = summary.table()
    cells = list(table.cells())
    note = [html.escape(note) for note in table.notes]
    gap = len(cells) - HEAD - TAIL
    if gap > 0:
        note.append(
            f"{gap:,} rows in the middle are left out here; "
            f"<code>kerascnn summary {summary.name}</code> prints all {len(cells):,}."
        )
    else:
        gap = 0
    side = ["number" if column.right else "text" for column in table.columns]

    def line(tag, row):
        inside = "".join(
            f'<{tag} class="{s}">{html.escape(text)}</{tag}>'
            for s, text in zip(side, row, strict=True)
        )
        return f"<tr>{inside}</tr>"

    if gap:
        skipped = f'<tr><td colspan="{len(side)}">… {gap:,} rows …</td></tr>'
        body = [line("td", row) for row in cells[:HEAD]]
        body += [skipped, *(line("td", row) for row in cells[-TAIL:])]
    else:
        body = [line("td", row) for row in cells]
    heads = line("th", [column.heading for column in table.columns])
    return (
        "```{raw} html\n"
        f'<div class="wide-table"><table><caption>{"<br>".join(note)}</caption>\n'
        f"<thead>{heads}</thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table>"
        "</div>\n```"
    )
