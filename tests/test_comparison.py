"""Comparisons of models, their pictures, the MLP twin of a CNN, the ranking."""

import csv
import io
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

import zoo
from kerascnn.comparison import (
    COLUMNS,
    DEFAULT_COLUMNS,
    Accuracy,
    Comparison,
    Entry,
    board,
    compare,
    ranking,
)
from kerascnn.graph import bottlenecks, trace, without_weights
from kerascnn.plotting.comparison import bars, scatter
from kerascnn.summary import summarize
from kerascnn.twin import mlp_twin
from zoo.lecture_cnn import lecture_cnn
from zoo.references import HUMAN, SLIDE
from zoo.registry import Published


@dataclass
class StubRun:
    """As much of a run as a comparison reads."""

    model: keras.Model
    name: str = "lecture_cnn"
    data: str = "cifar10"
    accuracy: float | None = 71.25
    folder: Path = Path("runs/lecture_cnn-1")

    @property
    def config(self):
        return {"data": {"name": self.data}}

    @property
    def metrics(self):
        return {} if self.accuracy is None else {"test_accuracy": self.accuracy}


@pytest.fixture(scope="module")
def cnn():
    with without_weights():
        return lecture_cnn()


@pytest.fixture
def weightless():
    """For models that are looked at, and compute nothing."""
    with without_weights():
        yield


@pytest.fixture
def cards(monkeypatch):
    """Give cards results and published figures of their own."""

    def change(name, **fields):
        card = zoo.card(name)
        for key, value in fields.items():
            monkeypatch.setitem(vars(card), key, value)

    return change


def result(**fields):
    return {
        "data": "cifar10",
        "recipe": "default",
        "accuracy_mean": 75.5,
        "accuracy_std": 0.25,
        "seeds": [0, 1, 2],
        "epochs": 30,
        **fields,
    }


def made(name, parameters, macs, published=None, measured=None, std=None):
    return Entry(
        name=name,
        kind="zoo",
        trainable=parameters,
        non_trainable=0,
        macs=macs,
        depth=3,
        memory=None,
        published=None if published is None else Accuracy(published),
        measured=None if measured is None else Accuracy(measured, std=std),
    )


def test_names_are_read_from_their_cards():
    comparison = compare("lecture_cnn", "dense_mlp")
    first, second = comparison.entries
    assert (first.parameters, second.parameters) == (33_120, 34_083_840)
    assert (first.macs, first.depth, first.weight_bytes) == (6_558_720, 4, 132_480)
    assert comparison.rows()[1]["ratio"] == pytest.approx(34_083_840 / 33_120)
    text = str(comparison)
    for part in ("1,029×", "34,083,840", "6,558,720", "129.4 KiB"):
        assert part in text
    # The slide's number, and why it is wrong.
    assert "35,107,840" in text and "1,024,000 too high" in text
    assert "35,107,840" not in str(compare("dense_mlp", notes=False))


def test_names_need_neither_keras_nor_a_build():
    code = (
        "import sys; from kerascnn.comparison import compare; "
        "str(compare('lecture_cnn', 'dense_mlp')); "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_memory_builds_no_weights(cnn):
    columns = (*DEFAULT_COLUMNS, "memory")
    comparison = compare("lecture_cnn", "dense_mlp", cnn, columns=columns)
    memory = [entry.memory for entry in comparison.entries]
    assert memory[0] == memory[2] == summarize(cnn).memory == 219_216
    # 3072·2 pixels, 8192 + 1024 + 512 + 10·2 units; Flatten has none of its own.
    assert memory[1] == 4 * (2 * 3072 + 8192 + 1024 + 512 + 20)
    assert "214.1 KiB" in str(comparison)
    assert "Activations" not in str(compare("lecture_cnn"))


def test_a_keras_model_is_counted(cnn):
    (entry,) = compare(cnn).entries
    card = compare("lecture_cnn").entries[0]
    for key in ("trainable", "non_trainable", "macs", "depth", "parameters"):
        assert getattr(entry, key) == getattr(card, key)
    assert (entry.kind, entry.published, entry.measured) == ("model", None, None)


def test_a_run_brings_its_accuracy(cnn, cards):
    cards("lecture_cnn", published=(Published(80.0, "one run", "a paper"),))
    (entry,) = compare(StubRun(cnn)).entries
    assert (entry.kind, entry.name, entry.parameters) == ("run", "lecture_cnn", 33_120)
    assert entry.measured.percent == 71.25
    assert entry.published.percent == 80.0
    assert compare(StubRun(cnn, accuracy=None)).entries[0].measured is None
    assert compare(StubRun(cnn, name="mine")).entries[0].published is None


def test_a_run_folder_is_read(cnn, tmp_path, monkeypatch):
    module = SimpleNamespace(load_run=lambda folder: StubRun(cnn, folder=Path(folder)))
    monkeypatch.setitem(sys.modules, "kerascnn.training", module)
    for folder in (tmp_path, str(tmp_path)):
        (entry,) = compare(folder).entries
        assert entry.measured.percent == 71.25
        assert str(tmp_path) in entry.measured.source


def test_a_file_is_counted_under_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="mine")
    model.save("seq.keras")
    for file in ("seq.keras", Path("seq.keras")):
        second = compare("linear", file).entries[1]
        assert (second.name, second.kind, second.parameters) == (
            "seq.keras",
            "model",
            15,
        )
    for missing in ("none.keras", Path("none.keras"), "some/folder.keras"):
        with pytest.raises(FileNotFoundError, match=r"\.keras does not exist"):
            compare(missing)


