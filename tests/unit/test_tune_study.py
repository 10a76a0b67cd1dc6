"""Studies in one process: results, resuming, budgets, objectives, samplers, pruners."""

from __future__ import annotations

import errno
import json
import pickle
import time

import pytest
from optuna.storages import JournalStorage
from tune_cases import SPACE, curve

from darts_core.errors import TuneError, sentence_of
from darts_core.study import run_study
from darts_core.study.budget import Budget, Spent
from darts_core.study.ledger import Ledger
from darts_core.study.pruners import PRUNERS
from darts_core.study.samplers import SAMPLERS
from darts_core.study.spec import StudySpec


def test_a_study_stays_where_it_is_when_its_objective_changes_the_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def moves(trial):
        monkeypatch.chdir(elsewhere)
        return curve(trial)

    result = run_study(moves, SPACE, folder="mine", trials=2, pruner="none")
    assert [record.folder.parent for record in result.trials] == [tmp_path / "mine" / "trials"] * 2
    assert all((record.folder / "result.json").is_file() for record in result.trials)
    assert not any(elsewhere.iterdir())


class Calls(list):
    def __call__(self, trial):
        self.append((trial.number, trial.resumed))
        return curve(trial)


def params_of(result):
    return [(r.number, r.state, r.params) for r in result.trials]


def test_a_study_finds_a_good_setting_and_keeps_everything(tmp_path):
    ended = []
    result = run_study(
        curve,
        SPACE,
        folder=tmp_path,
        trials=16,
        enqueue=[{"x": 0.9, "kind": "b"}],
        on_trial=lambda record: ended.append(record.number),
    )
    assert result.best_params["kind"] == "a"
    assert result.best_value > 0.95
    assert result.trials[0].params == {"x": 0.9, "kind": "b"}
    assert ended == list(range(16))
    assert {r.state for r in result.trials} == {"complete", "pruned"}
    assert result.spent["trials"] == 16
    assert result.spent["epochs"] == sum(r.epochs for r in result.trials) < 64
    folder = tmp_path / "trials" / "0000"
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "metrics.jsonl", "result.json"}
    assert json.loads((folder / "result.json").read_text())["reason"] == "finished"
    assert "number: " in (tmp_path / "best.yaml").read_text()
    assert json.loads(json.dumps(result.to_dict()))["best_number"] == result.best_number
    assert len(result.rows()) == 16
    assert result.importance["x"] + result.importance["kind"] == pytest.approx(1.0)
    pruned = next(r for r in result.trials if r.state == "pruned")
    assert "pruned after epoch" in pruned.reason


def test_the_same_seed_gives_the_same_trials_also_across_a_stop(tmp_path):
    first = run_study(curve, SPACE, folder=tmp_path / "a", trials=8, seed=3)
    second = run_study(curve, SPACE, folder=tmp_path / "b", trials=8, seed=3)
    assert params_of(first) == params_of(second)

    class Stop(BaseException):
        pass

    def stopping(trial):
        if trial.number == 5:
            raise Stop
        return curve(trial)

    with pytest.raises(Stop):
        run_study(stopping, SPACE, folder=tmp_path / "c", trials=8, seed=3)
    third = run_study(curve, SPACE, folder=tmp_path / "c", trials=8, seed=3)
    assert params_of(first) == params_of(third)
    other = run_study(curve, SPACE, folder=tmp_path / "d", trials=8, seed=4)
    assert params_of(first) != params_of(other)


def test_finished_trials_count_once_and_more_budget_continues(tmp_path):
    calls = Calls()
    run_study(calls, SPACE, folder=tmp_path, trials=3)
    run_study(calls, SPACE, folder=tmp_path, trials=3)
    assert [number for number, _ in calls] == [0, 1, 2]
    result = run_study(calls, SPACE, folder=tmp_path, trials=5)
    assert [number for number, _ in calls] == [0, 1, 2, 3, 4]
    assert len(result.trials) == 5


def test_a_study_that_goes_on_tries_what_it_is_given_once_and_says_what_comes_too_late(
    tmp_path, caplog
):
    first, then = {"x": 0.25, "kind": "a"}, {"x": 0.75, "kind": "b"}
    given = {"folder": tmp_path / "one", "sampler": "random", "pruner": "none"}
    run_study(curve, SPACE, trials=1, enqueue=[first], **given)
    for trials in (2, 3):
        found = run_study(curve, SPACE, trials=trials, enqueue=[first, then], **given)
    assert [trial.params for trial in found.trials][:2] == [first, then]
    assert [trial.params for trial in found.trials].count(then) == 1
    assert len(found.trials) == 3
    assert "does not count" not in caplog.text
    source = {"warm_start": tmp_path / "one"}
    run_study(curve, SPACE, trials=3, **given, **source)
    assert f"warm_start={tmp_path / 'one'} does not count" in caplog.text
    caplog.clear()
    for trials in (1, 2):
        run_study(curve, SPACE, trials=trials, **{**given, "folder": tmp_path / "two"}, **source)
    assert "does not count" not in caplog.text


