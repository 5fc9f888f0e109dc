"""The command: words, exit codes, one line an error, JSON for programs."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import kerascnn
import zoo


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training, on few of the built-in images."""
    data = kerascnn.load_data("shapes", images=300)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return kerascnn.train(
        "lecture_cnn", data, "quick", epochs=1, folder=folder, progress=False
    )


def test_models_lists_names_and_close_matches(command):
    code, out, _ = command("models", "lecture*")
    assert code == 0 and "lecture_cnn" in out and "33,120" in out
    code, out, _ = command("models", "vgg*", "--json")
    assert {"vgg19", "vgg19_bn_imagenet"} <= {
        card["name"] for card in json.loads(out)["networks"]
    }
    code, out, _ = command("models", "resnet110", "--json", "--plot", "ranking.png")
    (card,) = json.loads(out)["networks"]
    assert card["published"][0]["accuracy"] == 93.57 and card["paper"]["year"] == 2016
    assert Image.open("ranking.png").width > 300
    code, _, err = command("models", "lecture_cn")
    assert code == 2 and "did you mean lecture_cnn" in err


def test_summary_of_any_size_and_form(command, tmp_path):
    picture = tmp_path / "volumes.svg"
    code, out, _ = command("summary", "lecture_cnn", "--plot", picture)
    assert code == 0 and "5·5·3·32 = 2,400" in out
    assert f"picture: {picture}" in out and picture.exists()
    code, out, _ = command(
        "summary", "lecture_cnn", "--size", 64, "--classes", 7, "--json"
    )
    assert json.loads(out)["totals"]["parameters"] == 2400 + 25600 + 8 * 8 * 32 * 7
    code, out, _ = command(
        "summary", "lecture_cnn", "--option", "use_bias=true", "--csv"
    )
    assert code == 0 and "5·5·3·32 + 32" in out


def test_compare_writes_a_picture(command, tmp_path):
    code, out, _ = command(
        "compare", "lecture_cnn", "dense_mlp", "--plot", tmp_path / "picture.png"
    )
    assert code == 0 and "34,083,840" in out and "35,107,840" in out
    assert Image.open(tmp_path / "picture.png").width > 300


