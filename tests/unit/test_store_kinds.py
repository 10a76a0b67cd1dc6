"""One store for every kind: kinds do not mix, each command has its state, nothing half-made stays."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from darts_core import cli
from darts_core.commands.jobs import pipeline, verbs
from darts_core.commands.overrides import parse
from darts_core.errors import ConfigError, JobError
from darts_core.report.job_rows import picked, version_rows
from darts_core.runlog import read_json, write_json
from darts_core.store import control, procs
from darts_core.store.claim import claim as claim_any
from darts_core.store.control import resume, start, stop
from darts_core.store.jobs import Store
from darts_core.store.record import new_record, write_job
from darts_core.store.sweep import temporary_name


def claim(store, job="a", command="search", stamp="s", **more):
    return claim_any(store.root, job, kind="pipeline", command=command, stamp=stamp, **more)


def script(store, job="a"):
    store.create_job(job, kind="script")
    record = new_record("script", commands={"autosearch": {"state": "stopped", "mark": "m"}})
    with store.new_version(job, record):
        pass
    return store.version(job)


def dead():
    """The identity of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    who = procs.identity(process.pid)
    process.communicate(b"\n")
    return who


def test_a_script_cannot_take_a_pipelines_name_nor_the_reverse(store):
    claim(store, "a").release()
    with pytest.raises(JobError, match=r"'a'.* is a pipeline.*--name a-2, which is free"):
        store.create_job("a", kind="script")
    script(store, "b")
    (store.root / "b-2").mkdir()
    with pytest.raises(JobError, match=r"'b'.* is a script.*job=b-3, which is free"):
        claim(store, "b")
    assert [v.name for v in store.versions("b")] == ["V001"]
    assert store.jobs() == ["a", "b"]


def test_the_wider_name_rule_holds_for_every_kind(store):
    name = "digits-darts+nasbench201"
    script(store, name)
    assert store.jobs() == [name]
    with pytest.raises(JobError, match="not allowed"):
        store.create_job("a b", kind="script")


def test_each_command_of_a_version_has_its_own_state(store):
    search = claim(store)
    search.finish()
    search.release()
    train = claim(store, command="train", version="V001")
    version = store.version("a")
    assert (version.newest(), version.state(), version.running()) == ("train", "running", "train")
    assert time.time() - 60 < version.record()["created"] <= time.time()
    assert version.state("search") == "succeeded"
    train.finish()
    train.release()
    assert version.running() is None


def test_the_newest_unfinished_command_is_the_one_to_resume(store):
    for command, state in (("search", "failed"), ("train", "stopped"), ("tune", "succeeded")):
        mine = claim(store, command=command, version="V001")
        (mine.path / command).mkdir()
        (mine.path / command / "checkpoint.pt").touch()
        if state == "succeeded":
            mine.finish()
        else:
            mine.give_up(state, "said")
        mine.release()
    version = store.version("a")
    assert (version.newest(), version.state(), version.unfinished()) == (
        "tune",
        "succeeded",
        "train",
    )
    assert version.command("search")["message"] == "said"


def test_a_finished_command_that_is_asked_for_again_stays_finished(store):
    first = claim(store)
    first.finish()
    first.release()
    again = claim(store)
    again.release()
    assert (again.finished, store.version("a").state()) == (True, "succeeded")


def ahead(version, state, who):
    """The state of a dead process, dated a year ahead."""
    record = version.record()
    name = version.newest()
    record["commands"][name].update(
        state=state, process=who.to_dict() if who else None, changed=time.time() + 365 * 86400
    )
    write_json(version.path / "version.json", record)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_state_dated_a_year_ahead_is_that_of_a_dead_process(store, state):
    for who in (dead(), None):
        version = script(store, "old")
        ahead(version, state, who)
        assert version.state() == "interrupted"
        assert version.unfinished() == "autosearch"
        store.delete_job("old")
        assert store.jobs() == []


def test_a_version_that_was_made_and_never_started_is_interrupted_when_its_maker_is_gone(store):
    version = script(store)
    ahead(version, "queued", procs.identity())
    assert version.state() == "queued"
    ahead(version, "queued", dead())
    assert version.state() == "interrupted"


