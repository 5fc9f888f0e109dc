"""The shared training routine: any network, any images, one recipe.

It reads as what happens on one device: a recipe, images and a network are checked and
described in a folder (`train`), trained (`train_epochs`) and measured (`measure`).
"""

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras

import zoo
from kerascnn.data import Data, load_data
from kerascnn.environment import resolve_precision
from kerascnn.training import checkpoint
from kerascnn.training.epochs import TrainingDivergedError, train_epochs
from kerascnn.training.evaluate import measure
from kerascnn.training.initialization import prepare
from kerascnn.training.network import check_fit, check_savable, data_for, describe
from kerascnn.training.recipe import Recipe, recipe_for, settle_recipe
from kerascnn.training.run import Run, load_run, locked, new_run, read_json
from kerascnn.training.strategy import open_place
from kerascnn.training.universum import open_universum

__all__ = ["TrainingDivergedError", "resume", "train"]


def train(
    model: str | keras.Model,
    data: Any = "shapes",
    recipe: str | dict | Recipe = "default",
    *,
    seed: int = 0,
    folder: str | os.PathLike | None = None,
    runs: str | os.PathLike = "runs",
    options: dict | None = None,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    universum_data: Any = None,
    devices: int = 1,
    hosts: str | Sequence[str] = (),
    host_id: int = 0,
    test: bool = True,
    **overrides: Any,
) -> Run | None:
    """Train a network and keep everything about it in a run folder.

    Decisions (the best epoch, early stopping) are made on the validation images; the
    test images are read once, at the end.

    Args:
        model: a name of the zoo, or a built Keras model from images (N, height, width,
            channels), pixels 0…255, to a probability or logit a class, or one unit for
            two classes. It is trained in place, from the weights that it has; layers
            with a method `adapt` are adapted in a named network alone.
        data: a `Data`, or what `load_data` takes: "shapes", "cifar10", a folder.
        recipe: name of a recipe on the network's card, a dict, or a `Recipe`.
        seed: of the weights, the order of the images, augmentation and dropout.
        folder: a new folder for the run; default `<runs>/<model>-<data>-<number>`.
        runs: where default folders are made.
        options: further arguments of the zoo's builder, above those of the recipe.
        progress: show a line an epoch and the time left, on standard error.
        callbacks: further Keras callbacks; at the end of an epoch their logs hold
            the validation figures and the learning rate.
        universum_data: the unlabelled images of a recipe with `universum`: what
            `load_data` takes, a `Data`, `Images` or uint8 (N, height, width, channels).
        devices: devices to train on, of each host; see `kerascnn.training.strategy`.
        hosts: addresses of all machines that run this same call, "a:1234,b:1234"; JAX
            only. Each needs the data; host 0 keeps the run folder.
        host_id: which of `hosts` this process is, from 0.
        test: False to leave the test images for `resume`.
        **overrides: single values of the recipe, such as `epochs=5`.

    Returns the finished run, its test figures by the recipe's `views` and `passes`;
    None on another host than host 0.

    Raises:
        ValueError: unknown name, recipe or value; model and data do not fit; fewer
            devices are there.
        DataError: streamed images are missing or damaged.
        FileExistsError: `folder` is there already.
        OSError: the run folder cannot be written; what was saved is kept.
        TrainingDivergedError: the loss became infinite or not a number.
    """
    place = open_place(devices, hosts, host_id)
    named = isinstance(model, str)
    if isinstance(universum_data, str | os.PathLike):
        overrides["universum_data"], universum_data = str(universum_data), None
    recipe = settle_recipe(model, recipe, options or {}, overrides)
    data = data if isinstance(data, Data) else data_for(model, data)
    universum = open_universum(recipe, data, universum_data)
    keras.utils.set_random_seed(seed)
    if named:
        classes = data.classes + (recipe.universum == "dustbin")
        model = zoo.build(model, data.input_shape, classes, **recipe.options)
    check_fit(model, data, recipe)
    if named:
        prepare(model, data, recipe, seed)
    else:
        check_savable(model)
    precision = resolve_precision(recipe.precision)
    if place.replicas > 1:
        precision = place.agree_on(data, precision)
    config, files = describe(model, data, recipe, seed, place, precision, universum)
    name = f"{model.name}-{data.name}"
    new = new_run(folder, runs, name, config, files)
    with new if place.first else nullcontext() as folder:
        training = (model, data, recipe, config, folder, place, universum)
        return _run(training, progress, callbacks, test=test)


