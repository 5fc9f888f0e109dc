"""Publish a trained network as the next numbered version of a SavedModel."""

from pathlib import Path

from kerascnn.serving.staging import publish, staging


def export(source, folder, *, labels=None, from_logits=None) -> Path:
    """Publish a network as `folder`/1, or the next number, for servers to load.

    The version is a SavedModel with two signatures. `serving_default` takes `image`,
    uint8 pixels 0…255 (N, height, width, channels). `serve_bytes` takes
    `image_bytes`, N strings that are JPEG or PNG files of any size, and does with
    them in the graph what `kerascnn.data.read_image` does: upright, transparency on
    white, the centre cut out, resized by antialiased bicubic interpolation. (A
    network of four channels takes PNG only and keeps the transparency; one of two or
    of five channels and more has no `serve_bytes`.) Both return `probabilities`
    float32 (N, classes), `class_id` int64 (N,) and `label` strings (N,). Augmentation
    and dropout are off. Of several outputs the main one is served: the one named
    "probabilities", otherwise the first.

    Beside it lie `assets.extra/labels.txt`, a label a line, and
    `assets.extra/tf_serving_warmup_requests`. The version is written in a directory
    of another name, loaded back, compared with `model.predict` on random images, and
    renamed into place: who watches the folder sees all of it or nothing. A failure
    leaves nothing. Other files in the folder are left alone, except the staging
    directories (`.staging-…`) of exports that were killed.

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

    Returns:
        The path of the new version.

    Raises:
        ValueError: the source is unknown, is no network for images of a fixed size,
            its outputs are neither probabilities nor, beyond doubt, logits, or the
            labels do not fit the classes.
        TypeError: the source is of another type.
        OSError: the folder cannot be written to, or is a file; or the source is a path
            that is not there (FileNotFoundError).
        ExportError: the version could not be written, or answers otherwise than the
            network.
    """
    import keras

    from kerascnn.serving.network import refer
    from kerascnn.serving.source import resolve

    # Both modules import TensorFlow or start it, so neither is imported without need.
    if keras.backend.backend() == "tensorflow":
        from kerascnn.serving.savedmodel import build, full_precision
    else:
        from kerascnn.serving.elsewhere import build, full_precision

    model, known = resolve(source)
    folder = Path(folder)
    with full_precision():
        reference = refer(model, from_logits)
        labels = _labels(known if labels is None else labels, reference.classes)
        with staging(folder) as staged:
            build(model, staged, reference, labels)
            return publish(staged, folder)


def _labels(labels, classes: int) -> list[str]:
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
