"""Publish a trained network as the next numbered version, in a format of choice."""

import datetime
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from kerascnn.serving import formats, manifest
from kerascnn.serving.publish import publish, staging

PACKAGES = {  # whose version goes into the manifest, beside those of every run
    "savedmodel": ("tensorflow",),
    "litert": ("tensorflow", "ai-edge-litert"),
    "onnx": ("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
    "openvino": ("tensorflow", "openvino"),
    "keras": (),
}


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
    """Publish a network as `folder`/1, or the next number, for servers to load.

    In every format the version takes `image`, uint8 pixels 0…255 (N, height, width,
    channels), N as the request has it, and returns `probabilities` float32
    (N, classes) and `class_id` int64 (N,). Augmentation and dropout are off. Of
    several outputs the main one is served: the one named "probabilities", otherwise
    the first.

    - "savedmodel": a TensorFlow SavedModel. Its signature `serving_default` returns
      also `label`, strings (N,); `serve_bytes` takes `image_bytes`, N strings that are
      JPEG or PNG files of any size, and does with them in the graph what
      `kerascnn.data.read_image` does: upright, transparency on white, the centre cut
      out, resized by antialiased bicubic interpolation. (A network of four channels
      takes PNG only and keeps the transparency; one of two or of five channels and
      more has no `serve_bytes`.) Beside it lie `assets.extra/labels.txt` and
      `assets.extra/tf_serving_warmup_requests`.
    - "litert": `model.tflite`, the signature `serving_default`, built-in operations
      only.
    - "onnx": `model.onnx`.
    - "openvino": `model.xml` and `model.bin`, float32. Where the processor is quicker
      with it, OpenVINO computes in bfloat16 unless told INFERENCE_PRECISION_HINT=f32.
    - "keras": `model.keras`, the network itself, for Keras with kerascnn; its outputs
      are probabilities alone, and a softmax is added to a network that ends in logits.

    These four know neither strings nor image files; `kerascnn.serving.answers` reads
    the names in `labels.txt` and decodes files before it asks.

    Every version has `labels.txt`, a label a line, and `manifest.json`: model, run,
    data, labels, versions of the packages, the SHA-256 of each file, and a request
    with its answer, which `kerascnn.serving.verify` asks again. The version is written
    in a directory of another name, loaded back, compared with `model.predict` on
    noise and on structured images, as pixels and as PNG files, to 1e-5 of a
    probability, and renamed into place: who watches the folder sees all of it or
    nothing. A failure leaves nothing. Other files in the folder are left alone,
    except the staging directories (`.staging-…`) of exports that were killed. A folder
    that a server watches should have versions of one format.

    Under another backend than TensorFlow's, the network goes through a .keras file to
    a process with KERAS_BACKEND=tensorflow; there its custom layers are imported by
    module and name.

    Args:
        source: a run; a `keras.Model`; the name of a network of the zoo with trained
            weights that ship, such as "lecture_cnn"; or the path of a run folder or a
            .keras file.
        folder: the folder of this model's versions; made if it does not exist.
        labels: names of the classes in the order of the outputs; default those of
            the run or the shipped weights, otherwise "0", "1", ….
        from_logits: whether the network ends in logits, to which the version applies
            the softmax; default: found out from its last layer.
        format: "savedmodel", "litert", "onnx", "openvino" or "keras".
        activations: names of layers ("conv1"; "encoder/conv1" of a nested model) whose
            maps the version gives too, float32, by the layer's name: under the
            signature `activations` in a SavedModel and LiteRT, as further outputs in
            ONNX and OpenVINO, which know one signature.
        images: number of images that the version and the network are compared on, at
            least 2; fewer save time where a network is large.
        tolerance: the largest difference of a probability that is taken for rounding;
            default 1e-5, and under another backend than TensorFlow's 1e-4 (3e-2 where
            a layer computes in bfloat16 or float16).

    Returns:
        The path of the new version.

    Raises:
        ValueError: the source or the format is unknown, the source is no network for
            images of a fixed size, channels last, its outputs are not understood (see
            `kerascnn.heads`), the labels do not fit the classes, or there is no such
            layer.
        TypeError: the source is of another type.
        ModuleNotFoundError: the format needs a package that is not installed.
        OSError: the folder cannot be written to, or is a file; or the source is a path
            that is not there (FileNotFoundError).
        ExportError: the version could not be written, the format cannot express the
            network, or the version answers otherwise than the network.
    """
    made = formats.format_named(format)
    formats.require(made.writes, made)
    import keras

    from kerascnn.serving import savedmodel, tensorflow_process, verification

    model, labels_known, about = resolve(source)
    folder = Path(folder)
    here = keras.backend.backend() == "tensorflow" or made.name == "keras"
    half = verification.computes_in_half(model)
    if tolerance is None:
        # The same operations in the same precision differ by rounding only.
        same = here and made.name in ("savedmodel", "keras")
        tolerance = verification.TOLERANCE if here else tensorflow_process.TOLERANCE
        if half and not same:
            tolerance = verification.TOLERANCE_HALF
    with savedmodel.full_precision():
        reference = verification.refer(model, from_logits, images)
        labels = _labels(labels_known if labels is None else labels, reference)
        if activations and made.name == "keras":
            raise ValueError(
                "a .keras file holds every layer, and kerascnn explain shows it; leave "
                f"activations out, received {activations!r}"
            )
        activations = savedmodel.check_names(model, activations)
        with staging(folder) as staged:
            job = (model, staged, reference, labels, made, activations)
            try:
                if here:
                    formats.write(*job)
                    told = (reference, labels, made, tolerance)
                    proof = verification.prove(staged, *told)
                else:
                    proof = tensorflow_process.build(*job, tolerance)
            except formats.ExportError as error:
                if not half or made.name in ("savedmodel", "keras"):
                    raise
                # The converters blame layers that they know in float32.
                raise formats.ExportError(
                    f"the network computes in half precision, float16 or bfloat16, "
                    f"which is hardly known to {made.title} and its converter: export "
                    "it as a SavedModel, or set its weights into a network of float32 "
                    f"({error})"
                ) from error
            differences, answer = proof
            about |= _describe(reference, labels, made, activations)
            about["parity"] = {"images": len(reference.images), **differences}
            about["parity"]["tolerance"] = tolerance
            # Of another machine, on another day.
            later = verification.TOLERANCE_HALF if half else verification.TOLERANCE
            about["golden"] = manifest.golden(
                reference.golden, answer, labels, max(tolerance, later)
            )
            with formats.explained(staged):
                manifest.write(staged, about)
            return publish(staged, folder)


def resolve(source):
    """Return the network that a source names, its labels, and what a manifest says.

    The manifest says its name, its accuracy in percent of the test images, and its
    origin: "run" with its folder's name, "config" and "metrics"; "weights" as the zoo's
    card has them; or "file" and its "sha256".
    """
    import zoo
    from kerascnn.training import load_run, open_network

    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        source = load_run(source)
    accuracy, origin = None, {}
    if hasattr(source, "model") and hasattr(source, "labels"):  # a run, or the like
        metrics = getattr(source, "metrics", None) or {}
        accuracy = metrics.get("test_accuracy")
        if getattr(source, "folder", None) is not None:
            origin = {
                "run": Path(source.folder).resolve().name,
                "config": source.config,
                "metrics": metrics,
            }
        model, labels = source.model, source.labels
        name = getattr(source, "name", None) or model.name
    else:
        network = open_network(source)
        model, labels, name = network.model, network.labels, network.name
        if isinstance(source, str) and source in zoo.names():
            weights = dict(zoo.card(source).weights)
            weights.pop("labels", None)
            accuracy, origin = weights.get("accuracy"), {"weights": weights}
        elif isinstance(source, str | os.PathLike):
            file = Path(source)
            origin = {"file": file.name, "sha256": manifest.sha256(file)}
    return model, labels, {"model": name, "accuracy": accuracy, "source": origin}


def _describe(reference, labels, made, activations) -> dict:
    """Return what the manifest says of a version's inputs, outputs and makers."""
    from kerascnn.environment import commit, versions

    strings = made.name == "savedmodel"
    names = {"class_id": "int64"} if made.name != "keras" else {}
    names |= {"label": "string"} if strings else {}
    signatures = ["serving_default"] if strings or made.name == "litert" else []
    if strings and reference.shape[2] in formats.CHANNELS:
        signatures.append("serve_bytes")
    if activations and signatures:
        signatures.append("activations")
    return {
        "format": made.name,
        "created": now(),
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": [None, *reference.shape],
        },
        "outputs": {
            "probabilities": {"dtype": "float32", "shape": [None, len(labels)]},
            **{n: {"dtype": kind, "shape": [None]} for n, kind in names.items()},
        },
        "signatures": signatures,
        "activations": list(activations),
        "labels": labels,
        "versions": {**versions(), **_installed(PACKAGES[made.name])},
        "commit": commit(),
    }


def _installed(packages) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # One module comes in several distributions: tensorflow-cpu, …
            module = package.replace("-", "_")
            names = metadata.packages_distributions().get(module, [])
            if names:
                found[names[0]] = metadata.version(names[0])
    return found


def now() -> str:
    """Return the time in UTC as a manifest has it: 2026-11-22T20:00:00+00:00."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _labels(labels, reference) -> list[str]:
    classes = reference.head.classes
    if labels is None:
        return [str(number) for number in range(classes)]
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a list of strings; received {labels!r}")
    labels = list(labels)
    if len(labels) != classes:
        raise ValueError(
            f"the network has {classes} classes; received {len(labels)} labels: give "
            "one a class, in the order of the outputs"
        )
    if broken := [label for label in labels if len(label.splitlines()) != 1]:
        raise ValueError(
            f"a label is one line of text that is not empty; received {broken[0]!r}"
        )
    return labels
