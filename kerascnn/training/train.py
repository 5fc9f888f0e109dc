"""The shared training routine: any network, any images, one recipe."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import zoo
from kerascnn.data import Augmentation, Data, Images, load_data
from kerascnn.training import checkpoint
from kerascnn.training.epochs import Epochs, TrainingDivergedError
from kerascnn.training.evaluate import measure
from kerascnn.training.feed import make_feed
from kerascnn.training.initialization import adapt_layers, lsuv, measure_statistics
from kerascnn.training.network import (
    answering_model,
    borrowed,
    check_fit,
    check_options,
    compile_model,
    data_for,
    fused_layers,
    logits_model,
)
from kerascnn.training.optimizers import resolve_precision
from kerascnn.training.recipe import Recipe, recipe_for
from kerascnn.training.run import (
    Run,
    check_savable,
    describe,
    load_run,
    locked,
    make_folder,
    read_json,
    write_file,
)
from kerascnn.training.strategy import open_place
from kerascnn.training.universum import open_universum, reopen_universum

__all__ = ["TrainingDivergedError", "resume", "train"]

SAMPLE = 5_000  # streamed images that layers are adapted and weights scaled on


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

    On several devices or hosts the recipe's batch is divided among all of them, and
    the weights become those of one device, but for rounding. With TensorFlow that
    holds for networks without batch normalisation and dropout, which work on each
    device by itself there; and where a batch does not divide, what it is filled up
    with counts in the history's training loss and accuracy as if the batch were that
    large. Validation and test are on one device.

    Args:
        model: a name of the zoo, or a built Keras model from images (N, height, width,
            channels), pixels 0…255, to one probability or logit a class. A model is
            trained in place, from the weights that it has. In a named network the
            layers with a method `adapt` (`keras.layers.Normalization`) are adapted to
            the first 5,000 training images; in a model of yours that is up to you.
        data: a `Data`, or what `load_data` takes: "shapes", "cifar10", a folder.
        recipe: name of a recipe on the network's card, a dict, or a `Recipe`.
        seed: of the weights, the order of the images, augmentation and dropout.
        folder: a new folder for the run; default `<runs>/<model>-<data>-<number>`.
        runs: where default folders are made.
        options: further arguments of the zoo's builder, above those of the recipe.
        progress: show a line an epoch and the time left, on standard error.
        callbacks: further Keras callbacks; at the end of an epoch their logs hold
            the validation figures and the learning rate.
        universum_data: with the recipe's `universum`, the unlabelled images: a `Data`,
            whose training images are taken, `Images`, a uint8 array (N, height, width,
            channels), or what `load_data` takes, which the recipe can name as well.
            The history's loss is of all training samples, its accuracy of the labelled
            ones alone; validation and test are as ever. With universum=dustbin a
            network is built with one class more, and a model of yours has to have one
            more; the network of the run answers with the others.
        devices: devices to train on, of each host: through keras.distribution with
            JAX, tf.distribute.MirroredStrategy with TensorFlow.
        hosts: addresses of all machines, "a:1234,b:1234" or a sequence, that run this
            same call, each with its `host_id`; JAX only. Each needs the data; the run
            folder, progress, validation and test are those of host 0. Where a host
            fails, the others end too.
        host_id: which of `hosts` this process is, from 0. A program that computes with
            Keras before calls `kerascnn.training.connect` first.
        **overrides: single values of the recipe, such as `epochs=5`.

    Returns:
        The finished run. `metrics["test_accuracy"]` and what goes with it are by the
        recipe's own protocol, its `views` and `passes`; where these average,
        `test_accuracy_averaged` repeats the accuracy and `test_accuracy_single` is
        that of one pass of the images as they are. Validation figures are of one pass.
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
    check_options(model, options or {})  # wrong names are told before images are read
    if isinstance(universum_data, str | os.PathLike):
        overrides["universum_data"], universum_data = str(universum_data), None
    recipe = recipe_for(model if named else model.name, recipe).replace(**overrides)
    if recipe.options and not named:
        raise ValueError(
            f"the recipe builds {model.name} with {recipe.options}, which a model that "
            "is given has or has not: train it by its name, or by a recipe without, "
            "recipe_for(name, recipe).replace(options={})"
        )
    check_options(model, recipe.options)
    options = {**recipe.options, **(options or {})}
    recipe = recipe.replace(options=options)
    if recipe.initialization and not named:
        raise ValueError(
            f"a model that is given, {model.name}, is trained from the weights that it "
            "has: call kerascnn.lsuv(model, data.train) before, and train it with "
            f'initialization=""; received initialization={recipe.initialization!r}'
        )
    data = data if isinstance(data, Data) else data_for(model, data)
    universum = open_universum(recipe, data, universum_data)
    keras.utils.set_random_seed(seed)
    if named:
        classes = data.classes + (recipe.universum == "dustbin")
        model = zoo.build(model, data.input_shape, classes, **options)
    check_fit(model, data, recipe)
    if named:
        sample = data.train
        if not isinstance(sample, Images):
            sample = sample.take(SAMPLE, seed=seed)
        adapt_layers(model, sample.x)
        if recipe.initialization == "lsuv":
            lsuv(model, sample, seed=seed)
    else:
        check_savable(model)
    precision = resolve_precision(recipe.precision)
    common = place.agree({"precision": precision, "data": data.fingerprint})
    if common["data"] != data.fingerprint:
        raise ValueError(
            f"the hosts have different data: {data.title} has fingerprint "
            f"{data.fingerprint} on host {place.host}, {common['data']} on host 0"
        )
    network = answering_model(model, data, recipe)
    config, files = describe(
        model, network, data, recipe, seed, place, common["precision"], universum
    )
    if place.first:
        folder = make_folder(folder, runs, f"{model.name}-{data.name}")
    else:
        folder = None
    with locked(folder):
        for name, content in files.items() if folder else ():
            write_file(folder / name, content)
        return _run(
            model,
            data,
            recipe,
            config,
            folder,
            place,
            universum,
            progress,
            callbacks,
            test=test,
        )


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
        folder: the run folder; read on host 0 alone.
        data: the same data as before; needed where the run was given a `Data` that
            `load_data` had not made.
        progress: as in `train`.
        callbacks: as in `train`.
        universum_data: the same unlabelled images as before; needed where they were
            not made by `load_data`.
        devices: as in `train`; None for as many as before. On another number the
            result is the same but for rounding, as told there.
        hosts: as in `train`; they are not kept in the folder.
        host_id: as in `train`.

    Returns:
        The finished run; a run that had finished is returned as it is. None on another
        host than host 0.

    Raises:
        FileNotFoundError: the folder is not a run folder.
        ValueError: the data is not the same as before, or the folder is damaged. Where
            the last saved state is damaged and the one before is not, there is a
            RuntimeWarning, and the training continues from that one.
        FolderInUseError: another process trains in the folder.
    """
    place = open_place(1, hosts, host_id)  # connects; who has the folder says the rest
    folder = Path(folder) if place.first else None
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}; nothing to continue")
    with locked(folder):
        state, saved = {}, b""
        if folder:
            state["finished"] = (folder / "metrics.json").exists()
            if not state["finished"]:
                saved = checkpoint.read(folder)
                state["config"] = read_json(folder / "config.json")
                state["model"] = read_json(folder / "architecture.json")
        state = place.agree(state)
        if state["finished"]:
            if folder is None:
                return None
            checkpoint.remove(folder)
            return load_run(folder)
        saved = bytes(place.broadcast(saved))
        config, before = state["config"], state["config"]["data"]
        if devices is None:
            devices = config.get("devices", 1)
        place = open_place(devices, hosts, place.host)
        if data is None and not before["origin"]:
            raise ValueError(
                f"{folder} was trained on {before['title']}, which load_data had not "
                "made; give the same data again: resume(folder, data=data)"
            )
        if not isinstance(data, Data):
            data = load_data(**(before["origin"] if data is None else {"source": data}))
        if data.fingerprint != before["fingerprint"]:
            raise ValueError(
                f"the data is not the same as before: {data.title} has fingerprint "
                f"{data.fingerprint}, the run was started on {before['title']}, "
                f"{before['fingerprint']}"
            )
        import zoo.layers  # noqa: F401  (registers the layers with Keras)

        model = keras.models.model_from_json(json.dumps(state["model"]))
        recipe = recipe_for(None, config["recipe"])
        check_fit(model, data, recipe)
        universum = reopen_universum(
            recipe, data, config.get("universum"), universum_data
        )
        return _run(
            model,
            data,
            recipe,
            config,
            folder,
            place,
            universum,
            progress,
            callbacks,
            saved=saved,
        )


