"""A measured front as a file: a point is picked from it, and it is told in words."""

import json
import math

import pytest

from darts_core.elastic import pick
from darts_core.errors import ConfigError
from darts_core.report.family import family_front, family_headline, family_rows, shrink_section
from darts_core.report.overview import cost_section
from darts_core.report.read import StageRun, VersionRun
from darts_core.report.results import tiles
from darts_core.runlog import write_json
from darts_core.stages.shrink import _say
from darts_core.train.judged import seconds_of_training

FRONT = {
    "points": [
        {"latency_ms": 8.0, "metric": 0.93, "folder": "points/01"},
        {"latency_ms": 4.0, "metric": 0.92, "folder": "points/02"},
        {"latency_ms": 2.0, "metric": 0.80, "folder": "points/03"},
    ]
}


def test_a_point_is_picked_by_latency_by_metric_or_both(tmp_path):
    assert pick(FRONT, latency_ms=5)["folder"] == "points/02"
    assert pick(FRONT, accuracy=0.8)["folder"] == "points/03"
    assert pick(FRONT, accuracy=0.9, latency_ms=9)["folder"] == "points/02"
    (tmp_path / "front.json").write_text(json.dumps(FRONT))
    assert pick(tmp_path, latency_ms=2)["latency_ms"] == 2.0
    errors = {**FRONT, "direction": "minimize"}
    assert pick(errors, latency_ms=9)["metric"] == 0.80
    for wish, words in (
        ({"latency_ms": 1}, "fastest takes 2 ms"),
        ({"accuracy": 0.99}, "best has 0.93"),
        ({"accuracy": 0.9, "latency_ms": 3}, "within 3 ms"),
        ({}, "needs latency_ms"),
    ):
        with pytest.raises(ConfigError, match=words):
            pick(FRONT, **wish)
    with pytest.raises(ConfigError, match="no front"):
        pick({"points": []}, latency_ms=1)


def test_the_test_metric_chooses_nothing_where_val_is_known():
    """The one that is best on test would flatter whoever picks it."""
    points = [
        {"latency_ms": 8.0, "metric": 0.90, "val_metric": 0.93, "folder": "points/01"},
        {"latency_ms": 4.0, "metric": 0.92, "val_metric": 0.91, "folder": "points/02"},
    ]
    assert pick({"points": points}, latency_ms=9)["folder"] == "points/01"
    assert pick({"points": points}, accuracy=0.92)["folder"] == "points/01"
    with pytest.raises(ConfigError, match=r"reaches 0\.95 on val; the best has 0\.93 at 8 ms"):
        pick({"points": points}, accuracy=0.95)


def test_a_point_whose_metric_is_nan_is_worse_than_any_other():
    points = [
        {
            "latency_ms": 8.0,
            "metric": 0.9,
            "val_metric": None,
            "folder": "points/01",
        },  # as in a file
        {"latency_ms": 4.0, "metric": None, "val_metric": math.nan, "folder": "points/02"},
        {"latency_ms": 2.0, "metric": 0.3, "val_metric": 0.4, "folder": "points/03"},
    ]
    for direction in ("maximize", "minimize"):
        front = {"points": points, "direction": direction}
        assert pick(front, latency_ms=9)["folder"] == "points/03"
    with pytest.raises(ConfigError, match=r"the best has 0\.4 at 2 ms"):
        pick({"points": points}, accuracy=0.8)


