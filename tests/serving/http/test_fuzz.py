"""Whatever is sent: an answer of the protocol, never 500, and memory that stays."""

import base64
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# What a client may have done wrong, or what is too much at this moment.
EXPECTED = {200, 400, 404, 405, 413, 415, 503}
HEADER = "inference-header-content-length"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([2**63, -(2**64), 1e308, 256, -1, "\ud800", {"b64": "AA=="}]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["b64", "image", "a", "b", "name", "data", "shape", "é"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)
names = st.sampled_from(
    ["serving_default", "serve_bytes", "two", "text", "flags", "scalar", "positive"]
)
rest_documents = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": names | json_values,
        "instances": json_values | st.lists(json_values, min_size=1, max_size=3),
        "inputs": json_values,
    },
)
tensors = st.fixed_dictionaries(
    {"name": st.sampled_from(["image", "image_bytes", "a", "b", "text", "flag", "x"])},
    optional={
        "shape": st.lists(st.integers(-1, 5) | st.just(2**62), max_size=5)
        | json_values,
        "datatype": st.sampled_from(["UINT8", "FP32", "BYTES", "BOOL", "INT64", "X"]),
        "data": json_values | st.lists(st.integers(0, 255), max_size=16),
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 40) | json_values}
        )
        | json_values,
    },
)
oip_documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | json_values},
    optional={
        "id": json_values,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["mean", "sum"])}),
            max_size=2,
        )
        | json_values,
        "parameters": json_values
        | st.fixed_dictionaries({"signature_name": names | json_values}),
    },
)
paths = st.sampled_from(
    [
        f"/v1/models/{model}{which}{rest}"
        for model in ("cnn", "toy", "no", "%2e%2e", "%ff")
        for which in ("", "/versions/1", "/versions/" + "9" * 30, "/labels/a")
        for rest in (":predict", ":classify", "", "/metadata", "/x")
    ]
    + [
        f"/v2/models/{model}{which}{rest}"
        for model in ("cnn", "toy", "no")
        for which in ("", "/versions/1", "/versions/x")
        for rest in ("/infer", "/ready", "")
    ]
    + ["/v2", "/v2/health/ready", "/v2/repository/index", "/metrics", "/v1//", "/"]
)


@st.composite
def requests(draw):
    """Draw the method, path, body and headers of a request."""
    kind = draw(st.integers(0, 4))
    path = draw(paths)
    if kind <= 1:
        path = draw(st.sampled_from(["cnn", "toy"]))
        path = f"/v1/models/{path}:predict"
        body = json.dumps(draw(rest_documents)).encode()
    elif kind == 2:
        path = draw(st.sampled_from(["cnn", "toy"]))
        path = f"/v2/models/{path}/infer"
        body = json.dumps(draw(oip_documents)).encode()
    else:
        body = draw(st.binary(max_size=60))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        if not body:
            break
        place = draw(st.integers(0, len(body) - 1))
        body = body[:place] + draw(st.binary(max_size=2)) + body[place + 1 :]
    headers = {}
    if draw(st.integers(0, 4)) == 0:
        headers[HEADER] = draw(
            st.integers(-1, len(body) + 5).map(str) | st.sampled_from(["x", "²", "1e9"])
        ).encode("utf-8")
    if draw(st.integers(0, 9)) == 0:
        headers["content-encoding"] = draw(st.sampled_from(["gzip", "br", "identity"]))
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE"]))
    return method, path, body, headers


@st.composite
def files(draw, seeds):
    """Draw a PNG or JPEG file that is damaged or cut."""
    file = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        file[draw(st.integers(0, len(file) - 1))] = draw(st.integers(0, 255))
    return bytes(
        file[: draw(st.integers(0, len(file)))] if draw(st.booleans()) else file
    )


def send(client, request):
    method, path, body, headers = request
    answer = client.request(method, path, content=body, headers=headers)
    assert answer.status_code in EXPECTED, (request, answer.status_code, answer.text)
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"] or "ready" in answer.json()
    return answer


def send_files(client, encoded):
    request = {
        "signature_name": "serve_bytes",
        "instances": [{"b64": base64.b64encode(file).decode()} for file in encoded],
    }
    body = json.dumps(request).encode()
    return send(client, ("POST", "/v1/models/cnn:predict", body, {}))


def few(number):
    return settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="session")
def seeds(png, image):
    return [png(image), png(image, "JPEG"), png(image[..., 0]), png(image[:1, :1])]


def healthy(app, client):
    """Nothing is held or counted any more, and a good request is answered."""
    repository = app.state.repository
    assert app.state.bodies.used == 0
    for name in ("cnn", "toy"):
        served = repository.find(name, None, None)
        assert served.users == 0
        assert all(batcher.waiting == 0 for batcher in served.batchers.values())
    body = {"instances": [[[[1], [2]], [[3], [4]]]]}
    answer = client.post("/v1/models/toy:predict", json=body)
    assert answer.json() == {"predictions": [2.5]}


def fuzz(client, seeds, number, files_number):
    """Send drawn requests and drawn files."""

    @few(number)
    @given(requests())
    def any_request(request):
        send(client, request)

    @few(files_number)
    @given(st.lists(files(seeds), min_size=1, max_size=3))
    def any_files(encoded):
        send_files(client, encoded)

    any_request()
    any_files()


def test_a_few(app, client, seeds):
    fuzz(client, seeds, 150, 40)
    healthy(app, client)


@pytest.mark.slow
def test_many(app, client, seeds):
    fuzz(client, seeds, 5000, 1500)
    healthy(app, client)


def resident():
    """MiB of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow(client, seeds, image, png):
    import numpy as np

    deep = b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}"
    wide = b'{"instances": [' + b"[]," * 300_000 + b"[]]}"
    large = np.zeros((2000, 2000, 3), np.uint8)
    good = json.dumps({"instances": np.stack([image] * 64).tolist()}).encode()

    def round_of_requests():
        for body in (deep, wide, good, good[:-9], b"{" * 10**6):
            send(client, ("POST", "/v1/models/cnn:predict", body, {}))
        send_files(client, [*seeds, png(large)])
        for seed in seeds:
            send_files(client, [seed[: len(seed) // 2]])

    for _ in range(5):
        round_of_requests()
    before = resident()
    for _ in range(40):
        round_of_requests()
    grown = resident() - before
    assert grown < 60, f"{grown:.0f} MiB more after 40 rounds"
