"""What names a trained network, brought to one form."""

import os
from dataclasses import dataclass
from pathlib import Path

import zoo
from kerascnn.training.run import Run, load_model, load_run


@dataclass(frozen=True)
class Network:
    """A model, its name, and the names of its classes where they are known."""

    model: object
    name: str
    labels: tuple[str, ...] | None


def open_network(source) -> Network:
    """Return the network that a source names.

    Args:
        source: a `Run`, a `keras.Model`, the name of a network whose trained weights
            ship, or the path of a run folder or of a `.keras` file.

    Raises:
        ValueError: nothing of that name exists, or a file cannot be read.
        FileNotFoundError: the path is not there, or not a run folder.
        TypeError: the source is something else.
    """
    if isinstance(source, Run):
        return Network(source.model, source.name, source.labels)
    if isinstance(source, str) and source in zoo.names():
        labels = zoo.card(source).weights.get("labels")
        return Network(zoo.load(source), source, tuple(labels) if labels else None)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            run = load_run(path)
            return Network(run.model, run.name, run.labels)
        if path.suffix == ".keras":
            model = load_model(path)
            return Network(model, model.name, None)
        if path.exists():
            raise ValueError(f"{path} is neither a run folder nor a .keras file")
        if isinstance(source, os.PathLike) or os.sep in source:
            raise FileNotFoundError(
                f"there is no {path}; give a run folder or a .keras file that exists"
            )
        try:
            zoo.card(source)
        except zoo.UnknownNetworkError as error:
            raise zoo.UnknownNetworkError(
                f"{error} (and there is no folder of that name)"
            ) from None
    import keras

    if isinstance(source, keras.Model):
        return Network(source, source.name, None)
    raise TypeError(
        "expected a run, a keras.Model, a name of the zoo or a path; received "
        f"{type(source).__name__}"
    )
