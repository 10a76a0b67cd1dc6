import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from job_rows import row

from darts_core.commands.jobs.cli import configure
from darts_core.commands.jobs.options import budget, pairs
from darts_core.commands.jobs.starting import follow
from darts_core.commands.jobs.verbs import run_create
from darts_core.commands.jobs.views import result_table, run_logs
from darts_core.errors import JobError
from darts_core.report.job_rows import version_rows
from darts_core.report.tables import neutral, render
from darts_core.store import control, procs
from darts_core.store.code import copy_code, links_note, model_file, numbered
from darts_core.store.jobs import Store
from darts_core.store.locks import FileLock, device_lock_path
from darts_core.store.names import check_name
from darts_core.store.notify import check_notify, notify
from darts_core.store.params import SavedParams
from darts_core.store.record import new_record, write_job
from darts_core.study.importance import row_importance
from darts_core.study.results import (
    read_rows,
)


def version(store, job="a", **request):
    if job not in store.jobs():
        store.create_job(job, "text", kind="script")
    command = {"state": "queued", "mark": "m", "request": request}
    record = new_record("script", commands={"autosearch": command})
    with store.new_version(job, record):
        pass
    return store.version(job, record["name"])


@pytest.mark.parametrize(
    "name",
    ["", "..", "../x", "a/b", "/etc", ".hidden", "-rf", "a\n", "a b", "x" * 121, "é", "a\0b"],
)
def test_names_cannot_leave_the_root(store, name):
    with pytest.raises(JobError, match="not allowed"):
        check_name(name)
    with pytest.raises(JobError):
        store.create_job(name, kind="script")


def test_linked_jobs_and_versions_are_not_ours(store, tmp_path):
    outside = tmp_path / "outside"
    version(store).set_state("succeeded")
    shutil.copytree(store.root / "a", outside)
    (store.root / "link").symlink_to(outside)
    (store.root / "a" / "V002").symlink_to(outside / "V001")
    assert store.jobs() == ["a"]
    assert [v.name for v in store.versions("a")] == ["V001"]
    with pytest.raises(JobError, match="is a link"):
        store.delete_job("link")
    store.delete_job("a")
    assert (outside / "V001" / "version.json").exists()


def test_deletion_touches_only_marked_folders(store):
    made = version(store)
    made.set_state("succeeded")
    (store.root / "a" / "notes.txt").write_text("mine")
    (store.root / "a" / "V007").mkdir()
    (store.root / "a" / "V007" / "data").write_text("mine")
    store.delete_job("a")
    assert not made.path.exists()
    assert (store.root / "a" / "notes.txt").exists()
    assert (store.root / "a" / "V007" / "data").exists()
    with pytest.raises(JobError, match="no job"):
        store.delete_job("a")
    with pytest.raises(JobError, match="not a job"):
        store.create_job("a", kind="script")


def test_files_and_foreign_folders_in_the_root_are_left_alone(store):
    version(store)
    (store.root / "table.txt").write_text("text")
    (store.root / "a" / "V007").write_text("text")
    (store.root / "runs").mkdir()
    assert store.jobs() == ["a"]
    assert [item.name for item in store.versions("a")] == ["V001"]
    for name in ("table.txt", "runs"):
        with pytest.raises(JobError, match="no job"):
            store.version(name)
    with pytest.raises(JobError, match="is not a job"):
        store.create_job("table.txt", kind="script")
    with pytest.raises(JobError, match="--root"):
        Store(store.root / "table.txt").create_job("b", kind="script")


def test_a_job_without_versions_can_be_made_again(store):
    made = version(store)
    with pytest.raises(JobError, match="exists already"):
        store.create_job("a", kind="script")
    made.set_state("stopped")
    store.delete_version(made)
    store.create_job("a", "new", kind="script")
    assert store.job_record("a")["description"] == "new"


@pytest.mark.parametrize(
    ("name", "copy"), [("a.yaml", "2-a.yaml"), ("1-3-a.yaml", "2-a.yaml"), ("7.yaml", "2-7.yaml")]
)
def test_copies_of_job_files_carry_one_number(name, copy):
    assert numbered(2, Path("folder") / name) == copy


def test_parallel_versions_get_different_numbers_and_appear_whole(store):
    store.create_job("a", kind="script")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: version(store), range(20)))
    assert [v.name for v in store.versions("a")] == [f"V{i:03d}" for i in range(1, 21)]
    with pytest.raises(ZeroDivisionError), store.new_version("a", {}):
        raise ZeroDivisionError
    assert len([e for e in (store.root / "a").iterdir() if e.is_dir()]) == 20


