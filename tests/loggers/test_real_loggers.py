"""The loggers whose packages do not stand beside the pinned set, in an environment of their own: `make
test-loggers`.
"""

import time

import numpy as np
import pytest

from darts_core.loggers import Loggers, MLflow, WandB
from darts_core.runlog import RunFolder

CONFIG = {"train": {"epochs": 2, "rate": 0.1}, "seed": 0}


def run(folder, logger, caplog):
    made = RunFolder.create(folder, CONFIG, loggers=Loggers([logger]))
    for epoch in range(2):
        made.log_metrics(epoch, val_accuracy=0.5 + epoch / 10, train_loss=1.0 - epoch / 10)
    made.loggers.picture("cells", np.zeros((8, 8, 3), np.uint8), 1)
    (folder / "model.pt").write_bytes(b"m")
    made.finish(val_accuracy=0.6)
    assert "is left out" not in caplog.text


def test_mlflow_keeps_params_metrics_picture_and_model(tmp_path, caplog):
    tracking = pytest.importorskip("mlflow.tracking")
    folder = tmp_path / "job" / "V001" / "train"
    folder.mkdir(parents=True)
    run(folder, MLflow(), caplog)
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("darts-core").experiment_id])
    assert found.data.params["train.rate"] == "0.1"
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "val_accuracy")
    assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.6)]
    assert found.data.metrics["result.val_accuracy"] == 0.6
    assert {"model.pt", "cells-0001.png"} <= {
        a.path for a in client.list_artifacts(found.info.run_id)
    }


def test_a_stage_that_is_resumed_goes_on_in_its_mlflow_run(tmp_path):
    tracking = pytest.importorskip("mlflow.tracking")
    folder = tmp_path / "train"
    folder.mkdir()
    first = MLflow()
    first.start(folder, {"train.rate": 0.1})
    first.metrics(0, {"val_accuracy": 0.5})
    first.close()
    again = MLflow()
    again.start(folder, {"train.rate": 0.1})
    again.metrics(1, {"val_accuracy": 0.6})
    again.finish({"val_accuracy": 0.6}, [])
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("darts-core").experiment_id])
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "val_accuracy")
    assert [m.step for m in history] == [0, 1]


def test_wandb_keeps_an_offline_run(tmp_path, caplog, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "job" / "V001" / "train"
    folder.mkdir(parents=True)
    run(folder, WandB(), caplog)
    (kept,) = folder.glob("wandb/offline-run-*")
    # its own process writes the file, a moment after the run has ended
    end = time.monotonic() + 60
    written = b""
    while b"train_loss" not in written and time.monotonic() < end:
        time.sleep(0.1)
        written = b"".join(path.read_bytes() for path in kept.glob("*.wandb"))
    assert b"train_loss" in written, "the result holds the accuracy, the epochs alone the loss"
    assert b"train.rate" in written
