import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerascnn.data import DataError, available, load_data, shapes


@pytest.fixture(scope="module")
def data():
    return load_data("shapes", images=500)


def test_shapes_are_built_in(data):
    assert (len(data.train), len(data.validation), len(data.test)) == (450, 50, 100)
    assert np.bincount(data.validation.y).tolist() == [5] * 10
    assert np.bincount(data.test.y).tolist() == [10] * 10
    assert data.labels == shapes.LABELS == tuple(sorted(data.labels))
    assert (data.name, data.title, data.input_shape) == (
        "shapes",
        "shapes",
        (32, 32, 3),
    )


def test_the_default_is_ten_thousand_shapes_in_seconds():
    whole = load_data()
    parts = [len(part) for part in (whole.train, whole.validation, whole.test)]
    assert parts == [9_000, 1_000, 2_000]


def test_the_seed_makes_other_shapes_and_says_so(data):
    again, other = load_data("shapes", images=500), load_data(images=500, seed=1)
    assert again.fingerprint == data.fingerprint
    assert (again.validation.x == data.validation.x).all()
    assert other.fingerprint != data.fingerprint
    assert other.title == "shapes (seed 1)"


def test_the_test_images_are_none_of_the_training_images(data):
    seen = {image.tobytes() for image in data.train.x}
    assert not seen & {image.tobytes() for image in data.test.x}


def test_validation_and_image_size():
    data = load_data("shapes", images=50, validation=20, image_size=(16, 24))
    assert (len(data.train), len(data.validation)) == (30, 20)
    assert data.input_shape == (16, 24, 3)
    assert len(load_data("shapes", images=50, validation=0).validation) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, "16 pixels or more; received 8"),
        ({"image_size": (32, 32, 3)}, "one or two integers"),
        ({"images": 9}, "50 or more; received 9"),
        ({"images": "many"}, "50 or more; received 'many'"),
        ({"data_dir": "x"}, "'shapes' does not take data_dir; received 'x'"),
        ({"images": 50, "validation": 50}, "0 to 49 can be held out"),
        ({"source": "cifar10", "images": 100}, "'cifar10' does not take images"),
        ({"source": "cifar10", "image_size": 64}, "CIFAR-10 are 32x32 pixels"),
    ],
)
def test_impossible_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        load_data(**options)


def test_unknown_sources_are_named_with_a_way_out(tmp_path):
    with pytest.raises(DataError, match=r"no data named 'CIFAR-10'.*mean 'cifar10'\?"):
        load_data("CIFAR-10")
    with pytest.raises(DataError, match="There are shapes and cifar10, folders"):
        load_data(tmp_path / "nothing")
    text = tmp_path / "a.txt"
    text.write_text("")
    with pytest.raises(DataError, match=r"neither a folder nor a .npz"):
        load_data(text)


def test_a_path_is_a_folder_also_where_it_is_named_like_a_source(tmp_path, monkeypatch):
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "shapes" / part / label).mkdir(parents=True)
            for number in range(2):
                file = tmp_path / "shapes" / part / label / f"{number}.png"
                Image.new("RGB", (8, 8)).save(file)
    monkeypatch.chdir(tmp_path)
    found = load_data(Path("./shapes"), image_size=(8, 8), validation=0)
    assert found.labels == ("cat", "dog")
    assert found.origin["source"] == str(tmp_path / "shapes")
    assert load_data("shapes", images=50).labels != found.labels


def test_available_says_what_is_there(tmp_path):
    first, cifar10 = available(tmp_path)
    assert (first.name, first.there, first.train, first.test) == (
        "shapes", True, 10_000, 2_000,
    )  # fmt: skip
    assert not cifar10.there
    assert "kerascnn data download" in str(cifar10)
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    cifar10 = available(tmp_path)[1]
    assert (cifar10.there, cifar10.where, cifar10.size) == (True, str(folder), 2)
    assert cifar10.title == "CIFAR-10 (not checked)"


def test_importing_and_shapes_need_neither_keras_nor_tensorflow():
    code = (
        "import sys; from kerascnn.data import available, load_data; available();"
        "load_data('shapes', images=50);"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'PIL') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