def test_a_running_version_is_not_deleted_and_two_cannot_run_it(store):
    made = version(store)
    made.set_state("running", process=procs.identity().to_dict())
    assert made.state() == "running"
    with pytest.raises(JobError, match="stop it first"):
        store.delete_version(made)
    first, second = made.lock, made.lock
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_devices(store):
    cpu = device_lock_path(store.root, "cpu")
    assert cpu == device_lock_path(store.root, "cpu:0")
    assert cpu.is_relative_to(store.root)
    assert not device_lock_path(store.root, "cuda:1").is_relative_to(store.root)
    for bad in ("../x", "cuda:", "cpu:0/../1", "tpu"):
        with pytest.raises(JobError):
            device_lock_path(store.root, bad)
    lock = FileLock(cpu)
    assert lock.acquire()
    assert not FileLock(cpu).acquire(0.1)
    assert not FileLock(cpu).acquire(stop=lambda: True)
    lock.release()


def listed(store):
    return [(row["job"], row["version"], row["state"]) for row in version_rows(store)]


def test_the_list_follows_the_folders(store):
    made = version(store)
    made.set_state("succeeded", message="fine")
    assert [(r["state"], r["message"]) for r in version_rows(store)] == [("succeeded", "fine")]
    version(store, "b").set_state("failed")
    version(store).set_state("stopped")
    assert listed(store) == [
        ("a", "V001", "succeeded"), ("a", "V002", "stopped"), ("b", "V001", "failed"),
    ]  # fmt: skip
    (made.path / "summary.json").write_text("[no summary")
    assert len(listed(store)) == 3
    shutil.rmtree(store.root / "a")
    assert listed(store) == [("b", "V001", "failed")]


def test_code_copy_is_bounded_and_follows_no_link_outside(tmp_path, monkeypatch):
    source, secret = tmp_path / "code", tmp_path / "secret.txt"
    (source / "sub").mkdir(parents=True)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_text("")
    (source / "boot.py").write_text("x = 1")
    (source / "sub" / "more.py").write_text("y = 2")
    secret.write_text("secret")
    (source / "leak.txt").symlink_to(secret)
    (source / "up").symlink_to(tmp_path)
    stamp = copy_code(source, tmp_path / "one")
    copied = sorted(
        str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*") if p.is_file()
    )
    assert copied == ["boot.py", "sub/more.py"]
    assert stamp == copy_code(source, tmp_path / "two")
    (source / "boot.py").write_text("x = 2")
    assert stamp != copy_code(source, tmp_path / "three")
    monkeypatch.setattr("darts_core.store.code.MAX_FILES", 1)
    with pytest.raises(JobError, match="more than"):
        copy_code(source, tmp_path / "four")


def test_links_that_are_not_copied_are_named(tmp_path):
    source, runs = tmp_path / "code", tmp_path / "runs"
    (source / "src" / "pkg").mkdir(parents=True)
    (source / "src" / "pkg" / "a.py").write_text("x = 1")
    (source / "same.py").symlink_to(source / "src" / "pkg" / "a.py")
    runs.mkdir()
    (source / "runs").symlink_to(runs)
    # a link to a file of the code is copied, and the store is no code
    assert links_note(source, skip=runs) is None
    (source / "src" / "out.txt").symlink_to("/etc/hostname")
    note = links_note(source, skip=runs)
    assert note is not None
    assert note.endswith("name data with --data: src/out.txt")
    for number in range(3):
        (source / f"more{number}").symlink_to(tmp_path)
    assert str(links_note(source, skip=runs)).endswith("more0, more1, more2 and 1 more")


def test_a_command_that_takes_its_version_away_is_stopped_all_the_same(store, monkeypatch):
    made = version(store)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    made.set_state("running", process=procs.identity(child.pid).to_dict())

    def obeys(who, number):
        assert who.pid == child.pid
        shutil.rmtree(made.path)  # nothing was computed in it yet
        child.kill()
        child.wait()

    monkeypatch.setattr(procs, "send", obeys)
    with made.lock.held():  # by whoever runs it
        assert control.stop(made) == "stopped"


def test_a_folder_with_a_job_json_of_ones_own_is_code(tmp_path):
    own, ours = tmp_path / "code" / "own", tmp_path / "code" / "old_runs" / "a"
    (ours / "V001").mkdir(parents=True)
    write_job(ours, "script")
    (ours / "V001" / "boot.py").write_text("x = 1")
    own.mkdir()
    (own / "job.json").write_text('{"name": "of my scheduler"}')
    (own / "helper.py").write_text("y = 2")
    copy_code(tmp_path / "code", tmp_path / "copy")
    copied = [p for p in sorted((tmp_path / "copy").rglob("*")) if p.is_file()]
    assert [p.relative_to(tmp_path / "copy").as_posix() for p in copied] == [
        "own/helper.py", "own/job.json",
    ]  # fmt: skip


