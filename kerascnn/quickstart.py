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

    Everything is written to `folder`; `show` is called with each part of the report;
    `overrides` are values of both recipes, such as `epochs=1`. Returns what was
    measured and written; RuntimeError where the exported network answers differently.
    """
    start, folder = time.perf_counter(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    show(f"1. Two networks for the same images\n\n{compare(*NETWORKS)}\n")
    data = load_data("shapes")
    show(f"2. The images: {data}\n")

    show("3. Training: the same images, each by its own quick recipe\n")
    runs, overrides = {}, {"seed": seed, "runs": folder / "runs", **overrides}
    for name in NETWORKS:
        show(f"{name}:")
        runs[name] = train(name, data, "quick", **overrides)
        show("")

    show("4. What they reached, on images that neither has seen\n")
    show(f"{_accuracies(runs, data)}\n")
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
        told = f"by {difference:.2g}, from the trained network: please report it"
        raise RuntimeError(f"{version} answers differently, {told}")
    (answer,) = answers(version, sample.x[:1])
    show(
        f"{version}: loaded in a new process that has only TensorFlow, it gives\nthe "
        f"same {len(sample)} answers (largest difference {difference:.1e}). Asked\n"
        f"about {data.labels[sample.y[0]]}, it says {answer.top(1)}.\n"
    )
    seconds = time.perf_counter() - start
    steps = {
        f"kerascnn predict {run.folder} IMAGE.png": "ask the trained network",
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
    show("\n".join([f"Done in {seconds:.0f} s. What to try next:", *lines]))
    measured = ("test_accuracy", "per_class")
    return {
        **{key: {n: r.metrics[key] for n, r in runs.items()} for key in measured},
        "runs": {n: str(r.folder) for n, r in runs.items()},
        "pictures": [str(curves), str(pictures)],
        "version": str(version),
        "largest_difference": difference,
        "seconds": seconds,
    }


def _accuracies(runs: dict, data) -> Table:
    """The accuracies of the runs side by side, for each class and in all."""
    columns = [Column("class", "class", right=False)]
    rows = [{"class": label} for label in [*data.labels, "all"]]
    notes = [f"Test accuracy in percent on {data.title}, {len(data.test):,} images"]
    for name, run in runs.items():
        columns.append(Column(name, name, "{:.1f}".format))
        found = {**run.metrics["per_class"], "all": run.metrics["test_accuracy"]}
        for row in rows:
            row[name] = found[row["class"]]
        count, epochs = run.config["model"]["parameters"], run.metrics["epochs"]
        cost = f"{epochs} epochs, {run.metrics['seconds']:.0f} s"
        notes.append(f"{name}: {count:,} parameters, {cost}")
    return Table(columns, rows, notes=notes)
