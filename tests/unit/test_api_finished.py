"""A call of `darts_core.api` whose command has been run before."""

from __future__ import annotations

from darts_core.api import _finished
from darts_core.store.jobs import Store
from darts_core.store.record import new_record


def test_a_later_command_of_a_version_is_found_again(tmp_path):
    store = Store(tmp_path)
    store.create_job("mine", kind="pipeline")
    places = [f"out='{tmp_path}'", "job=mine"]
    commands = {
        "search": {"state": "succeeded", "overrides": ["data=digits", *places]},
        "tune": {"state": "succeeded", "overrides": ["data=digits", "tune.trials=2", *places]},
        "shrink": {"state": "failed", "overrides": ["data=digits", *places]},
    }
    with store.new_version("mine", new_record("pipeline", commands=commands)):
        pass

    def found(command, *words, job="mine"):
        version = _finished(store, job, command, list(words))
        return None if version is None else version.label

    assert found("search", "data=digits") == "mine/V001"
    assert found("tune", "data=digits", "tune.trials=2") == "mine/V001"
    assert found("tune", "data=digits", "tune.trials=3") is None
    assert found("shrink", "data=digits") is None
    assert found("search", "data=digits", job="another") is None
