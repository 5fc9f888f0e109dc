"""TensorFlow Serving's REST API: routes, formats, status, metadata, errors."""

import copy
import gzip
import json
import shutil
import urllib.parse
import zlib

import numpy as np
import pytest
from starlette.testclient import TestClient

from kerascnn.serving.http import create_app

CNN = "/v1/models/cnn:predict"
TOY = "/v1/models/toy:predict"
PIXELS = [[[1], [2]], [[3], [4]]]


def error(answer):
    assert set(answer.json()) == {"error"}
    return answer.status_code, answer.json()["error"]


def test_row_and_column_format_agree_with_the_network(client, network, images):
    expected = network.predict(images[:3], verbose=0)
    rows = client.post(CNN, json={"instances": images[:3].tolist()})
    assert rows.status_code == 200
    assert rows.headers["content-type"] == "application/json"
    predictions = rows.json()["predictions"]
    found = np.float32([row["probabilities"] for row in predictions])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [row["class_id"] for row in predictions] == expected.argmax(-1).tolist()
    assert predictions[0]["label"] == f"animal {expected[0].argmax()}"
    columns = client.post(CNN, json={"inputs": {"image": images[:3].tolist()}})
    outputs = columns.json()["outputs"]
    assert outputs["probabilities"] == [row["probabilities"] for row in predictions]
    assert outputs["label"] == [row["label"] for row in predictions]


def test_the_forms_of_one_request_agree(client, image, png, b64):
    pixels, file = image.tolist(), b64(png(image))
    named = {"signature_name": "serving_default"}
    encoded = {"signature_name": "serve_bytes"}
    requests = [
        {"instances": [pixels]},
        {"instances": [{"image": pixels}]},
        {**named, "instances": [pixels]},
        {"instances": [pixels], **named},
        {**encoded, "instances": [file]},
        {**encoded, "instances": [{"image_bytes": file}]},
    ]
    answers = [client.post(CNN, json=request) for request in requests]
    assert [a.status_code for a in answers] == [200] * len(answers)
    first = answers[0].json()["predictions"][0]["probabilities"]
    for answer in answers[1:]:
        found = answer.json()["predictions"][0]["probabilities"]
        np.testing.assert_allclose(found, first, atol=1e-6)
    columns = [
        {"inputs": [pixels]},
        {"inputs": {"image": [pixels]}},
        {**encoded, "inputs": [file]},
        {**encoded, "inputs": {"image_bytes": [file]}},
    ]
    for request in columns:
        outputs = client.post(CNN, json=request).json()["outputs"]
        np.testing.assert_allclose(outputs["probabilities"], [first], atol=1e-6)


def test_one_output_loses_its_name(client):
    rows = client.post(TOY, json={"instances": [PIXELS, PIXELS]})
    assert rows.text == '{"predictions":[2.5,2.5]}'
    assert client.post(TOY, json={"inputs": [PIXELS]}).text == '{"outputs":[2.5]}'


def test_several_inputs(client):
    request = {
        "signature_name": "two",
        "instances": [{"a": 0.5, "b": [1, 2]}, {"b": [3, 4], "a": 1}],
    }
    assert client.post(TOY, json=request).json() == {"predictions": [3.5, 8.0]}
    request = {"signature_name": "two", "inputs": {"a": [0.5], "b": [[1, 2]]}}
    assert client.post(TOY, json=request).json() == {"outputs": [3.5]}
    request = {"signature_name": "two", "inputs": {"a": [0.5, 1], "b": [[1, 2]]}}
    assert error(client.post(TOY, json=request)) == (
        400,
        "the inputs have different numbers of images: {'a': 2, 'b': 1}",
    )


def test_strings_and_bytes(client, b64):
    request = {"signature_name": "text", "instances": ["grün", b64(b"\xff\0")]}
    rows = client.post(TOY, json=request).json()["predictions"]
    assert rows[0] == {"same": "grün", "same_bytes": b64("grün".encode())}
    assert rows[1]["same_bytes"] == b64(b"\xff\0")


def test_types_of_outputs(client):
    request = {"signature_name": "flags", "inputs": [True, False]}
    assert client.post(TOY, json=request).json()["outputs"] == {
        "half": [1.0, 0.0],
        "not": [False, True],
        "number": [1, 0],
    }


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("3", "0.33333334"),
        ("10", "0.1"),
        ("1", "1.0"),
        ("1e30", "1e-30"),
        ("0", "Infinity"),
        ("NaN", "NaN"),
        ("-Infinity", "-0.0"),
    ],
)
def test_floats_are_written_with_the_shortest_decimals(client, x, y):
    body = f'{{"signature_name": "scalar", "inputs": {x}}}'
    assert client.post(TOY, content=body).text == f'{{"outputs":{y}}}'


