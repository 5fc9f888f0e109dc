"""The lecture's argument in five minutes: the CNN against the MLP, up to serving."""

import time
from collections.abc import Callable
from pathlib import Path

from kerascnn.comparison import compare
from kerascnn.data import load_data
from kerascnn.explain import gallery
from kerascnn.plotting.curves import plot_comparison
from kerascnn.serving import answers, check_in_fresh_process, export
from kerascnn.tables import Column, Table
from kerascnn.training import train
from kerascnn.training.evaluate import predict_probabilities

NETWORKS = ("lecture_cnn", "dense_mlp")
TOLERANCE = 1e-5  # between a served probability and that of `model.predict`


def quickstart(
    folder="quickstart",
    *,
    seed: int = 0,
    show: Callable[[str], None] = print,
    **overrides,
) -> dict:
    """Compare, train, look at, export and serve the lecture's two networks.

    Everything happens on the built-in data, without a network connection. `folder`
    takes the runs, pictures and the exported version; `show` is called with each part
    of the report; `overrides` are values of both recipes, such as `epochs=1`. Returns
    what was measured and written; RuntimeError where the exported network answers
    differently from the trained one.
    """
    start = time.perf_counter()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    show("1. Two networks for the same images\n")
    show(f"{compare(*NETWORKS)}\n")

    data = load_data("shapes")
    show(f"2. The images: {data}\n")

    show("3. Training: the same images, each by its own quick recipe\n")
    runs, overrides = {}, {"seed": seed, "runs": folder / "runs", **overrides}
    for name in NETWORKS:
        show(f"{name}:")
        runs[name] = train(name, data, "quick", **overrides)
        show("")

    show("4. What they reached, on images that neither has seen\n")
    show(f"{accuracy_table(runs, data)}\n")

    curves, pictures = folder / "curves.png", folder / "gallery.png"
    title = f"{' and '.join(NETWORKS)} on {data.title}, seed {seed}"
    plot_comparison(runs, title=title).savefig(curves, dpi=150)
    sample = data.test.sample(2, classes=data.classes, seed=seed)
    said = {n: predict_probabilities(run.model, sample.x) for n, run in runs.items()}
    title = f"Test images of {data.title}: the class, and what each network says"
    shown = gallery(sample.x, sample.y, said, data.labels, title=title, columns=5)
    shown.savefig(pictures, dpi=150)
    show(f"Pictures: {curves} and {pictures}\n")

    show("5. Export: a SavedModel that a server loads\n")
    run = runs["lecture_cnn"]
    version = export(run, folder / "served" / "lecture_cnn")
    difference = check_in_fresh_process(version, sample.x, said["lecture_cnn"])
    if difference > TOLERANCE:
        raise RuntimeError(
            f"{version} answers differently from the trained network, by "
            f"{difference:.2g}: more than {TOLERANCE:g}; keep the folder and report it"
        )
    first = answers(version, sample.x[:1])
    answer, confidence = first["label"][0], max(first["probabilities"][0])
    show(
        f"{version}: loaded in a new process that has only TensorFlow, it gives\n"
        f"the same {len(sample)} answers (largest difference {difference:.1e}). Asked "
        f"about a picture of\n"
        f"class {data.labels[sample.y[0]]}, it says {answer} ({confidence:.0%}).\n"
    )
    seconds = time.perf_counter() - start
    show(_next_steps(seconds, run.folder, version))
    return {
        "test_accuracy": {n: r.metrics["test_accuracy"] for n, r in runs.items()},
        "per_class": {n: r.metrics["per_class"] for n, r in runs.items()},
        "runs": {n: str(r.folder) for n, r in runs.items()},
        "pictures": [str(curves), str(pictures)],
        "version": str(version),
        "largest_difference": difference,
        "seconds": seconds,
    }


def _next_steps(seconds: float, run: Path, version: Path) -> str:
    steps = {
        f"kerascnn predict {run} IMAGE.png": "ask the trained network",
        "kerascnn summary lecture_cnn": "where the 33,120 parameters are",
        "kerascnn models": "every network of the zoo",
        "kerascnn data": "is CIFAR-10 here, and how to get it",
        "kerascnn train lecture_cnn --data cifar10": "real photographs",
        "kerascnn train lecture_cnn --data FOLDER": "your images, a folder a class",
        "python tutorials/07_architecture.py": "the lecture, step by step",
        "tensorflow_model_server --rest_api_port=8501 --model_name=lecture_cnn "
        f"--model_base_path={version.parent.resolve()}": "serve it, where you have it",
    }
    lines = [f"  {command}\n      {why}" for command, why in steps.items()]
    return "\n".join([f"Done in {seconds:.0f} s. What to try next:", *lines])


def accuracy_table(runs: dict, data) -> Table:
    """Return the accuracies of some runs side by side, in all and for each class."""
    shown = [Column(name, name, lambda value: f"{value:.1f}") for name in runs]
    measured = {name: run.metrics for name, run in runs.items()}
    rows = [
        {"class": label, **{n: m["per_class"][label] for n, m in measured.items()}}
        for label in data.labels
    ]
    rows += [{"class": "all", **{n: m["test_accuracy"] for n, m in measured.items()}}]
    told = ", ".join(
        f"{n}: {runs[n].config['model']['parameters']:,} parameters, "
        f"{m['epochs']} epochs, {m['seconds']:.0f} s"
        for n, m in measured.items()
    )
    images = f"{data.title}, {len(data.test):,} images"
    notes = [f"Test accuracy in percent on {images}; {told}"]
    return Table([Column("class", "class", right=False), *shown], rows, notes=notes)