def _run(
    model,
    data,
    recipe,
    config,
    folder,
    place,
    universum,
    progress,
    callbacks,
    *,
    saved=None,
    test=True,
) -> Run | None:
    """Train until the end of the recipe, then measure and write the results."""
    if progress and folder:
        told = f"{model.name} on {data.title}: {folder}"
        print(told, file=sys.stderr, flush=True)
    ends, heads = logits_model(model)
    feed = make_feed(
        data.train,
        1 if heads[0].units == 1 else data.classes,
        recipe.batch_size,
        seed=config["seed"],
        augmentation=Augmentation(
            recipe.flip,
            recipe.crop,
            recipe.crop_padding,
            recipe.cutout,
            recipe.affine,
            recipe.color,
        ),
        alternate_flip=recipe.alternate_flip,
        outputs=len(heads),
        plain_from=recipe.epochs - recipe.plain_epochs,
        universum=universum,
        place=place,
    )
    judged = universum.labelled(ends) if universum else ends
    with place.scope():
        trained = place.spread(model, ends)
        if universum:
            trained = universum.extend(trained)
        trained.sizes = place.sizes(len(data.train), recipe.batch_size)
    with (
        borrowed(trained, config["precision"]),
        borrowed(ends, config["precision"]),
        fused_layers(trained),
    ):
        with place.scope():
            compile_model(trained, heads, recipe, universum, place, len(feed))
        if judged is not trained:
            compile_model(judged, heads, recipe, None)
        epochs = Epochs(folder, data, recipe, feed, place)
        epochs.begin(trained, judged, saved)
        try:
            epochs.run(progress, callbacks)
        except KeyboardInterrupt:
            if not folder:
                raise
            raise KeyboardInterrupt(
                f"interrupted; continue with kerascnn train --resume {folder}"
            ) from None
    run = None
    if folder:
        if recipe.statistics:
            measure_statistics(
                model, data.train, recipe.statistics, recipe.batch_size, config["seed"]
            )
        network = answering_model(model, data, recipe)
        history = epochs.history
        if test:
            run = measure(network, data, recipe, config, history, folder)
        else:
            labels = data.labels
            run = Run(folder, network.name, config, history, {}, labels, network)
    place.broadcast(b"")  # the hosts end together
    return run
