"""What can be exported, brought to one form: a model and, where known, its labels."""

import os
from pathlib import Path

import keras

import zoo


def resolve(source):
    """Return the `keras.Model` that a source names, and its labels or None.

    Args:
        source: a run, a `keras.Model`, the name of a network of the zoo, or the path
            of a run folder or of a .keras file; see `exporting.export`.

    Raises:
        ValueError: nothing of that name exists, or a file cannot be loaded.
        TypeError: the source is something else.
    """
    if isinstance(source, keras.Model):
        return source, None
    if hasattr(source, "model") and hasattr(source, "labels"):
        return source.model, source.labels
    if isinstance(source, str) and source in zoo.names():
        return zoo.load(source), zoo.card(source).weights.get("labels")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "export takes a run, a keras.Model, a name of the zoo or a path; received "
            f"{type(source).__name__}"
        )
    path = Path(source)
    if path.is_dir():
        from kerascnn.training import load_run

        run = load_run(path)
        return run.model, run.labels
    if path.is_file() and path.suffix == ".keras":
        return _load(path), None
    if path.exists():
        raise ValueError(
            f"{path} is neither a run folder nor a .keras file; save the model with "
            'model.save("model.keras")'
        )
    if isinstance(source, os.PathLike) or os.sep in source or path.suffix == ".keras":
        raise ValueError(
            f"there is no {path}; give a run folder or a .keras file that exists"
        )
    try:
        zoo.card(source)
    except zoo.UnknownNetworkError as error:
        raise ValueError(f"{error}; nor is {source!r} a run folder") from None


def _load(path: Path):
    import zoo.layers  # noqa: F401  (a .keras file names its custom layers)

    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else repr(error)
        raise ValueError(
            f"{path} cannot be loaded: {reason} (a model with custom layers needs the "
            "module that registers them imported first; or pass the model itself)"
        ) from error
