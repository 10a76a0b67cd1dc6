"""Loggers: what each is told, several at once, one that fails, one whose package is missing."""

import csv
import json
import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from darts_core.loggers import Csv, Logger, Loggers, MLflow, TensorBoard, WandB, artifacts, flat
from darts_core.runlog import RunFolder

CONFIG = {"train": {"epochs": 2, "rate": 0.1}, "seed": 0}


class Told(Logger):
    """Keeps what it is told; fails where it is asked to."""

    def __init__(self, fails=""):
        self.fails, self.heard = fails, []

    def _hear(self, what, *more):
        self.heard.append((what, *more))
        if what == self.fails:
            raise RuntimeError(f"{what} is out of order")

    def start(self, folder, params):
        self._hear("start", params)

    def metrics(self, epoch, values):
        self._hear("metrics", epoch, dict(values))

    def picture(self, name, image_HWC, epoch):
        self._hear("picture", name, image_HWC.shape, epoch)

    def finish(self, result, files):
        self._hear("finish", dict(result), [path.name for path in files])

    def close(self):
        self._hear("close")


def run(folder, loggers):
    made = RunFolder.create(folder, CONFIG, loggers=Loggers(loggers))
    for epoch in range(2):
        made.log_metrics(
            epoch, val_accuracy=0.5 + epoch / 10, alphas={"a": [1]}, note="x", stopped=False
        )
    made.loggers.picture("cells", np.zeros((4, 5, 3), np.uint8), 1)
    (folder / "model.pt").write_bytes(b"m")
    (folder / "checkpoint.pt").write_bytes(b"c")
    made.finish(val_accuracy=0.6)
    return made


def test_a_logger_is_told_settings_numbers_pictures_result_and_files(tmp_path):
    told = Told()
    run(tmp_path, [told])
    assert [item[0] for item in told.heard] == [
        "start",
        "metrics",
        "metrics",
        "picture",
        "finish",
        "close",
    ]
    assert told.heard[0][1] == CONFIG
    # numbers alone: no truth value, no text, no table
    assert told.heard[2] == ("metrics", 1, {"val_accuracy": 0.6})
    assert told.heard[3] == ("picture", "cells", (4, 5, 3), 1)
    assert told.heard[4][1] == {"val_accuracy": 0.6}
    assert "model.pt" in told.heard[4][2]
    assert "checkpoint.pt" not in told.heard[4][2]


@pytest.mark.parametrize("fails", ["start", "metrics", "picture", "finish", "close"])
def test_a_logger_that_fails_is_named_once_and_ends_nothing(tmp_path, fails, caplog):
    bad, good = Told(fails), Told()
    with caplog.at_level(logging.WARNING, "darts_core"):
        run(tmp_path, [bad, good])
    assert [r.message for r in caplog.records if "Told failed" in r.message] == [
        f"the logger Told failed and is left out from now on: RuntimeError: {fails} is out of order"
    ]
    # it is asked no more, and the other one hears everything
    assert bad.heard[-1][0] == fails
    assert len(good.heard) == 6
    assert json.loads((tmp_path / "result.json").read_text())["val_accuracy"] == 0.6
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_missing_package_is_a_line_in_the_log(tmp_path, caplog, monkeypatch):
    for name in ("wandb", "mlflow", "mlflow.tracking"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with caplog.at_level(logging.WARNING, "darts_core"):
        run(tmp_path, [WandB(), MLflow()])
    assert sum("is left out from now on" in r.message for r in caplog.records) == 2
    assert (tmp_path / "result.json").exists()


def sitting(folder, logger, epoch):
    """A stage that logs one epoch and is killed."""
    RunFolder.create(folder, CONFIG, loggers=Loggers([logger])).log_metrics(epoch, loss=1.0)


@pytest.mark.parametrize(
    ("mode", "begun"),
    [
        ("online", [(None, None), ("r7", "allow"), ("r7", "allow")]),
        # `wandb sync` would replace the first one's numbers by the last one's
        ("offline", [(None, None)] * 3),
    ],
)
def test_a_stage_that_goes_on_goes_on_in_its_run_of_wandb(
    tmp_path, monkeypatch, caplog, mode, begun
):
    asked = []

    def init(**given):
        asked.append((given["id"], given["resume"]))
        return SimpleNamespace(id=given["id"] or "r7", log=lambda row: None)

    package = ModuleType("wandb")
    package.init = init
    monkeypatch.setitem(sys.modules, "wandb", package)
    for epoch in range(3):
        sitting(tmp_path, WandB(mode=mode), epoch)
    assert asked == begun
    assert "is left out" not in caplog.text


def test_runs_of_wandb_are_named_after_their_job_those_of_trials_and_elements_too(
    tmp_path, monkeypatch
):
    names = []
    package = ModuleType("wandb")
    package.init = lambda **given: names.append(given["name"])
    monkeypatch.setitem(sys.modules, "wandb", package)
    version = tmp_path / "runs" / "mine" / "V001"
    version.mkdir(parents=True)
    for marked in (False, True):
        if marked:
            (version / "version.json").touch()
        for stage in ("train", "0/search", "tune/trials/0003"):
            WandB().start(version / stage, CONFIG)
    # a folder that belongs to no job is named by its last three parts
    assert names[0] == "mine/V001/train"
    assert names[3:] == ["mine/V001/train", "mine/V001/0/search", "mine/V001/tune/trials/0003"]


class Tracking:
    """Stands for `MlflowClient`; the store is what all of them share."""

    runs: dict = {}
    stage = "active"

    def __init__(self, tracking_uri):
        pass

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment, run_name):
        run = f"r{len(self.runs)}"
        self.runs[run] = []
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def get_run(self, run):
        if run not in self.runs:
            raise LookupError(run)
        return SimpleNamespace(
            info=SimpleNamespace(experiment_id="1", lifecycle_stage=Tracking.stage)
        )

    def log_param(self, run, name, value):
        assert not self.runs[run], "it stands there with another value"

    def log_metric(self, run, name, value, step=0):
        self.runs[run].append(step)


