"""Processes that are killed at any moment leave whole versions or none."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerascnn import serving
from kerascnn.serving.publish import changes, published, read_manifest

ROOT = Path(serving.__file__).parents[2]

# Publishes, goes back and removes, without a network: a round takes milliseconds.
KEEPER = """
import os, sys
from pathlib import Path
from kerascnn.serving import prune, rollback
from kerascnn.serving.publish import publish, staging

folder, parent = Path(sys.argv[1]), os.getppid()
print("ready", flush=True)
while os.getppid() == parent:  # else the tests were killed themselves
    with staging(folder) as staged:
        for part in range(20):
            (staged / f"{part}.data").write_bytes(bytes([part]) * 2000)
        (staged / "saved_model.pb").write_bytes(b"graph" * 1000)
        publish(staged, folder, {"model": "tiny", "format": "savedmodel"})
    if len(list(folder.glob("[0-9]*"))) > 2:
        rollback(folder)
        prune(folder, 3)
"""

# Forks before TensorFlow starts its threads, so that it is imported once for all.
EXPORTER = """
import os, random, signal, sys, time
from pathlib import Path
import keras
from kerascnn import serving
import kerascnn.serving.exporting, kerascnn.serving.verification
import kerascnn.serving.savedmodel

folder, times = Path(sys.argv[1]), int(sys.argv[2])
moments, parent = random.Random(0), os.getpid()


def network():
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(flat))


def timed():
    # Seconds that an export takes here, in a process of its own.
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        serving.export(network(), folder, images=2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return time.perf_counter() - start


longest = 2 * timed()
for number in range(times):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        model = network()
        os.write(write, b"x")
        while os.getppid() == parent:
            serving.export(model, folder, images=2)
        os._exit(0)
    os.close(write)
    os.read(read, 1)
    time.sleep(moments.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    print("killed", flush=True)
serving.export(network(), folder, images=2)
"""


def whole(folder):
    """Check every version that is there; return how many there are."""
    numbers = published(folder)
    for number in numbers:
        version = folder / str(number)
        told = read_manifest(version)
        assert told is not None, version
        assert changes(version, told) == [], version
    return len(numbers)


def left(folder):
    return [path.name for path in folder.iterdir() if not path.name.isdigit()]


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("seed", range(8))
def test_keeping_that_is_killed(tmp_path, seed):
    process = start(KEEPER, tmp_path)
    with process:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        while not published(tmp_path):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        time.sleep(random.Random(seed).uniform(0.02, 0.4))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert whole(tmp_path) >= 1
    # What the killed one left is removed by the next.
    with serving.publish.staging(tmp_path) as staged:
        assert sorted(left(tmp_path)) == [staged.name, f"{staged.name}.lock"]
    assert left(tmp_path) == []


def export_and_kill(folder, times):
    process = start(EXPORTER, folder, times)
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-2000:]
    assert output.split() == ["killed"] * times
    assert whole(folder) >= 1
    assert left(folder) == []
    return whole(folder)


@pytest.mark.slow
def test_exports_that_are_killed(tmp_path):
    export_and_kill(tmp_path, 2)


@pytest.mark.slow
def test_many_exports_that_are_killed(tmp_path):
    assert export_and_kill(tmp_path, 60) > 20
