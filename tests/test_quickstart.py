"""The main job, shortened to one epoch of each network."""

from pathlib import Path

import pytest
from PIL import Image

from kerascnn.quickstart import TOLERANCE, quickstart


@pytest.mark.slow
def test_the_main_job_from_images_to_a_served_answer(tmp_path):
    parts = []
    result = quickstart(tmp_path / "out", show=parts.append, epochs=1, batch_size=1000)
    report = "\n".join(map(str, parts))
    assert "33,120" in report and "34,083,840" in report  # the comparison
    assert "arrow" in report or "circle" in report  # accuracies of each class
    assert result["largest_difference"] <= TOLERANCE
    assert (Path(result["version"]) / "saved_model.pb").exists()
    for picture in result["pictures"]:
        assert Image.open(picture).width > 500
    assert set(result["test_accuracy"]) == {"lecture_cnn", "dense_mlp"}
    for name in ("CIFAR-10", "FOLDER", "tutorials", "tensorflow_model_server"):
        assert name in report  # what to try next
