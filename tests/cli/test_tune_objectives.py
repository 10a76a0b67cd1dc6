"""`darts-core tune` with objectives other than the task's metric."""

from __future__ import annotations

from pathlib import Path

from darts_core import cli
from darts_core.runlog import read_json

SMALL = [
    "data=digits",
    "data.limit=200",
    "train.channels=2",
    "train.layers=1",
    "train.epochs=1",
    "train.batch_size=64",
    "architecture='|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|'",
    "job=p",
]


def test_the_metric_on_val_holds_no_other_objective(tmp_path: Path) -> None:
    goals = "tune.options.objectives={params: minimize, val_accuracy: maximize}"
    assert cli.main(["tune", *SMALL, "tune.trials=1", goals, f"out={tmp_path}"]) == 0
    result = read_json(next(tmp_path.glob("p/V001/tune/result.json")))
    (trial,) = result["trials"]
    assert trial["values"] == [result["params"], result["val_accuracy"]]
    assert result["best_value"] == result["params"] > 1
    assert 0 <= result["val_accuracy"] <= 1
