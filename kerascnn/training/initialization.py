"""What is made of training images beside the training: LSUV, layers, statistics.

LSUV, under which every layer's output has variance 1: Mishkin and Matas, "All you need
is a good init", ICLR 2016, arXiv 1511.06422.
"""

import contextlib
import warnings
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kerascnn.data import Images
from kerascnn.graph import functional, image_shape, trace
from kerascnn.training import checkpoint
from zoo.layers import Maxout

SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
PLAIN = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
# Less than this is nothing but rounding: the layer says the same of every image.
DEAD = 1e-12
# What the patch whitening of airbench is computed from (arXiv 2404.00498, section 3.2).
IMAGES = 5_000


@dataclass(frozen=True)
class Scaled:
    """What LSUV made of a layer."""

    layer: str  # its name
    variances: tuple[float, ...]  # of its output; before a maxout one for each piece
    iterations: int  # how often the weights were divided by the deviation


def lsuv(
    model: keras.Model,
    images: Images | np.ndarray,
    *,
    tolerance: float = 0.02,
    iterations: int = 20,
    batch: int = 256,
    seed: int = 0,
) -> list[Scaled]:
    """Give a network orthonormal weights, scaled so that every layer has variance 1.

    Layer-sequential unit-variance initialisation (arXiv 1511.06422, algorithm 1):
    kernels of convolutions and dense layers become random orthonormal matrices (fan-in,
    filters), biases zeros. In the order of the graph a kernel is divided by the
    standard deviation of its layer's output before the activation, over the images and
    all elements, until the variance is 1; the mean is not touched.

    - In groups and depthwise, each group and channel has a matrix; a transposed
      convolution's is (window · channels of the input, filters). Both kernels of a
      separable convolution share the factor.
    - Where the output goes to a `Maxout`, directly or through batch normalisation,
      each piece has a matrix (fan-in, units) and a factor of its own.
    - Batch normalisation keeps its variables, and normalises meanwhile with the
      statistics of the batch, unless frozen or called with training=False.
    - A layer that is used several times gets variance 1 where it is used first. Layers
      inside others are found; frozen ones, and others with weights, stay as they are.

    Args:
        model: a built functional or Sequential model of one input; changed in place,
            or left as it was where there is an error.
        images: training images (N, …), for the zoo's networks pixels 0…255.
        tolerance: how far from 1 a variance may stay; the authors' value.
        iterations: how often to divide at most; the authors' value.
        batch: images that pass the network at once; drawn where there are more.
        seed: of the matrices and of the choice of images.

    Returns what became of each layer, in the order of the graph; a RuntimeWarning tells
    of a variance that is not within the tolerance in the end. Raises ValueError where
    the model has no such layer, the images do not fit it, or an output does not vary.
    """
    graph = functional(model)
    if (shape := image_shape(graph)) is None:
        told = f"of one input; received {model.name}, {type(model).__name__}"
        raise ValueError(f"lsuv needs a built functional or Sequential model {told}")
    if not tolerance > 0 or iterations < 1 or batch < 2:
        told = f"received {tolerance}, {iterations} and {batch}"
        least = "tolerance must be above 0, iterations 1 or more, batch 2 or more"
        raise ValueError(f"{least}; {told}")
    images = images.x if isinstance(images, Images) else np.asarray(images)
    if not fits(shape, images.shape[1:]) or len(images) < 2:
        told = f"images {shape}, two or more; received {images.shape}"
        raise ValueError(f"{model.name} takes {told}")
    if len(images) > batch:
        # A stream of its own: the matrices do not depend on the number of images.
        rng = np.random.default_rng((seed, 1))
        images = images[np.sort(rng.choice(len(images), batch, replace=False))]
    rng = np.random.default_rng(seed)
    inside = list(model._flatten_layers(include_self=False))
    known = PLAIN + TRANSPOSED + DEPTHWISE + SEPARABLE
    found = [one for one in inside if isinstance(one, known) and one.trainable]
    if not found:
        told = "no convolution and no dense layer that can be trained"
        raise ValueError(f"{model.name} has {told}: there is nothing to initialise")
    pieces = _pieces(model)
    report: dict[int, Scaled] = {}
    failures: list[Exception] = []

    def hook(layer):
        """Return what stands in for `layer.call`: it initialises at the first call."""
        call = layer.call

        def initialize_and_call(*args, **kwargs):
            if id(layer) not in report:
                many, limits = pieces.get(id(layer), 1), (tolerance, iterations)
                # The activation is fused into the layer: without it for a while.
                activation = layer.activation
                layer.activation = keras.activations.linear
                try:
                    report[id(layer)] = _scale(
                        layer, lambda: call(*args, **kwargs), many, *limits, rng
                    )
                except ValueError as error:
                    failures.append(error)
                    raise
                finally:
                    layer.activation = activation
            return call(*args, **kwargs)

        return initialize_and_call

    def by_batch(call):
        """Return a call of batch normalisation that uses the batch's statistics."""
        return lambda x, training=None, mask=None: call(x, training is not False, mask)

    # Moving averages and the states of random generators change in a pass.
    changed, passing = model.variables, model.non_trainable_variables
    before = {id(v): checkpoint.values([v])[0] for v in changed}
    try:
        with contextlib.ExitStack() as stack:
            for layer in inside:
                if isinstance(layer, layers.BatchNormalization):
                    layer.call = by_batch(layer.call)
                elif layer in found:
                    layer.call = hook(layer)
                else:
                    continue
                stack.callback(delattr, layer, "call")
            dtype = graph.inputs[0].dtype
            _walk(graph, [keras.ops.convert_to_tensor(images, dtype=dtype)])
        changed = passing
    except Exception:
        if failures:  # without what Keras adds about the call of the layer
            raise ValueError(f"{model.name}: {failures[0]}") from None
        raise
    finally:
        checkpoint.assign(changed, [before[id(v)] for v in changed])
    return list(report.values())