def test_a_trial_told_half_is_told_on_the_next_opening(tmp_path, monkeypatch):
    calls = Calls()
    whole = Ledger._tell

    def killed(self, number, result):
        if number == 1:
            raise KeyboardInterrupt
        return whole(self, number, result)

    monkeypatch.setattr(Ledger, "_tell", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(calls, SPACE, folder=tmp_path, trials=3, pruner="none")
    monkeypatch.setattr(Ledger, "_tell", whole)
    result = run_study(calls, SPACE, folder=tmp_path, trials=3, pruner="none")
    assert [number for number, _ in calls] == [0, 1, 2]
    assert [r.state for r in result.trials] == ["complete"] * 3


def test_budget_in_epochs_ends_a_running_trial(tmp_path):
    result = run_study(curve, SPACE, folder=tmp_path, epochs=10, pruner="none")
    assert result.spent["epochs"] == 10
    assert [r.epochs for r in result.trials] == [4, 4, 2]
    assert result.trials[2].state == "pruned"
    assert "budget of 10 epochs" in result.trials[2].reason
    assert "budget of 10 epochs" in result.ended


@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_a_trial_whose_last_epoch_spends_the_budget_is_complete(tmp_path, pruner):
    result = run_study(
        curve, SPACE, folder=tmp_path, epochs=4, epochs_per_trial=4, pruner=pruner, sampler="random"
    )
    assert [(r.state, r.epochs) for r in result.trials] == [("complete", 4)]
    assert "budget of 4 epochs" in result.ended


def test_budget_in_trainings_and_its_forecast(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 1))
    monkeypatch.setattr("darts_core.study.claim.time.monotonic", lambda: next(clock))
    result = run_study(
        curve, SPACE, folder=tmp_path, trainings=3.0, training_seconds=20.0, pruner="none"
    )
    assert result.spent["device_seconds"] >= 60
    assert result.spent["trainings"] == pytest.approx(result.spent["device_seconds"] / 20)
    assert result.forecast["trainings"] == 3.0
    with pytest.raises(TuneError, match=r"needs tune\.training_seconds"):
        run_study(curve, SPACE, folder=tmp_path, trainings=3.0)
    with pytest.raises(TuneError, match="no budget"):
        run_study(curve, SPACE, folder=tmp_path)
    with pytest.raises(TuneError, match=r"tune\.trials=0"):
        run_study(curve, SPACE, folder=tmp_path, trials=0)


def test_several_objectives_give_a_front_under_constraints(tmp_path):
    goals = {"val_accuracy": "maximize", "size": "minimize"}
    result = run_study(
        curve,
        {"x": SPACE["x"], "kind": {"choices": ["a"]}},
        folder=tmp_path,
        trials=24,
        objectives=goals,
        constraints={"size": "<= 0.5"},
        sampler="nsga2",
    )
    feasible = [r for r in result.trials if r.feasible]
    assert 0 < len(feasible) < 24
    assert all(r.values[1] <= 0.5 for r in feasible)
    assert result.best_number in {r.number for r in feasible}
    front = [r for r in result.trials if r.number in result.front]
    for one in front:
        assert not any(
            o.values[0] >= one.values[0] and o.values[1] <= one.values[1] and o.values != one.values
            for o in feasible
        )
    assert all(r.state == "complete" for r in result.trials)
    with pytest.raises(TuneError, match="2 objectives; use asha, hyperband or none"):
        run_study(curve, SPACE, folder=tmp_path, trials=1, objectives=goals, pruner="median")
    with pytest.raises(TuneError, match=r"meets the constraints: see .*trials\.csv\.$"):
        run_study(curve, SPACE, folder=tmp_path / "x", trials=2, constraints={"size": "<= -1"})
    head, *rows = (line.split(",") for line in (tmp_path / "x/trials.csv").read_text().splitlines())
    assert head[:4] == ["number", "state", "val_accuracy", "size"]
    assert [row[0] for row in rows] == ["0", "1"]
    assert all(float(row[3]) > -1 for row in rows if row[1] == "complete")


