"""What a run folder says of a training: its settings before, its results after."""

import io
import os
from pathlib import Path

from kerascnn.data import Data
from kerascnn.summary import summarize
from kerascnn.training import checkpoint
from kerascnn.training.curves import plot_history
from kerascnn.training.epochs import Epochs, best_epoch
from kerascnn.training.evaluate import evaluate
from kerascnn.training.network import answering_model, logits_model
from kerascnn.training.recipe import Recipe
from kerascnn.training.run import (
    Run,
    commit,
    hardware,
    read_json,
    versions,
    write_file,
    write_json,
    writing,
)


def describe(folder, model, data, recipe, seed, place, precision, universum) -> None:
    """Write what a run folder says of a training before it begins."""
    write_file(folder / "architecture.json", model.to_json())
    answers = answering_model(model, logits_model(model)[0], data, recipe)
    summary = summarize(answers).to_text(width=160, ascii=False)
    write_file(folder / "summary.txt", summary + "\n")
    write_json(
        folder / "config.json",
        {
            "model": {"name": model.name, "parameters": model.count_params()},
            "data": {
                "name": data.name,
                "origin": data.origin,
                "title": data.title,
                "fingerprint": data.fingerprint,
                "input_shape": list(data.input_shape),
                "labels": list(data.labels),
                "train": len(data.train),
                "validation": len(data.validation),
                "test": len(data.test),
            },
            **({"universum": universum.describe()} if universum else {}),
            "recipe": vars(recipe),
            "precision": precision,
            "seed": seed,
            **place.describe(),
            "versions": versions(),
            "hardware": hardware(),
            "commit": commit(),
        },
    )


def measure(model, data: Data, recipe: Recipe, epochs: Epochs, folder: Path) -> Run:
    """Read the test images, once, and write what the run folder keeps."""
    history = epochs.history
    result = single = evaluate(model, data.test, labels=data.labels)
    if recipe.views > 1 or recipe.passes > 1:
        result = evaluate(
            model,
            data.test,
            labels=data.labels,
            views=recipe.views,
            passes=recipe.passes,
        )
    seconds = sum(row["seconds"] for row in history)
    metrics = {
        "test_accuracy": result.accuracy,
        "test_interval": list(result.interval),
        "test_images": result.images,
        "test_loss": result.loss,
        "calibration_error": result.calibration_error,
        "per_class": result.per_class,
        "epochs": len(history),
        "seconds": seconds,
        "images_per_second": len(data.train) * len(history) / seconds,
        "stopped_early": len(history) < recipe.epochs,
    }
    if result is not single:
        metrics["test_accuracy_averaged"] = result.accuracy
        metrics["test_accuracy_single"] = single.accuracy
    if len(data.validation):
        kept = evaluate(model, data.validation, labels=data.labels)
        metrics["validation_accuracy"] = kept.accuracy
        metrics["best_epoch"] = best_epoch(history)
    config = read_json(folder / "config.json")
    temporary = folder / ".model.part.keras"  # Keras asks for the ending
    with writing(folder / "model.keras", temporary):
        model.save(temporary)
        os.replace(temporary, folder / "model.keras")
    title = f"{model.name} on {data.title}, seed {config['seed']}"
    picture = io.BytesIO()
    plot_history(history, title=title).savefig(picture, dpi=150)
    write_file(folder / "curves.png", picture.getbuffer())
    # The metrics come last: with them the run is finished.
    write_json(folder / "metrics.json", metrics)
    checkpoint.remove(folder)
    return Run(folder, model.name, config, history, metrics, data.labels, _model=model)
