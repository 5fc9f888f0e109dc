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
from kerascnn.serving.http.limits import LIST, Limits, RequestError, in_ascii, invalid
from kerascnn.serving.http.saved_model import Signature, signature_of

WHICH = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
METHOD = ":(classify|regress|predict)"
RUN = re.compile(rf"/v1/models/([^/]+?){WHICH}{METHOD}", re.I)
LOOK = re.compile(rf"(?!.*{METHOD}$)/v1/models(?:/([^/]+))?{WHICH}(/metadata)?", re.I)

LARGEST = 2**63 - 1  # of a version, an int64


async def answer(request: Request) -> Response:
    """Answer a request under /v1/, or refuse it in the words of TensorFlow Serving."""
    notes, state = request.scope["notes"], request.app.state
    path = request.scope["path"]  # a name may have a '?' or '#', percent-encoded
    if request.method == "GET" and (match := LOOK.fullmatch(path)):
        return in_ascii(_look(state.repository, *match.groups()[1:]))
    if request.method != "POST" or not (match := RUN.fullmatch(path)):
        raise invalid(f"Malformed request: {request.method} {path[:256]}")
    name, digits, label, method = match.groups()
    number = _number(digits) if digits else None
    with state.repository.hold(name, number, label) as served:
        notes["model"] = name
        async with state.bodies.read(request) as body:
            if (method := method.lower()) != "predict":
                raise invalid(
                    f"Expected {method} signature method_name to be tensorflow/serving/"
                    f"{method}. Was: tensorflow/serving/predict"
                )
            signatures = served.version.signatures
            key, called, arrays, count, weights = await state.bodies.work(
                len(body), read, body, signatures, state.limits
            )
            outputs = await served.batchers[called].submit(arrays, weights)
            notes["images"] = count
            return Response(_written(outputs, key), media_type="application/json")


def read(body: bytes, signatures: dict[str, Signature], limits: Limits) -> tuple:
    """Read the body of a prediction.

    Returned are "instances" or "inputs", the name of the signature that is asked for,
    its arrays, the number of images, and of encoded ones the pixels.
    """
    if found := tensors.integers(body, signatures):
        key, signature, arrays = found
    else:
        document = parse(body, limits)
        name = document.get("signature_name", "")
        if not isinstance(name, str):
            raise invalid(
                f"JSON Value: {tensors.echo(document)} not formatted correctly. "
                "'signature_name' key must be a string value."
            )
        signature = signature_of(signatures, name)
        key = "instances" if "instances" in document else "inputs"
        if key not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        given, wrong = document[key], None
        if key == "instances" and "inputs" in document:
            wrong = (
                "Not formatted correctly expecting only one of 'inputs' or 'instances' "
                "keys to exist "
            )
        elif key == "instances" and not isinstance(given, list):
            wrong = "Excepting 'instances' to be an list/array"
        elif key == "instances" and not given:
            wrong = "No values in 'instances' array"
        if wrong:
            raise invalid(f"JSON Value: {tensors.echo(document)} {wrong}")
        form = tensors.rows if key == "instances" else tensors.columns
        arrays = form(given, signature)
    places = dict.fromkeys(arrays, f"{key}[{{}}]")
    return key, signature.name, arrays, *signature.check(arrays, places, limits)


def parse(body: bytes, limits: Limits) -> dict:
    """Parse the body of a request, a JSON object."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    lists = body.count(b"[") + body.count(b"{")
    if body.count(b",") + LIST * lists > limits.values:
        raise RequestError(
            413,
            f"a request in JSON has at most {limits.values:,} values, of which a list "
            f"counts as {LIST}; send fewer images, or binary tensors (/v2/…/infer)",
        )
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            told = f"Invalid encoding in string. at offset: {error.start}"
        elif isinstance(error, json.JSONDecodeError):
            told = f"{error.msg}. at offset: {error.pos}"
        elif isinstance(error, RecursionError):
            told = "lists or objects are nested too deep"
        else:  # Python reads no integer of more than 4300 digits
            told = f"Number too big. {error}"
        raise invalid(f"JSON Parse error: {told}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {tensors.echo(document)} Is not object")
    return document


def _written(outputs: dict, key: str) -> bytes:
    """Write outputs: those of "instances" in rows, those of "inputs" in columns."""
    if key == "instances":
        count = None
        for name, array in outputs.items():
            if not array.shape:
                raise invalid(f"Tensor name: {name} has no shape information ")
            if count is not None and len(array) != count:
                told = f"inconsistent batch size: {len(array)} expecting: {count}"
                raise invalid(f"Tensor name: {name} has {told}")
            count = len(array)
    written = {name: tensors.write(name, array) for name, array in outputs.items()}
    values = written
    if len(written) == 1:
        (values,) = written.values()
    elif key == "instances":
        columns = zip(*written.values(), strict=True)
        values = [dict(zip(written, row, strict=True)) for row in columns]
    return tensors.dumps({"predictions" if key == "instances" else "outputs": values})


def _look(repository, name, digits, label, metadata) -> dict:
    """Return the states of a model's versions, or what one takes and gives."""
    if not name:
        raise invalid("Missing model name in request.")
    number = _number(digits) if digits else None
    if metadata:
        version = repository.find(name, number, label).version
        number = str(version.number)
        return {
            "model_spec": {"name": name, "signature_name": "", "version": number},
            "metadata": {"signature_def": {"signature_def": version.definitions}},
        }
    if label is not None:
        number = repository.find(name, None, label).version.number
    model = repository.models.get(name)
    states = {} if model is None else model.states
    if number is not None:
        states = {n: state for n, state in states.items() if n == number}
    if not states:
        which = "any versions" if number is None else f"version {number}"
        raise RequestError(404, f"Could not find {which} of model {name}")
    shown = []
    for n, state in sorted(states.items(), reverse=True):
        told = {"error_code": state.error_code, "error_message": state.error_message}
        shown.append({"version": str(n), "state": state.name, "status": told})
    return {"model_version_status": shown}


def _number(digits: str) -> int:
    # Counted first: Python refuses to read thousands of digits.
    if len(digits.lstrip("0")) > 19 or int(digits) > LARGEST:
        raise invalid(f"Failed to convert version: {digits[:256]} to numeric.")
    return int(digits)


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
routes = [Route(f"/{v}1/{{rest:path}}", answer, methods=METHODS) for v in "vV"]
