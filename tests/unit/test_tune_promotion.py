"""Successive halving with promotion: who pauses, who goes on, what it costs, and kills in between."""

from __future__ import annotations

import json

import optuna
import pytest
from optuna.trial import TrialState

from darts_core.errors import TuneError
from darts_core.study import run_study
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.promotion import PromotionPruner
from darts_core.study.ranking import Ranking
from darts_core.study.spec import StudySpec

SPACE = {"x": {"low": 0.0, "high": 1.0}}
EPOCHS = 9


def learns(trial):
    """Nine epochs from a checkpoint; better settings also start better. Counts the epochs it runs."""
    state = trial.folder / "state.json"
    done = json.loads(state.read_text()) if state.is_file() else []
    for epoch in range(len(done), EPOCHS):
        done.append(epoch)
        state.write_text(json.dumps(done))
        trial.report(epoch, val_accuracy=trial.params["x"] * (epoch + 1) / EPOCHS)
    return {"val_accuracy": trial.params["x"]}


def study(folder, objective=learns, **options):
    settings = {"trials": 12, "epochs_per_trial": EPOCHS, "sampler": "random", "seed": 3}
    return run_study(objective, SPACE, folder=folder, **{**settings, **options})


def facts(result):
    return [(r.number, r.state, r.params, r.epochs, r.value) for r in result.trials]


def test_rungs_lie_below_the_last_epoch():
    assert PromotionPruner(30).rungs == [1, 3, 9, 27]
    assert PromotionPruner(27).rungs == [1, 3, 9]
    assert PromotionPruner(8, min_resource=2, reduction_factor=2).rungs == [2, 4]
    assert PromotionPruner(2, min_resource=5).rungs == []


@pytest.mark.parametrize(
    ("options", "words"),
    [({"cost_share": 2}, "cost_share=2"), ({"reduction_factor": 1}, "at least 2"),
     ({"reduction_factor": 2.5}, "whole numbers, unless promote=false"),
     ({"min_resource": 1.5}, "whole numbers, unless promote=false"), ({"bootstrap": 1}, "refuses")],
)  # fmt: skip
def test_bad_settings_are_sentences(tmp_path, options, words):
    with pytest.raises(TuneError, match=words):
        study(tmp_path, pruner={"name": "asha", **options})


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_of_each_rung_goes_on_and_every_epoch_runs_once(tmp_path, direction):
    result = study(tmp_path, direction=direction, pruner={"name": "asha", "cost_share": 0.25})
    order = sorted(result.trials, key=lambda r: r.params["x"], reverse=direction == "maximize")
    assert result.best_number == order[0].number
    # 12 trials: the best 4 of the first rung pass it, the best of these passes the second
    assert [r.epochs for r in order] == [9, 3, 3, 3, *[1] * 8]
    assert [r.state for r in order] == ["complete", *["pruned"] * 11]
    assert result.spent["epochs"] == 9 + 3 * 3 + 8
    assert result.spent["trials"] == 12
    for record in result.trials:
        assert json.loads((record.folder / "state.json").read_text()) == list(range(record.epochs))
        assert list(record.curve) == list(range(record.epochs))
    assert "pruned after epoch 1 with" in order[-1].reason


def test_what_the_share_allows_trains_the_best_paused_trials_to_their_end(tmp_path):
    result = study(tmp_path, trials=20, pruner={"name": "asha", "cost_share": 0.5})
    whole = [r for r in result.trials if r.state == "complete"]
    best = sorted((r.params["x"] for r in result.trials), reverse=True)[: len(whole)]
    assert len(whole) >= 4
    assert sorted((r.params["x"] for r in whole), reverse=True) == best
    assert result.spent["epochs"] <= 0.5 * 20 * EPOCHS
    # another one would not have fitted
    assert result.spent["epochs"] > 0.5 * 20 * EPOCHS - EPOCHS


@pytest.mark.parametrize(
    "budget",
    [{"trials": 1}, {"trials": 2}, {"trials": None, "epochs": 10}, {"trials": 30, "epochs": 25}],
)
def test_a_small_budget_still_brings_one_trial_to_its_end(tmp_path, budget):
    result = study(tmp_path, **budget)
    assert sum(r.state == "complete" for r in result.trials) >= 1
    assert result.best.epochs == EPOCHS


def test_a_small_study_finishes_three_trials(tmp_path):
    result = study(tmp_path, trials=5)
    whole = [r for r in result.trials if r.state == "complete"]
    # 5 first epochs, one promotion, and as many ends as fit into three trainings
    assert len(whole) == 2
    assert max(r.params["x"] for r in result.trials) == result.best_value
    assert result.spent["epochs"] <= 3 * EPOCHS