def test_another_space_on_the_same_storage_is_refused(tmp_path):
    run_study(curve, SPACE, folder=tmp_path, trials=1)
    wider = {**SPACE, "x": {"low": 0.0, "high": 2.0}}
    with pytest.raises(TuneError, match=r"another space \(the dimensions x differ\)"):
        run_study(curve, wider, folder=tmp_path, trials=1)
    with pytest.raises(TuneError, match="the objectives differ"):
        run_study(curve, SPACE, folder=tmp_path, trials=1, metric="size")


def test_warm_start_adds_knowledge_that_is_not_counted(tmp_path):
    first = run_study(curve, SPACE, folder=tmp_path / "a", trials=12, pruner="none")
    second = run_study(
        curve,
        SPACE,
        folder=tmp_path / "b",
        trials=3,
        warm_start=tmp_path / "a",
        enqueue=[{"x": 0.5, "kind": "b"}],
        pruner="none",
    )
    assert len(second.trials) == 3
    assert second.trials[0].params["x"] == 0.5
    assert second.spent["trials"] == 3
    assert second.spent["device_seconds"] < first.spent["device_seconds"] + 1
    # no start-up any more: what is drawn now depends on the other study's values
    alone = run_study(
        curve,
        SPACE,
        folder=tmp_path / "d",
        trials=3,
        enqueue=[{"x": 0.5, "kind": "b"}],
        pruner="none",
    )
    assert [r.params for r in alone.trials[1:]] != [r.params for r in second.trials[1:]]
    assert min(abs(r.params["x"] - 0.3) for r in second.trials[1:]) < 0.2
    with pytest.raises(TuneError, match="There is no study in"):
        run_study(curve, SPACE, folder=tmp_path / "c", trials=1, warm_start=tmp_path / "none")


def test_whole_ends_of_a_setting_that_is_a_fraction_are_told(tmp_path, caplog):
    def said(node, own):
        caplog.clear()
        StudySpec.make({"x": node}, Budget(trials=1), folder=tmp_path, baseline={"x": own})
        return caplog.text

    assert "of x whole numbers alone are tried" in said({"low": 0, "high": 1}, 0.4)
    assert said({"low": 0, "high": 1.0}, 0.4) == said({"low": 0, "high": 1}, 1) == ""
    assert said({"low": 0, "high": 1, "integer": True}, 0.4) == ""


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_runs_a_study(tmp_path, name):
    space = {"x": {"low": 0.0, "high": 1.0, "step": 0.05}, "kind": {"choices": ["a", "b"]}}
    result = run_study(curve, space, folder=tmp_path, trials=7, sampler=name, pruner="none")
    assert len(result.trials) == 7
    assert len({tuple(r.params.items()) for r in result.trials}) > 3
    assert all(0 <= r.params["x"] <= 1 for r in result.trials)


def test_a_grid_visits_every_point_once_and_ends(tmp_path):
    space = {"x": {"low": 0.0, "high": 1.0, "step": 0.5}, "kind": {"choices": ["a", "b"]}}
    result = run_study(curve, space, folder=tmp_path, trials=50, sampler="grid", pruner="none")
    points = [(r.params["x"], r.params["kind"]) for r in result.trials]
    assert len(points) == len(set(points)) == 6
    with pytest.raises(TuneError, match="finitely many values"):
        run_study(curve, SPACE, folder=tmp_path / "y", trials=2, sampler="grid")


def test_a_setting_beside_the_grid_takes_no_point_s_place(tmp_path):
    space = {"x": {"choices": [1, 2, 3]}}
    options = {"sampler": "grid", "pruner": "none", "baseline": {"x": 9}}
    result = run_study(lambda t: float(t.params["x"]), space, folder=tmp_path, trials=50, **options)
    assert sorted(r.params["x"] for r in result.trials) == [1, 2, 3, 9]


def test_a_grid_takes_enqueued_settings_for_the_points_they_are(tmp_path):
    space = {"x": {"low": 0.0, "high": 0.4, "step": 0.1}, "shape": {"choices": [[1, 2], [3]]}}
    first = [{"x": 0.3, "shape": [3]}, {"x": 0.1}]
    options = {"sampler": "grid", "pruner": "none", "enqueue": first}
    result = run_study(lambda t: t.params["x"], space, folder=tmp_path, trials=50, **options)
    assert result.trials[0].params == first[0]
    assert result.trials[1].params["x"] == 0.1
    points = {(round(r.params["x"], 6), str(r.params["shape"])) for r in result.trials}
    assert len(points) == len(result.trials) == 10


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_pruners_end_bad_trials_early(tmp_path, name):
    result = run_study(
        lambda trial: curve(trial, epochs=12),
        SPACE,
        folder=tmp_path,
        trials=12,
        pruner=name,
        epochs_per_trial=12,
        sampler="random",
    )
    pruned = [r for r in result.trials if r.state == "pruned"]
    assert bool(pruned) == (name != "none")
    assert all(r.epochs < 12 for r in pruned)


