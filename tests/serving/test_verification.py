"""Reading a version where there is neither Keras nor this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerascnn import serving
from kerascnn.serving import verification


def test_fresh_process_agrees(version, network, images):
    expected = network.predict(images, verbose=0)
    assert serving.check_in_fresh_process(version, images, expected) <= 1e-5


def test_differences_are_reported(version, images, monkeypatch):
    answer = {"probabilities": [[0.25, 0.75], [0.5, 0.5]]}

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")

    monkeypatch.setattr(subprocess, "run", run)
    expected = [[0.25, 0.75], [0.375, 0.625]]
    assert serving.check_in_fresh_process(version, images[:2], expected) == 0.125
    with pytest.raises(ValueError, match=r"shape \(2, 2\); received .*\(1, 2\)"):
        serving.check_in_fresh_process(version, images[:2], expected[:1])


def test_fresh_process_that_fails(tmp_path, images):
    with pytest.raises(
        serving.ExportError, match=r"cannot read .* not exist"
    ) as raised:
        serving.check_in_fresh_process(tmp_path, images[:1], np.zeros((1, 10)))
    assert "\n" not in str(raised.value)


def test_a_process_that_has_keras_is_found(tmp_path):
    """What TensorFlow would import by itself is shut out, and looked for afterwards."""
    (tmp_path / "tensorflow.py").write_text(
        "import sys\n"
        "try:\n    import keras\nexcept ModuleNotFoundError:\n    print('shut out')\n"
        "sys.modules['keras.src'] = sys\n"
        "class saved_model:\n"
        "    def load(path):\n        return saved_model\n"
        "    signatures = {'serving_default': lambda image: {}}\n"
        "def constant(images):\n    return images\n"
    )
    np.save(tmp_path / "images.npy", np.zeros((1, 2, 2, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, "-P", "-c", verification.ALONE, "version", "images.npy"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "shut out\n"
    assert done.returncode == 1
    assert done.stderr.strip() == "this process has imported keras.src"


def test_package_is_imported_without_keras_and_tensorflow():
    script = (
        "import sys, kerascnn.serving as s, kerascnn.serving.publish\n"
        "s.published('nowhere'); s.answers; s.export\n"
        "print({'keras', 'tensorflow', 'zoo'} & set(sys.modules))"
    )
    root = Path(serving.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_the_client_is_imported_without_numpy():
    script = (
        "import sys, kerascnn.serving.client\n"
        "print({'keras', 'tensorflow', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_face():
    assert set(serving.__all__) <= {name for name in dir(serving)} | set(serving._HOMES)
    for name in serving.__all__:
        assert getattr(getattr(serving, name), "__name__", "FORMATS") == name
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = serving.exprot
