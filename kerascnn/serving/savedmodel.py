"""A network as a TensorFlow SavedModel: for servers, and for other converters."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras

from kerascnn.graph import find_layer, functional
from kerascnn.serving.formats import CHANNELS

OUTPUTS = ("probabilities", "class_id", "label", "image")


def write(
    model,
    folder: Path,
    reference,
    activations: Sequence[str] = (),
    labels=None,
    *,
    several: bool = True,
) -> None:
    """Write a network with the signatures that servers offer.

    Args:
        model: a `keras.Model` of the TensorFlow backend.
        folder: where to.
        reference: what the network is, from `verification.refer`.
        activations: names of layers; with any, the signature `activations` is added.
        labels: names of the classes, in the order of the outputs. Without them it is
            what other formats are converted from: no strings in it, so neither the
            output `label` nor the signature `serve_bytes`.
        several: whether that format knows several signatures; if not, the maps are
            further outputs of the only one.

    Raises:
        OSError, tensorflow.errors.OpError: the folder cannot be written to.
    """
    import tensorflow as tf

    from kerascnn.serving.decoding import decode

    shape, head, dtype = reference.shape, reference.head, model.inputs[0].dtype
    look = maps(model, activations) if activations else None

    def answer(image):
        # training=False, spelled out: without it, layers of random augmentation
        # inside the model stay at work in every request.
        output = head.select(model(tf.cast(image, dtype), training=False))
        # float32 under mixed precision too: a server's JSON has no bfloat16.
        scores = tf.cast(output, tf.float32)
        if head.kind == "logits":
            scores = tf.nn.softmax(scores)
        elif head.kind == "logit":
            scores = tf.nn.sigmoid(scores)
        if head.units == 1:
            scores = tf.concat([1 - scores, scores], axis=-1)
        class_id = tf.argmax(scores, axis=-1)  # (N,) int64
        given = {"probabilities": scores, "class_id": class_id}
        if labels is not None:
            given["label"] = tf.gather(tf.constant(list(labels)), class_id)
        return given

    def answer_bytes(image_bytes):
        pixels = tf.TensorSpec(shape, tf.uint8)
        return answer(
            tf.map_fn(
                lambda b: decode(b, shape), image_bytes, fn_output_signature=pixels
            )
        )

    def watch(image):
        seen = look(tf.cast(image, dtype))
        return {name: tf.cast(values, tf.float32) for name, values in seen.items()}

    def both(image):
        return {**answer(image), **watch(image)}

    pixels = tf.TensorSpec((None, *shape), tf.uint8, name="image")
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")
    together = bool(activations) and not several
    # Not archive.track(model): the endpoints' variables are saved anyway, and those of
    # a tracked model a second time.
    archive = keras.export.ExportArchive()
    with _inlined():
        archive.add_endpoint("serving_default", both if together else answer, [pixels])
        if labels is not None and shape[2] in CHANNELS:
            archive.add_endpoint("serve_bytes", answer_bytes, [files])
        if activations and several:
            archive.add_endpoint("activations", watch, [pixels])
        archive.write_out(str(folder), verbose=False)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 what is float32: GPUs round it to TensorFloat-32 otherwise.

    With TensorFloat-32's ten bits, two ways through the same convolution agree to
    three decimals only, and a comparison could not tell rounding from an error.
    """
    if keras.backend.backend() == "tensorflow":
        from tensorflow.config import experimental as config

        was_on = config.tensor_float_32_execution_enabled()
        config.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            config.enable_tensor_float_32_execution(was_on)
    elif keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


@contextlib.contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions inside of functions as if their lines stood there.

    Keras wraps a convolution in groups in a function that is to be compiled by XLA,
    for the sake of its gradient. Such a function a server on a CPU refuses, whose XLA
    is off by default, and converters do not look into.
    """
    import tensorflow as tf

    with _TRACING:  # the switch is of the whole process
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


_TRACING = threading.Lock()


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
    layers = {layer.name: layer for layer in model.layers}
    first, slash, rest = name.partition("/")
    if name not in layers and slash and isinstance(layers.get(first), keras.Model):
        _input(model, layers[first])
        return _owner(layers[first], rest)
    return model, layers[find_layer(name, layers)]


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
