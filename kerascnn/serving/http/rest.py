"""TensorFlow Serving's REST API, version 1: predict, status and metadata.

The routes, bodies, messages and status codes are those of TensorFlow Serving 2.x
(http_rest_api_handler.cc, http_rest_api_util.cc, json_tensor.cc, api_rest.md). What
differs: pixels out of range are refused, classify and regress are not offered (Keras
exports no signature for them), and answers are written without blanks.
"""

import json
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kerascnn.serving.http import tensors
from kerascnn.serving.http.limits import (
    Limits,
    RequestError,
    check_values,
    in_time,
    invalid,
    while_connected,
)
from kerascnn.serving.http.repository import Served

WHICH = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
METHOD = ":(classify|regress|predict)"
RUN = re.compile(rf"/v1/models/([^/]+?){WHICH}{METHOD}", re.I)
LOOK = re.compile(rf"(?!.*{METHOD}$)/v1/models(?:/([^/]+))?{WHICH}(/metadata)?", re.I)

LARGEST = 2**63 - 1  # of a version, an int64


async def answer(request: Request) -> Response:
    """Answer a request under /v1/.

    Raises:
        RequestError: with the message and the status of TensorFlow Serving.
    """
    request.scope["notes"]["protocol"] = "v1"
    path = request.scope["path"]  # a name may have a '?' or '#', percent-encoded
    if request.method == "POST" and (match := RUN.fullmatch(path)):
        name, number, label, method = match.groups()
        return await _run(request, name, _number(number), label, method.lower())
    if request.method == "GET" and (match := LOOK.fullmatch(path)):
        _, name, number, label, metadata = match.groups()
        if not name:
            raise invalid("Missing model name in request.")
        look = _metadata if metadata else _status
        return _json(look(request, name, _number(number), label))
    raise invalid(f"Malformed request: {request.method} {path[:256]}")


def parse(body: bytes, limits: Limits) -> dict:
    """Parse the body of a request, a JSON object.

    Raises:
        RequestError: 400: it is none; says where. 413: it has too many values.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    check_values(body, limits)
    try:
        document = json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise invalid(
            f"JSON Parse error: Invalid encoding in string. at offset: {error.start}"
        ) from error
    except json.JSONDecodeError as error:
        raise invalid(
            f"JSON Parse error: {error.msg}. at offset: {error.pos}"
        ) from error
    except RecursionError as error:
        raise invalid("JSON Parse error: lists or objects are nested too deep") from (
            error
        )
    except ValueError as error:  # Python reads no integer of more than 4300 digits
        raise invalid(f"JSON Parse error: Number too big. {error}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {tensors.echo(document)} Is not object")
    return document


async def _run(request, name, number, label, method) -> Response:
    state = request.app.state
    # Refused before the body is read; what happens to the version meanwhile is seen
    # when it is held.
    state.repository.find(name, number, label)
    request.scope["notes"]["model"] = name
    async with (
        in_time(state.limits),
        state.bodies.read(request) as body,
        while_connected(request),
    ):
        with state.repository.hold(name, number, label) as served:
            if method != "predict":
                raise invalid(
                    f"Expected {method} signature method_name to be tensorflow/serving/"
                    f"{method}. Was: tensorflow/serving/predict"
                )
            key, signature, arrays = await state.bodies.work(
                len(body), _inputs, body, served, state.limits
            )
            place = "instances[{}]" if key == "instances" else "inputs[{}]"
            outputs, count = await served.batchers[signature.name].infer(
                arrays, dict.fromkeys(arrays, place)
            )
            request.scope["notes"]["images"] = count
            written = _rows(outputs) if key == "instances" else _columns(outputs)
            return Response(tensors.dumps(written), media_type="application/json")


def _inputs(body: bytes, served: Served, limits: Limits):
    """Return "instances" or "inputs", the signature asked for, and its arrays."""
    if frame := tensors.frame(body):
        name, key, text = frame
        signature = served.version.signature(name)
        if len(signature.inputs) == 1:
            ((only, tensor),) = signature.inputs.items()
            known = signature.batched and None not in tensor.shape[1:]
            if known and tensor.dtype_name == "uint8":
                array = tensors.integers(text, tensor.shape[1:])
                if array is not None:
                    return key, signature, {only: array}
    document = parse(body, limits)
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {tensors.echo(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    signature = served.version.signature(name)
    if "instances" in document:
        instances = document["instances"]
        wrong = None
        if "inputs" in document:
            wrong = (
                "Not formatted correctly expecting only one of 'inputs' or 'instances' "
                "keys to exist "
            )
        elif not isinstance(instances, list):
            wrong = "Excepting 'instances' to be an list/array"
        elif not instances:
            wrong = "No values in 'instances' array"
        if wrong:
            raise invalid(f"JSON Value: {tensors.echo(document)} {wrong}")
        return "instances", signature, tensors.rows(instances, signature)
    if "inputs" in document:
        arrays = tensors.columns(document["inputs"], signature)
        return "inputs", signature, arrays
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(outputs: dict) -> dict:
    count = None
    for name, array in outputs.items():
        if not array.shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if count is not None and len(array) != count:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {count}"
            )
        count = len(array)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return {"predictions": tensors.write(name, array)}
    rows = [
        {name: tensors.write(name, array[row, ...]) for name, array in outputs.items()}
        for row in range(count)
    ]
    return {"predictions": rows}


def _columns(outputs: dict) -> dict:
    written = {name: tensors.write(name, array) for name, array in outputs.items()}
    return {"outputs": written if len(written) > 1 else next(iter(written.values()))}


def _status(request, name, number, label) -> dict:
    repository = request.app.state.repository
    model = repository.models.get(name)
    if label is not None:
        number = repository.find(name, None, label).version.number
    states = {} if model is None else model.states
    if number is not None:
        states = {n: state for n, state in states.items() if n == number}
    if not states:
        raise RequestError(
            404,
            f"Could not find any versions of model {name}"
            if number is None
            else f"Could not find version {number} of model {name}",
        )
    return {
        "model_version_status": [
            {
                "version": str(n),
                "state": state.name,
                "status": {
                    "error_code": state.error_code,
                    "error_message": state.error_message,
                },
            }
            for n, state in sorted(states.items(), reverse=True)
        ]
    }


def _metadata(request, name, number, label) -> dict:
    version = request.app.state.repository.find(name, number, label).version
    return {
        "model_spec": {
            "name": name,
            "signature_name": "",
            "version": str(version.number),
        },
        "metadata": {"signature_def": {"signature_def": version.definitions}},
    }


def _number(digits: str | None) -> int | None:
    if digits is None:
        return None
    # Counted first: Python refuses to read thousands of digits.
    if len(digits.lstrip("0")) > 19 or int(digits) > LARGEST:
        raise invalid(f"Failed to convert version: {digits[:256]} to numeric.")
    return int(digits)


def _json(value) -> Response:
    return Response(json.dumps(value), media_type="application/json")


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
routes = [
    Route("/v1/{rest:path}", answer, methods=METHODS),
    Route("/V1/{rest:path}", answer, methods=METHODS),
]
