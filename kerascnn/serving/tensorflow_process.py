"""Export from another backend: through a .keras file and a TensorFlow process.

A SavedModel that JAX writes wraps the network in one XlaCallModule operation, which
TensorFlow Serving does not run on a CPU unless told to compile with XLA. Here the
network is saved, loaded by a process with KERAS_BACKEND=tensorflow, and leaves that
as plain convolutions and matrix products.
"""

import dataclasses
import importlib
import importlib.util
import json
import os
import pickle
import sys
import tempfile
import zipfile
from pathlib import Path

import keras

from kerascnn.serving import exporting, savedmodel, verification
from kerascnn.serving.formats import ExportError, Format, first_line
from kerascnn.serving.publish import explained

OWN = ("keras", "builtins")  # what Keras finds by itself
JOB, PROOF = "job.pickle", "proof.pickle"  # between the two processes


def build(
    model, version: Path, reference, labels, made: Format, activations, tolerance
) -> dict:
    """Do as `savedmodel.write` and `verification.prove`, from any backend.

    Raises ExportError: TensorFlow is not installed; the model cannot be saved; a custom
    layer cannot be imported; or what those two raise.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ExportError(
            "a SavedModel is written by TensorFlow, which is not installed; "
            "pip install tensorflow"
        )
    with tempfile.TemporaryDirectory(prefix="kerascnn-export-") as scratch:
        folder = Path(scratch)
        savedmodel.save(model, folder / "model.keras")
        custom = _custom(folder / "model.keras")
        for module, name in custom:
            if module == "__main__":  # there it is another script
                raise _not_importable(module, name, "it is defined in a script")
        plain = dict.fromkeys(("tensor", "logits", "squash"))  # of a graph over here
        head = dataclasses.replace(reference.head, **plain)
        told = dataclasses.replace(reference, head=head), list(labels), made
        job = version.resolve(), told, list(activations), tolerance, custom
        (folder / JOB).write_bytes(pickle.dumps(job))
        # Without a GPU: its memory, if there is one, belongs to this process.
        verification.run_python(
            ["-m", __name__, scratch],
            f"the TensorFlow process that exports {model.name!r} failed",
            KERAS_BACKEND="tensorflow",
            PYTHONPATH=os.pathsep.join(path for path in sys.path if path),
        )
        proof = pickle.loads((folder / PROOF).read_bytes())
        if isinstance(proof, ExportError):
            raise proof
        return proof


def _custom(file: Path) -> list[list[str]]:
    """Return (module, name) of the classes and functions of others in a .keras file.

    It names no module for a class of a script, nor for a function: that is registered.
    """
    with zipfile.ZipFile(file) as archive:
        config = json.loads(archive.read("config.json"))
    config.pop("compile_config", None)  # how it was trained is not exported
    found, remaining = set(), [config]
    while remaining:
        part = remaining.pop()
        if isinstance(part, dict):
            module, name = part.get("module", "builtins"), part.get("class_name")
            if name == "function":
                function = keras.saving.get_registered_object(part["config"])
                module = getattr(function, "__module__", "builtins")
                name = getattr(function, "__name__", None)
            if name and (module or "__main__").split(".")[0] not in OWN:
                found.add((module or "__main__", name))
            remaining.extend(part.values())
        elif isinstance(part, list):
            remaining.extend(part)
    return [list(pair) for pair in sorted(found)]


def _classes(custom) -> dict:
    """Import custom classes by module and name; the `custom_objects` of Keras."""
    classes = {}
    for module, name in custom:
        try:
            classes[name] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise _not_importable(module, name, str(error)) from error
    return classes


def _not_importable(module: str, name: str, reason: str) -> ExportError:
    return ExportError(
        f"{name} of {module} cannot be imported by the TensorFlow process that writes "
        f"the SavedModel ({reason}); define it at the top of a module, or export with "
        "KERAS_BACKEND=tensorflow"
    )


def main(scratch: str) -> None:
    """Do the job that `build` left in a folder; runs in the TensorFlow process."""
    import zoo.layers  # noqa: F401  (registers the custom layers of the zoo)

    folder = Path(scratch)
    job = pickle.loads((folder / JOB).read_bytes())
    version, told, activations, tolerance, custom = job
    try:
        try:
            # Unsafe would be a file of unknown origin; this one the caller just wrote.
            model = keras.saving.load_model(
                folder / "model.keras",
                custom_objects=_classes(custom),
                compile=False,
                safe_mode=False,
            )
        except (TypeError, ValueError) as error:
            # Keras adds the layer's whole configuration.
            reason = first_line(error).split(" Full object config")[0]
            raise ExportError(
                "the TensorFlow process that writes the SavedModel cannot load the "
                f"model: {reason}"
            ) from error
        with exporting.full_precision(), explained(version):
            savedmodel.write(model, version, *told, activations)
            proof = verification.prove(version, *told, tolerance)
    except ExportError as error:
        proof = error
    (folder / PROOF).write_bytes(pickle.dumps(proof))


if __name__ == "__main__":
    main(sys.argv[1])
