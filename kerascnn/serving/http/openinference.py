"""The Open Inference Protocol, version 2 (KServe, Triton): REST, JSON and binary.

Source: open-inference-protocol, specification/protocol/inference_rest.md, and Triton's
extension for binary tensors (extension_binary_data.md). The protocol knows no
signatures: a request is answered by the signature whose inputs it names ("image" or
"image_bytes"), or by the one that its parameter "signature_name" names.
"""

import json
import re
import struct

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kerascnn.serving.http import rest, tensors
from kerascnn.serving.http.limits import (
    RequestError,
    in_time,
    invalid,
    while_connected,
)
from kerascnn.serving.http.saved_model import Signature, Tensor

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bfloat16": "BF16",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
HEADER = "inference-header-content-length"
PLATFORM = "tensorflow_savedmodel"
LARGEST = 2**31  # values of a tensor that a request may declare
DIGITS = re.compile("[0-9]{1,18}")


async def server(request: Request) -> Response:
    """GET /v2: name, version and extensions of the server."""
    from importlib.metadata import version

    _note(request)
    return rest._json(
        {
            "name": "kerascnn",
            "version": version("kerascnn"),
            # Not "model_repository": versions come and go with their folders. Of that
            # extension the index is here, without load and unload.
            "extensions": ["binary_tensor_data"],
        }
    )


async def live(request: Request) -> Response:
    """GET /v2/health/live: the process answers."""
    _note(request)
    return rest._json({"live": True})


async def ready(request: Request) -> Response:
    """GET /v2/health/ready: 200 if a model answers and the server is not stopping.

    The protocol wants a status of 4xx otherwise; like KServe's own server this one
    answers 503, which says that it passes.
    """
    _note(request)
    state = request.app.state
    models = state.repository.models.values()
    is_ready = (
        state.repository.ready
        and not state.stopping
        and any(model.versions for model in models)
    )
    return _readiness({"ready": is_ready})


async def index(request: Request) -> Response:
    """POST /v2/repository/index: every version of every model, with its state.

    Of Triton's extension for repositories; {"ready": true} leaves out what does not
    answer.
    """
    _note(request)
    state = request.app.state
    async with in_time(state.limits), state.bodies.read(request) as body:
        only_ready = (
            rest.parse(body, state.limits).get("ready") is True if body else False
        )
    return rest._json(
        [
            {
                "name": model.name,
                "version": str(number),
                "state": "READY" if number in model.versions else "UNAVAILABLE",
                "reason": known.error_message,
            }
            for model in state.repository.models.values()
            for number, known in sorted(model.states.items())
            if number in model.versions or not only_ready
        ]
    )


async def model_ready(request: Request) -> Response:
    """GET /v2/models/M[/versions/V]/ready: 200 if this version answers."""
    name, number = _target(request)
    try:
        request.app.state.repository.find(name, number, None)
    except RequestError:
        if name not in request.app.state.repository.models:
            raise
        return _readiness({"name": name, "ready": False})
    return _readiness({"name": name, "ready": not request.app.state.stopping})


async def metadata(request: Request) -> Response:
    """GET /v2/models/M[/versions/V]: inputs and outputs of "serving_default"."""
    name, number = _target(request)
    repository = request.app.state.repository
    version = repository.find(name, number, None).version
    signatures = version.signatures
    shown = signatures.get("serving_default") or next(iter(signatures.values()))
    return rest._json(
        {
            "name": name,
            "versions": [str(n) for n in sorted(repository.models[name].versions)],
            "platform": PLATFORM,
            "inputs": [_described(tensor) for tensor in shown.inputs.values()],
            "outputs": [_described(tensor) for tensor in shown.outputs.values()],
        }
    )


async def infer_model(request: Request) -> Response:
    """POST /v2/models/M[/versions/V]/infer.

    Raises:
        RequestError: with a message that names the input and the position.
    """
    name, number = _target(request)
    state = request.app.state
    state.repository.find(name, number, None)
    request.scope["notes"]["model"] = name
    header = request.headers.get(HEADER)
    async with (
        in_time(state.limits),
        state.bodies.read(request) as body,
        while_connected(request),
    ):
        with state.repository.hold(name, number, None) as served:

            def read():
                document, binary = _split(body, header, state.limits)
                inputs = _inputs_of(document)
                signature = _signature(served.version, document, inputs)
                wanted = _wanted(document, signature)
                return document, signature, wanted, *_arrays(inputs, binary, signature)

            document, signature, wanted, arrays, places = await state.bodies.work(
                len(body), read
            )
            outputs, count = await served.batchers[signature.name].infer(arrays, places)
            request.scope["notes"]["images"] = count
            head = {"model_name": name, "model_version": str(served.version.number)}
            if document.get("id") is not None:
                # Python's json, which writes half a character too.
                head["id"] = orjson.Fragment(json.dumps(_id(document["id"])))
            return _written(head, outputs, signature, wanted)


