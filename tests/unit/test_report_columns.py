"""What is compared side by side: versions, and of a multirun its elements."""

import argparse
import json
import os
from pathlib import Path

import pytest
import report_fixture as fixture
from web_site import site

from darts_core import cli
from darts_core.commands.jobs.comparison import named_columns, run_compare
from darts_core.commands.jobs.pipeline import show_best
from darts_core.errors import JobError
from darts_core.report.columns import columns_of
from darts_core.report.comparison import different_settings, results_table
from darts_core.report.job_details import version_details
from darts_core.report.job_rows import picked
from darts_core.report.job_summary import seen_summary, stage_facts
from darts_core.report.tables import render, short
from darts_core.report.versions import content_of, write_version_report
from darts_core.runlog import read_json, write_json, write_yaml
from darts_core.store.jobs import Store
from darts_core.store.record import new_record


@pytest.fixture
def store(tmp_path):
    """A job with one training, and one whose only version is a multirun of three."""
    store = Store(tmp_path / "runs")
    for job, places in (("one", [""]), ("many", ["0", "1", "10"])):
        store.create_job(job, kind="pipeline")
        with store.new_version(job, new_record("pipeline", commands={})) as made:
            for seed, place in enumerate(places):
                folder = made / place / "train"
                fixture.make_train(folder, seed=seed, test=0.9 + seed / 100)
    return store


def test_a_multirun_is_compared_element_by_element(store, capsys):
    asked = {"job": "one", "versions": ["many"], "picture": None, "form": "json"}
    args = argparse.Namespace(**asked, metric=["test_accuracy", "train val_accuracy"])
    assert run_compare(store, args) == 0
    rows = {row.pop("row"): row for row in json.loads(capsys.readouterr().out)}
    with pytest.raises(JobError, match="No trial of these versions has reported 'nothing'"):
        run_compare(store, argparse.Namespace(**asked, metric=["nothing"]))
    assert list(rows["state"]) == ["one/V001", "many/V001/0", "many/V001/1", "many/V001/10"]
    assert list(rows["train test_accuracy"].values()) == [0.9, 0.9, 0.91, 0.92]
    assert list(rows["train.seed"].values()) == [0, 0, 1, 2]
    assert "train.data.name" not in rows  # all the same


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["many"], ["V001/0", "V001/1", "V001/10"]),
        (["many", "V001"], ["V001/0", "V001/1", "V001/10"]),
        (["many/V001/10", "one"], ["V001/10", "V001"]),
        (["one", "many/V001/1"], ["V001", "V001/1"]),
    ],
)
def test_a_name_stands_for_a_version_or_its_elements(names, found, store):
    assert [column.name for column in named_columns(store, names)] == found


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["many/V001/2", "one"], "many/V001 has no element '2'; it has 0, 1, 10"),
        (["one/V001/0", "many"], "one/V001 has no element '0'; it has none"),
        (["many/V002/0", "one"], "has no version 'V002'"),
        (["one"], "compare needs two versions; name another one, of 'one'"),
    ],
)
def test_what_is_not_there_is_said(names, message, store):
    with pytest.raises(JobError, match=message):
        named_columns(store, names)


def test_the_page_compares_a_multirun_with_itself_and_with_others(store):
    client = site(store.root)
    text = client.get("/compare?version=many/V001").text
    assert "Val accuracy of the network, while training" in text
    assert 'many/V001/10"' not in text  # the address names what was asked for
    assert '<a href="/jobs/many/V001">many/V001/10</a>' in text
    assert "<th scope=row>train.seed</th><td>0</td><td>1</td><td>2</td>" in text
    found = client.get("/api/compare?version=many/V001/1&version=one/V001").json()
    assert found["versions"] == ["many/V001/1", "one/V001"]
    assert client.get("/compare?version=many/V001/2&version=one/V001").status_code == 404


def test_a_version_with_stages_of_its_own_is_one_column(store):
    version = store.version("many")
    fixture.make_train(version.path / "train")
    assert [column.name for column in columns_of([version])] == ["V001"]


def test_settings_of_a_stage_that_only_one_has_run_are_left_out(store):
    version = store.version("one")
    fixture.make_search(version.path / "search")
    columns = columns_of([version, store.version("many")])
    table = different_settings(columns)
    assert list(table) == ["train.seed"]
    assert "search val_accuracy" in results_table(columns, [])


