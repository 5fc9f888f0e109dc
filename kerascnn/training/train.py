"""The shared training routine: any network, any images, one recipe."""

import contextlib
import math
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np

import zoo
from kerascnn.data import Augmentation, Data, load_data
from kerascnn.summary import summarize
from kerascnn.training import checkpoint
from kerascnn.training.adaptation import adapt_layers, finalize_layers
from kerascnn.training.curves import plot_history
from kerascnn.training.evaluate import evaluate
from kerascnn.training.feed import Feed, one_hot
from kerascnn.training.initialization import lsuv
from kerascnn.training.lookahead import Lookahead, TrainedModel
from kerascnn.training.optimization import (
    make_optimizer,
    offsets,
    resolve_precision,
    set_precision,
)
from kerascnn.training.progress import TrainingProgress
from kerascnn.training.recipe import Recipe, recipe_for
from kerascnn.training.run import (
    Run,
    commit,
    hardware,
    load_run,
    new_folder,
    read_json,
    versions,
    write_file,
    write_history,
    write_json,
)
from kerascnn.training.universum import (
    LabelledAccuracy,
    open_universum,
    reopen_universum,
    without_dustbin,
)

# Steps that Keras runs in one call: fewer returns to Python, same result.
STEPS_PER_CALL = 16


class TrainingDivergedError(RuntimeError):
    """The loss is not finite any more."""


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
    **overrides,
) -> Run:
    """Train a network and keep everything about it in a run folder.

    Decisions (the best epoch, early stopping) are made on the validation images; the
    test images are read once, at the end.

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
        **overrides: single values of the recipe, such as `epochs=5`.

    Returns:
        The finished run. `metrics["test_accuracy"]` and what goes with it are by the
        recipe's own protocol, its `views` and `passes`; where these average,
        `test_accuracy_averaged` repeats the accuracy and `test_accuracy_single` is
        that of one pass of the images as they are. Validation figures are of one pass.

    Raises:
        ValueError: unknown name, recipe or value; model and data do not fit.
        FileExistsError: `folder` is there already.
        TrainingDivergedError: the loss became infinite or not a number.
    """
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
    _check_fit(model, data, recipe)
    if named:
        adapt_layers(model, data.train.x)
    if recipe.initialization == "lsuv":
        lsuv(model, data.train, seed=seed)
    folder = _make_folder(folder, Path(runs), f"{model.name}-{data.name}")
    write_file(folder / "architecture.json", model.to_json())
    answering = _answering(model, logits_model(model)[0], data, recipe)
    summary = summarize(answering).to_text(width=160, ascii=False)
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
            "precision": resolve_precision(recipe.precision),
            "seed": seed,
            "versions": versions(),
            "hardware": hardware(),
            "commit": commit(),
        },
    )
    return _run(
        model, data, recipe, seed, folder, progress, callbacks, universum=universum
    )


def resume(
    folder, *, data=None, progress: bool = True, callbacks=(), universum_data=None
) -> Run:
    """Continue an interrupted training to what it would have been without the break.

    Args:
        folder: the run folder.
        data: the same data as before; needed where the run was given a `Data` that
            `load_data` had not made.
        progress: as in `train`.
        callbacks: as in `train`.
        universum_data: the same unlabelled images as before; needed where they were
            not made by `load_data`.

    Returns:
        The finished run; a run that had finished is returned as it is.

    Raises:
        FileNotFoundError: the folder is not a run folder.
        ValueError: the data is not the same as before, or the folder is damaged.
    """
    folder = Path(folder)
    if (folder / "metrics.json").exists():
        return load_run(folder)
    if not (folder / "checkpoint.npz").exists():
        raise FileNotFoundError(
            f"{folder} has no checkpoint.npz: nothing was saved there to continue "
            "from; start the training again"
        )
    config = read_json(folder / "config.json")
    before = config["data"]
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

    model = keras.models.model_from_json((folder / "architecture.json").read_text())
    recipe = recipe_for(None, config["recipe"])
    universum = reopen_universum(recipe, data, config.get("universum"), universum_data)
    return _run(
        model,
        data,
        recipe,
        config["seed"],
        folder,
        progress,
        callbacks,
        precision=config["precision"],
        resumed=True,
        universum=universum,
    )


