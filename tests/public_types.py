"""What a type checker sees of the public names; checked by mypy, and never run."""

from pathlib import Path
from typing import assert_type

import numpy as np

import kerascnn
from kerascnn.comparison import Comparison
from kerascnn.summary import Summary
from kerascnn.training.run import Run
from kerascnn.tuning import Tuning
from kerascnn.twin import Twin

model = kerascnn.build("lecture_cnn", classes=100)
assert_type(kerascnn.models("vgg*"), list[str])
assert_type(kerascnn.card("vgg19").trainable, int)
assert_type(kerascnn.summarize(model), Summary)
assert_type(kerascnn.mlp_twin(model), Twin)
assert_type(kerascnn.compare("lecture_cnn", model, Path("runs/a")), Comparison)
assert_type(kerascnn.compare("lecture_cnn").plot("a.png"), Path)
assert_type(kerascnn.arithmetic.output_size(32, 5, padding="same").before, int)

data = kerascnn.load_data("shapes", validation=10)
# None on other hosts than the first.
assert_type(kerascnn.train("lecture_cnn", data, {"epochs": 1}, seed=1), Run | None)
run = kerascnn.load_run("runs/a")
assert_type(run, Run)
assert_type(kerascnn.resume(run.folder), Run | None)
assert_type(kerascnn.export(run, "served/lecture_cnn"), Path)
assert_type(kerascnn.predict(run, ["cat.jpg", Path("dog.png")])[0].label, str)
assert_type(kerascnn.tune("lecture_cnn", data, trials=2), Tuning)
assert_type(kerascnn.evaluate(run, data).accuracy, float)
client = kerascnn.Client("http://127.0.0.1:8501", "lecture_cnn")
assert_type(client.predict(np.zeros((2, 32, 32, 3), np.uint8))[0].label, str)
