"""One version of a model in memory: its signatures, and how they are run."""

import importlib.abc
import importlib.machinery
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerascnn.serving.http.limits import invalid
from kerascnn.serving.warmup import FILE, read_requests

# `import tensorflow` imports Keras where it is installed: a second and 100 MB that a
# server has no use for.
KERAS = ("keras", "tf_keras")


class _NoKeras(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a Keras that cannot be imported, for the thread that made it alone."""

    def __init__(self):
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if name in KERAS and threading.get_ident() == self.thread:
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def exec_module(self, module):
        raise ModuleNotFoundError(f"No module named {module.__name__!r}")


def tensorflow():
    """Import TensorFlow, without Keras if this process has not imported it already."""
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

    def fit(self, array: np.ndarray) -> None:
        """Check the shape of an array.

        Raises:
            RequestError: 400: it is another one; names both.
        """
        if self.shape is None:
            return
        if len(array.shape) != len(self.shape) or any(
            size is not None and size != got
            for size, got in zip(self.shape, array.shape, strict=True)
        ):
            sizes = ["N" if size is None else str(size) for size in self.shape]
            raise invalid(
                f"the input {self.name!r} takes {self.dtype_name} of the shape "
                f"({', '.join(sizes)}); received {array.shape}"
            )


@dataclass(frozen=True)
class Signature:
    """A function of a SavedModel.

    `batched` says that the first axis of all inputs and outputs is one of any size,
    so that requests can be put together.
    """

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batched: bool
    function: Any

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of arrays; blocks.

        Raises:
            tensorflow.errors.OpError: an operation of the graph refuses its input.
        """
        tf = tensorflow()
        values = {
            name: tf.constant(array, self.inputs[name].dtype_name)
            for name, array in arrays.items()
        }
        return {name: v.numpy() for name, v in self.function(**values).items()}


@dataclass(frozen=True)
class Version:
    """A SavedModel that has been loaded."""

    number: int
    path: Path
    signatures: dict[str, Signature]
    definitions: dict[str, Any]  # of the signatures, as the REST API shows them
    loaded: Any  # the signatures work only while this object lives

    def signature(self, name: str = "") -> Signature:
        """Return a signature, "serving_default" if no name is given.

        Raises:
            RequestError: 400: there is none of this name.
        """
        name = name or "serving_default"
        if name not in self.signatures:
            raise invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        return self.signatures[name]


def load(path: Path, number: int) -> Version:
    """Load a SavedModel; blocks for seconds.

    Raises:
        ValueError: it has no signatures, or its file is damaged.
        OSError: a file of it is missing.
        tensorflow.errors.OpError: its variables cannot be read.
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
    signatures = {
        name: _signature(name, definitions[name], loaded.signatures[name])
        for name in loaded.signatures
        if name in definitions and definitions[name].inputs
    }
    if not signatures:
        raise ValueError(f"{path} has no signature that takes an input")
    return Version(
        number=number,
        path=path,
        signatures=signatures,
        definitions={
            name: MessageToDict(
                definitions[name],
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name in sorted(definitions)
        },
        loaded=loaded,
    )


def _signature(name: str, definition, function) -> Signature:
    inputs = _tensors(definition.inputs)
    outputs = _tensors(definition.outputs)
    batched = all(
        tensor.shape and tensor.shape[0] is None
        for tensor in (*inputs.values(), *outputs.values())
    )
    return Signature(name, inputs, outputs, batched, function)


def _tensors(infos) -> dict[str, Tensor]:
    tf = tensorflow()
    tensors = {}
    for name in sorted(infos):
        dtype = tf.dtypes.as_dtype(infos[name].dtype)
        shape = infos[name].tensor_shape
        sizes = tuple(d.size if d.size >= 0 else None for d in shape.dim)
        tensors[name] = Tensor(
            name=name,
            dtype=np.dtype(dtype.as_numpy_dtype),
            dtype_name=dtype.name,
            shape=None if shape.unknown_rank else sizes,
        )
    return tensors


def warm(version: Version) -> int:
    """Run the warm-up requests of a version; blocks.

    Returns:
        How many there were.

    Raises:
        ValueError: a record names a signature that the version has not, or is damaged.
        tensorflow.errors.OpError: the file cannot be read, or a request fails.
    """
    file = version.path / FILE
    if not file.is_file():
        return sum(_try(signature) for signature in version.signatures.values())
    count = 0
    for name, arrays in read_requests(file):
        if name not in version.signatures:
            raise ValueError(f"{FILE} asks for a signature {name!r} that is not there")
        version.signatures[name].run(arrays)
        count += 1
    return count


def _try(signature: Signature) -> bool:
    """Run a signature with zeros; whether it has an answer to them."""
    arrays = _zeros(signature)
    if arrays is None:
        return False
    try:
        signature.run(arrays)
    except tensorflow().errors.OpError:  # zeros are not what it is for
        return False
    return True


def _zeros(signature: Signature) -> dict[str, np.ndarray] | None:
    """Make one image of zeros, None where the signature does not say of what size."""
    arrays = {}
    for name, tensor in signature.inputs.items():
        known = tensor.shape is not None and None not in tensor.shape[1:]
        if not known or tensor.dtype.kind == "O":
            return None
        shape = [1 if size is None else size for size in tensor.shape]
        arrays[name] = np.zeros(shape, tensor.dtype)
    return arrays
