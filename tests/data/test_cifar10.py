import sys
import types

import numpy as np
import pytest

from kerascnn.data import (
    DataError,
    Images,
    available,
    cifar10,
    load_data,
    save_arrays,
    tfds,
)

prepared = pytest.mark.skipif(
    not next(source for source in available() if source.name == "cifar10").there,
    reason="CIFAR-10 is not prepared on this machine",
)


def test_where_it_looks(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/somebody")
    assert list(map(str, tfds.data_dirs())) == [
        str(tmp_path),
        "/home/somebody/tensorflow_datasets",
    ]
    assert list(map(str, tfds.data_dirs("~/x"))) == ["/home/somebody/x"]
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert len(tfds.data_dirs()) == 1


def test_the_newest_complete_version_is_taken(tmp_path):
    with pytest.raises(DataError, match="is not prepared"):
        cifar10.find(tmp_path)
    for name in ("3.0.2", "3.0.10", "3.0.11.incompleteABC"):
        (tmp_path / "cifar10" / name).mkdir(parents=True)
        (tmp_path / "cifar10" / name / "dataset_info.json").touch()
    (tmp_path / "cifar10" / "4.0.0").mkdir()  # begun, never finished
    assert cifar10.find(tmp_path).name == "3.0.10"


def test_without_it_there_is_no_download_but_two_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", pytest.fail)
    with pytest.raises(DataError) as caught:
        load_data("cifar10", data_dir=tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "cifar10") in message
    assert "`kerascnn data download`" in message
    assert "`kerascnn data import ARCHIVE`" in message
    assert "\n" not in message
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("HOME", str(tmp_path / "b"))
    with pytest.raises(DataError, match=r"a/cifar10, .*b/tensorflow_datasets/cifar10"):
        load_data("cifar10")


def test_without_tensorflow_the_error_says_what_to_do(tmp_path, monkeypatch):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DataError, match=r"needs tensorflow.*save_arrays"):
        load_data("cifar10", data_dir=tmp_path)


def test_a_damaged_copy_is_named(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(
        DataError, match=r"3\.0\.2 cannot be read as prepared.*prepare it anew"
    ):
        load_data("cifar10", data_dir=tmp_path)


def test_titles_follow_the_pixels(monkeypatch):
    # Images of one colour whose mean is, to 1e-6, the published one: 0.49139968 · 255
    # is 125.3069184, so that of a million pixels 306,918 or so are 126, the rest 125.
    x = np.empty((1000, 32, 32, 3), np.uint8)
    flat = x.reshape(-1, 3)
    for channel, mean in enumerate(cifar10.CHANNEL_MEANS):
        low, rest = divmod(mean * 255, 1)
        flat[:, channel] = low
        flat[: round(rest * len(flat)), channel] += 1
    images = Images(x, np.zeros(1000, int))
    assert cifar10.title(images, "any") == "CIFAR-10"
    flat[-700:, 1] += 1  # a mean moved by 2.7e-6
    assert cifar10.title(images, "any") == "CIFAR-10 (altered copy)"
    monkeypatch.setitem(cifar10.COPIES, "known", "CIFAR-10 (known copy)")
    assert cifar10.title(images, "known") == "CIFAR-10 (known copy)"


class Devices:
    """TensorFlow's configuration, as far as hiding devices goes."""

    def __init__(self, error=None):
        self.config, self.hidden, self.error = self, [], error

    def set_visible_devices(self, devices, kind):
        if self.error:
            raise self.error
        self.hidden.append((devices, kind))


def test_the_gpu_is_left_to_another_backend(monkeypatch):
    """TensorFlow reads for JAX: it hides the GPU from itself, if it still can."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    for backend, hidden in (("jax", [([], "GPU")]), ("tensorflow", [])):
        monkeypatch.setenv("KERAS_BACKEND", backend)
        devices = Devices()
        tfds.leave_gpu(devices)
        assert devices.hidden == hidden
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    tfds.leave_gpu(Devices(RuntimeError("devices are in use")))
    # What Keras runs on, once it is imported, counts for more than the environment.
    keras = types.SimpleNamespace()
    keras.config = types.SimpleNamespace(backend=lambda: "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", keras)
    devices = Devices()
    tfds.leave_gpu(devices)
    assert not devices.hidden


@pytest.fixture(scope="module")
def data():
    return load_data("cifar10")


@prepared
@pytest.mark.cifar10
def test_cifar10_as_it_is_prepared(data):
    assert data.labels == cifar10.LABELS
    assert data.input_shape == (32, 32, 3)
    assert data.title in (
        "CIFAR-10",
        "CIFAR-10 (altered copy)",
        *cifar10.COPIES.values(),
    )
    for part, each in ((data.train, 4500), (data.validation, 500), (data.test, 1000)):
        assert np.bincount(part.y).tolist() == [each] * 10
    # The first and the last training labels, in the original order.
    y = np.empty(50_000, int)
    keep = np.ones(50_000, bool)
    keep[data.held_out] = False
    y[keep], y[data.held_out] = data.train.y, data.validation.y
    assert y[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert data.test.y[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    means = data.train.x.reshape(-1, 3).mean(axis=0) / 255
    assert np.abs(means - cifar10.CHANNEL_MEANS).max() < 0.003


@prepared
@pytest.mark.cifar10
def test_the_same_copy_comes_out_of_an_array_file(data, tmp_path):
    again = load_data(save_arrays(data, tmp_path / "some name.npz"))
    assert (again.name, again.title) == ("cifar10", data.title)
    assert again.fingerprint == data.fingerprint
    assert (again.validation.x == data.validation.x).all()