MAKE = """
import sys
from darts_core.errors import JobError
from darts_core.store.jobs import Store
try:
    Store(sys.argv[1]).create_job("d2", kind="script")
    print("made", flush=True)
except JobError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def test_of_several_that_create_one_job_at_once_one_wins(store):
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKE, str(store.root)], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    said = [maker.stdout.readline() for maker in makers]
    assert sorted(line == "made\n" for line in said) == [False, False, False, True]
    lost = [line for line in said if line != "made\n"]
    assert all("'d2' exists already" in line and "d2-2" in line for line in lost)
    for maker in makers:
        maker.communicate("\n")
    # the winner died before it made a version: the name is free again
    store.create_job("d2", kind="script")


def test_what_dead_processes_left_is_swept_and_what_living_ones_use_stays(store):
    claim(store).release()
    folder = store.root / "a"
    living = folder / temporary_name("new")
    who = dead()
    gone = folder / living.name.replace(f"-{os.getpid()}-", f"-{who.pid}-")
    half = folder / ".deleted-0123456789ab"
    for path in (living, gone, half):
        path.mkdir()
    stage = folder / "V001" / "search"
    stage.mkdir()
    stale, used = stage / f".checkpoint.pt.{who.pid}.tmp", stage / f".x.{os.getpid()}.tmp"
    export, beside = (stage / f".model.{who.pid}.tmp.onnx{end}" for end in ("", ".data"))
    for path in (stale, used, export, beside):
        path.touch()
    claim(store).release()
    assert [path.exists() for path in (living, gone, half)] == [True, False, False]
    assert [path.exists() for path in (stale, used, export, beside)] == [False, True, False, False]


def test_a_claim_that_came_to_nothing_leaves_no_job(store):
    mine = claim(store)
    (mine.path / "search").mkdir()
    (mine.path / "search" / "config.yaml").touch()
    mine.give_up("failed", "oh")
    mine.release()
    assert not (store.root / "a").exists()
    assert claim(store).path.name == "V001"


KILLED = """
import os, sys
from darts_core.store.claim import claim
mine = claim(sys.argv[1], "a", kind="pipeline", command="search", stamp="s")
(mine.path / "search").mkdir()
(mine.path / "search" / sys.argv[2]).touch()
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("file", "left"), [("config.yaml", "V001"), ("checkpoint.pt", "V002")])
def test_a_version_killed_before_it_computed_anything_makes_room(store, file, left):
    subprocess.run([sys.executable, "-c", KILLED, str(store.root), file], check=False)
    assert store.version("a").state() == "interrupted"
    other = claim(store, stamp="other")
    other.release()
    assert other.path.name == left


def test_a_refused_claim_leaves_no_folder(store):
    held = claim(store)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        claim(store)
    held.release()
    script(store, "b")
    with pytest.raises(JobError):
        claim(store, "b")
    assert sorted(p.name for p in store.root.iterdir() if not p.name.startswith(".")) == ["a", "b"]


def test_the_last_claim_that_came_to_nothing_takes_the_job_away_but_not_a_described_one(store):
    first, second = claim(store, stamp="one"), claim(store, stamp="two")
    for mine in (first, second):
        assert mine.forget()
        mine.release()
    assert not (store.root / "a").exists()
    first, second = claim(store, stamp="one"), claim(store, stamp="two")
    write_job(store.root / "a", "pipeline", name="a", description="kept")
    for mine in (first, second):
        assert mine.forget()
        mine.release()
    assert store.jobs() == ["a"]


def test_parallel_claims_and_deletions_never_leave_half_a_job(store):
    def work(number):
        mine = claim(store, stamp=f"s{number % 3}-{number}")
        mine.forget()
        mine.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert store.jobs() == []
    assert not (store.root / "a").exists()


