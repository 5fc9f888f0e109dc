"""The Open Inference Protocol, version 2 (KServe, Triton): REST, JSON and binary.

Source: open-inference-protocol, specification/protocol/inference_rest.md, and Triton's
extension for binary tensors (extension_binary_data.md). The protocol knows no
signatures: a request is answered by the signature whose inputs it names ("image" or
"image_bytes"), or by the one that its parameter "signature_name" names.
"""

import json
import re
import struct
from importlib import metadata as packages

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kerascnn.serving.http import rest, tensors
from kerascnn.serving.http.limits import LIST, RequestError, in_ascii, invalid
from kerascnn.serving.http.saved_model import Signature, Tensor, signature_of

DATATYPES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    **{f"{u}int{n}": f"{u}int{n}".upper() for u in ("u", "") for n in (8, 16, 32, 64)},
}
HEADER = "inference-header-content-length"
PLATFORM = "tensorflow_savedmodel"
LARGEST = 2**31  # values of a tensor that a request may declare
DIGITS = re.compile("[0-9]{1,18}")


async def server(request: Request) -> Response:
    """GET /v2: name, version and extensions of the server."""
    return in_ascii(
        {
            "name": "kerascnn",
            "version": packages.version("kerascnn"),
            # Not "model_repository": versions come and go with their folders. Of that
            # extension the index is here, without load and unload.
            "extensions": ["binary_tensor_data"],
        }
    )


async def live(request: Request) -> Response:
    """GET /v2/health/live: the process answers."""
    return in_ascii({"live": True})


async def ready(request: Request) -> Response:
    """GET /v2/health/ready: 200 if a model answers and the server is not stopping."""
    state = request.app.state
    models = state.repository.models.values()
    answers = state.repository.ready and any(model.versions for model in models)
    return _readiness({"ready": answers and not state.stopping})


async def index(request: Request) -> Response:
    """POST /v2/repository/index: every version; {"ready": true}: those that answer."""
    state = request.app.state
    async with state.bodies.read(request) as body:
        only = await state.bodies.work(len(body), only_ready, body, state.limits)
    found = []
    for model in state.repository.models.values():
        for number, known in sorted(model.states.items()):
            answers, told = number in model.versions, known.error_message
            if answers or not only:
                shown = {"name": model.name, "version": str(number)}
                shown["state"] = "READY" if answers else "UNAVAILABLE"
                found.append({**shown, "reason": told})
    return in_ascii(found)


def only_ready(body: bytes, limits) -> bool:
    """Tell whether a body asks for what is ready alone."""
    return bool(body) and rest.parse(body, limits).get("ready") is True


async def model_ready(request: Request) -> Response:
    """GET /v2/models/M[/versions/V]/ready: 200 if this version answers."""
    name, number = _target(request)
    state = request.app.state
    try:
        state.repository.find(name, number, None)
    except RequestError:
        if name not in state.repository.models:
            raise
        return _readiness({"name": name, "ready": False})
    return _readiness({"name": name, "ready": not state.stopping})


async def metadata(request: Request) -> Response:
    """GET /v2/models/M[/versions/V]: inputs and outputs of "serving_default"."""
    name, number = _target(request)
    repository = request.app.state.repository
    signatures = repository.find(name, number, None).version.signatures
    shown = signatures.get("serving_default") or next(iter(signatures.values()))

    def described(tensors):
        return [
            {
                "name": tensor.name,
                "datatype": DATATYPES.get(tensor.dtype_name, tensor.dtype_name),
                "shape": [-1 if size is None else size for size in tensor.shape or ()],
            }
            for tensor in tensors.values()
        ]

    return in_ascii(
        {
            "name": name,
            "versions": [str(n) for n in sorted(repository.models[name].versions)],
            "platform": PLATFORM,
            "inputs": described(shown.inputs),
            "outputs": described(shown.outputs),
        }
    )


