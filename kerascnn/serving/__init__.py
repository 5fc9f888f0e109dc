"""From a trained network to a served one: numbered versions, in five formats.

    version = serving.export(run, "served/lecture_cnn")     # served/lecture_cnn/1
    serving.answers(version, images)[0].label
    serving.verify("served/lecture_cnn")               # whole, and answers as it did

Begin with `exporting.py`, then `publish.py`; the server is `http/`. Importing this
package imports neither TensorFlow nor Keras.
"""

import importlib

_MODULES = {
    "client": "Client ServerError",
    "exporting": "export",
    "formats": "ExportError FORMATS answers is_version open_version predict_files",
    "publish": "published",
    "verification": "Verification check_in_fresh_process verify",
    "versioning": "Version prune rollback versions",
}
_HOMES = {n: module for module, names in _MODULES.items() for n in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
