"""JSON values to NumPy arrays and back, as TensorFlow Serving reads and writes them.

What is wrong with a value is told in TensorFlow Serving's words (json_tensor.cc), with
the position added. In one thing this server is stricter: TensorFlow Serving takes any
integer for a uint8 and keeps it modulo 256; here 256 is refused.
"""

import base64
import binascii
import functools
import json
import re
from itertools import chain

import numpy as np
import orjson

from kerascnn.serving.http.limits import RequestError, invalid

DEEPEST = 16  # lists in lists; TensorFlow's own kernels know no tensor of more than 8
ECHO = 256  # characters of a value that a message repeats


def read(value, tensor, place: str, shape: list[int] | None = None) -> np.ndarray:
    """Turn nested lists into an array of a tensor's type; objects (bytes) for strings.

    The default of the shape is that of the first elements. A RequestError, if lists are
    ragged or a value is not of the type, names it and its position in `place`.
    """
    level, found, array = [value], [], None
    while level and type(level[0]) is list:
        sizes = {len(item) if type(item) is list else -1 for item in level}
        if len(sizes) > 1 or len(found) == DEEPEST:
            found = None
            break
        found.append(sizes.pop())
        level = list(chain.from_iterable(level))
    if found is not None and shape in (None, found):
        array = _leaves(level, tensor)
    if array is None:
        shape = _shape(value) if shape is None else shape
        fault = _fault(value, tensor, place, shape, 0)
        raise invalid(fault or f"{place} is not a tensor of the shape {shape}")
    return array.reshape(found)


def rows(instances: list, signature) -> dict[str, np.ndarray]:
    """Read the row format: for each image the value of the only input, or an object."""
    names = list(signature.inputs)
    if not isinstance(instances[0], dict) and len(names) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    named = _is_object(instances[0])
    kinds = ("object", "list") if named else ("value/list", "object")
    for number, element in enumerate(instances):
        if _is_object(element) != named:
            told = f"{kinds[0]} but got {kinds[1]} at item {number} of input list"
            raise invalid(f"Expecting {told}")
    if not named:
        return {names[0]: _stacked(instances, signature.inputs[names[0]], "")}
    for number, element in enumerate(instances):
        if element.keys() != signature.inputs.keys():
            keys = ",".join(sorted(names))
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON "
                f"object: {echo(element)} keys must be equal to: {keys}"
            )
    return {
        name: _stacked([e[name] for e in instances], signature.inputs[name], name)
        for name in names
    }


def columns(inputs, signature) -> dict[str, np.ndarray]:
    """Read the column format: whole tensors, one or an object of several."""
    if not _is_object(inputs):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        ((name, tensor),) = signature.inputs.items()
        return {name: read(inputs, tensor, "inputs")}
    for name in signature.inputs:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {
        name: read(inputs[name], tensor, f"inputs.{name}")
        for name, tensor in signature.inputs.items()
    }


def write(name: str, array: np.ndarray):
    """Return what `dumps` writes of an array, or of its rows, as TensorFlow Serving.

    Floats become the shortest decimal that means the same float32. Strings are text,
    or {"b64": …} where the name of the output ends in "_bytes".
    """
    if array.dtype.kind == "O":
        if name.endswith("_bytes"):
            flat = [{"b64": base64.b64encode(b).decode()} for b in array.ravel()]
        else:
            flat = [text.decode("utf-8", "replace") for text in array.ravel()]
        boxed = np.empty(array.size, object)
        boxed[:] = flat
        return boxed.reshape(array.shape).tolist()
    if array.dtype.kind not in "biu":
        if array.dtype != np.float64:
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            # orjson writes null. Through text: the nearest float64 of 0.1 as a float32
            # is 0.10000000149….
            rows = array.astype("U32").astype(np.float64).tolist()
            texts = [
                orjson.Fragment(json.dumps(row, separators=(",", ":")))
                for row in (rows if array.shape else [rows])
            ]
            return texts if array.shape else texts[0]
    return np.ascontiguousarray(array) if array.shape else array[()]


# Writes JSON; what holds arrays comes from `write`.
dumps = functools.partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


def echo(value) -> str:
    """Return a value as JSON, cut at `ECHO` characters."""
    pieces, length = [], 0
    try:
        for piece in json.JSONEncoder().iterencode(value):
            pieces.append(piece[: ECHO + 1])
            length += len(piece)
            if length > ECHO:
                break
    except RecursionError:
        return "lists nested too deep"
    text = "".join(pieces)
    return text if len(text) <= ECHO else text[:ECHO] + "..."