def test_one_number_that_is_none_leaves_the_others_as_they_are():
    """What orjson cannot write goes another way, which gives the same decimals."""
    from kerascnn.serving.http import tensors

    values = np.array([[0.1, np.nan], [1e30, -np.inf]], np.float32)
    assert tensors.dumps(tensors.write("x", values)) == (
        b"[[0.1,NaN],[1e+30,-Infinity]]"
    )
    assert tensors.dumps(tensors.write("x", values[:, 0])) == b"[0.1,1e+30]"


def test_an_output_without_a_batch_has_no_row_format(client):
    body = {"signature_name": "scalar", "instances": [1]}
    status, message = error(client.post(TOY, json=body))
    assert status == 400
    assert "takes float32 of the shape (); received (1,)" in message


def test_status(client):
    available = {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert client.get("/v1/models/cnn").json() == available
    assert client.get("/v1/models/cnn/versions/1").json() == available
    assert client.get("/V1/Models/cnn/Versions/1").json() == available


def test_metadata(client):
    answer = client.get("/v1/models/cnn/metadata").json()
    assert answer["model_spec"] == {
        "name": "cnn",
        "signature_name": "",
        "version": "1",
    }
    definitions = answer["metadata"]["signature_def"]["signature_def"]
    default = definitions["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["image"]["dtype"] == "DT_UINT8"
    sizes = [d["size"] for d in default["inputs"]["image"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "32", "32", "3"]
    assert default["inputs"]["image"]["tensor_shape"]["unknown_rank"] is False
    assert set(default["outputs"]) == {"probabilities", "class_id", "label"}
    again = client.get("/v1/models/cnn/versions/1/metadata").json()
    assert again == answer


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/half:predict", 404, "Servable not found for request: "
         "Latest(half)"),
        ("POST", "/v1/models/cnn/versions/9:predict", 404, "Servable not found for "
         "request: Specific(cnn, 9)"),
        ("POST", "/v1/models/cnn/labels/x:predict", 400, "Unrecognized servable "
         "version label: x"),
        ("GET", "/v1/models/half", 404, "Could not find any versions of model half"),
        ("GET", "/v1/models/cnn/versions/9", 404, "Could not find version 9 of model "
         "cnn"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/nothing", 400, "Malformed request: GET /v1/nothing"),
        ("GET", CNN, 400, f"Malformed request: GET {CNN}"),
        ("PUT", CNN, 400, f"Malformed request: PUT {CNN}"),
        ("POST", "/v1/models/cnn/versions/1/labels/a:predict", 400, "Malformed "
         "request: POST /v1/models/cnn/versions/1/labels/a:predict"),
        ("POST", "/v1/models/cnn:explain", 400, "Malformed request: POST "
         "/v1/models/cnn:explain"),
        ("GET", f"/v1/models/cnn/versions/{2**63}", 400, "Failed to convert version: "
         f"{2**63} to numeric."),
        ("POST", "/v1/models/cnn:classify", 400, "Expected classify signature "
         "method_name to be tensorflow/serving/classify. Was: "
         "tensorflow/serving/predict"),
        ("GET", "/elsewhere", 404, "Not Found"),
    ],
)  # fmt: skip
def test_routes_that_lead_nowhere(client, method, path, status, message):
    assert error(client.request(method, path)) == (status, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("{", "JSON Parse error: Expecting property name enclosed in double quotes. "
         "at offset: 1"),
        ('{"instances": [1,}', "JSON Parse error: Expecting value. at offset: 17"),
        ("{} {}", "JSON Parse error: Extra data. at offset: 3"),
        (b"\xff", "JSON Parse error: Invalid encoding in string. at offset: 0"),
        ("[" * 100_000, "JSON Parse error: lists or objects are nested too deep"),
        ("[1]", "JSON Value: [1] Is not object"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": 3}', 'JSON Value: {"instances": 3} Excepting \'instances\' to '
         "be an list/array"),
        ('{"instances": []}', 'JSON Value: {"instances": []} No values in \'instances\''
         " array"),
        ('{"instances": [1], "inputs": 1}', 'JSON Value: {"instances": [1], "inputs": 1'
         "} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
         "to exist "),
        ('{"signature_name": "x", "instances": [1]}', 'Serving signature name: "x" not '
         "found in signature def"),
        ('{"signature_name": 1}', 'JSON Value: {"signature_name": 1} not formatted '
         "correctly. 'signature_name' key must be a string value."),
        ('{"instances": [{"img": 1}]}', "Failed to process element: 0 of 'instances' "
         'list. JSON object: {"img": 1} keys must be equal to: image'),
        ('{"instances": [{"image": 1}, 1]}', "Expecting object but got list at item 1 "
         "of input list"),
        ('{"instances": [1, {"image": 1}]}', "Expecting value/list but got object at "
         "item 1 of input list"),
        ('{"inputs": {"img": 1}}', "Missing named input: image in 'inputs' object."),
        ('{"signature_name": "two", "instances": [1]}', "instances is a plain list, but"
         " expecting list of objects as multiple input tensors required as per "
         "tensorinfo_map"),
        ('{"signature_name": "two", "inputs": [1]}', "inputs is a plain value/list, but"
         " expecting an object as multiple input tensors required as per "
         "tensorinfo_map"),
        ('{"signature_name": "text", "instances": [{"b64": "#"}]}', "Failed to process "
         "element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 "
         "decode (instances[0])"),
        ('{"signature_name": "text", "inputs": {"text": [{"a": 1}]}}', "JSON Value: "
         '{"a": 1} not formatted correctly for base64 data (inputs.text[0])'),
        ('{"signature_name": "scalar", "inputs": 16777217}', "Cannot convert JSON "
         "value: 16777217 to float without loss of precision. (inputs)"),
        ('{"signature_name": "scalar", "inputs": 1e39}', "Cannot convert JSON value: "
         "1e+39 to float without loss of precision. (inputs)"),
        ('{"signature_name": "slow", "inputs": [4294967296]}', "inputs[0] is "
         "4294967296; int32 takes integers, -2147483648 to 2147483647"),
        ('{"signature_name": "slow", "inputs": []}', "the request has no images; send "
         "one or more"),
        ('{"instances": [[[1], [2, 3]]]}', "Failed to process element: 0 of 'instances'"
         " list. Error: INVALID_ARGUMENT: Encountered list at unexpected size: 2 at "
         "level: 1 expected size: 1 (instances[0][1])"),
        ('{"instances": [[1, [2]]]}', "Failed to process element: 0 of 'instances' "
         "list. Error: INVALID_ARGUMENT: Encountered list at unexpected level: 1 "
         "expected < 1 (instances[0][1])"),
        ('{"instances": [[[1], 2]]}', "Failed to process element: 0 of 'instances' "
         "list. Error: INVALID_ARGUMENT: JSON Value: 2 found at incorrect level: 2 in "
         "the JSON DOM. Expected at level: 2 (instances[0][1])"),
        ('{"instances": [[1, 2], [1, 2, 3]]}', "Failed to process element: 1 of "
         "'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: "
         "3"),
        ('{"instances": [[1, 2], [[1, 2]]]}', "Failed to process element: 1 of "
         "'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2] but got: "
         "[1,2]"),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(client, body, message):
    assert error(client.post(TOY, content=body)) == (400, message)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (256, "instances[0][3][4][1] is 256; uint8 takes integers, 0 to 255"),
        (-1, "instances[0][3][4][1] is -1; uint8 takes integers, 0 to 255"),
        (10**30, f"instances[0][3][4][1] is {10**30}; uint8 takes integers, 0 to 255"),
        (0.5, "JSON Value: 0.5 Type: Number is not of expected type: uint8 "
         "(instances[0][3][4][1])"),
        (1.0, "JSON Value: 1.0 Type: Number is not of expected type: uint8 "
         "(instances[0][3][4][1])"),
        (True, "JSON Value: true Type: True is not of expected type: uint8 "
         "(instances[0][3][4][1])"),
        (None, "JSON Value: null Type: Null is not of expected type: uint8 "
         "(instances[0][3][4][1])"),
        ("7", 'JSON Value: "7" Type: String is not of expected type: uint8 '
         "(instances[0][3][4][1])"),
        (float("nan"), "JSON Value: NaN Type: Number is not of expected type: uint8 "
         "(instances[0][3][4][1])"),
        ({"b64": "AA=="}, 'JSON Value: {"b64": "AA=="} Type: Object is not of expected '
         "type: uint8 (instances[0][3][4][1])"),
    ],
)  # fmt: skip
def test_pixels_that_are_none(client, image, value, told):
    """The value and the position are named; nothing is wrapped to 0…255."""
    pixels = image.tolist()
    pixels[3][4][1] = value
    answer = client.post(CNN, content=json.dumps({"instances": [pixels]}))
    start = "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT"
    assert error(answer) == (400, f"{start}: {told}")
    named = [{"image": image.tolist()}, {"image": pixels}]
    answer = client.post(CNN, content=json.dumps({"instances": named}))
    start = "Failed to process element: 1 key: image of 'instances' list. Error: "
    told = told.replace("[0][3]", "[1].image[3]")
    assert error(answer) == (400, f"{start}INVALID_ARGUMENT: {told}")


