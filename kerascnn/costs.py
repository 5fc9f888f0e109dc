"""What a call of a layer costs and sees: multiply-accumulates, depth, receptive field.

A layer of another kind than Keras' own says it itself, where its class has the
attribute `kerascnn_costs = True` and, of these methods, those that it needs:

    macs(input_shape, output_shape) -> int      for one image; shapes with the batch;
                                                without it, a layer without kernels: 0
    window() -> ((height, width), (stride, stride))
    parameter_expression() -> str               such as "3·3·16·32 + 32"

Methods of these names in other layers mean something else and are not called. What is
neither known nor said is None, never a guess.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from kerascnn.graph import Call, Graph, longest


def _names(text: str, axes: str = "") -> tuple[str, ...]:
    """Names of classes, each with every number of axes where they are given."""
    names = text.split()
    return tuple(f"{n}{a}D" for n in names for a in axes) if axes else tuple(names)


# Layers whose weights are no kernels: nothing is multiplied and accumulated.
_NORMALISATION = _names(
    "BatchNormalization GroupNormalization LayerNormalization Normalization "
    "RMSNormalization UnitNormalization"
)
# Keras' own layers that multiply and accumulate nothing, by the module that has their
# `call`, with those of other modules, and less those that do.
_FREE_LAYERS = _names(
    "activations merging normalization pooling preprocessing regularization reshaping"
)
_FREE = _names("Embedding Identity Masking")
_NOT_FREE = _names(
    "Dot FeatureSpace MelSpectrogram Pipeline ReversibleEmbedding STFTSpectrogram "
    "SpectralNormalization"
)
# The same of bare operations, such as `x + y`.
_FREE_MODULES = _names("einops nn numpy")
_FREE_OPERATIONS = _names(
    "Cast ConvertToTensor CropImages Erf Erfc Erfinv ExtractPatches ExtractSequences "
    "InTopK Logsumexp Norm PadImages Resize Rsqrt SaturateCast Scatter ScatterUpdate "
    "SegmentMax SegmentMin SegmentSum Slice SliceUpdate StopGradient TopK Unstack"
)
_PRODUCTS = _names(
    "Conv ConvTranspose Corrcoef Correlate Cross DepthwiseConv Dot DotProductAttention "
    "Einsum Inner Kron Matmul Outer SeparableConv Tensordot Vdot"
)
_CONVOLUTIONS = _names("Conv DepthwiseConv SeparableConv", axes="123")
_TRANSPOSED = tuple(f"{name}Transpose" for name in _names("Conv", axes="123"))


def macs(call: Call) -> int | None:
    """Count the multiply-accumulates of a call, forward, for one image.

    Convolutions, dense layers and attention are counted, products with the zeros of a
    padding among them; biases, normalisation, pooling, interpolation and activations
    are not. None is what cannot be counted: a layer of another kind that does not say
    it, recurrent layers, wrappers, sizes that the model leaves open.
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
    if _is(layer, ("EinsumDense",)):
        return None if None in shapes_in[0][1:] else _einsum(layer, shapes_in[0])
    if not known:
        return None
    if _is(layer, (*_CONVOLUTIONS, *_TRANSPOSED, "Dense")):
        return _products(layer, shapes_in[0], shapes_out[0])
    if _is(layer, ("Attention",)) and not _is(layer, ("AdditiveAttention",)):
        return _attention(*shapes_in) if layer.score_mode == "dot" else None
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
    if _is(layer, _NOT_FREE) or not _is(layer, ("Layer",)):
        return False
    parts = type(layer).call.__module__.split(".")
    listed = any(part in _FREE_LAYERS for part in parts) and not _kernels(layer)
    return listed or _is(layer, _FREE)


def _kernels(layer) -> list:
    """The weights that may be kernels: vectors (biases, scales, slopes) are none."""
    if _is(layer, (*_NORMALISATION, "Embedding", "PReLU")):
        return []
    return [w for w in getattr(layer, "weights", ()) if len(w.shape) > 1]