def test_rows_of_one_name_are_told_apart(cnn):
    runs = StubRun(cnn), StubRun(cnn, folder=Path("runs/lecture_cnn-2"))
    names = [entry.name for entry in compare("lecture_cnn", *runs, cnn).entries]
    folders = [f"lecture_cnn (runs/lecture_cnn-{number})" for number in (1, 2)]
    assert names == ["lecture_cnn", *folders, "lecture_cnn (model)"]


def test_the_data_of_the_accuracies(cnn, cards):
    cards("lecture_cnn", results=(result(), result(data="shapes", accuracy_mean=99.0)))
    shapes = StubRun(cnn, data="shapes", accuracy=98.0)
    comparison = compare("lecture_cnn", shapes)
    assert comparison.data == "shapes"
    assert [e.measured.percent for e in comparison.entries] == [99.0, 98.0]
    mixed = compare("lecture_cnn", shapes, StubRun(cnn), notes=False)
    assert mixed.data == "cifar10"
    assert "98.00 on shapes" in str(mixed)
    keys = [mixed.accuracy(entry, "measured") for entry in mixed.entries]
    assert [a and a.percent for a in keys] == [75.5, None, 71.25]
    assert "a human" in str(mixed) and "a human" not in str(comparison)


def test_measured_is_the_default_recipe_not_the_best(cards):
    cards("lecture_cnn", results=(result(recipe="best", accuracy_mean=80), result()))
    (entry,) = compare("lecture_cnn").entries
    assert str(entry.measured) == "75.50 ± 0.25 (n=3)"
    cards("lecture_cnn", results=(result(seeds=[0, 1]),))
    assert compare("lecture_cnn").entries[0].measured.seeds == 2
    cards("lecture_cnn", results=(result(seeds=[0], accuracy_std=0.0),))
    assert str(compare("lecture_cnn").entries[0].measured) == "75.50"


