"""The shared training routine: any network, any images, one recipe."""

import json
import os
from pathlib import Path

import keras

import zoo
from kerascnn.data import Augmentation, Data, Images, load_data
from kerascnn.training import checkpoint
from kerascnn.training.adaptation import adapt_layers
from kerascnn.training.epochs import Epochs, TrainingDivergedError
from kerascnn.training.feed import make_feed
from kerascnn.training.fused import fused_layers
from kerascnn.training.initialization import lsuv
from kerascnn.training.lock import locked
from kerascnn.training.lookahead import Lookahead
from kerascnn.training.network import (
    answering_model,
    borrowed,
    check_fit,
    logits_model,
    replicate,
)
from kerascnn.training.optimizers import make_optimizer, resolve_precision
from kerascnn.training.progress import TrainingProgress
from kerascnn.training.recipe import recipe_for
from kerascnn.training.results import describe, measure
from kerascnn.training.run import Run, load_run, make_folder, new_folder, read_json
from kerascnn.training.strategy import Place, open_place
from kerascnn.training.universum import (
    LabelledAccuracy,
    open_universum,
    reopen_universum,
)

__all__ = ["TrainingDivergedError", "resume", "train"]

# Steps that Keras runs in one call: fewer returns to Python, same result.
STEPS_PER_CALL = 16
SAMPLE = 5_000  # streamed images that layers are adapted and weights scaled on


