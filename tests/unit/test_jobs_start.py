"""Starting a pipeline's command for another one that waits: an interruption, a refusal, its last words.

And stopping one where the disk is full.
"""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from darts_core.commands.jobs import pipeline, starting, verbs
from darts_core.credentials import PASSWORD_VARIABLE
from darts_core.errors import TuneError
from darts_core.settings import SlurmQueue
from darts_core.store import control, procs
from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.store.version import Version
from darts_core.study import slurm_jobs


def test_an_interruption_before_it_has_a_version_ends_the_command(tmp_path, monkeypatch):
    started = []

    def start(module, arguments, *, log, mark, directory=None):
        code = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(subprocess.Popen(code, start_new_session=True))
        return started[0]

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.control, "start", start)
    monkeypatch.setattr(pipeline, "_taken_by", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.start(Store(tmp_path), "a", pipeline.Recipe("search"))
        assert started[0].poll() is not None
    finally:
        started[0].kill()
        started[0].wait()


def test_what_was_started_is_seen_through_a_pipe_before_it_ends(tmp_path, monkeypatch):
    """`jobs create --wait | tee log`: a text in a buffer says nothing of where to look meanwhile."""
    store, seen = Store(tmp_path), io.BytesIO()
    store.create_job("a", kind="script")
    with store.new_version("a", new_record("script", commands={"autosearch": {}})):
        pass
    monkeypatch.setattr(
        starting.control, "wait", lambda *_: seen.getvalue().count(b"started (process 7)")
    )
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(seen, encoding="utf-8"))
    child = SimpleNamespace(pid=7, returncode=0)
    assert starting.follow(store, store.version("a"), child, "started", wait=True) == 1


def test_a_databases_password_stands_in_no_list_of_processes_and_no_file(tmp_path, monkeypatch):
    """Of `darts_core.api.tune`, of `jobs new-version --set` and of `jobs params edit --set`."""
    told = []

    def start(module, arguments, **given):
        told.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    monkeypatch.setattr(pipeline.control, "start", start)
    given = ("+tune.options.storage=postgresql://me:pass@h/db", "seed=1")
    with pytest.raises(KeyboardInterrupt):
        pipeline.start(Store(tmp_path), "a", pipeline.Recipe("tune", given), log=tmp_path / "said")
    assert told[:3] == ["tune", "+tune.options.storage=postgresql://me:***@h/db", "seed=1"]
    assert os.environ[PASSWORD_VARIABLE] == "pass"
    changed = pipeline.Recipe("tune").changed({"tune.warm_start": "mysql://me:other@h/db"})
    assert changed.overrides == ("tune.warm_start=mysql://me:***@h/db",)
    with pytest.raises(TuneError, match=r"data\.path=http://me:\*\*\*@h holds a password"):
        changed.changed({"data.path": "http://me:pass@h"})


def test_a_version_that_is_gone_again_takes_no_log(tmp_path):
    (tmp_path / "said.log").write_text("words")
    pipeline._keep_log(tmp_path / "said.log", Version(tmp_path / "a" / "V001"))
    assert not (tmp_path / "a").exists()


def test_whoever_waits_is_told_why_nothing_was_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(starting.control, "wait", lambda process, version: 1)
    process = SimpleNamespace(pid=7, returncode=2)
    with pipeline.heard(True) as log:
        log.write_text("writing to x\ndarts-core: The reason.\n")
        status = starting.follow(
            Store(tmp_path),
            Version(tmp_path / "a" / "V001"),
            process,
            "started",
            wait=True,
            log=log,
        )
    assert status == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "a/V001 had nothing to keep and is gone.",
        "The reason.",
    ]
    with pipeline.heard(False) as log:
        assert log is None


def test_what_a_killed_command_left_in_slurms_queue_is_cancelled_or_named(
    tmp_path, monkeypatch, capsys
):
    store, asked = Store(tmp_path), []
    store.create_job("a", kind="pipeline")
    with store.new_version("a", new_record("pipeline", commands={"tune": {"state": "running"}})):
        pass
    folder = tmp_path / "a" / "V001" / "tune" / "slurm"
    folder.mkdir(parents=True)
    jobs = slurm_jobs.Jobs(SlurmQueue(), SimpleNamespace(folder=folder))
    made = [SimpleNamespace(job_id=f"7_{place}") for place in range(3)]
    jobs._executor.map_array = lambda body, places: made
    jobs.add(None, range(3))
    # what a user's code calls so is no list of ours
    other = tmp_path / "a" / "V001" / "code" / "slurm"
    other.mkdir(parents=True)
    (other / "jobs.json").write_text("[8]")

    def slurm(words, **options):
        asked.append(words)
        return SimpleNamespace(returncode=0, stdout="7_1\n8_0\n7_2\n")

    monkeypatch.setattr(slurm_jobs.subprocess, "run", slurm)
    verbs.run_stop(store, SimpleNamespace(job="a", trial=None))
    assert [words[0] for words in asked] == ["squeue", "scancel", "scancel"]
    assert asked[0][-1] == "--name=darts-core"
    assert [words[-2:] for words in asked[1:]] == [["7_1", "7_2"]] * 2
    said = "a/V001 is stopped. Its jobs in Slurm's queue (7_1, 7_2) are cancelled.\n"
    assert capsys.readouterr().out == said
    # on a machine without Slurm they are named; a copy of the folder has none
    monkeypatch.setattr(slurm_jobs.subprocess, "run", Mock(side_effect=FileNotFoundError))
    assert slurm_jobs.cancel_left(folder.parents[1]).endswith("scancel 7_0 7_1 7_2")
    shutil.copytree(folder, tmp_path / "b" / "slurm")
    assert slurm_jobs.cancel_left(tmp_path / "b") == ""


@pytest.mark.parametrize(("holds", "state"), [(True, "stopped"), (False, "interrupted")])
def test_a_full_disk_keeps_no_search_from_being_stopped(tmp_path, monkeypatch, holds, state):
    """Where not even the file fits by which a search of a script is asked, it is asked by a signal."""
    store = Store(tmp_path)
    store.create_job("a", kind="script")
    with store.new_version("a", new_record("script", commands={"autosearch": {}})):
        pass
    made, told = store.version("a"), []
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = procs.identity(child.pid).to_dict()
    made.set_state("running", process=process, stops_by_file=True)
    lock = made.lock  # of whoever runs it

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def obeys(who, number):
        told.append((who.pid, number))
        child.kill()
        child.wait()
        lock.release()

    monkeypatch.setattr(procs, "send", obeys)
    monkeypatch.setattr(Path, "touch", full)
    if not holds:
        monkeypatch.setattr("darts_core.runlog.os.fsync", full)
    assert lock.try_acquire()
    try:
        assert control.stop(made) == state
    finally:
        child.kill()
        child.wait()
    assert told == [(child.pid, signal.SIGTERM)]
