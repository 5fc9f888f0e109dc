"""From run folders to a card."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomlkit

import kerascnn
import zoo
from kerascnn.record import record
from kerascnn.training.run import read_json, write_json
from zoo import registry
from zoo.pretrained import read_weights


def trained(data, folder, seeds):
    """Runs of the quick recipe that differ in the seed."""
    return [
        kerascnn.train(
            "linear",
            data,
            "quick",
            seed=seed,
            folder=folder / f"{seed}",
            progress=False,
        )
        for seed in seeds
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of the quick recipe, and a run of another one."""
    data = kerascnn.load_data("shapes", images=100)
    folder = tmp_path_factory.mktemp("runs")
    made = trained(data, folder, (0, 1))
    other = kerascnn.train(
        "linear", data, "quick", epochs=1, folder=folder / "other", progress=False
    )
    return *made, other


@pytest.fixture
def cards(tmp_path):
    """A copy of the zoo's cards, with nothing measured on them."""
    for card in Path(zoo.__file__).parent.glob("*.toml"):
        document = tomlkit.parse(card.read_text(encoding="utf-8"))
        for table in document.values():
            table.pop("results", None)
            table.pop("weights", None)
        (tmp_path / card.name).write_text(tomlkit.dumps(document), encoding="utf-8")
    return tmp_path