def test_a_grid_smaller_than_the_budget_counts_for_the_share(tmp_path):
    space = {"x": {"low": 0.1, "high": 1.0, "step": 0.1}}
    result = run_study(
        learns, space, folder=tmp_path, trials=500, sampler="grid", epochs_per_trial=EPOCHS
    )
    assert len(result.trials) == 10
    assert result.best_value == pytest.approx(1.0)
    assert result.spent["epochs"] <= 3 * EPOCHS


def test_rungs_that_no_report_falls_on_are_told_once(tmp_path, caplog):
    def every_fourth(trial):
        for epoch in (3, 7):
            trial.report(epoch, val_accuracy=trial.params["x"])
        return {"val_accuracy": trial.params["x"]}

    result = study(tmp_path, every_fourth, trials=3)
    # nothing can be judged there
    assert {r.state for r in result.trials} == {"complete"}
    told = [r.getMessage() for r in caplog.records if "asha would judge" in r.message]
    assert len(told) == 1
    assert "reported after epoch 4 and not after 1, 3, where" in told[0]
    caplog.clear()
    study(tmp_path / "each", trials=3)
    assert "asha would judge" not in caplog.text


def test_an_open_number_of_trials_leaves_half_of_the_budget_for_the_best(tmp_path):
    result = study(tmp_path, trials=None, epochs=200)
    assert sum(r.state == "complete" for r in result.trials) >= 5
    assert len(result.trials) >= 20
    assert 200 - EPOCHS < result.spent["epochs"] <= 200


@pytest.mark.parametrize(
    ("where", "moment"),
    [
        ("pause", 1),
        ("pause", 3),
        ("promote", 1),
        ("promote", 3),
        ("end", 1),
        ("tell", 1),
        ("tell", 3),
    ],
)
def test_a_kill_in_between_changes_nothing(tmp_path, monkeypatch, where, moment):
    """Dies just after a step of the books, `moment` times into the study; the next run goes on."""
    whole = study(tmp_path / "whole")
    name = {"pause": "end", "promote": "_promoted", "end": "end_paused", "tell": "_tell"}[where]
    step, seen = getattr(Ledger, name), []

    def dies(self, *args):
        found = step(self, *args)
        if where != "promote" or found is not None:
            seen.append(found)
        if len(seen) == moment:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Ledger, name, dies)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "killed")
    monkeypatch.undo()
    for path in (tmp_path / "killed").glob("trials/*/lease.json"):
        # this process lives on, the one that is meant does not
        path.write_text(json.dumps({**json.loads(path.read_text()), "start": "0"}))
    again = study(tmp_path / "killed")
    assert facts(again) == facts(whole)
    assert again.spent["epochs"] == whole.spent["epochs"]


def test_two_workers_share_promotions(tmp_path):
    result = study(tmp_path, workers=2)
    assert result.spent["trials"] == len(result.trials) == 12
    assert {r.state for r in result.trials} == {"complete", "pruned"}
    assert result.best_value == max(r.params["x"] for r in result.trials)
    # what trials in both hands still take counts as well
    assert result.spent["epochs"] <= 3 * EPOCHS
    for record in result.trials:
        assert json.loads((record.folder / "state.json").read_text()) == list(range(record.epochs))


def test_samplers_learn_from_paused_trials(tmp_path):
    """TPE draws near what looked good at the first rung, though all those trials still wait."""
    result = study(tmp_path, trials=30, sampler="tpe", pruner={"name": "asha", "cost_share": 0})
    drawn = [r.params["x"] for r in result.trials]
    assert sum(drawn[20:]) / 10 > 0.8 > sum(drawn[:8]) / 8


def test_a_worker_without_work_waits_while_another_trial_may_promote_one(tmp_path):
    spec = StudySpec.make(
        SPACE, Budget(trials=2, epochs_per_trial=EPOCHS), folder=tmp_path, sampler="random"
    )
    ledger = Ledger(spec)
    first, second = ledger.claim(), ledger.claim()
    assert not ledger.may_promote()
    reason = ledger.report(first, 0, {"val_accuracy": 0.5})
    assert ledger.end(first, "pruned", reason).state == "paused"
    assert ledger.may_promote()
    reason = ledger.report(second, 0, {"val_accuracy": 0.4})
    ledger.end(second, "pruned", reason)
    assert not ledger.may_promote()
    # nobody came: the better one is brought to its end
    assert ledger.claim().number == first.number


def test_a_trial_that_failed_holds_no_place_at_its_rung():
    study = optuna.create_study(direction="maximize")
    for value, state in ((0.9, "FAIL"), (0.5, "PRUNED"), (0.7, "PRUNED"), (0.6, "PRUNED")):
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState[state], intermediate_values={1: value}, values=None
            )
        )
    pruner = PromotionPruner(min_resource=1, reduction_factor=3, epochs=9)
    assert pruner.order(study.trials, 1, Ranking.of(study)) == [2, 3, 1]
    assert pruner.passing(study.trials, 1, Ranking.of(study)) == [2]