def _attention(query, value, key=None) -> int:
    """Scores of each query with each key, and sums of the values by them."""
    *places, depth = query[1:]
    pairs = math.prod(places) * value[-2]
    return pairs * depth + pairs * value[-1]


def _products(layer, shape_in, shape_out) -> int:
    if _is(layer, ("Dense",)):
        places = shape_out[1:-1]
    elif _is(layer, _TRANSPOSED):
        # A transposed convolution lays its kernel down once for each input pixel.
        places = _spatial(layer, shape_in)
    else:
        places = _spatial(layer, shape_out)
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    kernels = [k for n in names if (k := getattr(layer, n, None)) is not None]
    return math.prod(places) * sum(math.prod(kernel.shape) for kernel in kernels)


def _einsum(layer, shape_in) -> int:
    """Multiply the sizes of all letters of the equation, the batch left out."""
    images, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    sizes = list(zip(kernel, layer.kernel.shape, strict=True))
    head, _, tail = images.partition("...")
    # Sizes under the ellipsis have no letter: their positions stand in.
    middle = range(len(shape_in) - len(head) - len(tail))
    sizes += zip([*head, *middle, *tail], (1, *shape_in[1:]), strict=True)
    return math.prod(dict(sizes).values())


def depth(graph: Graph) -> int:
    """Count the layers with weights on the longest way through a network.

    As the papers count it: 19 for VGG19, 22 for GoogLeNet. Layers that neither convolve
    nor are fully connected are left out: normalisation, learned activations, poolings.
    A layer that is passed twice counts twice.
    """
    lengths = longest(graph, [call for call in graph.calls if weighted(call)])
    return max(lengths[id(x)] for x in graph.outputs)


def weighted(call: Call) -> bool:
    """Tell whether a call is of a layer with kernels, as `depth` counts them."""
    return bool(_kernels(call.operation)) and macs(call) != 0


# What an output value depends on where it is the whole image.
ALL = "all"


@dataclass(frozen=True)
class Field:
    """A receptive field: along each axis its pixels, and the step to the next one."""

    size: tuple[Fraction, ...]
    jump: tuple[Fraction, ...]

    def through(self, windows) -> "Field":
        """Look through (window, stride, dilation) of each axis."""
        size, jump = [], []
        for s, j, (window, stride, dilation) in zip(
            self.size, self.jump, windows, strict=True
        ):
            size.append(s + (window - 1) * dilation * j)
            jump.append(j * stride)
        return Field(tuple(size), tuple(jump))

    @property
    def pixels(self) -> tuple[int, ...]:
        """Whole pixels along each axis."""
        return tuple(math.ceil(s) for s in self.size)


# Layers whose output pixel depends on the input pixel in its place only. Normalisation
# is among them: its statistics are those of the training, or left out, as in `depth`.
_POINTWISE = (
    *_NORMALISATION,
    *_names(
        "Activation ActivityRegularization Add AlphaDropout Average Concatenate "
        "Dropout ELU Flatten GaussianDropout GaussianNoise Identity LeakyReLU Maximum "
        "Minimum Multiply PReLU ReLU Rescaling Softmax Subtract"
    ),
    *_names("Cropping SpatialDropout ZeroPadding", axes="123"),
)
# The same among bare operations, as `x + y` and `keras.ops.relu(x)` leave them.
_POINTWISE_OPERATIONS = _names(
    "Abs Absolute Add Cast Clip Concatenate Divide Elu Exp Gelu HardSigmoid HardSilu "
    "HardTanh LeakyRelu Log LogSigmoid Maximum Minimum Multiply Negative Pad Power "
    "Relu Relu6 Selu Sigmoid Sign Silu Softplus Sqrt Square Subtract Tanh TrueDivide "
    "Where"
)
_EVERYTHING = (
    *_names("GlobalAveragePooling GlobalMaxPooling", axes="123"),
    *_names("AdditiveAttention Attention GroupQueryAttention MultiHeadAttention"),
)
_POOLINGS = _names("AveragePooling MaxPooling", axes="123")


