"""Optuna's private names: used in one file, and there in the version that is installed."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

import optuna
import optuna.storages._rdb.storage as rdb
import pytest

from darts_core.study import optuna_private as private
from darts_core.study.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "darts_core" / "study" / "optuna_private.py"


def foreign_privates(path):
    """Names with one leading underscore that are read off something other than `self` or `super()`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1:2] != "_":
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
                continue
            yield node.attr


USED = sorted(
    {
        *foreign_privates(HOME),
        "_param_names",
        "_all_grids",
        "_search_space",
        "_create_scoped_session",
    }
)


def things():
    study = optuna.create_study()
    trial = study.ask()
    database = optuna.storages.RDBStorage("sqlite://")
    grid = optuna.samplers.GridSampler({"x": [1, 2]})
    cached = optuna.create_study(storage=database)._storage
    journal = open_storage(Path(tempfile.mkdtemp()))
    replayed = journal._replay_result
    return study, trial, study.trials[0], grid, database, rdb, cached, journal, replayed


@pytest.mark.parametrize("name", USED)
def test_each_private_name_is_there(name):
    assert any(hasattr(thing, name) for thing in things()), (
        f"Optuna {optuna.__version__} has no {name} any more: mend darts_core/study/optuna_private.py"
    )


def test_no_other_file_uses_them():
    assert {"_trial_id", "_storage", "_study_id", "_suggest"} <= set(USED)
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("darts_core", "hydra_plugins")
        for path in (ROOT / folder).rglob("*.py")
        for name in foreign_privates(path)
        if path != HOME and name in USED
    }
    assert not found


def test_they_do_what_their_names_say():
    study = private.ViewedStudy("a", _storage_of("a"))
    trial = study.ask()
    x = optuna.distributions.FloatDistribution(0.0, 1.0)
    value = private.draw_value(trial, "x", x)
    assert private.draw_value(trial, "x", x) == value
    assert not private.is_settled(trial, "x", x)
    assert 0.0 <= private.draw_again(trial, "x", x) <= 1.0
    private.set_attr(study, trial, "key", {"a": 1})
    private.set_value(study, trial, 3, 0.5)
    found = private.numbered(study, 0)
    assert (found.user_attrs, found.intermediate_values) == ({"key": {"a": 1}}, {3: 0.5})
    assert private.stored(study, trial).params == {"x": value}
    assert private.taken_up(study, found).params == {"x": value}
    study.enqueue_trial({"x": 0.25})
    assert private.is_settled(study.ask(), "x", x)
    private.add_stored(study, optuna.trial.create_trial(value=1.0))
    assert [t.state.name for t in study.real_trials()] == ["RUNNING", "RUNNING", "COMPLETE"]


@pytest.mark.parametrize("url", [None, "sqlite"])
def test_several_attributes_are_stored_at_once(tmp_path, url):
    storage = open_storage(tmp_path, url and f"sqlite:///{tmp_path}/one.db")
    study = optuna.create_study(study_name="s", storage=storage)
    study.ask(), study.ask()
    private.set_attrs(study, 1, {"a": 1, "b": [2]})
    again = optuna.load_study(
        study_name="s", storage=open_storage(tmp_path, url and storage_url(storage))
    )
    for seen in (study, again):
        assert private.numbered(seen, 1).user_attrs == {"a": 1, "b": [2]}
        assert private.attr_of(seen, 1, "b") == [2]
        assert private.attr_of(seen, 0, "b") is None
    study.tell(1, 0.5)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        private.set_attrs(study, 1, {"a": 3})
    assert private.attr_of(again, 1, "a") == 1


