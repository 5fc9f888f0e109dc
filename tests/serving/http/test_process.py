"""The command itself: its port, its signals, versions that change under load."""

import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

PIXELS = [[[1], [2]], [[3], [4]]]
START = 120  # seconds; a machine may be busy


@contextlib.contextmanager
def serving(folder, log, *options):
    """Start `kerascnn serve` on a free port; yield the process and its address.

    Its log goes to a file: a pipe that nobody reads is full after some hundred
    requests, and the server would wait for ever to write the next line.
    """
    command = [sys.executable, "-m", "kerascnn", "serve", str(folder), "--port", "0"]
    # As in a user's shell: JAX, where another test imports it, sets the level to 1.
    own = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with log.open("w") as lines:
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            stderr=lines,
            text=True,
            env=own,
        )
    alarm = threading.Timer(START, process.kill)
    alarm.start()
    try:
        for line in process.stdout:
            if found := re.search(r"serving at (http://127\.0\.0\.1:\d+)$", line):
                break
        else:
            pytest.fail(f"the server ended: {log.read_text()}")
        alarm.cancel()
        yield process, found[1]
    finally:
        alarm.cancel()
        process.kill()
        process.communicate()


def post(url, document):
    request = urllib.request.Request(url, json.dumps(document).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_versions_change_under_load_and_sigterm_loses_nothing(tmp_path, publish):
    folder, log = tmp_path / "toy", tmp_path / "log"
    publish(folder, 1)
    with serving(folder, log, "--poll", "0.2") as (process, url):
        predict = f"{url}/v1/models/toy:predict"
        if shutil.which("curl"):
            body = json.dumps({"instances": [PIXELS]})
            done = subprocess.run(
                ["curl", "-s", "-d", body, "-X", "POST", predict],
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(done.stdout) == {"predictions": [2.5]}

        answers, failures, stop = [], [], threading.Event()

        def load():
            while not stop.is_set():
                try:
                    answer = post(predict, {"instances": [PIXELS]})
                    answers.append(answer["predictions"][0])
                except (OSError, ValueError) as error:
                    failures.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number, value in ((2, 5.0), (3, 7.5)):
            publish(folder, number)
            deadline = time.monotonic() + START
            while value not in answers and time.monotonic() < deadline:
                time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        # In the order of the versions, up to the answers of two threads.
        assert set(answers) == {2.5, 5.0, 7.5}

        # SIGTERM while a request is computed: it is answered, the next is not taken.
        slow = {"signature_name": "slow", "instances": [1000]}
        seconds = 0.0
        while seconds < 1.0:
            slow["instances"][0] *= 4
            started = time.perf_counter()
            post(predict, slow)
            seconds = time.perf_counter() - started
        kept = []
        thread = threading.Thread(target=lambda: kept.append(post(predict, slow)))
        thread.start()
        time.sleep(seconds / 4)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert kept == [{"predictions": slow["instances"]}]
        assert process.wait(30) == 0
        with pytest.raises(urllib.error.URLError):
            post(predict, {"instances": [PIXELS]})
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("loaded") == 3
    assert kinds.count("unloaded") == 2
    assert kinds[-1] == "stopped"
    statuses = {event["status"] for event in events if event["event"] == "request"}
    assert statuses == {200}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/no"], "is not a folder; give the one that holds the versions"),
        (["{folder}/toy/1"], "is one version of a model; give the folder above it"),
        (["{folder}", "--label", "stable"], "--label takes key=value; received"),
        (["{folder}", "--label", "a=b"], "--label takes stable=2; received a=b"),
        (["{folder}", "--timeout", "0"], "the limit timeout is a positive number"),
    ],
)
def test_wrong_use(tmp_path, publish, arguments, message, capsys, monkeypatch):
    from kerascnn import cli

    publish(tmp_path / "toy", 1)
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["kerascnn", "serve", *arguments])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(tmp_path, capsys, monkeypatch):
    from kerascnn import cli

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["kerascnn", "serve", str(tmp_path), "--port", port]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as raised:
            cli.main()
    assert raised.value.code == 1
    error = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1 port {port}" in error
    assert "choose another --port" in error


