"""The Open Inference Protocol: health, metadata, JSON and binary tensors."""

import json
import struct

import numpy as np
import pytest

INFER = "/v2/models/cnn/infer"
TOY = "/v2/models/toy/infer"
HEADER = "inference-header-content-length"


def given(array, name="image", datatype="UINT8", **more):
    tensor = {"name": name, "shape": list(np.shape(array)), "datatype": datatype}
    return {**tensor, "data": np.asarray(array).tolist(), **more}


def binary(document, *tails):
    text = json.dumps(document).encode()
    return {"content": b"".join([text, *tails]), "headers": {HEADER: str(len(text))}}


def output(answer, name):
    return next(o for o in answer.json()["outputs"] if o["name"] == name)


def error(answer):
    assert set(answer.json()) == {"error"}
    return answer.status_code, answer.json()["error"]


def test_health(client):
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/cnn/ready").json() == {"name": "cnn", "ready": True}
    assert client.get("/v2/models/cnn/versions/1/ready").status_code == 200
    assert client.get("/v2/models/cnn/versions/2/ready").status_code == 503
    assert client.get("/v2/models/nothing/ready").status_code == 404


def test_a_server_that_stops_is_not_ready(client, app):
    app.state.stopping = True
    try:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/models/cnn/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
    finally:
        app.state.stopping = False


def test_metadata(client):
    server = client.get("/v2").json()
    assert server["name"] == "kerascnn"
    # The extension "model_repository" would promise load and unload too.
    assert server["extensions"] == ["binary_tensor_data"]
    model = client.get("/v2/models/cnn").json()
    assert model == client.get("/v2/models/cnn/versions/1").json()
    assert (model["name"], model["versions"]) == ("cnn", ["1"])
    assert model["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}
    ]
    assert {o["name"]: o["datatype"] for o in model["outputs"]} == {
        "class_id": "INT64",
        "label": "BYTES",
        "probabilities": "FP32",
    }


def test_index(client):
    ready = {"version": "1", "state": "READY", "reason": ""}
    expected = [{"name": "cnn", **ready}, {"name": "toy", **ready}]
    assert client.post("/v2/repository/index").json() == expected
    answer = client.post("/v2/repository/index", json={"ready": True})
    assert answer.json() == expected
    long = b'{"ready": true' + b" " * 9**5 + b"}"  # read in another process
    assert client.post("/v2/repository/index", content=long).json() == expected


def test_forms_agree_with_the_network(client, network, images):
    x = images[:3]
    expected = network.predict(x, verbose=0)
    nested = {"id": "7", "inputs": [given(x)], "outputs": [{"name": "probabilities"}]}
    answer = client.post(INFER, json=nested)
    assert answer.status_code == 200, answer.text
    assert {k: v for k, v in answer.json().items() if k != "outputs"} == {
        "model_name": "cnn",
        "model_version": "1",
        "id": "7",
    }
    (tensor,) = answer.json()["outputs"]
    assert (tensor["shape"], tensor["datatype"]) == ([3, 10], "FP32")
    found = np.float32(tensor["data"]).reshape(3, 10)
    np.testing.assert_allclose(found, expected, atol=1e-5)

    flat = {**given(x), "data": x.ravel().tolist()}
    again = client.post("/v2/models/cnn/versions/1/infer", json={"inputs": [flat]})
    assert output(again, "probabilities")["data"] == tensor["data"]
    labels = output(again, "label")
    assert labels["data"] == [f"animal {i}" for i in expected.argmax(-1)]

    tensor = given(x, parameters={"binary_data_size": x.nbytes})
    del tensor["data"]
    asked = {"name": "probabilities", "parameters": {"binary_data": True}}
    request = binary({"inputs": [tensor], "outputs": [asked]}, x.tobytes())
    answer = client.post(INFER, **request)
    length = int(answer.headers[HEADER])
    head = json.loads(answer.content[:length])
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 120}
    found = np.frombuffer(answer.content[length:], "<f4").reshape(3, 10)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_outputs_as_binary(client, image):
    request = {
        "inputs": [given(image[None])],
        "parameters": {"binary_data_output": True},
    }
    answer = client.post(INFER, json=request)
    length = int(answer.headers[HEADER])
    head, tail = json.loads(answer.content[:length]), answer.content[length:]
    sizes = {o["name"]: o["parameters"]["binary_data_size"] for o in head["outputs"]}
    assert (sizes["class_id"], sizes["probabilities"]) == (8, 40)
    (class_id,) = np.frombuffer(tail[:8], "<i8")
    label = tail[8 : 8 + sizes["label"]]
    assert struct.unpack("<I", label[:4])[0] == len(label) - 4
    assert label[4:].decode() == f"animal {class_id}"