async def infer_model(request: Request) -> Response:
    """POST /v2/models/M[/versions/V]/infer."""
    name, number = _target(request)
    state, notes = request.app.state, request.scope["notes"]
    with state.repository.hold(name, number, None) as served:
        notes["model"] = name
        async with state.bodies.read(request) as body:
            length, header = len(body), request.headers.get(HEADER)
            if header is not None:
                if not DIGITS.fullmatch(header) or int(header) > length:
                    raise invalid(
                        f"{HEADER} is the length of the JSON object in bytes, at most "
                        f"that of the body ({length:,}); received {header[:40]!r}"
                    )
                length = int(header)
            # Numbers cost nothing to read, however many; strings, such as files, do.
            numbers = b"BYTES" not in body[:length] and b"\\" not in body[:length]
            size = length if numbers else len(body)
            signatures = served.version.signatures
            called, identity, wanted, arrays, count, weights = await state.bodies.work(
                size, read, body, length, signatures, state.limits
            )
            outputs = await served.batchers[called].submit(arrays, weights)
            notes["images"] = count
            head = {"model_name": name, "model_version": str(served.version.number)}
            if identity is not None:
                # Python's json, which writes half a character too.
                head["id"] = orjson.Fragment(json.dumps(identity))
            return _written(head, outputs, signatures[called], wanted)


def read(body: bytes, length: int, signatures: dict[str, Signature], limits) -> tuple:
    """Read a request: a JSON object of some length, and binary tensors behind it.

    Returned are the name of the signature, the request's id, for each output that is
    wanted whether it is as binary, the arrays, the number of images, and of encoded
    ones the pixels.
    """
    document = rest.parse(body[:length], limits)
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
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise invalid(f"id is a string; received {tensors.echo(identity)}")
    signature = _signature(signatures, document, names)
    wanted = _wanted(document, signature)
    arrays = _arrays(inputs, memoryview(body)[length:], signature, limits)
    places = {name: f"inputs[{n}].data[{{}}]" for n, name in enumerate(names)}
    checked = signature.check(arrays, places, limits)
    return signature.name, identity, wanted, arrays, *checked


def _readiness(value: dict) -> Response:
    # The protocol wants 4xx; 503, as of KServe's own server, says that it passes.
    return in_ascii(value, 200 if value["ready"] else 503)


def _target(request: Request) -> tuple[str, int | None]:
    digits = request.path_params.get("version")
    if digits is not None and not DIGITS.fullmatch(digits):
        raise RequestError(404, f"a version is a number; received {digits[:40]!r}")
    return request.path_params["model"], None if digits is None else int(digits)


def _parameters(value: dict, place: str = "") -> dict:
    parameters = value.get("parameters")
    if parameters is None:  # clients of typed messages write what is left out as null
        return {}
    if not isinstance(parameters, dict):
        raise invalid(
            f"{place}parameters is an object; received {tensors.echo(parameters)}"
        )
    return parameters


def _signature(signatures, document: dict, names: list[str]) -> Signature:
    named = _parameters(document).get("signature_name")
    # The default one first: several signatures may take the same inputs.
    candidates = sorted(signatures.values(), key=lambda s: s.name != "serving_default")
    if named is not None:
        if not isinstance(named, str):
            raise invalid(
                f"parameters.signature_name is a string; received {tensors.echo(named)}"
            )
        candidates = [signature_of(signatures, named)]
    for signature in candidates:
        if signature.inputs.keys() == set(names):
            return signature
    known = " or ".join(repr(sorted(signature.inputs)) for signature in candidates)
    raise invalid(
        f"the model takes the inputs {known}; received {tensors.echo(sorted(names))}"
    )


