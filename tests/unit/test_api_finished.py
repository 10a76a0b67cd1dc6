"""Calls of `darts_core.api`: what their settings become, and a command that has been run before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darts_core.api import Found, _finished, _placed, _value, search
from darts_core.autosearch import SearchResult
from darts_core.commands.jobs import pipeline
from darts_core.commands.overrides import parse
from darts_core.errors import ConfigError, JobError
from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.store.version import Version


def test_a_later_command_of_a_version_is_found_again(tmp_path):
    store = Store(tmp_path)
    store.create_job("mine", kind="pipeline")
    places = [f"out='{tmp_path}'", "job=mine"]
    commands = {
        "search": {"state": "succeeded", "overrides": ["data=digits", *places]},
        "tune": {"state": "succeeded", "overrides": ["data=digits", "tune.trials=2", *places]},
        "shrink": {"state": "failed", "overrides": ["data=digits", *places]},
    }
    for _ in range(2):
        with store.new_version("mine", new_record("pipeline", commands=commands)):
            pass

    def found(command, *words, job="mine"):
        version = _finished(store, job, command, list(words))
        return None if version is None else version.label

    assert (
        found("search", "data=digits")
        == found("search", "version=null", "data=digits")
        == "mine/V002"
    )
    assert found("search", "data=digits", "version='V001'") == "mine/V001"
    assert found("tune", "data=digits", "tune.trials=2") == "mine/V002"
    assert found("tune", "data=digits", "tune.trials=3") is None
    assert found("shrink", "data=digits") is None
    assert found("search", "data=digits", job="another") is None


def test_a_setting_is_the_text_that_was_given_whatever_characters_it_has():
    for text in ("a", "a b", "~/x", "/data/scans (old)/a&b.npz", "/é.npz", "it's", "x=y", "a,b",
                 "C:\\scans (old)", "a (b)\\", "a (b)\\\\", r"\'x \"y\" (\'"):  # fmt: skip
        assert parse(f"data.path={_value(text)}").value() == text
    assert parse(f"data.path={_value(Path('/a (1).npz'))}").value() == "/a (1).npz"
    assert parse(f"data.columns={_value(['a,b', 'c'])}").value() == ["a,b", "c"]
    assert [_value(several) for several in (range(3), np.array([0.5, 0.25]))] == [
        "[0,1,2]",
        "[0.5,0.25]",
    ]
    # what the grammar knows stays what it is
    assert [_value(text) for text in ("[a,b]", "{a:1}", "'x y'")] == ["[a,b]", "{a:1}", "'x y'"]


def test_where_results_go_is_said_by_the_arguments_before_anything_is_started(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "start", None)
    for wrong in ("job=another", "++out=elsewhere"):
        with pytest.raises(ConfigError, match=r"would not count: the argument (job|out)= of the"):
            search("data=digits", wrong, out=tmp_path)
    for wrong in ("-m", "--multirun", "--cfg=job"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is for the command line alone"):
            search(wrong, "seed=0,1", out=tmp_path)
    assert _placed("mine", ["--config-dir", "conf"]) == ("mine", ["--config-dir", "conf"])
    with pytest.raises(ConfigError, match="'job=another' would not count"):
        search("data=digits", settings={"job": "another"}, out=tmp_path)
    with pytest.raises(JobError, match="The job name 'my job' is not allowed"):
        search("data=digits", job="my job", out=tmp_path)
    assert _placed("mine", ["data=digits"]) == ("mine", ["data=digits"])
    assert _placed("mine/V002", ["data=digits"]) == ("mine", ["data=digits", "version='V002'"])


def test_a_result_whose_folder_is_gone_is_shown_without_an_error(tmp_path):
    found = Found(Version(tmp_path / "mine" / "V001"), "search")
    assert repr(found) == "Found(mine/V001: nothing is there any more)"
    assert found._repr_html_() is None
    result = SearchResult({"lr": 0.1}, {"acc": 0.9}, "better.", {}, [], found.version.path)
    assert result._repr_html_() is None
