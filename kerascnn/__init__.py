"""A lecture on convolutional networks, executable: build, compare, train, serve.

Everything is imported when it is first used, so that `import kerascnn` is quick and
loads neither TensorFlow nor Keras. CONTRIBUTING.md has the rooms and the street of the
data; begin with `summary.py`, then `training/train.py`.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that type checkers see what is imported lazily
    from kerascnn import arithmetic as arithmetic
    from kerascnn import explain as explain
    from kerascnn.comparison import compare as compare
    from kerascnn.data import Data as Data
    from kerascnn.data import Images as Images
    from kerascnn.data import load_data as load_data
    from kerascnn.serving.client import Client as Client
    from kerascnn.serving.exporting import export as export
    from kerascnn.summary import summarize as summarize
    from kerascnn.training import Recipe as Recipe
    from kerascnn.training import evaluate as evaluate
    from kerascnn.training import load_run as load_run
    from kerascnn.training import lsuv as lsuv
    from kerascnn.training import predict as predict
    from kerascnn.training import resume as resume
    from kerascnn.training import train as train
    from kerascnn.tuning import tune as tune
    from kerascnn.twin import mlp_twin as mlp_twin
    from zoo import Card as Card
    from zoo import build as build
    from zoo import card as card
    from zoo import layers as layers
    from zoo import load as load
    from zoo import register as register
    from zoo.blocks import inception_block as inception_block

__version__ = "0.1.0"

# Where AVX-512 is missing TensorFlow leaves oneDNN off, and convolutions are slow.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# The networks are a package beside this one, whose name another may have taken.
_zoo = importlib.util.find_spec("zoo")
_places = list(_zoo.submodule_search_locations or [f"{_zoo.origin}"]) if _zoo else []
if not any(Path(place, "lecture_cnn.toml").is_file() for place in _places):
    raise ImportError(
        "kerascnn needs the package `zoo` that it is installed with, and finds "
        f"{_places[0] if _places else 'none'}: uninstall it, or start from elsewhere"
    )

# Where each public name lives; the networks of the zoo are found by their names. No
# module of this package may have the name of a public function: importing the module
# would put it in the function's place.
_NAMES = {
    "zoo": "Card build card load register",
    "zoo.blocks": "inception_block",
    "kerascnn.summary": "summarize",
    "kerascnn.comparison": "compare",
    "kerascnn.twin": "mlp_twin",
    "kerascnn.data": "Data Images load_data",
    "kerascnn.training": "Recipe evaluate load_run lsuv predict resume train",
    "kerascnn.tuning": "tune",
    "kerascnn.serving": "Client export",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
_MODULES = {"arithmetic": "kerascnn", "explain": "kerascnn", "layers": "zoo"}

__all__ = [*_HOMES, *_MODULES, "models"]


def models(pattern: str = "*") -> list[str]:
    """Return the networks of the zoo whose names match, such as "resnet*"."""
    import zoo

    return zoo.names(pattern)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{_MODULES[name]}.{name}")
    if not name.startswith("_") and name in models():
        return importlib.import_module("zoo").builder(name)
    raise AttributeError(f"module 'kerascnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *models()])