def train(
    model,
    data="shapes",
    recipe="default",
    *,
    seed: int = 0,
    folder=None,
    runs="runs",
    options: dict | None = None,
    progress: bool = True,
    callbacks=(),
    universum_data=None,
    devices: int = 1,
    hosts=(),
    host_id: int = 0,
    **overrides,
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
        options: further arguments of the zoo's builder.
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
    if named:
        zoo.builder(model)  # an unknown name and a wrong recipe are told at once
    elif options:
        raise ValueError(
            "options are for the builder of a named network; received a model and "
            f"options={options}"
        )
    if isinstance(universum_data, str | os.PathLike):
        overrides["universum_data"], universum_data = str(universum_data), None
    recipe = recipe_for(model if named else model.name, recipe).replace(**overrides)
    if recipe.initialization and not named:
        raise ValueError(
            f"a model that is given, {model.name}, is trained from the weights that it "
            "has: call kerascnn.lsuv(model, data.train) before, and train it with "
            f'initialization=""; received initialization={recipe.initialization!r}'
        )
    data = data if isinstance(data, Data) else load_data(data)
    universum = open_universum(recipe, data, universum_data)
    keras.utils.set_random_seed(seed)
    if named:
        classes = data.classes + (recipe.universum == "dustbin")
        model = zoo.build(model, data.input_shape, classes, **(options or {}))
    check_fit(model, data, recipe)
    if named or recipe.initialization:
        sample = data.train
        if not isinstance(sample, Images):
            sample = sample.take(SAMPLE, seed=seed)
    if named:
        adapt_layers(model, sample.x)
    if recipe.initialization == "lsuv":
        lsuv(model, sample, seed=seed)
    precision = resolve_precision(recipe.precision)
    common = _agree(place, {"precision": precision, "data": data.fingerprint})
    if common["data"] != data.fingerprint:
        raise ValueError(
            f"the hosts have different data: {data.title} has fingerprint "
            f"{data.fingerprint} on host {place.host}, {common['data']} on host 0"
        )
    options = {
        "place": place,
        "precision": common["precision"],
        "progress": progress,
        "callbacks": callbacks,
        "universum": universum,
    }
    if not place.first:
        return _run(model, data, recipe, seed, None, **options)
    if folder is None:
        folder = new_folder(Path(runs), f"{model.name}-{data.name}")
    else:
        folder = make_folder(Path(folder))
    with locked(folder):
        describe(folder, model, data, recipe, seed, place, precision, universum)
        return _run(model, data, recipe, seed, folder, **options)


def resume(
    folder,
    *,
    data=None,
    progress: bool = True,
    callbacks=(),
    universum_data=None,
    devices: int | None = None,
    hosts=(),
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
    folder = Path(folder)
    place = open_place(1, hosts, host_id)  # connects; who has the folder says the rest
    if not place.first:
        return _resume(
            None, place, data, universum_data, devices, hosts, progress, callbacks
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run folder {folder}; nothing to continue")
    with locked(folder):
        return _resume(
            folder, place, data, universum_data, devices, hosts, progress, callbacks
        )


def _resume(folder, place, data, universum_data, devices, hosts, progress, callbacks):
    """Resume with the lock on the folder held; None for it on another host."""
    state, saved = {}, b""
    if folder:
        state["finished"] = (folder / "metrics.json").exists()
        if not state["finished"]:
            saved = checkpoint.read(folder)
            state["config"] = read_json(folder / "config.json")
            state["model"] = read_json(folder / "architecture.json")
    state = _agree(place, state)
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
            f"{folder} was trained on {before['title']}, which load_data had not made; "
            "give the same data again: resume(folder, data=data)"
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
    universum = reopen_universum(recipe, data, config.get("universum"), universum_data)
    return _run(
        model,
        data,
        recipe,
        config["seed"],
        folder,
        place=place,
        precision=config["precision"],
        progress=progress,
        callbacks=callbacks,
        universum=universum,
        saved=saved,
    )


def _agree(place: Place, value: dict) -> dict:
    """Return what host 0 says."""
    return json.loads(bytes(place.broadcast(json.dumps(value).encode())))


def _run(
    model,
    data,
    recipe,
    seed,
    folder,
    *,
    place,
    precision,
    progress,
    callbacks,
    universum=None,
    saved=None,
) -> Run | None:
    """Train until the end of the recipe, then measure and write the results.

    On one device the model itself is trained. On several a copy is, which lies on all
    of them; the model is what is validated, and has the weights in the end.
    """
    feed = make_feed(
        data.train,
        data.classes,
        recipe.batch_size,
        seed=seed,
        augmentation=Augmentation(
            recipe.flip,
            recipe.crop,
            recipe.crop_padding,
            recipe.cutout,
            recipe.affine,
            recipe.color,
        ),
        alternate_flip=recipe.alternate_flip,
        outputs=len(model.outputs),
        plain_from=recipe.epochs - recipe.plain_epochs,
        universum=universum,
        place=place,
    )
    alone = place.replicas == 1
    ends, from_logits = logits_model(model)
    network = answering_model(model, ends, data, recipe)
    judged = universum.labelled(ends) if universum else ends
    with place.scope():
        trained = ends if alone else replicate(model, place)
        worker = trained
        if universum:
            trained = universum.extend(trained)
        trained.sizes = place.sizes(len(data.train), recipe.batch_size)
    with (
        borrowed(trained, precision),
        borrowed(ends, precision),
        fused_layers(trained),
    ):
        with place.scope():
            _compile(trained, recipe, feed, from_logits, universum)
            trained.optimizer.build(trained.trainable_variables)
            if recipe.lookahead:
                total = recipe.epochs * len(feed)
                trained.lookahead = Lookahead(trained, recipe.lookahead, total)
        if not alone:  # the validation loss contains the l2 of a recipe as well
            pairs = zip(
                worker.trainable_variables, ends.trainable_variables, strict=True
            )
            for own, other in pairs:
                other.regularizer = own.regularizer
        if judged is not trained:
            _compile(judged, recipe, None, from_logits, None)
        epochs = Epochs(folder, data, recipe, feed, place)
        twins = () if alone else (worker, ends)
        epochs.begin(trained, judged, twins=twins, saved=saved)
        _fit(trained, recipe, feed, epochs, place, progress, callbacks)
        epochs.finish()
    run = measure(network, data, recipe, epochs, folder) if folder else None
    place.broadcast(b"")  # the hosts end together
    return run


def _compile(model, recipe, feed, from_logits, universum) -> None:
    """Give a model its loss and accuracy and, with a feed to train on, an optimizer."""
    outputs = len(model.outputs)
    loss = [
        keras.losses.CategoricalCrossentropy(
            from_logits=from_logits, label_smoothing=recipe.label_smoothing
        )
        for _ in range(outputs)
    ]
    first = LabelledAccuracy(universum.classes) if universum else "accuracy"
    accuracy = [[first], *([[]] * (outputs - 1))]
    options = {
        "loss": loss if outputs > 1 else loss[0],
        "loss_weights": list(recipe.loss_weights) or None,
        "metrics": accuracy if outputs > 1 else accuracy[0],
    }
    if feed is not None:
        options["optimizer"] = make_optimizer(recipe, model, len(feed))
        options["steps_per_execution"] = min(STEPS_PER_CALL, len(feed))
        if feed.place.weighted:
            options["weighted_metrics"] = options.pop("metrics")
            # Keras's loop over steps fails under MirroredStrategy.
            options["steps_per_execution"] = 1
            if recipe.clip_norm:
                place = feed.place
                options["optimizer"].clip_together(place.add_up, place.replicas)
    model.compile(**options)


def _fit(trained, recipe, feed, epochs, place, progress, callbacks) -> None:
    """Train the epochs that are left."""
    done = len(epochs.history)
    if done >= recipe.epochs or epochs.should_stop():
        return
    bar = [TrainingProgress(recipe.epochs, done)] if progress and place.first else []
    try:
        with place.fitting():
            trained.fit(
                feed.for_keras(),
                epochs=recipe.epochs,
                initial_epoch=done,
                shuffle=False,  # the feed has its own order
                callbacks=[epochs, *callbacks, *bar],
                verbose=0,
            )
    except Exception:
        if isinstance(failure := feed.failure, ValueError):
            raise failure from None  # which TensorFlow wraps in pages of its own
        raise
    finally:
        for shown in bar:
            shown.close()
