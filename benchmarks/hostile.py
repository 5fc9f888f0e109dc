"""What a hostile client does to the others: 64 with small images beside one attacker.

    python benchmarks/hostile.py                   a minute for each attack: 15 in all
    python benchmarks/hostile.py --seconds 40      11 minutes
    python benchmarks/hostile.py --seconds 10 --only gzip

Starts `kerascnn serve` as it is by default, with lecture_cnn; lets 64 clients ask for
one 32x32 image after another, alone and beside each attack; and ends the server while
100 clients ask. Prints a row for each attack, and at the end what the worst was: "MiB
both" is the most that the server and the process that reads for it held together.
Latencies mean something beside the row "no attack" only: attacker and clients share
the machine with the server. Writes no file.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import io
import itertools
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HOST, PREDICT = "127.0.0.1", "/v1/models/lecture_cnn:predict"
CLIENTS, LAST_CLIENTS, AT_ONCE = 64, 100, 8
ALONE = 20  # seconds at most without an attack


def post(body: bytes, coding: str = "identity") -> bytes:
    """Return a request."""
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: {HOST}\r\nContent-Encoding: {coding}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def files(content: bytes, count: int = 1) -> bytes:
    """Return a request of so many times an image file."""
    text = {"b64": base64.b64encode(content).decode()}
    body = {"signature_name": "serve_bytes", "instances": [text] * count}
    return post(json.dumps(body).encode())


def pngs(count: int, million: float) -> bytes:
    """Return a request of transparent PNG files, of so many million pixels each."""
    file, side = io.BytesIO(), int((million * 1e6) ** 0.5)
    Image.new("RGBA", (side, side)).save(file, "PNG")
    return files(file.getvalue(), count)


def filled(count: int) -> bytes:
    """Return a request of a JPEG file with so many bytes that only fill."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG")
    return files(file.getvalue()[:2] + b"\xff" * count + file.getvalue()[2:])


def packed(item: bytes, count: int) -> bytes:
    """Return a request of a list of equal items, compressed."""
    body = b'{"instances": [' + item * (count - 1)
    return post(gzip.compress(body + item[:-1] + b"]}", 1), "gzip")


def images(count: int) -> bytes:
    """Return a request of so many images."""
    given = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).tolist()
    return post(json.dumps({"instances": given}).encode())


# Requests that are sent in turn, or how many connections do what the name says.
ATTACKS = {
    "gzip of 10 million empty lists": lambda: [packed(b"[],", 10_000_000)],
    "gzip of 440,000 lists, which are read": lambda: [packed(b"[],", 440_000)],
    "gzip of 4 million numbers, which are read": lambda: [
        packed(b"0.1234,", 3_999_000)
    ],
    "1,024 images, which are answered": lambda: [images(1024)],
    "PNG of 24 million pixels, and 100 of 12": lambda: [pngs(1, 24), pngs(100, 12)],
    "a PNG of 12 million pixels, which is read": lambda: [pngs(1, 12)],
    "100 PNG of 0.45 million pixels, which are read": lambda: [pngs(100, 0.45)],
    "a JPEG with 100,000 bytes that only fill": lambda: [filled(100_000)],
    "PNG of 12 million pixels, left at once": lambda: [pngs(4, 12)],
    "500 connections with slow headers": 500,
    "500 connections with slow bodies": 500,
    "2,000 idle connections": 2000,
}


