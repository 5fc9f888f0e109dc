"""Commands that publish and serve."""

from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import Json, app, load_keras, say, say_json


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Run folder, name or .keras file.")],
    folder: Annotated[Path, typer.Argument(help="Where the versions are kept.")],
    json: Json = False,
):
    """Publish the next version of a SavedModel, for a server."""
    load_keras()
    from kerascnn.serving import export as export_network

    version = export_network(model, folder)
    say_json({"version": version}) if json else say(f"published {version}")
