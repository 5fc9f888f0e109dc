"""What the server costs: its latency and throughput beside the SavedModel itself.

    python benchmarks/serving.py served/lecture_cnn --json result.json

starts `kerascnn serve` on this machine, calls the same version directly, and prints a
table: median and 99th percentile of the latency, images a second, and those as a share
of what the SavedModel does in batches of the server's size. Direct calls and requests
take turns, --rounds times, so that a machine that is busy otherwise slows both alike.
Requests go over the loopback interface only, and end after --requests or --seconds.
"""

import argparse
import base64
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 128  # the server's default


def percentile(seconds: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)]


@dataclass
class Line:
    """What was measured of one way to ask, over all rounds."""

    what: str
    images: int
    clients: int
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    failed: int = 0

    def row(self) -> dict:
        """Summarize the latencies of requests of `images` images each."""
        return {
            "what": self.what,
            "images": self.images,
            "clients": self.clients,
            "requests": len(self.seconds),
            "p50_ms": round(1000 * statistics.median(self.seconds), 2),
            "p99_ms": round(1000 * percentile(self.seconds, 0.99), 2),
            "images_per_second": round(len(self.seconds) * self.images / self.wall, 1),
            "failed": self.failed,
        }


def directly(line: Line, signature, x: np.ndarray, requests: int, limit: float) -> None:
    """Call the SavedModel in this process, one batch after the other."""
    for _ in range(3):
        signature.run({"image": x})
    seconds, begin = [], time.perf_counter()
    while len(seconds) < requests and time.perf_counter() - begin < limit:
        start = time.perf_counter()
        signature.run({"image": x})
        seconds.append(time.perf_counter() - start)
    line.seconds += seconds
    line.wall += time.perf_counter() - begin


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """Return a request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def requests_of(model: str, x: np.ndarray) -> dict[str, bytes]:
    """Return a request for images in each of the forms that are compared."""
    import io

    from PIL import Image

    rest, oip = f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"
    rows = json.dumps({"instances": x.tolist()}).encode()
    head = {
        "name": "image",
        "shape": list(x.shape),
        "datatype": "UINT8",
        "parameters": {"binary_data_size": x.nbytes},
    }
    text = json.dumps({"inputs": [head]}).encode()
    header = f"Inference-Header-Content-Length: {len(text)}\r\n"
    files = []
    for image in x:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append({"b64": base64.b64encode(file.getvalue()).decode()})
    encoded = {"signature_name": "serve_bytes", "instances": files}
    return {
        "v2 binary": post(oip, text + x.tobytes(), header),
        "v1 JSON": post(rest, rows),
        "v1 PNG": post(rest, json.dumps(encoded).encode()),
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


def served(line: Line, port: int, request: bytes, requests: int, limit: float) -> None:
    """Let clients send the same request, and measure."""
    seconds, failed = [], []
    for count in (3, requests):  # the first requests warm up
        seconds.clear()
        begin = time.perf_counter()

        def stop(count=count, begin=begin):
            return len(seconds) >= count or time.perf_counter() - begin > limit

        threads = [
            threading.Thread(target=client, args=(port, request, stop, seconds, failed))
            for _ in range(line.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    line.seconds += seconds
    line.wall += time.perf_counter() - begin
    line.failed += len(failed)


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


def measure(
    folder: Path, requests: int, limit: float, clients: list[int], rounds: int
) -> list[dict]:
    """Measure everything, `rounds` times in turns; return the rows of the table."""
    from kerascnn.serving.http import Limits
    from kerascnn.serving.http.version import load

    numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    signature = load(folder / str(max(numbers)), 1).signatures["serving_default"]
    shape = signature.inputs["image"].shape[1:]
    x = np.random.default_rng(0).integers(0, 256, (BATCH, *shape), np.uint8)
    bodies = {n: requests_of(folder.resolve().name, x[:n]) for n in (1, 32, BATCH)}
    lines = [Line("SavedModel", 1, 1), Line("SavedModel", BATCH, 1)]
    for images, forms in bodies.items():
        # With more clients, more would wait than the queue takes, and be refused.
        fitting = [c for c in clients if c * images <= Limits().queue] or [1]
        if images > 1:
            fitting = sorted({fitting[0], fitting[-1]})
        lines += [Line(form, images, c) for form in forms for c in fitting]
    process, port = start(folder)
    try:
        for _ in range(rounds):
            for line in lines:
                few = max(requests // line.images, 10) // rounds + 1
                if line.what == "SavedModel":
                    directly(line, signature, x[: line.images], few, limit)
                else:
                    body = bodies[line.images][line.what]
                    served(line, port, body, few, limit)
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        raise RuntimeError(f"the server ended with exit code {code}")
    rows = [line.row() for line in lines]
    for r in rows:
        r["share"] = round(r["images_per_second"] / rows[1]["images_per_second"], 2)
    return rows


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| through | images | clients | p50 ms | p99 ms | images/s | share | failed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['what']} | {r['images']} | {r['clients']} | {r['p50_ms']} | "
        f"{r['p99_ms']} | {r['images_per_second']:,} | {r['share']:.2f} | "
        f"{r['failed']} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="versions of one model")
    parser.add_argument("--requests", type=int, default=500, help="of one image each")
    parser.add_argument("--seconds", type=float, default=2, help="a line and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    chosen = parser.parse_args()
    rows = measure(
        chosen.folder, chosen.requests, chosen.seconds, chosen.clients, chosen.rounds
    )
    print(table(rows))
    if chosen.json:
        machine = {"machine": platform.processor(), "cores": os.cpu_count()}
        text = json.dumps({**machine, "rows": rows}, indent=2)
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
