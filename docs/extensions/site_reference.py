"""The reference: every public name, from its docstring, and the command's options."""

import importlib
import inspect
import re
from pathlib import Path

from site_tutorials import replace
from site_zoo import escape

import kerascnn

# The rooms of the public face: where their names come from.
ROOMS = {
    "Networks": ("zoo", "kerascnn"),
    "Numbers": ("kerascnn.summary", "kerascnn.comparison", "kerascnn.twin"),
    "Data": ("kerascnn.data",),
    "Training": ("kerascnn.training", "kerascnn.tuning"),
    "Serving": ("kerascnn.serving",),
}
MODULES = {
    "explain": "What a network sees.",
    "layers": "Layers of the zoo, which work in any Keras model.",
    "arithmetic": "The lecture's formulas.",
}
# The headings of a docstring's sections; each stands alone on its line.
SECTION = re.compile(
    r"(Args|Attributes|Yields|Raises|Source|Examples?):\s*$|:returns: "
)


def setup(app):
    """Connect this extension to Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", adapt, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", legible)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(app) -> None:
    """Write docs/api and docs/command.md."""
    folder = Path(app.srcdir) / "api"
    pages = {"kerascnn": _face()}
    for name, text in MODULES.items():
        module = getattr(kerascnn, name)
        pages[name] = _module(f"kerascnn.{name}", module, text)
    tree = "\n".join(pages)
    pages["index"] = (
        "# Reference\n\nEverything public, from the docstrings. `kerascnn` imports "
        "each name when it is first used.\n\n"
        f"```{{toctree}}\n:maxdepth: 2\n\n{tree}\n```\n"
    )
    for name, text in pages.items():
        replace(folder / f"{name}.md", text)
    replace(Path(app.srcdir) / "command.md", _command())


def _face() -> str:
    rooms = {title: [] for title in [*ROOMS, "More"]}
    for name in kerascnn.__all__:
        if name not in MODULES:
            rooms[_room(getattr(kerascnn, name))].append(name)
    parts = [
        "# kerascnn",
        "```python\nimport kerascnn\n```",
        "Each network is a function as well: `kerascnn.lecture_cnn()`, see "
        "[the zoo](../zoo/index.md).",
    ]
    for title, names in rooms.items():
        if names:
            parts += [f"## {title}", *(_entry("kerascnn", name) for name in names)]
    return "\n\n".join(parts) + "\n"


def _room(value) -> str:
    """The room of a public name, by the package that it comes from."""
    home = getattr(value, "__module__", "")
    # "kerascnn" alone is the face itself, "zoo.vgg" and "kerascnn.data" are packages.
    package = ".".join(home.split(".")[: 1 if home.startswith("zoo") else 2])
    return next((t for t, packages in ROOMS.items() if package in packages), "More")


def _module(path: str, module, text: str) -> str:
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == path
    ]
    functions = [n for n in names if not inspect.isclass(getattr(module, n))]
    classes = [n for n in names if inspect.isclass(getattr(module, n))]
    parts = [f"# {path}", text]
    for title, some in (("Functions", functions), ("Classes", classes)):
        if some:
            parts += [f"## {title}", *(_entry(path, name) for name in some)]
    return "\n\n".join(parts) + "\n"


def _entry(path: str, name: str) -> str:
    module, _, inner = path.partition(".")
    home = importlib.import_module(module)
    value = getattr(getattr(home, inner) if inner else home, name)
    if inspect.isclass(value):
        body = f".. autoclass:: {_home(path)}.{name}\n   :members:"
    elif callable(value):
        body = f".. autofunction:: {_home(path)}.{name}"
    else:
        body = f".. autodata:: {_home(path)}.{name}"
    return f"```{{eval-rst}}\n{body}\n```"


def _home(path: str) -> str:
    """The module that a name is imported from; `kerascnn.layers` is `zoo.layers`."""
    return {"kerascnn.layers": "zoo.layers"}.get(path, path)


def _command() -> str:
    """The command: each word, what it does, and its options."""
    from typer.main import get_command

    from kerascnn.cli.common import app

    importlib.import_module("kerascnn.cli")  # its modules add the words
    group = get_command(app)
    parts = [
        "# The command",
        "`kerascnn WORD --help` says the same. Each word prints a table for people "
        "and, with `--json`, one object for programs; an error is one line with a way "
        "out, `--debug` shows the traceback. The exit code is 2 for wrong use and 1 "
        "for a failure.",
    ]
    parts += _words("kerascnn", group)
    return "\n\n".join(parts) + "\n"


def _words(path: str, group) -> list[str]:
    parts = []
    for name, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            parts += _words(f"{path} {name}", command)
            continue
        parts += [f"## {path} {name}", escape(" ".join((command.help or "").split()))]
        rows = [_option(p) for p in command.params if not getattr(p, "hidden", False)]
        rows = [row for row in rows if row is not None]
        if rows:
            lines = [
                "| argument | what it is | default |",
                "| :-- | :-- | :-- |",
                *rows,
            ]
            parts.append("\n".join(lines))
    return parts


def _option(parameter) -> str | None:
    if parameter.name in ("help", "install_completion", "show_completion"):
        return None
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        both = [*parameter.opts, *parameter.secondary_opts]
        names = ", ".join(f"`{name}`" for name in both)
    default = parameter.default
    if (
        callable(default)
        or default in (None, False, (), [])
        or "Sentinel" in repr(type(default))
    ):
        shown = "required" if parameter.required else ""
    else:
        shown = f"`{default}`"
    about = escape(" ".join((getattr(parameter, "help", "") or "").split()))
    return f"| {names} | {about} | {shown} |"


def adapt(app, what, name, thing, options, lines) -> None:
    """Turn a docstring's plain layout into reStructuredText, in place.

    In the prose before the first section, hanging lines become a list, and indented
    lines after an empty one are code. What is returned is a sentence, of which
    napoleon would take the words before a colon for a type.
    """
    for place, line in enumerate(lines):
        if line.rstrip() == "Returns:" and place + 1 < len(lines):
            lines[place : place + 2] = ["", f":returns: {lines[place + 1].strip()}"]
            break
    head = next((n for n, line in enumerate(lines) if SECTION.match(line)), len(lines))
    result: list[str] = []
    for block in re.split(r"\n(?:\s*\n)+", "\n".join(lines[:head])):
        rows = block.split("\n")
        indented = [row.startswith(" ") for row in rows]
        if all(indented):
            rows = ["::", "", *rows]
        elif any(indented) and not re.match(r"[-*] |\d+\. |\.\. ", rows[0]):
            rows = [
                f"  {row.strip()}" if hanging else f"* {row}"
                for row, hanging in zip(rows, indented, strict=True)
            ]
        result += [*rows, ""]
    lines[:head] = result


def legible(app, what, name, thing, options, signature, returns):
    """Write what a dataclass makes anew for each object as Python that can be read."""
    if signature is None:
        return None
    return signature.replace("<factory>", "..."), returns
