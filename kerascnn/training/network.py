"""The network in training: what is trained of a model, and that model as it was."""

import contextlib

import keras

from kerascnn.data import Data
from kerascnn.training import checkpoint
from kerascnn.training.adaptation import finalize_layers
from kerascnn.training.lookahead import TrainedModel
from kerascnn.training.optimizers import offsets, set_precision
from kerascnn.training.recipe import Recipe
from kerascnn.training.universum import without_dustbin


def check_fit(model, data: Data, recipe: Recipe) -> None:
    """Tell at once where a model, its data and its recipe do not go together.

    Raises:
        ValueError: what does not fit, and what to do.
    """
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


def answering_model(model, trained, data: Data, recipe: Recipe):
    """Return the network that a run leaves: `model`, without its dustbin if any."""
    if recipe.universum == "dustbin":
        return without_dustbin(model, trained, data.classes)
    return model


def replicate(model, place):
    """Return a copy of a model, without its softmax, on the devices of a place."""
    copy = keras.models.model_from_json(model.to_json())
    buffer = checkpoint.pack(_numbered(checkpoint.values(model.variables)))
    arrays = checkpoint.unpack(place.broadcast(bytes(buffer)))
    for i, variable in enumerate(copy.variables):
        variable.assign(arrays[f"state{i}"])
    finalize_layers(copy)
    return logits_model(copy)[0]


def _numbered(arrays) -> dict:
    return {f"state{i}": array for i, array in enumerate(arrays)}


@contextlib.contextmanager
def borrowed(model, policy: str):
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
