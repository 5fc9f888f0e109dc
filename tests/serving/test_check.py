"""Reading a version where there is neither Keras nor this package."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from kerascnn import serving
from kerascnn.serving import check


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
        serving.ExportError, match=r"holds no saved_model\.pb"
    ) as raised:
        serving.check_in_fresh_process(tmp_path, images[:1], np.zeros((1, 10)))
    assert "\n" not in str(raised.value)


def test_what_a_process_has_imported(monkeypatch):
    assert "kerascnn.serving.check" in check.imported()
    assert check.imported(("no_such_package",)) == []
    monkeypatch.setitem(sys.modules, "no_such_package", None)  # shut out
    assert check.imported(("no_such_package",)) == []
    monkeypatch.setitem(sys.modules, "no_such_package.a", types.ModuleType("a"))
    assert check.imported(("no_such_package",)) == ["no_such_package.a"]


def test_script_fails_where_keras_was_imported(monkeypatch, tmp_path, capsys):
    """A module that was imported before the doors were shut is found."""
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((1, 2, 2, 3), np.uint8))
    answer = {
        "probabilities": np.array([[0.25, 0.75]], np.float32),
        "class_id": np.array([1]),
        "label": ["b"],
    }
    monkeypatch.setattr(check, "load", lambda version: version)
    monkeypatch.setattr(check, "ask", lambda served, images: answer)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for name in check.imported():
        del sys.modules[name]
    assert check.main([str(tmp_path), str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"probabilities": [[0.25, 0.75]], "class_id": [1], "label": ["b"]}
    sys.modules["keras.src"] = types.ModuleType("keras.src")
    assert check.main([str(tmp_path), str(file)]) == 1
    assert "keras.src" in capsys.readouterr().err


def test_script_reads_no_package_from_its_own_folder(tmp_path):
    """`python check.py` would put kerascnn/serving first on the path, with -P not."""
    script = "import sys; print([p for p in sys.path if 'serving' in p])"
    file = Path(check.__file__).parent
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=file,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


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


def test_face():
    assert set(serving.__all__) <= {name for name in dir(serving)} | set(serving._HOMES)
    for name in serving.__all__:
        assert getattr(getattr(serving, name), "__name__", "FORMATS") == name
    with pytest.raises(AttributeError, match="no attribute 'exprot'"):
        _ = serving.exprot
