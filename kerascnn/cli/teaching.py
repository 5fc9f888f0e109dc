"""Commands that show: explain, lab, tutorial, quickstart."""

import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import (
    Json,
    Seed,
    Settings,
    app,
    load_keras,
    pairs_of,
    say,
    say_json,
)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="Name, run folder or .keras file.")],
    image: Annotated[Path, typer.Argument(help="A JPEG or PNG file.")],
    what: Annotated[
        str,
        typer.Option(
            help="pixels, slide, maps, filters, gradcam, saliency, occlusion, trace."
        ),
    ] = "trace",
    layer: Annotated[
        str | None, typer.Option(help="Name of a layer, as trace lists them.")
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="A value of the layer's output: r,c,k.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class to explain; default: the answer.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(
        "explained"
    ),
    json: Json = False,
):
    """Show what a network sees in an image, as text and as pictures."""
    load_keras()
    from kerascnn.explain.report import report

    place = None
    if cell is not None:
        try:
            place = tuple(int(part) for part in cell.split(","))
        except ValueError:
            raise ValueError(
                f"--cell takes row,column,channel; received {cell!r}"
            ) from None
    found = report(model, image, what, layer=layer, cell=place, target=target, out=out)
    say_json(found.data) if json else say(found)


@app.command()
def lab(
    model: Annotated[
        str, typer.Argument(help="Name, run folder or .keras file.")
    ] = "lecture_cnn",
    image: Annotated[
        Path | None, typer.Argument(help="A JPEG or PNG file; default: samples.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: opened in a browser.")
    ] = None,
    json: Json = False,
):
    """Touch every value of a network, on a page that computes it."""
    load_keras()
    from kerascnn.lab import write

    file = out or Path(tempfile.mkdtemp(prefix="kerascnn-lab-")) / "lab.html"
    write(model, file, image)
    size = file.stat().st_size
    say_json({"page": file, "bytes": size}) if json else say(
        f"page: {file} ({size / 1000:,.0f} kB)"
    )
    if out is None:
        webbrowser.open(file.resolve().as_uri())


@app.command()
def tutorial(
    number: Annotated[int | None, typer.Argument(help="Of the tutorial.")] = None,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Write it as a notebook.")
    ] = False,
    json: Json = False,
):
    """List the tutorials, run one, or write it as a notebook."""
    from kerascnn import notebooks

    if number is None:
        found = {n: notebooks.title(path) for n, path in notebooks.scripts().items()}
        say_json(found) if json else say("\n".join(found.values()))
    elif notebook:
        written = notebooks.notebook(number)
        say_json({"notebook": written}) if json else say(f"notebook: {written}")
    elif code := notebooks.run(number):
        raise RuntimeError(f"the tutorial ended with exit code {code}")


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    set_: Settings = None,
    json: Json = False,
):
    """See the lecture's CNN beat its MLP: some minutes, offline.

    Both are trained on built-in images; the CNN is exported, too.
    """
    load_keras()
    from kerascnn.quickstart import quickstart as start

    quiet = (lambda text: print(text, file=sys.stderr)) if json else say
    result = start(folder, seed=seed, show=quiet, **pairs_of(set_, "set"))
    if json:
        say_json(result)