async def ask(reader, writer, request: bytes) -> tuple[int, bool]:
    """Send a request; return the status, and whether the connection stays."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    await reader.readexactly(int(length[1]))
    return int(head.split()[1]), b"connection: close" not in head


async def client(port: int, request: bytes, end, seconds: list, failed: list) -> None:
    """Ask again and again until `end()`; a refused connection ends it too."""
    writer = None
    while not end():
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return
        started = time.perf_counter()
        try:
            status, stays = await asyncio.wait_for(ask(reader, writer, request), 60)
        except (OSError, EOFError, TimeoutError) as error:
            failed.append(type(error).__name__)
            status, stays = 0, False
        if status == 200:
            seconds.append(time.perf_counter() - started)
        elif status:
            failed.append(str(status))
        if not stays:
            writer.close()
            writer = None
    if writer:
        writer.close()


async def hold(name: str, port: int, found: dict) -> None:
    """Keep connections open, and send a byte a second where the name says so."""
    held = []
    while True:
        with contextlib.suppress(OSError):
            while len(held) < ATTACKS[name]:
                reader, writer = await asyncio.open_connection(HOST, port)
                if "bodies" in name:
                    writer.write(post(bytes(1000))[:-1000])
                held.append((reader, writer))
        found["held"] = max(found.get("held", 0), len(held))
        await asyncio.sleep(1)
        for reader, writer in list(held):
            if "slow" in name:
                writer.write(b"X")
            if reader.at_eof() or writer.is_closing():
                writer.close()
                held.remove((reader, writer))


async def attack(name: str, port: int) -> None:
    """Attack until this process is told to end; print what came of it.

    That is the most seconds that a request took, what was answered how often, and of
    connections that are kept the most at once.
    """
    found = {"longest s": 0.0}
    end = asyncio.current_task().cancel
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)

    async def one(requests: list[bytes]) -> None:
        for request in itertools.cycle(requests):
            started, outcome = time.monotonic(), "none"
            try:
                reader, writer = await asyncio.open_connection(HOST, port)
                with contextlib.closing(writer):
                    patience = 0.2 if "left at once" in name else 120
                    asked = ask(reader, writer, request)
                    outcome = str((await asyncio.wait_for(asked, patience))[0])
            except (OSError, EOFError, TimeoutError):
                pass
            finally:  # also of what is not answered when the attack ends
                found[outcome] = found.get(outcome, 0) + 1
                took = round(time.monotonic() - started, 1)
                found["longest s"] = max(found["longest s"], took)

    if isinstance(ATTACKS[name], int):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        tasks = [hold(name, port, found)]
    else:
        requests = ATTACKS[name]()
        tasks = [one(requests) for _ in range(AT_ONCE)]
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    print(json.dumps(found))


def resident(process: int) -> list[float]:
    """Return MiB of a process and of its children, which read (Linux)."""
    own = children = 0.0
    with contextlib.suppress(OSError, IndexError):
        folder = Path(f"/proc/{process}")
        own = int((folder / "statm").read_text().split()[1]) / 256
        for listed in folder.glob("task/*/children"):  # of every thread
            for child in listed.read_text().split():
                # One that has just been forked still shows its parent's memory.
                line = Path(f"/proc/{child}/cmdline").read_bytes()
                if line != (folder / "cmdline").read_bytes():
                    children += sum(resident(int(child)))
    return [own, children]


async def watch(process: int, peak: list) -> None:
    """Keep the largest memory that is seen: of the server, its reader, and both."""
    while True:
        own, children = resident(process)
        now = own, children, own + children
        peak[:] = map(round, map(max, peak, now))
        await asyncio.sleep(0.1)


async def measure(port: int, process: int, name: str, seconds: float) -> dict:
    """Let the clients ask beside an attack; return what they found."""
    attacker = None
    if name in ATTACKS:
        command = [sys.executable, __file__, "--attack", name, "--port", str(port)]
        attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        await asyncio.sleep(5)  # it makes its request, and begins
    request, found, failed, peak = images(1), [], [], [0, 0, 0]
    watching = asyncio.ensure_future(watch(process, peak))
    over = time.monotonic() + seconds

    def end():
        return time.monotonic() > over

    await asyncio.gather(
        *(client(port, request, end, found, failed) for _ in range(CLIENTS))
    )
    watching.cancel()
    attacked = {"longest s": None}
    if attacker:
        attacker.terminate()
        attacked = json.loads(attacker.communicate()[0])
        await asyncio.sleep(2)
    p50, p99 = np.percentile(found or [np.nan], (50, 99))
    return {
        "attack": name,
        "requests/s": round(len(found) / seconds),
        "p50 ms": round(1000 * p50),
        "p99 ms": round(1000 * p99),
        "failed": len(failed),
        "of": " ".join(sorted(set(failed))) or "-",
        "attacker waited s": attacked.pop("longest s"),
        "attacker": attacked,
        "MiB server": peak[0],
        "MiB reader": peak[1],
        "MiB both": peak[2],
    }


async def finish(port: int, process: subprocess.Popen) -> list[str]:
    """End the server while clients ask; return what they did not get."""
    request, found, failed = images(1), [], []
    asking = [
        asyncio.ensure_future(client(port, request, lambda: False, found, failed))
        for _ in range(LAST_CLIENTS)
    ]
    await asyncio.sleep(3)
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    return failed


def main() -> None:
    """Start the server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each attack")
    parser.add_argument("--only", default="", help="part of an attack's name")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.attack:
        return asyncio.run(attack(chosen.attack, chosen.port))
    kerascnn = [sys.executable, "-m", "kerascnn"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        export = [*kerascnn, "export", "lecture_cnn", f"{folder}/lecture_cnn"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL, stderr=log)
        process = subprocess.Popen(
            [*kerascnn, "serve", folder, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            for line in process.stdout:
                if found := re.search(r"serving at http://[\d.]+:(\d+)", line):
                    break
            port = int(found[1])
            start = resident(process.pid)[0]
            print(f"memory at the start: {start:.0f} MiB", flush=True)
            names = ["no attack", *(n for n in ATTACKS if chosen.only in n)]
            rows = []
            for name in [*names, "no attack, again"]:
                alone = min(chosen.seconds, ALONE)
                seconds = chosen.seconds if name in ATTACKS else alone
                rows.append(asyncio.run(measure(port, process.pid, name, seconds)))
                print(json.dumps(rows[-1]), flush=True)
            told = ("p99 ms", "failed", "attacker waited s", "MiB both")
            for key in told:
                worst = max(rows, key=lambda row, key=key: row[key] or 0)
                without = f"; without one {rows[0][key]}, {rows[-1][key]}"
                print(f"{key}: at most {worst[key]} ({worst['attack']}){without}")
            failed = asyncio.run(finish(port, process))
            print(f"SIGTERM under {LAST_CLIENTS} clients: {len(failed)} not answered")
            print(f"exit code {process.wait(60)}, {log.tell():,} bytes of log")
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
