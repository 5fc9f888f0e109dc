"""The server on Ray Serve, with two replicas on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from kerascnn.serving import ray_serve
from kerascnn.serving.client import Client


@pytest.fixture
def ray():
    return pytest.importorskip("ray", reason="replicas need kerascnn[ray]")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def folder(version, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(version, folder / "lecture_cnn" / "1")
    return folder


@pytest.fixture(scope="module")
def cluster():
    """The port of Ray's proxy, which is one for all applications."""
    pytest.importorskip("ray", reason="replicas need kerascnn[ray]")
    yield free_port()
    ray_serve.stop_on_ray()


@pytest.fixture
def two(folder, cluster):
    """A server of two replicas, new for each test."""
    return ray_serve.start_on_ray(folder, 2, port=cluster)


def running(ray):
    """The names of the replicas that run, as Ray knows them."""
    from ray import serve

    overview = serve.status().applications[ray_serve.NAME].deployments["server"]
    actors = ray.util.list_named_actors(all_namespaces=True)
    names = {a["name"] for a in actors if a["name"].startswith("SERVE_REPLICA")}
    return overview.replica_states.get("RUNNING", 0), names


class Load:
    """Clients that ask without pause, while the context is open."""

    def __init__(self, url, images, expected, clients=4):
        self.url, self.images, self.expected = url, images, expected
        self.found, self.errors = Counter(), []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]

    def ask(self):
        with Client(self.url, "lecture_cnn", retries=0) as client:
            while not self.stop.is_set():
                try:
                    answers = client.predict(self.images)
                except Exception as error:
                    self.errors.append(repr(error))
                else:
                    self.found[[a.label for a in answers] == self.expected] += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)


@pytest.fixture(scope="module")
def expected(version, images):
    from kerascnn.serving import open_version

    return open_version(version).ask(images)


def test_two_replicas_answer_as_one_server(ray, two, images, expected, tmp_path):
    from PIL import Image

    count, names = running(ray)
    assert count == len(names) == 2
    with Client(two) as client:
        found = client.predict(images)
        given = np.array([p.probabilities for p in found])
        np.testing.assert_allclose(given, expected["probabilities"], atol=1e-6)
        Image.fromarray(images[0]).save(tmp_path / "0.png")
        (file,) = client.predict([tmp_path / "0.png"])
        assert file.label == expected["label"][0]
        assert client.status() == {1: "AVAILABLE"}
        assert list(client.models()) == ["lecture_cnn"]
        # What the replicas count is what was asked, and each has its part.
        before = counted(client)
        with Load(two, images[:2], expected["label"][:2]) as load:
            time.sleep(3)
        assert load.errors == [] and set(load.found) == {True}
        after = counted(client)
        assert sum(after) - sum(before) == load.found[True]
        assert len(after) == 2 and min(after) > 5


def counted(client):
    """The requests of version 2 that each replica has answered, from its /metrics."""
    seen = set()
    for _ in range(40):
        _, text = client._connection.request("GET", "/metrics")
        lines = text.decode().splitlines()
        values = [
            float(line.rpartition(" ")[2])
            for line in lines
            if "requests_total" in line and '"v2"' in line and 'model="lecture' in line
        ]
        seen.add(sum(values))
    return seen


@pytest.mark.slow
def test_replacing_replicas_loses_no_request(
    ray, two, folder, cluster, images, expected
):
    _, before = running(ray)
    with Load(two, images[:2], expected["label"][:2]) as load:
        time.sleep(2)
        ray_serve.start_on_ray(folder, 2, port=cluster)  # both are replaced
        ray_serve.start_on_ray(folder, 1, port=cluster)  # and one ends
        time.sleep(2)
    count, after = running(ray)
    assert count == 1 and not before & after
    assert load.errors == []
    assert load.found[True] > 100 and not load.found[False]


