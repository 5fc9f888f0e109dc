"""From a trained network to a served one: numbered SavedModel versions.

    version = serving.export(run, "served/lecture_cnn")     # served/lecture_cnn/1
    serving.answers(version, images)["label"]

Importing this package imports neither TensorFlow nor Keras.
"""

import importlib

_HOMES = {
    "ExportError": "errors",
    "answers": "check",
    "check_in_fresh_process": "check",
    "export": "exporting",
    "predict_files": "check",
    "published": "staging",
}

__all__ = [
    "ExportError",
    "answers",
    "check_in_fresh_process",
    "export",
    "predict_files",
    "published",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
