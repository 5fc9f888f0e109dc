"""The commands that publish and keep versions."""

import json
import shutil

import pytest
from PIL import Image

from kerascnn import serving


def test_export_in_a_format(command, tiny, tmp_path, images):
    code, out, err = command("export", "lecture_cnn", "served", "--format", "keras")
    assert (code, out) == (0, "published served/1\n"), err
    options = ["--images", 8, "--activations", "conv1, pool1", "--json"]
    code, out, err = command("export", "lecture_cnn", "served", *options)
    assert code == 0, err
    told = json.loads(out)
    assert (told["version"], told["format"]) == ("served/2", "savedmodel")
    assert told["parity"]["images"] == 8 and told["parity"]["encoded"] <= 1e-5
    content = json.loads((tmp_path / "served/2/manifest.json").read_text())
    assert content["signatures"] == ["serving_default", "serve_bytes", "activations"]
    assert content["activations"] == ["conv1", "pool1"]
    assert content["source"]["weights"]["file"] == "lecture_cnn.npz"
    Image.fromarray(images[0]).save(tmp_path / "image.png")
    answers = []
    for version in ("served/1", "served/2"):
        code, out, err = command("predict", version, "image.png", "--json")
        assert code == 0, err
        answers.append(json.loads(out)["predictions"][0]["probabilities"])
    assert list(answers[0]) == list(answers[1])
    for label, probability in answers[0].items():
        assert abs(answers[1][label] - probability) <= 1e-5
    code, _, err = command("predict", "served/1", "image.png", "--views", 2)
    assert code == 2 and "one view in one pass" in err


def test_versions_are_kept(command, version, tmp_path):
    for number in "12":
        shutil.copytree(version, tmp_path / "served" / number)
    code, out, err = command("versions", "served")
    assert code == 0 and out.count("lecture_cnn") == 2 and "savedmodel" in out, err
    code, out, _ = command("rollback", "served")
    assert (code, out) == (0, "published 1 again as served/3\n")
    code, out, _ = command("rollback", "served", "--to", 2, "--json")
    assert code == 0 and json.loads(out)["copy_of"] == 2
    code, out, _ = command("prune", "served", "--keep", 2)
    assert (code, out) == (0, "removed 1, 2\n")
    code, out, _ = command("prune", "served", "--keep", 2)
    assert (code, out) == (0, "nothing to remove\n")
    code, out, _ = command("versions", "served", "--json")
    told = json.loads(out)["versions"]
    assert [(v["number"], v["copy_of"]) for v in told] == [(3, 1), (4, 2)]
    code, out, _ = command("prune", "served", "--keep", 1, "--json")
    assert [v["number"] for v in json.loads(out)["removed"]] == [3]


def test_verify_tells_what_has_changed(command, network, tmp_path):
    mine = serving.export(network, tmp_path / "served", format="keras", images=2)
    whole = (mine / "model.keras").read_bytes()
    with open(mine / "model.keras", "ab") as file:
        file.write(b"\0")
    code, out, err = command("verify", "served")
    assert (code, err) == (1, "")
    assert out.startswith("served/1: model.keras has changed")
    code, out, _ = command("verify", "served/1", "--json")
    assert code == 1
    (told,) = json.loads(out)["versions"]
    assert told["ok"] is False and "model.keras" in told["problems"][0]
    (mine / "model.keras").write_bytes(whole)
    code, out, err = command("verify", "served")
    assert code == 0 and out.startswith("served/1: whole"), out + err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "lecture_cnn", "served", "--format", "tflite"], "'tflite'"),
        (["export", "lecture_cnn", "served", "--activations", "conv9"], "did you mean"),
        (["versions", "nowhere"], "there is no folder nowhere"),
        (["rollback", "nowhere"], "there is no folder nowhere"),
        (["rollback", "."], "holds no version"),
        (["prune", "."], "--keep"),
        (["prune", ".", "--keep", "0"], "--keep"),
        (["verify", "nowhere"], "there is no folder nowhere"),
        (["verify", "."], "holds no version"),
    ],
)
def test_wrong_use_is_one_line_and_code_two(command, arguments, said, tmp_path):
    code, out, err = command(*arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("error: ") and said in err
    assert list(tmp_path.iterdir()) == []
