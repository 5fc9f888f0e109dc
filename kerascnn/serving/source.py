"""What can be exported, brought to one form: a model, its labels, where it is from."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """A network that is exported.

    Attributes:
        model: the `keras.Model`.
        labels: names of its classes, or None.
        name: of the network.
        origin: for the manifest: "run" with its folder's name, "config" and "metrics";
            "weights" as the zoo's card has them; or "file" and its "sha256".
        accuracy: percent of the test images, or None.
    """

    model: Any
    labels: tuple[str, ...] | None
    name: str
    origin: dict = field(default_factory=dict)
    accuracy: float | None = None


def resolve(source) -> Source:
    """Return the network that a source names, and where it comes from.

    Args:
        source: an object with a `model` and `labels`, as a run is; or what
            `kerascnn.training.open_network` opens: a `keras.Model`, the name of a
            network of the zoo, or the path of a run folder or of a .keras file.

    Raises:
        ValueError: nothing of that name exists, or a file cannot be read.
        FileNotFoundError: the path is not there, or not a run folder.
        TypeError: the source is something else.
    """
    import zoo
    from kerascnn.training import load_run, open_network

    if isinstance(source, str) and source in zoo.names():
        network = open_network(source)
        weights = dict(zoo.card(source).weights)
        weights.pop("labels", None)
        return Source(
            network.model,
            network.labels,
            source,
            {"weights": weights},
            weights.get("accuracy"),
        )
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        source = load_run(source)
    if hasattr(source, "model") and hasattr(source, "labels"):
        metrics = getattr(source, "metrics", None) or {}
        origin = {}
        if getattr(source, "folder", None) is not None:
            origin = {
                "run": Path(source.folder).resolve().name,
                "config": source.config,
                "metrics": metrics,
            }
        name = getattr(source, "name", None) or source.model.name
        accuracy = metrics.get("test_accuracy")
        return Source(source.model, source.labels, name, origin, accuracy)
    network = open_network(source)
    origin = {}
    if isinstance(source, str | os.PathLike):
        from kerascnn.serving.manifest import sha256

        origin = {"file": Path(source).name, "sha256": sha256(Path(source))}
    return Source(network.model, network.labels, network.name, origin)
