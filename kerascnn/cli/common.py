"""What the commands share: the application, its options, ways to print."""

import importlib.util
import json as jsonlib
import sys
from pathlib import Path
from typing import Any

import typer

import kerascnn
from kerascnn.environment import no_stderr

app = typer.Typer(
    name="kerascnn",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130  # the exit code of a shell for Ctrl-C
DEBUG, MODULE = "--debug", "--module"  # before or behind the command


def argument(text: str) -> Any:
    """Return an argument with a help text."""
    return typer.Argument(help=text)


def option(default: Any, text: str, *names: str, **more: Any) -> Any:
    """Return an option: its default, its help, and names other than its own."""
    return typer.Option(default, *names, help=text, **more)


def tell(text: str) -> None:
    """Print what goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def say_json(value: dict) -> None:
    """Print an answer for programs: one JSON object."""

    def plain(other):
        if hasattr(other, "__dataclass_fields__"):
            return vars(other)
        return other.tolist() if hasattr(other, "tolist") else str(other)

    print(jsonlib.dumps(value, indent=2, ensure_ascii=False, default=plain))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kerascnn {kerascnn.__version__}")
        raise typer.Exit


@app.callback()
def about(
    module: list[Path] = option(
        [],
        "A Python file that registers networks and layers of your own, with "
        "zoo.register and keras.saving.register_keras_serializable. Repeatable.",
        MODULE,
    ),
    debug: bool = option(False, "Show the traceback of an error.", DEBUG),
    version: bool = option(
        False, "Print the version.", "--version", callback=_version, is_eager=True
    ),
) -> None:
    """Convolutional networks of a lecture: compare, train, look at, export."""
    for number, path in enumerate(module):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path} for {MODULE}")
        spec = importlib.util.spec_from_file_location(f"kerascnn_module_{number}", path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{MODULE} takes a Python file, NAME.py; received {path}")
        load_keras()
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)


def load_keras(*models: str, telling: str = "") -> None:
    """Import Keras, without what TensorFlow tells of its start.

    It takes its time: before, `models` that are neither of the zoo nor there are
    refused, and `telling` is told.
    """
    import zoo

    for model in models:
        if model not in zoo.names() and not Path(model).exists():
            if Path(model).suffix or Path(model).name != model:
                raise FileNotFoundError(f"there is no file or folder {model}")
            zoo.card(model)  # raises, with the names that are close
    if "keras" in sys.modules:
        return
    if telling:
        tell(telling)
    if DEBUG not in sys.argv:
        with no_stderr():
            import keras  # noqa: F401


def pairs_of(pairs: list[str] | None, option: str) -> dict[str, str]:
    """Split what a repeatable option of the form key=value was given."""
    found = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--{option} takes key=value; received {pair!r}")
        found[key.strip()] = value.strip()
    return found
