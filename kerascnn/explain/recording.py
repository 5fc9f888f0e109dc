"""What happens inside a model for some images: every call, with its numbers.

    seen = record(model, images)
    seen.values(seen.find("conv1"))       # (N, 32, 32, 32)

Functional and Sequential models, nested ones too, are followed through their graph; of
a subclassed model, whose graph nobody knows, the layers are listened to.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kerascnn.costs import computes_as_keras, weighted
from kerascnn.graph import Call, Graph, find_layer, functional, leading_to
from kerascnn.heads import Head
from kerascnn.receptive_field import sizes
from kerascnn.training.initialization import fits


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a model."""

    graph: Graph  #: its calls; tensors are the backend's, with their values
    names: tuple[str, ...]  #: of the calls: "encoder/conv1", "conv1:2" when repeated
    connected: bool  #: whether each tensor's origin is known: not of subclassed models
    channels_first: bool  #: whether feature maps are (N, C, H, W) in the model

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of layers and bare operations."""
        return self.graph.calls

    def find(self, layer) -> int:
        """Return the position of a layer's call.

        `layer` is the layer, or its name: as in `names`, or without the models around
        it where that is one layer only; or the name of a nested model, for the call
        that gives its output. Raises ValueError where there is none, or several.
        """
        nested = [(self.maker(c.outputs[0]), c) for c in self.graph.nested]
        if not isinstance(layer, str):
            for position, call in [*nested, *enumerate(self.calls)]:
                if call.operation is layer:
                    return position
            layer = getattr(layer, "name", repr(layer))
        known = {name: position for position, name in enumerate(self.names)}
        for position, call in nested:
            known.setdefault(_path(call), position)
        return known[find_layer(layer, known)]

    def maker(self, tensor) -> int:
        """Return the position of the call that made a tensor; -1 for an input.

        A layer may hand on what it was given; so it is the first that gave it.
        """
        makes = (any(x is tensor for x in call.outputs) for call in self.calls)
        return next((i for i, made in enumerate(makes) if made), -1)

    def values(self, position: int) -> np.ndarray:
        """Return the (first) output of a call: float32 (N, …, channels)."""
        return self.array(self.calls[position].outputs[0])

    def maps(self, position: int) -> np.ndarray:
        """Return what a call gives for the first image: (H, W, channels), (units,)."""
        values = self.values(position)[0]
        if values.ndim not in (1, 3):
            raise ValueError(
                f"{self.names[position]} has outputs of shape {values.shape}; those of "
                "feature maps are (rows, columns, channels), those of a dense layer "
                "(units,)"
            )
        return values

    def array(self, tensor) -> np.ndarray:
        """Return a tensor of the model as float32 (N, …, channels)."""
        values = numbers(tensor)
        if self.channels_first and values.ndim > 2:
            values = np.moveaxis(values, 1, -1)
        return values

    def before(self, output: int = 0) -> list[int]:
        """Return the positions of the calls that an output depends on, in order.

        Of a subclassed model they are all calls.
        """
        if not self.connected:
            return list(range(len(self.calls)))
        way = {id(c) for c in leading_to(self.graph, self.graph.outputs[output])}
        return [i for i, call in enumerate(self.calls) if id(call) in way]

    def probabilities(self, head: Head) -> np.ndarray:
        """Return the probabilities (N, classes) that a head of the model gives."""
        return head.probabilities([numbers(x) for x in self.graph.outputs])


def numbers(tensor) -> np.ndarray:
    """Return a tensor or a weight of any type as a float32 array."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def shown_image(image) -> np.ndarray:
    """Return an image (H, W, C), (1, H, W, C) or (H, W) as (H, W, C).

    Raises ValueError for anything else.
    """
    image = np.asarray(image)
    found = image[0] if image.ndim == 4 and len(image) == 1 else image
    found = found[..., None] if found.ndim == 2 else found
    if found.ndim != 3 or not found.size:
        raise ValueError(
            f"an image is (height, width, channels); received shape {image.shape}"
        )
    return found


def prepared(model, image) -> np.ndarray:
    """Bring one image, as `shown_image` takes it, to a `batch` of one."""
    return batch(model, shown_image(image)[None])