def test_published_says_how_far_it_was_checked(cards):
    figure = Published(94.16, "best run", "a paper", confidence="remembered")
    cards("lecture_cnn", published=(figure, Published(93.0, "mean", "a paper")))
    comparison = compare("lecture_cnn")
    assert "94.16 (remembered)" in str(comparison)
    row = comparison.rows()[0]
    assert row["published_confidence"] == "remembered"
    assert row["published_source"] == "a paper, best run"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: compare(), ValueError, "at least one model; the zoo has .*lecture"),
        (lambda: compare("lecture_cn"), ValueError, "did you mean lecture_cnn"),
        (lambda: compare(3), TypeError, "received int"),
        (
            lambda: compare("lecture_cnn", columns=["speed"]),
            ValueError,
            "columns are parameters, .*; received speed",
        ),
    ],
)
def test_errors_say_what_was_received(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_csv_json_and_markdown_say_the_same(cards):
    cards("lecture_cnn", results=(result(),))
    cards("dense_mlp", results=())
    comparison = compare("lecture_cnn", "dense_mlp")
    data = json.loads(comparison.to_json())
    lines = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert data["data"] == "cifar10"
    assert data["rows"] == comparison.rows()
    assert [int(line["parameters"]) for line in lines] == [33_120, 34_083_840]
    assert lines[0]["measured"] == "75.5" and lines[1]["measured"] == ""
    assert data["rows"][1]["measured"] is None
    markdown = comparison.to_markdown()
    assert "| lecture_cnn | 33,120 |" in markdown and "35,107,840" in markdown


@pytest.mark.parametrize("width", [10, 30, 60, 90])
def test_widths_are_respected(width):
    comparison = compare("lecture_cnn", "dense_mlp")
    text = comparison.to_text(width=width, ascii=True)
    assert text.isascii() and max(map(len, text.splitlines())) <= width


def test_columns_can_be_chosen():
    comparison = compare("lecture_cnn", columns=("depth", "macs"), notes=False)
    assert str(comparison).splitlines()[0].split() == ["Model", "Depth", "MACs"]
    assert set(DEFAULT_COLUMNS) < set(COLUMNS)


def words(figure):
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    return texts, [t.get_text() for t in figure.legends[0].get_texts()]


def cluster(count=14):
    """Models of nearly the same accuracy and size: where names would overlap."""
    return tuple(
        made(
            f"network_{i}",
            10**6 + 30_000 * i,
            10**8 + 4_000_000 * i,
            published=92.5 + 0.1 * (i % 5),
            measured=91 + 0.1 * i if i % 3 == 0 else None,
            std=0.3,
        )
        for i in range(count)
    )


def test_the_picture_names_every_model_once_in_each_panel():
    entries = (*cluster(), made("small", 5_000, 10**5, measured=40.0))
    entries += (made("nobody", 10, 10), made("no_macs", 10**5, None, published=80.0))
    figure = scatter(Comparison(entries), HUMAN)
    parameters, macs = figure.axes
    names = sorted(e.name for e in entries if e.published or e.measured)
    assert sorted(t.get_text() for t in parameters.texts) == names
    assert sorted(t.get_text() for t in macs.texts) == sorted({*names} - {"no_macs"})
    assert parameters.get_xscale() == macs.get_xscale() == "log"
    assert "Parameters" in parameters.get_xlabel()
    assert "Multiply-accumulates" in macs.get_xlabel()
    assert "accuracy" in parameters.get_ylabel()
    title = figure.get_suptitle()
    assert "nobody" in title and "no_macs (MACs)" in title
    legend = " ".join(words(figure)[1])
    assert "measured" in legend and "published" in legend
    assert "human: 94 %, 95 % interval 91.2 to 95.9" in legend


def test_models_that_nobody_asked_for_are_dots_without_a_name():
    entries = (*cluster(), made("small", 5_000, 10**5, measured=40.0))
    figure = scatter(Comparison(entries), HUMAN, named=("network_3", "small"))
    for axes, cost in zip(figure.axes, ("parameters", "macs"), strict=True):
        assert {t.get_text() for t in axes.texts} == {"network_3", "small"}
        dots = [line for line in axes.lines if line.get_marker() == "."]
        numbers = [a for e in entries for a in (e.published, e.measured) if a]
        assert len(dots) == len(numbers) - 3  # network_3 has two, small has one
        # The axis begins where the data is.
        least, most = (
            np.log10(f(getattr(e, cost) for e in entries)) for f in (min, max)
        )
        left, right = np.log10(axes.get_xlim())
        assert left < least and most < right
        assert max(least - left, right - most) < 0.12 * (right - left)
    assert "the same of other networks" in words(figure)[1]
    assert (
        "the same of other networks" not in words(scatter(Comparison(entries), None))[1]
    )


def test_the_names_in_a_picture_do_not_overlap():
    figure = scatter(Comparison(cluster()), HUMAN)
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        frame = axes.get_window_extent(renderer)
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        assert len(boxes) == 14
        assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
        assert all(frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
        pairs = itertools.combinations(boxes, 2)
        assert not any(one.overlaps(other) for one, other in pairs)


def test_points_stand_where_the_numbers_are():
    entries = (made("a", 1000, 5000, measured=70.0), made("b", 9000, 100, 90.0))
    figure = scatter(Comparison(entries), None)
    for axes, cost in zip(figure.axes, ("parameters", "macs"), strict=True):
        points = {
            (line.get_xdata()[0], line.get_ydata()[0])
            for line in axes.lines
            if len(line.get_xdata()) == 1
        }
        assert points == {
            (getattr(entries[0], cost), 70.0),
            (getattr(entries[1], cost), 90.0),
        }
    assert "human" not in " ".join(words(figure)[1])


def test_without_accuracies_the_picture_shows_bars():
    entries = (made("a", 33_120, 6_558_720), made("b", 34_083_840, None))
    figure = bars(Comparison(entries))
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in left.texts] == ["33,120", "34,083,840"]
    assert [t.get_text() for t in right.texts] == ["6,558,720", "unknown"]
    # A bar ends where its number is, on the logarithmic scale.
    assert [b.get_x() + b.get_width() for b in left.patches] == [33_120, 34_083_840]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_pictures_are_written(ending, tmp_path, cards):
    cards("dense_mlp", results=(result(accuracy_mean=57.0),))
    for names in (("lecture_cnn", "linear"), ("lecture_cnn", "dense_mlp")):
        path = tmp_path / f"{names[1]}.{ending}"
        assert compare(*names).plot(path) == path
        assert path.stat().st_size > 10_000
    with pytest.raises(ValueError, match="xyz"):
        compare("lecture_cnn").plot(tmp_path / "picture.xyz")


# The MLP twin


def test_the_twin_of_the_lectures_cnn(cnn):
    twin = mlp_twin(cnn)
    assert twin.sizes == (3072, 8192, 1024, 512, 10)
    assert twin.parameters == 34_083_840
    assert str(twin.parameters) == (
        "3072·8192 + 8192·1024 + 1024·512 + 512·10 = 34,083,840"
    )
    assert "16·16·32 = 8,192" in str(twin)
    assert mlp_twin(cnn, bias=True).parameters == 34_093_578
    with without_weights():
        built = twin.build(name="twin")
        assert built.count_params() == twin.parameters
        assert mlp_twin(built).sizes == twin.sizes
        with_bias = mlp_twin(cnn, bias=True).build()
        assert with_bias.count_params() == 34_093_578


def test_a_small_twin_computes():
    twin = mlp_twin(lecture_cnn((8, 8, 1), classes=3))
    model = twin.build(classifier_activation=None)
    assert model(np.zeros((2, 8, 8, 1))).shape == (2, 3)
    assert model.count_params() == twin.parameters


def test_a_twin_that_does_not_fit_is_refused(cnn):
    twin = mlp_twin(cnn)
    needed = 4 * 34_083_840
    with pytest.raises(MemoryError, match=rf"{needed:,} bytes .*1,000,000 bytes"):
        twin.build(limit=1_000_000)
    with without_weights():
        vgg = keras.applications.VGG19(weights=None)
    huge = mlp_twin(vgg)
    assert huge.sizes[:3] == (150_528, 224 * 224 * 64, 112 * 112 * 64)
    with pytest.raises(MemoryError, match=f"{4 * huge.parameters:,} bytes .*TiB"):
        huge.build()


def test_branches_are_one_layer_of_the_twin(weightless):
    image = keras.Input((8, 8, 3))
    x = layers.Rescaling(2.0)(image)
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Concatenate()(
        [
            layers.Conv2D(2, 1)(x),
            layers.Conv2D(5, 3, padding="same")(layers.Conv2D(2, 1)(x)),
            layers.MaxPooling2D(3, 1, padding="same")(x),
        ]
    )  # (8, 8, 11)
    x = layers.MaxPooling2D(2)(x)
    y = layers.Conv2D(11, 3, padding="same")(x)
    x = keras.ops.relu(layers.Conv2D(11, 3, padding="same")(y) + x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(10)(layers.Dropout(0.5)(x))
    model = keras.Model(image, layers.Softmax()(x))
    twin = mlp_twin(model)
    # Image; first convolution; the block's pooled end; the residual block's; classes.
    assert twin.sizes == (192, 8 * 8 * 4, 4 * 4 * 11, 11, 10)


def test_bottlenecks_are_what_every_way_passes(weightless):
    image = keras.Input((4,))
    a = layers.Dense(3)(image)
    model = keras.Model(image, layers.Add()([layers.Dense(3)(a), a]))
    graph = trace(model)
    shapes = [x.shape[1] for x in bottlenecks(graph, graph.outputs[0])]
    # The image, the first layer, the sum; not the layer in the branch.
    assert shapes == [4, 3, 3]
    around = keras.Model(image, layers.Concatenate()([layers.Dense(3)(image), image]))
    graph = trace(around)
    assert [x.shape[1] for x in bottlenecks(graph, graph.outputs[0])] == [4, 7]


def test_the_twin_of_a_network_with_nested_models_and_several_outputs(weightless):
    block = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Conv2D(2, 3), layers.MaxPooling2D(2)]
    )
    image = keras.Input((8, 8, 2))
    x = block(image)
    side = layers.Dense(4)(layers.Flatten()(x))
    out = layers.Dense(5)(layers.Flatten()(layers.Conv2D(3, 3)(x)))
    twin = mlp_twin(keras.Model(image, [out, side]))
    assert twin.sizes == (128, 3 * 3 * 2, 3, 5)


