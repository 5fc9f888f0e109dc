"""Around the protocols: limits, time, metrics, logs, failures."""

import asyncio
import gzip
import io
import json
import logging
import subprocess
import sys
import time

import pytest
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from kerascnn.serving import http
from kerascnn.serving.http import Limits, create_app
from kerascnn.serving.http.limits import Bodies, RequestError
from kerascnn.serving.http.metrics import Lines, Once
from kerascnn.serving.http.rest import parse

TOY = "/v1/models/toy:predict"
PIXELS = [[[1], [2]], [[3], [4]]]


@pytest.fixture
def strict(tmp_path, publish):
    """A server whose limits are soon reached."""
    publish(tmp_path / "toy", 1)
    limits = Limits(body=2000, bodies=3000, images=3, timeout=0.3)
    with TestClient(create_app(tmp_path, limits=limits, poll=3600)) as client:
        yield client


def test_large_bodies(strict):
    answer = strict.post(TOY, content=b"[" * 2001)
    assert answer.status_code == 413
    assert "at most 2,000 bytes" in answer.json()["error"]

    def chunks():  # without a declared length
        for _ in range(100):
            yield b"[" * 100

    assert strict.post(TOY, content=chunks()).status_code == 413
    assert strict.app.state.bodies.used == 0


def test_a_compressed_body_that_swells(strict):
    import gzip

    small = gzip.compress(b" " * 1_000_000)
    assert len(small) < 2000
    headers = {"content-encoding": "gzip"}
    assert strict.post(TOY, content=small, headers=headers).status_code == 413


