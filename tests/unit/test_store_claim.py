"""Which version a command gets, and what guards it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from darts_core.errors import ConfigError, JobError
from darts_core.runlog import read_json, write_json
from darts_core.store.claim import claim as claim_any
from darts_core.store.jobs import Store
from darts_core.store.locks import FileLock
from darts_core.store.version import Version


def claim(out: Path, job: str, **more: object):
    return claim_any(out, job, kind="pipeline", **more)  # type: ignore[arg-type]


def _claim(out: Path, stamp: str, command: str = "search", **more: object):
    version = claim(out, "job", command=command, stamp=stamp, **more)  # type: ignore[arg-type]
    version.release()
    return version


def test_the_same_settings_resume_until_finished_and_others_take_the_next(tmp_path: Path) -> None:
    first = _claim(tmp_path, "aaa")
    assert (first.path.name, first.resumes, first.finished) == ("V001", False, False)
    again = _claim(tmp_path, "aaa")
    assert (again.path.name, again.resumes, again.finished) == ("V001", True, False)
    other = _claim(tmp_path, "bbb")
    assert (other.path.name, other.resumes) == ("V002", False)
    again.finish()
    done = _claim(tmp_path, "aaa")
    assert (done.path.name, done.finished) == ("V001", True)
    assert Store(tmp_path).version("job").name == "V002"


def test_what_was_typed_is_kept_over_a_resume_and_what_was_added_by_hand_counts(
    tmp_path: Path,
) -> None:
    added = ["seed=1", "allow_doubtful=true"]
    for given, kept in (
        (["job=job", "seed=1"], ["job=job", "seed=1"]),
        (["seed=1", "out='/x'", "job=job", "version=V001"], ["job=job", "seed=1"]),
        (added, added),
    ):
        mine = _claim(tmp_path, "aaa", details={"overrides": given})
        assert mine.version.command()["overrides"] == kept
    assert _claim(tmp_path, "aaa").version.command()["overrides"] == added


def test_a_forced_version_is_taken_and_refuses_other_settings(tmp_path: Path) -> None:
    _claim(tmp_path, "aaa")
    assert _claim(tmp_path, "ttt", command="train", version="V001").path.name == "V001"
    commands = read_json(tmp_path / "job" / "V001" / "version.json")["commands"]
    assert set(commands) == {"search", "train"}
    with pytest.raises(ConfigError, match="other settings"):
        _claim(tmp_path, "bbb", version="V001")
    assert _claim(tmp_path, "bbb", version="V007").path.name == "V007"
    assert _claim(tmp_path, "ccc").path.name == "V008"


def test_a_forced_version_goes_on_with_what_began_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def begins(known: Any) -> bool:
        return known.get("config_hash") == "few"

    _claim(tmp_path, "few").finish()
    grown = _claim(tmp_path, "more", version="V001", begins=begins)
    assert (grown.path.name, grown.resumes, grown.finished) == ("V001", True, False)
    grown.finish()
    assert _claim(tmp_path, "more").finished
    assert not caplog.records
    _claim(tmp_path, "few").finish()
    assert _claim(tmp_path, "other", begins=begins).path.name == "V003"
    assert "job/V002 holds the beginning of this command: with version=V002" in caplog.text


def test_numbers_go_on_past_999(tmp_path: Path) -> None:
    (tmp_path / "job" / "V999").mkdir(parents=True)
    assert _claim(tmp_path, "aaa").path.name == "V1000"


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "a/b", "", "a" * 200, "-x", "a\n", "a b", "ä/.."]
)
def test_unsafe_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="not allowed"):
        claim(tmp_path, name, command="search", stamp="aaa")
    with pytest.raises(JobError, match="not allowed"):
        claim(tmp_path, "job", command="search", stamp="aaa", version=name)
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "job"])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("job", "job is a link; a job's folder must lie in "),
        ("version", "version='V001' is a link out of "),
    ],
)
def test_links_out_of_the_root_are_refused(where: str, said: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "runs"
    if where == "job":
        out.mkdir()
        (out / "job").symlink_to(outside)
    else:
        (out / "job").mkdir(parents=True)
        (out / "job" / "V001").symlink_to(outside)
    with pytest.raises(JobError, match=said):
        claim(out, "job", command="search", stamp="aaa", version="V001")
    assert list(outside.iterdir()) == []


def test_two_processes_cannot_hold_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = claim(tmp_path, "job", command="search", stamp="aaa")
    code = (
        "from darts_core.store.claim import claim\n"
        "from darts_core.errors import ConfigError\n"
        "try:\n"
        f"    claim({str(tmp_path)!r}, 'job', kind='pipeline', command='search', stamp='aaa')\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "is in use by process" in done.stdout, done.stderr
    # `jobs` looks in `runs`, unless it is told another root
    assert f"stop it with darts-core jobs --root {tmp_path} stop job/V001, or" in done.stdout
    held.release()
    monkeypatch.chdir(tmp_path)
    usual = claim(Path("runs"), "job", command="search", stamp="aaa")
    with pytest.raises(ConfigError, match="stop it with darts-core jobs stop job/V001, or"):
        claim(Path("runs"), "job", command="search", stamp="aaa")
    usual.release()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "", done.stderr


def test_many_new_settings_at_once_take_different_versions(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: _claim(tmp_path, f"stamp{i}").path.name, range(16)))
    assert sorted(found) == [f"V{i:03d}" for i in range(1, 17)]


def test_a_record_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    first = _claim(tmp_path, "aaa")
    write_json(first.path / "version.json", {"schema_version": 99, "commands": {}})
    with pytest.raises(JobError, match="newer program"):
        _claim(tmp_path, "aaa")


def test_a_root_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        claim(tmp_path / "file", "job", command="search", stamp="aaa")


def test_a_jobs_folder_is_made_under_the_lock_under_which_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, seen = FileLock.acquire, []

    def watched(lock: FileLock, *args: Any, **more: Any) -> bool:
        seen.append((lock.path == Store(tmp_path).lock.path, (tmp_path / "job").exists()))
        return acquire(lock, *args, **more)

    monkeypatch.setattr(FileLock, "acquire", watched)
    claim(tmp_path, "job", command="search", stamp="aaa").release()
    assert seen[0] == (True, False)


def test_a_job_that_another_process_deleted_meanwhile_is_dropped_in_peace(tmp_path: Path) -> None:
    Store(tmp_path).drop_if_empty("gone")
    assert not (tmp_path / "gone").exists()


# the second: a network in which nothing may vary is refused when its widths' step is known
@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("train", "config.yaml"),
        ("shrink", "widths.json"),
        ("search", "mirrors.json"),
        ("search", "counted.json"),
    ],
)
def test_a_claim_under_which_nothing_was_computed_can_be_undone(
    command: str, file: str, tmp_path: Path
) -> None:
    first = claim(tmp_path, "job", command=command, stamp="aaa")
    (first.path / command).mkdir()
    (first.path / command / file).write_text("")
    (first.path / command / ".lock").write_text("")
    first.forget()
    first.release()
    assert not first.path.exists()
    other = claim(tmp_path, "job", command="train", stamp="bbb", version="V001")
    assert not other.resumes
    other.release()


def test_a_claim_that_came_to_nothing_goes_on_nfs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock was open while the folder was removed: `Directory not empty`, and V001 stayed for good."""
    removed, really = [], shutil.rmtree

    def rmtree(path: Path, **options: Any) -> None:
        lock = FileLock(path / ".lock")
        removed.append((path.name.startswith(".deleted-"), lock.try_acquire()))
        lock.release()
        really(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    mine = claim(tmp_path, "job", command="train", stamp="aaa")
    assert mine.forget()
    mine.release()
    assert (removed, (tmp_path / "job").exists()) == ([(True, True)], False)


def test_what_was_computed_or_was_there_before_is_never_undone(tmp_path: Path) -> None:
    search = claim(tmp_path, "job", command="search", stamp="aaa")
    (search.path / "search").mkdir()
    (search.path / "search" / "checkpoint.pt").write_text("")
    search.forget()
    search.release()
    assert (search.path / "search" / "checkpoint.pt").exists()
    again = claim(tmp_path, "job", command="search", stamp="aaa")
    assert again.resumes
    again.forget()
    again.release()
    train = claim(tmp_path, "job", command="train", stamp="ttt", version="V001")
    train.forget()
    train.release()
    train = claim(tmp_path, "job", command="train", stamp="uuu", version="V001")
    (train.path / "train").mkdir()
    train.forget()
    train.release()
    assert set(read_json(train.path / "version.json")["commands"]) == {"search"}
    assert not (train.path / "train").exists()
    assert (train.path / "search" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("command", "left"),
    [("tune", "policy/fold0.pt"), ("tune", "0/policy/fold0.pt"), ("bench", "trained/a/seed0/checkpoint.pt"),
     ("bench", "given/a/model.pt")],
)  # fmt: skip
def test_what_a_command_computes_beside_its_own_folder_is_never_undone(
    command: str, left: str, tmp_path: Path
) -> None:
    first = claim(tmp_path, "job", command=command, stamp="aaa")
    (first.path / left).parent.mkdir(parents=True)
    (first.path / left).write_text("")
    (first.path / command).mkdir()
    (first.path / command / "config.yaml").write_text("")
    first.give_up("interrupted", "a signal")
    first.release()
    again = _claim(tmp_path, "aaa", command)
    assert (again.path.name, again.resumes) == ("V001", True)


@pytest.mark.parametrize("element", ["0/search", "seed3/search"])
def test_finished_elements_keep_their_version(element: str, tmp_path: Path) -> None:
    first = claim(tmp_path, "job", command="search", stamp="aaa")
    (first.path / element).mkdir(parents=True)
    (first.path / element / "result.json").write_text("{}")
    first.forget()
    first.release()
    assert _claim(tmp_path, "aaa").resumes


def test_a_record_that_cannot_be_written_leaves_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darts_core import runlog

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(runlog.os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        _claim(tmp_path, "aaa")
    monkeypatch.undo()
    assert not (tmp_path / "job").exists()
    assert _claim(tmp_path, "aaa").path.name == "V001"


@pytest.mark.parametrize("killed", [False, True])
def test_a_command_whose_claim_of_a_version_failed_is_claimed_again(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _claim(tmp_path, "ttt", command="train")
    first.finish()
    if killed:  # by a program that wrote a command in two steps, between the two
        record = first.version.record()
        record["commands"]["prune"] = {}
        write_json(first.path / "version.json", record)
    else:
        full = Mock(side_effect=OSError(errno.ENOSPC, "full"))
        with monkeypatch.context() as patched:
            patched.setattr(Version, "set_state", full)
            with pytest.raises(OSError, match="full"):
                _claim(tmp_path, "ppp", command="prune", version="V001")
        assert list(first.version.record()["commands"]) == ["train"]
    again = _claim(tmp_path, "ppp", command="prune", version="V001")
    assert (again.path, again.resumes, again.finished) == (first.path, False, False)


def test_a_version_whose_maker_was_killed_before_its_record_is_taken_again(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    killed = tmp_path / "job" / "V001"
    killed.mkdir(parents=True)
    for name in (".lock", f".version.json.{ended.pid}.tmp", f"../.job.json.{ended.pid}.tmp"):
        (killed / name).write_text("{")
    assert _claim(tmp_path, "aaa").path.name == "V001"
    assert {p.name for p in (tmp_path / "job").iterdir()} == {"V001", "job.json"}
    assert not list((tmp_path / "job").rglob(".*.tmp"))
    # what holds more than a lock is another's
    (tmp_path / "job" / "V002").mkdir()
    for name in (".lock", "notes.txt"):
        (tmp_path / "job" / "V002" / name).write_text("")
    assert _claim(tmp_path, "bbb").path.name == "V003"
    assert (tmp_path / "job" / "V002" / "notes.txt").exists()


def test_a_temporary_file_of_a_killed_process_keeps_no_empty_version(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    first = _claim(tmp_path, "aaa")
    record = read_json(first.path / "version.json")
    record["commands"]["search"] = {}  # killed before its state was written
    write_json(first.path / "version.json", record)
    left = first.path / f".version.json.{ended.pid}.tmp"
    left.write_text("{")
    again = _claim(tmp_path, "aaa")
    assert (again.path.name, left.exists()) == ("V001", False)
    again.finish()
    left.write_text("{")
    assert _claim(tmp_path, "aaa").finished
    assert not left.exists()
