import pickle

import numpy as np
import pytest

from kerascnn.data import Data, DataError, Images, load_data, save_arrays
from kerascnn.data.dataset import assemble


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)

    def part(number):
        x = rng.integers(0, 256, (number, 5, 4, 3), np.uint8)
        return Images(x, np.arange(number) % 3)

    return part(60), part(12)


def test_a_round_trip_is_the_same_data(arrays, tmp_path):
    data = assemble("tiny", "Tiny things", ("a", "b", "ç"), *arrays, seed=4)
    path = save_arrays(data, tmp_path / "tiny.npz")
    again = load_data(path, seed=4)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.npz"]
    for field in ("name", "title", "labels", "fingerprint", "input_shape"):
        assert getattr(again, field) == getattr(data, field)
    for part in ("train", "validation", "test"):
        assert (getattr(again, part).x == getattr(data, part).x).all()
        assert (getattr(again, part).y == getattr(data, part).y).all()
    assert (load_data(path, seed=5).held_out != data.held_out).any()
    assert len(load_data(path, validation=0).train) == 60


def test_own_validation_images_stay_what_they_are(arrays, tmp_path):
    own = arrays[1]
    data = assemble("t", "T", "abc", arrays[0], arrays[1], validation=own)
    path = save_arrays(data, tmp_path / "own.npz")
    again = load_data(path)
    assert len(again.train) == 60
    assert (again.validation.x == own.x).all()
    assert again.fingerprint == data.fingerprint
    with pytest.raises(ValueError, match="validation images of its own"):
        load_data(path, validation=3)


def test_arrays_of_keras_datasets_are_taken_as_they_are(tmp_path):
    path = tmp_path / "my digits.npz"
    x = np.zeros((40, 6, 6), np.uint8)
    y = np.uint8(np.arange(40) % 2)
    np.savez(path, x_train=x, y_train=y[:, None], x_test=x, y_test=y[:, None])
    data = load_data(path)
    assert isinstance(data, Data)
    assert data.input_shape == (6, 6, 1)
    assert data.labels == ("0", "1")
    assert (data.name, data.title) == ("my-digits", "my digits")
    assert load_data(path, image_size=6).fingerprint == data.fingerprint
    with pytest.raises(ValueError, match="are 6x6 pixels"):
        load_data(path, image_size=32)


def test_a_file_that_lacks_an_array_is_named(tmp_path):
    path = tmp_path / "half.npz"
    np.savez(path, x_train=np.zeros((4, 2, 2, 3), np.uint8), y_train=np.zeros(4, int))
    with pytest.raises(DataError, match=r"has no x_test and no y_test.*found x_train"):
        load_data(path)


def test_floats_are_refused(tmp_path):
    path = tmp_path / "floats.npz"
    x, y = np.zeros((4, 2, 2, 3)), np.zeros(4, int)
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=r"train: images must be uint8.*float64"):
        load_data(path)


def test_labels_must_name_every_class(arrays, tmp_path):
    data = assemble("tiny", "Tiny", "abc", *arrays)
    path = save_arrays(data, tmp_path / "tiny.npz")
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **content | {"labels": ["a", "b"]})
    with pytest.raises(DataError, match="from 0 to 2, but there are 2 classes"):
        load_data(path)
    np.savez(path, **content | {"labels": [0.5, 1.5, 2.5]})
    with pytest.raises(DataError, match="labels must be a list of names"):
        load_data(path)


def test_channels_first_is_named(tmp_path):
    x, y = np.zeros((4, 3, 32, 32), np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=r"\(4, 3, 32, 32\).*channels first.*transpose"):
        load_data(tmp_path / "a.npz")
    # Images that are no taller than others have channels are what they are.
    x = np.zeros((4, 3, 32, 3), np.uint8)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert load_data(tmp_path / "b.npz", validation=0).input_shape == (3, 32, 3)


@pytest.mark.parametrize(
    ("y", "missing"), [([1, 2, 1, 2], "0"), ([0, 2, 0, 2], "1"), ([7, 9, 7, 9], "0")]
)
def test_a_class_without_images_is_named(tmp_path, y, missing):
    """Labels that do not begin at 0, or leave a number out."""
    x, y = np.zeros((4, 8, 8, 3), np.uint8), np.array(y)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match=f"no training image is of class {missing}"):
        load_data(tmp_path / "a.npz")


def test_own_validation_images_and_none(arrays, tmp_path):
    data = assemble("tiny", "Tiny", "abc", *arrays, validation=arrays[1])
    path = save_arrays(data, tmp_path / "tiny.npz")
    assert len(load_data(path).validation) == len(arrays[1])
    assert len(load_data(path, validation=0).validation) == 0
    with pytest.raises(ValueError, match=r"or 0 to have none; received validation=5"):
        load_data(path, validation=5)


def test_what_is_no_npz_is_refused_and_no_pickle_is_opened(tmp_path):
    path = tmp_path / "broken.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"cannot be read as a .npz file"):
        load_data(path)
    path.write_bytes(pickle.dumps({"x_train": 1}))
    with pytest.raises(DataError, match=r"cannot be read as a .npz file"):
        load_data(path)
    np.savez(path, x_train=np.array([{}], object))
    with pytest.raises(DataError, match=r"cannot be read as a .npz file"):
        load_data(path)


def test_a_failed_save_leaves_nothing(arrays, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space left"):
        save_arrays(assemble("t", "T", "abc", *arrays), tmp_path / "t.npz")
    assert not list(tmp_path.iterdir())


def test_other_suffixes_are_refused(arrays, tmp_path):
    with pytest.raises(ValueError, match=r"must end in .npz"):
        save_arrays(assemble("t", "T", "abc", *arrays), tmp_path / "t.zip")
