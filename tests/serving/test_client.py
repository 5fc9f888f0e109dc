"""The client: against the server itself, and against servers that misbehave."""

import base64
import contextlib
import http.server
import json
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import urllib3
from typer.testing import CliRunner

from kerascnn.cli.common import app as command
from kerascnn.prediction import Prediction
from kerascnn.serving.client import Client, ServerError, pause_before, retry_after

ANIMALS = tuple(f"animal {number}" for number in range(10))


@contextlib.contextmanager
def answering(script):
    """Serve a function of (method, path, headers, body); collect what was asked.

    It returns (status, headers, body), or None to close the connection.
    """
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            asked.append((self.command, self.path, dict(self.headers), body))
            answer = script(len(asked), *asked[-1])
            if answer is None:
                self.close_connection = True
                return
            status, headers, content = answer
            if not isinstance(content, bytes):
                content = json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815  (http.server's names)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pauses(monkeypatch):
    """Let no time pass between attempts; collect the seconds."""
    waited = []
    monkeypatch.setattr("kerascnn.serving.client.time.sleep", waited.append)
    return waited


@pytest.fixture(scope="module")
def server(version, running, tmp_path_factory):
    """The server of this package with two versions of one model."""
    from kerascnn.serving.http import create_app

    folder = tmp_path_factory.mktemp("models")
    for number in ("1", "2"):
        shutil.copytree(version, folder / "lecture_cnn" / number)
    with running(create_app(folder, versions=2, labels={"stable": 1})) as url:
        yield url


@pytest.fixture(scope="module")
def expected(version, images):
    from kerascnn.serving import open_version

    return open_version(version).ask(images)


def assert_same(found, expected):
    """Hold answers equal but for rounding, which differs from batch to batch."""
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert list(one.probabilities) == list(other.probabilities)
        assert (one.label, one.labels) == (other.label, other.labels)
        assert (one.class_id, one.asked) == (other.class_id, other.asked)


def row(label="cat", probabilities=(0.25, 0.75), class_id=1):
    return {"probabilities": probabilities, "class_id": class_id, "label": label}


def tensorflow_serving(count, method, path, headers, body):
    """What TensorFlow Serving answers: no v2, no list, a row for each image."""
    if not path.startswith("/v1/"):
        return 404, {}, b"Not found"
    rows = json.loads(body)["instances"]
    return 200, {}, {"predictions": [row() for _ in rows]}


# Against the server


def test_arrays_in_batches(server, images, expected):
    with Client(server, "lecture_cnn") as client:
        found = client.predict(images, batch_size=10)
    assert [p.label for p in found] == expected["label"]
    assert [p.class_id for p in found] == list(expected["class_id"])
    given = np.array([[p.probabilities[name] for name in ANIMALS] for p in found])
    np.testing.assert_allclose(given, expected["probabilities"], atol=1e-6)
    assert [p.asked for p in found] == list(range(len(images)))
    assert {p.labels for p in found} == {ANIMALS}
    scores = list(found[0].ranking.values())
    assert scores == sorted(scores, reverse=True)
    assert next(iter(found[0].ranking)) == found[0].label


def test_both_protocols_agree(server, images):
    binary = Client(server, "lecture_cnn")
    rows = Client(server, "lecture_cnn")
    rows._binary = False
    assert_same(binary.predict(images[:3]), rows.predict(images[:3]))


def test_files_by_path_and_as_bytes(server, images, expected, tmp_path):
    from PIL import Image

    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for file, image in zip(files, images, strict=False):
        Image.fromarray(image).save(file)
    client = Client(server)  # the only model
    assert client.model == "lecture_cnn"
    found = client.predict([files[0], files[1].read_bytes(), str(files[1])])
    assert [p.label for p in found] == [expected["label"][i] for i in (0, 1, 1)]
    assert [p.asked for p in found] == [files[0], 1, files[1]]
    given = [[p.probabilities[name] for name in ANIMALS] for p in found[:2]]
    np.testing.assert_allclose(given, expected["probabilities"][:2], atol=1e-6)
    assert_same(client.predict_files(files), [found[0], found[2]])


def test_versions_and_labels(server, images):
    told = Client(server, "lecture_cnn").predict(images[:1])[0].probabilities
    expected = list(told.values())
    for version in (1, 2, "stable"):
        (found,) = Client(server, "lecture_cnn", version).predict(images[:1])
        given = list(found.probabilities.values())
        np.testing.assert_allclose(given, expected, atol=1e-6)
        assert found.labels is None  # they are listed for the newest version only
    assert Client(server, "lecture_cnn").status() == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert Client(server, "lecture_cnn", 1).status() == {1: "AVAILABLE"}
    for version in (9, "gone"):
        with pytest.raises(ServerError, match=f"{version}"):
            Client(server, "lecture_cnn", version).predict(images[:1])


def test_models_are_listed(server):
    (listed,) = Client(server).models().items()
    assert listed == (
        "lecture_cnn",
        {
            "version": 2,
            "labels": [f"animal {number}" for number in range(10)],
            "input": [32, 32, 3],
            "files": True,
        },
    )


def test_what_the_server_refuses_is_told(server, images):
    with pytest.raises(ServerError, match=r"404.*lecture_cn") as error:
        Client(server, "lecture_cn").predict(images)
    assert error.value.status == 404
    with pytest.raises(ServerError, match=r"400.*28"):
        Client(server, "lecture_cnn").predict(images[:, :28])
    with pytest.raises(ServerError, match="400"):
        Client(server, "lecture_cnn").predict([b"\x89PNG broken"])
    large = np.zeros((2, 3500, 3500, 3), np.uint8)
    with pytest.raises(ServerError, match=r"413|400"):
        Client(server, "lecture_cnn").predict(large)


def test_one_client_in_several_threads(server, images, expected):
    client = Client(server, "lecture_cnn")
    wrong = []

    def ask(number):
        for _ in range(5):
            (found,) = client.predict(images[number : number + 1])
            if found.label != expected["label"][number]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_command_asks_a_server(server, images, tmp_path):
    from PIL import Image

    from kerascnn.cli import commands  # noqa: F401  (adds the command)

    file = tmp_path / "photo.png"
    Image.fromarray(images[0]).save(file)
    arguments = ["predict", "--server", server, "lecture_cnn", str(file)]
    told = CliRunner().invoke(command, [*arguments, "--json"])
    ((answer),) = json.loads(told.stdout)["predictions"]
    (found,) = Client(server).predict_files([file])
    assert answer == {"file": str(file), "probabilities": found.probabilities}
    shown = CliRunner().invoke(command, [*arguments, "--top", "1"])
    label, value = found.label, found.probabilities[found.label]
    assert shown.stdout == f"{file}: {label} {value:.1%}\n"
    other = [*arguments[:3], "nope", str(file)]
    unknown = CliRunner().invoke(command, other)
    assert str(unknown.exception).endswith("(nope); it serves lecture_cnn")
    wrong = CliRunner().invoke(command, [*arguments, "--views", "2"])
    assert "received 2 and 1" in str(wrong.exception)


# Against servers of other kinds


def test_tensorflow_serving_gets_json(images):
    with answering(tensorflow_serving) as (url, asked):
        client = Client(url, "cnn")
        found = client.predict(images[:2])
        client.predict([b"\xff\xd8 a photograph"])
    expected = {"cat": 0.75, "class 0": 0.25}
    assert found == [Prediction(expected, number) for number in range(2)]
    assert found[0].ranking == expected and list(found[0].ranking) == list(expected)
    assert (found[0].label, found[0].class_id, found[0].labels) == ("cat", 1, None)
    posts = [(path, json.loads(body)) for method, path, _, body in asked if body]
    paths = [path for path, _ in posts if path.startswith("/v1")]
    assert paths == ["/v1/models/cnn:predict"] * 2
    bodies = [body for path, body in posts if path.startswith("/v1")]
    assert bodies[0] == {
        "signature_name": "serving_default",
        "instances": images[:2].tolist(),
    }
    encoded = base64.b64encode(b"\xff\xd8 a photograph").decode()
    assert bodies[1] == {
        "signature_name": "serve_bytes",
        "instances": [{"b64": encoded}],
    }


def test_tensorflow_serving_lists_no_models(images):
    with (
        answering(tensorflow_serving) as (url, _),
        pytest.raises(ServerError, match="does not list its models"),
    ):
        Client(url).predict(images)


def test_another_server_lists_its_models():
    def triton(count, method, path, headers, body):
        if path != "/v2/repository/index":
            return 404, {}, {"error": "no such path"}
        assert (method, json.loads(body)) == ("POST", {"ready": True})
        return 200, {}, [{"name": n, "version": "3", "state": "READY"} for n in "ab"]

    with answering(triton) as (url, _):
        assert Client(url).models() == {"a": {"version": 3}, "b": {"version": 3}}
        with pytest.raises(ValueError, match="2 models: a, b; name one"):
            _ = Client(url).model


def test_batches_keep_their_order_and_their_limits(tmp_path, monkeypatch):
    monkeypatch.setattr("kerascnn.serving.client.BATCH_BYTES", 100)
    sizes = [10, 90, 3, 300, 5, 5, 5, 5]
    files = [b"\xff\xd8" + bytes([n]) * (size - 2) for n, size in enumerate(sizes)]

    def script(count, method, path, headers, body):
        if not path.startswith("/v1/"):
            return 404, {}, b""
        rows = [base64.b64decode(r["b64"]) for r in json.loads(body)["instances"]]
        return 200, {}, {"predictions": [row(str(file[-1])) for file in rows]}

    with answering(script) as (url, asked):
        found = Client(url, "m").predict(iter(files), batch_size=3)
        assert Client(url, "m").predict([]) == []
    assert [p.label for p in found] == [str(n) for n in range(len(files))]
    sent = [json.loads(b)["instances"] for _, path, _, b in asked if "predict" in path]
    lengths = [[len(base64.b64decode(r["b64"])) for r in rows] for rows in sent]
    assert lengths == [[10, 90], [3], [300], [5, 5, 5], [5]]


def test_what_is_too_much_for_one_request_is_halved():
    """A server counts pixels, which a client does not know."""

    def script(count, method, path, headers, body):
        if not path.startswith("/v1/"):
            return 404, {}, b""
        rows = [base64.b64decode(r["b64"]) for r in json.loads(body)["instances"]]
        if len(rows) > 2 or b"\xff\xd8huge" in rows:
            return 413, {}, {"error": "at most 50,000,000 pixels"}
        return 200, {}, {"predictions": [row(str(file[-1])) for file in rows]}

    files = [b"\xff\xd8" + bytes([n]) for n in range(7)]
    with answering(script) as (url, _):
        found = Client(url, "m").predict(files)
        assert [p.label for p in found] == [str(n) for n in range(7)]
        with pytest.raises(ServerError, match="at most 50,000,000 pixels"):
            Client(url, "m").predict([*files, b"\xff\xd8huge"])


@pytest.mark.parametrize("version", [None, "stable"])
def test_large_arrays_are_sent_in_several_requests(version, monkeypatch):
    """As bytes and as JSON they stay below what a server takes, four times as much."""
    monkeypatch.setattr("kerascnn.serving.client.BATCH_BYTES", 8192)
    sizes = []

    def script(count, method, path, headers, body):
        if path.startswith("/page") or path.endswith("/index"):
            return 404, {}, b""
        sizes.append(len(body))
        if path.startswith("/v2/health"):
            return 200, {}, {}
        if path.startswith("/v1/"):
            return 200, {}, {"predictions": [row("0")] * body.count(b"[[[")}
        (length,) = (v for k, v in headers.items() if k.lower().startswith("inference"))
        head = json.loads(body[: int(length)])
        (count, *_) = head["inputs"][0]["shape"]
        outputs = [
            {"name": "probabilities", "shape": [count, 1], "data": [1.0] * count},
            {"name": "class_id", "shape": [count], "data": [0] * count},
            {"name": "label", "shape": [count], "data": ["a"] * count},
        ]
        return 200, {}, {"outputs": outputs}

    images = np.full((40, 16, 16, 3), 255, np.uint8)
    with answering(script) as (url, _):
        assert len(Client(url, "m", version).predict(images)) == 40
    assert max(sizes) < 4 * 8192


def test_the_path_of_the_url_and_strange_names(images):
    with answering(tensorflow_serving) as (url, asked), pytest.raises(ServerError):
        Client(url + "/behind/a%20proxy/", "a/b c", "sta:ble").predict(images[:1])
    assert [path for _, path, _, _ in asked] == [
        "/behind/a%20proxy/v1/models/a%2Fb%20c/labels/sta%3Able:predict"
    ]


# Attempts


def test_busy_servers_are_asked_again(pauses):
    def busy_twice(count, *_):
        if count < 3:
            return (429, 503)[count - 1], {}, {"error": "queue is full"}
        return 200, {}, {"ok": True}

    with answering(busy_twice) as (url, asked):
        assert Client(url)._json("POST", "/", {"a": 1}) == {"ok": True}
    assert [body for *_, body in asked] == [b'{"a": 1}'] * 3
    assert len(pauses) == 2
    assert 0.05 <= pauses[0] <= 0.1 and 0.1 <= pauses[1] <= 0.2


def test_attempts_end(pauses):
    def busy(count, *_):
        return 503, {}, {"error": "queue is full"}

    with answering(busy) as (url, asked):
        with pytest.raises(
            ServerError, match=r"503: queue is full \(after 3 attempts\)"
        ):
            Client(url, retries=2)._json("GET", "/")
        assert len(asked) == 3
        with pytest.raises(ServerError, match=r"\(after 1 attempt\)"):
            Client(url, retries=0)._json("GET", "/")
    assert len(asked) == 4 and len(pauses) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 500, 502, 504])