def test_another_function_and_another_cluster_of_a_script_are_differences(store):
    store.create_job("own", kind="script")
    secret = {"num_gpus": 1, "runtime_env": {"env_vars": {"TOKEN": "abc"}}}
    for more in ({}, {"entry": "main", "ray": secret}):
        command = {"state": "succeeded", "request": {"boot_file": "t.py", **more}}
        with store.new_version("own", new_record("script", commands={"autosearch": command})):
            pass
    assert different_settings(columns_of(store.versions("own"))) == {
        "entry": ["train", "main"],
        "ray.num_gpus": [None, 1],
        "ray.runtime_env.env_vars.TOKEN": [None, "***"],
    }


def test_what_stands_in_environment_variables_is_on_no_page_of_a_pipeline(store):
    given = ["seed=0", "tune.options.ray={address: auto, runtime_env: {env_vars: {HUB: s3cret, B: c}}}",
             "+tune.options.ray.runtime_env.env_vars.KEY=s3cret s3cret"]  # fmt: skip
    record = new_record("pipeline", commands={"tune": {"state": "succeeded", "overrides": given}})
    with store.new_version("one", record) as made:
        folder = made / "tune"
        fixture.make_train(folder)
        variables = {"runtime_env": {"env_vars": {"HUB": "s3cret"}}}
        write_yaml(folder / "config.yaml", {"tune": {"options": {"ray": variables}}})
    version = store.version("one")
    details = version_details(version)
    assert details["commands"][0]["overrides"] == [
        "seed=0",
        "tune.options.ray={address: auto, runtime_env: {env_vars: {***}}}",
        "+tune.options.ray.runtime_env.env_vars.KEY=***",
    ]
    page = write_version_report(version.path).read_text(encoding="utf-8")
    for text in (page, json.dumps(details), json.dumps(different_settings(columns_of([version])))):
        assert "s3cret" not in text
    assert "tune.options.ray.runtime_env.env_vars.HUB" in page


def test_large_numbers_are_written_out():
    written = [short(value) for value in (193_340.0, 2_914_816.0, 99_999.0, -1e5, 3e15, 0.97912345)]
    assert written == ["193340", "2914816", "99999", "-100000", "3e+15", "0.97912"]


def test_wide_letters_and_accents_leave_the_columns_of_a_table_in_line():
    rows = [{"name": name, "value": "x"} for name in ("ab", "猫", "e\u0301\u0301", "か\u3099")]
    assert render(("name", "value"), rows).splitlines() == [
        "name  value", "ab    x", "猫    x", "e\u0301\u0301     x", "か\u3099    x",
    ]  # fmt: skip


def test_a_version_that_went_on_and_was_stopped_again_is_listed_with_what_it_has_now(store):
    version = store.version("one")
    version.set_state("stopped", "train")
    assert seen_summary(version, "stopped")["best"] == 0.9
    os.utime(version.path / "summary.json", (1.0, 1.0))  # before it went on
    version.set_state("stopped")
    result = version.path / "train" / "result.json"
    write_json(result, {**read_json(result), "test_accuracy": 0.95})
    assert seen_summary(version, "stopped")["best"] == 0.95


def test_a_multirun_is_listed_and_taken_by_the_element_that_is_best_on_val(store, capsys, tmp_path):
    version = store.version("many")
    for place, val in (("0", 0.93), ("1", 0.95), ("10", 0.94)):
        stage = version.path / place / "train"
        write_json(stage / "result.json", {**read_json(stage / "result.json"), "val_accuracy": val})
        (stage / "model.pt").write_text(place)
        (stage.parent / "overrides.yaml").write_text(f"[seed={place}, data=digits]")
    # an older program wrote down the last one's
    write_json(
        version.path / "summary.json", {"schema_version": 1, "state": "succeeded", "best": 0.92}
    )
    assert seen_summary(version, version.state())["best"] == 0.91
    args = argparse.Namespace(export=str(tmp_path / "taken"), form="table")
    assert show_best(version, args) == 0
    text = capsys.readouterr().out
    assert "many/V001/1: test_accuracy 0.91, best on val of 3 (seed=1)" in text
    taken = tmp_path / "taken"
    assert (taken / "model.pt").read_text() == "1"
    # again, and in the place of what was copied before, but not of what is nobody's export
    best = version.path / "1" / "train" / "model.pt"
    (export := version.path / "1" / "export").mkdir()
    assert show_best(version, args) == 0
    assert sorted(path.name for path in taken.iterdir()) == ["best.json", "export"]
    export.rmdir()
    best.write_text("new")
    assert show_best(version, args) == 0
    assert sorted(path.name for path in taken.iterdir()) == ["best.json", "model.pt"]
    (taken / "export").write_text("mine")
    export.mkdir()
    with pytest.raises(JobError, match=r"holds export already, and its best\.json does not say"):
        show_best(version, args)
    export.rmdir()
    (taken / "best.json").unlink()
    with pytest.raises(JobError, match=r"taken holds model\.pt already"):
        show_best(version, args)
    assert [(taken / name).read_text() for name in ("export", "model.pt")] == ["mine", "new"]
    capsys.readouterr()
    shown = {row["stage"]: row["overrides"] for row in stage_facts(version.path)}
    assert shown == {"0/train": "seed=0", "1/train": "seed=1", "10/train": "seed=10"}
    page = write_version_report(version.path).read_text(encoding="utf-8")
    # the last one is better on test
    assert "Best in accuracy on val is element 1 (seed=1): 95.00 %, 91.00 % on test." in page


