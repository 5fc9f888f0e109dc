"""One explanation of one image file by one network: text, data, and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.data import read_image
from kerascnn.explain.convolution import Slide, slide
from kerascnn.explain.filters import filters
from kerascnn.explain.heatmap import gradcam, occlusion, saliency
from kerascnn.explain.maps import activation_maps
from kerascnn.explain.pixels import pixels
from kerascnn.explain.recording import numbers, prepared, record
from kerascnn.explain.trace import trace
from kerascnn.training import open_network

KINDS = (
    "pixels",
    "slide",
    "maps",
    "filters",
    "gradcam",
    "saliency",
    "occlusion",
    "trace",
)
_FRAMES = 12  # of the animation


@dataclass(frozen=True, eq=False)
class Report:
    """What was explained."""

    text: str  #: for people
    data: dict[str, Any]  #: values that JSON can hold
    pictures: tuple[Path, ...]  #: the files that were written

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"picture: {file}" for file in self.pictures)])


def report(
    source, file, what: str = "trace", *, layer=None, cell=None, target=None, out=None
) -> Report:
    """Explain an image file, and write the pictures.

    Args:
        source: a run, a model, a name of the zoo with trained weights, a run folder or
            a `.keras` file.
        file: the image, brought to the network's size as for a prediction.
        what: "pixels", "slide", "maps", "filters", "gradcam", "saliency", "occlusion"
            or "trace".
        layer: name of a layer, where it matters.
        cell: (row, column, channel) of a layer's output, for a trace; for "slide" the
            step that is drawn.
        target: number or name of the class, for the three maps of what matters.
        out: folder for the pictures; None writes none.

    Returns:
        A `Report`.

    Raises:
        ValueError: no such kind, layer, cell or class, an option that the kind has no
            use for, or an unreadable image.
        FileNotFoundError: the image is not there.
    """
    _check(what, layer, cell, target)
    network = open_network(source)
    model = network.model
    image = _read(model, file)
    classes = {"target": _number(target), "labels": network.labels}
    if what == "pixels":
        found: Any = pixels(image)
        data = {"shape": list(image.shape), "pixels": image.tolist()}
    elif what == "slide":
        found, layer = _slid(model, image, layer, cell)
        data = {"layer": layer, **found.to_dict()}
    elif what == "maps":
        found = activation_maps(model, image, layer)
    elif what == "filters":
        found = filters(model, layer)
    elif what == "gradcam":
        found = gradcam(model, image, layer=layer, **classes)
    elif what == "saliency":
        found = saliency(model, image, **classes)
    elif what == "occlusion":
        found = occlusion(model, image, **classes)
    else:
        found = trace(model, image, layer, cell)
    if what not in ("pixels", "slide"):
        data = found.to_dict()
    written = (
        () if out is None else _written(found, network.name, what, layer, cell, out)
    )
    head = {"what": what, "image": str(file), "pictures": [str(p) for p in written]}
    return Report(str(found), {**head, "model": network.name, **data}, written)


def _check(what, layer, cell, target) -> None:
    if what not in KINDS:
        raise ValueError(f"what is one of {', '.join(KINDS)}; received {what!r}")
    useless = {
        "layer": layer is not None and what in ("pixels", "saliency", "occlusion"),
        "cell": cell is not None and what not in ("slide", "trace"),
        "target": target is not None
        and what not in ("gradcam", "saliency", "occlusion"),
    }
    for name, wrong in useless.items():
        if wrong:
            raise ValueError(f"{what} has no use for a {name}: leave it out")


def _number(target):
    """A class may be named by its number, as text."""
    return int(target) if isinstance(target, str) and target.isdigit() else target


def _read(model, file) -> np.ndarray:
    """Read an image at the size that a model takes, its own where that is open."""
    from PIL import Image

    shape = tuple(model.inputs[0].shape[1:])
    height, width, channels = shape if len(shape) == 3 else (*shape, 1)
    try:
        if height is None or width is None:
            with Image.open(file) as opened:
                width, height = opened.size
        return read_image(file, (height, width), channels or 3)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {file}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error


def _slid(model, image, layer, cell) -> tuple[Slide, str]:
    """Slide a convolution's strongest filter, or the cell's, over what it is given.

    The map is compared with the layer's own.
    """
    import keras

    seen = record(model, prepared(model, image))
    able = [
        i
        for i, call in enumerate(seen.calls)
        if isinstance(call.operation, keras.layers.Conv2D) and _plain(call.operation)
    ]
    if layer is None and not able:
        raise ValueError(f"{model.name} has no convolution to slide")
    position = able[0] if layer is None else seen.find(layer)
    name, found = seen.names[position], seen.calls[position].operation
    if position not in able:
        raise ValueError(
            f"{name} is no convolution of one group, followed by ReLU or nothing, "
            f"which can be slid; choose one of {', '.join(seen.names[i] for i in able)}"
        )
    maps = seen.values(position)[0]
    strongest = int(np.abs(maps).mean((0, 1)).argmax())
    k = strongest if cell is None else _channel(cell, maps.shape)
    slid = slide(
        seen.array(seen.calls[position].inputs[0])[0],
        numbers(found.kernel)[..., k],
        tuple(found.strides),
        found.padding,
        bias=[float(numbers(found.bias)[k])] if found.use_bias else None,
        relu=found.activation is keras.activations.relu,
        dilation=found.dilation_rate[0],
    )
    apart = float(np.abs(slid.output[..., 0] - maps[..., k]).max())
    if apart > 3e-2 * max(1.0, float(np.abs(maps).max())):
        raise RuntimeError(
            f"{name} differs from its filter slid by hand by up to {apart}: the layer "
            "does more than its filters say"
        )
    return slid, name


def _channel(cell, shape) -> int:
    if len(cell) != 3 or not all(0 <= i < n for i, n in zip(cell, shape, strict=True)):
        raise ValueError(
            f"a cell is (row, column, channel) within {shape}; received {tuple(cell)}"
        )
    return int(cell[2])


def _plain(layer) -> bool:
    """Whether a convolution is one that `slide` knows."""
    import keras

    if isinstance(layer, (keras.layers.Conv2DTranspose, keras.layers.SeparableConv2D)):
        return False
    simple = layer.activation in (keras.activations.relu, keras.activations.linear)
    square = len(set(layer.dilation_rate)) == 1
    own = type(layer).call.__module__.split(".")[0] == "keras"
    return simple and square and own and layer.groups == 1


def _written(found, name, what, layer, cell, out) -> tuple[Path, ...]:
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        name,
        what,
        *([layer.replace("/", "-").replace(":", "-")] if layer else []),
    ]
    file = out / f"{'-'.join(parts)}.png"
    written = [file]
    if isinstance(found, Slide):
        row, column = cell[:2] if cell is not None else (0, 0)
        found.plot(file, step=row * int(found.columns) + column)
        written.append(file.with_suffix(".gif"))
        found.animate(written[-1], most=_FRAMES)
    else:
        found.plot(file)
    if what == "trace" and found.cell is not None:
        written.append(file.with_stem(f"{file.stem}-cell"))
        found.cell.plot(written[-1])
    return tuple(written)
