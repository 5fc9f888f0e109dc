"""The server: versions of SavedModels over HTTP, as TensorFlow Serving answers them.

    from kerascnn.serving import http
    http.serve("served")                    # the command `kerascnn serve served`
    app = http.create_app("served")         # the same as a Starlette application

It speaks TensorFlow Serving's REST API (`/v1/…`, module `rest`) and the Open Inference
Protocol (`/v2/…`, module `openinference`). Begin with `app.py`; `batching.py` and
`saved_model.py` compute. Importing this package imports neither TensorFlow nor
Starlette.
"""

import importlib

_HOMES = {"Limits": "limits", "create_app": "app", "serve": "server"}
_EXTRA = ("orjson", "prometheus_client", "starlette", "uvicorn")

__all__ = ["Limits", "create_app", "serve"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise ImportError(
            f'the server needs {package}: pip install "kerascnn[serve]"'
        ) from error
    return getattr(module, name)