def test_where_nothing_was_judged_there_is_no_best_whatever_the_metric(store):
    store.create_job("new", kind="pipeline")
    with store.new_version("new", new_record("pipeline")):
        pass
    with pytest.raises(JobError, match=r"^new/V001 holds nothing that was judged yet"):
        show_best(store.version("new"), argparse.Namespace(export=None, form="table"))


def test_what_a_shrinking_left_is_taken_before_what_it_began_with(store, capsys):
    version = store.version("one")
    fixture.make_train(version.path / "shrink", test=0.95)
    for stage in ("train", "shrink"):
        (version.path / stage / "model.pt").write_text(stage)
    assert show_best(version, argparse.Namespace(export=None, form="json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(file).parent.name for file in found["files"]] == ["shrink", "train"]
    assert (found["best"], found["element"]) == (0.95, None)


def test_the_report_command_takes_one_element_of_a_multirun(store, capsys):
    version = store.version("many").path
    assert cli.main(["report", "job=many/V001/1", f"out={store.root}"]) == 0
    assert "many · V001/1" in (version / "1" / "report.html").read_text(encoding="utf-8")
    assert not (version / "report.html").exists()
    assert cli.main(["report", "job=many/V001/2", f"out={store.root}"]) == 2
    assert "many/V001 has no element '2'; it has 0, 1, 10" in capsys.readouterr().err


def test_a_page_of_show_holds_anywhere_and_its_place_is_looked_at(store, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(store.root.parent))
    version = store.version("many").path

    def shown(*words):
        return cli.main(["jobs", f"--root={store.root}", *words])

    # the version's own page is a place like any other
    for name in ("~/p/page.html", str(version / "report.html")):
        assert shown("show", "many", f"--html={name}") == 0
        page = Path(name).expanduser().read_text(encoding="utf-8")
        assert "Every element" in page
        assert 'href="0/report' not in page  # a page of an element that does not lie beside it
    assert not (version / "0" / "report.html").exists()
    capsys.readouterr()
    (version / "0" / "train" / "model.pt").touch()
    for words, said in (
        (("show", "many", f"--html={store.root}"), "is a folder; name a file"),
        (("show", "many", f"--html={version}/report.html/x"), "report.html is a file"),
        (("best", "many", f"--export={version}/report.html"), "is a file; name a folder"),
    ):
        assert shown(*words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(("reverse", "names"), [(False, "abc"), (True, "bac")])
def test_what_has_no_value_yet_comes_last_in_either_order(reverse, names):
    rows = [
        {"name": name, "state": "running", "kind": "script", "description": "", "value": value,
         "version_description": ""}
        for name, value in (("c", None), ("b", 0.9), ("a", 0.1))
    ]  # fmt: skip
    found = picked(rows, sort="value", reverse=reverse)
    assert [row["name"] for row in found] == list(names)


def test_a_seed_that_has_begun_nothing_takes_no_page_from_the_others(tmp_path):
    folder = tmp_path / "job" / "V001"
    fixture.make_train(folder / "seed0" / "train", seed=0, test=0.9)
    (folder / "seed1").mkdir()
    assert content_of(folder).title == "90.00 % test accuracy over 1 seed"
