"""The first requests of a version, which the server sends itself.

They are the records of `assets.extra/tf_serving_warmup_requests`, TFRecord of
PredictionLog (tensorflow_serving/apis/prediction_log.proto); where there is no such
file, an image of zeros for each signature. The five fields of the messages that are
needed are decoded here, as `kerascnn.serving.warmup` encodes them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerascnn.serving.http.saved_model import Signature, Version, tensorflow
from kerascnn.serving.warmup import FILE

RECORDS = 1000  # TensorFlow Serving refuses files with more


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
    for name, arrays in _recorded(file):
        if name not in version.signatures:
            raise ValueError(f"{FILE} asks for a signature {name!r} that is not there")
        version.signatures[name].run(arrays)
        count += 1
    return count


def _recorded(file: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    tf = tensorflow()
    from google.protobuf.message import DecodeError

    for record in tf.data.TFRecordDataset(str(file)).take(RECORDS):
        try:
            yield _decode(record.numpy())
        except (DecodeError, IndexError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error


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


def _decode(record: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Decode PredictionLog.predict_log.request: its signature and its inputs."""
    tf = tensorflow()
    from tensorflow.core.framework import tensor_pb2

    predict_log = _only(record, 6)
    request = _only(predict_log, 1)
    signature, arrays = "serving_default", {}
    for number, payload in _fields(request):
        if number == 1:  # ModelSpec
            names = [p for field, p in _fields(payload) if field == 3]
            signature = names[-1].decode() if names else signature
        elif number == 2:  # an entry of the map of inputs
            name = _only(payload, 1).decode()
            tensor = tensor_pb2.TensorProto.FromString(_only(payload, 2))
            arrays[name] = tf.make_ndarray(tensor)
    return signature, arrays


def _only(message: bytes, number: int) -> bytes:
    found = [payload for field, payload in _fields(message) if field == number]
    if not found:
        raise ValueError(
            f"{FILE}: a record has no field {number}; is it a predict log?"
        )
    return found[-1]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the payload of the fields of a protocol buffer message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            _, end = _varint(message, place)
        elif kind == 1:
            end = place + 8
        elif kind == 2:
            length, place = _varint(message, place)
            end = place + length
        elif kind == 5:
            end = place + 4
        else:
            raise ValueError(f"{FILE}: a field of the unknown wire type {kind}")
        if end > len(message):
            raise ValueError(f"{FILE}: a record ends within a field")
        yield key >> 3, message[place:end]
        place = end


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