def test_a_front_is_told_in_words():
    def row(ms, value, **more):
        ends = [value - 0.01, value + 0.01]
        return {"latency_ms": ms, "metric": value, "metric_range": ends, **more}

    content = {
        "metric": "accuracy", "direction": "maximize", "share": True, "runtime": "onnx", "batch": 32,
        "base": row(4.0, 0.8),
        "points": [row(3.0, 0.81, folder="points/01"), row(1.0, 0.78, folder="points/02")],
    }  # fmt: skip
    title, under = family_headline(content, "points/02")
    assert title == "78.0 % test accuracy at 0.25× of the given network's time"
    assert "80.0 % at 4 ms (onnx, batch 32): -2.00 points (standard error 1.41)." in under
    assert "The front has 2 points, 1 to 3 ms." in under
    assert "other work" not in under
    assert family_headline(content, "points/03") is None
    assert family_headline({**content, "base": None}, "points/02") is None
    errors = {**content, "metric": "mean_absolute_error", "direction": "minimize", "share": False}
    # a plus would say that there is more of the error
    assert ": 0.02 mean absolute error better (" in family_headline(errors, "points/02")[1]
    assert ": 0.01 mean absolute error worse (" in family_headline(errors, "points/01")[1]
    assert [one["of its time"] for one in family_rows(content)] == ["1.00×", "0.75×", "0.25×"]
    told = [(one["point"], one["test accuracy, %"]) for one in family_rows(content, "points/02")]
    assert told == [
        ("given", "80.00 ± 1.00"),
        ("01", "81.00 ± 1.00"),
        ("02, picked", "78.00 ± 1.00"),
    ]
    drawn = family_front(content, "points/02")
    assert [(point.label, point.shape) for point in drawn.points] == [
        ("", "cross"), ("01", "circle"), ("02", "star"),
    ]  # fmt: skip
    assert [key.text for key in drawn.keys] == ["sub-network", "picked", "given network"]
    # half a point is within the error: the edge ran up to it, where that of `bench` does not
    more = {**content, "points": [row(3.5, 0.815), *content["points"]]}
    front = family_front(more)
    assert len(front.points) == 4
    assert [point.x for point in front.edge] == [1.0, 3.0]
    assert [point.x for point in family_front({**more, "points": more["points"][:1]}).edge] == [3.5]


def test_a_front_without_a_number_to_judge_by_on_test_ends_in_a_sentence(tmp_path, caplog):
    """A test split of one class has no area under a curve: the network that was picked on val stands."""
    point = {"latency_ms": 2.0, "metric": None, "val_metric": 0.9, "folder": "points/01"}
    front = {"metric": "auc", "base": {"latency_ms": 4.0, "metric": math.nan}, "points": [point]}
    _say(front, pick(front, latency_ms=2), tmp_path)
    (record,) = caplog.records
    assert record.getMessage() == "no network of the front has a test auc that is a number"


def test_a_shrunk_version_is_headed_by_its_pick_against_the_given_network(tmp_path):
    given = {"latency_ms": 4.0, "metric": 0.8, "params": 200, "macs": 4000}
    point = {"latency_ms": 1.0, "metric": 0.78, "params": 50, "macs": 800, "folder": "points/01"}
    front = {"metric": "accuracy", "share": True, "base": given, "points": [point]}
    result = {
        "picked": "points/01", "test_accuracy": 0.78, "val_accuracy": 0.79, "params": 50, "macs": 800,
        "latency_before_ms": 4.0, "latency_after_ms": 1.0,
    }  # fmt: skip
    write_json(tmp_path / "front.json", front)
    stage = StageRun("shrink", tmp_path, result=result, finished=True)
    run = VersionRun(tmp_path, "job", "V001", {"shrink": stage})
    shown = str(tiles(run, [], None))
    assert "-2.00 points vs the given network" in shown
    assert "4× faster than before" in shown
    assert "0.25× the given network&#39;s" in shown
    assert "0.2× the given network&#39;s" in shown
    page = str(shrink_section(run).body)
    assert "01, picked" in page
    stage.result.update(device_seconds=260.0)
    assert "no training has finished" in cost_section(run).note
    stage.result.update(given_training_seconds=100.0)
    assert (
        "Together 2.6 times the device time of training the given network" in cost_section(run).note
    )
    (tmp_path / "front.json").unlink()
    alone = str(tiles(run, [], None))
    assert "78.00" in alone
    assert "given network" not in alone


def test_what_the_given_network_took_is_known_of_a_training_alone(tmp_path):
    assert seconds_of_training(None) == seconds_of_training(tmp_path) == {}
    for result, known in (
        ({"device_seconds": 7.5}, {"given_training_seconds": 7.5}),
        ({"device_seconds": 0.0}, {}),
        ({"device_seconds": "x"}, {}),
        ({"device_seconds": 7.5, "latency_before_ms": 2.0}, {}),  # made of another network
    ):
        write_json(tmp_path / "result.json", result)
        assert seconds_of_training(tmp_path) == known