def _arrays(inputs, binary: memoryview, signature: Signature, limits) -> dict:
    arrays = {}
    for number, given in enumerate(inputs):
        place = f"inputs[{number}]"
        tensor = signature.inputs[given["name"]]
        datatype, shape = DATATYPES.get(tensor.dtype_name), given.get("shape")
        if given.get("datatype") != datatype:
            raise invalid(
                f"the input {tensor.name!r} takes the datatype {datatype}; received "
                f"{tensors.echo(given.get('datatype'))}"
            )
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
        parameters = _parameters(given, f"{place}.")
        size = parameters.get("binary_data_size")
        if size is None:
            array = tensors.flat_or_nested(
                given.get("data"), tensor, f"{place}.data", shape
            )
            if tensor.dtype.kind == "O" and parameters.get("content_type") == "base64":
                flat = array.ravel()
                for row, text in enumerate(flat):
                    flat[row] = tensors.unbase64(text)
                    if flat[row] is None:
                        raise invalid(f"{place}.data[{row}] is not base64")
                array = flat.reshape(array.shape)
        else:
            if "data" in given:
                raise invalid(f'{place} has both "data" and a "binary_data_size"')
            if type(size) is not int or not 0 <= size <= len(binary):
                raise invalid(
                    f"{place}.parameters.binary_data_size is {tensors.echo(size)}; "
                    f"{len(binary):,} bytes are left behind the JSON object"
                )
            array = _from_binary(binary[:size], tensor, place, shape, limits)
            binary = binary[size:]
        arrays[tensor.name] = array
    if len(binary):
        raise invalid(
            f"{len(binary):,} bytes are left behind the last tensor; the parameter "
            "binary_data_size of each input says how many are its own"
        )
    return arrays


def _from_binary(
    data: memoryview, tensor: Tensor, place: str, shape, limits
) -> np.ndarray:
    count, dtype = int(np.prod(shape, dtype=object)), tensor.dtype
    if dtype.kind == "O":
        if LIST * count > limits.values:
            raise RequestError(
                413, f"a request has at most {limits.values // LIST:,} strings"
            )
        return _strings(data, place, count).reshape(shape)
    if len(data) != count * dtype.itemsize:
        raise invalid(
            f"{place} has {len(data):,} bytes; {DATATYPES[tensor.dtype_name]} of the "
            f"shape {shape} has {count * dtype.itemsize:,}"
        )
    if dtype.kind == "b":  # any byte but 0 and 1 is no truth value to NumPy
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    # Little-endian, as the protocol has it.
    ordered = dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype
    return np.frombuffer(data, ordered).astype(dtype, copy=False).reshape(shape)


def _strings(data: memoryview, place: str, count: int) -> np.ndarray:
    """Read strings, each behind its length in four bytes."""
    if count > len(data) // 4:
        raise invalid(f"{place} has {len(data):,} bytes, too few for {count:,} strings")
    array, begin = np.empty(count, object), 0
    for number in range(count):
        end = begin + 4 + int.from_bytes(data[begin : begin + 4], "little")
        if end > len(data):
            raise invalid(f"{place} ends within string {number}")
        array[number] = bytes(data[begin + 4 : end])
        begin = end
    if begin < len(data):
        raise invalid(f"{place} has {len(data) - begin} bytes behind the last string")
    return array


def _wanted(document: dict, signature: Signature) -> dict[str, bool]:
    """Return the names of the outputs that are wanted, and whether as binary."""
    binary = _parameters(document).get("binary_data_output") is True
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
        array, datatype = outputs[name], signature.outputs[name].dtype_name
        output = {
            "name": name,
            "datatype": DATATYPES.get(datatype, datatype),
            "shape": list(array.shape),
        }
        if binary:
            if array.dtype.kind in "iuf":
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            data = array.tobytes()
            if array.dtype.kind == "O":
                data = b"".join(struct.pack("<I", len(s)) + s for s in array.ravel())
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


routes = [
    Route("/v2", server, methods=["GET"]),
    Route("/v2/health/live", live, methods=["GET"]),
    Route("/v2/health/ready", ready, methods=["GET"]),
    Route("/v2/repository/index", index, methods=["POST"]),
    *(
        Route(f"/v2/models/{{model}}{which}{path}", endpoint, methods=[method])
        for which in ("", "/versions/{version}")
        for path, endpoint, method in (
            ("/infer", infer_model, "POST"),
            ("/ready", model_ready, "GET"),
            ("", metadata, "GET"),
        )
    ),
]