def _is_object(value) -> bool:
    """Tell an object with names from a value: {"b64": "…"} alone is a value."""
    return isinstance(value, dict) and not (
        len(value) == 1 and isinstance(value.get("b64"), str)
    )


def _stacked(values: list, tensor, key: str) -> np.ndarray:
    """Read the values of one input in the row format, which must be alike."""
    try:
        return read(values, tensor, "instances")
    except RequestError:
        # Tell what is wrong with the first element that is, in the words for elements.
        first = _shape(values[0])
        for number, value in enumerate(values):
            place = f"instances[{number}]" + (f".{key}" if key else "")
            shape = _shape(value)
            fault = _fault(value, tensor, place, shape, 0)
            if not fault and shape != first:
                sizes = [int(np.prod(s)) for s in (first, shape)]
                texts = [f"[{','.join(map(str, s))}]" for s in (first, shape)]
                fault = f"Expecting shape {texts[0]} but got: {texts[1]}"
                if sizes[0] != sizes[1]:
                    fault = f"Expecting tensor size: {sizes[0]} but got: {sizes[1]}"
            if fault:
                of = f"{number} key: {key}" if key else f"{number}"
                raise invalid(
                    f"Failed to process element: {of} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: {fault}"
                ) from None
        raise


def _shape(value) -> list[int]:
    """Return the lengths of the first lists in the first lists."""
    shape = []
    while isinstance(value, list) and len(shape) <= DEEPEST:
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _leaves(flat: list, tensor) -> np.ndarray | None:
    """Return values that are no lists as an array, None if one is not of the type."""
    kinds = set(map(type, flat))
    dtype = tensor.dtype
    if dtype.kind == "O":
        array = np.empty(len(flat), object)
        for number, value in enumerate(flat):
            if isinstance(value, str):
                # A lone surrogate, "\ud800", is no text that UTF-8 can write.
                array[number] = value.encode("utf-8", "surrogatepass")
            elif isinstance(value, dict) and not _is_object(value):
                array[number] = unbase64(value["b64"])
            if array[number] is None:
                return None
        return array
    if dtype.kind == "b":
        return np.array(flat, bool) if kinds <= {bool} else None
    if dtype.kind in "iu":
        if not kinds <= {int}:
            return None
        try:
            if dtype == np.uint8:
                return np.frombuffer(bytes(flat), np.uint8)
            return np.array(flat, dtype)
        except (ValueError, OverflowError):  # out of range
            return None
    if not kinds <= {int, float}:
        return None
    # A number is lossless where the type can hold it: integers to 2**24 in a float32.
    limits = np.finfo(np.float64 if dtype == np.float64 else np.float32)
    if int in kinds:
        whole = 2 ** (limits.nmant + 1) - 1
        if any(type(value) is int and abs(value) > whole for value in flat):
            return None
    array = np.array(flat, np.float64)
    if np.any((np.abs(array) > float(limits.max)) & np.isfinite(array)):
        return None
    return array.astype(dtype)


def unbase64(text) -> bytes | None:
    """Decode base64 as TensorFlow Serving does; None if it is none.

    White space is skipped, and the padding may be left out, not be wrong.
    """
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    packed = text.translate(None, b" \t\n\r\v\f")
    if len(packed) % 4 and packed[-1:] != b"=":
        packed += b"=" * (-len(packed) % 4)
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return None


