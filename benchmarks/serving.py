"""What the server costs: its latency and throughput beside the SavedModel itself.

    python benchmarks/serving.py [served/lecture_cnn]

starts `kerascnn serve` on this machine, calls the same version directly, and writes a
table: median and 99th percentile of the latency, images a second, and those as a share
of what the same signature does in batches of the server's size. Direct calls and
requests take turns, --rounds times, so that a machine that is busy otherwise slows both
alike.
Requests go over the loopback interface only, for --seconds a line and round.

The load comes from wrk (github.com/wg/wrk, `apt install wrk`), which costs little
beside the server; without it, from threads of this process, which share its cores.
"""

import argparse
import base64
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import write

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 128  # the server's default
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}


def percentile(seconds: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)]


@dataclass
class Round:
    """What one round measured: seconds, and numbers of requests."""

    p50: float
    p99: float
    requests: int
    wall: float
    failed: int = 0

    @classmethod
    def of(cls, seconds: list[float], wall: float, failed: int = 0) -> "Round":
        """Summarize the latencies of single requests."""
        p50, p99 = statistics.median(seconds), percentile(seconds, 0.99)
        return cls(p50, p99, len(seconds), wall, failed)


@dataclass
class Line:
    """What was measured of one way to ask, over all rounds."""

    what: str
    images: int
    clients: int
    rounds: list[Round] = field(default_factory=list)

    def row(self) -> dict:
        """Return the medians over the rounds."""

        def median(of):
            return statistics.median(of(r) for r in self.rounds)

        return {
            "what": self.what,
            "images": self.images,
            "clients": self.clients,
            "requests": sum(r.requests for r in self.rounds),
            "p50_ms": round(1000 * median(lambda r: r.p50), 2),
            "p99_ms": round(1000 * median(lambda r: r.p99), 2),
            "images_per_second": round(
                self.images * median(lambda r: r.requests / r.wall), 1
            ),
            "failed": sum(r.failed for r in self.rounds),
        }


def directly(signature, x: np.ndarray, limit: float) -> Round:
    """Call the SavedModel in this process, one batch after the other."""
    (name,) = signature.inputs
    for _ in range(3):
        signature.run({name: x})
    seconds, begin = [], time.perf_counter()
    while time.perf_counter() - begin < limit:
        start = time.perf_counter()
        signature.run({name: x})
        seconds.append(time.perf_counter() - start)
    return Round.of(seconds, time.perf_counter() - begin)


@dataclass
class Question:
    """A request: where it goes, what it holds."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def wire(self) -> bytes:
        """The request as it goes over the wire."""
        headers = {"Host": "localhost", **self.headers}
        headers["Content-Length"] = str(len(self.body))
        lines = [f"POST {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


def png_files(x: np.ndarray) -> np.ndarray:
    """Return images as PNG files, an array of bytes."""
    import io

    from PIL import Image

    files = np.empty(len(x), object)
    for number, image in enumerate(x):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files[number] = file.getvalue()
    return files


def requests_of(model: str, x: np.ndarray) -> dict[str, Question]:
    """Return a request for images in each of the forms that are compared."""
    rest, oip = f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"
    rows = json.dumps({"instances": x.tolist()}).encode()
    head = {
        "name": "image",
        "shape": list(x.shape),
        "datatype": "UINT8",
        "parameters": {"binary_data_size": x.nbytes},
    }
    text = json.dumps({"inputs": [head]}).encode()
    header = {"Inference-Header-Content-Length": str(len(text))}
    files = [{"b64": base64.b64encode(file).decode()} for file in png_files(x)]
    encoded = {"signature_name": "serve_bytes", "instances": files}
    return {
        "v2 binary": Question(oip, text + x.tobytes(), header),
        "v1 JSON": Question(rest, rows),
        "v1 PNG": Question(rest, json.dumps(encoded).encode()),
    }


def client(port: int, request: bytes, stop, seconds: list[float], failed: list) -> None:
    """Send one request after the other over one connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not stop():
            start = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(1 << 16)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            while len(body) < length:
                body += connection.recv(1 << 16)
            seconds.append(time.perf_counter() - start)
            if b" 200 " not in head.split(b"\r\n")[0]:
                failed.append(body[:200])