def test_what_the_page_exported_of_a_version_goes_with_it(store, tmp_path):
    first, second = version(store), version(store)
    for made in (first, second):
        made.set_state("succeeded")
        made.exports.mkdir(parents=True)
        (made.exports / "best.json").write_text("{}")
    store.delete_version(second)
    # the next version bears its name, and has exported nothing
    assert version(store).exports == second.exports
    assert not second.exports.exists()
    assert first.exports.is_dir()
    # who put a link there meant another folder
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    shutil.rmtree(first.exports)
    first.exports.symlink_to(outside)
    store.delete_job("a")
    assert (outside / "mine").exists()


def test_models_lie_really_in_the_trials_output(tmp_path):
    trial = tmp_path / "trial"
    (trial / "output").mkdir(parents=True)
    (trial / "output" / "m.bin").write_text("m")
    outside = tmp_path / "outside.bin"
    outside.write_text("x")
    (trial / "output" / "link.bin").symlink_to(outside)
    (trial / "output" / "dir").symlink_to(tmp_path)
    assert model_file(trial, "m.bin") == (trial / "output" / "m.bin").resolve()
    assert model_file(trial, str(trial / "output" / "m.bin")) is not None
    there = "/another/machines/runs/old/V001/autosearch/trials/trial/output"
    assert model_file(trial, f"{there}/m.bin") == (trial / "output" / "m.bin").resolve()
    for hostile in (
        str(outside), "../../outside.bin", "link.bin", "dir/outside.bin", ".", "", None, 7, "a\0b", "none",
        f"{there}/../../outside.bin",
    ):  # fmt: skip
        assert model_file(trial, hostile) is None
    # a trial that put links in the place of its own folders
    linked, other = tmp_path / "linked", tmp_path / "other"
    linked.mkdir()
    (linked / "output").symlink_to(trial / "output")
    other.symlink_to(trial)
    assert model_file(linked, "m.bin") is None
    assert model_file(other, "m.bin") is None


HOSTILE = "\x1b[31mred\x07\u202e<script>alert(1)</script>[bold]$x^{"


def test_hostile_names_and_data_are_inert(store, tmp_path):
    from darts_core.commands.jobs.views import version_details
    from darts_core.report.job_pictures import draw_all
    from darts_core.report.versions import write_version_report

    made = version(store, "a", code=HOSTILE, arguments={HOSTILE: HOSTILE})
    made.set_state("failed", message=HOSTILE)
    folder = made.path / "autosearch" / "trials"
    (made.path / "autosearch" / "objectives.json").parent.mkdir(exist_ok=True)
    (made.path / "autosearch" / "objectives.json").write_text(
        json.dumps([{"metric": HOSTILE, "mode": "max"}])
    )
    (made.path / "job.log").write_text(HOSTILE)
    for number in range(5):
        item = row(
            number,
            0.5,
            additional_data={HOSTILE: HOSTILE},
            metrics={HOSTILE: number},
            is_baseline=number == 0,
        )
        item["values"] = {HOSTILE: number / 10}
        item["config"] = {HOSTILE: f"{HOSTILE}{number}"}
        (folder / f"t{number}").mkdir(parents=True)
        (folder / f"t{number}" / "result.json").write_text(json.dumps(item))
    rows, goals = read_rows(made.path), [{"metric": HOSTILE, "mode": "max"}]
    columns, table = result_table(rows, goals, None)
    for form in ("text", "csv", "json"):
        text = render(columns, table, form)
        assert not any(ord(c) < 32 and c != "\n" for c in text)
        assert "\u202e" not in text
    version_details(made)
    shares, found = row_importance(rows, goals), {"verdict": HOSTILE * 9}
    pictures = draw_all(rows, goals, shares, found, tmp_path / "pictures", {})
    assert [path.stem for path in pictures] == ["best_so_far", "importance"]
    made.describe(HOSTILE)
    kept = {"text": HOSTILE, "choices": {HOSTILE: {"options": [HOSTILE], "chosen": HOSTILE}}}
    (folder / "t4" / "network.json").write_text(json.dumps(kept))
    page = write_version_report(made.path).read_text()
    assert "What was chosen in the network" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert 'src="http' not in page
    assert "\x1b" not in page
    assert neutral(HOSTILE).isprintable()
    assert render(("=a",), [{"=a": "=cmd()"}], "csv").splitlines() == ["'=a", "'=cmd()"]


