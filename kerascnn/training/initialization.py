"""What is made of training images beside the training: LSUV, layers, statistics.

LSUV, under which every layer's output has variance 1: Mishkin and Matas, "All you need
is a good init", ICLR 2016, arXiv 1511.06422.
"""

import contextlib
import warnings
from dataclasses import dataclass

import keras
import numpy as np

from kerascnn.data import Images
from kerascnn.graph import functional, trace
from kerascnn.training import checkpoint
from zoo.layers import Maxout

SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
PLAIN = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
# Less than this is nothing but rounding: the layer says the same of every image.
DEAD = 1e-12
# What the patch whitening of airbench is computed from (arXiv 2404.00498, section 3.2).
IMAGES = 5_000


@dataclass(frozen=True)
class Scaled:
    """What LSUV made of a layer.

    Attributes:
        layer: its name.
        variances: variance of its output before the activation, one value; before a
            maxout one for each piece.
        iterations: how often the weights were divided by its square root.
    """

    layer: str
    variances: tuple[float, ...]
    iterations: int


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

    Layer-sequential unit-variance initialisation (arXiv 1511.06422, algorithm 1). The
    weights of all convolutions and dense layers are replaced: kernels by random
    orthonormal matrices (fan-in, filters), biases by zeros. Then, in the order of the
    graph, a layer's kernel is divided by the standard deviation of its output before
    the activation, over the images and all its elements, until the variance is 1; the
    layers behind see what it says then. The mean is not touched. All in one pass, in
    which a tensor is kept until its last reader has read it.

    - The kernel of a convolution in groups is one matrix a group, of a depthwise one
      (window, multiplier) a channel. A transposed convolution's is (window · channels
      of the input, filters). Both kernels of a separable convolution share the factor.
    - Where the output goes to a `Maxout`, directly or through batch normalisation,
      each of its pieces is a layer of its own: a matrix (fan-in, units) and a factor.
    - Batch normalisation keeps its variables; while the layers behind it are scaled it
      normalises with the statistics of the batch, as it will in training, unless it is
      frozen or called with training=False. Dropout is off.
    - A layer that is used several times gets variance 1 where it is used first.
    - Layers inside other layers and models are found; frozen layers and other layers
      with weights (embeddings, recurrent layers, kernels that a custom layer owns
      itself) are left as they are.

    Args:
        model: a built functional or Sequential `keras.Model` of one input; changed in
            place, or left as it was where there is an error.
        images: `Images` or an array (N, …) of training images; "N, height, width,
            channels" with pixels 0…255 for the networks of the zoo.
        tolerance: how far from 1 a variance may stay; 0.02 in the authors' code.
        iterations: how often to divide at most; 20 in the authors' code. One is enough
            but for rounding.
        batch: number of images, drawn without replacement from `images` where there
            are more. They pass the network at once.
        seed: of the matrices and of the choice of images.

    Returns:
        What became of each layer, in the order of the graph. Warns with a
        RuntimeWarning where a variance is not within the tolerance in the end.

    Raises:
        ValueError: the model cannot be walked or has no such layer, the images do not
            fit it, or the output of a layer does not vary at all.
    """
    graph = functional(model)
    if graph is None or not model.built:
        raise ValueError(
            "lsuv needs a built functional or Sequential model; received "
            f"{model.name}, {type(model).__name__}"
        )
    if not tolerance > 0 or iterations < 1 or batch < 2:
        raise ValueError(
            "tolerance must be above 0, iterations 1 or more and batch 2 or more; "
            f"received {tolerance}, {iterations} and {batch}"
        )
    rng = np.random.default_rng(seed)
    x = _inputs(graph, model.name, images, batch, seed)
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, PLAIN + TRANSPOSED + DEPTHWISE + SEPARABLE)
        and layer.trainable
    ]
    if not layers:
        raise ValueError(
            f"{model.name} has no convolution and no dense layer that can be trained: "
            "there is nothing to initialise"
        )
    scaling = _Scaling(_pieces(model), tolerance, iterations, rng)
    before = checkpoint.values(model.variables)
    # Moving averages and the states of random generators, which a pass may change.
    passing = {id(variable) for variable in model.non_trainable_variables}
    done = False
    try:
        with contextlib.ExitStack() as stack:
            for layer in model._flatten_layers(include_self=False):
                if isinstance(layer, keras.layers.BatchNormalization):
                    stack.enter_context(_replaced(layer, "call", _by_batch(layer)))
            for layer in layers:
                call = scaling.hook(layer)
                stack.enter_context(_replaced(layer, "call", call))
            _walk(graph, [x])
        done = True
    except Exception:
        if scaling.failure:  # without what Keras adds about the call of the layer
            raise ValueError(f"{model.name}: {scaling.failure}") from None
        raise
    finally:
        for variable, value in zip(model.variables, before, strict=True):
            if not done or id(variable) in passing:
                variable.assign(value)
    return scaling.report


def _inputs(graph, name, images, batch, seed):
    images = images.x if isinstance(images, Images) else np.asarray(images)
    if len(graph.inputs) != 1:
        raise ValueError(
            f"lsuv needs a model of one input; {name} has {len(graph.inputs)}"
        )
    own = graph.inputs[0].shape[1:]
    fits = len(own) == images.ndim - 1 and all(
        o in (None, s) for o, s in zip(own, images.shape[1:], strict=True)
    )
    if not fits or len(images) < 2:
        raise ValueError(
            f"{name} takes images {own}, two or more; received {images.shape}"
        )
    if len(images) > batch:
        # A stream of its own: the matrices do not depend on the number of images.
        rng = np.random.default_rng((seed, 1))
        images = images[np.sort(rng.choice(len(images), batch, replace=False))]
    return keras.ops.convert_to_tensor(images, dtype=graph.inputs[0].dtype)


def _pieces(model) -> dict[int, int]:
    """Find the layers that go to a maxout: its number of pieces by id of the layer."""
    calls = trace(model).calls
    makers = {id(x): call for call in calls for x in call.outputs}
    found = {}
    for call in calls:
        if not isinstance(call.operation, Maxout):
            continue
        before = makers.get(id(call.inputs[0]))
        while before and isinstance(before.operation, keras.layers.BatchNormalization):
            before = makers.get(id(before.inputs[0]))
        if before and isinstance(before.operation, PLAIN):
            found[id(before.operation)] = call.operation.pieces
    return found


class _Scaling:
    """Initialises each layer when it is called first; remembers what it did."""

    def __init__(self, pieces, tolerance, iterations, rng):
        self.pieces = pieces
        self.tolerance = tolerance
        self.iterations = iterations
        self.rng = rng
        self.report: list[Scaled] = []
        self.failure = ""
        self._done: set[int] = set()

    def hook(self, layer):
        """Return what stands in for `layer.call` during the walk."""
        call = layer.call

        def initialize_and_call(inputs, *args, **kwargs):
            if id(layer) not in self._done:
                self._done.add(id(layer))
                # The activation is fused into the layer: without it for a while.
                with _replaced(layer, "activation", keras.activations.linear):
                    self._scale(layer, lambda: call(inputs, *args, **kwargs))
            return call(inputs, *args, **kwargs)

        return initialize_and_call

    def _scale(self, layer, output):
        pieces = self.pieces.get(id(layer), 1)
        kernels = _kernels(layer)
        for kernel in kernels:
            kernel.assign(_orthonormal(layer, kernel, pieces, self.rng))
        if layer.bias is not None:
            layer.bias.assign(np.zeros(layer.bias.shape))
        for iteration in range(self.iterations + 1):
            values = keras.ops.cast(output(), "float32")
            values = keras.ops.reshape(values, (-1, pieces))
            variances = keras.ops.convert_to_numpy(keras.ops.var(values, axis=0))
            if not (variances > DEAD).all():  # nor where it is not a number
                self.failure = (
                    f"the output of {layer.name} does not vary over the images "
                    f"(variance {variances.min():g}), so that it cannot be scaled to "
                    "1; give other images, or look at the layers before it: one that "
                    "is zero, or a rectifier that nothing passes"
                )
                raise ValueError(self.failure)
            near = (np.abs(variances - 1) <= self.tolerance).all()
            if near or iteration == self.iterations:
                break
            # The output is as many times linear in the scale as there are kernels.
            factor = variances ** (-0.5 / len(kernels))
            for kernel in kernels:
                units = kernel.shape[-1] // pieces
                scale = np.tile(factor, units) if pieces > 1 else factor
                kernel.assign(keras.ops.convert_to_numpy(kernel) * scale)
        if not near:
            warnings.warn(
                f"{layer.name} has variance {variances} after {iteration} iterations",
                RuntimeWarning,
                stacklevel=2,
            )
        found = tuple(float(v) for v in variances)
        self.report.append(Scaled(layer.name, found, iteration))


def _kernels(layer) -> list:
    if isinstance(layer, SEPARABLE):
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [layer.kernel]


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
    if kernel is getattr(layer, "depthwise_kernel", None) or isinstance(
        layer, DEPTHWISE
    ):  # (…, channels, multiplier)
        channels = shape[-2]
        matrices = orthonormal(channels, fan_in // channels, last, rng)
        return matrices.swapaxes(0, 1).reshape(shape)
    groups = getattr(layer, "groups", 1)
    matrices = orthonormal(groups * pieces, fan_in, last // (groups * pieces), rng)
    # Groups are runs of neighbouring filters; neighbours are pieces of one unit.
    axes = (groups, pieces, fan_in, last // (groups * pieces))
    return matrices.reshape(axes).transpose(2, 0, 3, 1).reshape(shape)


def orthonormal(number, rows, columns, rng: np.random.Generator) -> np.ndarray:
    """Draw matrices with orthonormal columns; of more columns than rows, rows.

    Returns:
        float32 (number, rows, columns), each uniform over all such matrices.
    """
    long, short = max(rows, columns), min(rows, columns)
    gaussian = rng.standard_normal((number, long, short))
    q, r = np.linalg.qr(gaussian)
    # The signs of the diagonal make the decomposition unique, and Q uniform.
    q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return (q if rows >= columns else q.swapaxes(1, 2)).astype(np.float32)


def _by_batch(layer):
    """Return a call of batch normalisation that normalises by the batch's statistics.

    Where it is frozen, Keras takes the moving ones all the same.
    """
    call = layer.call

    def call_in_training(inputs, training=None, mask=None):
        training = True if training is None else training
        return call(inputs, training=training, mask=mask)

    return call_in_training


@contextlib.contextmanager
def _replaced(thing, name, value):
    """Set an attribute; afterwards restore it, or delete it where it was the class's.

    Methods are looked up in the object first, so a method can be stood in for.
    """
    own = vars(thing)
    had, before = name in own, own.get(name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        if had:
            setattr(thing, name, before)
        else:
            delattr(thing, name)


def _walk(graph, tensors) -> list:
    """Run a functional model; forget a tensor when its last reader has read it.

    Keras keeps every tensor of a model until its end, which at a few hundred images is
    gigabytes for a deep network.
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

    In the order of the model, each on the features that reach it, so that a layer sees
    what the adapted layers before it make. A layer without variables was given its
    values by the builder (`keras.layers.Normalization(mean=…, variance=…)`) and is
    left alone.

    Returns:
        The names of the adapted layers.

    Raises:
        ValueError: such a layer is inside a nested model.
    """
    found = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if hasattr(layer, "adapt") and layer.variables
    ]
    for layer in found:
        if not any(layer is own for own in model.layers):
            raise ValueError(
                f"{layer.name} has to be adapted and is inside a nested model of "
                f"{model.name}: build {model.name} from layers, not from models"
            )
        layer.adapt(_features(model, layer, images[:IMAGES]))
    return [layer.name for layer in found]


def _features(model, layer, images):
    """Return what reaches a layer: float32 (N, …)."""
    if any(layer.input is tensor for tensor in model.inputs):
        return images.astype(np.float32)
    before = keras.Model(model.inputs[0], layer.input)
    return np.asarray(before.predict(images, batch_size=250, verbose=0), np.float32)


def normalizations(model) -> list:
    """Return the batch normalisations of a model that learn their statistics."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def measure_statistics(model, images, number: int, batch_size: int, seed: int) -> None:
    """Measure the means and variances of the batch normalisations anew.

    Behind dropout they were learnt of features that dropout had spread, and of weights
    that were averaged they were not learnt at all. The result is the mean over the
    batches, each normalised by its own statistics, with dropout off: Izmailov et al.,
    "Averaging Weights Leads to Wider Optima", arXiv 1803.05407, section 3.2.

    Args:
        model: a trained model.
        images: the training images, `Images` or streamed.
        number: how many of them are drawn.
        batch_size: of the training; what is left over is not used.
        seed: of the draw.
    """
    if isinstance(images, Images):
        order = np.random.default_rng(seed).permutation(len(images))
        x = images.x[order[:number]]
    else:
        x = images.take(number, seed=seed).x
    momenta = {layer: layer.momentum for layer in normalizations(model)}
    dropouts = (keras.layers.Dropout, keras.layers.GaussianDropout)
    rates = {
        layer: layer.rate
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, (*dropouts, keras.layers.AlphaDropout))
    }
    try:
        for layer in rates:
            layer.rate = 0.0
        for done in range(max(1, len(x) // batch_size)):
            for layer in momenta:
                layer.momentum = done / (done + 1)
            batch = x[done * batch_size : (done + 1) * batch_size]
            model(batch.astype("float32"), training=True)
    finally:
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for layer, rate in rates.items():
            layer.rate = rate
