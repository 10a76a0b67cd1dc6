"""What a trial returns and reports, how it fails, and descriptions of a study that are refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from optuna.trial import TrialState, create_trial
from tune_cases import SPACE, curve

from darts_core.errors import TuneError
from darts_core.study import current_trial, run_study
from darts_core.study.accounts import Tally
from darts_core.study.budget import Budget
from darts_core.study.child import _plain
from darts_core.study.launch import check_failures
from darts_core.study.ledger import Ledger
from darts_core.study.records import parse_constraints
from darts_core.study.runner import _how
from darts_core.study.samplers import _tell_few_whole, _tell_of_constraints
from darts_core.study.spec import StudySpec


def test_an_exception_fails_its_trial_only_and_keeps_the_traceback(tmp_path):
    def breaks(trial):
        if trial.number == 1:
            raise ValueError("no such layer")
        return curve(trial)

    result = run_study(breaks, SPACE, folder=tmp_path, trials=4)
    assert result.trials[1].state == "fail"
    assert result.trials[1].reason == "ValueError: no such layer"
    text = json.loads((tmp_path / "trials/0001/result.json").read_text())["traceback"]
    assert "in breaks" in text


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"loss": 1.0}, r"objective 'val_accuracy' is missing from the trial's metrics \(loss\)"),
        ({"val_accuracy": math.nan}, "objective 'val_accuracy' is nan"),
        (math.inf, "objective 'val_accuracy' is inf"),
        ({"val_accuracy": "high"}, "objective 'val_accuracy' is 'high'"),
        (None, "The trial returned NoneType"),
    ],
)
def test_a_bad_objective_fails_the_trial_by_name(tmp_path, outcome, reason):
    with pytest.raises(TuneError, match=reason):
        run_study(lambda trial: outcome, SPACE, folder=tmp_path, trials=2)


@pytest.mark.parametrize("kind", [np.float32, torch.tensor])
def test_numbers_of_numpy_and_torch_are_numbers(tmp_path, kind):
    def objective(trial):
        for epoch in np.arange(2):
            trial.report(epoch, val_accuracy=kind(0.25), size=kind(0.5))
        both = {"val_accuracy": kind(0.75), "size": kind(0.5)}
        return kind(0.75) if trial.number else both

    result = run_study(objective, SPACE, folder=tmp_path, trials=2, pruner="none")
    assert [(r.state, r.value, r.curve) for r in result.trials] == [
        ("complete", 0.75, {0: 0.25, 1: 0.25})
    ] * 2
    assert result.trials[0].metrics == {"val_accuracy": 0.75, "size": 0.5}
    rows = [json.loads(line) for line in (tmp_path / "trials/0000/metrics.jsonl").open()]
    assert [(row["epoch"], row["size"]) for row in rows] == [(0, 0.5), (1, 0.5)]


def test_a_process_sends_plain_numbers():
    assert _plain(torch.tensor(0.5)) == 0.5
    sent = _plain({"loss": torch.tensor(0.5), "acc": np.float32(0.25)})
    assert [type(value) for value in sent.values()] == [float, float]


@pytest.mark.parametrize("epoch", [-1, 0.5, math.nan, "1"])
def test_an_epoch_that_is_no_whole_number_is_told(tmp_path, epoch):
    with pytest.raises(TuneError, match="epochs count from 0"):
        run_study(lambda trial: trial.report(epoch), SPACE, folder=tmp_path, trials=2)


def test_a_reported_nan_fails_the_trial_by_name_instead_of_pruning_it(tmp_path):
    def diverges(trial):
        if trial.number == 1:
            trial.report(0, val_accuracy=0.5)
            trial.report(1, val_accuracy=math.nan)
        return curve(trial)

    result = run_study(diverges, SPACE, folder=tmp_path, trials=3, pruner="none")
    assert [r.state for r in result.trials] == ["complete", "fail", "complete"]
    assert "objective 'val_accuracy' is nan after epoch 1" in result.trials[1].reason


def test_too_many_failures_stop_the_study_with_a_summary(tmp_path):
    calls = []

    def breaks(trial):
        calls.append(trial.number)
        raise RuntimeError("device lost")

    with pytest.raises(TuneError, match=r"4 of 4 .* trials 0, 1, 2, 3: RuntimeError: device lost"):
        run_study(breaks, SPACE, folder=tmp_path, trials=50)
    # mended or not: what can be done is said
    with pytest.raises(TuneError, match=r"max_failure_share=0\.5 .* move the study's folder away"):
        run_study(curve, SPACE, folder=tmp_path, trials=50)
    assert len(calls) == 4


def test_trials_that_wait_at_a_rung_have_not_failed(tmp_path):
    def sometimes(trial):
        if trial.number in (1, 4, 6, 9):
            raise RuntimeError("out of memory")
        return curve(trial, epochs=9)

    # the first trials to end are these four: the others wait after their first epochs
    result = run_study(
        sometimes, SPACE, folder=tmp_path, trials=12, epochs_per_trial=9, sampler="random"
    )
    states = [r.state for r in result.trials]
    assert len(states) == 12
    assert [number for number, state in enumerate(states) if state == "fail"] == [1, 4, 6, 9]
    assert result.best.epochs == 9


@pytest.mark.parametrize("reason", ["pruned after epoch 1 with val_accuracy 0.5", ""])
def test_a_trial_that_goes_on_from_its_rung_counts_as_before(reason):
    """As it does with several workers, of which one claims while another's promoted trial runs."""
    trials = [create_trial(state=TrialState.FAIL) for _ in range(4)]
    trials += [
        create_trial(state=TrialState.RUNNING, user_attrs={"paused": reason}) for _ in range(4)
    ]
    Tally().add(trials).check_failures(trials, 0.5)
    with pytest.raises(TuneError, match="4 of 7 trials failed"):
        Tally().add(trials[:7]).check_failures(trials[:7], 0.5)


