"""Early stopping of studies with several objectives or constraints: who goes on, kills, Hyperband."""

from __future__ import annotations

import json

import optuna
import pytest

from darts_core.errors import TuneError
from darts_core.study import run_study
from darts_core.study.early import EarlyStopping
from darts_core.study.halving import HyperbandPruner, bracket_round
from darts_core.study.ledger import Ledger
from darts_core.study.ranking import reported_at

EPOCHS = 9
GOALS = {"accuracy": "maximize", "ms": "minimize"}
SPACE = {"accuracy": {"low": 0.0, "high": 1.0}, "ms": {"low": 0.0, "high": 10.0}}
# a front of three, and what each of these beats; every epoch keeps the order
FRONT = [(0.9, 5.0), (0.7, 2.0), (0.5, 1.0)]
BEHIND = [(0.3, 8.0), (0.2, 9.0), (0.4, 7.0), (0.1, 10.0), (0.35, 7.5), (0.25, 9.5)]
ENQUEUED = [{"accuracy": a, "ms": m} for a, m in [*FRONT, *BEHIND]]


def learns(trial):
    state = trial.folder / "state.json"
    done = json.loads(state.read_text()) if state.is_file() else []
    accuracy, ms = trial.params["accuracy"], trial.params["ms"]
    for epoch in range(len(done), EPOCHS):
        done.append(epoch)
        state.write_text(json.dumps(done))
        trial.report(epoch, accuracy=accuracy * (epoch + 1) / EPOCHS, ms=ms, params=10 * ms)
    return {"accuracy": accuracy, "ms": ms, "params": 10 * ms}


def late(trial):
    """Knows its time at the end alone."""
    for epoch in range(EPOCHS):
        trial.report(epoch, accuracy=trial.params["accuracy"])
    return {"accuracy": trial.params["accuracy"], "ms": trial.params["ms"]}


def study(folder, objective=learns, **options):
    settings = {"trials": 9, "epochs_per_trial": EPOCHS, "sampler": "random", "seed": 3}
    settings |= {"objectives": GOALS, "pruner": "asha", **options}
    return run_study(
        objective, SPACE, folder=folder, **{"enqueue": ENQUEUED[: settings["trials"]], **settings}
    )


def epochs(result):
    return {(r.params["accuracy"], r.params["ms"]): r.epochs for r in result.trials}


def facts(result):
    return [(r.number, r.state, r.params, r.epochs, r.values) for r in result.trials]


def test_the_front_of_each_rung_goes_on(tmp_path):
    result = study(tmp_path)
    # 9 first epochs; the front's three to the second rung, its middle from there to the end; what is left
    # of three trainings (27 - 21 epochs) brings the next one to its end
    assert epochs(result) == {FRONT[1]: 9, FRONT[0]: 9, FRONT[2]: 3, **dict.fromkeys(BEHIND, 1)}
    assert result.spent["epochs"] == 3 * EPOCHS
    assert {r.number for r in result.trials if r.state == "complete"} == set(result.front)
    stopped = next(r for r in result.trials if r.params["accuracy"] == 0.1)
    assert stopped.reason == "pruned after epoch 1 with accuracy 0.0111111 and ms 10"
    for record in result.trials:
        assert json.loads((record.folder / "state.json").read_text()) == list(range(record.epochs))


def test_what_breaks_a_constraint_is_not_promoted(tmp_path):
    result = study(tmp_path, constraints={"params": "<= 45"}, trials=8)
    # the most accurate one has 50, so the two others are the best of each rung
    assert [epochs(result)[point] for point in FRONT] == [1, 9, 9]


def test_one_objective_under_a_constraint_too(tmp_path):
    goal, bound = {"accuracy": "maximize"}, {"ms": "<= 3"}
    result = study(tmp_path, objectives=goal, constraints=bound, trials=5)
    assert result.best_params == {"accuracy": 0.7, "ms": 2.0}
    assert epochs(result)[FRONT[0]] == 1


def test_an_objective_known_at_the_end_alone_is_left_out_at_rungs_and_that_is_said(
    tmp_path, caplog
):
    result = study(tmp_path, late)
    # without checkpoints a promoted trial reports from the start again, and no epoch is counted twice
    assert epochs(result)[FRONT[0]] == 9
    assert epochs(result)[FRONT[2]] == 3
    said = [r.message for r in caplog.records if "holds no ms" in r.message]
    assert said == ["the report after epoch 1 holds no ms: trials are judged there without"]


def test_tpe_draws_beside_trials_that_wait(tmp_path):
    sampler = {"name": "tpe", "n_startup_trials": 2}
    one = study(tmp_path / "one", sampler=sampler, trials=8, enqueue=ENQUEUED[:4])
    other = study(tmp_path / "other", sampler=sampler, trials=8, enqueue=ENQUEUED[:4])
    assert len(one.trials) == 8
    assert facts(one) == facts(other)