def test_a_stage_that_goes_on_goes_on_in_its_run_of_mlflow(tmp_path, monkeypatch, caplog):
    package = ModuleType("mlflow.tracking")
    package.MlflowClient = Tracking
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", package)
    monkeypatch.setattr(Tracking, "runs", {})
    for epoch in range(2):
        sitting(tmp_path, MLflow(), epoch)
    assert Tracking.runs == {"r0": [0, 1]}
    # one that was deleted there, or lies in another store, is begun anew, once
    monkeypatch.setattr(Tracking, "stage", "deleted")
    sitting(tmp_path, MLflow(), 2)
    monkeypatch.setattr(Tracking, "stage", "active")
    sitting(tmp_path, MLflow(), 3)
    assert Tracking.runs == {"r0": [0, 1], "r1": [2, 3]}
    monkeypatch.setattr(Tracking, "runs", {})
    sitting(tmp_path, MLflow(), 4)
    assert Tracking.runs == {"r0": [4]}
    assert "is left out" not in caplog.text


def test_csv_holds_each_epoch_once_also_after_a_resume(tmp_path):
    RunFolder.create(tmp_path, CONFIG, loggers=Loggers([Csv()])).log_metrics(0, loss=2.0)
    first = RunFolder.create(tmp_path, CONFIG, loggers=Loggers([Csv()]))
    first.log_metrics(1, loss=1.5)
    # killed, and gone on from the checkpoint before epoch 1
    again = RunFolder.create(tmp_path, CONFIG, loggers=Loggers([Csv()]))
    again.rewind(1)
    again.log_metrics(1, loss=1.25, extra=3.0)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["epoch"], r["loss"], r["extra"]) for r in rows] == [
        ("0", "2.0", ""),
        ("1", "1.25", "3.0"),
    ]


def test_tensorboard_shows_each_epoch_once_also_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, losses in ((0, (2.0, 1.5)), (1, (1.25,))):
        # killed after epoch 1, and gone on from the checkpoint before it
        made = RunFolder.create(tmp_path, CONFIG, loggers=Loggers([TensorBoard()]))
        made.rewind(first)
        for epoch, loss in enumerate(losses, start=first):
            made.log_metrics(epoch, loss=loss)
        made.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(0, 2.0), (1, 1.25)]


def test_tensorboard_is_written_where_it_is_chosen_alone(tmp_path):
    run(tmp_path / "with", [TensorBoard()])
    run(tmp_path / "without", [Csv()])
    assert list((tmp_path / "with").glob("tensorboard/*"))
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_finished_stage_starts_no_logger_again(tmp_path):
    run(tmp_path, [])
    told = Told()
    assert RunFolder.create(tmp_path, CONFIG, loggers=Loggers([told])).finished
    assert told.heard == []


def test_settings_are_told_under_dotted_names():
    assert flat({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": 1, "a.c.d": None, "e": {}}


def test_files_that_are_too_large_stay(tmp_path):
    with (tmp_path / "model.pt").open("wb") as stream:
        stream.truncate(300 * 2**20)
    (tmp_path / "report.html").write_text("x")
    assert [path.name for path in artifacts(tmp_path)] == ["report.html"]


def test_what_a_stage_goes_on_from_stays(tmp_path):
    states = ("checkpoint", "teacher", "policy", "warm_up", "fold0", "fold1")
    for name in (*states, "model", "best"):
        (tmp_path / f"{name}.pt").write_bytes(b"x")
    assert [path.name for path in artifacts(tmp_path)] == ["best.pt", "model.pt"]


def test_the_group_chooses_one_several_or_none():
    from darts_core.commands.compose import compose, session
    from darts_core.errors import ConfigError
    from darts_core.stages.logging import make_loggers

    def made(*overrides):
        config = compose("train", ["architecture=DARTS_V2", *overrides])
        return [type(logger) for logger in make_loggers(config)._left]

    with session():
        assert made() == [TensorBoard]
        assert made("logger=none") == []
        assert made("logger=[csv,tensorboard,wandb,mlflow]") == [Csv, TensorBoard, WandB, MLflow]
        with pytest.raises(ConfigError, match="is refused"):
            made("logger=csv", "+logger.csv.evil._target_=os.system")
        with pytest.raises(ConfigError, match="logger"):
            made("logger=tensorbord")
        # who is told decides nothing of what is computed
        described = [
            compose("train", ["architecture=DARTS_V2", o]).described()
            for o in ("logger=csv", "seed=0")
        ]
        assert described[0] == described[1]