def test_encoded_images(client, image, png, b64):
    plain = client.post(INFER, json={"inputs": [given(image[None])]})
    file = png(image)
    packed = struct.pack("<I", len(file)) + file
    head = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    parameters = {"binary_data_size": len(packed)}
    request = binary({"inputs": [{**head, "parameters": parameters}]}, packed)
    text = {"content_type": "base64"}
    tensor = {**head, "parameters": text, "data": [b64(file)["b64"]]}
    for answer in (
        client.post(INFER, **request),
        client.post(INFER, json={"inputs": [tensor]}),
    ):
        assert answer.status_code == 200, answer.text
        found = output(answer, "probabilities")["data"]
        expected = output(plain, "probabilities")["data"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_encoded_images_of_a_photograph_s_size(client, png, b64):
    """Read in another process, whatever the form; the datatype may be escaped."""
    noise = np.random.default_rng(3).integers(0, 256, (300, 300, 3), np.uint8)
    file = png(noise)
    assert len(file) > 2**17
    packed = struct.pack("<I", len(file)) + file
    parameters = {"binary_data_size": len(packed)}
    head = {"name": "image_bytes", "shape": [1], "datatype": "BYTES"}
    request = binary({"inputs": [{**head, "parameters": parameters}]}, packed)
    body, length = request["content"], int(request["headers"][HEADER])
    escaped = body[:length].replace(b"BYTES", b"B\\u0059TES") + body[length:]
    text = {"content_type": "base64"}
    tensor = {**head, "parameters": text, "data": [b64(file)["b64"]]}
    answers = [
        client.post(INFER, **request),
        client.post(INFER, content=escaped, headers={HEADER: str(length + 5)}),
        client.post(INFER, json={"inputs": [tensor]}),
    ]
    found = [output(answer, "probabilities")["data"] for answer in answers]
    assert found[0] == found[1] == found[2]


def test_types(client):
    a = given([0.5], "a", "FP32")
    b = given([[1, 2]], "b", "INT64")
    assert output(client.post(TOY, json={"inputs": [b, a]}), "sum")["data"] == [3.5]
    flags = client.post(TOY, json={"inputs": [given([True, False], "flag", "BOOL")]})
    assert output(flags, "not")["data"] == [False, True]
    assert output(flags, "half")["datatype"] == "FP16"
    packed = {"name": "flag", "shape": [2], "datatype": "BOOL"}
    parameters = {"binary_data_size": 2}
    request = binary({"inputs": [{**packed, "parameters": parameters}]}, b"\x02\x00")
    assert output(client.post(TOY, **request), "number")["data"] == [1, 0]
    x = np.array([4, 9], "<f4")
    packed = {"name": "x", "shape": [2], "datatype": "FP32"}
    document = {
        "inputs": [{**packed, "parameters": {"binary_data_size": 8}}],
        "parameters": {"signature_name": "positive"},
    }
    answer = client.post(TOY, **binary(document, x.tobytes()))
    assert output(answer, "root")["data"] == [2.0, 3.0]
    text = client.post(TOY, json={"inputs": [given(["grün"], "text", "BYTES")]})
    assert output(text, "same")["data"] == ["grün"]


UINT8 = {"name": "image", "shape": [1, 2, 2, 1], "datatype": "UINT8"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [0, 1, 256, 3]}, "inputs[0].data[2] is 256; uint8 takes integers, 0 "
         "to 255"),
        ({"data": [[[[0], [1]], [[2], [0.5]]]]}, "JSON Value: 0.5 Type: Number is not "
         "of expected type: uint8 (inputs[0].data[0][1][1][0])"),
        ({"data": [0, 1, 2]}, "inputs[0].data has 3 values; the shape [1, 2, 2, 1] has "
         "4"),
        ({"data": [[0, 1], [2, 3]]}, "Encountered list at unexpected size: 2 at level: "
         "0 expected size: 1 (inputs[0].data)"),
        ({"data": 3}, "inputs[0].data is a list of values; received 3"),
        ({"shape": [1, 2, 2, -1], "data": []}, "inputs[0].shape is a list of sizes, "
         "such as [1,32,32,3]; received [1, 2, 2, -1]"),
        ({"shape": [10**9] * 4, "data": []}, "inputs[0].shape is a list of sizes, such "
         "as [1,32,32,3]; received [1000000000, 1000000000, 1000000000, 1000000000]"),
        ({"shape": [0, 2, 2, 1], "data": []}, "the request has no images; send one or "
         "more"),
        ({"shape": [4], "data": [1, 2, 3, 4]}, "the input 'image' takes uint8 of the "
         "shape (N, 2, 2, 1); received (4,)"),
        ({"datatype": "FP32", "data": [0]}, "the input 'image' takes the datatype UINT8"
         '; received "FP32"'),
        ({"name": "img", "data": []}, "['text']"),
        ({"parameters": {"binary_data_size": 4}}, "inputs[0].parameters."
         "binary_data_size is 4; 0 bytes are left behind the JSON object"),
        ({"parameters": {"binary_data_size": 0}}, "inputs[0] has 0 bytes; UINT8 of the "
         "shape [1, 2, 2, 1] has 4"),
        ({"parameters": 3, "data": []}, "inputs[0].parameters is an object; received "
         "3"),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(client, change, message):
    status, told = error(client.post(TOY, json={"inputs": [{**UINT8, **change}]}))
    assert status == 400
    assert message in told


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, 'needs "inputs"'),
        ({"inputs": []}, 'needs "inputs"'),
        ({"inputs": [3]}, "inputs[0] is an object"),
        ({"inputs": [UINT8, UINT8]}, "an input is given twice"),
        ({"inputs": [UINT8], "outputs": [{"name": "no"}]}, "outputs[0] names one of"),
        ({"inputs": [UINT8], "outputs": 3}, "outputs is a list"),
        ({"inputs": [{**UINT8, "data": [0] * 4}], "id": 3}, "id is a string"),
        ({"inputs": [UINT8], "parameters": {"signature_name": 3}}, "is a string"),
        ({"inputs": [UINT8], "parameters": {"signature_name": "x"}}, "not found"),
    ],
)
def test_requests_that_are_refused(client, document, message):
    status, told = error(client.post(TOY, json=document))
    assert status == 400
    assert message in told