def _note(request: Request) -> None:
    request.scope["notes"]["protocol"] = "v2"


def _target(request: Request) -> tuple[str, int | None]:
    _note(request)
    digits = request.path_params.get("version")
    name = request.path_params["model"]
    if digits is None:
        return name, None
    if not DIGITS.fullmatch(digits):
        raise RequestError(
            404, f"the version of a model is a number; received {digits[:40]!r}"
        )
    return name, int(digits)


def _readiness(value: dict) -> Response:
    status = 200 if value["ready"] else 503
    return Response(json.dumps(value), status, media_type="application/json")


def _described(tensor: Tensor) -> dict:
    shape = tensor.shape or ()
    return {
        "name": tensor.name,
        "datatype": DATATYPES.get(tensor.dtype_name, tensor.dtype_name),
        "shape": [-1 if size is None else size for size in shape],
    }


def _split(body: bytes, header: str | None, limits) -> tuple[dict, memoryview]:
    """Split a body into the JSON object and the binary tensors behind it."""
    length = len(body)
    if header is not None:
        if not DIGITS.fullmatch(header) or int(header) > length:
            raise invalid(
                f"{HEADER} is the length of the JSON object in bytes, at most that of "
                f"the body ({length:,}); received {header[:40]!r}"
            )
        length = int(header)
    return rest.parse(body[:length], limits), memoryview(body)[length:]


def _id(given) -> str:
    if not isinstance(given, str):
        raise invalid(f"id is a string; received {tensors.echo(given)}")
    return given


def _parameters(value: dict, place: str) -> dict:
    parameters = value.get("parameters")
    if parameters is None:  # clients of typed messages write what is left out as null
        return {}
    if not isinstance(parameters, dict):
        raise invalid(
            f"{place}parameters is an object; received {tensors.echo(parameters)}"
        )
    return parameters


def _inputs_of(document: dict) -> list[dict]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise invalid('the request needs "inputs", a list of tensors')
    for number, given in enumerate(inputs):
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            raise invalid(
                f'inputs[{number}] is an object with a "name"; received '
                f"{tensors.echo(given)}"
            )
    names = [given["name"] for given in inputs]
    if len(set(names)) < len(names):
        raise invalid(f"an input is given twice: {tensors.echo(names)}")
    return inputs


def _signature(version, document: dict, inputs: list[dict]) -> Signature:
    named = _parameters(document, "").get("signature_name")
    names = {given["name"] for given in inputs}
    if named is not None:
        if not isinstance(named, str):
            raise invalid(
                f"parameters.signature_name is a string; received {tensors.echo(named)}"
            )
        candidates = [version.signature(named)]
    else:
        # The default one first: several signatures may take the same inputs.
        candidates = sorted(
            version.signatures.values(), key=lambda s: s.name != "serving_default"
        )
    for signature in candidates:
        if signature.inputs.keys() == names:
            return signature
    known = " or ".join(repr(sorted(signature.inputs)) for signature in candidates)
    raise invalid(
        f"the model takes the inputs {known}; received {tensors.echo(sorted(names))}"
    )


def _arrays(inputs, binary: memoryview, signature: Signature) -> tuple[dict, dict]:
    arrays, places = {}, {}
    for number, given in enumerate(inputs):
        place = f"inputs[{number}]"
        tensor = signature.inputs[given["name"]]
        datatype = DATATYPES.get(tensor.dtype_name)
        if given.get("datatype") != datatype:
            raise invalid(
                f"the input {tensor.name!r} takes the datatype {datatype}; received "
                f"{tensors.echo(given.get('datatype'))}"
            )
        shape = _shape(given.get("shape"), place)
        parameters = _parameters(given, f"{place}.")
        size = parameters.get("binary_data_size")
        if size is None:
            array = _from_json(given, tensor, place, shape, parameters)
        else:
            if "data" in given:
                raise invalid(f'{place} has both "data" and a "binary_data_size"')
            if type(size) is not int or not 0 <= size <= len(binary):
                raise invalid(
                    f"{place}.parameters.binary_data_size is {tensors.echo(size)}; "
                    f"{len(binary):,} bytes are left behind the JSON object"
                )
            array = _from_binary(binary[:size], tensor, place, shape)
            binary = binary[size:]
        arrays[tensor.name] = array
        places[tensor.name] = f"{place}.data[{{}}]"
    if len(binary):
        raise invalid(
            f"{len(binary):,} bytes are left behind the last tensor; the parameter "
            "binary_data_size of each input says how many are its own"
        )
    return arrays, places


def _shape(shape, place: str) -> list[int]:
    if (
        not isinstance(shape, list)
        or len(shape) > tensors.DEEPEST
        or any(type(size) is not int or size < 0 for size in shape)
        or int(np.prod(shape, dtype=object)) > LARGEST
    ):
        raise invalid(
            f"{place}.shape is a list of sizes, such as [1,32,32,3]; received "
            f"{tensors.echo(shape)}"
        )
    return shape


