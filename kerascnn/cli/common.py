"""What the commands share: the application, options, ways to print."""

import importlib.util
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated, Any

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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DataName = Annotated[
    str,
    typer.Option(
        "--data",
        help="shapes, cifar10, tfds:NAME, a .npz file, or a folder with a subfolder of "
        "images for each class. Of a folder a fifth becomes the test images, unless it "
        "has train and test with the classes below, and a tenth of the rest validation "
        "images; each image is turned upright, cut to its centre and resized.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Height and width, for a folder and shapes. Default: what the network "
        "takes, else 32.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A value of the recipe, such as epochs=5. Repeatable."),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="An argument of the builder: use_bias=true. Repeatable."
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Also where it is prepared already.")
]
VIEWS = typer.Option(help="Views to average: 1, 2 (mirrored) or 6 (also shifted).")
PASSES = typer.Option(help="Passes to average, of a network that draws at inference.")
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]


def say(value: Any) -> None:
    """Print an answer for people."""
    print(value)


def picture(path: Path | None) -> Path | None:
    """Refuse a picture whose name does not say of which kind it is to be."""
    if path is not None and path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(
            f"--plot takes a file that ends in .png, .svg or .pdf; received {path}"
        )
    return path


def _version(wanted: bool) -> None:
    if wanted:
        say(f"kerascnn {kerascnn.__version__}")
        raise typer.Exit


@app.callback()
def about(
    module: Annotated[
        list[Path] | None,
        typer.Option(
            MODULE,
            help="A Python file that registers networks and layers of your own, with "
            "zoo.register and keras.saving.register_keras_serializable. Repeatable.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Convolutional networks of a lecture: compare, train, look at, export."""
    for number, path in enumerate(module or ()):
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path} for {MODULE}")
        spec = importlib.util.spec_from_file_location(f"kerascnn_module_{number}", path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{MODULE} takes a Python file, NAME.py; received {path}")
        load_keras()
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)


def say_table(
    result, *, json: bool, csv: bool, markdown: bool, plot: Path | None
) -> None:
    """Print a result in the form that was asked for, and where its picture is."""
    if json:
        say(result.to_json())
    elif csv:
        say(result.to_csv().rstrip())
    else:
        say(result.to_markdown() if markdown else result)
        if plot:
            say(f"picture: {plot}")


def say_json(value: Any) -> None:
    """Print an answer for programs: one JSON object."""

    def plain(other):
        return other.tolist() if hasattr(other, "tolist") else str(other)

    print(jsonlib.dumps(value, indent=2, ensure_ascii=False, default=plain))


def load_keras() -> None:
    """Import Keras, without what TensorFlow tells of its start."""
    if "keras" in sys.modules or DEBUG in sys.argv:
        return
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


def settings_of(pairs: list[str] | None) -> dict[str, str]:
    """Values of the recipe; a name that is none is no argument of another kind."""
    from kerascnn.training.recipe import check_keys

    found = pairs_of(pairs, "set")
    if "options" in found:
        raise ValueError(
            "an argument of the builder is given by --option, such as --option "
            f"dropout=0.1; received --set options={found['options']}"
        )
    check_keys(found)
    return found


def options_of(pairs: list[str] | None) -> dict[str, Any]:
    """Builder arguments: numbers, true and false as JSON writes them, else text."""
    found = {}
    for key, value in pairs_of(pairs, "option").items():
        try:
            found[key] = jsonlib.loads(value)
        except ValueError:
            found[key] = value
    return found
