"""Publish a trained network as the next numbered version, in a format of choice."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.heads import Head
from kerascnn.heads import head as find_head
from kerascnn.serving import formats, publish, verification
from kerascnn.serving.formats import CHANNELS, ExportError

BATCH = 32  # images that the network is asked at a time
TOLERANCE_BACKENDS = 1e-4  # their sums' orders differ: rounding, amplified by depth


def export(
    source: Any,
    folder: str | os.PathLike,
    *,
    labels: Sequence[str] | None = None,
    from_logits: bool | None = None,
    format: str = "savedmodel",
    activations: Sequence[str] = (),
    images: int = 256,
    tolerance: float | None = None,
) -> Path:
    """Publish a network as `folder`/1, or the next number; return the version's path.

    A version takes `image`, uint8 pixels 0…255 (N, height, width, channels), N as the
    request has it, and returns `probabilities` float32 (N, classes) and `class_id`
    int64 (N,). Augmentation and dropout are off. Of several outputs the main one is
    served (see `kerascnn.heads`). The formats:

    - "savedmodel": also returns `label`, strings (N,); a second signature,
      `serve_bytes`, takes `image_bytes`, N JPEG or PNG files of any size, and does with
      them in the graph what `kerascnn.data.read_image` does. (A network of four
      channels takes PNG only; one of two, or of more than four, has no `serve_bytes`.)
    - "litert": `model.tflite`, built-in operations only; "onnx": `model.onnx`.
    - "openvino": `model.xml` and `model.bin`, float32. Where the processor is quicker
      with it, OpenVINO computes in bfloat16 unless told INFERENCE_PRECISION_HINT=f32.
    - "keras": `model.keras`, the network itself, for Keras with kerascnn; its outputs
      are probabilities alone.

    Beside it lie `labels.txt` and `manifest.json`. The version is loaded back, compared
    with the network on noise and on structured images, as pixels and as PNG files, and
    renamed into place: who watches the folder sees all of it or nothing. Under another
    backend than TensorFlow's, a process with KERAS_BACKEND=tensorflow writes it, and
    imports custom layers by module and name.

    Args:
        source: a run; a `keras.Model`; the name of a network whose trained weights
            ship, such as "lecture_cnn"; or the path of a run folder or a .keras file.
        folder: the folder of this model's versions; made if it does not exist.
        labels: names of the classes in the order of the outputs; default those of
            the run or the shipped weights, otherwise "0", "1", ….
        from_logits: whether the network ends in logits; default: found out.
        format: "savedmodel", "litert", "onnx", "openvino" or "keras".
        activations: names of layers ("conv1"; "encoder/conv1" of a nested model) whose
            maps the version gives too, float32, by their names: as further outputs, in
            a SavedModel and LiteRT under the signature `activations`.
        images: how many images the two are compared on, at least 2.
        tolerance: the largest difference of a probability that is taken for rounding;
            default 1e-5, and under another backend than TensorFlow's 1e-4 (3e-2 where
            a layer computes in bfloat16 or float16).

    Raises:
        ValueError, TypeError: the source is no network for images of a fixed size,
            channels last, whose outputs are understood; format, labels or layers do not
            fit.
        ModuleNotFoundError: the format needs a package that is not installed.
        OSError: the folder cannot be written to, or the source is not there.
        ExportError: the version cannot be written, or answers otherwise.
    """
    made = formats.writable(format)
    import keras

    from kerascnn.serving import savedmodel

    model, known, about = resolve(source)
    folder = Path(folder)
    here = keras.backend.backend() == "tensorflow" or made.name == "keras"
    own = made.name in ("savedmodel", "keras")
    with full_precision():
        reference = refer(model, from_logits, images)
        labels = _labels(known if labels is None else labels, reference)
        if tolerance is None:
            tolerance = verification.TOLERANCE if here else TOLERANCE_BACKENDS
            # The same operations in the same precision differ by rounding only.
            if reference.half and not (here and own):
                tolerance = verification.TOLERANCE_HALF
        if activations:
            if made.name == "keras":
                raise ValueError(
                    "a .keras file holds every layer, and kerascnn explain shows it; "
                    f"leave activations out, received {activations!r}"
                )
            activations = savedmodel.check_names(model, activations)
        with publish.staging(folder) as staged:
            job = (staged, reference, labels, made)
            try:
                with publish.explained(staged):
                    if here:
                        savedmodel.write(model, *job, activations)
                        proof = verification.prove(*job, tolerance)
                    else:
                        from kerascnn.serving import tensorflow_process

                        proof = tensorflow_process.build(
                            model, *job, activations, tolerance
                        )
            except ExportError as error:
                if not reference.half or own:
                    raise
                # The converters blame layers that they know in float32.
                raise ExportError(
                    f"the network computes in half precision, float16 or bfloat16, "
                    f"which is hardly known to {made.title} and its converter: export "
                    "it as a SavedModel, or set its weights into a network of float32 "
                    f"({error})"
                ) from error
            about |= _describe(reference, labels, made, activations) | proof
            return publish.publish(staged, folder, about)


def resolve(source):
    """Return the network that a source names, its labels, and what a manifest says.

    That is its name, its accuracy (percent of the test images), and where it is from.
    """
    import zoo
    from kerascnn.training import open_network

    if hasattr(source, "model") and hasattr(source, "labels"):  # a run, or the like
        network = run = source
    else:
        network = open_network(source)
        run = network.run
    accuracy, origin = None, {}
    if run is not None:
        metrics = getattr(run, "metrics", None) or {}
        accuracy = metrics.get("test_accuracy")
        if getattr(run, "folder", None) is not None:
            folder = Path(run.folder).resolve().name
            origin = {"run": folder, "config": run.config, "metrics": metrics}
    elif isinstance(source, str) and source in zoo.names():
        weights = dict(zoo.card(source).weights)
        weights.pop("labels", None)
        accuracy, origin = weights.get("accuracy"), {"weights": weights}
    elif isinstance(source, str | os.PathLike):
        file = Path(source)
        origin = {"file": file.name, "sha256": publish.sha256(file)}
    name = getattr(network, "name", None) or network.model.name
    about = {"model": name, "accuracy": accuracy, "source": origin}
    return network.model, network.labels, about


def _labels(labels, reference) -> list[str]:
    classes = reference.probabilities.shape[1]
    if labels is None:
        return [str(number) for number in range(classes)]
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a list of strings; received {labels!r}")
    if len(labels) != classes:
        raise ValueError(
            f"the network has {classes} classes; received {len(labels)} labels: give "
            "one a class, in the order of the outputs"
        )
    if broken := [x for x in labels if x.splitlines() != [x] or labels.count(x) > 1]:
        raise ValueError(
            "a label is one line of text, not empty, and no other class's; received "
            f"{broken[0]!r}"
        )
    return list(labels)


def _describe(reference, labels, made, activations) -> dict:
    """Return what the manifest says of a version's inputs, outputs and makers."""
    from kerascnn.environment import commit, versions

    strings, shape = made.name == "savedmodel", [None, *reference.shape]
    outputs = {"probabilities": {"dtype": "float32", "shape": [None, len(labels)]}}
    if made.name != "keras":
        outputs["class_id"] = {"dtype": "int64", "shape": [None]}
    if strings:
        outputs["label"] = {"dtype": "string", "shape": [None]}
    signatures = ["serving_default"] if strings or made.name == "litert" else []
    if strings and reference.shape[2] in CHANNELS:
        signatures.append("serve_bytes")
    if activations and signatures:
        signatures.append("activations")
    packages = {}
    for module in made.writers:
        name = module.replace("_", "-")
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # One module comes in several distributions: tensorflow-cpu, …
            for name in metadata.packages_distributions().get(module, [])[:1]:
                packages[name] = metadata.version(name)
    return {
        "format": made.name,
        "input": {"name": "image", "dtype": "uint8", "shape": shape},
        "outputs": outputs,
        "signatures": signatures,
        "activations": list(activations),
        "labels": labels,
        "versions": {**versions(), **packages},
        "commit": commit(),
    }