def test_results_and_weights_are_written(runs, cards):
    before = (cards / "dense_mlp.toml").read_text()
    result = record([run.folder for run in runs[:2]], cards, recipe="quick")
    accuracies = [run.metrics["test_accuracy"] for run in runs[:2]]
    assert result["accuracy_mean"] == pytest.approx(np.mean(accuracies), abs=1e-3)
    assert result["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-3)
    assert result["seeds"] == [0, 1]
    text = (cards / "dense_mlp.toml").read_text()
    table = tomllib.loads(text)["linear"]
    assert result in table["results"]
    assert all(line in text.splitlines() for line in before.splitlines())
    weights = table["weights"]
    assert weights["labels"] == list(runs[0].labels)
    model = zoo.build("linear")
    read_weights(model, cards / "weights" / weights["file"])
    best = max(runs[:2], key=lambda run: run.metrics["validation_accuracy"])
    np.testing.assert_allclose(
        np.asarray(model.get_layer("fc").kernel),
        np.asarray(best.model.get_layer("fc").kernel),
        atol=1e-3,
    )
    assert weights["accuracy"] == pytest.approx(best.metrics["test_accuracy"], abs=6)
    # Recording again replaces the result, also that of another machine.
    elsewhere = text.replace(result["hardware"], "1 core of another")
    assert elsewhere != text
    (cards / "dense_mlp.toml").write_text(elsewhere)
    record([run.folder for run in runs[:2]], cards, recipe="quick")
    assert tomllib.loads((cards / "dense_mlp.toml").read_text())["linear"] == table


def test_better_weights_and_those_of_other_data_stay(runs, cards):
    best, worse = sorted(runs[:2], key=lambda run: -run.metrics["validation_accuracy"])
    record([best.folder], cards, recipe="quick")
    path = cards / "dense_mlp.toml"
    weights = tomllib.loads(path.read_text())["linear"]["weights"]
    record([worse.folder], cards, recipe="quick")
    assert tomllib.loads(path.read_text())["linear"]["weights"] == weights
    text = path.read_text().replace(weights["fingerprint"], "0" * 16)
    text = text.replace('data = "shapes"', 'data = "others"')
    lower = f"validation_accuracy = {weights['validation_accuracy']}"
    path.write_text(text.replace(lower, "validation_accuracy = 0.0"))
    record([best.folder], cards, recipe="quick")
    kept = tomllib.loads(path.read_text())["linear"]["weights"]
    assert (kept["fingerprint"], kept["validation_accuracy"]) == ("0" * 16, 0.0)


def test_results_and_weights_of_another_copy_of_the_data_go(runs, cards):
    record([runs[0].folder], cards, recipe="quick")
    path = cards / "dense_mlp.toml"
    table = tomllib.loads(path.read_text())["linear"]
    text = path.read_text().replace(table["weights"]["fingerprint"], "0" * 16)
    path.write_text(text.replace("validation_accuracy = ", "validation_accuracy = 1"))
    record([runs[0].folder], cards, recipe="quick")
    assert tomllib.loads(path.read_text())["linear"] == table


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two seeds, the later first, that were trained on every image."""
    data = kerascnn.load_data("shapes", images=100, validation=0)
    folder = tmp_path_factory.mktemp("whole")
    return trained(data, folder, (4, 3))


def test_of_runs_on_every_image_the_first_seed_ships(runs, whole, cards):
    path = cards / "dense_mlp.toml"
    record([run.folder for run in runs[:2]], cards, recipe="quick")
    result = record([run.folder for run in whole], cards, recipe="quick")
    table = tomllib.loads(path.read_text())["linear"]
    held_out, on_all = table["results"]  # two measurements: both stay
    assert "train_images" not in held_out
    assert on_all == result and result["train_images"] == 100
    weights = table["weights"]
    assert (weights["seed"], weights["recipe"]) == (3, "quick")
    assert "validation_accuracy" not in weights
    model = zoo.build("linear")
    read_weights(model, cards / "weights" / weights["file"])
    np.testing.assert_allclose(
        np.asarray(model.get_layer("fc").kernel),
        np.asarray(whole[1].model.get_layer("fc").kernel),
        atol=1e-3,
    )
    # Again, and by runs that held images out: what cannot be compared stays.
    record([run.folder for run in whole], cards, recipe="quick")
    assert tomllib.loads(path.read_text())["linear"] == table
    record([run.folder for run in runs[:2]], cards, recipe="quick")
    assert tomllib.loads(path.read_text())["linear"]["weights"] == weights


@pytest.mark.parametrize(
    ("shipped", "goes"),
    [
        ('recipe = "quick"\nvalidation_accuracy = 99.0\n', True),
        ('recipe = "default"\nvalidation_accuracy = 1.0\n', False),
        ("validation_accuracy = 1.0\n", False),  # of a recipe that is not known
        ('recipe = "default"\nvalidation_accuracy = 99.0\n', True),  # on another copy
    ],
)
def test_what_weights_of_every_image_replace(runs, whole, cards, shipped, goes):
    record([runs[0].folder], cards, recipe="quick")
    path = cards / "dense_mlp.toml"
    weights = tomllib.loads(path.read_text())["linear"]["weights"]
    own = f'recipe = "quick"\nvalidation_accuracy = {weights["validation_accuracy"]}\n'
    text = path.read_text()
    assert own in text
    text = text.replace(own, shipped)
    if goes and "default" in shipped:
        text = text.replace(weights["fingerprint"], "0" * 16)
    path.write_text(text)
    record([run.folder for run in whole], cards, recipe="quick")
    now = tomllib.loads(path.read_text())["linear"]["weights"]
    assert (now["seed"] == 3) is goes
    assert ("validation_accuracy" not in now) is goes


def test_one_run_has_no_spread(runs, cards):
    assert "accuracy_std" not in record([runs[0].folder], cards, recipe="quick")


def test_what_is_not_one_result_is_refused(runs, cards):
    with pytest.raises(ValueError, match="differ in recipe"):
        record([runs[0].folder, runs[2].folder], cards, recipe="quick")
    with pytest.raises(ValueError, match=r"did not follow the recipe 'quick'.* epochs"):
        record([runs[2].folder], cards, recipe="quick")
    with pytest.raises(ValueError, match="same seed"):
        record([runs[0].folder] * 2, cards, recipe="quick")
    with pytest.raises(ValueError, match="received none"):
        record([], cards, recipe="quick")
    assert not (cards / "weights").exists()


def test_a_network_of_other_options_is_not_the_cards(cards):
    data = kerascnn.load_data("shapes", images=50)
    run = kerascnn.train(
        "linear",
        data,
        "quick",
        options={"use_bias": False},
        folder=cards / "run",
        progress=False,
    )
    with pytest.raises(ValueError, match=r"'quick' of linear: options is {'use_bias'"):
        record([run.folder], cards, recipe="quick")


def test_weights_that_ship_say_how_their_network_was_built(cards, monkeypatch):
    card = zoo.card("linear")
    recipe = {"epochs": 1, "options": {"use_bias": False}}
    card = registry.Card(**{**vars(card), "recipes": {"short": recipe}})
    known = {**registry.cards(), "linear": card}
    monkeypatch.setattr(registry, "cards", lambda: known)
    data = kerascnn.load_data("shapes", images=50)
    run = kerascnn.train("linear", data, "short", folder=cards / "run", progress=False)
    record([run.folder], cards, recipe="short")
    weights = tomllib.loads((cards / "dense_mlp.toml").read_text())["linear"]["weights"]
    assert weights["options"] == {"use_bias": False}


def test_weights_that_are_to_stay_are_not_touched(runs, cards):
    record([runs[0].folder], cards, recipe="quick", keep_weights=True)
    table = tomllib.loads((cards / "dense_mlp.toml").read_text())["linear"]
    assert table["results"] and "weights" not in table
    assert not (cards / "weights").exists()


def test_a_blank_line_stays_before_the_next_network(cards):
    data = kerascnn.load_data("shapes", images=50)
    run = kerascnn.train(
        "dense_mlp",
        data,
        options={"hidden": (8,)},
        folder=cards / "run",
        progress=False,
    )
    config = read_json(run.folder / "config.json")
    config["recipe"]["options"] = {}  # as the card says; the network is none too slow
    write_json(run.folder / "config.json", config)
    path = cards / "dense_mlp.toml"
    for _ in range(2):  # the second time replaces the result
        record([run.folder], cards, recipe="default", keep_weights=True)
    before, _ = path.read_text().split("[linear]\n")
    assert before.endswith('"\n\n') and not before.endswith("\n\n\n")