def test_images_of_another_size(client, image):
    answer = client.post(CNN, json={"instances": [image[:31].tolist()]})
    assert error(answer) == (
        400,
        "the input 'image' takes uint8 of the shape (N, 32, 32, 3); received "
        "(1, 31, 32, 3)",
    )


def test_ragged_image(client, image):
    pixels = image.tolist()
    pixels[7] = pixels[7][:5]
    status, message = error(client.post(CNN, json={"instances": [pixels]}))
    assert status == 400
    assert "unexpected size: 5 at level: 1 expected size: 32 (instances[0][7])" in (
        message
    )


def test_what_the_graph_refuses(client):
    request = {"signature_name": "positive", "instances": [1.0, -1.0]}
    status, message = error(client.post(TOY, json=request))
    assert status == 400
    assert "assertion failed" in message
    request["instances"] = [4.0]
    assert client.post(TOY, json=request).json() == {"predictions": [2.0]}


def test_compressed_body(client):
    body = gzip.compress(json.dumps({"instances": [PIXELS]}).encode())
    coded = {"content-encoding": "gzip"}
    answer = client.post(TOY, content=body, headers=coded)
    assert answer.json() == {"predictions": [2.5]}
    status, message = error(client.post(TOY, content=body[:-9], headers=coded))
    assert (status, "ends too early" in message) == (400, True)
    status, message = error(client.post(TOY, content=b"no", headers=coded))
    assert (status, "is no gzip" in message) == (400, True)
    answer = client.post(TOY, content=body, headers={"content-encoding": "br"})
    assert error(answer)[0] == 415