def test_other_failures_are_final(pauses, status):
    with (
        answering(lambda *_: (status, {}, {"error": "no"})) as (url, asked),
        pytest.raises(ServerError, match=f"{status}: no$") as error,
    ):
        Client(url)._json("GET", "/")
    assert error.value.status == status
    assert len(asked) == 1 and pauses == []


def test_retry_after_is_respected(pauses):
    def script(count, *_):
        if count == 1:
            return 503, {"Retry-After": "2"}, b""
        return 429, {"Retry-After": "3600"}, b""

    with (
        answering(script) as (url, asked),
        pytest.raises(ServerError, match="429: Too Many Requests"),
    ):
        Client(url)._json("GET", "/")
    assert len(asked) == 2  # an hour is not waited for
    assert len(pauses) == 1 and 2 <= pauses[0] <= 2.1


def test_pauses():
    for attempt in range(20):
        longest = min(5.0, 0.1 * 2**attempt)
        assert longest / 2 <= pause_before(attempt) <= longest
        assert 7 <= pause_before(attempt, 7) <= 7 + longest / 2


def test_what_retry_after_asks_for():
    def asked(value):
        return retry_after(urllib3.HTTPResponse(headers={"Retry-After": value}))

    assert (asked("7"), asked("0"), asked("no date"), asked("nan")) == (7, 0, 0, 0)
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 28 < asked(at) < 31
    assert asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after(urllib3.HTTPResponse()) == 0


