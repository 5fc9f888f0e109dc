"""One version of a model in memory: its signatures, and how they are run."""

import contextlib
import importlib.abc
import importlib.machinery
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.serving.http.limits import Limits, RequestError, invalid, pixels
from kerascnn.serving.warmup import FILE, read_requests

# What `import tensorflow` imports where it is installed: two seconds and 240 MB that a
# server has no use for.
UNUSED = ("keras", "tf_keras", "jax", "h5py", "scipy")


class _NoKeras(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that cannot be imported, for the thread that made it alone."""

    def __init__(self):
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if name in UNUSED and threading.get_ident() == self.thread:
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def exec_module(self, module):
        raise ModuleNotFoundError(f"No module named {module.__name__!r}")


def tensorflow():
    """Import TensorFlow, without `UNUSED` where neither it nor Keras is imported."""
    if "tensorflow" not in sys.modules and "keras" not in sys.modules:
        blind = _NoKeras()
        sys.meta_path.insert(0, blind)
        try:
            import tensorflow  # noqa: F401
        finally:
            sys.meta_path.remove(blind)
    import tensorflow as tf

    return tf


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature."""

    name: str
    dtype: np.dtype  # object for strings
    dtype_name: str  # as TensorFlow writes it: "uint8", "string", …
    shape: tuple[int | None, ...] | None  # None in it: any size; None: any rank

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Tell whether an array of this shape is one."""
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(s in (None, n) for s, n in zip(self.shape, shape, strict=True))
        )


# The input of the signature `serve_bytes`.
ENCODED = "image_bytes"
REQUEST = 4  # times the pixels of one encoded image may be in a request


@dataclass(frozen=True)
class Signature:
    """A function of a SavedModel.

    `batched` says that the first axis of all inputs and outputs is one of any size,
    so that requests can be put together. Where large requests are read, in another
    process, it has no function.
    """

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batched: bool
    function: Any

    def __getstate__(self):
        return {**self.__dict__, "function": None}

    def check(self, arrays, places, limits: Limits) -> tuple[int, list[int] | None]:
        """Return the number of images of a request, and the pixels of encoded ones.

        `arrays` has one for each input; `places` says how messages name an image of it,
        "instances[{}]". RequestError: 400 for a wrong shape or a hostile image, 413 for
        too many images or pixels.
        """
        for name, array in arrays.items():
            tensor = self.inputs[name]
            if not tensor.fits(array.shape):
                sizes = ["N" if size is None else str(size) for size in tensor.shape]
                raise invalid(
                    f"the input {name!r} takes {tensor.dtype_name} of the shape "
                    f"({', '.join(sizes)}); received {array.shape}"
                )
        count = 1
        if self.batched:
            counts = {name: len(array) for name, array in arrays.items()}
            count = next(iter(counts.values()))
            if len(set(counts.values())) > 1:
                raise invalid(f"the inputs have different numbers of images: {counts}")
            if not count:
                raise invalid("the request has no images; send one or more")
            if count > limits.images:
                told = f"a request has at most {limits.images:,} images; received "
                raise RequestError(413, f"{told}{count:,}: use several requests")
        if ENCODED not in arrays or arrays[ENCODED].dtype.kind != "O":
            return count, None
        weights = [
            pixels(encoded, places[ENCODED].format(number), limits.pixels)
            for number, encoded in enumerate(arrays[ENCODED].ravel())
        ]
        if (total := sum(weights)) > (most := REQUEST * limits.pixels):
            told = f"a request has at most {most:,} pixels; received {total:,}"
            raise RequestError(413, f"{told}: use several requests")
        return count, weights

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of arrays; blocks. Raises TensorFlow's OpError."""
        import tensorflow as tf

        values = {
            name: tf.constant(array, self.inputs[name].dtype_name)
            for name, array in arrays.items()
        }
        return {name: v.numpy() for name, v in self.function(**values).items()}


@dataclass(frozen=True)
class LoadedVersion:
    """A SavedModel that has been loaded."""

    number: int
    path: Path
    signatures: dict[str, Signature]
    definitions: dict[str, Any]  # of the signatures, as the REST API shows them
    loaded: Any  # the signatures work only while this object lives


def signature_of(signatures: dict[str, Signature], name: str) -> Signature:
    """Return a signature, the default one for ""; RequestError if there is none."""
    name = name or "serving_default"
    if name not in signatures:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    return signatures[name]


def load(path: Path, number: int) -> LoadedVersion:
    """Load a SavedModel; blocks for seconds.

    ValueError, OSError or TensorFlow's OpError if it is damaged or not complete.
    """
    tf = tensorflow()
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
    except DecodeError as error:
        raise ValueError(f"{path}/saved_model.pb is damaged: {error}") from error
    graphs = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    if not graphs:
        raise ValueError(f"{path} has no graph with the tag 'serve'")
    definitions = graphs[0].signature_def
    loaded = tf.saved_model.load(str(path))
    signatures = {}
    for name, function in loaded.signatures.items():
        if name in definitions and definitions[name].inputs:
            inputs = _tensors(function.structured_input_signature[1])
            outputs = _tensors(function.structured_outputs)
            tensors = (*inputs.values(), *outputs.values())
            batched = all(t.shape and t.shape[0] is None for t in tensors)
            signatures[name] = Signature(name, inputs, outputs, batched, function)
    if not signatures:
        raise ValueError(f"{path} has no signature that takes an input")
    plain = {
        "preserving_proto_field_name": True,
        "always_print_fields_with_no_presence": True,
    }
    shown = {k: MessageToDict(definitions[k], **plain) for k in sorted(definitions)}
    return LoadedVersion(number, path, signatures, shown, loaded)


def _tensors(specs) -> dict[str, Tensor]:
    tensors = {}
    for name, spec in sorted(specs.items()):
        dtype, shape = spec.dtype, spec.shape
        sizes = None if shape.rank is None else tuple(shape)
        tensors[name] = Tensor(name, np.dtype(dtype.as_numpy_dtype), dtype.name, sizes)
    return tensors


def warm(version: LoadedVersion) -> int:
    """Run the warm-up requests of a version, or an image of zeros; return how many.

    ValueError or TensorFlow's OpError if a record is damaged or fails.
    """
    from tensorflow.errors import OpError

    count, file = 0, version.path / FILE
    if file.is_file():
        for name, arrays in read_requests(file):
            if name not in version.signatures:
                raise ValueError(f"{FILE} asks for a signature {name!r} that is absent")
            version.signatures[name].run(arrays)
            count += 1
        return count
    for signature in version.signatures.values():
        tensors = signature.inputs.values()
        if any(
            t.dtype.kind == "O" or t.shape is None or None in t.shape[1:]
            for t in tensors
        ):
            continue  # it does not say of what size, or zeros are no strings
        zeros = {t.name: np.zeros([n or 1 for n in t.shape], t.dtype) for t in tensors}
        with contextlib.suppress(OpError):  # zeros are not what it is for
            signature.run(zeros)
            count += 1
    return count
