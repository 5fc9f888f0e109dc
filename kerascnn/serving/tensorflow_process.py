"""Export from another backend: through a .keras file and a TensorFlow process.

A SavedModel that JAX writes wraps the network in one XlaCallModule operation, which
TensorFlow Serving does not run on a CPU unless told to compile with XLA. Here the
network is saved, loaded by a process with KERAS_BACKEND=tensorflow, and leaves that
as plain convolutions and matrix products.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np

from kerascnn.heads import Head
from kerascnn.serving import formats
from kerascnn.serving.formats import ExportError, Format
from kerascnn.serving.verification import Reference, prove

# The backends' convolutions sum in another order: rounding, amplified by the depth of
# a network.
TOLERANCE = 1e-4

OWN = ("keras", "builtins")  # what Keras finds by itself


def build(
    model, version: Path, reference, labels, made: Format, activations, tolerance
) -> tuple[dict[str, float], np.ndarray]:
    """Write a network of any backend into a folder, and prove it there.

    Args: as `formats.write` and `verification.prove`, whose result is returned.

    Raises:
        ExportError: TensorFlow is not installed; the model cannot be saved; a custom
            layer cannot be imported; or what those two raise.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ExportError(
            "a SavedModel is written by TensorFlow, which is not installed; "
            "pip install tensorflow"
        )
    with tempfile.TemporaryDirectory(prefix="kerascnn-export-") as scratch:
        file = Path(scratch) / "model.keras"
        formats.save(model, file)
        custom = _custom(file)
        for module, name in custom:
            if module == "__main__":  # there it is another script
                raise _not_importable(module, name, "it is defined in a script")
        head = reference.head
        job = {
            "shape": reference.shape,
            "head": [head.kind, head.units, head.index],
            "version": str(version.resolve()),
            "format": made.name,
            "activations": list(activations),
            "labels": list(labels),
            "custom": custom,
            "tolerance": tolerance,
        }
        np.savez(
            Path(scratch) / "reference.npz",
            images=reference.images,
            probabilities=reference.probabilities,
        )
        (Path(scratch) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", __name__, scratch],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                # The GPU's memory, if there is one, belongs to this process.
                "CUDA_VISIBLE_DEVICES": "",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failure = Path(scratch) / "failure.txt"
            if failure.exists():
                raise ExportError(failure.read_text(encoding="utf-8"))
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ExportError(
                f"the TensorFlow process that exports {model.name!r} failed: "
                f"{lines[-1]}"
            )
        told = json.loads((Path(scratch) / "proof.json").read_text(encoding="utf-8"))
        return told, np.load(Path(scratch) / "golden.npy")


def _custom(file: Path) -> list[list[str]]:
    """Return (module, name) of the classes and functions in a .keras file.

    Only of those that are not of Keras. Keras names no module for a class of a script,
    and none for a function: that has to be registered.
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
                module, name = (
                    getattr(function, "__module__", "builtins"),
                    getattr(function, "__name__", None),
                )
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


def main(scratch: str) -> int:
    """Do the job that `build` left in a folder; runs in the TensorFlow process."""
    import zoo.layers  # noqa: F401  (registers the custom layers of the zoo)
    from kerascnn.serving.savedmodel import full_precision

    folder = Path(scratch)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "reference.npz") as arrays:
        head = Head(*job["head"], None, None, None, True)
        reference = Reference(tuple(job["shape"]), head, **arrays)
    version, made = Path(job["version"]), formats.format_named(job["format"])
    try:
        try:
            # Unsafe would be a file of unknown origin; this one the caller just wrote.
            model = keras.saving.load_model(
                folder / "model.keras",
                custom_objects=_classes(job["custom"]),
                compile=False,
                safe_mode=False,
            )
        except (TypeError, ValueError) as error:
            # Keras adds the layer's whole configuration.
            reason = str(error).split(" Full object config")[0].splitlines()[0]
            raise ExportError(
                f"the TensorFlow process that writes the SavedModel cannot load the "
                f"model: {reason}"
            ) from error
        with full_precision():
            formats.write(
                model, version, reference, job["labels"], made, job["activations"]
            )
            told, golden = prove(
                version, reference, job["labels"], made, job["tolerance"]
            )
    except ExportError as error:
        (folder / "failure.txt").write_text(str(error), encoding="utf-8")
        return 1
    (folder / "proof.json").write_text(json.dumps(told), encoding="utf-8")
    np.save(folder / "golden.npy", golden)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
