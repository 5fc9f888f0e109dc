"""`kerascnn data`: the images that are here, and CIFAR-10."""

from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import Json, Replace, app, say, say_json

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