@pytest.mark.parametrize("unused", ["keras", "jax", "scipy", "h5py"])
def test_what_a_server_does_not_need_stays_out(tmp_path, unused):
    """What `import tensorflow` would import is kept out, and only meanwhile."""
    for name, text in {
        "tensorflow": f"try:\n import {unused}\nexcept ModuleNotFoundError:\n pass",
        unused: "",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    script = f"""
import sys
from kerascnn.serving.http.saved_model import tensorflow
tensorflow()
print({unused!r} in sys.modules)
import {unused}
print({unused}.__file__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["False", str(tmp_path / f"{unused}.py")]


def test_other_machines_are_let_in_only_when_asked():
    from kerascnn.cli.server import serve as command
    from kerascnn.serving.http import serve

    for function in (serve, command):
        assert inspect.signature(function).parameters["host"].default == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replicas", "2"], "--replicas needs --ray"),
        (["--ray", "--stop-delay", "3"], "--stop-delay is not for --ray"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message, capsys, monkeypatch):
    from kerascnn import cli

    monkeypatch.setattr(sys, "argv", ["kerascnn", "serve", str(tmp_path), *options])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_replicas_are_passed_to_ray(tmp_path, monkeypatch):
    from kerascnn import cli
    from kerascnn.serving.http import Limits

    calls = []

    def pretend(*arguments, **settings):
        calls.append((arguments, settings))

    monkeypatch.setattr("kerascnn.serving.ray_serve.serve_on_ray", pretend)
    options = ["--ray", "--replicas", "2", "--port", "9000", "--label", "stable=3"]
    monkeypatch.setattr(sys, "argv", ["kerascnn", "serve", str(tmp_path), *options])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    assert raised.value.code == 0
    ((arguments, settings),) = calls
    assert arguments == (tmp_path, 2, "127.0.0.1", 9000)
    assert settings["limits"] == Limits()
    assert settings["labels"] == {"stable": 3}


class Connection:
    """What uvicorn's protocol is, as far as `_bounded` needs it."""

    def __init__(self, connections):
        self.connections = connections
        self.cycle = self.timeout_keep_alive_task = self.transport = None

    def connection_made(self, transport):
        self.connections.append(self)
        self.transport = transport


class Transport:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True

    abort = close


class Cycle:
    def __init__(self, response_complete):
        self.response_complete = response_complete


def test_connections_that_only_wait_are_closed(monkeypatch):
    from kerascnn.serving.http import server

    clock, all_of_them = [0.0], []
    monkeypatch.setattr(server.time, "monotonic", lambda: clock[0])
    kind = server._bounded(Connection, 3)

    def connect(cycle=None, resting=None):
        connection = kind(all_of_them)
        connection.connection_made(Transport())
        connection.cycle, connection.timeout_keep_alive_task = cycle, resting
        clock[0] += 1
        return connection

    silent = connect()
    busy = connect(Cycle(response_complete=False))
    resting = connect(Cycle(response_complete=True), resting="uvicorn's own timer")
    connect(Cycle(response_complete=False))  # one too many: the oldest makes room
    assert silent.transport.closed
    assert not busy.transport.closed
    assert not resting.transport.closed

    all_of_them.clear()
    slow = connect()
    for _ in range(3 * server.HEADERS):
        clock[0] += 1
        for connection in (slow, busy, resting):
            connection.check()
    assert slow.transport.closed
    assert not busy.transport.closed
    assert not resting.transport.closed
    resting.timeout_keep_alive_task = None  # the next request has begun
    resting.check()
    assert not resting.transport.closed

    all_of_them.clear()
    for _ in range(3):
        connect(Cycle(response_complete=False))
    assert connect().transport.closed  # all others are being answered


@pytest.mark.parametrize("kind", ["httptools", "h11"])
@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",  # a path without end
        b"GET / HTTP/1.1\r\nHost: x\r\nLong: ",
        b"POST /v1/models/a:predict HTTP/1.1\r\nHost: x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nTrailer: ",
    ],
)
def test_a_head_without_end_is_refused(tmp_path, kind, begin):
    """What is no body is bounded in bytes too, and others are answered meanwhile."""
    import uvicorn

    from kerascnn.serving.http import create_app, server

    module = pytest.importorskip(f"uvicorn.protocols.http.{kind}_impl")
    name = {"httptools": "HttpToolsProtocol", "h11": "H11Protocol"}[kind]
    protocol = server._bounded(getattr(module, name), 10)
    config = uvicorn.Config(create_app(tmp_path), http=protocol, log_level="error")
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {"sockets": [listener]}
        thread = threading.Thread(target=running.run, kwargs=options, daemon=True)
        thread.start()
        sent = 0
        with socket.create_connection(listener.getsockname(), 10) as client:
            client.sendall(begin)
            with contextlib.suppress(ConnectionError):
                while sent < 2**26:
                    sent += client.send(b"x" * 2**14)
        assert sent < 2**25  # with what the system holds on its way
        running.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