def fits(own, shape) -> bool:
    """Tell whether images of a shape go into an input, whose sizes may be open."""
    if len(own) != len(shape):
        return False
    return all(o in (None, s) for o, s in zip(own, shape, strict=True))


def _pieces(model) -> dict[int, int]:
    """Find the layers that go to a maxout: its number of pieces by id of the layer."""
    calls = trace(model).calls
    makers = {id(x): call for call in calls for x in call.outputs}
    found = {}
    for call in calls:
        if not isinstance(call.operation, Maxout):
            continue
        before = makers.get(id(call.inputs[0]))
        while before and isinstance(before.operation, layers.BatchNormalization):
            before = makers.get(id(before.inputs[0]))
        if before and isinstance(before.operation, PLAIN):
            found[id(before.operation)] = call.operation.pieces
    return found


def _scale(layer, output, pieces, tolerance, iterations, rng) -> Scaled:
    """Initialise a layer; `output` computes what it says, without its activation."""
    if isinstance(layer, SEPARABLE):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    else:
        kernels = [layer.kernel]
    for kernel in kernels:
        kernel.assign(_orthonormal(layer, kernel, pieces, rng))
    if layer.bias is not None:
        layer.bias.assign(np.zeros(layer.bias.shape))
    for iteration in range(iterations + 1):
        values = keras.ops.cast(output(), "float32")
        values = keras.ops.reshape(values, (-1, pieces))
        variances = keras.ops.convert_to_numpy(keras.ops.var(values, axis=0))
        if not (variances > DEAD).all():  # nor where it is not a number
            raise ValueError(
                f"the output of {layer.name} does not vary over the images (variance "
                f"{variances.min():g}) and cannot be scaled; give other images, or "
                "look for a layer before it that is zero, or a rectifier that is shut"
            )
        near = (np.abs(variances - 1) <= tolerance).all()
        if near or iteration == iterations:
            break
        # The output is as many times linear in the scale as there are kernels.
        factor = variances ** (-0.5 / len(kernels))
        for kernel in kernels:
            units = kernel.shape[-1] // pieces
            scale = np.tile(factor, units) if pieces > 1 else factor
            kernel.assign(keras.ops.convert_to_numpy(kernel) * scale)
    if not near:
        told = f"{layer.name} has variance {variances} after {iteration} iterations"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
    return Scaled(layer.name, tuple(float(v) for v in variances), iteration)


