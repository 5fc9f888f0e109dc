"""Export from another backend: through a .keras file and a TensorFlow process.

A SavedModel that JAX writes wraps the network in one XlaCallModule operation, which
TensorFlow Serving does not run on a CPU unless told to compile with XLA. Here the
network is saved, loaded by a process with KERAS_BACKEND=tensorflow, and leaves that
as plain convolutions and matrix products.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from kerascnn.serving.errors import ExportError
from kerascnn.serving.formats import Format, format_named
from kerascnn.serving.network import Reference, computes_in_half
from kerascnn.serving.parity import TOLERANCE_HALF, Proof

# The backends' convolutions sum in another order: rounding, amplified by the depth of
# a network.
TOLERANCE = 1e-4

OWN = ("keras", "builtins")  # what Keras finds by itself


def build(
    model,
    version: Path,
    reference,
    labels,
    made: Format,
    activations=(),
    tolerance: float | None = None,
) -> Proof:
    """Write a network of any backend into a folder, as `building.build` does.

    Raises:
        ExportError: TensorFlow is not installed; the model cannot be saved; a custom
            layer cannot be imported; or what `building.build` raises.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ExportError(
            "a SavedModel is written by TensorFlow, which is not installed; "
            "pip install tensorflow"
        )
    with tempfile.TemporaryDirectory(prefix="kerascnn-export-") as scratch:
        file = Path(scratch) / "model.keras"
        try:
            with warnings.catch_warnings():
                # Keras warns of lambdas in files of unknown origin, which this is not.
                warnings.simplefilter("ignore")
                model.save(file)
        except (NotImplementedError, OSError, TypeError, ValueError) as error:
            raise ExportError(
                f"the model {model.name!r} cannot be saved for the TensorFlow process "
                f"that exports it: {str(error).strip().splitlines()[0]}"
            ) from error
        custom = _custom(file)
        for module, name in custom:
            if module == "__main__":  # there it is another script
                raise _not_importable(module, name, "it is defined in a script")
        if tolerance is None:
            tolerance = TOLERANCE_HALF if computes_in_half(model) else TOLERANCE
        job = {
            **asdict(reference),
            "version": str(version.resolve()),
            "format": made.name,
            "activations": list(activations),
            "labels": list(labels),
            "custom": custom,
            "tolerance": tolerance,
        }
        arrays = {name: job.pop(name) for name in ("images", "probabilities")}
        np.savez(Path(scratch) / "reference.npz", **arrays)
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
        with np.load(Path(scratch) / "golden.npz") as arrays:
            return Proof(**told, **{name: arrays[name] for name in arrays.files})


def full_precision():
    """Return a context in which JAX rounds float32 on no device to TensorFloat-32."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("highest")


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
    from kerascnn.serving import building, savedmodel

    folder = Path(scratch)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "reference.npz") as arrays:
        reference = Reference(
            shape=tuple(job["shape"]),
            classes=job["classes"],
            from_logits=job["from_logits"],
            images=arrays["images"],
            probabilities=arrays["probabilities"],
        )
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
        with savedmodel.full_precision():
            proof = building.build(
                model,
                Path(job["version"]),
                reference,
                job["labels"],
                format_named(job["format"]),
                job["activations"],
                job["tolerance"],
            )
    except ExportError as error:
        (folder / "failure.txt").write_text(str(error), encoding="utf-8")
        return 1
    told = asdict(proof)
    arrays = {name: told.pop(name) for name in ("images", "probabilities")}
    (folder / "proof.json").write_text(json.dumps(told), encoding="utf-8")
    np.savez(folder / "golden.npz", **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