def _fault(value, tensor, place: str, shape: list[int], level: int) -> str | None:
    """Return what is wrong with the first value that is, None if nothing is."""
    rank = len(shape)
    if rank > DEEPEST:
        return f"{place} is nested deeper than {DEEPEST} lists"
    if isinstance(value, list):
        told = "Encountered list at unexpected"
        if level >= rank:
            return f"{told} level: {level} expected < {rank} ({place})"
        if len(value) != shape[level]:
            told = f"{told} size: {len(value)} at level: {level}"
            return f"{told} expected size: {shape[level]} ({place})"
        if level == rank - 1 and _leaves(value, tensor) is not None:
            return None  # at once: there may be millions
        for number, item in enumerate(value):
            if fault := _fault(item, tensor, f"{place}[{number}]", shape, level + 1):
                return fault
        return None
    if level == rank and _leaves([value], tensor) is not None:
        return None
    told, dtype, kind = echo(value), tensor.dtype, tensor.dtype.kind
    if level != rank:
        told = f"JSON Value: {told} found at incorrect level: {level + 1}"
        return f"{told} in the JSON DOM. Expected at level: {rank} ({place})"
    if kind == "O" and _is_object(value):
        return f"JSON Value: {told} not formatted correctly for base64 data ({place})"
    if kind == "O" and isinstance(value, dict):
        return f"Unable to base64 decode ({place})"
    if kind in "iu" and type(value) is int:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        return f"{place} is {told}; {dtype} takes integers, {least} to {most}"
    if kind not in "biuO" and type(value) in (int, float):
        told += " to double" if dtype == np.float64 else " to float"
        return f"Cannot convert JSON value: {told} without loss of precision. ({place})"
    kinds = {bool: str(value), int: "Number", float: "Number", str: "String"}
    told += f" Type: {kinds.get(type(value), 'Null' if value is None else 'Object')}"
    return f"JSON Value: {told} is not of expected type: {tensor.dtype_name} ({place})"


def flat_or_nested(data, tensor, place: str, shape: list[int]) -> np.ndarray:
    """Read the "data" of the Open Inference Protocol: flat (row-major), or nested."""
    if not isinstance(data, list):
        raise invalid(f"{place} is a list of values; received {echo(data)}")
    if data and isinstance(data[0], list):
        return read(data, tensor, place, shape)
    size = int(np.prod(shape, dtype=object))
    if len(data) != size:
        raise invalid(
            f"{place} has {len(data):,} values; the shape {shape} has {size:,}"
        )
    return read(data, tensor, place, [size]).reshape(shape)


# A quick way for what clients usually send, `{"instances": [[[[0, 1, 2], …` of integers
# 0…255: the brackets are compared with those of the shape, as text, the numbers read as
# one flat list. All else goes the general way: so all messages come from there.
HEAD = re.compile(
    rb'\s*\{\s*(?:"signature_name"\s*:\s*"([A-Za-z0-9_]*)"\s*,\s*)?'
    rb'"(instances|inputs)"\s*:\s*(?=\[)'
)
TAIL = re.compile(
    rb'(?<=\])\s*(?:,\s*"signature_name"\s*:\s*"([A-Za-z0-9_]*)"\s*)?\}\s*\Z'
)
TAIL_WITHIN = 256  # bytes
ZEROS = bytes.maketrans(b"123456789", b"000000000")


def integers(body: bytes, signatures: dict) -> tuple | None:
    """Read {"signature_name": …, "instances" or "inputs": nested integers 0…255}.

    Returns:
        "instances" or "inputs", the signature, its arrays; None if the text is not
        exactly that, or the signature takes anything but one uint8 of known shape.
    """
    start = HEAD.match(body)
    if start is None:
        return None
    end = TAIL.search(body, max(len(body) - TAIL_WITHIN, start.end()))
    if end is None or (start[1] is not None and end[1] is not None):
        return None
    name = start[1] or end[1] or b"serving_default"
    signature = signatures.get(name.decode())
    if signature is None or not signature.batched or len(signature.inputs) > 1:
        return None
    ((only, tensor),) = signature.inputs.items()
    if tensor.dtype_name != "uint8" or None in tensor.shape[1:]:
        return None
    text = body[start.end() : end.start()]
    marks = text.translate(ZEROS, b" ")
    if b"0[" in marks or b"]0" in marks:  # a number beside a list
        return None
    brackets = marks.translate(None, b"0")
    one = _skeleton(tensor.shape[1:])
    count, rest = divmod(len(brackets) - 1, len(one) + 1)
    if rest or count < 1 or brackets != b"[" + b",".join([one] * count) + b"]":
        return None
    try:
        # One list of integers, which `bytes` takes from 0 to 255.
        flat = bytes(orjson.loads(b"[%b]" % text.translate(None, b"[]")))
    except (TypeError, ValueError):
        return None
    array = np.frombuffer(flat, np.uint8).reshape(count, *tensor.shape[1:])
    return start[2].decode(), signature, {only: array}


@functools.lru_cache(maxsize=64)
def _skeleton(shape: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of one element."""
    text = b""
    for size in reversed(shape):
        text = b"[" + b",".join([text] * size) + b"]"
    return text
