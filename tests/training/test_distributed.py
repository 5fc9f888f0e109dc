"""Several devices and several hosts come to what one device comes to."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import prepared
import pytest

from kerascnn.training import connect, train
from kerascnn.training.strategy import Place, hosts_of

SCRIPT = Path(__file__).with_name("distributed.py")
CASES = ("odd", "busy", "fewer-than-devices", "odd-batches", "one-batch")


class Two(Place):
    """Two devices, of which nothing is asked but arithmetic."""

    def __init__(self, hosts=1, host=0, weighted=False):
        super().__init__(2 // hosts, hosts, host)
        self.weighted = weighted


@pytest.mark.parametrize("number", [1, 2, 3, 7, 8, 15, 16])
def test_batches_divide_and_tell_what_is_in_them(number):
    place = Two()
    full, size = place.size(16, 16), place.size(number, 16)
    assert full == 16 and size % 2 == 0 and size >= max(number, 2)
    assert (size == full) == (number == 16)
    assert place.sizes(32 + number, 16)[size] == number
    rows = place.rows(number, 16)
    assert rows[:number].tolist() == list(range(number)) and rows.max() < number
    halves = [Two(hosts=2, host=h).rows(number, 16).tolist() for h in (0, 1)]
    assert halves[0] + halves[1] == rows.tolist()
    assert len(halves[0]) == len(halves[1])  # no host without images
    weights = Two(weighted=True).weights(number, 16)
    assert weights.mean() == pytest.approx(1) and (weights > 0).sum() == number


def test_one_device_changes_nothing():
    place = Place()
    assert [place.size(n, 16) for n in (1, 7, 16)] == [1, 7, 16]
    assert place.sizes(23, 16) == {} and place.broadcast(b"same") == b"same"
    assert Two(weighted=True).sizes(23, 16) == {}
    odd = Two()
    assert odd.sizes(40, 15) == {16: 15, 10: 10}
    assert odd.sizes(31, 16) == {16: 16, 18: 15}


def test_addresses_are_checked(data, tmp_path):
    assert hosts_of(" a:1, b:2 ") == ("a:1", "b:2") == hosts_of(["a:1", "b:2"])
    for wrong, match in (("a", "with a port"), ("a:1,a:1", "named twice")):
        with pytest.raises(ValueError, match=match):
            train("linear", data, hosts=wrong, runs=tmp_path)
    with pytest.raises(ValueError, match="needs hosts"):
        train("linear", data, host_id=1, runs=tmp_path)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="set KERAS_BACKEND=jax; received tensor"):
            train("linear", data, hosts="a:1,b:2", runs=tmp_path)
    else:
        with pytest.raises(ValueError, match="from 0 to 1, the place of this machine"):
            connect("a:1,b:2", 2)
    assert list(tmp_path.iterdir()) == []


def start(backend, *arguments, **environment):
    return subprocess.Popen(
        ["nice", sys.executable, str(SCRIPT), *map(str, arguments)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **environment,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, seconds=1800):
    try:
        _, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backend", "cases"),
    [
        ("tensorflow", CASES[:1]),
        ("jax", CASES[1:2]),
        slow("tensorflow", CASES),
        slow("jax", CASES),
    ],
    ids=["tensorflow", "jax", "tensorflow-all", "jax-all"],
)
def test_two_devices_come_to_the_weights_of_one(backend, cases, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    finish(start(backend, "devices", tmp_path, *cases, JAX_NUM_CPU_DEVICES="2"))
    found = json.loads((tmp_path / "devices.json").read_text())
    for case in cases:
        result = found[case]
        assert result["distance"] < 1e-6, case
        assert result["moved"] > 1e-3, case  # it has learnt something
        assert result["again"] == 0 and result["config"] == 2
        np.testing.assert_allclose(*result["val_loss"], rtol=1e-5)
        # What fills a batch up counts in TensorFlow's training loss.
        tolerance = 1e-5 if backend == "jax" else 0.05
        np.testing.assert_allclose(*result["loss"], rtol=tolerance)
    assert found["devices=0"] == "devices must be 1 or more; received 0"
    assert "there are 2 (" in found["devices=3"]
    assert "received devices=3: ask for fewer (" in found["devices=3"]
    assert found["stopped"] and found["resumed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True], ids=["memory", "streamed"])
def test_two_hosts_come_to_the_weights_of_one(streamed, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    folder = tmp_path / "bands" / "1.0.0"
    if streamed:
        splits = {"train": prepared.bands(40), "test": prepared.bands(12)}
        prepared.write(folder, splits, ("a", "b", "c"))
    more = [folder] if streamed else []
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    hosts = ",".join(f"localhost:{s.getsockname()[1]}" for s in sockets)
    for one in sockets:
        one.close()
    both = [start("jax", "host", tmp_path, hosts, i, *more) for i in (0, 1)]
    try:
        for process in both:
            finish(process)
    finally:
        for process in both:
            process.kill()
    first, second = (
        json.loads((tmp_path / f"host{i}.json").read_text()) for i in (0, 1)
    )
    assert first["distance"] < 1e-6
    if streamed:
        assert first["stream"] < 1e-6
        # Batch normalisation divides by what was added up in another order.
        assert first["busy"] < 1e-5
    assert first["resumed"] == 0 and first["finished"] == 0
    for losses in (first["loss"], first["val_loss"]):
        np.testing.assert_allclose(*losses, rtol=1e-5)
    assert first["config"] == [1, 2]
    assert second["nothing"] and first["stopped"] and second["stopped"]
    assert not (tmp_path / "nowhere").exists()
