"""`kerascnn explain`: text, one JSON object, pictures, and errors with a way out."""

import json

import numpy as np
import pytest
from PIL import Image

from kerascnn import cli
from kerascnn.explain.report import KINDS, report


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `kerascnn explain …` in a folder with an image."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["kerascnn", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_a_trace_of_the_shipped_network(command, tmp_path):
    code, out, _ = command(
        "lecture_cnn", "image.png", "--layer", "conv2", "--cell", "3,4,5"
    )
    assert code == 0
    assert "conv2 (Conv2D), row 3, column 4, channel 5" in out
    assert "the model's own value is" in out
    names = sorted(file.name for file in (tmp_path / "explained").iterdir())
    assert names == ["lecture_cnn-trace-conv2-cell.png", "lecture_cnn-trace-conv2.png"]


@pytest.mark.parametrize("what", KINDS)
def test_every_kind_is_one_json_object_and_pictures(command, tmp_path, what):
    code, out, _ = command(
        "lecture_cnn", "image.png", "--what", what, "--out", "here", "--json"
    )
    assert code == 0
    data = json.loads(out)
    assert data["what"] == what and data["model"] == "lecture_cnn"
    for picture in data["pictures"]:
        with Image.open(tmp_path / picture) as opened:
            assert opened.width > 300
    assert len(data["pictures"]) == 1 + (what == "slide")


def test_a_class_by_its_name(command):
    code, out, _ = command(
        "linear", "image.png", "--what", "saliency", "--target", "horse"
    )
    assert code == 0 and "saliency (mean of 16) of linear for 'horse'" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--what", "x-ray"), "what is one of pixels, slide"),
        (("--cell", "1,2"), "name the layer"),
        (("--cell", "one"), "row,column,channel"),
        (("--layer", "conv"), "did you mean conv3"),
        (("--what", "saliency", "--layer", "conv1"), "no use for a layer"),
        (("--what", "maps", "--target", "3"), "no use for a target"),
        (("--what", "slide", "--layer", "fc"), "choose one of conv1, conv2, conv3"),
        (("--what", "gradcam", "--target", "unicorn"), "one of airplane"),
    ],
)
def test_wrong_use_is_one_line(command, arguments, message):
    code, out, err = command("lecture_cnn", "image.png", *arguments)
    assert code == 2 and not out
    assert message in err and len(err.splitlines()) == 1


def test_images_that_cannot_be_read(command, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    assert "there is no image none.png" in command("linear", "none.png")[2]
    assert "text.png is not a readable image" in command("linear", "text.png")[2]


def test_a_slid_layer_is_the_layers_map(tmp_path):
    """The slid filter gives the map of the model."""
    import zoo

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    found = report(
        "lecture_cnn", tmp_path / "image.png", "slide", layer="conv2", cell=(0, 0, 7)
    )
    import keras

    model = zoo.load("lecture_cnn")
    part = keras.Model(model.input, model.get_layer("conv2").output)
    maps = keras.ops.convert_to_numpy(part(pixels[None].astype("float32")))[0]
    slid = np.array(found.data["maps"])[..., 0]
    np.testing.assert_allclose(slid, maps[..., 7], atol=1e-4)
    assert found.pictures == ()