@pytest.mark.parametrize(("known", "states"), [(9, {"complete"}), (None, {"complete", "pruned"})])
def test_a_fully_trained_trial_is_never_pruned_though_its_last_epoch_is_a_rung(
    tmp_path, known, states
):
    def late(trial):
        # equal to the best until the last epoch, then by number
        for epoch in range(9):
            trial.report(epoch, val_accuracy=-float(trial.number) if epoch == 8 else 1.0)
        return {"val_accuracy": -float(trial.number)}

    result = run_study(
        late, SPACE, folder=tmp_path, trials=8, epochs_per_trial=known, sampler="random",
        pruner={"name": "asha", "promote": False},
    )  # fmt: skip
    assert {r.state for r in result.trials} == states


def test_a_budget_of_minutes_holds_on_a_host_whose_clock_began_at_another_time(monkeypatch):
    budget = Budget(trials=5, wall_seconds=60.0)
    sent, began, day = pickle.dumps(budget), time.monotonic(), time.time()
    monkeypatch.setattr(time, "monotonic", lambda: began + 1e6)
    for later, ended in ((1.0, None), (61.0, "the budget of 1 minutes is spent")):
        monkeypatch.setattr(time, "time", lambda later=later: day + later)
        assert pickle.loads(sent).exhausted(Spent()) == ended


def test_a_database_holds_several_studies_and_continues_them(tmp_path):
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/studies.db"
    calls = Calls()
    run_study(calls, SPACE, folder=tmp_path / "a", trials=2, storage=url)
    result = run_study(calls, SPACE, folder=tmp_path / "a", trials=3, storage=url)
    assert [number for number, _ in calls] == [0, 1, 2]
    assert len(result.trials) == 3
    other = {"y": {"low": 0, "high": 3}}
    second = run_study(lambda t: t.params["y"], other, folder=tmp_path / "b", trials=1, storage=url)
    assert len(second.trials) == 1
    with pytest.raises(TuneError, match=r"studies.db is in use by a study with another space"):
        run_study(
            calls, other, folder=tmp_path / "c", trials=1, storage=url, study_name=_name(tmp_path)
        )


def _name(tmp_path):
    return "/".join((tmp_path / "a").resolve().parts[-3:])


@pytest.mark.parametrize("failing", [errno.ENOSPC, errno.EIO])
def test_a_faulty_disk_stops_the_study_and_fails_no_trial(tmp_path, failing):
    def on_a_faulty_disk(trial):
        if trial.number == 1 and not (tmp_path / "mended").exists():
            raise RuntimeError("could not save") from OSError(failing, "faulty", "checkpoint.pt")
        return curve(trial)

    settings = {"folder": tmp_path / "study", "trials": 3, "sampler": "random", "seed": 4}
    with pytest.raises(OSError, match=r"faulty.*checkpoint") as stopped:
        run_study(on_a_faulty_disk, SPACE, **settings)
    assert "run the same command again" in sentence_of(stopped.value)
    (tmp_path / "mended").touch()
    mended = run_study(on_a_faulty_disk, SPACE, **settings)
    undisturbed = run_study(curve, SPACE, **{**settings, "folder": tmp_path / "other"})
    assert params_of(mended) == params_of(undisturbed)
    assert {t.state for t in mended.trials} <= {"complete", "pruned"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_cut_off_while_it_is_drawn_gets_the_settings_it_would_have_had(
    tmp_path, monkeypatch, sampler
):
    store = JournalStorage.set_trial_param

    def run(folder, failing):
        calls = iter(range(1, 10**6))

        def faulty(self, *arguments):
            if next(calls) == failing:
                raise OSError(errno.EIO, "faulty", "study.journal")
            return store(self, *arguments)

        monkeypatch.setattr(JournalStorage, "set_trial_param", faulty)
        settings = {"folder": folder, "trials": 3, "seed": 3, "sampler": sampler}
        enqueue = [{"x": 0.5, "kind": "a"}]
        try:
            return run_study(curve, SPACE, **settings, enqueue=enqueue)
        except OSError:
            # the same process, too, may go on
            return run_study(curve, SPACE, **settings, enqueue=enqueue)

    undisturbed = params_of(run(tmp_path / "sound", 0))
    for failing in range(1, 7):
        assert params_of(run(tmp_path / str(failing), failing)) == undisturbed