def _from_json(given, tensor: Tensor, place: str, shape, parameters) -> np.ndarray:
    array = tensors.flat_or_nested(given.get("data"), tensor, f"{place}.data", shape)
    if tensor.dtype.kind == "O" and parameters.get("content_type") == "base64":
        flat = array.ravel()
        for number, text in enumerate(flat):
            flat[number] = tensors.unbase64(text)
            if flat[number] is None:
                raise invalid(f"{place}.data[{number}] is not base64")
        array = flat.reshape(array.shape)
    return array


def _from_binary(data: memoryview, tensor: Tensor, place: str, shape) -> np.ndarray:
    count = int(np.prod(shape, dtype=object))
    if tensor.dtype.kind == "O":
        return _strings(data, place, count).reshape(shape)
    if len(data) != count * tensor.dtype.itemsize:
        raise invalid(
            f"{place} has {len(data):,} bytes; {DATATYPES[tensor.dtype_name]} of the "
            f"shape {shape} has {count * tensor.dtype.itemsize:,}"
        )
    if tensor.dtype.kind == "b":  # any byte but 0 and 1 is no truth value to NumPy
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    # Little-endian, as the protocol has it.
    dtype = tensor.dtype
    ordered = dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype
    return np.frombuffer(data, ordered).astype(dtype, copy=False).reshape(shape)


def _strings(data: memoryview, place: str, count: int) -> np.ndarray:
    """Read strings, each behind its length in four bytes."""
    if count > len(data) // 4:
        raise invalid(f"{place} has {len(data):,} bytes, too few for {count:,} strings")
    array, begin = np.empty(count, object), 0
    for number in range(count):
        end = begin + 4
        if end > len(data):
            raise invalid(f"{place} ends before string {number}")
        (length,) = struct.unpack_from("<I", data, begin)
        begin, end = end, end + length
        if end > len(data):
            raise invalid(f"{place} ends within string {number}")
        array[number] = bytes(data[begin:end])
        begin = end
    if begin < len(data):
        raise invalid(f"{place} has {len(data) - begin} bytes behind the last string")
    return array


def _wanted(document: dict, signature: Signature) -> dict[str, bool]:
    """Return the names of the outputs that are wanted, and whether as binary."""
    binary = _parameters(document, "").get("binary_data_output") is True
    outputs = document.get("outputs")
    if outputs is None:
        return dict.fromkeys(signature.outputs, binary)
    if not isinstance(outputs, list):
        raise invalid(f"outputs is a list; received {tensors.echo(outputs)}")
    wanted = {}
    for number, given in enumerate(outputs):
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in signature.outputs:
            raise invalid(
                f"outputs[{number}] names one of {sorted(signature.outputs)}; received "
                f"{tensors.echo(given)}"
            )
        parameters = _parameters(given, f"outputs[{number}].")
        if parameters.get("classification"):
            raise invalid(
                f"outputs[{number}].parameters.classification is not offered: leave it "
                "out, and sort the probabilities; the output 'label' has the first"
            )
        wanted[name] = parameters.get("binary_data", binary) is True
    return wanted or dict.fromkeys(signature.outputs, binary)


def _written(head: dict, outputs: dict, signature: Signature, wanted: dict) -> Response:
    described, tail = [], []
    for name, binary in wanted.items():
        array = outputs[name]
        tensor = signature.outputs[name]
        output = {
            "name": name,
            "datatype": DATATYPES.get(tensor.dtype_name, tensor.dtype_name),
            "shape": list(array.shape),
        }
        if binary:
            data = _to_binary(array)
            output["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            # The flat list is asked for under a name that ends in no "_bytes": the
            # protocol has no {"b64": …}.
            output["data"] = tensors.write("", array.ravel())
        described.append(output)
    text = tensors.dumps({**head, "outputs": described})
    if not tail:
        return Response(text, media_type="application/json")
    return Response(
        b"".join([text, *tail]),
        media_type="application/octet-stream",
        headers={HEADER: str(len(text))},
    )


def _to_binary(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":
        return b"".join(struct.pack("<I", len(s)) + s for s in array.ravel())
    ordered = array.dtype.newbyteorder("<") if array.dtype.kind in "iuf" else None
    return array.astype(ordered or array.dtype, copy=False).tobytes()


def _both(path: str, endpoint, methods: list[str]) -> list[Route]:
    """Return the route of a model and that of one of its versions."""
    which = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
    return [Route(f"{start}{path}", endpoint, methods=methods) for start in which]


routes = [
    *_both("/infer", infer_model, ["POST"]),
    Route("/v2", server, methods=["GET"]),
    Route("/v2/health/live", live, methods=["GET"]),
    Route("/v2/health/ready", ready, methods=["GET"]),
    Route("/v2/repository/index", index, methods=["POST"]),
    *_both("/ready", model_ready, ["GET"]),
    *_both("", metadata, ["GET"]),
]