def _check_fit(model, data: Data, recipe: Recipe) -> None:
    if not model.built or not getattr(model, "outputs", None):
        raise ValueError(
            f"{model.name} is not built: give a functional model, or a Sequential one "
            "that begins with keras.Input"
        )
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape[1:]) != data.input_shape:
        raise ValueError(
            f"{model.name} takes {[tuple(i.shape[1:]) for i in model.inputs]}, the "
            f"images of {data.title} are {data.input_shape}"
        )
    dustbin = recipe.universum == "dustbin"
    for output in model.outputs:
        if tuple(output.shape[1:]) != (data.classes + dustbin,):
            raise ValueError(
                f"{model.name} answers with {tuple(output.shape[1:])}, {data.title} "
                f"has {data.classes} classes: {', '.join(data.labels[:12])}"
                + (", and universum=dustbin needs one more" if dustbin else "")
            )
    if recipe.universum in ("dustbin", "background") and not logits_model(model)[1]:
        raise ValueError(
            f"universum={recipe.universum} works on logits: let {model.name} end in "
            "them, or in a softmax that is a layer of its own; received a model whose "
            "last layer has the softmax inside"
        )
    if recipe.loss_weights and len(recipe.loss_weights) != len(model.outputs):
        raise ValueError(
            f"{model.name} has {len(model.outputs)} outputs; received "
            f"loss_weights={recipe.loss_weights}"
        )
    if recipe.bias_rate != 1 and not offsets(model):
        raise ValueError(
            f"bias_rate is for the offsets of normalisation layers, and {model.name} "
            f"trains none: set it to 1; received {recipe.bias_rate:g}"
        )
    decides = recipe.early_stopping or recipe.keep == "best"
    if decides and not len(data.validation):
        raise ValueError(
            "early_stopping and keep=best decide on validation images, and "
            f"{data.title} has none"
        )


def _make_folder(folder, runs: Path, name: str) -> Path:
    if folder is None:
        return new_folder(runs, name)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"{folder} is there already and is not overwritten; choose another folder, "
            f"or continue it with kerascnn train --resume {folder}"
        ) from None
    return folder


def logits_model(model) -> tuple[keras.Model, bool]:
    """Return the model that is trained, and whether its outputs are logits.

    A softmax that is a layer of its own is left out, since a loss on logits is exact
    where a probability rounds to 0. The layers are shared with `model`.
    """
    ends, logits = [], []
    for output in model.outputs:
        layer = output._keras_history.operation
        activation = getattr(layer, "activation", None)
        is_softmax = activation is keras.activations.softmax
        if isinstance(layer, keras.layers.Softmax) or (
            isinstance(layer, keras.layers.Activation) and is_softmax
        ):
            node = layer._inbound_nodes[output._keras_history.node_index]
            ends.append(node.input_tensors[0])
            logits.append(True)
        else:
            ends.append(output)
            logits.append(activation in (None, keras.activations.linear))
    if len(set(logits)) > 1:
        raise ValueError(
            f"the outputs of {model.name} are logits and probabilities mixed; let all "
            "end in a softmax or none"
        )
    trained = TrainedModel(model.inputs[0], ends if len(ends) > 1 else ends[0])
    return trained, logits[0]


def _answering(model, trained, data: Data, recipe: Recipe):
    """Return the network that a run leaves: `model`, without its dustbin if any."""
    if recipe.universum == "dustbin":
        return without_dustbin(model, trained, data.classes)
    return model


