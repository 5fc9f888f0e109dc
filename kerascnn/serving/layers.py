"""The feature maps of chosen layers, as a function of the images."""

import difflib
from collections.abc import Callable, Sequence

from kerascnn.graph import functional

OUTPUTS = ("probabilities", "class_id", "label", "image")


def check_names(model, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of layers if the model has them, each with one output.

    Args:
        model: a functional or Sequential `keras.Model`.
        names: of its layers; "encoder/conv1" for the layer "conv1" of a nested model.

    Raises:
        ValueError: a layer is not there, is called several times or gives several
            tensors, is named twice, or has the name of another output of a version.
        TypeError: the names are one string.
    """
    if isinstance(names, str):
        raise TypeError(f"activations are a sequence of names; received {names!r}")
    names = tuple(names)
    for name in names:
        if name in OUTPUTS:
            raise ValueError(
                f"a version has an input or output {name!r} already; leave it out of "
                "activations"
            )
        if names.count(name) > 1:
            raise ValueError(f"activations names the layer {name!r} twice")
        _output(*_owner(model, name))
    return names


def maps(model, names: Sequence[str]) -> Callable:
    """Return a function from a batch of images to the maps of layers, by name.

    Args:
        model: a functional or Sequential `keras.Model`.
        names: of its layers, see `check_names`.
    """
    import keras

    inputs = functional(model).inputs
    outputs, nested = {}, {}
    for name in names:
        owner, layer = _owner(model, name)
        if owner is model:
            outputs[name] = _output(model, layer)
        else:
            # The images up to the nested model, and its layer from there.
            first, _, rest = name.partition("/")
            within = model.get_layer(first)
            to_it = keras.Model(inputs, _input(model, within))
            nested[name] = (to_it, maps(within, [rest]), rest)
    # One pass for all layers of the model itself.
    heads = keras.Model(inputs, outputs) if outputs else None

    def look(image):
        seen = dict(heads(image, training=False)) if heads else {}
        for name, (to_it, within, rest) in nested.items():
            seen[name] = within(to_it(image, training=False))[rest]
        return {name: seen[name] for name in names}

    return look


def _owner(model, name: str):
    """Return the model that holds a layer, and the layer."""
    import keras

    layers = {layer.name: layer for layer in model.layers}
    if name in layers:
        return model, layers[name]
    first, slash, rest = name.partition("/")
    if slash and isinstance(layers.get(first), keras.Model):
        _input(model, layers[first])
        return _owner(layers[first], rest)
    close = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(
        f"the model {model.name!r} has no layer {name!r}: "
        + (hint or f"it has {', '.join(layers)}")
    )


def _output(model, layer):
    """Return the one tensor that a layer gives in a model."""
    return _only(layer, "output", _node(model, layer).output_tensors)


def _input(model, layer):
    return _only(layer, "input", _node(model, layer).input_tensors)


def _node(model, layer):
    """Return the one call of a layer in a model's graph."""
    graph = functional(model)
    if graph is None:
        raise ValueError(
            f"activations are taken from the graph of a model, and {model.name!r} is "
            "subclassed: it has none; leave activations out"
        )
    # `layer.output` would be, of a nested model, the tensor inside of it.
    calls = [
        node
        for nodes in graph._nodes_by_depth.values()
        for node in nodes
        if node.operation is layer
    ]
    if len(calls) != 1:
        raise ValueError(
            f"the layer {layer.name!r} is called {len(calls)} times; name a layer in "
            "activations that is called once"
        )
    return calls[0]


def _only(layer, side: str, tensors):
    if len(tensors) != 1:
        raise ValueError(
            f"the {side} of the layer {layer.name!r} is {len(tensors)} tensors; name "
            "another layer in activations"
        )
    return tensors[0]