def resume(
    folder: str | os.PathLike,
    *,
    data: Any = None,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    universum_data: Any = None,
    devices: int | None = None,
    hosts: str | Sequence[str] = (),
    host_id: int = 0,
) -> Run | None:
    """Continue an interrupted training to what it would have been without the break.

    Args:
        folder: the run folder; read on host 0 alone. A finished run is returned.
        data: the same data as before, where `load_data` had not made it.
        progress: as in `train`, as are callbacks, hosts and host_id.
        universum_data: the same unlabelled images, where `load_data` had not made them.
        devices: None for as many as before; the result is the same but for rounding.

    Returns the finished run; None on another host than host 0.

    Raises:
        FileNotFoundError: the folder is not a run folder.
        ValueError: the data is not the same, or the folder is damaged. Where only the
            last saved state is, a RuntimeWarning tells, and the one before is taken.
        FolderInUseError: another process trains in the folder.
    """
    place = open_place(1, hosts, host_id)  # connects; who has the folder says the rest
    folder = Path(folder) if place.first else None
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}; nothing to continue")
    finished = folder and (folder / "metrics.json").exists()  # then nothing is written
    with locked(None if finished else folder):
        done = bool(folder and (folder / "metrics.json").exists())
        if place.agree({"done": done})["done"]:
            if folder:
                checkpoint.remove(folder)
            return load_run(folder) if folder else None
        saved = bytes(place.broadcast(checkpoint.read(folder) if folder else b""))
        names = ("config.json", "architecture.json") if folder else ()
        config, layers = place.agree([read_json(folder / name) for name in names])
        before = config["data"]
        if devices is None:
            devices = config.get("devices", 1)
        place = open_place(devices, hosts, place.host)
        if data is None and not before["origin"]:
            told = "load_data had not made; give it again: resume(folder, data=data)"
            raise ValueError(f"{folder} was trained on {before['title']}, which {told}")
        if not isinstance(data, Data):
            moved = {} if data is None else {"source": data}
            data = load_data(**before["origin"] | moved)
        # The fingerprint is that of all images; the others tell which are held out.
        now = data.fingerprint, len(data.train), data.origin.get("seed", 0)
        then = before["fingerprint"], before["train"], before["origin"].get("seed", 0)
        if now != then:
            told = f"fingerprint, training images and seed of {data.title} are {now}, "
            told += f"the run was started on {before['title']}, {then}"
            raise ValueError(f"the data is not the same as before: {told}")
        model = keras.models.model_from_json(json.dumps(layers))
        recipe = recipe_for(None, config["recipe"])
        check_fit(model, data, recipe)
        before = config.get("universum")
        universum = open_universum(recipe, data, universum_data, before)
        training = (model, data, recipe, config, folder, place, universum)
        return _run(training, progress, callbacks, saved)


def _run(training, progress, callbacks, saved=None, test=True) -> Run | None:
    """Train a network, and measure it and write the results on host 0."""
    *described, folder, place, _ = training
    try:
        history = train_epochs(*training, progress, callbacks, saved)
        run = measure(*described, history, folder, test) if folder else None
    except KeyboardInterrupt:
        if not folder or not (folder / checkpoint.NAME).exists():
            raise
        told = f"interrupted; continue with kerascnn train --resume {folder}"
        raise KeyboardInterrupt(told) from None
    if place.hosts > 1:
        place.broadcast(b"")  # the hosts end together
    return run