def _run(
    model,
    data,
    recipe,
    seed,
    folder,
    progress,
    callbacks,
    precision=None,
    resumed=False,
    universum=None,
) -> Run:
    """Train until the end of the recipe, then measure and write the results."""
    precision = precision or resolve_precision(recipe.precision)
    trained, from_logits = logits_model(model)
    model = _answering(model, trained, data, recipe)
    outputs = len(model.outputs)
    judged = trained  # what is validated
    if universum:
        trained = universum.extend(trained)
        judged = universum.labelled(trained)
    feed = Feed(
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
        outputs=outputs,
        plain_from=recipe.epochs - recipe.plain_epochs,
        universum=universum,
    )
    with _borrowed(trained, precision):
        optimizer = make_optimizer(recipe, trained, len(feed))
        loss = [
            keras.losses.CategoricalCrossentropy(
                from_logits=from_logits, label_smoothing=recipe.label_smoothing
            )
            for _ in range(outputs)
        ]
        figure = LabelledAccuracy(data.classes) if universum else "accuracy"
        accuracy, plain = (
            [[first], *([[]] * (outputs - 1))] for first in (figure, "accuracy")
        )
        trained.compile(
            optimizer,
            loss if outputs > 1 else loss[0],
            loss_weights=list(recipe.loss_weights) or None,
            metrics=accuracy if outputs > 1 else accuracy[0],
            steps_per_execution=min(STEPS_PER_CALL, len(feed)),
        )
        trained.optimizer.build(trained.trainable_variables)
        if judged is not trained:
            judged.compile(
                loss=loss if outputs > 1 else loss[0],
                loss_weights=list(recipe.loss_weights) or None,
                metrics=plain if outputs > 1 else plain[0],
            )
        if recipe.lookahead:
            total = recipe.epochs * len(feed)
            trained.lookahead = Lookahead(trained, recipe.lookahead, total)
        epochs = _Epochs(folder, data, recipe, feed, resumed)
        epochs.begin(trained, judged)
        done = len(epochs.history)
        bar = [TrainingProgress(recipe.epochs, done)] if progress else []
        if done < recipe.epochs and not epochs.should_stop():
            try:
                trained.fit(
                    feed,
                    epochs=recipe.epochs,
                    initial_epoch=done,
                    shuffle=False,  # the feed has its own order
                    callbacks=[epochs, *callbacks, *bar],
                    verbose=0,
                )
            finally:
                for shown in bar:
                    shown.close()
        epochs.finish()
    return _measure(model, data, recipe, epochs, folder)


@contextlib.contextmanager
def _borrowed(model, policy: str):
    """Set the precision for the training; give the model back as it was.

    The regularisers, which the recipe's l2 replaces, come back too.
    """
    own = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    regularizers = [(v, v.regularizer) for v in model.trainable_variables]
    if policy != "float32":
        set_precision(model, policy)
    try:
        yield
    finally:
        for layer, policy in own:
            layer.dtype_policy = policy
        for variable, regularizer in regularizers:
            variable.regularizer = regularizer


