"""From run folders to a card: results and weights that ship are written by this."""

import hashlib
import math
import statistics
from pathlib import Path

import keras

import zoo
from kerascnn.data import load_data
from kerascnn.training import Run, evaluate, load_run, recipe_for
from kerascnn.training.run import write_file
from zoo.pretrained import read_weights, write_weights

LARGEST = 12_000_000  # bytes of a weights file that ships


def record(
    folders, zoo_folder: Path | None = None, *, recipe: str, keep_weights: bool = False
) -> dict:
    """Write the mean of some runs to their network's card, and the best one's weights.

    `folders` are finished runs by one `recipe` of the card, which differ in the seed
    alone; `zoo_folder` has the cards. The weights that ship are those of the best
    validation accuracy ever recorded; of runs that held no image out, those of the
    first seed, in the place of the same recipe's; all replace those of another copy of
    the data. They take at most 12 MB, are rounded to float16, and measured anew.

    Returns the result that was written; ValueError where the runs are not of one kind.
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
    old = [dict(row) for row in table.pop("results", [])]
    # Figures on other pixels, of another copy of the data, cannot stand beside these.
    copies = {row["fingerprint"] for row in old if row["data"] == result["data"]}
    others = copies - {result["fingerprint"]}
    same = ("data", "recipe", "train_images")
    results = tomlkit.aot()
    for row in old:
        anew = all(row.get(key) == result.get(key) for key in same)
        if row["fingerprint"] not in others and not anew:
            results.append(tomlkit.item(row))
    results.append(tomlkit.item(result))
    if not keep_weights:
        shipped = table.get("weights", {})
        if shipped.get("fingerprint") in others:
            shipped = {}
        if weights := _ship(runs, zoo_folder / "weights", shipped, recipe):
            table["weights"] = weights
    table["results"] = results
    if name != list(document)[-1]:
        results[-1].add(tomlkit.nl())  # before the next network's table
    write_file(path, tomlkit.dumps(document))
    return result


def _result(runs: list[Run], recipe: str) -> dict:
    first, name = runs[0].config, runs[0].name
    wanted = vars(recipe_for(name, recipe))
    for run in runs:
        for key in ("model", "data", "recipe", "versions", "hardware"):
            if run.config[key] != first[key]:
                these = f"{run.folder} and {runs[0].folder}"
                raise ValueError(f"{these} differ in {key}, not in the seed alone")
    for key, value in first["recipe"].items():
        if (tuple(value) if isinstance(value, list) else value) != wanted[key]:
            raise ValueError(
                f"{runs[0].folder} did not follow the recipe {recipe!r} of {name}: "
                f"{key} is {value}, the card says {wanted[key]}"
            )
    seeds = [run.config["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"runs with the same seed are one result; received {seeds}")
    accuracies = [run.metrics["test_accuracy"] for run in runs]
    # One run has no spread.
    spread = round(statistics.stdev(accuracies), 3) if len(runs) > 1 else None
    versions, data = first["versions"], first["data"]
    split = data["origin"].get("validation", 0)  # None: a tenth was held out
    return {
        "data": data["name"],
        "data_title": data["title"],
        "fingerprint": data["fingerprint"],
        **({} if split is None else {"train_images": data["train"]}),
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


def _ship(runs: list[Run], folder: Path, shipped: dict, recipe: str) -> dict:
    """Write the best weights; return their part of the card, empty if others stay."""
    by_seed = {run.config["seed"]: run for run in runs}
    reached = {n: r.metrics.get("validation_accuracy") for n, r in by_seed.items()}
    judged = None not in reached.values()
    seed = max(reached, key=reached.get) if judged else min(reached)
    best, used = by_seed[seed], by_seed[seed].config["data"]
    if best.config["recipe"].get("universum") == "dustbin":
        return {}  # its network has one class more than the builder's
    if shipped:
        # Nothing tells which is better of a network that was judged on held-out images
        # and one that was trained on them; of one recipe the latter saw more.
        stays = shipped.get("recipe") != recipe
        if judged:
            stays = shipped.get("validation_accuracy", math.inf) >= reached[seed]
        if stays or shipped["fingerprint"] != used["fingerprint"]:
            return {}
    file = folder / f"{best.name}.npz"
    temporary = folder / f".{best.name}.part.npz"
    folder.mkdir(exist_ok=True)
    try:
        write_weights(best.model, temporary)
        if temporary.stat().st_size > LARGEST:
            return {}
        data = load_data(**used["origin"])
        if data.fingerprint != used["fingerprint"]:
            told = f"{best.folder} was trained on {used['fingerprint']}"
            raise ValueError(f"{data.title} is {data.fingerprint} now; {told}")
        # A network that draws at inference draws by the run's seed.
        keras.utils.set_random_seed(seed)
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
        "recipe": recipe,
        **({"validation_accuracy": round(reached[seed], 3)} if judged else {}),
        "accuracy": round(rounded.accuracy, 3),
        "data_title": used["title"],
        "fingerprint": used["fingerprint"],
        "seed": seed,
        "labels": list(best.labels),
        **({"options": options} if options else {}),
    }
