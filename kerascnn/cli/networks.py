"""What there is: models, summary, compare and record, and the images: data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kerascnn.cli.common import (
    Json,
    Options,
    Replace,
    app,
    load_keras,
    options_of,
    picture,
    say,
    say_json,
    say_table,
)


def _build(model: str, options: list[str] | None, **shape):
    """Build a network of the zoo, or open a trained one."""
    import zoo
    from kerascnn.training import open_network

    if model in zoo.names():
        return zoo.build(model, **options_of(options), **shape)
    if options or shape:
        # Wrong use: a trained network has its shape; an unknown name is named first.
        if not Path(model).exists():
            zoo.card(model)
        raise ValueError(f"{model} is built already: it takes no options")
    return open_network(model).model


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help='Such as "vgg*".')] = "*",
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw it: a .png, .svg or .pdf file.", callback=picture),
    ] = None,
    measured: Annotated[
        bool, typer.Option("--measured", help="Only what this project measured.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    json: Json = False,
):
    """List the networks of the zoo as a ranking; draw it."""
    from kerascnn.comparison import board, ranking

    if measured:
        if plot:
            raise ValueError("--plot draws the ranking: leave --measured out for it")
        say_table(board(pattern), json=json, csv=False, markdown=markdown, plot=None)
        return
    found = ranking(pattern)
    if json:
        say_json([vars(card) for card in found.cards])
        return
    say(found.to_markdown() if markdown else found)
    if plot:
        say(f"picture: {found.plot(plot)}")


@app.command()
def summary(
    model: Annotated[
        str, typer.Argument(help="Name, run folder or .keras file.")
    ] = "lecture_cnn",
    size: Annotated[
        int | None, typer.Option(min=1, help="Height and width of the images.")
    ] = None,
    channels: Annotated[int | None, typer.Option(min=1)] = None,
    classes: Annotated[int | None, typer.Option(min=2)] = None,
    option: Options = None,
    nested: Annotated[bool, typer.Option(help="Show nested models' layers.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw its volumes: .png, .svg or .pdf.", callback=picture),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    csv: Annotated[bool, typer.Option("--csv")] = False,
    json: Json = False,
):
    """Show each layer: output, parameters, MACs, memory, field."""
    load_keras()
    import zoo
    from kerascnn.summary import summarize

    shape: dict[str, Any] = {}
    if classes:
        shape["classes"] = classes
    if size or channels:
        default = zoo.card(model).input_shape
        shape["input_shape"] = (
            size or default[0],
            size or default[1],
            channels or default[2],
        )
    network = _build(model, option, **shape)
    result = summarize(network, expand_nested=nested)
    if plot:
        from kerascnn.explain import volumes

        volumes(network, summary=None if nested else result).plot(plot)
    say_table(result, json=json, csv=csv, markdown=markdown, plot=plot)


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(help="Names, run folders, .keras files.")
    ],
    plot: Annotated[
        Path | None,
        typer.Option(help="Write a picture: .png, .svg, .pdf.", callback=picture),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the memory of the activations.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    csv: Annotated[bool, typer.Option("--csv")] = False,
    json: Json = False,
):
    """Compare networks: parameters, MACs, size, depth, accuracy."""
    import zoo
    from kerascnn.comparison import COLUMNS, DEFAULT_COLUMNS
    from kerascnn.comparison import compare as compare_models

    if memory or not set(models) <= set(zoo.names()):
        load_keras()  # for what is read from more than a card
    result = compare_models(
        *models, columns=tuple(COLUMNS) if memory else DEFAULT_COLUMNS
    )
    if plot:
        result.plot(plot)
    say_table(result, json=json, csv=csv, markdown=markdown, plot=plot)


@app.command()
def record(
    folders: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    recipe: Annotated[str, typer.Option(help="The recipe that they followed.")],
    zoo_folder: Annotated[
        Path | None, typer.Option(help="The zoo's source folder, to write to.")
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Leave the weights that ship.")
    ] = False,
):
    """Write the results of runs to the network's card.

    The weights are written as well, where the network ships with weights.
    """
    load_keras()
    from kerascnn.record import record as write

    say_json(write(folders, zoo_folder, recipe=recipe, keep_weights=keep_weights))


data_app = typer.Typer(
    help="Show which images are here; get CIFAR-10.", rich_markup_mode=None
)
app.add_typer(data_app, name="data")


@data_app.callback(invoke_without_command=True)
def data(context: typer.Context, json: Json = False):
    """Show which images are here."""
    if context.invoked_subcommand:
        return
    from kerascnn.data import available

    found = available()
    say_json([vars(entry) for entry in found]) if json else say(
        "\n".join(str(entry) for entry in found)
    )


@data_app.command("import")
def import_archive(
    archive: Annotated[Path, typer.Argument(help="cifar-10-binary.tar.gz or python.")],
    data_dir: Annotated[Path | None, typer.Option(help="Of tfds.")] = None,
    replace: Replace = False,
):
    """Prepare CIFAR-10 from an official archive that you downloaded."""
    from kerascnn.data import import_cifar10

    say(f"prepared {import_cifar10(archive, data_dir, replace=replace)}")


@data_app.command()
def download(
    data_dir: Annotated[Path | None, typer.Option(help="Of tfds.")] = None,
    replace: Replace = False,
):
    """Download CIFAR-10 (162 MB; resumable) and prepare it."""
    from kerascnn.data import download_cifar10

    say(f"prepared {download_cifar10(data_dir, replace=replace)}")
