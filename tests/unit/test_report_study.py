"""What a page tells of a study before its end: the trials that there are by then."""

from dataclasses import replace

from darts_core.report.read import StageRun, VersionRun
from darts_core.report.study_so_far import study_so_far
from darts_core.report.tuning import tune_section
from darts_core.runlog import write_json, write_yaml


def _study(folder):
    write_json(folder / "study.json", {"objectives": [["val_accuracy", "maximize"]]})
    for number, rate in enumerate((0.1, 0.2, 0.3)):
        settings = {"number": number, "params": {"learning_rate": rate}}
        write_yaml(folder / "trials" / f"{number:04d}" / "config.yaml", settings)
    own = folder / "trials"
    write_json(own / "0000" / "result.json", {"state": "complete", "values": [0.5]})
    rows = [{"epoch": 0, "val_accuracy": 0.25}, {"epoch": 1, "val_accuracy": 0.75}]
    write_json(own / "0001" / "metrics.jsonl", rows[0])
    (own / "0003").mkdir()  # its settings are not there yet
    write_json(own / "notes" / "config.yaml", {"params": {}})
    return StageRun("tune", folder)


def test_the_trials_of_a_study_that_runs_are_read_from_their_folders(tmp_path):
    found = study_so_far(_study(tmp_path))
    assert found["objectives"] == {"val_accuracy": "maximize"}
    assert [(t["number"], t["state"], t["value"]) for t in found["trials"]] == [
        (0, "complete", 0.5), (1, "unfinished", None), (2, "unfinished", None),
    ]  # fmt: skip
    assert found["trials"][2]["params"] == {"learning_rate": 0.3}


def test_a_page_shows_a_study_that_runs(tmp_path):
    stage = _study(tmp_path)
    section = tune_section(VersionRun(tmp_path, "job", "V001", {"tune": stage}))
    assert section.note == "3 trials: 1 complete, 2 unfinished."
    assert "Best settings (trial 0)" in section.body


def test_a_trial_of_a_study_that_runs_may_break_a_constraint(tmp_path):
    stage = _study(tmp_path)
    about = {
        "objectives": [["val_accuracy", "maximize"]],
        "constraints": [["latency_ms", "<=", 5.0]],
    }
    write_json(tmp_path / "study.json", about)
    for number, (value, metrics) in enumerate(((0.5, {"latency_ms": 4.0}), (0.9, {"latency_ms": 9.0}),
                                               (0.8, {}))):  # fmt: skip
        told = {"state": "complete", "values": [value], "metrics": metrics}
        write_json(tmp_path / "trials" / f"{number:04d}" / "result.json", told)
    assert [t["feasible"] for t in study_so_far(stage)["trials"]] == [True, False, False]
    section = tune_section(VersionRun(tmp_path, "job", "V001", {"tune": stage}))
    assert "Best settings (trial 0)" in section.body
    assert "outside the constraints" in section.body


def test_a_share_is_shown_in_per_cent_whatever_it_is_called(tmp_path):
    stage, name = _study(tmp_path), "mean_average_precision"
    write_json(tmp_path / "study.json", {"objectives": [[f"val_{name}", "maximize"]]})
    for share in (True, False):
        metric = {"name": name, "direction": "maximize", "share": share}
        told = replace(stage, result={"metric": metric})
        section = tune_section(VersionRun(tmp_path, "job", "V001", {"tune": told}))
        assert ("50 %" in section.body) == share


def test_a_result_is_told_as_it_is(tmp_path):
    _study(tmp_path)
    ended = StageRun("tune", tmp_path, result={"trials": [], "best_number": 1}, finished=True)
    assert study_so_far(ended) is ended.result


def test_a_study_of_which_nothing_is_there_yet_has_no_section(tmp_path):
    for text in ("[1", "[]"):
        (tmp_path / "study.json").write_text(text)
        assert study_so_far(StageRun("tune", tmp_path)) == {}
    running = VersionRun(tmp_path, "job", "V001", {"tune": StageRun("tune", tmp_path)})
    assert tune_section(running) is None