def batch(model, images) -> np.ndarray:
    """Bring images (N, H, W, C) to the type and shape of the model's input.

    Raises ValueError: the model has several inputs, or takes other images.
    """
    images = np.asarray(images)
    graph = functional(model)
    if graph is None:
        return images if images.dtype == np.uint8 else images.astype(np.float32)
    if len(graph.inputs) != 1:
        raise ValueError(
            f"{model.name} has {len(graph.inputs)} inputs; an explanation needs a "
            "model of one image"
        )
    own = tuple(graph.inputs[0].shape[1:])
    if len(own) == 2 and images.shape[-1] == 1:  # no axis for the one channel
        images = images[..., 0]
    if _channels_first(model) and not fits(own, images.shape[1:]):
        images = np.moveaxis(images, -1, 1)
    if not fits(own, images.shape[1:]):
        wanted, given = (
            "x".join("?" if n is None else str(n) for n in shape)
            for shape in (own, images.shape[1:])
        )
        raise ValueError(
            f"{model.name} takes images of {wanted}; received {given} "
            "(kerascnn.data.read_image(file, size) brings an image to a size)"
        )
    return images.astype(str(graph.inputs[0].dtype))


def _channels_first(model) -> bool:
    formats = (getattr(x, "data_format", None) for x in model._flatten_layers())
    return next(filter(None, formats), None) == "channels_first"


def record(model, images, alter: Callable | None = None) -> Recording:
    """Run a model on images, call by call as for inference, and keep every call.

    Args:
        model: a Keras model.
        images: array or tensor as `batch` returns it; floats also where the model
            takes integers, which gradients need.
        alter: a function of a call's position and its first output, that returns what
            goes on in its place.
    """
    from keras import ops, tree

    images = ops.convert_to_tensor(images)
    if functional(model) is None and not model.built:
        model(images, training=False)  # a Sequential model gets its graph by this
    calls: list[Call] = []
    nested: list[Call] = []
    connected, known = _walkable(model), {id(images)}

    def visit(operation, parents, arguments, outputs):
        flat = tree.flatten(outputs)
        # Constants that a graph holds are no way from the image.
        inputs = tuple(
            x
            for x in tree.flatten(arguments)
            if ops.is_tensor(x) and (id(x) in known or not connected)
        )
        if alter is not None:
            flat[0] = alter(len(calls), flat[0])
        calls.append(Call(operation, parents, inputs, tuple(flat), arguments[0]))
        known.update(id(x) for x in flat)  # which stay, as the calls hold them
        return tree.pack_sequence_as(outputs, flat)

    if connected:
        outputs = _walk(functional(model), [images], (), visit, nested)
    else:
        with _listening(model, visit):
            outputs = model(images, training=False)
    return Recording(
        Graph((images,), tuple(tree.flatten(outputs)), tuple(calls), tuple(nested)),
        tuple(_names(calls)),
        connected,
        _channels_first(model),
    )


def _walkable(operation) -> bool:
    """Whether it is a model that computes what its graph says: a subclass may not."""
    return functional(operation) is not None and computes_as_keras(operation)


def _walk(graph, inputs, parents, visit, nested):
    """Run a functional model call by call; returns its outputs."""
    from keras import ops, tree

    def call(operation, *args, **kwargs):
        if _walkable(operation):
            flat = tuple(x for x in tree.flatten((args, kwargs)) if ops.is_tensor(x))
            inner, inside = functional(operation), (*parents, operation)
            outputs = _walk(inner, flat, inside, visit, nested)
            made = tuple(tree.flatten(outputs))
            nested.append(Call(operation, parents, flat, made, args))
            return outputs
        if "training" in getattr(operation, "_call_context_args", ()):
            kwargs["training"] = False
        return visit(operation, parents, (args, kwargs), operation(*args, **kwargs))

    # By this Keras runs the graph itself; see kerascnn.graph, which does the same with
    # shapes alone.
    return graph._run_through_graph(
        list(inputs), operation_fn=lambda operation: partial(call, operation)
    )


@contextlib.contextmanager
def _listening(model, visit) -> Iterator[None]:
    """While it lasts, every layer inside a subclassed model tells of its calls."""
    stack: list[Any] = []
    layers = list(dict.fromkeys(model._flatten_layers(include_self=False)))

    def told(layer):
        original = layer.call

        def call(*args, **kwargs):
            parents = tuple(stack)
            stack.append(layer)
            outputs = original(*args, **kwargs)
            stack.pop()
            return visit(layer, parents, (args, kwargs), outputs)

        return call

    with contextlib.ExitStack() as after:
        for layer in layers:
            # Past Keras' own attributes, which would take the function for a part of
            # the layer.
            layer.__dict__["call"] = told(layer)
            after.callback(layer.__dict__.pop, "call")
        yield


def _path(call) -> str:
    return "/".join(part.name for part in (*call.parents, call.operation))


