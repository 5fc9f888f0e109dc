"""A network and its numbers, packed into one HTML page that computes it."""

import base64
import contextlib
import hashlib
import html
import json
import re
import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from kerascnn.costs import macs
from kerascnn.data import read_image, shapes
from kerascnn.explain.cell import kernel_of
from kerascnn.explain.receptive_field import region
from kerascnn.explain.recording import numbers, prepared, record
from kerascnn.graph import image_shape
from kerascnn.heads import head
from kerascnn.receptive_field import ALL, Reads, cut_before, reads
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
SAME = "Dropout|Flatten|GaussianNoise|Identity|Reshape|SpatialDropout2D"
MERGES = "Add|Average|Maximum|Minimum|Multiply|Subtract"
ALONE = "Activation|ELU|LeakyReLU|ReLU|Softmax"  # an activation alone


def _keep(arrays: bytearray, values) -> dict:
    """Append an array, as float16 where nothing is lost by it; tell where it lies."""
    values = np.asarray(values)
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        values = half if np.array_equal(half, values) else values
    arrays += b"\0" * (-len(arrays) % 4)
    told = {"type": values.dtype.str[1:], "at": len(arrays), "size": values.size}
    arrays += values.tobytes()
    return told


def pack(source, image=None, *, served=False) -> tuple[dict, bytes]:
    """Record a network on an image: what JSON can hold, and the arrays it points into.

    A call that the page cannot compute has the operation "recorded" and its values.

    Args:
        source: what `open_network` takes, or gives.
        image: file of an image; None for the first of the built-in samples.
        served: whether Python answers the page: no filters, maps and regions then.

    Raises ValueError: a network that is not one of images of a known size.
    """
    network = source if isinstance(source, Network) else open_network(source)
    model = network.model
    shape = image_shape(model) or ()
    if None in shape or len(shape) not in (2, 3):
        raise ValueError(
            "the lab takes networks of one image of a known size; "
            f"{network.name} takes {shape or 'other inputs'}"
        )
    height, width, channels = (*shape, 1)[:3]
    drawn, labels = shapes.generate(40, seed=23, image_size=(height, width))
    # One of each of the first classes, not several of one.
    first = [np.flatnonzero(labels == c)[0] for c in (8, 1, 3, 0, 5, 9)]
    if channels == 1:  # ITU-R BT.601
        drawn = np.rint(drawn @ (0.299, 0.587, 0.114)).astype(np.uint8)[..., None]
    drawn = drawn[..., np.arange(channels) % drawn.shape[-1]]
    samples = [(shapes.LABELS[labels[i]], drawn[i]) for i in first]
    if image is not None:
        own = read_image(image, (height, width), channels)
        samples.insert(0, (Path(image).name, own))
    seen = record(model, prepared(model, samples[0][1]))
    if seen.channels_first:
        raise ValueError(f"{network.name} has channels first; the lab takes them last")
    rows, path, answer = {}, [], 0
    for row in summarize(model, expand_nested=True).rows:
        path[row.level :] = [row.name]
        rows["/".join(path)] = row
    with contextlib.suppress(ValueError):  # an output that is no classifier's
        answer = head(model).index
    output = seen.graph.outputs[answer]
    makers = {id(x): -1 for x in seen.graph.inputs}
    arrays, calls = bytearray(), []
    for position, (name, call) in enumerate(zip(seen.names, seen.calls, strict=True)):
        values = seen.values(position)[0]
        inputs = [makers[id(x)] for x in call.inputs if id(x) in makers]
        known = len(inputs) == len(call.inputs) and len(call.outputs) == 1
        lowered = _lower(call) if known and values.ndim in (1, 3) else None
        if served and lowered:
            lowered.pop("kernel", None)
        row = rows.get(name.partition(":")[0])
        told = {
            "name": name,
            "kind": type(call.operation).__name__,
            "shape": list(values.shape),
            "inputs": inputs,
            "expression": getattr(row, "expression", ""),
            "parameters": getattr(row, "parameters", 0),
            "macs": macs(call),
            "keras": None if served else values,
            "regions": None if served else _regions(seen, position, values.shape),
            **(lowered or {"op": "recorded"}),
        }
        kept = {k: _keep(arrays, told[k]) for k in told if hasattr(told[k], "dtype")}
        calls.append(told | kept)
        # What hands on what it was given, as dropout does, stands in its way.
        makers |= {id(x): position for x in call.outputs}
    data = {
        "name": network.name,
        "served": served,
        "shape": [height, width, channels],
        # One unit is the probability of the second of two classes.
        "labels": list(network.labels or ())[-output.shape[-1] :] or None,
        "samples": [{"name": n, "pixels": _keep(arrays, x)} for n, x in samples],
        "answer": makers[id(output)],
        "parameters": model.count_params(),
        "calls": calls,
    }
    return data, bytes(arrays)


