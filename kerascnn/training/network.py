"""What of a network is trained: its logits, in a precision, by a step of its own."""

import contextlib
import json
import re
import tempfile
from pathlib import Path

import keras

from kerascnn.data import Data, load_data
from kerascnn.environment import surroundings
from kerascnn.graph import image_shape
from kerascnn.heads import Head, head
from kerascnn.summary import summarize
from kerascnn.training.fused_layers import fused_layers
from kerascnn.training.initialization import normalizations
from kerascnn.training.optimizers import Lookahead, make_optimizer, offsets, penalize
from kerascnn.training.recipe import Recipe
from kerascnn.training.run import mend_name
from kerascnn.training.universum import LabelledAccuracy, without_dustbin

# Steps that Keras runs in one call: fewer returns to Python, same result.
STEPS_PER_CALL = 16
# Of a data set, what config.json keeps, and what it counts.
KEPT = ("name", "origin", "title", "fingerprint", "input_shape", "labels", "notes")
PARTS = ("train", "validation", "test")


def data_for(model, source, **asked) -> Data:
    """Read images in the size that a network takes, unless another one is asked for."""
    size = (image_shape(model) or ())[:2]
    if len(size) == 2 and None not in size and asked.get("image_size") is None:
        asked["image_size"] = size
    return load_data(source, **asked)


def check_fit(model, data: Data, recipe: Recipe) -> None:
    """Raise ValueError where a model, its data and its recipe do not go together."""
    if not model.built or not getattr(model, "outputs", None):
        told = "give a functional model, or a Sequential one with a keras.Input"
        raise ValueError(f"{model.name} is not built: {told}")
    if keras.backend.backend() == "tensorflow":
        mend_name(model)
        for layer in model._flatten_layers(include_self=False):
            if not re.fullmatch(r"[A-Za-z0-9_.\\/>-]*", layer.name):
                raise ValueError(
                    "TensorFlow takes letters without accents, digits, _, - and . in "
                    f"the name of a layer; received {layer.name!r} in {model.name}"
                )
    if image_shape(model) != data.input_shape:
        told = f"the images of {data.title} are {data.input_shape}"
        taken = [tuple(x.shape[1:]) for x in model.inputs]
        raise ValueError(f"{model.name} takes {taken}, {told}")
    heads = answers_of(model)
    several = [own.index for own in heads] != list(range(len(model.outputs)))
    universum, dustbin = recipe.universum, recipe.universum == "dustbin"
    for own in heads:
        if own.classes != data.classes + dustbin:
            raise ValueError(
                f"{model.name} answers with ({own.units},), {data.title} "
                f"has {data.classes} classes: {', '.join(data.labels[:12])}"
                + (", and universum=dustbin needs one more" if dustbin else "")
            )
    plain = all(own.kind in ("softmax", "logits") for own in heads)
    if universum and (several or not plain):
        raise ValueError(
            f"universum={universum} is for a softmax over the classes, and for outputs "
            f"in a list; {model.name} ends in "
            + ("a dictionary" if several else heads[0].kind)
        )
    if universum in ("dustbin", "background") and not all(map(in_logits, heads)):
        raise ValueError(
            f"universum={universum} works on logits: let {model.name} end in them, or "
            "in a softmax that is a layer of its own; received one inside a layer"
        )
    if recipe.loss_weights and len(recipe.loss_weights) != len(heads):
        told = f"outputs; received loss_weights={recipe.loss_weights}"
        raise ValueError(f"{model.name} has {len(heads)} {told}")
    if recipe.bias_rate != 1 and not offsets(model):
        told = f"{model.name} trains none: set it to 1; received {recipe.bias_rate:g}"
        raise ValueError(f"bias_rate is for offsets of normalisation layers; {told}")
    if recipe.statistics and not normalizations(model):
        told = f"{model.name} learns none: set it to 0; received {recipe.statistics}"
        raise ValueError(f"statistics are those of batch normalisations; {told}")
    if not len(data.test):
        told = f"{data.title} has no test images"
        raise ValueError(f"a run ends with its test, and {told}")
    decides = recipe.early_stopping or recipe.keep == "best"
    if decides and not len(data.validation):
        told = f"validation images, and {data.title} has none"
        raise ValueError(f"early_stopping and keep=best decide on {told}")


def answers_of(model) -> list[Head]:
    """Return the outputs that are trained, that which answers being the first.

    Of a list all are trained; of a dictionary those that are like the answer.
    """
    main = head(model)
    others = [i for i in range(len(model.outputs)) if i != main.index]
    if not isinstance(model, keras.Sequential) and isinstance(model.output, dict):
        shape = model.outputs[main.index].shape
        others = [i for i in others if model.outputs[i].shape == shape]
    return [main, *(head(model, output=i) for i in others)]


def in_logits(own: Head) -> bool:
    """Whether an output is trained as logits."""
    return own.logits is not None or own.kind in ("logits", "logit")


def logits_model(model) -> tuple[keras.Model, list[Head]]:
    """Return the model that is trained, and what each of its outputs is made of.

    A softmax or sigmoid of its own is left out, since a loss on logits is exact where a
    probability rounds to 0. The layers are shared with `model`.
    """
    heads = answers_of(model)
    ends = [own.tensor if own.logits is None else own.logits for own in heads]
    return TrainedModel(model.inputs[0], ends if len(ends) > 1 else ends[0]), heads