def _names(calls) -> Iterator[str]:
    counts: dict[str, int] = {}
    for name in map(_path, calls):
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}:{counts[name]}"


def last_maps(seen: Recording, output: int = 0) -> int:
    """Return the position of the last feature maps before an output.

    That is the last call after a layer with kernels whose output is (N, H, W, C) of
    more than one pixel; pooling and what only hands on maps are left out. ValueError
    where the network has no feature maps.
    """
    calls = seen.calls
    able = list(
        itertools.dropwhile(lambda i: not weighted(calls[i]), seen.before(output))
    )
    for position in reversed(able):
        kind = type(calls[position].operation).__name__
        if any(word in kind for word in ("Pool", "Dropout", "Softmax")):
            continue
        places = sizes(calls[position].outputs[0], seen.channels_first)
        if len(places) == 2 and places != (1, 1):
            return position
    inside = [seen.names[i] for i in able if _has_convolutions(calls[i].operation)]
    if inside:
        raise ValueError(
            f"the feature maps are inside of {', '.join(inside)}, whose calls are not "
            "on record, as it is no functional model: explain it by itself, or build "
            "it as keras.Model(inputs, outputs); saliency and occlusion take any"
        )
    raise ValueError(
        "the model has no feature maps after a layer with weights: Grad-CAM needs a "
        "convolutional network; saliency and occlusion take any"
    )


def _has_convolutions(layer) -> bool:
    """Whether a layer, or subclassed model, has layers with kernels of its own."""
    parts = getattr(layer, "_flatten_layers", lambda **_: ())(include_self=False)
    return any(len(w.shape) > 2 for part in parts for w in part.weights)


def logits(seen: Recording, head: Head) -> tuple[int, Any] | None:
    """Find the numbers that the softmax or sigmoid at a model's end is given.

    Returns the position of a call, whose inputs they are; or whose output they are,
    once the activation of the layer that is returned beside it is left out. None where
    the model's output is to be looked at itself.
    """
    import keras

    answer = seen.graph.outputs[head.index]
    known = [i for i, call in enumerate(seen.calls) if call.operation is head.squash]
    position = known[-1] if known else seen.maker(answer)
    if position < 0 or head.kind in ("logits", "logit"):
        return None
    call = seen.calls[position]
    squashing = (keras.activations.softmax, keras.activations.sigmoid)
    apart = type(call.operation).__name__ in ("Activation", "Softmax", "Sigmoid")
    if not apart and getattr(call.operation, "activation", None) not in squashing:
        return None
    # A mean of probabilities, over places or branches, has no logits.
    tensor = call.inputs[0] if apart else call.outputs[0]
    if math.prod(tensor.shape) != math.prod(answer.shape):
        return None
    return position, None if apart else call.operation


def gradient(
    model, images, score: Callable[[Recording], Any], at: int | None = None
) -> np.ndarray:
    """Differentiate a score of each image with respect to the images or feature maps.

    `score` makes a tensor (N,) of a recording of `images`, which `batch` returned; `at`
    is the position of a call by whose output to differentiate; None for the images.
    Returns float32 of the shape of the images, or the maps as the model has them.
    """
    import keras
    from keras import ops

    start = ops.convert_to_tensor(np.asarray(images, np.float32))
    met = start if at is None else record(model, start).calls[at].outputs[0]

    def run(addition):
        def alter(position, value):
            return value + ops.cast(addition, value.dtype) if position == at else value

        moved = start + addition if at is None else start
        return score(record(model, moved, alter))

    # Backends differ in how they differentiate; Keras' training step is the one way
    # that they share. So a model whose only weight is an addition of zeros is trained
    # for one step of gradient descent at a learning rate of 1: the addition is then the
    # gradient, times -1, to the last bit.
    class Probe(keras.Model):
        def __init__(self):
            super().__init__(dtype="float32", name="probe")
            self.addition = self.add_weight(
                shape=tuple(met.shape), initializer="zeros", name="addition"
            )
            self.built = True

        def call(self, x):
            total = ops.sum(ops.cast(run(self.addition + 0.0), x.dtype))
            # Where the score does not depend on it, the gradient is 0, not missing.
            total = total + 0.0 * ops.sum(self.addition)
            return ops.reshape(total, (1, 1))

    probe = Probe()
    probe.compile(
        optimizer=keras.optimizers.SGD(1.0),
        loss=lambda truth, answer: answer,
        run_eagerly=True,
        jit_compile=False,
    )
    nothing = np.zeros((1, 1), np.float32)
    probe.train_on_batch(nothing, nothing)
    return -numbers(probe.addition)