def _regions(seen, position, shape) -> list | None:
    """The pixels that each row, and each column, of a map depends on."""
    if not seen.connected:
        return None
    height, width = shape[:2] if len(shape) == 3 else (1, 1)
    # Rows and columns do not depend on one another; the middle is no padding's.
    down = [region(seen, position, i, width // 2) for i in range(height)]
    across = [region(seen, position, height // 2, i) for i in range(width)]
    rows, columns = [r.rows for r in down], [r.columns for r in across]
    return [rows, columns, all(r.exact for r in (*down, *across))]


def _windows(call, given) -> dict | None:
    """Window, stride, dilation and zeros before, of each axis; None if unknown."""
    layer, axes = call.operation, reads(call, call.inputs[0], False)
    if axes == ALL:  # a vector is a map of one pixel
        sides = given[:2] if len(given) == 3 else (1, 1)
        axes = [Reads(1, (tuple(range(n)),)) for n in sides]
    if not axes or not all(axis.exact for axis in axes):
        return None
    taps, strides = [axis.positions[0] for axis in axes], [a.shift for a in axes]
    before, window = [-places[0] for places in taps], [len(places) for places in taps]
    if type(layer).__name__ == "Conv2DTranspose":
        strides, window = layer.strides, layer.kernel_size
        after = call.outputs[0].shape[1:]
        before = [cut_before(layer, i, given[i], after[i]) for i in (0, 1)]
    gaps = getattr(layer, "dilation_rate", (1, 1))
    return {"window": window, "stride": strides, "dilation": gaps, "before": before}


def _lower(call) -> dict | None:
    """Say what a call computes in the page's terms; None where it has none."""
    from keras import activations

    layer, kind = call.operation, type(call.operation).__name__
    if type(layer).__module__.split(".")[0] not in ("keras", "zoo"):
        return None
    activation = getattr(layer, "activation", None) or activations.linear
    name = getattr(activation, "__name__", "")
    if name not in ACTIVATIONS or getattr(activations, name, None) is not activation:
        return None
    given = tuple(call.inputs[0].shape[1:]) if call.inputs else ()
    # Normalisation, softmax and concatenation go over the channels.
    axes = np.atleast_1d(getattr(layer, "axis", -1)).tolist()
    if axes not in ([-1], [len(given)]):
        return None
    if re.fullmatch(f"{CONVOLUTIONS}|{POOLS}", kind):
        if (where := _windows(call, given)) is None:
            return None
        if re.fullmatch(CONVOLUTIONS, kind):
            return {**where, **_convolution(layer, kind, given), "activation": name}
        return {"op": "pool", "by": "max" if "Max" in kind else "average", **where}
    if kind in ("BatchNormalization", "LayerNormalization"):
        scale = numbers(layer.gamma) if layer.scale else np.ones(given[-1])
        shift = numbers(layer.beta) if layer.center else np.zeros(given[-1])
        op = {"op": "layernorm", "epsilon": layer.epsilon}
        if kind == "BatchNormalization":
            op = {"op": "affine"}
            spread = numbers(layer.moving_variance).astype(float) + layer.epsilon
            scale = scale / np.sqrt(spread)
            shift = shift - numbers(layer.moving_mean) * scale
        return {**op, "scale": scale, "bias": shift}
    if kind == "Rescaling" and np.ndim(layer.scale) < 2 > np.ndim(layer.offset):
        scale, shift = (x + np.zeros(given[-1]) for x in (layer.scale, layer.offset))
        return {"op": "affine", "scale": scale, "bias": shift}
    if kind == "ZeroPadding2D":
        return {"op": "pad", "before": [a for a, _ in layer.padding]}
    if kind == "IdentityShortcut":
        return {"op": "shortcut", "stride": layer.strides}
    if kind == "LocalResponseNormalization":
        parts = {n: getattr(layer, n) for n in ("size", "alpha", "beta", "kappa")}
        return {"op": "lrn", **parts}
    if re.fullmatch(MERGES, kind):
        # Layers alone: bare operations hold constants, which are no inputs.
        alike = len({tuple(x.shape) for x in call.inputs}) == 1 < len(call.inputs)
        return {"op": "merge", "by": kind.lower()} if alike else None
    if re.fullmatch(f"Concatenate|{SAME}", kind):
        return {"op": "concatenate" if kind == "Concatenate" else "same"}
    bent = kind == "ReLU" and (layer.max_value is not None or layer.threshold)
    if bent or not re.fullmatch(ALONE, kind):
        return None
    names = {"Activation": name, "ELU": "elu", "Softmax": "softmax"}
    slope = getattr(layer, "negative_slope", getattr(layer, "alpha", None))
    more = {} if slope is None else {"slope": float(slope)}
    return {"op": "activation", "activation": names.get(kind, "leaky_relu"), **more}


def _convolution(layer, kind, given) -> dict:
    """Convolutions of all kinds as one: a dense layer's window is one pixel."""
    bias, kernel = getattr(layer, "bias", None), kernel_of(layer)
    return {
        "op": "transposed" if kind == "Conv2DTranspose" else "convolution",
        "groups": given[-1] // kernel.shape[2],
        "kernel": kernel,
        "filters": int(kernel.shape[-1]),
        "bias": None if bias is None else numbers(bias),
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
    digests = (hashlib.sha256(text.encode()).digest() for text in (code, style))
    own = ["sha256-" + base64.b64encode(digest).decode() for digest in digests]
    policy = (
        f"default-src 'none'; script-src '{own[0]}'; style-src '{own[1]}'; "
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
