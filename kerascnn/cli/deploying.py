"""The command that writes files for servers elsewhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kerascnn.cli.common import Json, app, pairs_of, say, say_json


class Target(StrEnum):
    """Where models are served."""

    docker = "docker"
    kubernetes = "kubernetes"
    kserve = "kserve"


@app.command()
def deploy(
    folder: Annotated[
        Path, typer.Argument(help="Of a model's versions, or of such folders.")
    ],
    to: Annotated[Target, typer.Option(help="What runs TensorFlow Serving.")],
    out: Annotated[
        Path | None, typer.Option(help="For the files; default: deploy-TO.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A name of a version: stable=2. Repeatable. Default: stable is the "
            "newest, previous the one before."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve what is newest, without labels.")
    ] = False,
    image: Annotated[
        str | None,
        typer.Option(help="Default: tensorflow/serving of the exporter's version."),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="Servers to begin with.")] = 2,
    most: Annotated[int, typer.Option(min=1, help="For the autoscaler.")] = 8,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over files that are there.")
    ] = False,
    json: Json = False,
):
    """Write the files that serve models with Docker, Kubernetes or KServe."""
    from kerascnn.serving.deploying import deploy as write

    labels = {}
    for name, number in pairs_of(label, "label").items():
        if not number.isascii() or not number.isdigit():
            raise ValueError(f"--label takes name=number; received {name}={number}")
        labels[name] = int(number)
    files = write(
        folder,
        to.value,
        out,
        labels=labels,
        follow=follow,
        image=image,
        replicas=replicas,
        most=most,
        replace=replace,
    )
    if json:
        say_json({"files": files})
        return
    for file in files:
        say(f"written: {file}")
    say(f"how to run them: {files[0]}")
