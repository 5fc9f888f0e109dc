"""Commands that publish and serve."""

from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import Json, app, load_keras, say, say_json

Folder = Annotated[Path, typer.Argument(help="The folder of the versions.")]


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Run folder, name or .keras file.")],
    folder: Annotated[Path, typer.Argument(help="Where the versions are kept.")],
    format: Annotated[
        str, typer.Option(help="savedmodel, litert, onnx, openvino or keras.")
    ] = "savedmodel",
    activations: Annotated[
        str, typer.Option(help="Layers whose maps are given too: conv1,conv2.")
    ] = "",
    images: Annotated[
        int, typer.Option(min=2, help="To compare the version and the network on.")
    ] = 256,
    tolerance: Annotated[
        float | None, typer.Option(help="Of a probability; default 1e-5.")
    ] = None,
    json: Json = False,
):
    """Publish a network's next version, for a server or a runtime."""
    from kerascnn.serving.formats import format_named, require

    require(format_named(format).writes, format_named(format))
    load_keras()
    from kerascnn.serving import export as export_network
    from kerascnn.serving.manifest import read

    layers = [name.strip() for name in activations.split(",") if name.strip()]
    version = export_network(
        model,
        folder,
        format=format,
        activations=layers,
        images=images,
        tolerance=tolerance,
    )
    if json:
        made = read(version)
        say_json({"version": version, "format": format, "parity": made["parity"]})
    else:
        say(f"published {version}")


@app.command()
def versions(folder: Folder, json: Json = False):
    """List a network's versions; servers serve the last one."""
    from kerascnn.serving import versioning

    found = versioning.versions(folder)
    if json:
        say_json([version.to_dict() for version in found])
    else:
        say(versioning.table(found) if found else f"{folder} holds no version")


@app.command()
def rollback(
    folder: Folder,
    to: Annotated[
        int | None, typer.Option(min=0, help="Version; default the one before.")
    ] = None,
    json: Json = False,
):
    """Publish an earlier version again; nothing is deleted."""
    from kerascnn.serving import rollback as publish_again

    version = publish_again(folder, to)
    if json:
        say_json(version.to_dict())
    else:
        again = "an earlier version" if version.copy_of is None else version.copy_of
        say(f"published {again} again as {version.path}")


@app.command()
def prune(
    folder: Folder,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep, the newest.")],
    json: Json = False,
):
    """Remove all but the newest versions."""
    from kerascnn.serving import prune as remove

    removed = remove(folder, keep)
    if json:
        say_json([version.to_dict() for version in removed])
    else:
        numbers = ", ".join(str(version.number) for version in removed)
        say(f"removed {numbers}" if removed else "nothing to remove")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A version, or a folder of them.")],
    json: Json = False,
):
    """Prove that versions are whole and answer as they did.

    A version is compared with its manifest: its files, and its answers then.
    """
    from kerascnn.serving import verify as prove

    results = prove(folder)
    if json:
        say_json([result.to_dict() for result in results])
    else:
        for result in results:
            say(result)
    if not all(result.ok for result in results):
        raise typer.Exit(1)
