"""A lecture on convolutional networks, executable: build, compare, train, serve.

    import kerascnn

    model = kerascnn.lecture_cnn()
    print(kerascnn.summarize(model))
    run = kerascnn.train("lecture_cnn", "shapes")
    kerascnn.export(run, "served/lecture_cnn")

Everything is imported when it is first used, so that `import kerascnn` is quick and
loads neither TensorFlow nor Keras.
"""

import importlib

__version__ = "0.1.0"

# Where each public name lives; the networks of the zoo are found by their names. No
# module of this package may have the name of a public function: importing the module
# would put it in the function's place.
_HOMES = {
    "Card": "zoo",
    "build": "zoo",
    "card": "zoo",
    "load": "zoo",
    "register": "zoo",
    "inception_block": "zoo.blocks",
    "summarize": "kerascnn.summary",
    "compare": "kerascnn.comparison",
    "mlp_twin": "kerascnn.twin",
    "Data": "kerascnn.data",
    "Images": "kerascnn.data",
    "load_data": "kerascnn.data",
    "Recipe": "kerascnn.training",
    "evaluate": "kerascnn.training",
    "load_run": "kerascnn.training",
    "lsuv": "kerascnn.training",
    "predict": "kerascnn.training",
    "resume": "kerascnn.training",
    "train": "kerascnn.training",
    "tune": "kerascnn.tuning",
    "Client": "kerascnn.serving",
    "export": "kerascnn.serving",
}
_MODULES = ("arithmetic", "explain")

__all__ = [*_HOMES, *_MODULES, "layers", "models"]


def models(pattern: str = "*") -> list[str]:
    """Return the networks of the zoo whose names match, such as "resnet*"."""
    import zoo

    return zoo.names(pattern)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"kerascnn.{name}")
    if name == "layers":
        return importlib.import_module("zoo.layers")
    if not name.startswith("_"):
        import zoo

        if name in zoo.names():
            return zoo.builder(name)
    raise AttributeError(f"module 'kerascnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *models()])
