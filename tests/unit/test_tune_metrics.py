"""By what the `tune` stage judges its trials: known names, and less of what a network costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from darts_core.errors import ConfigError
from darts_core.metric import Metric
from darts_core.settings import from_plain
from darts_core.stages import trial
from darts_core.stages.schema import TuneStage
from darts_core.stages.tune import _judged, _of_best, _say_uncounted, check_metrics
from darts_core.study.metric_names import less_is_better

TOKENS = SimpleNamespace(metric=Metric("perplexity", "minimize"))
NUMBERS = SimpleNamespace(metric=Metric("r2"))


def stage(**options):
    return from_plain(TuneStage, {"tune": {"options": options}})


@pytest.mark.parametrize(
    ("task", "options", "judged"),
    [
        (TOKENS, {}, ("val_perplexity", "minimize")),
        (NUMBERS, {}, ("val_r2", "maximize")),
        (NUMBERS, {"metric": "val_r2"}, ("val_r2", "maximize")),
        (NUMBERS, {"metric": "params"}, ("params", "minimize")),
        (NUMBERS, {"metric": "latency_ms"}, ("latency_ms", "minimize")),
        (TOKENS, {"metric": "params", "direction": "maximize"}, ("params", "maximize")),
    ],
)
def test_less_of_what_a_network_costs_is_better(task, options, judged):
    assert _judged(stage(**options), task) == judged


@pytest.mark.parametrize("options", [{}, {"metric": "val_r2"}, {"direction": "maximize"}])
def test_a_metric_beside_objectives_is_said_not_to_count(caplog, options):
    two = {"val_r2": "maximize", "params": "minimize"}
    _say_uncounted(stage(**options).tune.options)
    assert caplog.text == ""
    _say_uncounted(stage(**options, objectives=two).tune.options)
    assert caplog.text.count("does not count beside tune.options.objectives") == len(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "val_loss"}, "metric in tune.options.metric 'val_loss'"),
        (
            {"objectives": {"val_r2": "maximize", "latency": "minimize"}},
            "metric in tune.options.objectives 'latency'.*Known: latency_ms, params",
        ),
        ({"constraints": {"param": "<= 9"}}, "metric in tune.options.constraints 'param'"),
    ],
)
def test_a_name_that_no_trial_returns_is_refused_before_any_is_trained(options, words):
    with pytest.raises(ConfigError, match=words):
        check_metrics(stage(**options).tune.options, NUMBERS)


def test_a_sweep_by_what_no_trial_returns_trains_none(tmp_path, monkeypatch):
    told = SimpleNamespace(name="next_token", metric=TOKENS.metric)
    monkeypatch.setattr(trial, "trial_bundle", lambda *_: SimpleNamespace(task=told))
    ways = {"seed": 0, "resumed": False, "decide": lambda *_: None}
    handle = trial.TrialHandle(0, {}, tmp_path, wanted=("val_accuracy",), **ways)
    said = r"'val_accuracy'.*hydra\.sweeper\.metric=val_perplexity hydra\.sweeper\.direction=minimize\.$"
    with pytest.raises(ConfigError, match=said):
        trial.RecipeTrial(stage(), tmp_path)(handle)


def test_names_that_trials_return_pass():
    options = {
        "objectives": {"val_r2": "maximize", "latency_ms": "minimize"},
        "constraints": {"params": "<= 9", "train_seconds": 100},
    }
    check_metrics(stage(**options).tune.options, NUMBERS)
    check_metrics(stage().tune.options, NUMBERS)


def test_the_metric_on_val_is_the_best_trials_whatever_came_first():
    best = SimpleNamespace(metrics={"params": 900.0, "val_r2": 0.5, "train_seconds": 3.0})
    goals = {"params": "minimize", "val_r2": "maximize"}
    found = SimpleNamespace(objectives=goals, best=best, best_value=900.0)
    assert _of_best(found, NUMBERS) == {"params": 900.0, "val_r2": 0.5}
    alone = SimpleNamespace(objectives={"val_r2": "maximize"}, best=best, best_value=0.5)
    assert _of_best(alone, NUMBERS) == {"val_r2": 0.5}


@pytest.mark.parametrize(
    "name",
    [
        "val_loss", "perplexity", "rmse", "val/mse", "latency_ms", "error_rate", "word_error_rate", "nll",
        "mape", "train_seconds", "inference_time", "params", "Test Err", "val_ssim_loss", "time_total_s",
        "validation_0-logloss", "val_cross_entropy", "crossentropy", "bce", "val_rmsle", "smape",
        "brier_score", "ece", "fid", "LPIPS", "eer", "val_bpb", "crps", "fid_score",
        "val_lpips_loss",
    ],
)  # fmt: skip
def test_of_these_less_is_better(name):
    assert less_is_better(name)


@pytest.mark.parametrize(
    "name",
    [
        "val_accuracy", "f1", "glossiness", "ms_ssim", "neg_mean_squared_error", "negative_loss",
        "survival_time", "time_to_failure", "error_detection_score", "inference_fps", "_", "entropy",
        "neg_log_loss", "cross_validation_score", "brier_skill_score", "fid_accuracy", "fid_auc",
    ],
)  # fmt: skip
def test_of_these_nobody_guesses_that_less_is_better(name):
    assert not less_is_better(name)