def by_threads(clients: int, port: int, question: Question, limit: float) -> Round:
    """Let threads of this process send the same request, and measure."""
    seconds, failed = [], []
    for most in (0.2, limit):  # the first requests warm up
        seconds.clear()
        begin = time.perf_counter()

        def stop(most=most, begin=begin):
            return time.perf_counter() - begin > most

        threads = [
            threading.Thread(
                target=client, args=(port, question.wire, stop, seconds, failed)
            )
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return Round.of(seconds, time.perf_counter() - begin, len(failed))


def by_wrk(clients: int, port: int, question: Question, limit: float) -> Round:
    """Let wrk send the same request, and read what it measured."""
    with tempfile.TemporaryDirectory() as scratch:
        body, script = Path(scratch) / "body", Path(scratch) / "ask.lua"
        body.write_bytes(question.body)
        headers = "".join(
            f'wrk.headers["{name}"] = "{value}"\n'
            for name, value in question.headers.items()
        )
        script.write_text(
            f'wrk.method = "POST"\n{headers}'
            f'local file = io.open("{body}", "rb")\nwrk.body = file:read("*a")\n'
        )
        address = f"http://127.0.0.1:{port}{question.path}"
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(round(limit), 1)}s"]
        command += ["--timeout", "60s", "--latency", "-s", str(script), address]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
    return read_wrk(told.stdout)


def read_wrk(text: str) -> Round:
    """Read the report of `wrk --latency`."""

    def seconds(pattern):
        number, unit = re.search(pattern + r"\s+([\d.]+)(us|ms|s|m)\b", text).groups()
        return float(number) * UNITS[unit]

    requests = int(re.search(r"(\d+) requests in", text)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"errors: connect (\d+), read (\d+), write (\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    wall = seconds("requests in")
    return Round(seconds("50%"), seconds("99%"), requests, wall, failed)


def start(folder: Path) -> tuple[subprocess.Popen, int]:
    """Start the server on a free port; return when it answers."""
    command = [sys.executable, "-m", "kerascnn", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--no-access-log"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if found := re.search(r"serving at http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise RuntimeError(f"the server ended with exit code {process.wait()}")


def measure(folder: Path, limit: float, clients: list[int], rounds: int) -> list[dict]:
    """Measure everything, `rounds` times in turns; return the rows of the table."""
    from kerascnn.serving.http import Limits
    from kerascnn.serving.http.saved_model import load

    numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    signatures = load(folder / str(max(numbers)), 1).signatures
    shape = signatures["serving_default"].inputs["image"].shape[1:]
    x = np.random.default_rng(0).integers(0, 256, (BATCH, *shape), np.uint8)
    bodies = {n: requests_of(folder.resolve().name, x[:n]) for n in (1, 32, BATCH)}
    direct = {
        "SavedModel": (signatures["serving_default"], x),
        "SavedModel, PNG": (signatures["serve_bytes"], png_files(x)),
    }
    lines = [Line(what, images, 1) for what in direct for images in (1, BATCH)]
    for images, forms in bodies.items():
        # With more clients, more would wait than the queue takes, and be refused.
        fitting = [c for c in clients if c * images <= Limits().queue] or [1]
        if images > 1:
            fitting = sorted({fitting[0], fitting[-1]})
        lines += [Line(form, images, c) for form in forms for c in fitting]
    ask = by_wrk if shutil.which("wrk") else by_threads
    process, port = start(folder)
    try:
        for _ in range(rounds):
            for line in lines:
                if line.what in direct:
                    signature, inputs = direct[line.what]
                    measured = directly(signature, inputs[: line.images], limit)
                else:
                    question = bodies[line.images][line.what]
                    measured = ask(line.clients, port, question, limit)
                line.rounds.append(measured)
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        raise RuntimeError(f"the server ended with exit code {code}")
    rows = [line.row() for line in lines]
    best = {
        "PNG" in r["what"]: r["images_per_second"]
        for r in rows
        if r["what"] in direct and r["images"] == BATCH
    }
    for r in rows:
        r["share"] = round(r["images_per_second"] / best["PNG" in r["what"]], 2)
    return rows


def table(rows: list[dict]) -> list[dict]:
    """Return the rows with the names of the columns."""
    return [
        {
            "through": r["what"],
            "images": r["images"],
            "clients": r["clients"],
            "p50 ms": r["p50_ms"],
            "p99 ms": r["p99_ms"],
            "images/s": f"{r['images_per_second']:,.0f}",
            "share": f"{r['share']:.2f}",
            "failed": r["failed"],
        }
        for r in rows
    ]


def main() -> None:
    """Measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="versions of one model; default: an export of lecture_cnn",
    )
    parser.add_argument("--seconds", type=float, default=2, help="a line and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--name", default="serving", help="of the result's files")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder
        if folder is None:
            from kerascnn import export

            folder = Path(scratch) / "lecture_cnn"
            export("lecture_cnn", folder)
        rows = measure(folder, chosen.seconds, chosen.clients, chosen.rounds)
    load = "wrk" if shutil.which("wrk") else "threads of the benchmark"
    heading = f"`{folder.name}`: load by {load}; share of the same signature's best"
    write(
        chosen.name, "The server", [(heading, table(rows))], {"rows": rows, "by": load}
    )


if __name__ == "__main__":
    main()
