"""The `kerascnn` command: it parses, calls one function and renders the answer."""

import json as jsonlib
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="kerascnn",
    help="Convolutional networks of a lecture: compare, train, look at, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(
    help="Show which images are here; get CIFAR-10.", rich_markup_mode=None
)
app.add_typer(data_app, name="data")

INTERRUPTED = 130  # the exit code of a shell for Ctrl-C
DEBUG = "--debug"  # understood everywhere, before the command is parsed
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DataName = Annotated[
    str, typer.Option("--data", help="shapes, cifar10, a folder of images, or .npz.")
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


def _say(value: Any) -> None:
    print(value)


def _say_json(value: Any) -> None:
    def plain(other):
        return other.tolist() if hasattr(other, "tolist") else str(other)

    print(jsonlib.dumps(value, indent=2, ensure_ascii=False, default=plain))


def _load_keras() -> None:
    """Import Keras, without what TensorFlow tells of its start.

    TF_CPP_MIN_LOG_LEVEL does not reach the lines that are written before TensorFlow
    has read it, so standard error is closed meanwhile. A failure to import is raised.
    """
    if "keras" in sys.modules or DEBUG in sys.argv:
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _pairs(pairs: list[str] | None, option: str) -> dict[str, str]:
    found = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--{option} takes key=value; received {pair!r}")
        found[key.strip()] = value.strip()
    return found


def _options(pairs: list[str] | None) -> dict[str, Any]:
    """Builder arguments: numbers, true and false as JSON writes them, else text."""
    found = {}
    for key, value in _pairs(pairs, "option").items():
        try:
            found[key] = jsonlib.loads(value)
        except ValueError:
            found[key] = value
    return found


def _build(model: str, options: list[str] | None, **shape):
    """Build a network of the zoo, or open a trained one."""
    import zoo
    from kerascnn.training import open_network

    if model in zoo.names():
        return zoo.build(model, **_options(options), **shape)
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
        Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf file.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    json: Json = False,
):
    """List the networks of the zoo as a ranking; draw it."""
    from kerascnn.ranking import ranking

    found = ranking(pattern)
    if json:
        _say_json([vars(card) for card in found.cards])
        return
    _say(found.to_markdown() if markdown else found)
    if plot:
        _say(f"picture: {found.plot(plot)}")


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
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    csv: Annotated[bool, typer.Option("--csv")] = False,
    json: Json = False,
):
    """Show each layer: output, parameters as arithmetic, MACs, memory, field."""
    _load_keras()
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
    result = summarize(_build(model, option, **shape), expand_nested=nested)
    if json:
        _say(result.to_json())
    elif csv:
        _say(result.to_csv().rstrip())
    else:
        _say(result.to_markdown() if markdown else result)


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="Names or run folders.")],
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture: .png, .svg, .pdf.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the memory of the activations.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown")] = False,
    csv: Annotated[bool, typer.Option("--csv")] = False,
    json: Json = False,
):
    """Compare networks: parameters, MACs, size, depth, accuracy."""
    from kerascnn.comparison import COLUMNS, DEFAULT_COLUMNS
    from kerascnn.comparison import compare as compare_models

    result = compare_models(
        *models, columns=tuple(COLUMNS) if memory else DEFAULT_COLUMNS
    )
    if plot:
        result.plot(plot)
    if json:
        _say(result.to_json())
    elif csv:
        _say(result.to_csv().rstrip())
    else:
        _say(result.to_markdown() if markdown else result)
        if plot:
            _say(f"picture: {plot}")


