"""From run folders to a card: results and weights that ship are written by this."""

import hashlib
import statistics
from pathlib import Path

import keras

import zoo
from kerascnn.data import load_data
from kerascnn.training import Run, evaluate, load_run, recipe_for
from zoo.pretrained import read_weights, write_weights

LARGEST = 12_000_000  # bytes of a weights file that ships


def record(
    folders, zoo_folder: Path | None = None, *, recipe: str, keep_weights: bool = False
) -> dict:
    """Write the mean of some runs to their network's card, and the best one's weights.

    The weights that ship are those of the run with the best validation accuracy of all
    that were recorded, where they take at most 12 MB. They are rounded to float16, and
    the accuracy on the card's `weights` is measured anew with the rounded ones, on one
    view of each image in one pass.

    Results and weights of another copy of the same data, whose pixels differ, go: their
    figures cannot stand beside the new ones.

    Args:
        folders: finished runs of one network on one data set by one recipe, which
            differ in the seed.
        zoo_folder: where the cards lie; default: those of this installation.
        recipe: name of the recipe on the card that the runs followed.
        keep_weights: write the result alone. The filters of `lecture_cnn` that ship
            are described in the tutorials.

    Returns the result that was written. Raises ValueError where the runs differ in more
    than the seed, or followed another recipe.
    """
    import tomlkit

    runs = [load_run(folder) for folder in folders]
    if not runs:
        raise ValueError("record needs finished run folders; received none")
    zoo_folder = zoo_folder or Path(zoo.__file__).parent
    result = _result(runs, recipe)
    name = runs[0].name
    path = zoo_folder / f"{zoo.card(name).family}.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    table = document[name]
    same = ("data", "recipe", "hardware")
    old = [dict(row) for row in table.get("results", [])]
    others = {
        row["fingerprint"]
        for row in old
        if row["data"] == result["data"] and row["fingerprint"] != result["fingerprint"]
    }
    kept = [
        row
        for row in old
        if row["fingerprint"] not in others and any(row[k] != result[k] for k in same)
    ]
    results = tomlkit.aot()
    results.extend(tomlkit.item(row) for row in [*kept, result])
    table.pop("results", None)
    if not keep_weights:
        shipped = table.get("weights", {})
        if shipped.get("fingerprint") in others:
            shipped = {}
        if weights := _ship(runs, zoo_folder / "weights", shipped):
            table["weights"] = weights
    table["results"] = results
    if name != list(document)[-1]:
        results[-1].add(tomlkit.nl())  # before the next network's table
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return result


def _result(runs: list[Run], recipe: str) -> dict:
    first = runs[0].config
    name = runs[0].name
    wanted = vars(recipe_for(name, recipe))
    for run in runs:
        config = run.config
        for key in ("model", "data", "recipe", "versions", "hardware"):
            if config[key] != first[key]:
                raise ValueError(
                    f"{run.folder} and {runs[0].folder} differ in {key}; record runs "
                    "that differ in the seed alone"
                )
        for key, value in config["recipe"].items():
            if (tuple(value) if isinstance(value, list) else value) != wanted[key]:
                raise ValueError(
                    f"{run.folder} did not follow the recipe {recipe!r} of {name}: "
                    f"{key} is {value}, the card says {wanted[key]}"
                )
    seeds = [run.config["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"runs with the same seed are one result; received {seeds}")
    accuracies = [run.metrics["test_accuracy"] for run in runs]
    # One run has no spread.
    spread = round(statistics.stdev(accuracies), 3) if len(runs) > 1 else None
    versions = first["versions"]
    return {
        "data": first["data"]["name"],
        "data_title": first["data"]["title"],
        "fingerprint": first["data"]["fingerprint"],
        "recipe": recipe,
        "accuracy_mean": round(statistics.mean(accuracies), 3),
        **({} if spread is None else {"accuracy_std": spread}),
        "accuracies": [round(a, 3) for a in accuracies],
        "seeds": seeds,
        "epochs": runs[0].metrics["epochs"],
        "seconds": round(statistics.mean(run.metrics["seconds"] for run in runs)),
        "hardware": first["hardware"],
        "precision": first["precision"],
        "versions": f"keras {versions['keras']}, {versions['backend']} "
        f"{versions[versions['backend']]}",
        "commit": first["commit"] or "",
    }


def _ship(runs: list[Run], folder: Path, shipped: dict) -> dict:
    """Write the best run's weights, unless they are large or better ones ship.

    What ships is not replaced by weights that were trained on other data. Returns what
    the card says of the new ones, empty where nothing was written.
    """
    best = max(runs, key=_validation_accuracy)
    if best.config["recipe"].get("universum") == "dustbin":
        return {}  # its network has one class more than the builder's
    if shipped and (
        shipped["fingerprint"] != best.config["data"]["fingerprint"]
        or shipped["validation_accuracy"] >= _validation_accuracy(best)
    ):
        return {}
    file = folder / f"{best.name}.npz"
    temporary = folder / f".{best.name}.part.npz"
    folder.mkdir(exist_ok=True)
    try:
        write_weights(best.model, temporary)
        if temporary.stat().st_size > LARGEST:
            return {}
        data = load_data(**best.config["data"]["origin"])
        if data.fingerprint != best.config["data"]["fingerprint"]:
            raise ValueError(
                f"{data.title} has fingerprint {data.fingerprint}, {best.folder} was "
                f"trained on {best.config['data']['fingerprint']}"
            )
        # The rounded weights, as `zoo.load` gives them; a network that draws at
        # inference draws by the run's seed.
        keras.utils.set_random_seed(best.config["seed"])
        options = best.config["recipe"].get("options", {})
        model = zoo.build(best.name, **options)
        read_weights(model, temporary)
        rounded = evaluate(model, data.test)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "validation_accuracy": round(_validation_accuracy(best), 3),
        "accuracy": round(rounded.accuracy, 3),
        "data_title": best.config["data"]["title"],
        "fingerprint": best.config["data"]["fingerprint"],
        "seed": best.config["seed"],
        "labels": list(best.labels),
        **({"options": options} if options else {}),
    }


def _validation_accuracy(run: Run) -> float:
    return run.metrics.get("validation_accuracy", 0.0)