def test_a_missing_constrained_metric_fails_by_name(tmp_path):
    with pytest.raises(TuneError, match="constraint 'latency_ms' is missing"):
        run_study(curve, SPACE, folder=tmp_path, trials=2, constraints={"latency_ms": 5})
    with pytest.raises(TuneError, match=r"write '<= 5\.0'"):
        run_study(curve, SPACE, folder=tmp_path, trials=2, constraints={"latency_ms": "< 5"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "tpf"}, "Unknown sampler 'tpf'. .*Did you mean 'tpe'"),
        ({"pruner": "ashaa"}, "Did you mean 'asha'"),
        ({"sampler": {"name": "tpe", "kappa": 3}}, "The sampler 'tpe' refuses"),
        (
            {"sampler": {"name": "acquisition", "kind": "pi"}},
            "kind is 'pi' and must be ucb, poi or ei",
        ),
        ({"sampler": {"name": "acquisition", "n_initial_points": -1}}, "must be at least 0"),
        ({"sampler": {"name": "anneal", "avg_best_idx": 0.5}}, "avg_best_idx must be at least 1"),
        ({"sampler": {"name": "evolution", "population": 0}}, "population and tournament must"),
        ({"sampler": {"name": "evolution", "tournament": 2.5}}, "population and tournament must"),
        ({"direction": "up"}, "must be maximize or minimize"),
        ({"workers": 0}, "tune.workers=0"),
        ({"max_failure_share": 2}, "between 0 and 1"),
        ({"seed": -1}, r"seed is -1; give a whole number from 0 on .*hydra\.sweeper\.seed=0"),
        ({"enqueue": [{"y": 1}]}, "Unknown dimension 'y'"),
    ],
)
def test_bad_descriptions_are_sentences(tmp_path, options, words):
    with pytest.raises(TuneError, match=words):
        run_study(curve, SPACE, folder=tmp_path, trials=1, **options)


@pytest.mark.parametrize(("kind", "name"), [("sampler", "tpe"), ("pruner", "asha")])
def test_what_a_sampler_or_pruner_refuses_is_said_before_anything_is_made(tmp_path, kind, name):
    refused = {kind: {"name": name, "kappa": 3}}
    with pytest.raises(TuneError, match=f"The {kind} '{name}' refuses"):
        run_study(curve, SPACE, folder=tmp_path / "s", trials=4, workers=2, **refused)
    assert not (tmp_path / "s").exists()


def test_the_current_trial_is_known_inside_only(tmp_path):
    seen = []

    def objective(trial):
        seen.append(current_trial() is trial)
        return 1.0

    assert current_trial() is None
    run_study(objective, SPACE, folder=tmp_path, trials=1)
    assert seen == [True]
    assert current_trial() is None


