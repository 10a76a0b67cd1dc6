"""Folders of schema 1, as the program wrote them before one store held every kind."""

import logging
import shutil
from pathlib import Path

import pytest

from darts_core.report.job_rows import version_rows
from darts_core.report.versions import write_version_report
from darts_core.runlog import read_json
from darts_core.store.claim import claim
from darts_core.store.jobs import Store

OLD = Path(__file__).parent / "old_runs"


@pytest.fixture
def store(tmp_path):
    shutil.copytree(OLD, tmp_path / "runs")
    return Store(tmp_path / "runs")


def test_both_old_kinds_are_listed_with_state_and_value(store):
    found = {
        r["name"]: (r["kind"], r["command"], r["state"], r["metric"]) for r in version_rows(store)
    }
    assert found == {
        "cut": ("pipeline", "search", "interrupted", "val_accuracy"),
        "done": ("pipeline", "search", "succeeded", "val_accuracy"),
        "multi": ("pipeline", "search", "succeeded", "val_accuracy"),
        "script": ("script", "autosearch", "succeeded", "accuracy"),
        "scut": ("script", "autosearch", "stopped", "accuracy"),
    }
    (row,) = version_rows(store, "script")
    assert (row["value"], row["baseline"]) == (1.0, pytest.approx(0.64))
    assert row["started"] == pytest.approx(1795770631.787163)


def test_an_old_pipeline_with_the_same_settings_goes_on_and_a_finished_one_says_so(store):
    stamp = store.version("cut").command("search")["config_hash"]
    assert stamp == "f3150a7bf4c8"
    again = claim(store.root, "cut", kind="pipeline", command="search", stamp=stamp)
    assert (again.path.name, again.resumes, again.finished) == ("V001", True, False)
    assert store.version("cut").state() == "running"
    again.give_up("interrupted", "ended")
    again.release()
    record = read_json(again.path / "version.json")
    assert (record["schema_version"], record["kind"]) == (2, "pipeline")
    assert record["commands"]["search"]["overrides"][0] == "job=cut"
    stamp = store.version("done").command("search")["config_hash"]
    done = claim(store.root, "done", kind="pipeline", command="search", stamp=stamp)
    done.release()
    assert (done.path.name, done.finished) == ("V001", True)


def test_an_unfinished_old_version_is_named_beside_a_new_one(store, caplog):
    overrides = store.version("cut").command("search")["overrides"]
    with caplog.at_level(logging.WARNING, "darts_core"):
        new = claim(store.root, "cut", kind="pipeline", command="search", stamp="other",
                    details={"overrides": overrides})  # fmt: skip
    new.release()
    assert new.path.name == "V002"
    assert "cut/V001 holds an unfinished search of this command line" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "darts_core"):
        claim(store.root, "done", kind="pipeline", command="search", stamp="other",
              details={"overrides": overrides}).release()  # fmt: skip
    assert caplog.text == ""


@pytest.mark.parametrize("job", ["cut", "done", "multi", "script", "scut"])
def test_every_old_kind_has_a_report(store, job):
    page = write_version_report(store.version(job).path).read_text(encoding="utf-8")
    assert f"{job}" in page
    assert "<script" not in page


def test_an_old_search_of_a_script_is_deleted_and_keeps_its_request(store):
    version = store.version("script")
    assert version.command()["request"]["boot_file"] == "boot.py"
    assert (version.name, version.kind, version.running()) == ("V001", "script", None)
    store.delete_job("script")
    assert not (store.root / "script").exists()
    store.delete_job("multi")
    assert not (store.root / "multi").exists()


def test_a_version_of_a_newer_program_is_left_out_of_lists_and_refused_by_name(store):
    path = store.root / "done" / "V001" / "version.json"
    text = path.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 9')
    path.write_text(text, encoding="utf-8")
    assert "done" not in {row["name"] for row in version_rows(store)}
    assert len(list(version_rows(store))) == 4
