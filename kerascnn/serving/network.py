"""What an export has to know of a network: its images, its classes, its last step."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from kerascnn.serving.errors import ExportError

# A softmax adds up to 1 but for rounding: float32, and bfloat16 with its 8 bits.
SUM = 1e-3
SUM_HALF = 2e-2

IMAGES = 256  # that a version and its network are compared on
BATCH = 32  # images the network answers at a time


@dataclass(frozen=True)
class Reference:
    """How a network answers: what its served version is held against."""

    shape: tuple[int, int, int]  # height, width, channels
    classes: int
    from_logits: bool
    images: np.ndarray  # uint8 (N, height, width, channels)
    probabilities: np.ndarray  # float32 (N, classes)


def image_shape(model) -> tuple[int, int, int]:
    """Return (height, width, channels) of the images that a network takes.

    Raises:
        ValueError: the model is not built, has several inputs, or its input is not
            an image of a fixed size.
    """
    try:
        inputs = model.inputs
    except AttributeError:
        inputs = None
    if not inputs:
        raise ValueError(
            f"the model {model.name!r} has no defined input; give it one: "
            "keras.Model(image, model(image)) with image = keras.Input((32, 32, 3))"
        )
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(shapes) > 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ValueError(
            "a served network takes one image of a fixed size, (N, height, width, "
            f"channels); the model {model.name!r} takes {shapes}: rebuild it with "
            "such an input"
        )
    return shapes[0][1:]


def main_output(outputs):
    """Return the output that is served, of a model's one or several.

    Args:
        outputs: what the model returns: one tensor; a list or tuple, whose first is
            the main one; or a dictionary, whose main one is "probabilities" or, if
            it has none, the first. (`model.outputs` sorts a dictionary by its keys,
            and would put "auxiliary" before "probabilities".)
    """
    if isinstance(outputs, Mapping):
        return outputs.get("probabilities", next(iter(outputs.values())))
    if isinstance(outputs, list | tuple):
        return main_output(outputs[0])
    return outputs


def refer(model, from_logits: bool | None = None, count: int = IMAGES) -> Reference:
    """Let a network answer images, and find out what its outputs are.

    Args:
        model: a built `keras.Model` that classifies images.
        from_logits: True if it ends in logits, False if in probabilities, None to
            find out.
        count: number of images, see `check_images`.

    Raises:
        ValueError: the model does not take one image and give one score a class, or
            what it gives are neither probabilities nor, beyond doubt, logits.
        ExportError: the network answers NaN or infinity.
    """
    shape = image_shape(model)
    classes = _classes(model)
    known = _ends_in_logits(_symbolic_output(model))
    if from_logits and known is False:
        raise ValueError(
            f"the model {model.name!r} ends in a softmax: its outputs are "
            "probabilities, not logits; leave from_logits out"
        )
    images = check_images(shape, count)
    raw = np.asarray(_predict(model, images))
    scores = raw.astype(np.float32)  # (N, classes)
    if not np.isfinite(scores).all():
        raise ExportError(
            f"the model {model.name!r} answers images with NaN or infinity; "
            "train it again, with a smaller learning rate"
        )
    if from_logits is None:
        from_logits = known
    summing = _probabilities(scores, SUM if raw.dtype.itemsize >= 4 else SUM_HALF)
    if not from_logits and not summing:
        raise ValueError(
            f"the outputs of the model {model.name!r} are not probabilities: they add "
            f"up to {scores[0].sum():.4g} for an image; end it in a softmax, or "
            "pass from_logits=True if they are logits"
        )
    return Reference(
        shape=shape,
        classes=classes,
        from_logits=bool(from_logits),
        images=images,
        probabilities=_softmax(scores) if from_logits else scores,
    )


def check_images(shape: tuple[int, int, int], count: int = IMAGES) -> np.ndarray:
    """Return images that a network and its version are compared on; always the same.

    The first half is noise, uniform in 0…255. The other half has structure, to which
    convolutions answer more strongly: waves of any direction and length, a colour
    each, of which every second has hard edges.

    Args:
        shape: (height, width, channels).
        count: number of images, 2 or more.

    Returns:
        uint8 (count, height, width, channels).

    Raises:
        ValueError: fewer than 2 images.
    """
    if count < 2:
        raise ValueError(
            f"a version is compared with its network on 2 images or more; received "
            f"images={count}"
        )
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count // 2, *shape), np.uint8)
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    structured = []
    for number in range(count - len(noise)):
        angle, phase = random.uniform(0, 2 * np.pi, (2, channels))
        length = random.uniform(3, max(height, width), channels)
        way = x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle)
        wave = np.sin(2 * np.pi * way / length + phase)  # (height, width, channels)
        structured.append(np.sign(wave) if number % 2 else wave)
    levels = np.rint(127.5 + 127.5 * np.stack(structured))
    return np.concatenate([noise, levels.astype(np.uint8)])


def computes_in_half(model) -> bool:
    """Return whether a layer of a network computes in bfloat16 or float16."""
    return any(
        layer.compute_dtype in ("bfloat16", "float16")
        or (isinstance(layer, keras.Model) and computes_in_half(layer))
        for layer in model.layers
    )


def _symbolic_output(model):
    # `model.output` keeps the structure of a functional model's outputs, which
    # `model.outputs` flattens; a Sequential model has one output, and only the latter.
    sequential = isinstance(model, keras.Sequential)
    return main_output(model.outputs if sequential else model.output)


def _classes(model) -> int:
    shape = tuple(_symbolic_output(model).shape)
    if len(shape) != 2 or shape[1] is None or shape[1] < 2:
        raise ValueError(
            "a served network gives one score a class, (N, classes), for two classes "
            f"or more; the main output of {model.name!r} has the shape {shape}"
        )
    return shape[1]


def _predict(model, images):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("GPU"):
            # There `predict` compiles with XLA, which a server does not, and whose
            # fused kernels round in another way.
            answer = tf.function(lambda x: main_output(model(x, training=False)))
            starts = range(0, len(images), BATCH)
            return np.concatenate([answer(images[i : i + BATCH]) for i in starts])
    return main_output(model.predict(images, batch_size=BATCH, verbose=0))


def _ends_in_logits(tensor) -> bool | None:
    """Return whether a softmax is missing at a symbolic output, None if in doubt."""
    transparent = (
        keras.layers.Dropout,
        keras.layers.Flatten,
        keras.layers.Identity,
        keras.layers.Reshape,
    )
    while history := getattr(tensor, "_keras_history", None):
        layer = history.operation
        activation = getattr(layer, "activation", None)
        if isinstance(layer, keras.Model):
            tensor = layer.outputs[history.tensor_index]
        # keras.layers.Softmax, or the operation that keras.ops.softmax leaves
        elif activation is keras.activations.softmax or (
            type(layer).__name__ == "Softmax"
        ):
            return False
        elif layer.name == "logits":
            return True
        # A last Activation("linear", dtype="float32") often only casts.
        elif isinstance(layer, transparent) or (
            isinstance(layer, keras.layers.Activation)
            and activation is keras.activations.linear
        ):
            tensor = layer._inbound_nodes[history.node_index].input_tensors[0]
        else:
            return True if activation is keras.activations.linear else None
    return None


def _probabilities(scores: np.ndarray, tolerance: float) -> bool:
    return bool(
        (scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1, atol=tolerance)
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