@pytest.mark.parametrize(
    ("sampler", "pruner", "told"),
    [
        ("evolution", "default", True),
        ("gp", "hyperband", True),
        ("gp", "none", False),
        ("tpe", "default", False),
        ({"name": "cmaes", "consider_pruned_trials": True}, "asha", False),
    ],
)
def test_a_sampler_that_learns_from_whole_trials_alone_is_told_of_beside_a_pruner_that_leaves_few(
    tmp_path, caplog, sampler, pruner, told
):
    _tell_few_whole.cache_clear()
    for _ in range(2):
        StudySpec.make(SPACE, Budget(trials=20), folder=tmp_path, sampler=sampler, pruner=pruner)
    words = f"the sampler {sampler} learns from trials that ran to their end"
    assert caplog.text.count(words) == told


def test_a_budget_of_epochs_ends_where_no_trial_reports_one(tmp_path):
    begun = []

    def silent(trial):
        begun.append(trial.number)
        if len(begun) > 9:
            pytest.fail("nothing ends the study")
        return trial.params["x"]

    with pytest.raises(
        TuneError, match=r"epochs=5 counts reported epochs, and none of the 4 trials"
    ):
        run_study(silent, SPACE, folder=tmp_path, epochs=5, max_failure_share=1.0)
    assert begun == [0, 1, 2, 3]
    # what was tried counts in a study that goes on with a budget of another kind
    result = run_study(silent, SPACE, folder=tmp_path, epochs=5, trials=6)
    assert [record.state for record in result.trials] == ["complete"] * 6
    # the points of a grid come to an end by themselves
    begun.clear()
    grid = {"x": {"choices": [0, 1, 2, 3, 4, 5]}}
    found = run_study(silent, grid, folder=tmp_path / "grid", epochs=5, sampler="grid")
    assert len(found.trials) == 6


def test_a_budget_of_epochs_goes_on_where_some_trials_report(tmp_path):
    def quick(trial):
        return 0.0 if trial.number < 3 else curve(trial, epochs=1)["val_accuracy"]

    result = run_study(quick, SPACE, folder=tmp_path, epochs=2)
    assert [record.epochs for record in result.trials] == [0, 0, 0, 1, 1]


def test_a_budget_of_epochs_counts_what_a_running_trial_has_reported(tmp_path):
    options = {"objectives": {"val_accuracy": "maximize", "size": "minimize"}, "pruner": "none"}
    ledger = Ledger(StudySpec.make(SPACE, Budget(epochs=9), folder=tmp_path, **options))
    slow = ledger.claim()
    # the storage keeps no report where nothing judges it
    ledger.report(slow, 0, {"val_accuracy": 0.5, "size": 1.0})
    for _ in range(4):
        ledger.complete(ledger.claim(), {"val_accuracy": 0.5, "size": 1.0})
    assert ledger.claim() is not None
    check_failures(ledger)


def test_a_budget_of_epochs_alone_ends_a_study_of_points_without_end(tmp_path):
    points = {"x": {"choices": [0, 1]}}
    for space, alone in ((SPACE, True), (points, False)):
        spec = StudySpec.make(space, Budget(epochs=5), folder=tmp_path, distinct=True)
        assert spec.counts_epochs == alone
    assert not StudySpec.make(SPACE, Budget(epochs=5, trials=3), folder=tmp_path).counts_epochs


def test_who_started_the_workers_says_why_code_that_always_fails_ends_the_study(tmp_path):
    budget = Budget(trials=9)
    ledger = Ledger(
        StudySpec.make(SPACE, budget, folder=tmp_path, hopeless=2, max_failure_share=1.0)
    )
    for _ in range(2):
        check_failures(ledger)
        ledger.end(ledger.claim(), "fail", "no such file")
    with pytest.raises(TuneError, match="The first 2 trials all failed: trials 0, 1: no such file"):
        check_failures(ledger)


