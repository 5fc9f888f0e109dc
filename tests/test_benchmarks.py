"""The benchmarks' common ground: contenders take turns, absent ones are named."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    yield common
    sys.modules.pop("common")


CONTENDER = """
import sys
sys.path.insert(0, {folder!r})
from common import AbsentError, work

def prepare():
    kind = sys.argv[1]
    if kind == "absent":
        raise AbsentError("not on this machine")
    if kind == "broken":
        raise SystemExit(3)
    print("what a library prints is not an answer")
    rounds = iter(range(100))
    return lambda: {{"images": 10 * next(rounds), "seconds": 2}}

work(prepare)
"""


def test_contenders_take_turns(common, tmp_path):
    script = tmp_path / "contender.py"
    script.write_text(CONTENDER.format(folder=str(BENCHMARKS)))
    contenders = [
        common.Contender(kind, [str(script), kind]) for kind in ("a", "b", "absent")
    ]
    found, absent = common.take_turns(contenders, 3, show=lambda text: None)
    assert absent == {"absent": "not on this machine"}
    # The first time, 0 images, is not counted.
    rounds = [{"images": n, "seconds": 2} for n in (10, 20, 30)]
    assert found == {"a": rounds, "b": rounds}
    assert common.median_rate(rounds) == 10

    broken = common.Contender("broken", [str(script), "broken"])
    with pytest.raises(RuntimeError, match="broken ended with exit code 3"):
        common.take_turns([broken], 1, show=lambda text: None)


def test_a_table_has_a_column_for_each_key(common):
    rows = [{"name": "a", "images/s": "1,234"}, {"name": "b", "images/s": "9"}]
    assert common.markdown(rows) == [
        "| name | images/s |",
        "| :-- | --: |",
        "| a | 1,234 |",
        "| b | 9 |",
    ]


def test_the_twins_have_the_parameters_of_the_zoo(common):
    pytest.importorskip("torch", reason="the twins are of PyTorch")
    import torch_twins

    import zoo

    for name in ("lecture_cnn", "dense_mlp", "nin", "resnet20", "airbench94"):
        parameters = list(torch_twins.build(name).parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        assert trained == zoo.card(name).trainable


REPORT = """Running 2s test @ http://127.0.0.1:8501/v1/models/m:predict
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.50ms  600.00us  10.00ms   90.00%
    Req/Sec     2.50k   100.00     3.00k    70.00%
  Latency Distribution
     50%  900.00us
     75%    1.60ms
     90%    2.00ms
     99%    4.00ms
  5000 requests in 2.01s, 1.00MB read
  Socket errors: connect 0, read 1, write 0, timeout 0
  Non-2xx or 3xx responses: 3
Requests/sec:   2500.00
"""


def test_the_report_of_wrk_is_read(common):
    import serving

    measured = serving.read_wrk(REPORT)
    sys.modules.pop("serving")
    assert measured == serving.Round(0.0009, 0.004, 5000, 2.01, 4)


def test_finished_runs_tell_the_time_to_an_accuracy(common, tmp_path):
    import accuracy

    import kerascnn

    data = kerascnn.load_data("shapes", images=100)
    run = kerascnn.train(
        "linear", data, "quick", epochs=2, folder=tmp_path / "run", progress=False
    )
    name, rows = accuracy.read(run.folder)
    sys.modules.pop("accuracy")
    assert name == "linear, 2 epochs, seed 0"
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["seconds"] == pytest.approx(run.metrics["seconds"], abs=0.01)
    last = 100 * run.history[1]["val_accuracy"]
    assert rows[1]["accuracy"] == pytest.approx(last, abs=0.01)
    assert accuracy.first(rows, 0) == rows[0]["seconds"]
    assert accuracy.first(rows, 101) is None


def test_finished_runs_join_those_of_an_earlier_result(common, tmp_path, monkeypatch):
    import accuracy

    sys.modules.pop("accuracy")
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path)
    assert accuracy.kept("accuracy_runs") == {}
    rows = [{"epoch": 1, "seconds": 2.0, "accuracy": 10.0, "on": "1 core"}]
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.write("accuracy_runs", "title", [], {"runs": {"linear": rows}})
    assert accuracy.kept("accuracy_runs") == {"linear": rows}