def test_compressed_bodies_of_other_forms(client):
    text = json.dumps({"instances": [PIXELS]}).encode()
    members = gzip.compress(text[:50]) + gzip.compress(b"") + gzip.compress(text[50:])
    for coding, body in (
        ("gzip", members),
        ("x-gzip", gzip.compress(text)),
        ("deflate", zlib.compress(text)),
    ):
        answer = client.post(TOY, content=body, headers={"content-encoding": coding})
        assert answer.json() == {"predictions": [2.5]}, coding
    for coding, body in (
        ("gzip", gzip.compress(text) + b"garbage"),
        ("gzip", members[:-5]),
        ("deflate", zlib.compress(text) + b"garbage"),
        ("deflate", text),
    ):
        answer = client.post(TOY, content=body, headers={"content-encoding": coding})
        assert error(answer)[0] == 400, (coding, body)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a:b", "50%", "my model", "2024"])
def test_names_of_models(toys, tmp_path, name):
    """As a URL wants them: percent-encoded; the same in both protocols."""
    shutil.copytree(toys[1], tmp_path / name / "1")
    quoted = urllib.parse.quote(name, safe="")
    with TestClient(create_app(tmp_path, poll=3600)) as client:
        answer = client.post(
            f"/v1/models/{quoted}:predict", json={"instances": [PIXELS]}
        )
        assert answer.status_code == 200, answer.text
        assert client.get(f"/v1/models/{quoted}").status_code == 200
        assert client.get(f"/v1/models/{quoted}/metadata").status_code == 200
        assert client.get(f"/v2/models/{quoted}").json()["name"] == name


def test_a_request_is_not_changed_by_blanks(client):
    """The fast way reads some of these, the general way all."""
    expected = {"predictions": [2.5]}
    compact = json.dumps({"instances": [PIXELS]}, separators=(",", ":"))
    for body in (
        compact,
        json.dumps({"instances": [PIXELS]}),
        json.dumps({"instances": [PIXELS]}, indent=2),
        f"\n {compact} \n",
        compact.replace("[", "[ ").replace(",", " ,"),
    ):
        assert client.post(TOY, content=body).json() == expected
    changed = copy.deepcopy(PIXELS)
    changed[0][0][0] = 5
    answer = client.post(TOY, json={"instances": [changed, PIXELS]})
    assert answer.json() == {"predictions": [3.5, 2.5]}