class _Epochs(keras.callbacks.Callback):
    """What happens around every epoch: order, validation, history, checkpoint."""

    def __init__(self, folder: Path, data: Data, recipe: Recipe, feed: Feed, resumed):
        super().__init__()
        self.folder = folder
        self.data = data
        self.recipe = recipe
        self.feed = feed
        self.resumed = resumed
        self.history: list[dict] = []
        self.best: list[np.ndarray] = []

    def begin(self, model, judged) -> None:
        """Take up the saved state, or save the first one.

        Args:
            model: the model that is trained.
            judged: the model, of the same weights, that is validated.
        """
        self.trained = model
        self.judged = judged
        path = self.folder / "checkpoint.npz"
        if self.resumed:
            self.history, self.best = checkpoint.restore(path, model, model.optimizer)
            finalize_layers(model)
        else:
            checkpoint.save(path, model, model.optimizer, self.history)

    def on_epoch_begin(self, epoch, logs=None):
        self.feed.start(epoch)
        self._epoch = epoch
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            # The rate of this step cannot be read: JAX holds the variables meanwhile.
            rate = self.recipe.learning_rate
            raise TrainingDivergedError(
                f"the loss is {loss} in epoch {self._epoch + 1}, with a peak learning "
                f"rate of {rate:g}: train again with a lower learning_rate, a longer "
                "warmup or clip_norm=1"
            )

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "loss": float(logs["loss"]),
            "accuracy": float(_accuracy(logs)),
        }
        if len(self.data.validation):
            row |= self._validate()
        row["learning_rate"] = float(self.trained.optimizer.learning_rate)
        row["seconds"] = time.perf_counter() - self._start
        self.history.append(row)
        logs.update(row)
        checkpoint.save(
            self.folder / "checkpoint.npz",
            self.trained,
            self.trained.optimizer,
            self.history,
            self.best,
        )
        write_history(self.folder / "history.csv", self.history)
        if self.should_stop():
            self.trained.stop_training = True

    def _validate(self) -> dict:
        """Measure on the validation images; with an average of weights, that one."""
        model, images = self.judged, self.data.validation
        table = np.eye(self.data.classes, dtype=np.float32)
        with self._averaged():
            logs = model.evaluate(
                images.x,
                one_hot(images.y, table, len(model.outputs)),
                batch_size=max(self.recipe.batch_size, 128),
                verbose=0,
                return_dict=True,
            )
            accuracy = float(_accuracy(logs))
            earlier = [row["val_accuracy"] for row in self.history]
            if self.recipe.keep == "best" and accuracy > max(earlier, default=-1.0):
                self.best = checkpoint.values(self.trained.weights)
        return {"val_loss": float(logs["loss"]), "val_accuracy": accuracy}

    @contextlib.contextmanager
    def _averaged(self):
        """Put the average of the weights in place of the weights, for a while."""
        if not (self.recipe.ema or self.recipe.lookahead):
            yield
            return
        weights = self.trained.weights
        own = checkpoint.values(weights)
        self._take_average()
        try:
            yield
        finally:
            for variable, value in zip(weights, own, strict=True):
                variable.assign(value)

    def _take_average(self) -> None:
        if self.recipe.lookahead:
            self.trained.lookahead.take_slow()
        else:
            weights = self.trained.trainable_variables
            self.trained.optimizer.finalize_variable_values(weights)
            checkpoint.copy(weights, weights)  # the average keeps its arrays

    def should_stop(self) -> bool:
        """Tell whether the validation accuracy has not grown for too long."""
        if not self.recipe.early_stopping or not self.history:
            return False
        return (
            len(self.history) - best_epoch(self.history) >= self.recipe.early_stopping
        )

    def finish(self) -> None:
        """Leave in the model the weights that the recipe keeps."""
        if self.best:
            for variable, value in zip(self.trained.weights, self.best, strict=True):
                variable.assign(value)
        elif self.recipe.ema or self.recipe.lookahead:
            self._take_average()


def _accuracy(logs: dict) -> float:
    """Return the accuracy of the first output, whatever Keras named it."""
    return next(value for name, value in logs.items() if name.endswith("accuracy"))


def best_epoch(history: list[dict]) -> int:
    """Return the first epoch (from 1) with the best validation accuracy."""
    return 1 + int(np.argmax([row["val_accuracy"] for row in history]))


def _measure(model, data: Data, recipe: Recipe, epochs: _Epochs, folder: Path) -> Run:
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
    temporary = folder / ".part.keras"  # Keras asks for the ending
    model.save(temporary)
    shutil.move(temporary, folder / "model.keras")
    title = f"{model.name} on {data.title}, seed {config['seed']}"
    plot_history(history, title=title).savefig(folder / "curves.png", dpi=150)
    # The metrics come last: with them the run is finished.
    write_json(folder / "metrics.json", metrics)
    (folder / "checkpoint.npz").unlink()
    (folder / "architecture.json").unlink()
    return Run(folder, model.name, config, history, metrics, data.labels, _model=model)
