"""A training on PyTorch, in a process of its own; and that it answers alike here."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerascnn import explain
from kerascnn.training import load_run
from kerascnn.training.evaluate import predict_probabilities

SCRIPT = """
import sys
from pathlib import Path
import keras
import numpy as np
from conftest import make_data
from helpers import Stop, assert_same_weights, busy_model
from kerascnn import explain
from kerascnn.training import resume, train

def run(folder, **more):
    keras.utils.set_random_seed(3)
    recipe = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "keep": "best"}
    recipe |= {"precision": "float32", "ema": 0.9, "clip_norm": 1.0}
    return train(
        busy_model(), data, recipe, folder=base / folder, progress=False, **more
    )

base, data = Path(sys.argv[1]), make_data()
whole = run("whole")
assert_same_weights(whole.model, run("again").model)
try:
    run("stopped", callbacks=[Stop(epoch=1)])
except KeyboardInterrupt as stop:
    print(stop)
assert_same_weights(whole.model, resume(base / "stopped", data=data).model)
try:
    run("several", devices=2)
except ValueError as error:
    print(error)
heatmaps = explain.saliency, explain.gradcam
maps = [f(whole.model, data.test.x[0]).heat for f in heatmaps]
np.save(base / "maps.npy", maps)
print(keras.backend.backend(), whole.config["hardware"])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch", reason="PyTorch is not installed: kerascnn[torch]")
    folder = tmp_path_factory.mktemp("torch")
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder],
        env={
            **os.environ,
            "KERAS_BACKEND": "torch",
            "PYTHONPATH": os.pathsep.join(map(str, (here, here.parents[1]))),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout.splitlines()


def test_it_trains_resumes_to_the_same_weights_and_knows_its_device(trained):
    folder, (stopped, several, device) = trained
    assert stopped.endswith(f"continue with kerascnn train --resume {folder}/stopped")
    assert several == (
        "several devices need the backend jax or tensorflow: set KERAS_BACKEND; "
        "received torch"
    )
    assert device.startswith("torch ") and "core" in device


def test_its_run_answers_the_same_on_this_backend(trained, data):
    run = load_run(trained[0] / "whole")
    assert run.config["versions"]["backend"] == "torch"
    answers = predict_probabilities(run.model, data.test.x).argmax(1)
    right = 100 * (answers == data.test.y).mean()
    assert run.metrics["test_accuracy"] == pytest.approx(right)


def test_its_gradients_are_those_of_this_backend(trained, data):
    model, image = load_run(trained[0] / "whole").model, data.test.x[0]
    maps = [f(model, image).heat for f in (explain.saliency, explain.gradcam)]
    assert np.abs(maps).max((1, 2)).min() > 0
    found = np.load(trained[0] / "maps.npy")
    np.testing.assert_allclose(found, maps, rtol=1e-3, atol=1e-6)
