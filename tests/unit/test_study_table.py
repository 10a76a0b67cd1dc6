"""`python -m darts_core.study.table`: the trials of a study for machines."""

from __future__ import annotations

import csv
import io
import json

import pytest

from darts_core.runlog import write_json
from darts_core.study import run_study
from darts_core.study.table import main, to_csv, write_tables


@pytest.mark.parametrize("kind", ["--csv", "--json"])
@pytest.mark.parametrize(
    "result",
    [
        {"val_accuracy": 0.9, "device_seconds": 3.0},
        # of the search of a script
        {"objectives": [{"metric": "acc"}], "trials": {"done": 3}},
        [1],
        None,
    ],
)
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


def test_a_searched_number_of_epochs_hides_none_that_a_trial_came_to(tmp_path, capsys):
    def objective(trial):
        trial.report(0, val_accuracy=0.5)
        return 0.5

    space = {"epochs": {"choices": [7]}}
    found = run_study(objective, space, folder=tmp_path, trials=1)
    write_tables(found, tmp_path)
    main([str(tmp_path), "--csv"])
    for text in ((tmp_path / "trials.csv").read_text(), capsys.readouterr().out):
        (row,) = csv.DictReader(io.StringIO(text))
        assert (row["epochs"], row["params.epochs"]) == ("1", "7")


def test_no_name_and_no_text_is_a_formula_or_steers_a_terminal():
    rows = [
        {"=lr": 1, "reason": "\t=1+1\n\x1b[2J"},
        {"=lr": -0.5, "reason": "@a"},
        {"reason": None},
    ]
    assert to_csv(rows) == "'=lr,reason\n1,\\t=1+1\\n\\u001b[2J\n-0.5,'@a\n,\n"
