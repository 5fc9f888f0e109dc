import base64
import io
import shutil

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server is the extra kerascnn[serve]")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")
pytest.importorskip("prometheus_client", reason="the server counts for Prometheus")

from hypothesis import settings
from starlette.testclient import TestClient

from kerascnn.serving.http import create_app

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None, database=None, derandomize=True)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def save():
    """Write a SavedModel of a few operations, with signatures of every kind."""
    import tensorflow as tf

    def spec(shape, dtype, name):
        return tf.TensorSpec(shape, dtype, name=name)

    class Toy(tf.Module):
        def __init__(self, factor):
            self.factor = tf.Variable(float(factor))

        @tf.function(input_signature=[spec((None, 2, 2, 1), tf.uint8, "image")])
        def mean(self, image):
            pixels = tf.reduce_mean(tf.cast(image, tf.float32), axis=(1, 2, 3))
            return {"mean": self.factor * pixels}

        @tf.function(
            input_signature=[
                spec((None,), tf.float32, "a"),
                spec((None, 2), tf.int64, "b"),
            ]
        )
        def two(self, a, b):
            return {"sum": a + tf.cast(tf.reduce_sum(b, axis=1), tf.float32)}

        @tf.function(input_signature=[spec((None,), tf.string, "text")])
        def text(self, text):
            return {"same": text, "same_bytes": text}

        @tf.function(input_signature=[spec((None,), tf.bool, "flag")])
        def flags(self, flag):
            return {
                "number": tf.cast(flag, tf.int32),
                "half": tf.cast(flag, tf.float16),
                "not": tf.logical_not(flag),
            }

        @tf.function(input_signature=[spec((), tf.float32, "x")])
        def scalar(self, x):
            return {"y": 1.0 / x}

        @tf.function(input_signature=[spec((None,), tf.int32, "steps")])
        def slow(self, steps):
            last = tf.reduce_max(steps)
            done = tf.while_loop(lambda i: i < last, lambda i: (i + 1,), [0])[0]
            return {"done": steps * 0 + done}

        @tf.function(input_signature=[spec((None,), tf.float32, "x")])
        def positive(self, x):
            with tf.control_dependencies([tf.debugging.assert_positive(x)]):
                return {"root": tf.sqrt(x)}

    every = ("two", "text", "flags", "scalar", "slow", "positive")

    def write(path, factor=1.0, names=every):
        toy = Toy(factor)
        signatures = {name: getattr(toy, name) for name in names}
        staged = path.parent / f".staging-{path.name}"
        tf.saved_model.save(
            toy, str(staged), {"serving_default": toy.mean, **signatures}
        )
        staged.rename(path)
        return path

    return write


@pytest.fixture(scope="session")
def toys(save, tmp_path_factory):
    """Small versions 1, 2 and 3, to be copied; each answers with its number."""
    folder, names = tmp_path_factory.mktemp("toys"), ("scalar", "slow")
    return {n: save(folder / str(n), n, names) for n in (1, 2, 3)}


@pytest.fixture
def publish(toys):
    """Copy a toy into a folder of versions, as an export does: in one step."""

    def copy(folder, number, source=None):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".staging-{number}"
        shutil.copytree(toys[source or number], staged)
        return staged.rename(folder / str(number))

    return copy


@pytest.fixture(scope="session")
def folder(version, save, tmp_path_factory):
    """A folder of two models: "cnn", exported by this package, and "toy"."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(version, folder / "cnn" / "1")
    (folder / "toy").mkdir()
    save(folder / "toy" / "1")
    return folder


@pytest.fixture(scope="session")
def app(folder):
    return create_app(folder, poll=3600)


@pytest.fixture(scope="session")
def client(app):
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="session")
def png():
    def encode(image, kind="PNG"):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(image).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def b64():
    return lambda data: {"b64": base64.b64encode(data).decode()}


@pytest.fixture(scope="session")
def image():
    return np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8)