@dataclasses.dataclass(frozen=True)
class Expected:
    """How a network answers: what its served version is held against."""

    shape: tuple[int, int, int]  # height, width, channels
    head: Head  # which of its outputs is served, and what its numbers are
    half: bool  # whether a layer computes in bfloat16 or float16
    images: np.ndarray  # uint8 (N, height, width, channels)
    probabilities: np.ndarray  # float32 (N, classes)


def refer(model, from_logits: bool | None = None, count: int = 256) -> Expected:
    """Let a network answer so many images, and find out what its outputs are."""
    import keras

    shape = _image_shape(model)
    images = check_images(shape, count)
    head = find_head(model, images)
    scores = None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("GPU"):
            # There `predict` compiles with XLA, which a server does not, and whose
            # fused kernels round in another way.
            answer = tf.function(lambda x: head.select(model(x, training=False)))
            starts = range(0, len(images), BATCH)
            scores = np.concatenate([answer(images[i : i + BATCH]) for i in starts])
    if scores is None:
        scores = head.select(model.predict(images, batch_size=BATCH, verbose=0))
    scores = np.asarray(scores, np.float32)
    if not np.isfinite(scores).all():
        raise ExportError(
            f"the model {model.name!r} answers images with NaN or infinity; "
            "train it again, with a smaller learning rate"
        )
    logits = head.kind in ("logits", "logit")
    if from_logits and not logits:
        if head.by_graph:
            raise ValueError(
                f"the model {model.name!r} ends in a {head.kind.removesuffix('s')}: "
                "its outputs are probabilities, not logits; leave from_logits out"
            )
        head = dataclasses.replace(head, kind="logit" if head.units == 1 else "logits")
    if from_logits is False and logits:
        raise ValueError(
            f"the outputs of the model {model.name!r} are not probabilities: they add "
            f"up to {scores[0].sum():.4g} for an image; leave from_logits out, or end "
            "the model in a softmax"
        )
    only = dataclasses.replace(head, index=0)  # of what is given as its one output
    layers = model._flatten_layers(include_self=False)
    half = any(layer.compute_dtype in ("bfloat16", "float16") for layer in layers)
    return Expected(shape, head, half, images, only.probabilities(scores))