def test_notify_runs_without_a_shell(store, tmp_path):
    made = version(store)
    script, told = tmp_path / "tell.py", tmp_path / "told"
    script.write_text(f"import sys; open({str(told)!r}, 'w').write(repr(sys.argv[1:4]))")
    words = check_notify(f"{sys.executable} {script} '$HOME; touch {tmp_path}/x | cat'")
    assert notify(words, "running", made) is True
    assert told.read_text() == repr([f"$HOME; touch {tmp_path}/x | cat", "running", "a"])
    assert not (tmp_path / "x").exists()
    assert notify(check_notify("/no/such/program"), "running", made) is False
    with pytest.raises(JobError):
        check_notify("'open")


def test_saved_parameters_stay_in_their_folder(store, tmp_path):
    saved = SavedParams(store)
    config = tmp_path / "c.yaml"
    config.write_text("x: 1")
    saved.save("one", {"code": "c"}, [config], description="d")
    with pytest.raises(JobError, match="exist already"):
        saved.save("one", {}, [])
    known = saved.load("one")
    copies = [Path(path) for path in known["config_paths"]]
    changed = {**known, "code": "other", "name": "two"}
    saved.save("one", changed, copies, description="new", replace=True)
    content = saved.load("one")
    assert (content["code"], content["name"], content["description"]) == ("other", "one", "new")
    assert Path(content["config_paths"][0]).read_text() == "x: 1"
    for bad in ("../a", "none", "a/b"):
        with pytest.raises(JobError):
            saved.load(bad)
    (saved.folder / "link").symlink_to(saved.folder / "one")
    with pytest.raises(JobError, match="does not lie"):
        saved.delete("link")
    saved.delete("one")
    assert saved.names() == []


def test_what_is_given_beside_saved_parameters_is_added_to_them(store, monkeypatch):
    saved = {
        "arguments": {"batch": "64", "lr": "1"},
        "settings": {"search_algorithm.seed": 9},
        "budget": {"trainings": 4.0},
        "boot_file": "boot.py",
    }
    SavedParams(store).save("mine", saved, [])
    asked = []
    monkeypatch.setattr(
        "darts_core.commands.jobs.verbs.engine", lambda verb, content: asked.append(content) or ""
    )
    parser = argparse.ArgumentParser()
    configure(parser)
    words = ["--params", "mine", "--arg", "lr=0.1", "--set", "max_iterations=3", "--budget", "1h"]
    assert run_create(store, parser.parse_args(["create", "--name", "b", "--dry-run", *words])) == 0
    (request,) = asked
    assert request["arguments"] == {"batch": "64", "lr": "0.1"}
    assert request["settings"] == {"search_algorithm.seed": 9, "max_iterations": 3}
    assert request["budget"] == {"trainings": 4.0, "seconds": 3600.0}
    assert request["boot_file"] == "boot.py"


def test_the_printed_command_names_a_root_with_spaces_as_one_word(tmp_path, capsys):
    store = Store(tmp_path / "my runs")
    assert follow(store, version(store), SimpleNamespace(pid=7), "started", wait=False) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("Look at it with: ")
    assert shlex.split(line) == ["darts-core", "jobs", "--root", str(store.root), "show", "a"]


def test_budget_and_pairs():
    assert budget(["4x", "30m"]) == {"trainings": 4.0, "seconds": 1800.0}
    assert budget(["1.5h"]) == {"seconds": 5400.0}
    for bad in ("4", "-1x", "0x", "0.5x", "x"):
        with pytest.raises(JobError):
            budget([bad])
    assert pairs(["--a=b=c", "d="], "--arg") == {"a": "b=c", "d": ""}


def test_every_verb_is_in_the_parser():
    parser = argparse.ArgumentParser()
    configure(parser)
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert set(verbs) == {
        "create", "new-version", "list", "show", "logs", "compare", "stop", "resume", "edit", "delete",
        "best", "params", "template", "suggest", "init",
    }  # fmt: skip
    assert parser.parse_args(["--root", "x", "list"]).root == "x"
    assert parser.parse_args(["list", "--root", "y"]).root == "y"
    assert os.sep not in parser.parse_args(["list"]).root


@pytest.mark.parametrize(("count", "shown"), [("0", ""), ("1", "ended\n"), ("9", "begun\nended\n")])
def test_only_the_last_lines_of_a_log_are_printed(store, capsys, count, shown):
    (version(store).path / "job.log").write_text("begun\nended\n")
    parser = argparse.ArgumentParser()
    configure(parser)
    assert run_logs(store, parser.parse_args(["logs", "a", "--tail", count])) == 0
    assert capsys.readouterr().out == shown