def test_a_record_names_only_programs_of_this_package(store, tmp_path):
    for module in ("os", "darts_core_evil", "darts_core;x", "http.server"):
        with pytest.raises(JobError, match="none of"):
            start(module, [], log=tmp_path / "log", mark="m")
    mine = claim(store, details={"module": "http.server", "arguments": ["8000"]})
    (mine.path / "search").mkdir()
    (mine.path / "search" / "checkpoint.pt").touch()
    mine.give_up("stopped", "x")
    mine.release()
    with pytest.raises(JobError, match="none of"):
        resume(store, store.version("a"))


@pytest.mark.parametrize(
    ("job", "root"), [("a=b", "runs"), ("2026_11_30", "runs"), ("a", "Ann's\\new runs\\")]
)
def test_a_name_reaches_the_command_that_is_started_again(tmp_path, job, root, monkeypatch):
    given, store = [], Store(tmp_path / root)

    def started(module, arguments, **more):
        given.extend(arguments)
        raise JobError("enough")

    monkeypatch.setattr(control, "start", started)
    places = ["out={quoted_root}", "job={job}", "version={version}"]
    details = {"module": "darts_core.cli", "arguments": ["search"], "places": places}
    mine = claim(store, job, details=details)
    mine.release()
    with pytest.raises(JobError, match="enough"):
        control.launch(store, mine.version)
    assert given[0] == "search"
    assert [parse(word).value() for word in given[1:]] == [str(store.root), job, "V001"]
    words = pipeline.Recipe("search").arguments(store, job)[1:]
    assert [parse(word).value() for word in words] == [str(store.root), job]


def test_stop_of_what_does_not_run_and_resume_of_what_succeeded_are_sentences(store):
    mine = claim(store)
    mine.finish()
    mine.release()
    with pytest.raises(JobError, match="succeeded; there is nothing to stop"):
        stop(store.version("a"))
    with pytest.raises(JobError, match="nothing to resume"):
        resume(store, store.version("a"))


def test_a_copy_of_a_running_version_ends_nothing_of_the_original(store):
    mine = claim(store, details={"mark": "m"})
    mine.release()
    environment = {**os.environ, procs.MARK: "m"}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    child.stdout.readline()  # from now on its environment says whose it is
    mine.version.set_state("running", process=procs.identity(child.pid).to_dict())
    # nobody holds the lock of this folder, so that process runs in another one
    with pytest.raises(JobError, match=f"copy of a version that process {child.pid} runs"):
        stop(mine.version)
    claim(store).release()
    mine.version.set_state("running", process=procs.identity(child.pid).to_dict())
    store.delete_job("a")
    assert not mine.version.path.exists()
    assert child.poll() is None
    assert child.communicate(b"\n")[0] == b""


def test_what_succeeded_and_left_something_may_be_resumed(store):
    version = script(store)
    version.set_state("succeeded", "autosearch", left=True)
    assert (version.state(), version.unfinished()) == ("succeeded", "autosearch")
    # this record names no program, so it is not started; it is not refused as one that has succeeded
    with pytest.raises(JobError, match="does not say how its autosearch was started"):
        resume(store, version)
    version.set_state("succeeded", "autosearch")
    assert version.unfinished() is None


class _Args:
    def __init__(self, *jobs, yes=False):
        self.jobs, self.yes = list(jobs), yes


def _ctrl_d(text):
    raise EOFError


def test_deletion_asks_on_a_terminal_and_is_refused_elsewhere(store, monkeypatch, capsys):
    script(store, "a")
    with pytest.raises(JobError, match="--yes"):
        verbs.run_delete(store, _Args("a"))
    asked = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in (("", ["a"]), ("n", ["a"]), ("y", [])):
        monkeypatch.setattr("builtins.input", lambda text, a=answer: asked.append(text) or a)
        verbs.run_delete(store, _Args("a"))
        assert store.jobs() == left
    assert asked[0] == "Delete a with all results? [y/N] "
    assert "Nothing was deleted." in capsys.readouterr().out
    script(store, "a")
    monkeypatch.setattr("builtins.input", _ctrl_d)
    assert verbs.run_delete(store, _Args("a")) == 0
    assert capsys.readouterr().out == "Nothing was deleted.\n"