# Connections


def test_a_connection_stays_open_and_is_opened_anew():
    opened = []

    def script(count, *_):
        return (200, {}, {}) if count != 3 else None  # the third finds it closed

    with answering(script) as (url, asked):
        client = Client(url)
        for _ in range(4):
            client._json("GET", "/")
            opened.append(client._pool.num_connections)
    assert len(asked) == 5
    assert opened == [1, 1, 2, 2]


def test_a_new_connection_is_not_repeated():
    with (
        answering(lambda *_: None) as (url, asked),
        pytest.raises(ConnectionError, match="no server answers"),
    ):
        Client(url)._json("GET", "/")
    assert len(asked) == 1


def test_nobody_and_silence():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # never accepts
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError, match=r"silent for 0\.2 s"):
            Client(url, timeout=0.2)._json("GET", "/")
    with pytest.raises(ConnectionError, match="start one with kerascnn serve"):
        Client(url, timeout=5)._json("GET", "/")


def test_an_early_refusal_of_a_large_body_is_read():
    """The server answers 413 after the head and closes, while the body is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        taken, _ = listener.accept()
        taken.recv(1000)
        taken.sendall(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 18\r\nConnection: close\r\n\r\n"
            b'{"error": "large"}'
        )
        taken.shutdown(socket.SHUT_WR)
        time.sleep(1)
        taken.close()

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServerError, match="413: large"):
        Client(url, timeout=5)._request("POST", "/", bytes(50_000_000))
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"not JSON",
        [],
        {"predictions": []},
        {"predictions": [row(), row()]},
        {"predictions": [{"probabilities": [1.0]}]},
        {"predictions": [row(probabilities=["a", "b"])]},
        {"predictions": [row(class_id=2)]},
        {"outputs": {}},
    ],
    ids=str,
)
def test_answers_that_break_the_protocol(answer):
    with (
        answering(lambda *_: (200, {}, answer)) as (url, _),
        pytest.raises(ServerError, match="does not answer as the protocol"),
    ):
        Client(url, "m", "stable").predict([b"\xff\xd8"])


# What the URL says beside the host


@pytest.mark.parametrize(
    ("pair", "sent"),
    [("ann:b%40d%3A", b"ann:b@d:"), ("ann", b"ann:"), ("%C3%A9:p", "é:p".encode())],
)
def test_credentials_are_sent_and_not_told(pair, sent):
    def refuse(count, method, path, headers, body):
        told = headers.get("Authorization", "").removeprefix("Basic ")
        known = base64.b64decode(told) == sent
        return (200, {}, {}) if known else (401, {}, {"error": "who are you?"})

    with answering(refuse) as (url, _):
        with pytest.raises(ServerError, match="401: who are you"):
            Client(url)._json("GET", "/")
        client = Client(url.replace("//", f"//{pair}@"), "m")
        client._json("GET", "/")
        assert client.url == url and pair not in repr(client)


@pytest.mark.parametrize("query", ["?key=a%20b", "?a=1&b=2", "?tail/"])
def test_the_query_of_the_url_is_kept(query):
    answer = {"predictions": [row()], "model_version_status": []}
    with answering(lambda *_: (200, {}, answer)) as (url, asked):
        Client(f"{url}/proxy/{query}", "cnn", "stable").predict([b"\xff\xd8"])
        Client(url + query, "cnn").status()
    assert [path for _, path, _, _ in asked] == [
        f"/proxy/v1/models/cnn/labels/stable:predict{query}",
        f"/v1/models/cnn{query}",
    ]


# A version whose classes are in another order


class Reordered:
    """A server of this kind whose version 2 has its classes in another order."""

    classes = {1: ["cat", "dog", "owl"], 2: ["owl", "cat", "dog"]}  # noqa: RUF012

    def __init__(self):
        self.version = 1
        self.listings = 0

    def __call__(self, count, method, path, headers, body):
        classes = self.classes[self.version]
        scores = [{"owl": 0.7, "cat": 0.2, "dog": 0.1}[name] for name in classes]
        best = classes.index("owl")
        if path == "/page/models":
            self.listings += 1
            listed = {"name": "m", "version": self.version, "labels": classes}
            return 200, {}, {"models": [listed]}
        if path == "/v2/health/live":
            return 200, {}, {}
        if path.endswith("/infer"):
            outputs = [
                {"name": "probabilities", "shape": [1, 3], "data": scores},
                {"name": "class_id", "shape": [1], "data": [best]},
                {"name": "label", "shape": [1], "data": ["owl"]},
            ]
            return 200, {}, {"model_version": str(self.version), "outputs": outputs}
        return 200, {}, {"predictions": [row("owl", scores, best)]}


@pytest.mark.parametrize("kind", ["array", "files"])
def test_names_follow_the_version(images, kind):
    server = Reordered()
    ranked = {"owl": 0.7, "cat": 0.2, "dog": 0.1}
    with answering(server) as (url, _):
        client = Client(url, "m")
        asked = images[:1] if kind == "array" else [b"\xff\xd8"]
        for server.version in (1, 1, 2, 2, 1):
            (found,) = client.predict(asked)
            assert found.ranking == pytest.approx(ranked)
            assert list(found.ranking) == list(ranked)
    assert server.listings == (3 if kind == "array" else 5)


def test_names_that_do_not_fit_are_not_told(images):
    """The list is already of the version after the one that answered."""
    server = Reordered()
    with answering(server) as (url, _):
        client = Client(url, "m")
        server.classes = {1: ["cat", "dog", "owl"]}
        listed = {"models": [{"name": "m", "version": 2, "labels": ["owl", "a", "b"]}]}
        client.models = lambda: {"m": listed["models"][0]}
        for asked in (images[:1], [b"\xff\xd8"]):
            (found,) = client.predict(asked)
            assert found.labels is None and next(iter(found.ranking)) == "owl"


# Arguments


def test_wrong_images(tmp_path, images):
    client = Client("http://127.0.0.1:9", "m")  # nobody is asked
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"received float64 \(1, 8, 8, 3\)"):
        client.predict(np.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"one image is images\[None\]"):
        client.predict(images[0])
    with pytest.raises(TypeError, match="received one str: put it in a list"):
        client.predict("photo.jpg")
    with pytest.raises(TypeError, match="received ndarray"):
        client.predict([images[0]])
    with pytest.raises(FileNotFoundError, match="there is no image gone"):
        client.predict(["gone.jpg"])
    with pytest.raises(ValueError, match=r"notes\.txt is neither a JPEG nor a PNG"):
        client.predict([tmp_path / "notes.txt"])
    with pytest.raises(ValueError, match="batch_size is 1 or more"):
        client.predict(images, batch_size=0)
    assert client.predict(images[:0]) == []


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8501", "ftp://host", "http://", "http://h:99999", "", None, 8501]
)
def test_wrong_urls(url):
    with pytest.raises(ValueError, match="named by a URL such as"):
        Client(url)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": float("nan")}, {"retries": -1}], ids=str
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Client("http://127.0.0.1", **options)