def _orthonormal(layer, kernel, pieces, rng) -> np.ndarray:
    """Draw a kernel of which each matrix (fan-in, outputs) is orthonormal."""
    shape = tuple(kernel.shape)
    fan_in, last = int(np.prod(shape[:-1])), shape[-1]
    if isinstance(layer, TRANSPOSED):  # (…, filters, channels of the input)
        filters, channels = shape[-2:]
        window = fan_in // filters
        (matrix,) = orthonormal(1, window * channels, filters, rng)
        matrix = matrix.reshape(window, channels, filters).swapaxes(1, 2)
        return matrix.reshape(shape)
    depthwise = kernel is getattr(layer, "depthwise_kernel", None)
    if depthwise or isinstance(layer, DEPTHWISE):  # (…, channels, multiplier)
        channels = shape[-2]
        matrices = orthonormal(channels, fan_in // channels, last, rng)
        return matrices.swapaxes(0, 1).reshape(shape)
    groups = getattr(layer, "groups", 1)
    matrices = orthonormal(groups * pieces, fan_in, last // (groups * pieces), rng)
    # Groups are runs of neighbouring filters; neighbours are pieces of one unit.
    axes = (groups, pieces, fan_in, last // (groups * pieces))
    return matrices.reshape(axes).transpose(2, 0, 3, 1).reshape(shape)


def orthonormal(number, rows, columns, rng: np.random.Generator) -> np.ndarray:
    """Draw float32 (number, rows, columns), uniform over all orthonormal matrices."""
    long, short = max(rows, columns), min(rows, columns)
    gaussian = rng.standard_normal((number, long, short))
    q, r = np.linalg.qr(gaussian)
    # The signs of the diagonal make the decomposition unique, and Q uniform.
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return (q if rows >= columns else q.swapaxes(1, 2)).astype(np.float32)


def _walk(graph, tensors) -> list:
    """Run a functional model; forget a tensor when its last reader has read it.

    Keras keeps all until the end, which is gigabytes for a deep network.
    """
    nodes = [
        node
        for depth in sorted(graph._nodes_by_depth, reverse=True)
        for node in graph._nodes_by_depth[depth]
        if node.operation is not None and not node.is_input
    ]
    last = {id(x): i for i, node in enumerate(nodes) for x in node.input_tensors}
    last |= {id(x): len(nodes) for x in graph.outputs}
    values = {
        id(x): keras.ops.cast(value, x.dtype)
        for x, value in zip(graph.inputs, tensors, strict=True)
    }
    del tensors
    for i, node in enumerate(nodes):
        args, kwargs = node.arguments.fill_in(values)
        inner = functional(node.operation)
        told = any(value is not None for value in kwargs.values())
        if inner is None or told:  # such as training=False
            outputs = node.operation(*args, **kwargs)
        else:
            outputs = _walk(inner, keras.tree.flatten(args))
        for x, value in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            if id(x) in last:
                values[id(x)] = value
        del args, kwargs, outputs, value
        for x in node.input_tensors:
            if last[id(x)] == i:
                values.pop(id(x), None)
    return [values[id(x)] for x in graph.outputs]


def prepare(model, data, recipe, seed: int) -> None:
    """Adapt the layers of a named network, and initialise it as its recipe says."""
    sample = data.train
    if not isinstance(sample, Images):
        sample = sample.take(IMAGES, seed=seed)
    adapt_layers(model, sample.x)
    if recipe.initialization == "lsuv":
        lsuv(model, sample, seed=seed)


def adapt_layers(model, images: np.ndarray) -> list[str]:
    """Adapt the layers of a new model that have the Keras method `adapt`.

    In the order of the model, each on the features that reach it. A layer without
    variables has its values from the builder and is left alone. Returns the names of
    the adapted layers. Raises ValueError where one is inside a nested model.
    """
    inside = model._flatten_layers(include_self=False)
    found = [one for one in inside if hasattr(one, "adapt") and one.variables]
    for layer in found:
        if not any(layer is own for own in model.layers):
            told = f"{layer.name} has to be adapted and is inside a model in"
            raise ValueError(f"{told} {model.name}: build that from layers alone")
        features = images[:IMAGES]
        if not any(layer.input is tensor for tensor in model.inputs):
            before = keras.Model(model.inputs[0], layer.input)
            features = before.predict(features, batch_size=250, verbose=0)
        layer.adapt(np.asarray(features, np.float32))
    return [layer.name for layer in found]


def normalizations(model) -> list:
    """Return the batch normalisations of a model that learn their statistics."""
    inside = model._flatten_layers(include_self=False)
    kind = layers.BatchNormalization
    return [one for one in inside if isinstance(one, kind) and one.trainable]


def measure_statistics(model, images, number: int, batch_size: int, seed: int) -> None:
    """Measure the statistics of the batch normalisations anew, on `number` images.

    Behind dropout they were learnt of features that dropout had spread, and of weights
    that were averaged they were not learnt at all. The result is the mean over the
    batches, each normalised by its own statistics, with dropout off (Izmailov et al.,
    arXiv 1803.05407, section 3.2). What is left over of a batch is not used.
    """
    if isinstance(images, Images):
        order = np.random.default_rng(seed).permutation(len(images))
        x = images.x[order[:number]]
    else:
        x = images.take(number, seed=seed).x
    dropouts = (layers.Dropout, layers.GaussianDropout, layers.AlphaDropout)
    learnt = normalizations(model)
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers(include_self=False):
            if isinstance(layer, dropouts):
                stack.callback(setattr, layer, "rate", layer.rate)
                layer.rate = 0.0
        for layer in learnt:
            stack.callback(setattr, layer, "momentum", layer.momentum)
        for done in range(max(1, len(x) // batch_size)):
            for layer in learnt:
                layer.momentum = done / (done + 1)
            batch = x[done * batch_size : (done + 1) * batch_size]
            model(batch.astype("float32"), training=True)