def test_train_evaluate_predict_export(command, tmp_path):
    """The whole street, on a folder of images of one's own."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 210)):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(rng.normal(level, 20, (20, 26, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(
                tmp_path / "mine" / label / f"{i}.png"
            )
    code, out, err = command(
        *("train", "lecture_cnn", "--data", "mine", "--set", "epochs=4"),
        *("--set", "batch_size=8", "--set", "learning_rate=0.005", "--folder", "run"),
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["metrics"]["test_accuracy"] > 80
    code, out, _ = command("evaluate", "run", "--plot", "confusion.png")
    assert code == 0 and "accuracy" in out
    assert (tmp_path / "confusion.png").exists()
    code, out, _ = command("predict", "run", "mine/light/3.png", "--json")
    (answer,) = json.loads(out)["predictions"]
    assert next(iter(answer["probabilities"])) == "light"
    code, out, err = command("export", "run", "served")
    assert (code, out) == (0, "published served/1\n"), err
    code, out, _ = command("predict", "served/1", "mine/light/3.png", "--json")
    (served,) = json.loads(out)["predictions"]
    for label, probability in answer["probabilities"].items():
        # The file is decoded and resized by Pillow there and by TensorFlow here.
        assert served["probabilities"][label] == pytest.approx(probability, abs=0.05)
    code, _, err = command("train", "lecture_cnn", "--folder", "run")
    assert code == 2 and "not overwritten" in err and err.count("\n") == 1
    code, out, _ = command("train", "--resume", "run")
    assert code == 0 and "test accuracy" in out  # it had finished
    for other in ("--data cifar10", "--recipe quick", "--seed 3", "--image-size 64"):
        code, _, err = command("train", "--resume", "run", *other.split())
        assert code == 2 and "--resume continues a run as it was started" in err
    code, _, err = command("quickstart", "out", "--set", "test=no")
    assert code == 2 and "test" in err and not os.path.exists("out")


def test_views_and_passes_are_averaged(command, run, tmp_path):
    def evaluate(*options, folder=run.folder):
        code, out, err = command("evaluate", folder, "--json", *options)
        assert code == 0, err
        return json.loads(out)

    plain, averaged = evaluate(), evaluate("--views", 6)
    assert (plain["views"], averaged["views"]) == (1, 6)
    assert plain["loss"] != averaged["loss"]
    # A run is measured as its recipe says, unless the command says something else.
    mine = shutil.copytree(run.folder, tmp_path / "mine")
    config = json.loads((mine / "config.json").read_text())
    config["recipe"]["views"] = 6
    (mine / "config.json").write_text(json.dumps(config))
    assert evaluate(folder=mine)["loss"] == averaged["loss"]
    assert evaluate("--views", 1, folder=mine)["loss"] == plain["loss"]
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    answers = []
    for options in ((), ("--views", 2, "--passes", 2)):
        code, out, err = command("predict", mine, "image.png", "--json", *options)
        assert code == 0, err
        answers.append(json.loads(out)["predictions"][0]["probabilities"])
    assert answers[0] != answers[1]
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "saved_model.pb").touch()
    code, _, err = command("predict", "served", "image.png", "--views", 2)
    assert code == 2 and "one view in one pass" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "lecture_cnn", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["train", "lecture_cnn", "--set", "epochs"], "takes key=value"),
        (["train", "lecture_cnn", "--set", "seed=3"], "a recipe has no 'seed'"),
        (["train", "lecture_cnn", "--set", "progress=no"], "has no 'progress'"),
        (["train", "lecture_cnn", "--set", "options=a=1"], "given by --option"),
        (["tune", "lecture_cnn", "--set", "trials=3"], "a recipe has no 'trials'"),
        (["train", "lecture_cnn", "--recipe", "slow"], "no recipe 'slow'"),
        (["train"], "name a network to train, or --resume"),
        (["train", "lecture_cnn", "--data", "nowhere"], "no data named 'nowhere'"),
        (["train", "--resume", "nowhere"], "there is no run folder nowhere"),
        (["train", "lecture_cnn", "--resume", "nowhere"], "give the folder, and"),
        (["train", "lecture_cnn", "--seed", "-1"], "greater than or equal to 0"),
        (["evaluate", "nowhere"], "no network of the zoo is named 'nowhere'"),
        (["predict", "vgg19", "a.png"], "no trained weights ship for 'vgg19'"),
        (["summary", "lecture_cnn", "--size", "4"], "at least 8x8"),
        (["summary", "nowhere", "--classes", "4"], "no network of the zoo"),
        (["fly"], "fly"),
        (["models", "--wings"], "--wings"),
        (["summary", "mine"], "a network of your own needs --module FILE.py"),
        (["summary", "mine", "--module"], "--module takes a Python file"),
        (["summary", "mine", "--module", "none.py"], "there is no file none.py"),
    ],
)
def test_wrong_use_is_one_line_and_code_two(command, arguments, said, tmp_path):
    code, out, err = command(*arguments)
    assert code == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("error: ") and said in err
    assert list(tmp_path.iterdir()) == []


def test_a_failure_has_code_one_and_debug_its_traceback(command, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr("kerascnn.training.train", fail)
    code, _, err = command("train", "lecture_cnn")
    assert (code, err) == (1, "error: the disk is full\n")
    code, _, err = command("train", "lecture_cnn", "--debug")
    assert code == 1 and "Traceback" in err


def test_an_interruption_says_how_to_go_on(command, monkeypatch):
    def before(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kerascnn.training.train", before)
        code, _, err = command("train", "lecture_cnn")
    assert code == 130 and "nothing to --resume" in err

    def between(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("kerascnn.training.epochs.Epochs.on_epoch_begin", between)
    code, _, err = command("train", "linear", "--folder", "mine", "--epochs", 1)
    assert code == 130
    assert "linear on shapes: mine\n" in err  # at once, not in the end alone
    assert "train 9,000, validation 1,000, test 2,000 images of 10 classes" in err
    assert err.endswith("\ninterrupted; continue with kerascnn train --resume mine\n")


def test_data_shows_what_is_here(command):
    code, out, _ = command("data")
    assert code == 0 and "shapes" in out and "cifar10" in out
    code, out, _ = command("data", "--json")
    assert {"shapes", "cifar10"} <= {
        entry["name"] for entry in json.loads(out)["sources"]
    }
    code, _, err = command("data", "import", "nothing.tar.gz", "--data-dir", "d")
    assert code == 2 and "nothing.tar.gz" in err and err.count("\n") == 1


def test_evaluate_of_a_run_uses_its_own_data(command, run):
    code, out, _ = command("evaluate", run.folder, "--data", "shapes", "--json")
    assert code == 0
    assert json.loads(out)["images"] == 2000


def test_evaluate_draws_by_its_seed(command, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            kerascnn.layers.FractionalMaxPooling2D(ratio=1.6),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    model.save(tmp_path / "drawing.keras")

    def loss(*options):
        code, out, err = command(
            "evaluate", "drawing.keras", "--data", "shapes", "--json", *options
        )
        assert code == 0, err
        return json.loads(out)["loss"]

    assert loss() == loss() == loss("--seed", 0) != loss("--seed", 1)


@pytest.mark.parametrize("name", ["picture", "picture.", "picture.txt"])
def test_a_picture_is_named_by_its_kind(command, tmp_path, name):
    (tmp_path / "picture.png").write_text("mine")
    for words in (("summary", "lenet5"), ("compare", "lenet5"), ("models", "lenet5")):
        code, _, err = command(*words, "--plot", name)
        assert code == 2 and "ends in .png, .svg or .pdf" in err
    assert (tmp_path / "picture.png").read_text() == "mine"


def test_help_names_everything_in_whole_lines_with_examples(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ((), ("-h",), ("--help",)):
        code, out, _ = command(*arguments)
        assert code == 0 and "--module" in out and "--version" in out
        assert "..." not in out.partition("Commands:")[2]
    for word in ("train", "models", "rollback", "data import"):
        code, out, _ = command(*word.split(), "-h")
        assert code == 0 and f"Examples:\n    kerascnn {word}" in out
    _, out, _ = command("train", "-h")
    assert "a fifth becomes the test images" in " ".join(out.split())
    code, out, _ = command("--version")
    assert code == 0 and out.startswith("kerascnn 0.")


def test_networks_of_a_module_are_known(command, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import keras, zoo\n"
        "@zoo.register\n"
        "def wee(input_shape=(8, 8, 3), classes=10, *, classifier_activation='softmax',"
        " name='wee'):\n"
        "    image = keras.Input(input_shape)\n"
        "    dense = keras.layers.Dense(classes, activation=classifier_activation)\n"
        "    return keras.Model(image, dense(keras.layers.Flatten()(image)), name=name)"
    )
    monkeypatch.setattr("zoo.registry._builders", dict(zoo.registry._builders))
    code, out, err = command("--module", "mine.py", "summary", "wee")
    assert code == 0 and "1,930" in out, err  # 8·8·3·10 + 10
    monkeypatch.setattr("zoo.registry._builders", {})
    code, out, err = command("compare", "wee", "lecture_cnn", "--module=mine.py")
    assert code == 0 and "1,930" in out and "33,120" in out, err
    code, out, err = command("summary", "wee", "--size", "4")
    assert code == 0 and "490" in out, err  # 4·4·3·10 + 10
    Image.new("RGB", (8, 8)).save("image.png")
    code, _, err = command("predict", "wee", "image.png")
    assert code != 0 and "registered without a card: no weights ship" in err
    x, y = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 10
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    options = {"epochs": 1, "folder": "wee", "progress": False}
    kerascnn.train("wee", kerascnn.load_data("mine.npz", validation=0), **options)
    assert kerascnn.compare("wee", "lecture_cnn").entries[0].name == "wee"
    code, out, err = command("models", "lecture*")  # wee has no card
    assert code == 0 and "lecture_cnn" in out, err


def test_a_picture_without_its_folder_is_refused_before_the_work(command):
    code, _, err = command("compare", "lecture_cnn", "--plot", "missing/x.png")
    assert code == 2 and "there is no folder missing" in err


@pytest.mark.skipif(os.name != "posix", reason="asks a shell")
@pytest.mark.parametrize("words", ["models", "models --json", "tutorial"])
def test_a_pipe_that_is_closed_early_ends_well(words):
    line = f"set -o pipefail; {sys.executable} -m kerascnn {words} | true"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "ascii"])
def test_json_is_whole_on_any_code_page(encoding):
    run = subprocess.run(
        [sys.executable, "-m", "kerascnn", "models", "fractional*", "--json"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.decode(encoding))["networks"]
    (card,) = (one for one in told if one["name"] == "fractional_max_pooling")
    assert card == json.loads(json.dumps(card)) and "∛" in json.dumps(
        card, ensure_ascii=False
    )


@pytest.fixture
def fresh(tmp_path):
    """The command in a process of its own, with a TensorFlow that cannot be loaded."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "tensorflow.py").write_text(
        "import os\nos.write(2, b'I0000 start\\n')\n"
        "raise ImportError('TensorFlow was asked for')"
    )

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "kerascnn", *words],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "fake")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    "words",
    [
        "tutorial 1",
        "verify served",
        "predict lecture_cnn image.png",
    ],
)
def test_tensorflow_keeps_its_start_to_itself(fresh, words):
    said = fresh(*words.split()).stderr
    assert "TensorFlow was asked for" in said and "I0000" not in said


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("train linear", "training linear on shapes"),
        ("train --resume runs/mine", "continuing runs/mine"),
        ("tune linear --data mine", "searching a recipe for linear on mine"),
        ("quickstart here", "training two networks; everything is written to here"),
    ],
)
def test_a_training_has_its_first_line_before_keras_is_loaded(fresh, words, first):
    lines = fresh(*words.split()).stderr.splitlines()
    assert lines == [first, "error: TensorFlow was asked for"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate lecture_cn", "did you mean lecture_cnn"),
        ("compare lecture_cnn seq.kears", "there is no file or folder seq.kears"),
        ("train runs/mine", "there is no file or folder runs/mine"),
    ],
)
def test_a_wrong_name_is_told_before_keras_is_loaded(fresh, words, said):
    done = fresh(*words.split())
    assert done.returncode == 2 and said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_name_a_run_of_it_and_a_file_are_three_rows(command, run, tmp_path):
    run.model.save(tmp_path / "seq.keras")
    words = ("compare", "lecture_cnn", run.folder, "seq.keras")
    code, out, err = command(*words, "--json")
    assert code == 0, err
    told = [row["name"] for row in json.loads(out)["rows"]]
    assert told == ["lecture_cnn", f"lecture_cnn ({run.folder})", "seq.keras"]