@app.command()
def train(
    model: Annotated[
        str | None, typer.Argument(help="Name of the zoo, or a .keras file.")
    ] = None,
    data: DataName = "shapes",
    recipe: Annotated[str, typer.Option(help="A recipe of the card.")] = "default",
    set_: Settings = None,
    option: Options = None,
    seed: Seed = 0,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Height and width, for a folder and shapes."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="A new folder for the run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the run in this folder.")
    ] = None,
    json: Json = False,
):
    """Train a network and keep everything in a run folder."""
    _load_keras()
    from kerascnn import training
    from kerascnn.data import load_data

    if resume:
        if model or folder or set_ or option:
            raise ValueError(
                "--resume continues a run as it was started: give the folder alone"
            )
        run = training.resume(resume)
    else:
        if not model:
            raise ValueError("name a network to train, or --resume FOLDER")
        network = model
        if model.endswith(".keras"):
            network = training.open_network(model).model
        run = training.train(
            network,
            load_data(data, image_size=image_size) if image_size else data,
            recipe,
            seed=seed,
            folder=folder,
            options=_options(option),
            **_pairs(set_, "set"),
        )
    if json:
        _say_json({"folder": run.folder, "config": run.config, "metrics": run.metrics})
    else:
        _say(run)


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
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Height and width, for a folder and shapes."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Of the search; one that is there is continued."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds until no trial begins.")
    ] = None,
    json: Json = False,
):
    """Search for the best recipe by validation accuracy; several shells can share."""
    _load_keras()
    from kerascnn.data import load_data
    from kerascnn.training import open_network
    from kerascnn.tuning import parse_space
    from kerascnn.tuning import tune as search

    settings: dict[str, Any] = dict(_pairs(set_, "set"))
    if epochs is not None:
        settings["epochs"] = epochs
    try:
        result = search(
            open_network(model).model if model.endswith(".keras") else model,
            load_data(data, image_size=image_size) if image_size else data,
            space=parse_space(_pairs(space, "space")) if space else None,
            recipe=recipe,
            trials=trials,
            folder=folder,
            seed=seed,
            timeout=timeout,
            options=_options(option),
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
        _say_json({**result.to_dict(), "pictures": pictures})
        return
    _say(result)
    for picture in pictures:
        _say(f"picture: {picture}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Run folder, name or .keras file.")],
    data: Annotated[
        str | None, typer.Option(help="As for train; default: the run's own.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the confusion matrix: .png, .svg, .pdf.")
    ] = None,
    views: Annotated[int | None, VIEWS] = None,
    passes: Annotated[int | None, PASSES] = None,
    json: Json = False,
):
    """Measure a trained network on the test images.

    A run is measured by its recipe's views and passes, unless they are given.
    """
    _load_keras()
    import zoo
    from kerascnn.data import load_data
    from kerascnn.training import evaluate as measure
    from kerascnn.training import load_run, open_network

    network = open_network(model)
    if data is None:
        if not Path(model).is_dir():
            raise ValueError(f"say what to evaluate {model} on: --data cifar10")
        origin = load_run(model).config["data"]["origin"]
        if not origin:
            raise ValueError(f"{model} was trained on data of its own: give --data")
    else:
        origin = {"source": data}
    images = load_data(**origin)
    is_run = model not in zoo.names() and Path(model).is_dir()
    own = load_run(model).config["recipe"] if is_run else {}
    result = measure(
        network.model,
        images.test,
        labels=images.labels,
        views=own.get("views", 1) if views is None else views,
        passes=own.get("passes", 1) if passes is None else passes,
    )
    title = f"{network.name} on {images.title}"
    if plot:
        result.plot(title).savefig(plot, dpi=150)
    if json:
        _say_json({"data": images.title, **result.to_dict()})
    else:
        _say(f"{title}: {result}")
        if plot:
            _say(f"picture: {plot}")


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="Name, run folder, .keras file or SavedModel.")
    ],
    images: Annotated[list[Path], typer.Argument(help="JPEG or PNG files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show.")] = 3,
    views: Annotated[int, VIEWS] = 1,
    passes: Annotated[int, PASSES] = 1,
    json: Json = False,
):
    """Say what images show."""
    _load_keras()
    found: list[tuple[Path, dict[str, float]]]
    if (Path(model) / "saved_model.pb").exists():
        if (views, passes) != (1, 1):
            raise ValueError(
                "a SavedModel answers for one view in one pass: give the run folder, "
                f"or leave out --views and --passes; received {views} and {passes}"
            )
        from kerascnn.serving import predict_files

        found = predict_files(model, images)
    else:
        from kerascnn.training import predict as predict_images

        answers = predict_images(model, images, views=views, passes=passes)
        found = [(p.file, p.probabilities) for p in answers]
    if json:
        _say_json([{"file": f, "probabilities": answer} for f, answer in found])
        return
    for file, answer in found:
        shown = ", ".join(f"{k} {v:.1%}" for k, v in list(answer.items())[:top])
        _say(f"{file}: {shown}")


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
    """Show what a network sees in an image: text, and pictures in a folder."""
    _load_keras()
    from kerascnn.explain.reporting import report

    place = None
    if cell is not None:
        try:
            place = tuple(int(part) for part in cell.split(","))
        except ValueError:
            raise ValueError(
                f"--cell takes row,column,channel; received {cell!r}"
            ) from None
    found = report(model, image, what, layer=layer, cell=place, target=target, out=out)
    _say_json(found.data) if json else _say(found)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Run folder, name or .keras file.")],
    folder: Annotated[Path, typer.Argument(help="Where the versions are kept.")],
    json: Json = False,
):
    """Publish the next version of a SavedModel, for a server."""
    _load_keras()
    from kerascnn.serving import export as export_network

    version = export_network(model, folder)
    _say_json({"version": version}) if json else _say(f"published {version}")


