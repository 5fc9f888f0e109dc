"""A network and its numbers, packed into a page that computes it.

open_network → record → pack (calls, weights, maps, regions) → write (one HTML file)
"""

import base64
import hashlib
import html
import json
import re
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.arithmetic import output_size
from kerascnn.costs import macs
from kerascnn.data import read_image, shapes
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import prepared, record
from kerascnn.receptive_field import cut_before
from kerascnn.summary import summarize
from kerascnn.training.run import open_network

LIMIT = 20_000_000  # bytes of a page
SAMPLES = 6  # images of the built-in shapes
# In the order in which they are joined: each uses those before it.
MODULES = ("arrays", "layers", "resize", "cell", "strip", "own", "bench", "main")
# Activations that the page knows, by their name in Keras.
ACTIVATIONS = (
    *("elu", "exponential", "gelu", "leaky_relu", "linear", "relu", "relu6", "selu"),
    *("sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
)


class _Store:
    """Arrays one behind the other, each told by its type, place and length."""

    def __init__(self):
        self.bytes = bytearray()

    def add(self, values) -> dict:
        """Keep an array; as float16 where nothing is lost by it."""
        values = np.asarray(values)
        if values.dtype != np.uint8:
            values = values.astype(np.float32)
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if np.array_equal(half.astype(np.float32), values):
                values = half
        self.bytes += b"\0" * (-len(self.bytes) % 4)
        at = len(self.bytes)
        self.bytes += np.ascontiguousarray(values).tobytes()
        return {"type": values.dtype.str[1:], "at": at, "size": int(values.size)}


def pack(source, image=None) -> tuple[dict, bytes]:
    """Record a network on an image, as the page takes it.

    Args:
        source: a model, run, name of a shipped network, run folder or .keras file.
        image: file of an image; None for the first of the built-in samples.

    Returns:
        what JSON can hold, and the arrays that it points into. A call that the page
        cannot compute has the operation "recorded" and its values alone.

    Raises:
        ValueError: a network that is not one of images of a known size.
    """
    network = open_network(source)
    model = network.model
    if len(model.inputs) != 1 or None in (shape := tuple(model.inputs[0].shape[1:])):
        raise ValueError(
            f"the lab takes networks of one image of a known size; {network.name} "
            f"takes {[tuple(x.shape) for x in model.inputs]}"
        )
    if len(shape) not in (2, 3):
        raise ValueError(
            f"the lab takes networks of images; {network.name} takes {shape}"
        )
    height, width, channels = (*shape, 1)[:3]
    store = _Store()
    drawn, labels = shapes.generate(40, seed=23, image_size=(height, width))
    # One of each of the first classes, not several of one.
    first = [int(np.flatnonzero(labels == c)[0]) for c in (8, 1, 3, 0, 5, 9)][:SAMPLES]
    samples = [(shapes.LABELS[labels[i]], _channels(drawn[i], channels)) for i in first]
    if image is not None:
        given = read_image(image, (height, width), channels)
        samples.insert(0, (Path(image).name, given))
    seen = record(model, prepared(model, samples[0][1]))
    if seen.channels_first:
        raise ValueError(f"{network.name} has channels first; the lab takes them last")
    rows = {row.name: row for row in summarize(model, expand_nested=True).rows}
    makers = {id(x): -1 for x in seen.graph.inputs}
    calls = []
    for position, (name, call) in enumerate(zip(seen.names, seen.calls, strict=True)):
        values = seen.values(position)[0]
        inputs = [makers[id(x)] for x in call.inputs if id(x) in makers]
        known = len(inputs) == len(call.inputs) and len(call.outputs) == 1
        lowered = _lower(call, store) if known and values.ndim in (1, 3) else None
        row = rows.get(call.operation.name)
        calls.append(
            {
                "name": name,
                "kind": type(call.operation).__name__,
                "shape": list(values.shape),
                "inputs": inputs,
                "expression": row.expression if row else "",
                "parameters": row.parameters if row else 0,
                "macs": macs(call),
                "keras": store.add(values),
                "regions": _regions(seen, position, values.shape),
                **(lowered or {"op": "recorded"}),
            }
        )
        for x in call.outputs:
            makers.setdefault(id(x), position)
    data: dict[str, Any] = {
        "name": network.name,
        "shape": [height, width, channels],
        "labels": list(network.labels) if network.labels else None,
        "samples": [{"name": n, "pixels": store.add(x)} for n, x in samples],
        "answer": makers[id(seen.graph.outputs[0])],
        "parameters": model.count_params(),
        "calls": calls,
    }
    return data, bytes(store.bytes)


def _channels(image, channels: int) -> np.ndarray:
    if channels == 1:  # ITU-R BT.601
        grey = image @ np.array([0.299, 0.587, 0.114])
        return np.rint(grey).astype(np.uint8)[..., None]
    return image if channels == 3 else np.resize(image, (*image.shape[:2], channels))


def _regions(seen, position, shape) -> list | None:
    """The pixels that each row, and each column, of a map depends on."""
    if len(shape) != 3:
        found = region(seen, position, 0, 0)
        return found and [[list(found.rows)], [list(found.columns)], found.exact]
    rows, columns, exact = [], [], True
    # Rows and columns do not depend on one another: the diagonal has them all.
    for i in range(max(shape[:2])):
        at = (min(i, shape[0] - 1), min(i, shape[1] - 1))
        found = region(seen, position, *at)
        if found is None:
            return None
        across, down = found, found
        if not found.height:  # zeros of a padding: of the row, or of the column?
            across = region(seen, position, at[0], shape[1] // 2)
            down = region(seen, position, shape[0] // 2, at[1])
        rows.append(list(across.rows))
        columns.append(list(down.columns))
        exact = exact and found.exact
    return [rows[: shape[0]], columns[: shape[1]], exact]


def _numbers(variable) -> np.ndarray:
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


def _activation(layer) -> str | None:
    """The name of a layer's own activation; None for one that the page lacks."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return "linear"
    known = type(activation).__module__ == "builtins" or hasattr(activation, "__name__")
    name = getattr(activation, "__name__", "")
    own = getattr(activation, "__module__", "").startswith("keras.")
    return name if known and own and name in ACTIVATIONS else None


def _windows(layer, given, size=None) -> dict:
    """Window, stride, dilation and zeros before, of each axis."""
    size = size or layer.kernel_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    before = [
        output_size(n, k, s, layer.padding, d).before
        for n, k, s, d in zip(given[:2], size, layer.strides, dilation, strict=True)
    ]
    return {
        "window": list(size),
        "stride": list(layer.strides),
        "dilation": list(dilation),
        "before": before,
    }


def _lower(call, store) -> dict | None:
    """Say what a call computes in the page's terms; None where it has none.

    Convolutions of all kinds are one: those by channel have a group for each, those in
    two steps the product of both, a dense layer a window of one pixel.
    """
    layer, kind = call.operation, type(call.operation).__name__
    if type(layer).__module__.split(".")[0] not in ("keras", "zoo"):
        return None
    given = tuple(call.inputs[0].shape[1:]) if call.inputs else ()
    activation = _activation(layer)
    if activation is None:
        return None
    if hasattr(layer, "kernel") or hasattr(layer, "pointwise_kernel"):
        return _convolution(layer, kind, given, activation, store)
    if kind == "BatchNormalization" and layer.axis in (-1, len(given)):
        spread = np.sqrt(_numbers(layer.moving_variance).astype(float) + layer.epsilon)
        scale = (_numbers(layer.gamma) if layer.scale else 1.0) / spread
        shift = _numbers(layer.beta) if layer.center else 0.0
        offset = shift - _numbers(layer.moving_mean) * scale
        return {"op": "affine", "scale": store.add(scale), "bias": store.add(offset)}
    if kind == "LayerNormalization" and list(np.atleast_1d(layer.axis)) in (
        [-1],
        [len(given)],
    ):
        scale = _numbers(layer.gamma) if layer.scale else np.ones(given[-1])
        shift = _numbers(layer.beta) if layer.center else np.zeros(given[-1])
        parts = {"scale": store.add(scale), "bias": store.add(shift)}
        return {"op": "layernorm", "epsilon": layer.epsilon, **parts}
    if kind == "Rescaling":
        ones = np.ones(given[-1] if given else 1)
        scale, offset = (np.asarray(v, float) for v in (layer.scale, layer.offset))
        if max(scale.size, offset.size) not in (1, ones.size):
            return None
        parts = {"scale": store.add(scale * ones), "bias": store.add(offset * ones)}
        return {"op": "affine", **parts}
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        name = "max" if kind.startswith("Max") else "average"
        where = _windows(layer, given, tuple(layer.pool_size))
        return {"op": "pool", "by": name, **where}
    if kind == "CeilMaxPooling2D":
        size, step = [layer.pool_size] * 2, [layer.strides] * 2
        edges = {"dilation": [1, 1], "before": [0, 0]}
        return {"op": "pool", "by": "max", "window": size, "stride": step, **edges}
    if kind in ("GlobalMaxPooling2D", "GlobalAveragePooling2D") and len(given) == 3:
        edges = {"stride": [1, 1], "dilation": [1, 1], "before": [0, 0]}
        name = "max" if kind == "GlobalMaxPooling2D" else "average"
        return {"op": "pool", "by": name, "window": list(given[:2]), **edges}
    if kind == "ZeroPadding2D":
        return {"op": "pad", "before": [a for a, _ in layer.padding]}
    if kind == "IdentityShortcut":
        return {"op": "shortcut", "stride": layer.strides}
    if kind == "LocalResponseNormalization":
        names = ("size", "alpha", "beta", "kappa")
        return {"op": "lrn", **{n: getattr(layer, n) for n in names}}
    if kind in ("Flatten", "Reshape"):
        return {"op": "same"}
    if kind in ("Dropout", "SpatialDropout2D", "GaussianNoise", "Identity"):
        return {"op": "same"}
    if kind in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract"):
        # The layers; bare operations hold constants, which are no inputs.
        shapes_ = {tuple(x.shape) for x in call.inputs}
        alike = len(shapes_) == 1 and len(call.inputs) > 1
        return {"op": "merge", "by": kind.lower()} if alike else None
    if kind == "Concatenate" and layer.axis in (-1, 3, len(given)):
        return {"op": "concatenate"}
    if kind in ("Activation", "Softmax"):
        name = activation if kind == "Activation" else "softmax"
        return {"op": "activation", "activation": name}
    if kind == "ReLU" and hasattr(layer, "max_value"):
        plain = layer.max_value is None and not layer.threshold
        slope = float(layer.negative_slope or 0)
        return (
            {"op": "activation", "activation": "leaky_relu", "slope": slope}
            if plain
            else None
        )
    if kind in ("LeakyReLU", "ELU"):
        slope = layer.negative_slope if kind == "LeakyReLU" else layer.alpha
        name = "leaky_relu" if kind == "LeakyReLU" else "elu"
        return {"op": "activation", "activation": name, "slope": float(slope)}
    return None


def _convolution(layer, kind, given, activation, store) -> dict | None:
    known = (
        "Conv2D Conv2DTranspose Dense DepthwiseConv2D PatchWhitening2D SeparableConv2D"
    )
    if kind not in known.split():
        return None
    groups = getattr(layer, "groups", 1)
    if kind == "SeparableConv2D":
        deep = _numbers(layer.depthwise_kernel)
        point = _numbers(layer.pointwise_kernel)[0, 0]
        point = point.reshape(*deep.shape[2:], -1)
        kernel = np.einsum("hwcm,cmf->hwcf", deep, point)
    else:
        kernel = _numbers(layer.kernel)
    if kind == "DepthwiseConv2D":
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    if kind == "Conv2DTranspose":
        kernel = np.swapaxes(kernel, 2, 3)  # to (height, width, channels, filters)
    one = {"stride": [1, 1], "dilation": [1, 1], "before": [0, 0]}
    if kind == "Dense":
        kernel, where = kernel[None, None], {"window": [1, 1], **one}
    elif kind == "PatchWhitening2D":
        where = {"window": list(kernel.shape[:2]), **one}
    else:
        where = _windows(layer, given)
    if kind == "Conv2DTranspose":
        after = layer.compute_output_shape((1, *given))
        where["before"] = [cut_before(layer, a, given[a], after[a + 1]) for a in (0, 1)]
    bias = getattr(layer, "bias", None)
    return {
        "op": "transposed" if kind == "Conv2DTranspose" else "convolution",
        **where,
        "groups": groups,
        "kernel": store.add(kernel),
        "filters": int(kernel.shape[-1]),
        "bias": None if bias is None else store.add(_numbers(bias)),
        "activation": activation,
    }


def script() -> str:
    """Join the page's modules into one: a file on a disk cannot import another."""
    folder = resources.files(__package__) / "page"
    texts = [(folder / f"{n}.js").read_text(encoding="utf-8") for n in MODULES]
    joined = "\n".join(texts)
    joined = re.sub(r"^import [^;]*;\n", "", joined, flags=re.MULTILINE)
    return re.sub(r"^export ", "", joined, flags=re.MULTILINE)


def write(source, out, image=None) -> Path:
    """Write the lab of a network as one HTML file that needs nothing else.

    Nothing leaves the page: its content security policy allows no request, and of
    scripts its own alone, by their hash.

    Args:
        source: as `pack` takes it.
        out: the file.
        image: as `pack` takes it.

    Raises:
        ValueError: as `pack`; or the page would have more than `LIMIT` bytes.
    """
    data, arrays = pack(source, image)
    folder = resources.files(__package__) / "page"
    page = (folder / "index.html").read_text(encoding="utf-8")
    style = (folder / "style.css").read_text(encoding="utf-8")
    code = f"\n{script()}"
    # No text of a name or label may end the element that it lies in.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; script-src '{_hash(code)}'; style-src '{_hash(style)}'; "
        "img-src data: blob:; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy, quote=True),
        "title": html.escape(data["name"]),
        "style": style,
        "data": text,
        "arrays": base64.b64encode(zlib.compress(arrays, 9)).decode(),
        "script": code,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)
    if (size := len(page.encode())) > LIMIT:
        raise ValueError(
            f"the page of {data['name']} would have {size:,} bytes, more than "
            f"{LIMIT:,}: choose a smaller network, or kerascnn explain"
        )
    out = Path(out)
    out.write_text(page, encoding="utf-8")
    return out


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