@pytest.mark.parametrize(
    ("of", "where", "moment"), [(EarlyStopping, "_note", 4), (Ledger, "_promoted", 2)]
)
def test_a_kill_in_between_changes_nothing(tmp_path, monkeypatch, of, where, moment):
    options = {"constraints": {"params": "<= 85"}, "enqueue": [], "trials": 8}
    whole = study(tmp_path / "whole", **options)
    step, seen = getattr(of, where), []

    def dies(self, *args):
        found = step(self, *args)
        if where != "_promoted" or found is not None:
            seen.append(found)
        if len(seen) == moment:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(of, where, dies)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "killed", **options)
    monkeypatch.undo()
    for path in (tmp_path / "killed").glob("trials/*/lease.json"):
        # this process lives on, the one that is meant does not
        path.write_text(json.dumps({**json.loads(path.read_text()), "start": "0"}))
    again = study(tmp_path / "killed", **options)
    assert facts(again) == facts(whole)
    assert again.spent["epochs"] == whole.spent["epochs"]


def test_only_rungs_are_kept(tmp_path):
    study(tmp_path, trials=3)
    text = (tmp_path / "study.journal").read_text()
    assert {step for step in range(1, 10) if f'"{reported_at(step)}"' in text} == {1, 3}


@pytest.mark.parametrize("pruner", ["median", "running_mean"])
def test_what_compares_one_number_is_refused(tmp_path, pruner):
    with pytest.raises(TuneError, match=f"'{pruner}' compares one number.*asha, hyperband or none"):
        study(tmp_path, pruner=pruner)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pruner", ["median", "running_mean"])
def test_it_is_refused_under_constraints_unless_another_metric_prunes(tmp_path, pruner):
    one = {"objectives": {"accuracy": "maximize"}, "constraints": {"params": "<= 1000"}}
    with pytest.raises(TuneError, match=f"'{pruner}' compares one number.*constraints, too"):
        study(tmp_path, pruner=pruner, **one)
    assert not list(tmp_path.iterdir())
    found = study(tmp_path, pruner=pruner, pruning_metric="accuracy", trials=1, **one)
    assert len(found.trials) == 1


def test_brackets_are_dealt_by_the_papers_proportions():
    turns = bracket_round(3, 3)
    assert [turns.count(i) for i in range(3)] == [9, 5, 3]
    for count in range(1, len(turns) + 1):
        for bracket, size in enumerate((9, 5, 3)):
            assert abs(turns[:count].count(bracket) - size * count / 17) < 1


def test_hyperband_stops_within_brackets(tmp_path):
    pruner = {"name": "hyperband", "min_resource": 1, "reduction_factor": 3}
    assert HyperbandPruner(max_resource=EPOCHS).rungs == [1, 3]
    result = study(tmp_path, pruner=pruner, trials=9)
    assert [bracket_round(3, 3)[i] for i in range(9)] == [0, 1, 0, 2, 0, 1, 0, 2, 0]
    # bracket 0: the first is the best of one; the others are not before it, who come when one may pass.
    # Bracket 1 judges from epoch 3 on, bracket 2 never
    assert [r.epochs for r in result.trials] == [9, 9, 1, 9, 1, 3, 1, 9, 1]


def test_the_last_bracket_never_judges_where_the_length_is_no_power_of_the_factor():
    pruner, study = HyperbandPruner(max_resource=10), optuna.create_study(direction="maximize")
    trials = [study.ask() for _ in range(8)]
    # numbers 3 and 7 are the last bracket's
    trials[3].report(0.9, 9)
    trials[7].report(0.1, 9)

    def judged(step=None):
        if step is not None:
            trials[7].report(0.1, step)
        return pruner.prune(study, study.trials[7])

    assert not judged()
    assert judged(11)


def test_hyperband_without_a_length_waits_for_a_complete_trial(tmp_path):
    result = study(tmp_path, pruner="hyperband", epochs_per_trial=None)
    used = [r.epochs for r in result.trials]
    assert used[0] == EPOCHS
    assert min(used) < EPOCHS


def test_of_trials_equal_in_the_first_objective_the_best_in_the_next_is_taken(tmp_path):
    result = run_study(
        lambda trial: {"val_accuracy": 0.9, "size": trial.params["x"]},
        {"x": {"choices": [3, 1, 2]}},
        folder=tmp_path,
        trials=3,
        sampler={"name": "grid", "shuffle": False},
        objectives={"val_accuracy": "maximize", "size": "minimize"},
    )
    assert result.best_params == {"x": 1}
    assert result.front == (result.best_number,)


@pytest.mark.parametrize(("bound", "done"), [("<= 2", [4, 11]), ("<= 0.5", [4])])
def test_a_trial_that_meets_the_constraints_gets_to_its_end_though_another_has_used_the_share(
    tmp_path, bound, done
):
    fast, slow = (
        [(0.1 + 0.01 * n, 1.0) for n in range(3)],
        [(0.2 + 0.01 * n, 5.0) for n in range(9)],
    )
    options = {"objectives": {"accuracy": "maximize"}, "constraints": {"ms": bound}, "trials": 12}
    options["enqueue"] = [{"accuracy": a, "ms": ms} for a, ms in (*slow, *fast)]
    if bound == "<= 2":
        assert study(tmp_path, **options).best_params == options["enqueue"][11]
    else:
        with pytest.raises(TuneError, match="none of the complete ones meets the constraints"):
            study(tmp_path, **options)
    ran = [
        len(json.loads(path.read_text())) for path in sorted(tmp_path.glob("trials/*/state.json"))
    ]
    assert [number for number, count in enumerate(ran) if count == EPOCHS] == done
    assert len(ran) == 12