@app.command()
def record(
    folders: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    recipe: Annotated[str, typer.Option(help="The recipe that they followed.")],
    zoo_folder: Annotated[
        Path | None, typer.Option(help="The zoo's source folder, to write to.")
    ] = None,
):
    """Write the results of runs, and their weights, to the network's card."""
    _load_keras()
    from kerascnn.record import record as write

    _say_json(write(folders, zoo_folder, recipe=recipe))


@app.command()
def tutorial(
    number: Annotated[int | None, typer.Argument(help="Of the tutorial.")] = None,
    notebook: Annotated[
        bool, typer.Option("--notebook", help="Write it as a notebook.")
    ] = False,
    json: Json = False,
):
    """List the tutorials, run one, or write it as a notebook."""
    from kerascnn import lessons

    if number is None:
        found = {n: lessons.title(path) for n, path in lessons.scripts().items()}
        _say_json(found) if json else _say("\n".join(found.values()))
    elif notebook:
        written = lessons.notebook(number)
        _say_json({"notebook": written}) if json else _say(f"notebook: {written}")
    elif code := lessons.run(number):
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
    """See the lecture's CNN beat its MLP, and export it: some minutes, offline."""
    _load_keras()
    from kerascnn.quickstart import quickstart as start

    quiet = (lambda text: print(text, file=sys.stderr)) if json else _say
    result = start(folder, seed=seed, show=quiet, **_pairs(set_, "set"))
    if json:
        _say_json(result)


@data_app.callback(invoke_without_command=True)
def data(context: typer.Context, json: Json = False):
    """Show which images are here."""
    if context.invoked_subcommand:
        return
    from kerascnn.data import available

    found = available()
    _say_json([vars(entry) for entry in found]) if json else _say(
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

    _say(f"prepared {import_cifar10(archive, data_dir, replace=replace)}")


@data_app.command()
def download(
    data_dir: Annotated[Path | None, typer.Option(help="Of tfds.")] = None,
    replace: Replace = False,
):
    """Download CIFAR-10 (162 MB; resumable) and prepare it."""
    from kerascnn.data import download_cifar10

    _say(f"prepared {download_cifar10(data_dir, replace=replace)}")


def main() -> None:
    """Run the command; wrong use exits with 2, a failure with 1, Ctrl-C with 130."""
    # TensorFlow tells its start on standard error; a user can still ask for it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = sys.argv[1:]
    debug = DEBUG in arguments
    if debug:
        arguments.remove(DEBUG)
    try:
        code = app(arguments, standalone_mode=False)
        code = code if isinstance(code, int) else 0
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            told = "interrupted; a training continues with kerascnn train --resume"
            print(f"\n{told} FOLDER", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`kerascnn models | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(_exit_code(error))


def _one_line(error: Exception) -> str:
    # What typer raises for wrong use can say it itself.
    message = getattr(error, "format_message", lambda: str(error))()
    if not message and isinstance(error, MemoryError):
        message = "out of memory; choose a smaller network or batch_size"
    return " ".join((message or repr(error)).split())


def _exit_code(error: Exception) -> int:
    if hasattr(error, "exit_code"):
        return error.exit_code
    wrong_use = (ValueError, TypeError, FileNotFoundError, FileExistsError)
    return 2 if isinstance(error, wrong_use) else 1


if __name__ == "__main__":
    main()