@pytest.mark.slow
def test_a_killed_replica_is_replaced(ray, two, images, expected):
    _, before = running(ray)
    with Load(two, images[:2], expected["label"][:2]) as load:
        time.sleep(1)
        victim = ray.get_actor(min(before), namespace="serve")
        ray.kill(victim, no_restart=True)
        for _ in range(120):
            time.sleep(1)
            count, names = running(ray)
            if count == len(names) == 2 and min(before) not in names:
                break
        done = load.found[True]
        time.sleep(2)
        assert load.found[True] > done
    assert count == 2 and len(names - before) == 1
    # At most what the killed one had in hand: a request of each client.
    assert len(load.errors) <= 4 and all("500" in error for error in load.errors)
    assert not load.found[False]


@pytest.mark.slow
def test_a_new_version_reaches_all_replicas(two, folder, version, images, expected):
    staged = folder / "lecture_cnn" / ".staging"
    shutil.copytree(version, staged)
    with Load(two, images[:2], expected["label"][:2]) as load:
        staged.rename(folder / "lecture_cnn" / "2")
        with Client(two) as client:
            for _ in range(60):
                time.sleep(0.5)
                seen = {client.models()["lecture_cnn"]["version"] for _ in range(20)}
                if seen == {2}:
                    break
    shutil.rmtree(folder / "lecture_cnn" / "2")
    assert seen == {2}
    assert load.errors == [] and not load.found[False]


@pytest.mark.slow
def test_replicas_are_added_under_load(
    ray, folder, cluster, images, expected, monkeypatch
):
    ray_serve.start_on_ray(folder, 1, port=cluster)
    monkeypatch.setattr(ray_serve, "TARGET", 2)
    url = ray_serve.start_on_ray(folder, 1, port=cluster, most=2)
    assert running(ray)[0] == 1
    with Load(url, images, expected["label"], clients=12) as load:
        for _ in range(120):
            time.sleep(1)
            if running(ray)[0] == 2:
                break
    assert running(ray)[0] == 2
    assert load.errors == [] and not load.found[False]


@pytest.mark.slow
def test_sigterm_ends_it(ray, folder, images, tmp_path):
    script = (
        "import sys; from kerascnn.serving.ray_serve import serve_on_ray; "
        f"serve_on_ray({str(folder)!r}, 1, port={free_port()}, "
        "announce=lambda url: print(url, flush=True))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    running = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    try:
        for line in running.stdout:
            if line.startswith("http"):
                break
        else:
            pytest.fail("the server ended before it announced itself")
        assert len(Client(line.strip()).predict(images[:3])) == 3
        running.send_signal(signal.SIGTERM)
        assert running.wait(90) == 0
    finally:
        running.kill()
        running.stdout.close()


# Without Ray


def test_without_ray_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    for function in (
        ray_serve.application,
        ray_serve.start_on_ray,
        ray_serve.serve_on_ray,
    ):
        with pytest.raises(
            ModuleNotFoundError, match=r'needs ray: pip install "kerascnn\[ray\]"'
        ):
            function(tmp_path)


def test_the_arguments_of_rays_command(monkeypatch):
    asked = {}
    monkeypatch.setattr(ray_serve, "application", lambda **given: asked.update(given))
    ray_serve.build({"folder": "served", "replicas": "2", "most": "8", "cpus": "0.5"})
    assert asked == {"folder": "served", "replicas": 2, "most": 8, "cpus": 0.5}
    for wrong in ({}, {"replicas": "2"}, {"folder": "served", "port": "1"}):
        with pytest.raises(ValueError, match="name the folder, and nothing but"):
            ray_serve.build(wrong)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"replicas": 0}, ValueError, "replicas is 1 or more; received 0"),
        ({"replicas": 3, "most": 2}, ValueError, "which is 3; received 2"),
        ({"versions": 0}, ValueError, "versions is 1 or more"),
        ({"folder": "gone"}, FileNotFoundError, "gone"),
    ],
)
def test_what_is_wrong_shows_before_anything_starts(
    ray, tmp_path, options, error, match
):
    options = {"folder": tmp_path, **options}
    with pytest.raises(error, match=match):
        ray_serve.application(**options)