def test_json_is_one_object(command, tmp_path):
    for words in ("models vgg19", "models --measured", "data", "tutorial", "summary"):
        code, out, err = command(*words.split(), "--json")
        assert code == 0 and isinstance(json.loads(out), dict), err


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_failure(closed):
    code = (
        "from kerascnn.environment import no_stderr\n"
        "with no_stderr(): pass\n"
        "import sys; from kerascnn import cli; sys.argv[1:] = ['models', 'lenet5']\n"
        "cli.main()"
    )
    run = ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert ("lenet5" in done.stdout) == ("1>" not in closed)


def test_folders_that_are_no_runs_say_what_they_are(command, tmp_path):
    (tmp_path / "served" / "2").mkdir(parents=True)
    (tmp_path / "served" / "10").mkdir()
    (tmp_path / "served" / "10" / "saved_model.pb").touch()
    (tmp_path / "photos").mkdir()
    for word, folder, said in (
        ("predict", "served", "holds exported versions; kerascnn predict takes one, "),
        ("predict", "served", "served/10"),
        ("evaluate", "served/10", "it is a SavedModel, which kerascnn predict"),
        ("summary", "photos", "it has no config.json"),
    ):
        images = ["a.png"] if word == "predict" else []
        code, _, err = command(word, folder, *images)
        assert code == 2 and said in err and err.count("\n") == 1