def test_bodies_together(strict):
    strict.app.state.bodies.used = 2999
    answer = strict.post(TOY, json={"instances": [PIXELS]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    strict.app.state.bodies.used = 0


def test_a_lone_large_body_is_no_overload(tmp_path, publish):
    """What one request may have there is room for, whatever all may."""
    publish(tmp_path / "toy", 1)
    limits = Limits(body=400_000, bodies=1000)
    with TestClient(create_app(tmp_path, limits=limits, poll=3600)) as client:
        chunks = (b" " * 50_000 for _ in range(6))
        assert client.post(TOY, content=chunks).status_code == 400  # no JSON


def test_many_images(strict):
    assert strict.post(TOY, json={"instances": [PIXELS] * 3}).status_code == 200
    answer = strict.post(TOY, json={"instances": [PIXELS] * 4})
    assert answer.status_code == 413
    assert "at most 3 images; received 4" in answer.json()["error"]


def test_time_limit(strict):
    request = {"signature_name": "slow", "instances": [200_000]}
    started = time.perf_counter()
    for _ in range(20):  # a machine that does it in time gets more to do
        answer = strict.post(TOY, json=request)
        if answer.status_code != 200:
            break
        request["instances"][0] *= 2
    assert answer.status_code == 504
    assert answer.json() == {"error": "Timed out: no answer within 0.3 seconds"}
    assert time.perf_counter() - started < 60
    assert strict.app.state.bodies.used == 0
    assert strict.app.state.repository.find("toy", None, None).users == 0


def test_metrics(client):
    before = client.get("/metrics").text
    client.post(TOY, json={"instances": [PIXELS] * 5})
    client.post("/v1/models/invented:predict", json={})
    after = client.get("/metrics")
    assert after.headers["content-type"].startswith("text/plain")
    assert client.get("/monitoring/prometheus/metrics").status_code == 200

    def value(text, series):
        lines = [line for line in text.splitlines() if line.startswith(series + " ")]
        return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0

    for series, more in (
        ('kerascnn_requests_total{code="200",model="toy",protocol="v1"}', 1),
        ('kerascnn_images_total{model="toy",protocol="v1"}', 5),
        ('kerascnn_batch_images_sum{model="toy"}', 5),
        ('kerascnn_request_seconds_count{model="toy",protocol="v1"}', 1),
    ):
        assert value(after.text, series) == value(before, series) + more, series
    assert 'kerascnn_version_available{model="cnn",version="1"} 1.0' in after.text
    assert 'kerascnn_queue_images{model="toy",version="1"} 0.0' in after.text
    assert "invented" not in after.text


def test_logs_tell_what_was_done_and_no_contents(client, caplog):
    secret = [[[123], [45]], [[67], [89]]]
    with caplog.at_level(logging.INFO, "kerascnn.serving"):
        client.post(TOY, json={"instances": [secret]})
        client.post(TOY, json={"instances": [[[[123], [45]], [[67], [890]]]]})
        client.post("/v1/models/x%0Ay:predict", json={})
        client.get("/v2/health/ready")
    lines = [Lines().format(record) for record in caplog.records]
    entries = [json.loads(line) for line in lines]
    assert [e["status"] for e in entries] == [200, 400, 404]
    assert entries[0] | {"ms": 0, "time": ""} == {
        "time": "",
        "level": "info",
        "event": "request",
        "method": "POST",
        "path": TOY,
        "status": 200,
        "ms": 0,
        "client": "testclient",
        "protocol": "v1",
        "model": "toy",
        "images": 1,
    }
    assert all("\n" not in line for line in lines)
    assert not any("123" in json.dumps({**e, "time": "", "ms": 0}) for e in entries)


def test_a_failure_is_answered_and_logged(app, client, caplog, monkeypatch):
    def fail(**inputs):
        raise ZeroDivisionError("a bug")

    served = app.state.repository.find("toy", None, None)
    signature = served.batchers["serving_default"].signature
    monkeypatch.setitem(signature.__dict__, "function", fail)
    with caplog.at_level(logging.ERROR, "kerascnn.serving"):
        answer = client.post(TOY, json={"instances": [PIXELS]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; see the server's log"}
    (record,) = caplog.records
    assert "ZeroDivisionError: a bug" in json.loads(Lines().format(record))["traceback"]
    monkeypatch.undo()
    assert client.post(TOY, json={"instances": [PIXELS]}).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [{"versions": 0}, {"poll": 0}, {"labels": {"a b": 1}}, {"labels": {"a": "1"}}],
)
def test_settings_out_of_range(tmp_path, settings):
    with pytest.raises(ValueError, match="received"):
        create_app(tmp_path, **settings)


@pytest.mark.parametrize("field", ["body", "queue", "timeout", "pixels"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True])
def test_limits_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"the limit {field} is a positive number"):
        Limits(**{field: value})


def test_an_empty_folder_is_served_and_not_ready(tmp_path, publish):
    with TestClient(create_app(tmp_path, poll=0.05)) as client:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        publish(tmp_path / "toy", 1)
        for _ in range(600):
            if client.get("/v2/health/ready").status_code == 200:
                break
            time.sleep(0.1)
        answer = client.post(TOY, json={"instances": [PIXELS]})
        assert answer.json() == {"predictions": [2.5]}


def test_face():
    assert {http.create_app.__name__, http.Limits.__name__, http.serve.__name__} == {
        "create_app",
        "Limits",
        "serve",
    }
    with pytest.raises(AttributeError, match="no attribute 'sreve'"):
        _ = http.sreve


def test_the_package_is_light_and_names_its_extra():
    script = """
import sys
sys.modules["starlette"] = None
from kerascnn.serving import http
print({"tensorflow", "keras", "uvicorn"} & set(sys.modules))
try:
    http.create_app
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "set()",
        'the server needs starlette: pip install "kerascnn[serve]"',
    ]


def test_log_lines_go_to_the_stream():
    from kerascnn.serving.http.metrics import log, write_lines

    loggers = [logging.getLogger(name) for name in ("kerascnn.serving", "uvicorn")]
    before = [(x.handlers[:], x.level, x.propagate) for x in loggers]
    stream = io.StringIO()
    try:
        write_lines(stream)
        log("loaded", model="toy", version=1)
    finally:
        for x, (handlers, level, propagate) in zip(loggers, before, strict=True):
            x.handlers[:], x.propagate = handlers, propagate
            x.setLevel(level)
    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["model"]) == ("loaded", "toy")
    assert entry["time"].endswith("Z")


def test_values_are_bounded_and_not_bytes_alone(folder):
    limits = Limits(values=1000)
    shown = "a request in JSON has at most 1,000 values"
    v2 = {"name": "image", "shape": [1, 2, 2, 1], "datatype": "UINT8"}
    with TestClient(create_app(folder, limits=limits, poll=3600)) as client:
        for body in (
            b'{"instances": [' + b"[]," * 999 + b"[]]}",
            b'{"instances": [' + b"1.5," * 1000 + b"1]}",
            b'{"inputs": {"a": [' + b"{}," * 200 + b"1]}}",
        ):
            for answer in (
                client.post(TOY, content=body),
                client.post(
                    TOY,
                    content=gzip.compress(body),
                    headers={"content-encoding": "gzip"},
                ),
            ):
                assert answer.status_code == 413
                assert shown in answer.json()["error"]
        answer = client.post(
            "/v2/models/toy/infer", json={"inputs": [{**v2, "data": [1] * 1001}]}
        )
        assert answer.status_code == 413
        # The lists of integers of the usual form cost little: they are not counted.
        answer = client.post(TOY, json={"instances": [PIXELS] * 500})
        assert answer.json() == {"predictions": [2.5] * 500}
        # And bodies that are read in a thread are read as the others are.
        answer = client.post(
            TOY, content=json.dumps({"instances": [PIXELS]}) + " " * 9**5
        )
        assert answer.json() == {"predictions": [2.5]}


@pytest.mark.parametrize("end", ["the time limit", "the client", "the process"])
def test_what_takes_too_long_to_read_is_ended(end):
    """In a process of its own, while the event loop goes on; the next is read."""

    async def scenario():
        bodies = Bodies(Limits(timeout=0.5 if end == "the time limit" else 60))
        request = FakeRequest(leave_after=0.5 if end == "the client" else 60)
        expected = {"the client": ClientDisconnect}.get(end, RequestError)
        started = time.monotonic()
        if end == "the process":
            killing = asyncio.get_running_loop().call_later
            killing(5, lambda: bodies.reader.kill())
        with pytest.raises(expected) as raised:
            async with bodies.read(request):
                await bodies.work(10**6, time.sleep, 50)
        assert time.monotonic() - started < 30
        status = {"the time limit": 504, "the process": 503}.get(end)
        assert getattr(raised.value, "status", None) == status
        assert await bodies.work(10**6, divmod, 7, 2) == (3, 1)
        with pytest.raises(RequestError, match="Is not object") as raised:
            await bodies.work(10**6, parse, b"[1]", Limits())
        assert raised.value.status == 400
        bodies.close()

    asyncio.run(scenario())


class FakeRequest:
    def __init__(self, leave_after):
        self.headers = {}
        self.leave_after = leave_after

    async def stream(self):
        yield b"text"

    async def receive(self):
        await asyncio.sleep(self.leave_after)
        return {"type": "http.disconnect"}


def test_a_client_that_leaves_is_worked_for_no_longer(app, client):
    """By hand: a request whose client leaves while another one is computed."""
    batcher = app.state.repository.find("toy", None, None).batchers["slow"]
    told = []

    async def leave(app, seconds=60):
        body = json.dumps({"signature_name": "slow", "instances": [3]}).encode()
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            if messages:
                return messages.pop()
            while not batcher.waiting:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message):
            told.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": TOY,
            "raw_path": TOY.encode(),
            "query_string": b"",
            "headers": [],
        }
        batcher.running = True  # as while a batch is computed
        try:
            await asyncio.wait_for(app(scope, receive, send), seconds)
        finally:
            batcher.running = False
        assert batcher.waiting == 0 and not batcher.jobs

    client.portal.call(leave, app)
    assert told == []


def test_pages_of_other_origins_ask_where_they_may(folder):
    headers = {"origin": "https://example.org"}
    ask = {**headers, "access-control-request-method": "POST"}
    for cors, allowed in ((None, None), (["https://example.org"], headers["origin"])):
        with TestClient(create_app(folder, cors=cors, poll=3600)) as client:
            answer = client.post(TOY, json={"instances": [PIXELS]}, headers=headers)
            assert answer.json() == {"predictions": [2.5]}
            assert answer.headers.get("access-control-allow-origin") == allowed
            answer = client.options(TOY, headers=ask)
            assert (answer.status_code == 200) is (cors is not None)


def test_the_log_of_requests_is_bounded(tmp_path, caplog, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("kerascnn.serving.http.app.time.monotonic", lambda: clock[0])
    app = create_app(tmp_path, access_log=None)
    client = TestClient(app)  # without its lifespan: nothing is loaded
    with caplog.at_level(logging.INFO, "kerascnn.serving"):
        for _ in range(50):
            client.get("/v2")
        assert len(caplog.records) == 20
        clock[0] += 1
        client.get("/v2")
    assert caplog.records[-1].fields["unlogged"] == 30


def test_what_repeats_is_one_line():
    once, made = Once(), []
    for second in (0, 0.1, 5, 11, 12):
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "bad", (), None)
        record.created = 1000 + second
        if once.filter(record):
            made.append(getattr(record, "fields", {}))
    assert made == [{}, {"repeated": 2}]
    other = logging.LogRecord("x", logging.ERROR, "f", 1, "worse", (), None)
    assert once.filter(other)


def test_small_bodies_are_read_before_large_ones():
    """One that is large waits for nobody but the one that is read."""

    async def scenario():
        bodies = Bodies(Limits())
        done = []

        async def ask(size):
            await bodies.work(size, abs, size)
            done.append(size)

        sizes = [10**6, 8 * 10**6, 9 * 10**6, 2 * 10**5, 10**5]
        tasks = [asyncio.ensure_future(ask(size)) for size in sizes]
        await asyncio.sleep(0)
        tasks[2].cancel()  # it waits; nobody waits for it
        await asyncio.gather(*tasks, return_exceptions=True)
        bodies.close()
        return done

    assert asyncio.run(scenario()) == [10**6, 10**5, 2 * 10**5, 8 * 10**6]
