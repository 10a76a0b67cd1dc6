"""Who is told of a trial of `tune`: the loggers of `logger=`, in the trial's own folder."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
import torch

from darts_core.metric import Metric
from darts_core.settings import from_plain
from darts_core.stages import trial as module
from darts_core.stages.schema import TuneStage
from darts_core.study.trial import Pruned, TrialHandle


@pytest.fixture
def objective(tmp_path, monkeypatch):
    """A trial whose training reports two epochs of its own."""

    def fit(model, bundle, settings, *, on_epoch, **_):
        for epoch in range(2):
            on_epoch(epoch, {"epoch": epoch, "val_accuracy": 0.5 + epoch / 10})
        return SimpleNamespace(val=0.6, train_seconds=2.0)

    task = SimpleNamespace(metric=Metric("accuracy"))
    network = SimpleNamespace(make=lambda: torch.nn.Linear(2, 1))
    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(module, "recipe", lambda config, folder: None)
    monkeypatch.setattr(module, "find_network", lambda config, version, bundle: network)
    monkeypatch.setattr(
        module, "trial_bundle", lambda config, device: SimpleNamespace(task=task, input_shape=(2,))
    )
    logger = {"csv": {"_target_": "darts_core.loggers.Csv"}}
    config = from_plain(TuneStage, {"device": "cpu", "logger": logger})
    return module.RecipeTrial(config, tmp_path)


def run(objective, folder, ends=None):
    folder.mkdir()
    handle = TrialHandle(
        0, {}, folder, seed=0, resumed=False, decide=lambda epoch, _: ends if epoch else None
    )
    return objective(handle)


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return [(r["epoch"], r["val_accuracy"], r["params"]) for r in csv.DictReader(stream)]


def test_a_trial_is_told_to_the_chosen_loggers_epoch_by_epoch(objective, tmp_path):
    assert run(objective, tmp_path / "0000")["val_accuracy"] == 0.6
    assert rows(tmp_path / "0000") == [("0", "0.5", "3.0"), ("1", "0.6", "3.0")]


def test_what_ended_a_trial_early_is_told_too(objective, tmp_path):
    with pytest.raises(Pruned, match="behind the others"):
        run(objective, tmp_path / "0001", ends="behind the others")
    assert [row[0] for row in rows(tmp_path / "0001")] == ["0", "1"]