def _image_shape(model) -> tuple[int, int, int]:
    """Return (height, width, channels) of the images that a network takes."""
    inputs = getattr(model, "inputs", None)
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
    shape = shapes[0][1:]
    layers = model._flatten_layers(include_self=False)
    orders = {getattr(layer, "data_format", None) for layer in layers}
    # Without such a layer too: images 3 pixels high, of 32 channels, are none.
    first = "channels_first" in orders or min(shape[1:]) > max(CHANNELS)
    if first and shape[0] in CHANNELS and shape[2] not in CHANNELS:
        raise ValueError(
            f"the model {model.name!r} takes images channels first, {shape}, and a "
            "served network takes (height, width, channels): build it with "
            'data_format="channels_last", or put keras.layers.Permute((3, 1, 2)) in '
            "front"
        )
    return shape


def check_images(shape: tuple[int, int, int], count: int = 256) -> np.ndarray:
    """Return images that a network and its version are compared on; always the same.

    The first half is noise, uniform in 0…255. The other half has structure, to which
    convolutions answer more strongly: waves of any direction and length, a colour
    each, of which every second has hard edges. Returns uint8 (count, *shape).
    """
    if count < 2:
        raise ValueError(
            "a version is compared with its network on 2 images or more; received "
            f"images={count}"
        )
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (count // 2, *shape), np.uint8)
    height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    structured = []
    for number in range(count - len(noise)):
        angle, phase = random.uniform(0, 2 * np.pi, (2, channels))
        length = random.uniform(3, max(3, height, width), channels)
        way = x[..., None] * np.cos(angle) + y[..., None] * np.sin(angle)
        wave = np.sin(2 * np.pi * way / length + phase)  # (height, width, channels)
        structured.append(np.sign(wave) if number % 2 else wave)
    levels = np.rint(127.5 + 127.5 * np.stack(structured))
    return np.concatenate([noise, levels.astype(np.uint8)])


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 what is float32: GPUs round it to TensorFloat-32 otherwise.

    Of its ten bits, a comparison could not tell rounding from an error.
    """
    import keras

    with contextlib.ExitStack() as until:
        if keras.backend.backend() == "tensorflow":
            from tensorflow.config import experimental as config

            switch = config.enable_tensor_float_32_execution
            until.callback(switch, config.tensor_float_32_execution_enabled())
            switch(False)
        elif keras.backend.backend() == "jax":
            import jax

            until.enter_context(jax.default_matmul_precision("highest"))
        yield
