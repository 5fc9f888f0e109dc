"""A network and its numbers, packed into one HTML page that computes it."""

import base64
import hashlib
import html
import json
import re
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from kerascnn.arithmetic import output_size
from kerascnn.costs import macs
from kerascnn.data import read_image, shapes
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import numbers, prepared, record
from kerascnn.receptive_field import cut_before
from kerascnn.summary import summarize
from kerascnn.training.run import Network, open_network

FOLDER = resources.files(__package__) / "page"
LIMIT = 20_000_000  # bytes of a page
# In the order in which they are joined; `train.js` is apart, in a worker.
MODULES = (
    *("arrays", "layers", "resize", "cell", "network", "strip", "own", "bench"),
    *("walk", "change", "race", "main"),
)
# Activations that the page knows, by their name in Keras.
ACTIVATIONS = (
    *("elu", "exponential", "gelu", "leaky_relu", "linear", "relu", "relu6", "selu"),
    *("sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
)

CONVOLUTIONS = "(Depthwise|Separable)?Conv2D|Conv2DTranspose|Dense|PatchWhitening2D"
POOLS = "(Ceil|Global)?MaxPooling2D|(Global)?AveragePooling2D"
SAME = (
    "Dropout",
    "Flatten",
    "GaussianNoise",
    "Identity",
    "Reshape",
    "SpatialDropout2D",
)
MERGES = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
ONE = {"stride": [1, 1], "dilation": [1, 1], "before": [0, 0]}  # pixel after pixel


class _Store:
    """Arrays one behind the other, each told by its type, place and length."""

    def __init__(self, filters=True):
        self.bytes = bytearray()
        self.filters = filters  # whether those of convolutions are kept

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


def pack(source, image=None, *, served=False) -> tuple[dict, bytes]:
    """Record a network on an image: what JSON can hold, and the arrays it points into.

    A call that the page cannot compute has the operation "recorded" and its values.

    Args:
        source: what `open_network` takes, or gives.
        image: file of an image; None for the first of the built-in samples.
        served: whether Python answers the page: no filters, maps and regions then.

    Raises:
        ValueError: a network that is not one of images of a known size.
    """
    network = source if isinstance(source, Network) else open_network(source)
    model = network.model
    given = [tuple(x.shape[1:]) for x in model.inputs]
    if len(given) != 1 or None in (shape := given[0]) or len(shape) not in (2, 3):
        raise ValueError(
            "the lab takes networks of one image of a known size; "
            f"{network.name} takes {' and '.join(map(str, given))}"
        )
    height, width, channels = (*shape, 1)[:3]
    store = _Store(filters=not served)
    drawn, labels = shapes.generate(40, seed=23, image_size=(height, width))
    # One of each of the first classes, not several of one.
    first = [int(np.flatnonzero(labels == c)[0]) for c in (8, 1, 3, 0, 5, 9)]
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
                "keras": None if served else store.add(values),
                "regions": None if served else _regions(seen, position, values.shape),
                **(lowered or {"op": "recorded"}),
            }
        )
        for x in call.outputs:
            makers.setdefault(id(x), position)
    data = {
        "name": network.name,
        "served": served,
        "shape": [height, width, channels],
        "labels": list(network.labels) if network.labels else None,
        "samples": [{"name": n, "pixels": store.add(x)} for n, x in samples],
        "answer": makers[id(seen.graph.outputs[0])],
        "parameters": model.count_params(),
        "calls": calls,
    }
    return data, bytes(store.bytes)


def _channels(image, channels):
    if channels == 1:  # ITU-R BT.601
        return np.rint(image @ (0.299, 0.587, 0.114)).astype(np.uint8)[..., None]
    return image if channels == 3 else np.resize(image, (*image.shape[:2], channels))


