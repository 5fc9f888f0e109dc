"""Every command but serve: what there is, training, looking, publishing.

What a command does lies elsewhere, and is imported when it runs: the help needs no
Keras.
"""

import contextlib
import sys
import tempfile
import warnings
import webbrowser
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kerascnn.cli.common import (
    INTERRUPTED,
    app,
    argument,
    load_keras,
    option,
    pairs_of,
    say_json,
    tell,
)


def picture(path: Path | None) -> Path | None:
    """Refuse a picture whose name does not say of which kind it is to be."""
    if path is not None and path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(
            f"--plot takes a file that ends in .png, .svg or .pdf; received {path}"
        )
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for {path}")
    return path


plot_option = partial(option, None, callback=picture)
Model = Annotated[str, argument("Name, run folder or .keras file.")]
Source = Annotated[str, argument("Run folder, name or .keras file.")]
Network = Annotated[str, argument("Name of the zoo, or a .keras file.")]
Versions = Annotated[Path, argument("The folder of the versions.")]
Markdown = Annotated[bool, typer.Option("--markdown")]
Csv = Annotated[bool, typer.Option("--csv")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
SETTINGS = option([], "A value of the recipe, such as epochs=5. Repeatable.", "--set")
OPTIONS = option([], "A builder's argument: use_bias=true. Repeatable.", "--option")
DATA = option(
    "shapes",
    "shapes, cifar10, tfds:NAME, a .npz file, or a folder with a subfolder of images "
    "for each class. Of a folder a fifth becomes the test images, unless it has train "
    "and test with the classes below, and a tenth of the rest validation images; each "
    "image is turned upright, cut to its centre and resized.",
    "--data",
)
IMAGE_SIZE = option(
    None,
    "Height and width, for a folder and shapes. Default: what the network takes, else "
    "32.",
    min=1,
)
VIEWS = typer.Option(help="Views to average: 1, 2 (mirrored) or 6 (also shifted).")
PASSES = typer.Option(help="Passes to average, of a network that draws at inference.")
TFDS = option(None, "Of tfds.")
REPLACE = option(False, "Also where it is prepared already.", "--replace")


def answer(json: bool, data: dict, text: Any) -> None:
    """Print one JSON object for programs, or a text for people."""
    say_json(data) if json else print(text)


def say_table(result, *, json=False, csv=False, markdown=False, plot=None) -> None:
    """Print a result in the form that was asked for, and where its picture is."""
    if json:
        print(result.to_json())
    elif csv:
        print(result.to_csv().rstrip())
    else:
        print(result.to_markdown() if markdown else result)
        if plot:
            print(f"picture: {plot}")


def settings_of(pairs: list[str], epochs: int | None) -> dict[str, Any]:
    """Values of the recipe; a name that is none is no argument of another kind."""
    from kerascnn.training.recipe import check_keys

    found = pairs_of(pairs, "set")
    if "options" in found:
        raise ValueError(
            "an argument of the builder is given by --option, such as --option "
            f"dropout=0.1; received --set options={found['options']}"
        )
    check_keys(found)
    return found if epochs is None else {**found, "epochs": epochs}


def options_of(pairs: list[str]) -> dict[str, Any]:
    """Builder arguments, by name."""
    from kerascnn.training.recipe import read_option

    return {key: read_option(text) for key, text in pairs_of(pairs, "option").items()}


def opened(model: str) -> Any:
    """A network to train: a name as it is, a `.keras` file as a model."""
    from kerascnn.training import open_network

    return open_network(model).model if model.endswith(".keras") else model


# --- What there is ---


@app.command()
def models(
    pattern: Annotated[str, argument('Such as "vgg*".')] = "*",
    plot: Path | None = plot_option("Draw it: a .png, .svg or .pdf file."),
    measured: bool = option(False, "Only what this project measured.", "--measured"),
    markdown: Markdown = False,
    json: Json = False,
):
    """List the networks of the zoo as a ranking; draw it."""
    from kerascnn.comparison import board, ranking

    if measured:
        if plot:
            raise ValueError("--plot draws the ranking: leave --measured out for it")
        return say_table(board(pattern), json=json, markdown=markdown)
    found = ranking(pattern)
    drawn = plot and found.plot(plot)
    answer(json, {"networks": found.cards}, found.to_markdown() if markdown else found)
    if drawn and not json:
        print(f"picture: {drawn}")


@app.command()
def summary(
    model: Model = "lecture_cnn",
    size: int | None = option(None, "Height and width of the images.", min=1),
    channels: Annotated[int | None, typer.Option(min=1)] = None,
    classes: Annotated[int | None, typer.Option(min=2)] = None,
    option: list[str] = OPTIONS,
    nested: bool = option(False, "Show nested models' layers."),
    plot: Path | None = plot_option("Draw its volumes: .png, .svg or .pdf."),
    markdown: Markdown = False,
    csv: Csv = False,
    json: Json = False,
):
    """Show each layer: output, parameters, MACs, memory, field."""
    load_keras(model)
    import zoo
    from kerascnn.summary import summarize
    from kerascnn.training import open_network

    shape: dict[str, Any] = {"classes": classes} if classes else {}
    if model in zoo.names():
        if size or channels:
            height, width, depth = zoo.registry.input_shape(model)
            shape["input_shape"] = (size or height, size or width, channels or depth)
        network = zoo.build(model, **options_of(option), **shape)
    elif option or size or channels or classes:
        raise ValueError(f"{model} is built already: it takes no options")
    else:
        network = open_network(model).model
    result = summarize(network, expand_nested=nested)
    if plot:
        from kerascnn.explain import volumes

        volumes(network, summary=None if nested else result).plot(plot)
    say_table(result, json=json, csv=csv, markdown=markdown, plot=plot)


@app.command()
def compare(
    models: Annotated[list[str], argument("Names, run folders, .keras files.")],
    plot: Path | None = plot_option("Write a picture: .png, .svg, .pdf."),
    memory: bool = option(False, "Also the memory of the activations.", "--memory"),
    markdown: Markdown = False,
    csv: Csv = False,
    json: Json = False,
):
    """Compare networks: parameters, MACs, size, depth, accuracy."""
    import zoo
    from kerascnn import comparison

    if memory or not set(models) <= set(zoo.names()):
        load_keras(*models)  # for what is read from more than a card
    columns = tuple(comparison.COLUMNS) if memory else comparison.DEFAULT_COLUMNS
    result = comparison.compare(*models, columns=columns)
    if plot:
        result.plot(plot)
    say_table(result, json=json, csv=csv, markdown=markdown, plot=plot)


@app.command()
def record(
    folders: Annotated[list[Path], argument("Finished run folders.")],
    recipe: str = option(..., "The recipe that they followed."),
    zoo_folder: Path | None = option(None, "The zoo's source folder, to write to."),
    keep_weights: bool = option(False, "Leave the shipped weights.", "--keep-weights"),
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
    if not context.invoked_subcommand:
        from kerascnn.data import available

        found = available()
        answer(json, {"sources": found}, "\n".join(map(str, found)))


@data_app.command("import")
def import_archive(
    archive: Annotated[Path, argument("cifar-10-binary.tar.gz or python.")],
    data_dir: Path | None = TFDS,
    replace: bool = REPLACE,
):
    """Prepare CIFAR-10 from an official archive that you downloaded."""
    from kerascnn.data import import_cifar10

    print(f"prepared {import_cifar10(archive, data_dir, replace=replace)}")


@data_app.command()
def download(data_dir: Path | None = TFDS, replace: bool = REPLACE):
    """Download CIFAR-10 (162 MB; resumable) and prepare it."""
    from kerascnn.data import download_cifar10

    print(f"prepared {download_cifar10(data_dir, replace=replace)}")


# --- Training ---


@app.command()
def train(
    model: Annotated[str | None, argument("Name of the zoo, or a .keras file.")] = None,
    data: str = DATA,
    recipe: str = option("default", "A recipe of the card."),
    set_: list[str] = SETTINGS,
    epochs: int | None = option(None, "Default: the recipe's.", min=1),
    option: list[str] = OPTIONS,
    seed: Seed = 0,
    image_size: int | None = IMAGE_SIZE,
    folder: Path | None = option(None, "A new folder for the run."),
    resume: Path | None = option(None, "Continue the run in this folder."),
    stream: bool = option(
        False,
        "Read the images from the disk when they are needed: cifar10, tfds:NAME, a "
        "folder that tensorflow-datasets has prepared.",
        "--stream",
    ),
    devices: int | None = option(None, "Devices to train on, of each host.", min=1),
    hosts: str = option(
        "",
        "All machines that run this command, a:1234,b:1234; the first one keeps the "
        "run folder. With the JAX backend.",
    ),
    host_id: int = option(0, "Which of the hosts this one is, from 0.", min=0),
    json: Json = False,
):
    """Train a network and keep everything in a run folder."""
    others = model or folder or set_ or option or stream or epochs or image_size
    if resume and (others or (data, recipe, seed) != ("shapes", "default", 0)):
        raise ValueError(
            "--resume continues a run as it was started: give the folder, and "
            "--devices, --hosts and --host-id where they are not as before"
        )
    if resume:
        load_keras(telling=f"continuing {resume}")
    elif model:
        load_keras(model, telling=f"training {model} on {data}")
    else:
        raise ValueError("name a network to train, or --resume FOLDER")
    from kerascnn import training
    from kerascnn.training.network import data_for

    place: dict[str, Any] = {"hosts": hosts, "host_id": host_id}
    try:
        if resume:
            with warnings.catch_warnings():
                warnings.showwarning = lambda text, *_, **__: tell(f"warning: {text}")
                run = training.resume(resume, devices=devices, **place)
        else:
            if hosts:
                training.connect(hosts, host_id)  # before a model is read
            asked: dict[str, Any] = {"image_size": image_size, "stream": stream}
            settings = settings_of(set_, epochs)
            network = opened(model)
            run = training.train(
                network,
                data_for(network, data, **asked) if any(asked.values()) else data,
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
        if resume or host_id:
            early = "interrupted; --resume on every host continues what host 0 keeps"
        tell(f"\n{str(interrupt) or early}")
        sys.exit(INTERRUPTED)
    if run is not None:  # as on every host but the first
        told = {"folder": run.folder, "config": run.config, "metrics": run.metrics}
        answer(json, told, run)


@app.command()
def tune(
    model: Network,
    data: str = DATA,
    recipe: str = option("default", "Where the search starts."),
    space: list[str] = option(
        [],
        "What is searched: key=low:high, key=low:high:log or key=one/other; "
        "option:NAME is an argument of the builder. Repeatable. Default: the card's.",
    ),
    trials: int = option(30, "Trainings in all.", min=1),
    epochs: int | None = option(None, "Of each; default: the recipe's.", min=1),
    set_: list[str] = SETTINGS,
    option: list[str] = OPTIONS,
    seed: Seed = 0,
    image_size: int | None = IMAGE_SIZE,
    folder: Path | None = option(None, "Of the search; continued where it is there."),
    timeout: float | None = option(None, "Seconds until no trial begins.", min=0),
    json: Json = False,
):
    """Search for the best recipe by validation accuracy.

    Several shells that give the same folder share a search.
    """
    load_keras(model, telling=f"searching a recipe for {model} on {data}")
    from kerascnn.data import load_data
    from kerascnn.tuning import parse_space
    from kerascnn.tuning import tune as search

    settings = settings_of(set_, epochs)
    try:
        result = search(
            opened(model),
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
        tell("\ninterrupted; the same command again continues the search")
        sys.exit(INTERRUPTED)
    pictures = result.plot()
    lines = [result.conclusion(), *(f"picture: {file}" for file in pictures)]
    answer(json, {**result.to_dict(), "pictures": pictures}, "\n".join(lines))


@app.command()
def evaluate(
    model: Source,
    data: str | None = option(None, "As for train; default: the run's own."),
    plot: Path | None = plot_option("Write the confusion matrix: .png, .svg, .pdf."),
    views: Annotated[int | None, VIEWS] = None,
    passes: Annotated[int | None, PASSES] = None,
    seed: Seed = 0,
    json: Json = False,
):
    """Measure a trained network on the test images.

    A run is measured by its recipe's views and passes, unless they are given. A network
    that draws at inference draws by the seed.
    """
    load_keras(model)
    import keras

    from kerascnn import training
    from kerascnn.training.evaluate import own_data
    from kerascnn.training.network import data_for

    keras.utils.set_random_seed(seed)
    network = training.open_network(model)
    images = data_for(network.model, data) if data else own_data(network)
    measured = network.run or network.model
    result = training.evaluate(measured, images, views=views, passes=passes)
    title = f"{network.name} on {images.title}"
    if plot:
        result.plot(title).savefig(plot, dpi=150)
    text = f"{title}: {result}" + (f"\npicture: {plot}" if plot else "")
    answer(json, {"data": images.title, **result.to_dict()}, text)


@app.command()
def predict(
    model: Annotated[str, argument("Name, run folder, .keras file or version.")],
    images: Annotated[list[Path], argument("JPEG or PNG files.")],
    top: int = option(3, "Classes to show.", min=1),
    views: Annotated[int, VIEWS] = 1,
    passes: Annotated[int, PASSES] = 1,
    server: str | None = option(None, "URL of a server; MODEL is then a name there."),
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
        from kerascnn.serving.client import Client, ServerError

        client = Client(server, model)
        try:
            found = client.predict_files(images)
        except ServerError as error:
            if error.status != 404:
                raise
            served = ""
            with contextlib.suppress(ServerError):  # TensorFlow Serving lists none
                served = f"; it serves {', '.join(client.models()) or 'nothing yet'}"
            raise ServerError(f"{error}{served}", 404) from error
    else:
        load_keras(model)
        from kerascnn import serving, training

        if is_version(model):
            found = serving.predict_files(model, images)
        else:
            found = training.predict(model, images, views=views, passes=passes)
    told = [{"file": p.asked, "probabilities": p.probabilities} for p in found]
    shown = "\n".join(f"{p.asked}: {p.top(top)}" for p in found)
    answer(json, {"predictions": told}, shown)


# --- Looking ---


@app.command()
def explain(
    model: Model,
    image: Annotated[Path, argument("A JPEG or PNG file.")],
    what: str = option(
        "trace", "pixels, slide, maps, filters, gradcam, saliency, occlusion, trace."
    ),
    layer: str | None = option(None, "Name of a layer, as trace lists them."),
    cell: str | None = option(None, "A value of the layer's output: r,c,k."),
    target: str | None = option(None, "Class to explain; default: the answer."),
    out: Path = option(Path("explained"), "Folder for the pictures."),
    json: Json = False,
):
    """Show what a network sees in an image, as text and as pictures."""
    load_keras(model)
    from kerascnn.explain.report import report

    try:
        place = None if cell is None else tuple(map(int, cell.split(",")))
    except ValueError:
        raise ValueError(f"--cell is row,column,channel; received {cell!r}") from None
    found = report(model, image, what, layer=layer, cell=place, target=target, out=out)
    answer(json, found.data, found)


@app.command()
def lab(
    model: Model = "lecture_cnn",
    image: Annotated[Path | None, argument("JPEG or PNG; default: samples.")] = None,
    out: Path | None = option(None, "The HTML file; default: opened in a browser."),
    json: Json = False,
):
    """Touch every value of a network, on a page that computes it.

    Without --out, Python answers the page of a network that cannot run in it.
    """
    load_keras(model)
    from kerascnn import lab
    from kerascnn.training.run import open_network

    network = open_network(model)
    if out is None and not lab.alone(network, image):

        def show(address):
            shown = f"page: {address} (Python answers it; Ctrl+C ends it)"
            answer(json, {"page": address}, shown)
            webbrowser.open(address)

        try:
            from kerascnn.lab.serve import serve
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{network.name} cannot run in the page, and Python answers it with "
                f'{error.name}: pip install "kerascnn[serve]"'
            ) from None
        return serve(network, image, show=show)
    file = out or Path(tempfile.mkdtemp(prefix="kerascnn-lab-")) / "lab.html"
    lab.write(network, file, image)
    size = file.stat().st_size
    shown = f"page: {file} ({size / 1000:,.0f} kB)"
    answer(json, {"page": file, "bytes": size}, shown)
    if out is None:
        webbrowser.open(file.resolve().as_uri())


@app.command()
def tutorial(
    number: Annotated[int | None, argument("Of the tutorial.")] = None,
    notebook: bool = option(False, "Write it as a notebook.", "--notebook"),
    exercises: bool = option(False, "Print them, without solutions.", "--exercises"),
    json: Json = False,
):
    """List the tutorials, run one, or write it as a notebook."""
    from kerascnn import notebooks

    if number is None:
        found = {n: notebooks.title(path) for n, path in notebooks.scripts().items()}
        answer(json, found, "\n".join(found.values()))
    elif exercises:
        text = notebooks.exercises(number)
        answer(json, {"exercises": text}, text)
    elif notebook:
        written = notebooks.notebook(number)
        answer(json, {"notebook": written}, f"notebook: {written}")
    elif code := notebooks.run(number):
        raise RuntimeError(f"the tutorial ended with exit code {code}")


@app.command()
def quickstart(
    folder: Annotated[Path, argument("Where everything is written.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    set_: list[str] = SETTINGS,
    json: Json = False,
):
    """See the lecture's CNN beat its MLP: some minutes, offline.

    Both are trained on built-in images; the CNN is exported, too.
    """
    load_keras(telling=f"training two networks; everything is written to {folder}")
    from kerascnn.quickstart import quickstart as start

    shown = tell if json else print
    result = start(folder, seed=seed, show=shown, **settings_of(set_, None))
    if json:
        say_json(result)


# --- Publishing ---


@app.command()
def export(
    model: Source,
    folder: Annotated[Path, argument("Where the versions are kept.")],
    format: str = option("savedmodel", "savedmodel, litert, onnx, openvino or keras."),
    activations: str = option("", "Layers whose maps are given too: conv1,conv2."),
    images: int = option(256, "To compare the version and the network on.", min=2),
    tolerance: float | None = option(None, "Of a probability; default 1e-5."),
    json: Json = False,
):
    """Publish a network's next version, for a server or a runtime."""
    from kerascnn.serving.formats import writable

    writable(format)
    load_keras(model)
    from kerascnn import serving
    from kerascnn.serving.publish import read_manifest

    version = serving.export(
        model,
        folder,
        format=format,
        activations=[name.strip() for name in activations.split(",") if name.strip()],
        images=images,
        tolerance=tolerance,
    )
    parity = read_manifest(version)["parity"]
    told = {"version": version, "format": format, "parity": parity}
    answer(json, told, f"published {version}")


@app.command()
def versions(folder: Versions, json: Json = False):
    """List a network's versions; servers serve the last one."""
    from kerascnn.serving import versioning

    found = versioning.versions(folder)
    shown = versioning.table(found) if found else f"{folder} holds no version"
    answer(json, {"versions": [version.to_dict() for version in found]}, shown)


@app.command()
def rollback(
    folder: Versions,
    to: int | None = option(None, "Version; default the one before.", min=0),
    json: Json = False,
):
    """Publish an earlier version again; nothing is deleted."""
    from kerascnn import serving

    version = serving.rollback(folder, to)
    again = "an earlier version" if version.copy_of is None else version.copy_of
    answer(json, version.to_dict(), f"published {again} again as {version.path}")


@app.command()
def prune(
    folder: Versions,
    keep: int = option(..., "Versions to keep, the newest.", min=1),
    json: Json = False,
):
    """Remove all but the newest versions."""
    from kerascnn import serving

    removed = serving.prune(folder, keep)
    numbers = ", ".join(str(version.number) for version in removed)
    shown = f"removed {numbers}" if removed else "nothing to remove"
    answer(json, {"removed": [version.to_dict() for version in removed]}, shown)


@app.command()
def verify(
    folder: Annotated[Path, argument("A version, or a folder of them.")],
    json: Json = False,
):
    """Prove that versions are whole and answer as they did.

    A version is compared with its manifest: its files, and its answers then.
    """
    load_keras()
    from kerascnn import serving

    results = serving.verify(folder)
    told = {"versions": [result.to_dict() for result in results]}
    answer(json, told, "\n".join(map(str, results)))
    if not all(result.ok for result in results):
        raise typer.Exit(1)
