"""`python -m darts_core.study.table`: the trials of a study for machines."""

from __future__ import annotations

import json

import pytest

from darts_core.runlog import write_json
from darts_core.study import run_study
from darts_core.study.table import main, write_tables


@pytest.mark.parametrize("kind", ["--csv", "--json"])
@pytest.mark.parametrize("result", [{"val_accuracy": 0.9, "device_seconds": 3.0}, [1], None])
def test_a_folder_that_is_no_studys_is_a_sentence(tmp_path, capsys, kind, result):
    if result is not None:
        write_json(tmp_path / "result.json", result)
    assert main([str(tmp_path), kind]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("darts-core: ")
    assert str(tmp_path / "result.json") in said.err
    assert len(said.err.splitlines()) == 1


def test_a_studys_trials_are_printed(tmp_path, capsys):
    space = {"x": {"low": 0.0, "high": 1.0}}
    found = run_study(lambda trial: trial.params["x"], space, folder=tmp_path, trials=2)
    write_tables(found, tmp_path)
    assert main([str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out.startswith("number,state,epochs,device_seconds,val_accuracy,x,")
    assert main([str(tmp_path)]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