def _regions(seen, position, shape) -> list | None:
    """The pixels that each row, and each column, of a map depends on."""
    height, width = shape[:2] if len(shape) == 3 else (1, 1)
    # Rows and columns do not depend on one another; the middle is no padding's.
    down = [region(seen, position, i, width // 2) for i in range(height)]
    across = [region(seen, position, height // 2, i) for i in range(width)]
    if None in (found := [*down, *across]):
        return None
    rows, columns = [list(r.rows) for r in down], [list(r.columns) for r in across]
    return [rows, columns, all(r.exact for r in found)]


def _activation(layer) -> str | None:
    """The name of a layer's own activation; None for one that the page lacks."""
    if (activation := getattr(layer, "activation", None)) is None:
        return "linear"
    own = str(getattr(activation, "__module__", "")).startswith("keras.")
    name = getattr(activation, "__name__", "")
    return name if own and name in ACTIVATIONS else None


def _windows(layer, given, size) -> dict:
    """Window, stride, dilation and zeros before, of each axis."""
    dilation = getattr(layer, "dilation_rate", (1, 1))
    before = [
        output_size(n, k, s, layer.padding, d).before
        for n, k, s, d in zip(given[:2], size, layer.strides, dilation, strict=True)
    ]
    where = {"window": size, "stride": layer.strides, "dilation": dilation}
    return {**where, "before": before}


def _lower(call, store) -> dict | None:
    """Say what a call computes in the page's terms; None where it has none."""
    layer, kind = call.operation, type(call.operation).__name__
    if type(layer).__module__.split(".")[0] not in ("keras", "zoo"):
        return None
    given = tuple(call.inputs[0].shape[1:]) if call.inputs else ()
    activation, last = _activation(layer), ([-1], [len(given)])
    if activation is None:
        return None
    if re.fullmatch(CONVOLUTIONS, kind):
        return _convolution(layer, kind, given, activation, store)
    if kind in ("BatchNormalization", "LayerNormalization"):
        if list(np.atleast_1d(layer.axis)) not in last:
            return None
        scale = numbers(layer.gamma) if layer.scale else np.ones(given[-1])
        shift = numbers(layer.beta) if layer.center else np.zeros(given[-1])
        op = {"op": "layernorm", "epsilon": layer.epsilon}
        if kind == "BatchNormalization":
            spread = numbers(layer.moving_variance).astype(float) + layer.epsilon
            scale = scale / np.sqrt(spread)
            shift = shift - numbers(layer.moving_mean) * scale
            op = {"op": "affine"}
        return {**op, "scale": store.add(scale), "bias": store.add(shift)}
    if kind == "Rescaling":
        parts = {"scale": np.asarray(layer.scale), "bias": np.asarray(layer.offset)}
        if max(part.size for part in parts.values()) not in (1, given[-1]):
            return None
        each = {n: store.add(v * np.ones(given[-1])) for n, v in parts.items()}
        return {"op": "affine", **each}
    if re.fullmatch(POOLS, kind) and len(given) == 3:
        where = {**ONE, "window": given[:2]}  # of all
        if kind == "CeilMaxPooling2D":
            size, step = [layer.pool_size] * 2, [layer.strides] * 2
            where = {**ONE, "window": size, "stride": step}
        elif not kind.startswith("Global"):
            where = _windows(layer, given, tuple(layer.pool_size))
        return {"op": "pool", "by": "max" if "Max" in kind else "average", **where}
    if kind == "ZeroPadding2D":
        return {"op": "pad", "before": [a for a, _ in layer.padding]}
    if kind == "IdentityShortcut":
        return {"op": "shortcut", "stride": layer.strides}
    if kind == "LocalResponseNormalization":
        parts = {n: getattr(layer, n) for n in ("size", "alpha", "beta", "kappa")}
        return {"op": "lrn", **parts}
    if kind in SAME:
        return {"op": "same"}
    if kind in MERGES:
        # Layers alone: bare operations hold constants, which are no inputs.
        alike = len({tuple(x.shape) for x in call.inputs}) == 1 < len(call.inputs)
        return {"op": "merge", "by": kind.lower()} if alike else None
    if kind == "Concatenate" and layer.axis in (-1, 3, len(given)):
        return {"op": "concatenate"}
    slope = None
    if (
        kind == "ReLU"
        and getattr(layer, "max_value", 0) is None
        and not layer.threshold
    ):
        activation, slope = "leaky_relu", layer.negative_slope or 0
    elif kind in ("LeakyReLU", "ELU"):
        activation = "leaky_relu" if kind == "LeakyReLU" else "elu"
        slope = layer.alpha if kind == "ELU" else layer.negative_slope
    elif kind == "Softmax":
        activation = "softmax"
    elif kind != "Activation":
        return None
    more = {} if slope is None else {"slope": float(slope)}
    return {"op": "activation", "activation": activation, **more}


def _convolution(layer, kind, given, activation, store) -> dict:
    """Convolutions of all kinds as one: a dense layer's window is one pixel."""
    groups, where = getattr(layer, "groups", 1), None
    if kind == "SeparableConv2D":  # two steps: the product of both
        deep = numbers(layer.depthwise_kernel)
        point = numbers(layer.pointwise_kernel)[0, 0]
        point = point.reshape(*deep.shape[2:], -1)
        kernel = np.einsum("hwcm,cmf->hwcf", deep, point)
    else:
        kernel = numbers(layer.kernel)
    if kind == "DepthwiseConv2D":  # a group for each channel
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    elif kind == "Conv2DTranspose":
        kernel = np.swapaxes(kernel, 2, 3)  # to (height, width, channels, filters)
        after = layer.compute_output_shape((1, *given))
        before = [cut_before(layer, a, given[a], after[a + 1]) for a in (0, 1)]
        where = {**_windows(layer, given, layer.kernel_size), "before": before}
    elif kind == "Dense":
        kernel = kernel[None, None]
    if kind in ("Dense", "PatchWhitening2D"):
        where = {**ONE, "window": kernel.shape[:2]}
    bias = getattr(layer, "bias", None)
    return {
        "op": "transposed" if kind == "Conv2DTranspose" else "convolution",
        **(where or _windows(layer, given, layer.kernel_size)),
        "groups": groups,
        "kernel": store.add(kernel) if store.filters else None,
        "filters": int(kernel.shape[-1]),
        "bias": None if bias is None else store.add(numbers(bias)),
        "activation": activation,
    }


def script() -> str:
    """Join the page's modules into one: a file on a disk cannot import another."""
    texts = [(FOLDER / f"{n}.js").read_text(encoding="utf-8") for n in MODULES]
    removed = r"^(import [^;]*;\n|export )"
    return re.sub(removed, "", "\n".join(texts), flags=re.MULTILINE)


def page(data: dict, arrays: bytes) -> str:
    """Return the page of what `pack` gave.

    Its policy allows its own script alone, and no request but to its own server.
    """
    code = f"\n{script()}"
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(code)}'; style-src '{_hash(style)}'; "
        "img-src data: blob:; media-src blob:; worker-src blob:; base-uri 'none'; "
        f"form-action 'none'; connect-src '{'self' if data['served'] else 'none'}'"
    )
    parts = {
        "policy": html.escape(policy, quote=True),
        "title": html.escape(data["name"]),
        "style": style,
        # No text of a name or label may end the element that it lies in.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "arrays": base64.b64encode(zlib.compress(arrays, 9)).decode(),
        "script": code,
        "training": (FOLDER / "train.js").read_text(encoding="utf-8"),
    }
    text = (FOLDER / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], text)


def alone(source, image=None) -> bool:
    """Whether the page of a network computes all of it, within `LIMIT`."""
    data, _ = pack(source, image, served=True)
    values = sum(int(np.prod(call["shape"])) for call in data["calls"])
    known = all(call["op"] != "recorded" for call in data["calls"])
    return known and (values + data["parameters"]) * 4 * 4 / 3 <= LIMIT  # base64


def write(source, out, image=None) -> Path:
    """Write the lab of a network as one HTML file; of over `LIMIT` bytes, raise."""
    data, arrays = pack(source, image)
    text = page(data, arrays)
    if (size := len(text.encode())) > LIMIT:
        raise ValueError(
            f"the page of {data['name']} would have {size:,} bytes, more than "
            f"{LIMIT:,}: open it without --out, which leaves the sums to Python"
        )
    Path(out).write_text(text, encoding="utf-8")
    return Path(out)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
