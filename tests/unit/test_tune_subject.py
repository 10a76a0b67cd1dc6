"""A study in a database is of one network and its data: a command that tunes others does not join it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from darts_core.errors import ResumeError, TuneError
from darts_core.settings import from_plain
from darts_core.stages import tune as module
from darts_core.stages.inputs import Network
from darts_core.stages.schema import TuneStage
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.spec import StudySpec

SPACE = {"x": {"low": 0.0, "high": 1.0}}


def joined(tmp_path, job, subject):
    spec = StudySpec.make(
        SPACE, Budget(trials=3), folder=tmp_path / job, storage=f"sqlite:///{tmp_path}/one.db",
        study_name="recipe", subject=subject,
    )  # fmt: skip
    return Ledger(spec)


def test_a_command_that_tunes_something_else_does_not_join(tmp_path):
    pytest.importorskip("sqlalchemy")
    joined(tmp_path, "a", "resnet8 on digits (1)")
    joined(tmp_path, "b", "resnet8 on digits (1)")
    with pytest.raises(
        TuneError, match=r"'recipe' in .* tunes resnet8 on digits \(1\), this .*\(2\)"
    ):
        joined(tmp_path, "c", "resnet8 on digits (2)")
    # one that does not say of what it is
    joined(tmp_path, "d", None)


def test_a_study_of_an_older_program_is_joined(tmp_path):
    pytest.importorskip("sqlalchemy")
    joined(tmp_path, "a", None)
    joined(tmp_path, "b", "resnet8 on digits (1)")
    joined(tmp_path, "c", "resnet8 on digits (2)")


def test_a_study_does_not_go_on_on_other_data(tmp_path):
    def goes_on(mark):
        module._on_the_same_data(tmp_path, SimpleNamespace(mark=mark))

    goes_on("two")  # and was stopped before it began
    goes_on("one")
    (tmp_path / "study.json").write_text("{}")
    goes_on("one")
    with pytest.raises(ResumeError, match=r"data\.json was written on other data: samples or"):
        goes_on("two")
    (tmp_path / "data.json").unlink()  # as an older program leaves a study
    goes_on("two")
    assert not (tmp_path / "data.json").exists()


def subject(monkeypatch, *, saved=None, storage="sqlite:///one.db", **changes):
    baseline = {"name": "resnet8", "width": 8}
    meta = {"baseline": baseline, "mean": [0.1], "std": [0.2], "data": "digits", **changes}
    monkeypatch.setattr(module, "find_network", lambda *_: Network(None, meta, saved=saved))
    config = from_plain(TuneStage, {"tune": {"options": {"storage": storage}}})
    return module._subject(config, Path("V001/tune"), SimpleNamespace(name="digits"))


def test_what_is_tuned_is_told_by_the_network_and_its_data(monkeypatch):
    one = subject(monkeypatch)
    assert one.startswith("resnet8 on digits (")
    # hosts may round the data's statistics otherwise
    assert subject(monkeypatch, mean=[0.1000001]) == one
    assert subject(monkeypatch, baseline={"name": "resnet8", "width": 16}) != one
    assert subject(monkeypatch, class_names=["a", "b"]) != one
    # where a saved network lies says nothing of it
    here, there = (subject(monkeypatch, saved=Path(name) / "model.pt") for name in ("a", "b"))
    assert here == there
    # a journal lies in the command's own folder
    assert subject(monkeypatch, storage=None) is None


@pytest.mark.parametrize(
    ("meta", "saved", "unread"),
    [
        ({"build": {"channels": 16, "layers": 8, "auxiliary": False}}, None, ""),
        ({"build": {"channels": 16, "layers": 8}}, Path("train/model.pt"), "channels, layers"),
        ({"baseline": {"name": "resnet8", "width": 8}}, None, "layers"),
        ({"model": {"name": "mine:net"}}, None, "channels, layers"),
    ],
)
def test_sizes_that_the_network_is_not_made_by_are_said_to_change_nothing(
    monkeypatch, caplog, meta, saved, unread
):
    found = Network(None, meta, saved=saved)
    monkeypatch.setattr(module, "find_network", lambda *_: found)
    config, space = from_plain(TuneStage, {}), {"channels": [8, 16], "layers": [4, 8]}
    module._say_unread(config, {"momentum": [0.8, 0.9]}, Path("V001/tune"), None)
    assert caplog.text == ""
    module._say_unread(config, space, Path("V001/tune"), None)
    assert (f"varies {unread}, which changes nothing" in caplog.text) == bool(unread)
    assert bool(caplog.text) == bool(unread)
