"""From a trained network to a served one: numbered versions, in five formats.

    version = serving.export(run, "served/lecture_cnn")     # served/lecture_cnn/1
    serving.answers(version, images)["label"]
    serving.verify("served/lecture_cnn")               # whole, and answers as it did

Begin with `exporting.py`, then `publish.py`; the server is `http/`. Importing this
package imports neither TensorFlow nor Keras.
"""

import importlib

_HOMES = {
    "FORMATS": "formats",
    "Client": "client",
    "ExportError": "formats",
    "ServerError": "client",
    "Verification": "verification",
    "Version": "versioning",
    "answers": "runtimes",
    "check_in_fresh_process": "verification",
    "export": "exporting",
    "is_version": "formats",
    "open_version": "runtimes",
    "predict_files": "runtimes",
    "prune": "versioning",
    "published": "publish",
    "rollback": "versioning",
    "verify": "verification",
    "versions": "versioning",
}

__all__ = [
    "FORMATS",
    "Client",
    "ExportError",
    "ServerError",
    "Verification",
    "Version",
    "answers",
    "check_in_fresh_process",
    "export",
    "is_version",
    "open_version",
    "predict_files",
    "prune",
    "published",
    "rollback",
    "verify",
    "versions",
]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