@pytest.mark.parametrize(
    ("strings", "message"),
    [
        (b"", "too few for 1 strings"),
        (b"\x05\0\0\0ab", "ends within string 0"),
        (b"\xff\xff\xff\xff", "ends within string 0"),
        (b"\x01\0\0\0abc", "2 bytes behind the last string"),
    ],
)
def test_binary_strings_that_are_refused(client, strings, message):
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    parameters = {"binary_data_size": len(strings)}
    request = binary({"inputs": [{**tensor, "parameters": parameters}]}, strings)
    status, told = error(client.post(TOY, **request))
    assert status == 400
    assert message in told


def test_lengths_that_do_not_add_up(client):
    tensor = {**UINT8, "parameters": {"binary_data_size": 4}}
    request = binary({"inputs": [tensor]}, b"1234", b"5")
    assert "1 bytes are left" in error(client.post(TOY, **request))[1]
    for length in ("9999", "-1", "x", "1" * 5000):
        answer = client.post(TOY, content=b"{}", headers={HEADER: length})
        assert error(answer)[0] == 400


def test_unknown_models_and_methods(client):
    assert error(client.post("/v2/models/no/infer", json={}))[0] == 404
    assert error(client.post("/v2/models/cnn/versions/9/infer", json={}))[0] == 404
    assert error(client.get("/v2/models/cnn/versions/x"))[0] == 404
    assert error(client.get(INFER))[0] == 405
    assert error(client.get("/v2/"))[0] == 404


def test_what_is_left_out_may_be_null(client, image):
    tensor = {**given(image[None]), "parameters": None}
    request = {
        "id": None,
        "parameters": None,
        "inputs": [tensor],
        "outputs": [{"name": "label", "parameters": None}],
    }
    answer = client.post(INFER, json=request)
    assert answer.status_code == 200, answer.text
    assert "id" not in answer.json()
    status, message = error(client.post(INFER, json={**request, "id": 7}))
    assert (status, message) == (400, "id is a string; received 7")


@pytest.mark.parametrize("more", [{}, {"binary_data": True}, {"binary_data": False}])
def test_what_is_not_offered_is_refused(client, image, more):
    wanted = {"name": "probabilities", "parameters": {"classification": 1, **more}}
    request = {"inputs": [given(image[None])], "outputs": [wanted]}
    status, message = error(client.post(INFER, json=request))
    assert status == 400
    assert message.startswith("outputs[0].parameters.classification is not offered")