@pytest.mark.parametrize("url", [None, "sqlite"])
def test_a_trial_is_ended_as_optuna_does(tmp_path, url):
    storage = open_storage(tmp_path, url and f"sqlite:///{tmp_path}/one.db")
    study = optuna.create_study(study_name="s", storage=storage)
    state = optuna.trial.TrialState
    cases = [
        (state.COMPLETE, [0.5], {}),
        (state.FAIL, None, {1: 0.25}),
        (state.PRUNED, None, {1: 0.25, 3: 0.75}),
        (state.PRUNED, None, {1: float("nan")}),
        (state.PRUNED, None, {}),
    ]
    for way in ("theirs", "ours"):
        for ended, values, steps in cases:
            trial = study.ask()
            for step, value in steps.items():
                trial.report(value, step)
            if way == "theirs":
                study.tell(trial.number, values, state=ended)
                continue
            found = private.told(study, trial.number, ended, values, {"a": 1, "b": [2]})
            kept = private.numbered(study, trial.number)
            assert found.user_attrs == kept.user_attrs == {"a": 1, "b": [2]}
            other = private.numbered(study, trial.number - len(cases))
            for one in (found, kept):
                assert (one.state, one.values) == (other.state, other.values)
            assert found.datetime_complete is not None
            with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
                private.told(study, trial.number, ended, values, {"a": 3})
            assert private.attr_of(study, trial.number, "a") == 1


def test_attributes_of_an_end_that_failed_are_not_kept(tmp_path, monkeypatch):
    storage = open_storage(tmp_path, f"sqlite:///{tmp_path}/one.db")
    study = optuna.create_study(study_name="s", storage=storage)
    study.ask()

    def broken(*arguments, **options):
        raise OSError("gone")

    monkeypatch.setattr(rdb.RDBStorage, "set_trial_state_values", broken)
    with pytest.raises(OSError, match="gone"):
        private.told(study, 0, optuna.trial.TrialState.COMPLETE, [1.0], {"a": 1})
    assert private.attr_of(study, 0, "a") is None
    assert private.numbered(study, 0).state.name == "RUNNING"


def storage_url(storage):
    return storage.engine.url.render_as_string(hide_password=False)


def _storage_of(name):
    return optuna.create_study(study_name=name)._storage


def test_what_samplers_see_of_a_trial_may_differ_from_what_is_stored():
    class Blind(private.ViewedStudy):
        def shown(self, trial):
            return optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)

    study = Blind("b", _storage_of("b"))
    study.ask()
    assert [t.state.name for t in study.get_trials()] == ["FAIL"]
    assert [t.state.name for t in study.real_trials()] == ["RUNNING"]
    assert study.get_trials(states=(optuna.trial.TrialState.RUNNING,)) == []


def test_a_grid_gives_out_its_points():
    grid = private.PointsGrid({"x": [1, 2], "y": [3]}, seed=0)
    assert sorted(grid.points) == [(1, 3), (2, 3)]
    grid.points = [(2, 3), (1, 3)]
    study = optuna.create_study(sampler=grid)
    grid.assign(study, study.ask(), 0)
    assert study.trials[0].system_attrs["grid_id"] == 0
    assert grid.names == ["x", "y"]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_all_trials_are_known_without_being_listed_anew(kind, tmp_path):
    """As the storage's own list, whoever changed it; only what is open or new is asked for."""
    url = None if kind == "journal" else f"sqlite:///{tmp_path}/s.db"
    storage = [open_storage(tmp_path, url) for _ in range(2)]
    optuna.create_study(study_name="s", storage=storage[0])
    mine, theirs = (private.ViewedStudy("s", each) for each in storage)

    def check():
        found, wanted = (
            mine.real_trials(),
            optuna.load_study(study_name="s", storage=storage[1]).trials,
        )
        assert [(t.number, t.state, t.values, t.user_attrs) for t in found] == [
            (t.number, t.state, t.values, t.user_attrs) for t in wanted
        ]
        return found

    assert check() == []
    first, second = theirs.ask(), mine.ask()
    assert len(check()) == 2
    theirs.enqueue_trial({"x": 1.0})
    private.set_attr(theirs, first, "key", 1)
    assert check()[0].user_attrs == {"key": 1}
    mine.tell(second, 0.5)
    before = check()[1]
    theirs.tell(first, 0.25)
    third = theirs.ask()
    assert check()[1] is before
    theirs.tell(third, 0.1)
    assert [t.state.name for t in check()] == ["COMPLETE"] * 3
