"""One explanation of one image file by one network: text, data, and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn import explain
from kerascnn.costs import is_a
from kerascnn.data import read_image
from kerascnn.explain.cell import place_in
from kerascnn.explain.recording import numbers, prepared, record
from kerascnn.graph import image_shape
from kerascnn.training import open_network

# What can be asked of each kind.
KINDS = {
    "pixels": (),
    "slide": ("layer", "cell"),
    "maps": ("layer",),
    "filters": ("layer",),
    "gradcam": ("layer", "target"),
    "saliency": ("target",),
    "occlusion": ("target",),
    "trace": ("layer", "cell"),
}
_FRAMES = 12  # of the animation
_SAMPLES = 16  # noisy copies that take the speckle out of the saliency


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

    `source` is a run, a model, a name of the zoo with trained weights, or the path of a
    run or `.keras` file; `what` one of `KINDS`, `cell` (row, column, channel) of a
    layer's output, or the step of a slide; `target` the number or name of a class;
    `out` a folder for the pictures, None for none.

    Raises ValueError for a kind, layer, cell, class or option that does not fit, or an
    unreadable image, FileNotFoundError where that is not there.
    """
    if what not in KINDS:
        raise ValueError(f"what is one of {', '.join(KINDS)}; received {what!r}")
    for name, value in {"layer": layer, "cell": cell, "target": target}.items():
        if value is not None and name not in KINDS[what]:
            raise ValueError(f"{what} has no use for a {name}: leave it out")
    network = open_network(source)
    model, labels = network.model, network.labels
    image, data = _read(model, file), {}
    if isinstance(target, str) and target.isdigit():
        target = int(target)
    asked: dict = {"target": target, "labels": labels}
    if what == "pixels":
        found: Any = explain.pixels(image)
    elif what == "slide":
        found, layer = _slid(model, image, layer, cell)
        data = {"layer": layer}
    elif what == "maps":
        first = layer or explain.filters(model).layer
        found = explain.activation_maps(model, image, first)
    elif what == "filters":
        found = explain.filters(model, layer)
    elif what == "trace":
        found = explain.trace(model, image, layer, cell, labels=labels)
    elif what == "gradcam":
        found = explain.gradcam(model, image, layer=layer, **asked)
    elif what == "saliency":
        found = explain.saliency(model, image, samples=_SAMPLES, **asked)
    else:
        found = explain.occlusion(model, image, **asked)
    data |= found.to_dict()
    written: list[Path] = []
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        name = "-".join(filter(None, (network.name, what, layer)))
        name = name.replace("/", "-").replace(":", "-")
        written = _written(found, Path(out) / f"{name}.png", cell)
    head = {"what": what, "image": str(file), "pictures": [str(p) for p in written]}
    data = {**head, "model": network.name, **data}
    return Report(str(found), data, tuple(written))


def _read(model, file) -> np.ndarray:
    """Read an image at the size that a model takes, its own where that is open."""
    from PIL import Image

    height, width, channels = (*(image_shape(model) or (None,) * 3), 1)[:3]
    try:
        if height is None or width is None:
            with Image.open(file) as opened:
                width, height = opened.size
        return read_image(file, (height, width), channels or 3)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {file}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error


def _slid(model, image, layer, cell) -> tuple[explain.Slide, str]:
    """Slide a convolution's strongest filter, or the cell's, over what it is given."""
    import keras

    seen = record(model, prepared(model, image))
    able = [i for i, call in enumerate(seen.calls) if _plain(call.operation)]
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
    k = int(np.abs(maps).mean((0, 1)).argmax())
    if cell is not None:
        *_, k = place_in(name, maps, cell)
    return explain.slide(
        seen.array(seen.calls[position].inputs[0])[0],
        numbers(found.kernel)[..., k],
        tuple(found.strides),
        found.padding,
        bias=[float(numbers(found.bias)[k])] if found.use_bias else None,
        relu=found.activation is keras.activations.relu,
        dilation=found.dilation_rate[0],
    ), name


def _plain(layer) -> bool:
    """Whether a layer is a convolution that `slide` knows."""
    import keras

    simple = (keras.activations.relu, keras.activations.linear)
    return (
        is_a(layer, ("Conv2D",))
        and layer.activation in simple
        and len(set(layer.dilation_rate)) == 1
        and layer.groups == 1
    )


def _written(found, file, cell) -> list[Path]:
    if isinstance(found, explain.Slide):
        step = found.strongest()
        if cell is not None:
            step = cell[0] * int(found.columns) + cell[1]
        found.plot(file, step=step)
        return [file, found.animate(file.with_suffix(".gif"), most=_FRAMES)]
    found.plot(file)
    if (sum_ := getattr(found, "cell", None)) is None:
        return [file]
    beside = file.with_stem(f"{file.stem}-cell")
    sum_.plot(beside)
    return [file, beside]
