"""Commands that train and measure: train, tune, evaluate, predict."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from kerascnn.cli.common import (
    INTERRUPTED,
    PASSES,
    VIEWS,
    DataName,
    ImageSize,
    Json,
    Options,
    Seed,
    Settings,
    app,
    load_keras,
    options_of,
    pairs_of,
    picture,
    say,
    say_json,
    settings_of,
)


def tell(text: str) -> None:
    """Print what goes on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def _say_warning(message, *_, **__) -> None:
    tell(f"warning: {message}")


@app.command()
def train(
    model: Annotated[
        str | None, typer.Argument(help="Name of the zoo, or a .keras file.")
    ] = None,
    data: DataName = "shapes",
    recipe: Annotated[str, typer.Option(help="A recipe of the card.")] = "default",
    set_: Settings = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Default: the recipe's.")
    ] = None,
    option: Options = None,
    seed: Seed = 0,
    image_size: ImageSize = None,
    folder: Annotated[
        Path | None, typer.Option(help="A new folder for the run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder.")
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Read the images from the disk when they are needed: cifar10, "
            "tfds:NAME, a folder that tensorflow-datasets has prepared.",
        ),
    ] = False,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices to train on, of each host.")
    ] = None,
    hosts: Annotated[
        str,
        typer.Option(
            help="All machines that run this command, a:1234,b:1234; the first one "
            "keeps the run folder. With the JAX backend."
        ),
    ] = "",
    host_id: Annotated[
        int, typer.Option(min=0, help="Which of the hosts this one is, from 0.")
    ] = 0,
    json: Json = False,
):
    """Train a network and keep everything in a run folder."""
    if "keras" not in sys.modules:  # which takes its time
        tell(f"continuing {resume}" if resume else f"training {model} on {data}")
    load_keras()
    from kerascnn import training
    from kerascnn.data import Data
    from kerascnn.training.network import data_for

    place: dict[str, Any] = {"hosts": hosts, "host_id": host_id}
    try:
        if resume:
            if model or folder or set_ or option or stream or epochs:
                raise ValueError(
                    "--resume continues a run as it was started: give the folder, and "
                    "--devices, --hosts and --host-id where they are not as before"
                )
            with warnings.catch_warnings():
                warnings.showwarning = _say_warning
                run = training.resume(resume, devices=devices, **place)
        else:
            if not model:
                raise ValueError("name a network to train, or --resume FOLDER")
            if hosts:
                training.connect(hosts, host_id)  # before a model is read
            asked: dict[str, Any] = {"image_size": image_size, "stream": stream}
            settings: dict[str, Any] = dict(settings_of(set_))
            if epochs is not None:
                settings["epochs"] = epochs
            network = model
            if model.endswith(".keras"):
                network = training.open_network(model).model
            images: str | Data = data
            if any(asked.values()):
                images = data_for(network, data, **asked)
            run = training.train(
                network,
                images,
                recipe,
                seed=seed,
                folder=folder,
                options=options_of(option),
                devices=devices or 1,
                **place,
                **settings,
            )
    except KeyboardInterrupt as interrupt:  # which names the folder, if there is one
        early = "interrupted before the first step: there is nothing to --resume"
        tell(f"\n{str(interrupt) or early}")
        sys.exit(INTERRUPTED)
    if run is None:  # this is not host 0
        return
    if json:
        say_json({"folder": run.folder, "config": run.config, "metrics": run.metrics})
    else:
        say(run)


@app.command()
def tune(
    model: Annotated[str, typer.Argument(help="Name of the zoo, or a .keras file.")],
    data: DataName = "shapes",
    recipe: Annotated[str, typer.Option(help="Where the search starts.")] = "default",
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="What is searched: key=low:high, key=low:high:log or key=one/other; "
            "option:NAME is an argument of the builder. Repeatable. Default: the "
            "card's."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 30,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each; default: the recipe's.")
    ] = None,
    set_: Settings = None,
    option: Options = None,
    seed: Seed = 0,
    image_size: ImageSize = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Of the search; one that is there is continued."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds until no trial begins.")
    ] = None,
    json: Json = False,
):
    """Search for the best recipe by validation accuracy.

    Several shells that give the same folder share a search.
    """
    load_keras()
    from kerascnn.data import load_data
    from kerascnn.training import open_network
    from kerascnn.tuning import parse_space
    from kerascnn.tuning import tune as search

    settings: dict[str, Any] = dict(settings_of(set_))
    if epochs is not None:
        settings["epochs"] = epochs
    try:
        result = search(
            open_network(model).model if model.endswith(".keras") else model,
            load_data(data, image_size=image_size) if image_size else data,
            space=parse_space(pairs_of(space, "space")) if space else None,
            recipe=recipe,
            trials=trials,
            folder=folder,
            seed=seed,
            timeout=timeout,
            options=options_of(option),
            **settings,
        )
    except KeyboardInterrupt:
        print(
            "\ninterrupted; the same command again continues the search",
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    pictures = result.plot()
    if json:
        say_json({**result.to_dict(), "pictures": pictures})
        return
    say(result.conclusion())  # the trials have each had a line
    for file in pictures:
        say(f"picture: {file}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Run folder, name or .keras file.")],
    data: Annotated[
        str | None, typer.Option(help="As for train; default: the run's own.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write the confusion matrix: .png, .svg, .pdf.", callback=picture
        ),
    ] = None,
    views: Annotated[int | None, VIEWS] = None,
    passes: Annotated[int | None, PASSES] = None,
    seed: Seed = 0,
    json: Json = False,
):
    """Measure a trained network on the test images.

    A run is measured by its recipe's views and passes, unless they are given. A network
    that draws at inference draws by the seed.
    """
    load_keras()
    import keras

    from kerascnn.training import evaluate as measure
    from kerascnn.training import open_network
    from kerascnn.training.evaluate import own_data
    from kerascnn.training.network import data_for

    keras.utils.set_random_seed(seed)
    network = open_network(model)
    images = data_for(network.model, data) if data else own_data(network)
    result = measure(network.run or network.model, images, views=views, passes=passes)
    title = f"{network.name} on {images.title}"
    if plot:
        result.plot(title).savefig(plot, dpi=150)
    if json:
        say_json({"data": images.title, **result.to_dict()})
    else:
        say(f"{title}: {result}")
        if plot:
            say(f"picture: {plot}")


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="Name, run folder, .keras file or version.")
    ],
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 3,
    views: Annotated[int, VIEWS] = 1,
    passes: Annotated[int, PASSES] = 1,
    server: Annotated[
        str | None,
        typer.Option(help="URL of a server; MODEL is then a name that it knows."),
    ] = None,
    json: Json = False,
):
    """Say what images show."""
    from kerascnn.serving import is_version

    if (server or is_version(model)) and (views, passes) != (1, 1):
        raise ValueError(
            f"a {'server' if server else 'version'} answers for one view in one pass: "
            "give the run folder, or leave out --views and --passes; received "
            f"{views} and {passes}"
        )
    if server:
        from kerascnn.serving.client import Client

        found = Client(server, model).predict_files(images)
    elif is_version(model):
        load_keras()
        from kerascnn.serving import predict_files

        found = predict_files(model, images)
    else:
        load_keras()
        from kerascnn.training import predict as predict_images

        found = predict_images(model, images, views=views, passes=passes)
    if json:
        say_json([{"file": p.asked, "probabilities": p.probabilities} for p in found])
        return
    for prediction in found:
        say(f"{prediction.asked}: {prediction.top(top)}")
