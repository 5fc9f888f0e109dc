import contextlib
import os
import socket
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from zoo.lecture_cnn import lecture_cnn

ANIMALS = [f"animal {number}" for number in range(10)]

if keras.backend.backend() != "tensorflow":
    # What JAX does is tested in a process of its own: test_elsewhere.py.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def network():
    keras.utils.set_random_seed(7)
    return lecture_cnn()


@pytest.fixture(scope="session")
def version(network, tmp_path_factory):
    from kerascnn.serving import export

    return export(network, tmp_path_factory.mktemp("served"), labels=ANIMALS)


@pytest.fixture(scope="session")
def running():
    """Serve an application on a free port, in a thread: `with running(app) as url`."""
    uvicorn = pytest.importorskip("uvicorn", reason="serving needs kerascnn[serve]")

    @contextlib.contextmanager
    def run(app):
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        for _ in range(600):
            if server.started:
                break
            time.sleep(0.1)
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)

    return run


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(1).integers(0, 256, (64, 32, 32, 3), np.uint8)


@pytest.fixture
def tiny():
    """Build a network of 8x8 pixels and 3 classes that exports quickly.

    It has two channels, so that no decoder of files has to be written.
    """

    def build(*layers, channels=2, activation="softmax", dtype=None):
        keras.utils.set_random_seed(3)
        return keras.Sequential(
            [
                keras.Input((8, 8, channels)),
                *layers,
                keras.layers.Rescaling(1 / 127.5, -1.0),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation=activation, dtype=dtype),
            ]
        )

    return build


@pytest.fixture
def tiny_images():
    return np.random.default_rng(2).integers(0, 256, (6, 8, 8, 2), np.uint8)
