"""A Keras model as the list of its calls; a shared layer has several."""

import contextlib
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of a layer (or of a bare operation, such as `x + y`) in a model."""

    operation: Any
    parents: tuple[Any, ...]  # the nested models around it, outermost first
    inputs: tuple[Any, ...]  # each a `keras.KerasTensor`: shape with batch, and type
    outputs: tuple[Any, ...]
    arguments: tuple[Any, ...]  # what it was called with, beside the tensors


@dataclass(frozen=True)
class Graph:
    """A model's calls, each after those that it depends on."""

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    calls: tuple[Call, ...]  # of layers that are no models
    nested: tuple[Call, ...]  # of models inside the model


def functional(model):
    """Return the graph inside a functional or Sequential model; None in any other."""
    import keras

    if isinstance(model, keras.Sequential):
        # A Sequential model that was built keeps a functional one inside.
        return model._functional
    return model if hasattr(model, "_run_through_graph") else None


def image_shape(model) -> tuple[int | None, ...] | None:
    """Return the shape of the images that a model takes; None where it is not known."""
    inputs = getattr(model, "inputs", None) or []
    return tuple(inputs[0].shape[1:]) if len(inputs) == 1 else None


def trace(model, input_shape=None) -> Graph | None:
    """Follow the images through a model symbolically; None for a subclassed model.

    `input_shape`, of one image, fills in what a model of one input leaves open.
    """
    import keras

    graph = functional(model)
    if graph is None:
        return None
    inputs = tuple(keras.KerasTensor(x.shape, dtype=x.dtype) for x in graph.inputs)
    if input_shape is not None:
        shapes, shape = [x.shape[1:] for x in inputs], tuple(input_shape)
        asked = tuple(
            s if o is None else o for o, s in zip(shapes[0], shape, strict=False)
        )
        if len(inputs) > 1 or len(shape) != len(shapes[0]) or asked != shape:
            told = f"must agree with the inputs of {model.name}, {shapes}"
            raise ValueError(f"input_shape {told}; received {shape}")
        inputs = (keras.KerasTensor((None, *shape), dtype=inputs[0].dtype),)
    calls: list[Call] = []
    nested: list[Call] = []

    def walk(graph, inputs, parents):
        def call(operation, *args, **kwargs):
            flat = keras.tree.flatten((args, kwargs))
            tensors = tuple(x for x in flat if isinstance(x, keras.KerasTensor))
            inner = functional(operation)
            if inner is None:
                outputs = operation.compute_output_spec(*args, **kwargs)
            else:
                outputs = walk(inner, tensors, (*parents, operation))
            flat = tuple(keras.tree.flatten(outputs))
            made = Call(operation, parents, tensors, flat, args)
            (calls if inner is None else nested).append(made)
            return outputs

        # The documented way (`compute_output_spec`) gives the last shapes only. This
        # one, by which Keras computes them, visits every call, in order.
        return graph._run_through_graph(
            list(inputs), operation_fn=lambda operation: partial(call, operation)
        )

    outputs = tuple(keras.tree.flatten(walk(graph, inputs, ())))
    return Graph(inputs, outputs, tuple(calls), tuple(nested))


def find_layer(name: str, names: Iterable[str]) -> str:
    """Return which of `names` is meant: "conv1" will do for "encoder/conv1"."""
    names = list(names)
    ends = [name] if name in names else [n for n in names if n.endswith(f"/{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ValueError(f"there are several layers {name!r}: say {', '.join(ends)}")
    close = " or ".join(difflib.get_close_matches(name, names, 3, 0.5))
    told = f"did you mean {close}?" if close else f"it has {', '.join(names)}"
    raise ValueError(f"the model has no layer {name!r}: {told}")


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Build models, in a blink, that have shapes and counts and cannot compute."""
    import keras
    from keras.src.backend.common import global_state

    key = "uninitialized_variables"
    before = list(global_state.get_global_attribute(key) or [])
    try:
        # Variables of a stateless scope wait for their values, here for ever: Keras
        # would give them some at the end of the next scope, were they left in the list.
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, before)


def leading_to(graph: Graph, output) -> list[Call]:
    """Find the calls that an output depends on, in order."""
    needed, found = {id(output)}, []
    for call in reversed(graph.calls):
        given = {id(x) for x in call.inputs}
        # What it hands on as it was given, as dropout does, was made by another.
        if needed & ({id(x) for x in call.outputs} - given):
            needed |= given
            found.append(call)
    return found[::-1]


def bottlenecks(graph: Graph, output) -> list[Any]:
    """Find the tensors that everything on the way to an output passes, in order."""
    tensors, before = list(graph.inputs), {id(x): 1 for x in graph.inputs}
    for call in graph.calls:
        tensors += call.outputs
        ways = sum(before[id(x)] for x in call.inputs)
        before |= {id(x): ways for x in call.outputs}
    behind = Counter([id(output)])
    for call in reversed(graph.calls):
        ways = sum(behind[id(x)] for x in call.outputs)
        for x in call.inputs:
            behind[id(x)] += ways
    # As many ways lead through a bottleneck as there are to the output.
    return [x for x in tensors if before[id(x)] * behind[id(x)] == before[id(output)]]
