"""The number of epochs as one of the settings that are searched: how long a trial is then."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from darts_core.study import run_study
from darts_core.study.budget import Budget
from darts_core.study.spec import StudySpec
from hydra_plugins.darts_sweeper._config import DartsSweeperConfig
from hydra_plugins.darts_sweeper._sweep import _settings, _spec

SPACE = {"epochs": {"low": 2, "high": 12}, "top": {"low": 0.0, "high": 1.0}}


def trains(trial):
    """As many epochs as the setting says; equal curves for equal `top`."""
    for epoch in range(trial.params["epochs"]):
        trial.report(epoch, val_accuracy=trial.params["top"] * (epoch + 1) / 12)
    return {"val_accuracy": trial.params["top"]}


def study(folder, *points, **options):
    enqueue = [{"epochs": epochs, "top": top} for epochs, top in points]
    return run_study(
        trains, SPACE, folder=folder, trials=len(points), enqueue=enqueue, sampler="random", **options
    )  # fmt: skip


@pytest.mark.parametrize("pruner", ["hyperband", {"name": "asha", "promote": False}, "asha"])
def test_a_trial_may_be_longer_than_the_configured_training(tmp_path, pruner):
    settings = {"epochs_per_trial": 4, "epochs_setting": "epochs", "training_seconds": 10.0}
    result = study(tmp_path, (4, 0.5), (12, 0.5), pruner=pruner, **settings)
    assert [(r.state, r.epochs) for r in result.trials] == [("complete", 4), ("complete", 12)]
    # the most that may be used: two trials of twelve epochs, of which four take ten seconds
    assert result.forecast["epochs"] == 24
    assert result.forecast["device_seconds"] == pytest.approx(60.0)


def test_a_shorter_trial_is_fully_trained_after_its_own_epochs(tmp_path):
    pruner = {"name": "asha", "min_resource": 3}
    settings = {"epochs_per_trial": 9, "epochs_setting": "epochs", "pruner": pruner}
    result = study(tmp_path, (9, 0.9), (9, 0.8), (9, 0.7), (3, 0.1), **settings)
    # its last epoch is a rung, at which it is the worst
    assert (result.trials[3].state, result.trials[3].epochs) == ("complete", 3)


def test_where_nobody_says_how_long_a_trial_is_a_longer_one_goes_on(tmp_path):
    result = study(tmp_path, (3, 0.5), (6, 0.5), pruner="hyperband")
    assert [(r.state, r.epochs) for r in result.trials] == [("complete", 3), ("complete", 6)]


def test_a_configured_length_beyond_the_searched_ones_counts(tmp_path):
    made = StudySpec.make(
        {"epochs": {"choices": [3, 9]}}, Budget(trials=2, epochs_per_trial=27), folder=tmp_path,
        epochs_setting="epochs",
    )  # fmt: skip
    assert (made.budget.epochs_per_trial, made.budget.stretch) == (27, 1.0)


@pytest.mark.parametrize("key", ["train.epochs", "++train.epochs"])
def test_a_sweep_over_the_epochs_knows_the_longest_trial(tmp_path, key):
    config = OmegaConf.create(
        {
            "train": {"epochs": 3},
            "hydra": {
                "launcher": {
                    "_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
                }
            },
        }
    )

    def spec(**own):
        plain = _settings({**asdict(DartsSweeperConfig()), "folder": str(tmp_path), **own}, config)
        return _spec(plain, {key: {"low": 2, "high": 9}}, config)

    made = spec()
    assert (made.epochs_setting, made.budget.epochs_per_trial) == (key, 9)
    # a length that is given to the sweeper is meant
    assert spec(epochs_per_trial=3).budget.epochs_per_trial == 3