@pytest.mark.parametrize("bound", ["<= inf", ">= nan", math.inf])
def test_a_bound_that_no_metric_can_be_held_against_is_refused(bound):
    with pytest.raises(TuneError, match=r"The constraint on size is .*; write '<= 5\.0'"):
        parse_constraints({"size": bound})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"trials": "5"}, r"budget tune\.trials='5' must be a number"),
        ({"trials": 2.5}, r"budget tune\.trials=2\.5 must be a whole number"),
        ({"trials": 2, "epochs_per_trial": 1.5}, r"tune\.epochs_per_trial=1\.5 must be a whole"),
        ({"trainings": [3]}, r"tune\.trainings=\[3\] must be a number"),
    ],
)
def test_a_budget_that_is_no_number_is_refused_in_a_sentence(limits, words):
    with pytest.raises(TuneError, match=words):
        Budget(**limits)


@pytest.mark.parametrize("kind", [float, np.int64, np.float32])
def test_whole_numbers_of_another_kind_are_whole_numbers(tmp_path, kind):
    budget = Budget(trials=kind(20), epochs_per_trial=kind(9), device_seconds=kind(30))
    assert (budget.trials, budget.epochs_per_trial, budget.device_seconds) == (20, 9, 30)
    assert json.loads(json.dumps(budget.forecast(1)))["epochs"] == 180
    first = {"name": "tpe", "n_startup_trials": kind(4)}
    mean = {"name": "running_mean", "n_warmup_steps": kind(1), "n_min_trials": kind(3)}
    found = run_study(curve, SPACE, folder=tmp_path, trials=kind(6), sampler=first, pruner=mean)
    assert found.ended == "the budget of 6 trials is spent"
    # its population is a quarter of the budget
    run_study(curve, SPACE, folder=tmp_path / "b", trials=kind(20), sampler="nsga2", pruner="none")


def test_a_setting_that_lacks_what_is_searched_is_no_baseline(tmp_path, caplog):
    result = run_study(curve, SPACE, folder=tmp_path, trials=2, baseline={"x": 0.25})
    assert "no value of kind" in caplog.text
    assert result.baseline is None
    assert result.gain is None
    # what it has is tried first all the same
    assert result.trials[0].params["x"] == 0.25
    whole = run_study(
        curve, SPACE, folder=tmp_path / "b", trials=1, baseline={"x": 0.25, "kind": "a"}
    )
    assert whole.baseline.number == 0
    none = run_study(curve, SPACE, folder=tmp_path / "c", trials=2, baseline={})
    assert none.baseline is None


def test_a_signal_without_a_name_ends_no_study():
    assert _how(-40) == "its process was killed by SIG40"
    assert _how(-9) == "its process was killed by SIGKILL"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"sampler": {"name": "tpe", "n_startup_trials": "ten"}},
            "n_startup_trials must be a whole",
        ),
        ({"sampler": {"name": "gp", "n_startup_trials": 2.5}}, "n_startup_trials must be a whole"),
        (
            {"sampler": {"name": "cmaes", "n_startup_trials": -1}},
            "n_startup_trials must be a whole",
        ),
        ({"sampler": {"name": "tpe", "gamma": "a"}}, "gamma must lie above 0 and up to 1"),
        ({"sampler": {"name": "tpe", "gamma": 0}}, "gamma must lie above 0 and up to 1"),
        ({"sampler": {"name": "cmaes", "sigma0": -1.0}}, "sigma0 must be above 0"),
        ({"pruner": {"name": "running_mean", "n_min_trials": "a"}}, "must be numbers"),
        ({"pruner": {"name": "running_mean", "n_warmup_steps": True}}, "must be numbers"),
    ],
)
def test_options_that_would_fail_at_a_draw_or_a_report_are_refused_at_once(
    tmp_path, options, words
):
    with pytest.raises(TuneError, match=words):
        run_study(curve, SPACE, folder=tmp_path, trials=1, **options)


@pytest.mark.parametrize(
    ("sampler", "told"), [("evolution", True), ("cmaes", True), ("tpe", False), ("random", False)]
)
def test_a_sampler_that_learns_without_regard_to_the_constraints_is_told(
    tmp_path, caplog, sampler, told
):
    _tell_of_constraints.cache_clear()
    options = {"folder": tmp_path, "sampler": sampler, "pruner": "none"}
    StudySpec.make(SPACE, Budget(trials=20), **options)
    assert "constraints" not in caplog.text
    for _ in range(2):
        StudySpec.make(SPACE, Budget(trials=20), constraints={"size": "<= 1"}, **options)
    words = f"the sampler {sampler} learns from trials that break the constraints as from any other"
    assert caplog.text.count(words) == told