def test_of_several_none_is_deleted_while_one_runs_and_a_version_goes_with_its_job(store, capsys):
    script(store, "a")
    mine = claim(store, "b")
    for names in (("a", "b"), ("a", "b/V001")):
        with pytest.raises(JobError, match=r"stop (it|them) first"):
            verbs.run_delete(store, _Args(*names, yes=True))
        assert store.jobs() == ["a", "b"]
    mine.finish()
    mine.release()
    assert verbs.run_delete(store, _Args("a", "b", "a/V001", "b", yes=True)) == 0
    assert (capsys.readouterr().out, store.jobs()) == ("a is deleted.\nb is deleted.\n", [])


def test_a_root_that_is_not_there_is_told_beside_the_empty_list(tmp_path, capsys):
    assert cli.main(["jobs", f"--root={tmp_path}/runz", "list", "--json"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err.startswith("There is no folder")) == ([], True)
    assert cli.main(["jobs", f"--root={tmp_path}", "list"]) == 0
    assert capsys.readouterr().err == ""


def test_a_damaged_record_is_no_version_and_breaks_no_list(store):
    script(store, "a")
    claim(store, "b").release()
    path = store.root / "b" / "V001" / "version.json"
    for text in ("", "[", "[]", "7", json.dumps({"commands": []}), json.dumps({"kind": ["x"]})):
        path.write_text(text, encoding="utf-8")
        assert store.versions("b") == []
    content = {"format": "darts-core version", "kind": "pipeline", "schema_version": 2}
    write_json(path, {**content, "commands": {"search": 7, "train": {"state": "gone"}}})
    assert store.version("b").state() == "interrupted"
    assert read_json(path)["kind"] == "pipeline"


def test_versions_of_one_job_or_of_several_are_named_for_a_comparison(tmp_path):
    from darts_core.commands.jobs.comparison import named_columns

    store = Store(tmp_path / "runs")
    for job in ("a", "b"):
        store.create_job(job, kind="script")
        for _ in range(2):
            with store.new_version(job, new_record("script")):
                pass

    def labels(*names):
        return [column.label for column in named_columns(store, names)]

    assert labels("a", "V001", "V002") == ["a/V001", "a/V002"]
    assert labels("a/V001", "b/V002") == ["a/V001", "b/V002"]
    assert labels("a", "b") == ["a/V002", "b/V002"]
    assert labels("a") == ["a/V001", "a/V002"]
    assert labels("a", "V001", "b") == ["a/V001", "b/V002"]
    assert labels("a/V001", "V002", "b", "V001") == ["a/V001", "a/V002", "b/V001"]
    for wrong, said in (
        (("a", "V001"), "needs two versions"),
        (("a", "V009"), "has no version 'V009'; it has V001, V002"),
        (("a", "V001", "V009"), "has no version 'V009'"),
        (("a", "nowhere"), "There is no job 'nowhere'"),
        (("a/V001", "b/V007"), "has no version 'V007'"),
    ):
        with pytest.raises(JobError, match=said):
            labels(*wrong)


def test_a_version_has_a_description_of_its_own(tmp_path):
    store = Store(tmp_path / "runs")
    store.create_job("a", "the job's", kind="script")
    with store.new_version("a", new_record("script")):
        pass
    version = store.version("a")
    assert version.description == ""
    version.describe("wide ranges")
    (row,) = version_rows(store)
    assert (row["description"], row["version_description"]) == ("the job's", "wide ranges")
    assert picked(version_rows(store), search="WIDE")
    assert not picked(version_rows(store), search="no")
    version.describe("")
    assert version.description == ""
    assert not (version.path / "description.txt").exists()


def test_what_jobs_show_would_not_read_is_refused(store, capsys):
    claim(store).release()
    for words, said in (
        (["--limit=5"], "--limit would not count for the stages of a pipeline, which a/V001 is;"),
        (["--trial=0", "--csv", "--offset=0"], "--offset, --csv would not count for one trial;"),
    ):
        assert cli.main(["jobs", f"--root={store.root}", "show", "a", *words]) == 2
        assert said in capsys.readouterr().err
