"""What a call of a layer costs: multiply-accumulates, depth; None where unknown.

A layer of another kind than Keras' own says it itself, where its class has the
attribute `kerascnn_costs = True` and, of these methods, those that it needs:

    macs(input_shape, output_shape) -> int      for one image; shapes with the batch;
                                                without it, a layer without kernels: 0
    window() -> ((height, width), (stride, stride))
    parameter_expression() -> str               such as "3·3·16·32 + 32"
"""

import math

from kerascnn.graph import Call, Graph


def names(text: str, axes: str = "") -> tuple[str, ...]:
    """Names of classes, each with every number of axes where they are given."""
    ends = [f"{number}D" for number in axes] or [""]
    return tuple(name + end for name in text.split() for end in ends)


# Layers whose weights are no kernels: nothing is multiplied and accumulated.
NORMALISATION = names(
    "BatchNormalization GroupNormalization LayerNormalization Normalization "
    "RMSNormalization UnitNormalization"
)
# Layers that hand the numbers on: most do something in training alone.
HANDED_ON = names("ActivityRegularization AlphaDropout Dropout GaussianDropout")
HANDED_ON += names("GaussianNoise Identity") + names("SpatialDropout", axes="123")
# Keras' own layers that multiply and accumulate nothing, by the module that has their
# `call`, with those of other modules, and less those that do.
_FREE_LAYERS = names(
    "activations merging normalization pooling preprocessing regularization reshaping"
)
_FREE = names("Embedding Identity Masking")
_NOT_FREE = names(
    "Dot FeatureSpace MelSpectrogram Pipeline ReversibleEmbedding STFTSpectrogram "
    "SpectralNormalization"
)
# The same of bare operations, such as `x + y`.
_FREE_MODULES = names("einops nn numpy")
_FREE_OPERATIONS = names(
    "Cast ConvertToTensor CropImages Erf Erfc Erfinv ExtractPatches ExtractSequences "
    "InTopK Logsumexp Norm PadImages Resize Rsqrt SaturateCast Scatter ScatterUpdate "
    "SegmentMax SegmentMin SegmentSum Slice SliceUpdate StopGradient TopK Unstack"
)
_PRODUCTS = names(
    "Conv ConvTranspose Corrcoef Correlate Cross DepthwiseConv Dot DotProductAttention "
    "Einsum Inner Kron Matmul Outer SeparableConv Tensordot Vdot"
)
CONVOLUTIONS = names("Conv DepthwiseConv SeparableConv", axes="123")
TRANSPOSED = tuple(f"{name}Transpose" for name in names("Conv", axes="123"))


def macs(call: Call) -> int | None:
    """Count the multiply-accumulates of a call, forward, for one image.

    Products with a padding's zeros are counted; biases, normalisation, pooling and
    activations are not. None for recurrent layers, wrappers and open sizes.
    """
    layer = call.operation
    shapes_in = [tuple(x.shape) for x in call.inputs]
    shapes_out = [tuple(x.shape) for x in call.outputs]
    known = all(None not in shape[1:] for shape in (*shapes_in, *shapes_out))
    if takes_part(layer):
        if not hasattr(layer, "macs"):
            return None if _kernels(layer) else 0
        shapes = (s[0] if len(s) == 1 else s for s in (shapes_in, shapes_out))
        return int(layer.macs(*shapes)) if known else None
    if is_free(layer):
        return 0
    if is_a(layer, ("EinsumDense",)) and None not in shapes_in[0][1:]:
        # All sizes of the images, and those of the kernel that they do not share.
        images, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
        letters = zip(kernel, layer.kernel.shape, strict=True)
        own = (size for letter, size in letters if letter not in images)
        return math.prod(shapes_in[0][1:]) * math.prod(own)
    if not known:
        return None
    if is_a(layer, (*CONVOLUTIONS, *TRANSPOSED, "Dense")):
        return _products(layer, shapes_in[0], shapes_out[0])
    dot = getattr(layer, "score_mode", None) == "dot"
    if dot and is_a(layer, ("Attention",)) and not is_a(layer, ("AdditiveAttention",)):
        # Scores of each query with each key, and sums of the values by them.
        (_, *places, size), value, *_ = shapes_in
        return math.prod(places) * value[-2] * (size + value[-1])
    return None


def takes_part(layer) -> bool:
    """Tell whether a layer says its own costs, by the protocol of this module."""
    kinds = type(layer).__mro__
    said = next((kind for kind in kinds if "kerascnn_costs" in vars(kind)), None)
    # A subclass that computes otherwise has to say so anew.
    called = next((kind for kind in kinds if "call" in vars(kind)), object)
    speaks = said is not None and vars(said)["kerascnn_costs"]
    return speaks and issubclass(said, called)


def is_free(layer) -> bool:
    """Whether a layer or operation of Keras is known to multiply nothing."""
    name = type(layer).__name__
    if not hasattr(layer, "weights"):
        root, *_, module = type(layer).__module__.split(".")
        listed = module in _FREE_MODULES and name not in _PRODUCTS
        return root == "keras" and (listed or name in _FREE_OPERATIONS)
    if is_a(layer, _NOT_FREE) or not is_a(layer, ("Layer",)):
        return False
    parts = type(layer).call.__module__.split(".")
    listed = any(part in _FREE_LAYERS for part in parts) and not _kernels(layer)
    return listed or is_a(layer, _FREE)


def _kernels(layer) -> list:
    """The weights that may be kernels: vectors (biases, scales, slopes) are none."""
    if is_a(layer, (*NORMALISATION, "Embedding", "PReLU")):
        return []
    return [w for w in getattr(layer, "weights", ()) if len(w.shape) > 1]


def _products(layer, shape_in, shape_out) -> int:
    # A transposed convolution lays its kernel down once for each input pixel.
    shape = shape_in if is_a(layer, TRANSPOSED) else shape_out
    first = getattr(layer, "data_format", None) == "channels_first"
    places = math.prod(shape[2:] if first else shape[1:-1])
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    kernels = [k for n in names if (k := getattr(layer, n, None)) is not None]
    return places * sum(math.prod(kernel.shape) for kernel in kernels)


def depths(graph: Graph) -> dict[int, int]:
    """For each tensor's `id`, the most layers with kernels on a way to it."""
    found = {id(x): 0 for x in graph.inputs}
    for call in graph.calls:
        before = max((found[id(x)] for x in call.inputs), default=0)
        found |= {id(x): before + weighted(call) for x in call.outputs}
    return found


def depth(graph: Graph) -> int:
    """Count the layers with kernels on the longest way, as papers do: 19 for VGG19."""
    found = depths(graph)
    return max(found[id(x)] for x in graph.outputs)


def weighted(call: Call) -> bool:
    """Tell whether a call is of a layer with kernels, as `depth` counts them."""
    return bool(_kernels(call.operation)) and macs(call) != 0


def is_a(layer, names) -> bool:
    """Whether a layer is one of Keras' own, or a subclass that computes like it."""
    from keras import layers

    kinds = tuple(getattr(layers, name) for name in names if hasattr(layers, name))
    return isinstance(layer, kinds) and computes_as_keras(layer)


def computes_as_keras(layer) -> bool:
    """Whether a layer does what Keras' own class does: a subclass may do otherwise."""
    call = getattr(type(layer), "call", None)
    return call is not None and call.__module__.split(".")[0] == "keras"
