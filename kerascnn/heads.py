"""Which output of a network is its answer, and what the numbers of it are.

Decided by the graph; where the graph cannot tell (a subclassed layer or model, a
Lambda), by the numbers that the network gives for some images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerascnn.costs import HANDED_ON, computes_as_keras, names
from kerascnn.graph import functional

_SUM = 2e-2  # how far a softmax of bfloat16, with its 8 bits, adds up to something else
SAMPLE = 16  # images that a network is asked for where its graph cannot tell

# By the names of the classes of Keras' own layers and bare operations (keras.ops).
# What hands the numbers on:
_SAME = names("Cast Copy ExpandDims Flatten Reshape Squeeze StopGradient") + HANDED_ON
# Averages of probabilities are probabilities; whatever else is computed of them is not.
_MEANS = "Average", "Mean", *names("AveragePooling GlobalAveragePooling", axes="123")
_ARITHMETIC = (
    *names("Add Divide Multiply Rescaling Subtract TrueDivide"),
    *names("BatchNormalization GroupNormalization LayerNormalization"),
    *names("MaxPooling GlobalMaxPooling", axes="123"),
)
_RELU = names("ELU LeakyReLU PReLU ReLU Relu Relu6")


@dataclass(frozen=True, eq=False)
class Head:
    """The output by which a network classifies an image.

    `kind` is "softmax"; "logits": what a softmax is to be given; "sigmoid": one unit,
    the probability of class 1 of two; "logit": one unit, what a sigmoid is to be given;
    "sigmoids": a probability for each class by itself, as one image may show several.
    """

    kind: str
    units: int  # length of the output
    index: int  # its place among `model.outputs`
    tensor: Any  # the output in the graph; None for a subclassed model
    # What an operation of its own, softmax or sigmoid, is given; of the output's shape.
    logits: Any
    squash: Any  # the operation with the softmax or sigmoid; None where none is shown
    by_graph: bool  # whether the graph told it; else the numbers did

    @property
    def classes(self) -> int:
        """Number of classes: one unit tells two of them apart."""
        return 2 if self.units == 1 else self.units

    def select(self, answers):
        """Return this output of what a model returns: one, several, a dictionary."""
        import keras

        return keras.tree.flatten(answers)[self.index]

    def probabilities(self, answers) -> np.ndarray:
        """Return float32 probabilities (N, classes) of what `predict` returned."""
        values = np.asarray(self.select(answers)).astype(np.float32)
        if self.kind == "logits":
            powers = np.exp(values - values.max(1, keepdims=True))
            return powers / powers.sum(1, keepdims=True)
        if self.kind == "logit":
            values = (0.5 + 0.5 * np.tanh(values / 2)).astype(np.float32)  # σ
        if self.units == 1:
            return np.concatenate([1 - values, values], 1)
        return values


def head(model, images=None, output: int | None = None) -> Head:
    """Find the output by which a network classifies, and what its numbers are.

    Of a list it is the first; of a dictionary the one named "probabilities", else
    "logits", else the first; or number `output` of `model.outputs`. `model` is a Keras
    model, or anything with `predict`; `images` are some (N, H, W, C), by default noise,
    for one whose graph cannot tell. ValueError where the output is not understood.
    """
    import keras

    graph = functional(model) if computes_as_keras(model) else None
    if graph is None:
        structure = _sampled(model, images)
    else:
        structure = graph.outputs if graph is not model else graph.output
    outputs, index = keras.tree.flatten(structure), output
    if index is None:
        main = _main(structure)
        index = next(i for i, other in enumerate(outputs) if other is main)
    if not 0 <= index < len(outputs):
        wrong = f"{len(outputs)} outputs, the first is 0; received output={index}"
        raise ValueError(f"the model has {wrong}")
    name, shape = getattr(model, "name", "the model"), tuple(outputs[index].shape)
    if len(shape) != 2:
        told = f"output {index} of {name} has the shape {shape}"
        raise ValueError(f"a classifier's output is (images, classes); {told}")
    tensor, units = None if graph is None else outputs[index], shape[1]
    kind, logits, squash = _origin(tensor, ())
    by_graph = kind is not None
    if kind is None or units is None:
        answers = structure if graph is None else _sampled(model, images)
        answer = keras.tree.flatten(answers)[index]
        values = np.asarray(keras.ops.convert_to_numpy(answer))
        units = values.shape[1]
        kind = kind or _by_numbers(values.astype(np.float32), name)
    if units == 1 and kind in ("softmax", "relu"):
        told = "let it end in a sigmoid, or in two units with a softmax"
        raise ValueError(f"{name} answers with one unit behind a {kind}: {told}")
    several = {"relu": "logits", "sigmoid": "sigmoids"}
    kind = (several if units > 1 else {"logits": "logit"}).get(kind, kind)
    if logits is not None and tuple(logits.shape) != shape:
        logits = keras.ops.reshape(logits, (-1, units))
    return Head(kind, units, index, tensor, logits, squash, by_graph)


def _main(outputs):
    """Return the output that answers; `model.outputs` sorts a dictionary by keys."""
    if isinstance(outputs, Mapping):
        ranked = [n for n in ("probabilities", "logits", *outputs) if n in outputs]
        return _main(outputs[ranked[0]])
    return _main(outputs[0]) if isinstance(outputs, list | tuple) else outputs


def _origin(tensor, around) -> tuple[str | None, Any, Any]:
    """Follow a tensor back to what made it "softmax", "sigmoid", "relu" or "logits".

    `around` are the tensors that the nested models around it gave outside. Returns also
    what a softmax or sigmoid of the outermost model was given; and its layer.
    """
    import keras

    known, softmaxes = keras.activations, (keras.activations.softmax, keras.ops.softmax)
    while history := getattr(tensor, "_keras_history", None):
        operation, node, position = history
        name, own = type(operation).__name__, computes_as_keras(operation)
        inner = functional(operation) if own else None
        if inner is not None:
            around, tensor = (*around, tensor), inner.outputs[position]
            continue
        if name == "InputLayer":
            if not around:
                return None, None, None
            *around, outside = around
            maker, node, _ = outside._keras_history
            places = [id(x) for x in functional(maker).inputs]
            given = maker._inbound_nodes[node].input_tensors
            tensor = given[places.index(id(tensor))]
            continue
        given = operation._inbound_nodes[node].input_tensors
        activation = getattr(operation, "activation", None) if own else None
        plain, linear = name == "Activation", activation is known.linear
        if own and (name in _SAME or (plain and linear)):
            tensor = given[0]
            continue
        alone = given[0] if not around else None  # a tensor of the model itself
        if own and name in ("Softmax", "Sigmoid"):
            return name.lower(), alone, operation
        if activation in softmaxes or isinstance(activation, keras.layers.Softmax):
            return "softmax", alone if plain else None, operation
        if activation in (known.sigmoid, keras.ops.sigmoid):
            return "sigmoid", alone if plain else None, operation
        if activation is known.hard_sigmoid:
            return "sigmoid", None, operation
        logarithm = activation is known.log_softmax
        if linear or logarithm or (own and name.startswith("LogS")):
            return "logits", None, None
        if activation is known.relu or (own and name in _RELU):
            return "relu", None, None
        kinds, keeps = set(), {"logits", "relu"}
        if own and name in (*_MEANS, *_ARITHMETIC, "Concatenate"):
            kinds = {_origin(x, around)[0] for x in given}
            keeps |= {"softmax", "sigmoid"} if name in _MEANS else set()
            keeps |= {"sigmoid"} if name == "Concatenate" else set()
        if len(kinds) == 1 and kinds <= keeps:
            return kinds.pop(), None, None
        return ("logits" if operation.name == "logits" else None), None, None
    return None, None, None


def _sampled(model, images):
    import keras

    if images is None:
        graph = functional(model) if isinstance(model, keras.Model) else None
        if graph is None or len(graph.inputs) != 1:
            told = f"received {model!r}, no functional model of one input"
            raise ValueError(f"what it answers is not known without images: {told}")
        shape = [n or 32 for n in graph.inputs[0].shape[1:]]
        images = np.empty((0, *shape), graph.inputs[0].dtype)
    images = np.asarray(images[:SAMPLE])
    # Beside a few images, whose logits may all lie within 0…1, noise.
    rest = (SAMPLE - len(images), *images.shape[1:])
    noise = np.random.default_rng(0).integers(0, 256, rest).astype(images.dtype)
    images = np.concatenate([images, noise])
    if isinstance(model, keras.Model):
        return model(images, training=False)
    return model.predict(images, batch_size=SAMPLE, verbose=0)


def _by_numbers(values: np.ndarray, name: str) -> str:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} answers images with NaN or infinity")
    inside = values.min() >= 0 and values.max() <= 1 + _SUM
    if values.shape[1] == 1:
        return "sigmoid" if inside else "logits"
    if inside and np.abs(values.sum(1) - 1).max() <= _SUM:
        return "softmax"
    # Logits of so many images are hardly all within 0…1, unless they are all the same.
    return "sigmoid" if inside and np.ptp(values) > 1e-3 else "logits"
