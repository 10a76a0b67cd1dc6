"""`darts-core jobs` on a pipeline's versions, through the real commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from jobs_command import jobs, wait_for

from darts_core import cli
from darts_core.stages.models import entries_of
from darts_core.store import procs
from darts_core.store.jobs import Store

TINY = [
    "data=digits",
    "data.limit=320",
    "search.channels=2",
    "search.layers=1",
    "search.finalists=1",
    "search.batch_size=128",
    "device=cpu",
]
OLD = Path(__file__).parents[1] / "unit" / "old_runs"


def search(folder, *words, **options):
    command = [sys.executable, "-m", "darts_core.cli", "search", *words, *TINY]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL, **options)


def ended(rows, name):
    return next(row for row in rows if row["name"] == name)


def test_a_killed_search_is_seen_resumed_stopped_and_finished_by_its_own_settings(tmp_path):
    runner = search(tmp_path, "job=a", "search.epochs=2000")
    store = Store(tmp_path / "runs")
    metrics = tmp_path / "runs/a/V001/search/metrics.jsonl"
    checkpoint = metrics.with_name("checkpoint.pt")
    wait_for(lambda: metrics.exists() and checkpoint.exists())
    row = ended(json.loads(jobs(tmp_path, "list", "--json")), "a")
    assert (row["kind"], row["state"], row["command"]) == ("pipeline", "running", "search")
    assert "running already (search)" in jobs(tmp_path, "resume", "a", status=2)
    assert "stop it first" in jobs(tmp_path, "delete", "-y", "a/V001", status=2)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    version = store.version("a")
    assert version.state() == "interrupted"

    assert "a/V001 resumed (process" in jobs(tmp_path, "resume", "a")
    who = version.process()
    assert version.state() == "running"
    assert "a/V001 is stopped." in jobs(tmp_path, "stop", "a")
    assert not procs.is_alive(who)
    assert procs.tree(None, version.command()["mark"]) == []
    epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
    assert epochs == list(range(len(epochs)))
    shown = json.loads(jobs(tmp_path, "show", "a", "--json"))
    assert shown["commands"][0]["overrides"][:2] == ["job=a", "search.epochs=2000"]
    assert (shown["rows"][0]["stage"], shown["rows"][0]["finished"]) == ("search", False)

    # the same settings but for one
    text = jobs(tmp_path, "new-version", "a", "--set", "search.epochs=1", "--wait")
    assert "a/V002: succeeded." in text
    assert "needs changed settings" in jobs(tmp_path, "new-version", "a", "--code", "x", status=2)
    text = jobs(tmp_path, "new-version", "a", "--set", "search.epochs=1", status=2)
    assert "is finished; nothing to do" in text
    compared = {row["row"]: row for row in json.loads(
        jobs(tmp_path, "compare", "a", "V001", "V002", "--json"))}  # fmt: skip
    assert (compared["state"]["V001"], compared["state"]["V002"]) == ("stopped", "succeeded")
    assert compared["search.search.epochs"]["V002"] == 1
    assert "search.search.layers" not in compared
    assert "search/architecture.yaml" in jobs(tmp_path, "best", "a", "--export", "taken")
    assert (tmp_path / "taken/architecture.yaml").exists()
    assert "writing to" in jobs(tmp_path, "logs", "a/V002")
    jobs(tmp_path, "edit", "a", "--description", "tried")
    jobs(tmp_path, "params", "save", "mine", "--job", "a/V002")
    assert "pipeline's" in jobs(tmp_path, "create", "--name", "b", "--params", "mine", status=2)
    jobs(tmp_path, "params", "use", "mine", "--name", "b", "--wait")
    rows = json.loads(jobs(tmp_path, "list", "--json"))
    assert [(r["name"], r["state"], r["versions"]) for r in rows] == [
        ("a", "succeeded", 2),
        ("b", "succeeded", 1),
    ]
    assert ended(rows, "a")["description"] == "tried"
    assert ended(rows, "a")["value"] == ended(rows, "b")["value"] is not None
    jobs(tmp_path, "delete", "--yes", "a", "b")
    assert store.jobs() == []


def test_a_stopped_search_of_an_older_program_is_resumed(tmp_path):
    shutil.copytree(OLD, tmp_path / "runs")
    assert "scut/V001: succeeded" in jobs(tmp_path, "resume", "scut", "--wait")
    shown = json.loads(jobs(tmp_path, "show", "scut", "--json"))
    assert sorted(r["x"] for r in shown["rows"] if r["phase"] == "search") == [0.1, 0.3, 0.9]
    # a pipeline's settings of then are no longer these: it is said, and nothing is touched
    assert "with other settings" in jobs(tmp_path, "resume", "cut", status=2)
    assert Store(tmp_path / "runs").version("cut").state() == "interrupted"


def test_a_multirun_and_its_elements_have_pages_labelled_by_their_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", "-m", "job=m", "search.epochs=1", "seed=1,2", *TINY]) == 0
    assert cli.main(["report", "job=m"]) == 0
    version = tmp_path / "runs/m/V001"
    page = (version / "report.html").read_text(encoding="utf-8")
    for index, seed in enumerate(("seed=1", "seed=2")):
        assert f"<td>{seed}</td>" in page
        assert f'href="{index}/report.html"' in page
        assert seed in (version / str(index) / "report.html").read_text(encoding="utf-8")
    rows = json.loads(jobs(tmp_path, "show", "m", "--json"))["rows"]
    assert [row["stage"] for row in rows] == ["0/search", "1/search"]


def test_an_export_from_before_the_network_was_shrunk_is_not_taken_for_its_own(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = ["data=digits", "data.limit=100", "data.test_limit=20", "device=cpu", "job=m"]
    again = ["export", *data, "export.formats=[pt2]", "export.options.max_seconds=0.02"]
    assert (
        cli.main(
            [
                "train",
                "architecture=resnet8",
                "train.channels=4",
                "train.epochs=1",
                "train.batch_size=16",
                *data,
            ]
        )
        == 0
    )
    assert cli.main(again) == 0
    version = tmp_path / "runs/m/V001"
    trained = json.loads((version / "train/result.json").read_text())
    assert json.loads(jobs(tmp_path, "best", "m", "--json"))["files"][0] == str(version / "export")
    assert cli.main(again) == 0
    assert "nothing to do" in (told := capsys.readouterr().out)
    assert "has left another one" not in told

    point = version / "shrink/points/02"
    shutil.copytree(version / "export", point / "export")
    shutil.copy(version / "train/model.pt", version / "shrink/model.pt")
    value = 0.125
    result = {**trained, "picked": "points/02", "test_accuracy": value}
    (version / "shrink/result.json").write_text(json.dumps(result))
    (version / "summary.json").unlink()  # as every command that ends does
    left = json.loads(jobs(tmp_path, "best", "m", "--export", "taken", "--json"))
    assert left["best"] == value
    assert left["files"][0] == str(point / "export")
    assert left["files"][-1] == str(version / "export")
    assert cli.main(again) == 0
    told = capsys.readouterr().out
    assert (
        f"network in train/; shrink/ has left another one since, which model={version}/shrink"
        in told
    )
    # nor measured as what is delivered
    assert {entry.name for entry in entries_of(version)} == {"pruned", "trained"}
    # one that was exported by name is what was wanted
    config = version / "export/config.yaml"
    config.write_text(config.read_text().replace("model: null", f"model: {version}/train"))
    assert json.loads(jobs(tmp_path, "best", "m", "--json"))["files"][0] == str(version / "export")