def answering_model(model, data: Data, recipe: Recipe):
    """Return the network that a run leaves: `model`, without its dustbin if any."""
    if recipe.universum == "dustbin":
        return without_dustbin(model, logits_model(model)[0], data.classes)
    return model


def check_savable(model) -> None:
    """Raise ValueError, before a training, where Keras cannot write its result."""
    try:
        model.to_json()
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.keras")
    except OSError:  # of the temporary folder
        return
    except Exception as error:  # whatever a layer of the user's own raises
        raise ValueError(
            f"{model.name} cannot be written to a file, so that nothing would be left "
            f"of its training: {error}"
        ) from error


def describe(model, data, recipe, seed, place, precision, universum):
    """Return what config.json holds of a training, and the texts beside it by name.

    Everything that may fail for a model, its data or this machine fails here, before
    there is a folder.
    """
    config = {
        "model": {"name": model.name, "parameters": model.count_params()},
        "data": {
            **{key: getattr(data, key) for key in KEPT},
            **{part: len(getattr(data, part)) for part in PARTS},
        },
        **({"universum": universum.describe()} if universum else {}),
        "recipe": vars(recipe),
        "precision": precision,
        "seed": seed,
        "devices": place.devices,
        "hosts": place.hosts,
        **surroundings(),
    }
    summary = summarize(answering_model(model, data, recipe)).table()
    files = {
        "architecture.json": model.to_json(),
        "summary.txt": f"{summary.to_text(width=160, ascii=False)}\n",
    }
    return json.loads(json.dumps(config, default=int)), files


def compile_model(model, heads, recipe: Recipe, universum, place=None, steps=0):
    """Give a model its losses and its accuracy; for a training an optimizer too."""
    first = "accuracy"
    if universum:
        first = LabelledAccuracy(universum.classes)
    elif model.outputs[0].shape[1] == 1:
        least = 0.0 if in_logits(heads[0]) else 0.5  # BinaryAccuracy refuses 0
        first = keras.metrics.MeanMetricWrapper(
            keras.metrics.binary_accuracy, "accuracy", threshold=least
        )
    several = len(heads) > 1
    losses = [
        (
            keras.losses.CategoricalCrossentropy
            if own.kind in ("softmax", "logits")
            else keras.losses.BinaryCrossentropy
        )(from_logits=in_logits(own), label_smoothing=recipe.label_smoothing)
        for own in heads
    ]
    options = {
        "loss": losses if several else losses[0],
        "loss_weights": list(recipe.loss_weights) or None,
        "metrics": [[first], *([[]] * (len(heads) - 1))] if several else [first],
    }
    if not steps:
        penalize(model, recipe)  # as in the loss of the training
        model.compile(**options)
        return
    options["optimizer"] = make_optimizer(recipe, model, steps)
    one = keras.backend.backend() == "torch"  # where Keras refuses more
    options["steps_per_execution"] = 1 if one else min(STEPS_PER_CALL, steps)
    if place.weighted:
        place.adapt(options)
    model.compile(**options)
    model.optimizer.build(model.trainable_variables)
    if recipe.lookahead:
        model.lookahead = Lookahead(model, recipe.lookahead, recipe.epochs * steps)


@contextlib.contextmanager
def borrowed(model, policy: str):
    """Set precision and kernels for the training; give the model back as it was.

    The regularisers, which the recipe's l2 replaces, come back too.
    """
    own = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    regularizers = [(v, v.regularizer) for v in model.trainable_variables]
    if policy != "float32":
        set_precision(model, policy)
    try:
        with fused_layers(model):
            yield
    finally:
        for layer, policy in own:
            layer.dtype_policy = policy
        for variable, regularizer in regularizers:
            variable.regularizer = regularizer


def set_precision(model, policy: str) -> None:
    """Set the dtype policy of every layer of a built model, whose variables stay."""
    # Keras' spectrograms refuse bfloat16, and a spectrum needs float32's digits.
    fixed = (keras.layers.MelSpectrogram, keras.layers.STFTSpectrogram)
    for layer in model._flatten_layers():
        if not isinstance(layer, fixed):
            layer.dtype_policy = policy


class TrainedModel(keras.Model):
    """A functional model with a training step of its own.

    It begins with cutting a batch off to the number in `sizes`, by the size that it was
    filled up to (see `kerascnn.training.strategy`), and ends with `lookahead`, which is
    set after `compile`.
    """

    lookahead: Lookahead | None = None
    sizes: dict[int, int] = {}  # noqa: RUF012  (read only; Keras would track an own)

    def train_step(self, *arguments):
        """Run one step: (data), with JAX (state, data), as Keras calls it."""
        *before, data = arguments
        size = keras.tree.flatten(data)[0].shape[0]
        if self.sizes.get(size, size) != size:
            number = self.sizes[size]
            data = keras.tree.map_structure(lambda part: part[:number], data)
            arguments = (*before, data)
        result = super().train_step(*arguments)
        if self.lookahead is None:
            return result
        if keras.backend.backend() != "jax":
            self.lookahead.blend()
            return result
        # In a JAX step the variables are values that are passed in and out.
        logs, state = result
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        pairs = list(zip(*map(keras.tree.flatten, (groups, state)), strict=True))
        with keras.StatelessScope(state_mapping=pairs) as scope:
            self.lookahead.blend()
        state = tuple([scope.get_current_value(v) for v in group] for group in groups)
        return logs, state