def test_twins_of_what_has_none(weightless):
    a, b = keras.Input((4,)), keras.Input((4,))
    two = keras.Model([a, b], layers.Add()([a, b]))
    with pytest.raises(ValueError, match="with one input; received"):
        mlp_twin(two)
    with pytest.raises(ValueError, match="built Sequential or functional"):
        mlp_twin(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="leaves the size of its images open"):
        mlp_twin(keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)]))
    with pytest.raises(ValueError, match=r"takes images .*are \(4,\)"):
        mlp_twin(keras.Sequential([keras.Input((4,)), layers.Dense(3)])).build()


# The zoo's previews on the last slide, where they are in the zoo.


@pytest.mark.parametrize(
    ("name", "macs", "depth"),
    [
        ("lecture_cnn", 6_558_720, 4),
        ("vgg19_imagenet", 19_632_062_464, 19),
        ("googlenet_imagenet", 1_582_671_872, 22),
    ],
)
def test_the_zoo_at_full_size(name, macs, depth):
    card = zoo.card(name)
    with without_weights():
        model = zoo.build(name, card.input_shape, card.classes)
    summary = summarize(model)
    assert (summary.macs, summary.depth) == (macs, depth) == (card.macs, card.depth)
    assert summary.parameters == card.parameters
    assert mlp_twin(model).sizes[-1] == card.classes


