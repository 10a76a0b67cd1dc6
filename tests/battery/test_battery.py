"""A thousand and more bad inputs through the real commands: no defect, no silent acceptance, no hang."""

import json
import os

import battery_run
import pytest
from battery_cases import BASES, Case, all_cases, file_cases
from battery_run import judge, run

from benchmarks.bad_inputs import WRONG, counted
from benchmarks.bad_inputs import run as run_battery
from darts_core.commands.compose import compose, session

SENTENCE = "darts-core: x=1 is not allowed.\n"


def test_there_are_a_thousand_cases_of_every_kind():
    cases = all_cases()
    assert len(cases) >= 1000
    groups = {case.group for case in cases}
    assert {
        "settings of search",
        "settings of run",
        "manifest",
        "image",
        "npz",
        "job file",
    } <= groups
    # no name is longer than a file name, no command too long for the system
    assert all(len(word) < 131_000 for case in cases for word in case.argv)


@pytest.mark.parametrize(
    ("status", "output", "refuse", "verdict"),
    [
        (2, SENTENCE, True, "refused"), (2, SENTENCE, False, "refused"), (0, "", False, "done"),
        (0, "", True, "accepted"), (None, "", True, "hang"), (1, SENTENCE, True, "defect"),
        (-9, "", True, "defect"), (2, "", True, "no sentence"), (2, SENTENCE * 2, True, "no sentence"),
        (2, SENTENCE + "this is a defect", True, "defect"),
        (0, "Traceback (most recent call last)", False, "defect"),
    ],
)  # fmt: skip
def test_the_judge(status, output, refuse, verdict):
    assert judge(Case("g", "n", ("x",), refuse=refuse), status, output) == verdict


def test_counts_add_up():
    rows = [
        {"group": "a", "verdict": "refused", "left": []},
        {"group": "a", "verdict": "defect", "left": ["runs/a"]},
        {"group": "b", "verdict": "done", "left": []},
    ]
    first, second = counted(rows)
    assert first["cases"] == 2
    assert (first["refused"], first["defect"], first["left a folder"]) == (1, 1, 1)
    assert second == {**dict.fromkeys(first, 0), "group": "b", "cases": 1, "done": 1}


def test_a_case_runs_the_real_command_in_its_own_folder(tmp_path):
    refused = Case("g", "n", ("predict", "--model", "{}", "a.png"), {"manifest.json": b"{}"})
    found = run(refused, tmp_path / "case", tmp_path)
    assert found["verdict"] == "refused", found
    accepted = run(Case("g", "n", ("--version",)), tmp_path / "case", tmp_path)
    assert (accepted["verdict"], accepted["status"]) == ("accepted", 0)
    assert not (tmp_path / "case").exists()


def test_a_folder_that_a_refusal_leaves_is_seen(tmp_path, monkeypatch):
    def child(argv, folder):
        (folder / "runs" / "a" / ".lock").mkdir(parents=True)
        (folder / "output").write_text(SENTENCE)
        os._exit(2)

    monkeypatch.setattr(battery_run, "_in_child", child)
    found = run(Case("g", "n", ("x",)), tmp_path / "case", tmp_path)
    assert (found["verdict"], found["left"]) == ("refused", ["runs/a"])


@pytest.mark.full
def test_a_report_reads_the_hostile_files_of_a_job(tmp_path):
    cases = [case for case in file_cases() if case.name in ("result: a text", "metrics: a text")]
    found = [run(case, tmp_path / "case", tmp_path)["verdict"] for case in cases]
    assert found == ["done", "done"]


def test_what_cases_of_settings_start_from_is_allowed():
    """Else each of them is refused for that, whatever the setting."""
    with session() as place:
        for command, words in BASES.items():
            compose(command, [word.replace("{good}", "/good") for word in words], place)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_bad_inputs_end_in_a_sentence(tmp_path):
    every = int(os.environ.get("DARTS_BATTERY_EVERY", "1"))
    rows = run_battery(tmp_path, every=every)
    assert len(rows) >= 1000 // every
    wrong = [row for row in rows if row["verdict"] in WRONG or row["left"]]
    assert wrong == [], json.dumps(wrong, indent=1)