def receptive_fields(graph: Graph) -> dict[int, Field | str | None]:
    """Work out the receptive field of every tensor of a network.

    Where branches meet, the largest field of the branches holds.

    Args:
        graph: what `kerascnn.graph.trace` returned.

    Returns:
        By `id` of the tensor: its field, `ALL` where each value depends on the whole
        image, or None where it is unknown. Fields are not cut at the image's border.
    """
    fields = {}
    for x in graph.inputs:
        ones = (Fraction(1),) * max(len(x.shape) - 2, 0)
        fields[id(x)] = Field(ones, ones)
    for call in graph.calls:
        field = seen(call, largest([fields[id(x)] for x in call.inputs]))
        fields.update({id(x): field for x in call.outputs})
    return fields


def largest(fields) -> Field | str | None:
    """Return the largest of several fields: `ALL`, or the most along each axis."""
    if ALL in fields:
        return ALL
    if not fields or None in fields or len({len(f.size) for f in fields}) > 1:
        return None
    return Field(
        tuple(map(max, zip(*(f.size for f in fields), strict=True))),
        tuple(map(max, zip(*(f.jump for f in fields), strict=True))),
    )


def seen(call: Call, field: Field | str | None) -> Field | str | None:
    """Work out the receptive field of a call's output from that of its input."""
    layer = call.operation
    rank = len(call.inputs[0].shape) if call.inputs else 0
    if field == ALL or _is(layer, _EVERYTHING):
        return ALL
    if _is(layer, ("Dense", "EinsumDense")) and rank == 2:
        return ALL
    if field is None:
        return None
    if takes_part(layer) and hasattr(layer, "window"):
        (sizes, strides) = layer.window()
        return _through(field, sizes, strides, (1,) * len(sizes))
    if _is(layer, _CONVOLUTIONS):
        return _through(field, layer.kernel_size, layer.strides, layer.dilation_rate)
    if _is(layer, _TRANSPOSED):
        return _spread(field, layer.kernel_size, layer.strides)
    if _is(layer, _POOLINGS):
        return _through(
            field, layer.pool_size, layer.strides, (1,) * len(layer.pool_size)
        )
    if type(layer).__name__ == "GetItem":
        return _sliced(field, call, rank)
    pointwise = _is(layer, (*_POINTWISE, "Dense"))
    if not hasattr(layer, "weights"):
        pointwise = type(layer).__name__ in _POINTWISE_OPERATIONS
    return field if pointwise else None


def _through(field: Field, sizes, strides, dilations) -> Field | None:
    if len(sizes) != len(field.size):
        return None
    return field.through(list(zip(sizes, strides, dilations, strict=True)))


def _spread(field: Field, sizes, strides) -> Field | None:
    """A transposed convolution: an output pixel meets every stride-th weight."""
    if len(sizes) != len(field.size):
        return None
    return field.through(
        [
            (math.ceil(Fraction(k, s)), Fraction(1, s), 1)
            for k, s in zip(sizes, strides, strict=True)
        ]
    )


def _sliced(field: Field, call: Call, rank: int) -> Field | None:
    """`x[:, ::2, ::2]` takes every second pixel."""
    keys = call.arguments[1] if len(call.arguments) > 1 else None
    keys = keys if isinstance(keys, tuple) else (keys,)
    if not all(isinstance(key, slice) for key in keys) or rank != len(field.size) + 2:
        return None
    steps = [abs(key.step or 1) for key in keys] + [1] * (rank - len(keys))
    # Channels last, as bare operations do not say where the channels are.
    return field.through([(1, step, 1) for step in steps[1:-1]])


def _spatial(layer, shape) -> tuple[int, ...]:
    """Sizes without batch and channels."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return tuple(shape[2:] if first else shape[1:-1])


def _is(layer, names) -> bool:
    """Whether a layer is one of Keras' own, or a subclass that computes like it."""
    import keras

    kinds = tuple(
        getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)
    )
    if not isinstance(layer, kinds):
        return False
    return type(layer).call.__module__.split(".")[0] == "keras"