def test_the_best_published_accuracy_comes_first_and_no_network_is_lost():
    cards = ranking().cards
    assert sorted(card.name for card in cards) == sorted(zoo.names())
    best = [max((p.accuracy for p in card.published), default=0) for card in cards]
    assert best == sorted(best, reverse=True)
    assert cards[0].name == "fractional_max_pooling"  # the head of the lecture's slide


def test_the_human_stands_among_the_networks():
    rows = ranking().table().rows
    (place,) = [i for i, row in enumerate(rows) if row["name"] == "(human)"]
    before, after = rows[place - 1]["name"], rows[place + 1]["name"]
    assert zoo.card(before).best_published.accuracy > HUMAN.accuracy
    assert zoo.card(after).best_published.accuracy <= HUMAN.accuracy
    assert "400 test images" in rows[place]["conditions"]


def test_networks_without_a_published_accuracy_are_held_against_nobody():
    names = [row["name"] for row in ranking("l*e*_*nn").table().rows]
    assert names == ["lecture_cnn"]


def test_a_row_says_how_a_figure_came_about():
    (row,) = ranking("lecture_cnn").table().rows
    result = zoo.card("lecture_cnn").measured()
    assert row["measured"].startswith(f"{result['accuracy_mean']:.2f}")
    assert row["weights"] == "ship"
    rows = {row["name"]: row for row in ranking("resnet*").table().rows}
    assert "flip and shift" in rows["resnet110"]["conditions"]
    assert rows["resnet110"]["published"] == "93.68"
    others = {row["name"]: row for row in ranking("fractional*").table().rows}
    assert others["fractional_max_pooling"]["published"] == "96.53 (second-hand)"
    assert rows["resnet110"]["year"] == zoo.card("resnet110").paper.year
    assert rows["resnet110"]["macs"] > 250e6


def test_no_name_matches():
    with pytest.raises(zoo.UnknownNetworkError, match=r"did you mean .*resnet20"):
        ranking("resnet21")


def test_the_picture_of_the_ranking(tmp_path, monkeypatch):
    assert ranking("*cnn*").plot(tmp_path / "ranking.png").stat().st_size > 10_000
    named = []
    monkeypatch.setattr(
        Comparison, "plot", lambda self, path, names: named.append(names)
    )
    ranking().plot("all.png")
    ranking("vgg*").plot("some.png")
    assert named == [SLIDE, None]  # whoever asks by a pattern sees every name
    assert set(SLIDE) < set(zoo.names())


def test_the_board_has_every_result_beside_what_was_published():
    rows = board().rows
    results = [
        (name, result)
        for name in zoo.names()
        for result in zoo.card(name).results
        if result["data"] == "cifar10"
    ]
    assert len(rows) == len(results) > 5
    means = [sum(row["accuracies"]) / len(row["accuracies"]) for row in rows]
    assert means == sorted(means, reverse=True)
    row = next(row for row in rows if row["name"] == "cuda_convnet")
    (accuracy,) = row["accuracies"]
    assert row["gap"] == pytest.approx(accuracy - 82)  # 18 % error, its author says
    (row,) = board("linear").rows  # nobody published an accuracy of it
    assert row["published"] is None and row["gap"] is None


def test_a_board_without_results_says_so():
    assert board("*", data="shapes").rows == []
    assert "nothing was measured" in str(board("*", data="shapes"))
