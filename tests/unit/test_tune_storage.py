"""Storage, locks and leases: what a kill leaves behind."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest

from darts_core.errors import TuneError
from darts_core.store import procs
from darts_core.store.locks import FileLock
from darts_core.study.lease import FileLeases, Lease, LeaseWatch, process_start
from darts_core.study.storage import cut_torn_line, open_storage

FORK = multiprocessing.get_context("spawn")


def _hold(path, ready):
    lock = FileLock(path)
    lock.acquire()
    ready.set()
    time.sleep(60)


def test_a_lock_is_free_as_soon_as_its_holder_is_killed(tmp_path):
    ready = FORK.Event()
    holder = FORK.Process(target=_hold, args=(tmp_path / "lock", ready))
    holder.start()
    assert ready.wait(120)
    os.kill(holder.pid, 9)
    started = time.monotonic()
    with FileLock(tmp_path / "lock").held():
        assert time.monotonic() - started < 20
    holder.join()


@pytest.mark.parametrize("torn", [b'{"op_code": 4, "stu', b"\0\0\0\0\n", b"\xff\xfe"])
def test_a_torn_line_is_cut_and_later_trials_are_kept(tmp_path, torn):
    study = optuna.create_study(storage=open_storage(tmp_path), study_name="s")
    study.tell(study.ask(), 1.0)
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    again = optuna.load_study(storage=open_storage(tmp_path), study_name="s")
    assert journal.read_bytes() == whole
    again.tell(again.ask(), 2.0)
    values = [
        t.value for t in optuna.load_study(storage=open_storage(tmp_path), study_name="s").trials
    ]
    assert values == [1.0, 2.0]
    assert cut_torn_line(journal) == 0


def test_a_line_torn_while_others_work_is_cut_before_their_next_line(tmp_path):
    study = optuna.create_study(storage=open_storage(tmp_path), study_name="s")
    with (tmp_path / "study.journal").open("ab") as stream:
        stream.write(b'{"op_code": 4, "stu')
    study.tell(study.ask(), 3.0)
    fresh = optuna.load_study(storage=open_storage(tmp_path), study_name="s")
    assert [t.value for t in fresh.trials] == [3.0]


def test_sqlite_holds_a_study_and_bad_urls_are_sentences(tmp_path):
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=open_storage(tmp_path, url), study_name="s")
    study.tell(study.ask(), 1.0)
    again = optuna.load_study(storage=open_storage(tmp_path, url), study_name="s")
    assert len(again.trials) == 1
    with pytest.raises(TuneError, match="redis://x' is not understood"):
        open_storage(tmp_path, "redis://x")
    with pytest.raises(TuneError, match="cannot be opened"):
        open_storage(tmp_path, "sqlite:////no/such/folder/x.db")


def test_a_missing_driver_of_a_database_says_what_to_install(tmp_path, monkeypatch):
    """The plain URL of the docs takes another driver with SQLAlchemy 2.0 than the extra [sql] installs."""
    pytest.importorskip("sqlalchemy")
    for url, module, words in (
        (
            "postgresql+psycopg2://h/n",
            "psycopg2",
            r"'darts-core\[sql\]' .* postgresql\+psycopg://\.",
        ),
        ("mysql+mysqldb://h/n", "MySQLdb", r"pip install pymysql .* mysql\+pymysql://\."),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(TuneError, match=f"is not installed .*{module}.*{words}"):
            open_storage(tmp_path, url)


def test_leases_on_this_host_follow_the_process_table(tmp_path):
    watch = LeaseWatch()
    leases = FileLeases(lambda number: tmp_path)
    leases.write(0, Lease())
    assert watch.alive(leases.read(0))
    assert not watch.alive(None)
    # the same number, but another process: numbers are used again
    assert not watch.alive(Lease(start="1"))
    process = FORK.Process(target=time.sleep, args=(60,))
    process.start()
    other = Lease(pid=process.pid, start=process_start(process.pid))
    assert watch.alive(other)
    process.kill()
    deadline = time.monotonic() + 60
    while watch.alive(other) and time.monotonic() < deadline:
        time.sleep(0.01)  # still a zombie here: nobody has waited for it
    assert not watch.alive(other)
    process.join()
    (tmp_path / "lease.json").write_text("{")
    assert leases.read(0) is None


def test_a_process_is_known_by_its_start_also_where_the_kernel_shows_no_files(
    tmp_path, monkeypatch
):
    """On macOS any process of that number held a dead worker's trial."""
    procs._boot()  # kept for the whole process: the real one
    monkeypatch.setattr(procs, "_PROC", tmp_path)
    started = procs._created(os.getpid())
    assert process_start(os.getpid()) == f"{started:.3f}"
    assert LeaseWatch().alive(Lease())
    assert not LeaseWatch().alive(Lease(start="unknown"))
    assert process_start(2**22 + 1) is None


@pytest.mark.skipif(psutil.version_info < (7, 1), reason="older psutil moves no start of a process")
def test_a_clock_that_is_corrected_ends_no_process_where_boots_have_no_name(tmp_path, monkeypatch):
    """Of macOS psutil moves the times of the boot and of each process with the clock."""
    monkeypatch.setattr(procs, "_boot", procs._boot.__wrapped__)
    monkeypatch.setattr(procs, "_PROC", tmp_path)
    before = procs.identity()
    boot, created = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600.0)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created + 3600.0)
    assert procs.is_alive(before)
    assert LeaseWatch().alive(Lease(start=before.start))
    # what an older program has noted
    assert procs.is_alive(procs.Identity(before.pid, before.start, f"{boot:.0f}"))
    assert not procs.is_alive(procs.Identity(before.pid, "1.000", before.boot))


def test_leases_of_other_hosts_live_while_their_beat_moves():
    watch = LeaseWatch(stale_seconds=0.05)
    lease = Lease(host="elsewhere")
    assert watch.alive(lease)
    time.sleep(0.1)
    lease.beat += 1
    assert watch.alive(lease)
    time.sleep(0.1)
    assert not watch.alive(lease)


@pytest.mark.parametrize("sampler", ["grid", "cmaes"])
def test_a_trial_whose_point_was_not_settled_when_its_worker_went_gets_the_same_one(
    tmp_path, monkeypatch, sampler
):
    from optuna.storages import JournalStorage

    from darts_core.study import run_study

    space = {"x": {"choices": [1, 2, 3]}} if sampler == "grid" else {}
    space |= {} if space else {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}}
    options = {"trials": 3 if sampler == "grid" else 8, "sampler": sampler, "seed": 3}

    def value(trial):
        return trial.params["x"]

    sound = run_study(value, space, folder=tmp_path / "sound", **options)
    name = "set_trial_system_attr" if sampler == "grid" else "set_trial_param"
    real, calls = getattr(JournalStorage, name), []

    def once(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == (3 if sampler == "grid" else 11):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(JournalStorage, name, once)
    with pytest.raises(OSError, match="Input/output error"):
        run_study(value, space, folder=tmp_path / "s", **options)
    monkeypatch.undo()
    for lease in (tmp_path / "s").rglob("lease.json"):
        lease.unlink()  # its process is this one, which lives
    again = run_study(value, space, folder=tmp_path / "s", **options)
    assert [r.params for r in again.trials] == [r.params for r in sound.trials]


def test_a_study_whose_description_could_not_be_written_is_opened_anew(tmp_path, monkeypatch):
    from darts_core.study import run_study, study

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = (lambda trial: trial.params["x"], {"x": {"low": 0.0, "high": 1.0}})
    options = {"folder": tmp_path, "trials": 2, "seed": 1, "enqueue": [{"x": 0.5}]}
    with monkeypatch.context() as patch:
        patch.setattr(study, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            run_study(*arguments, **options)
    result = run_study(*arguments, **options)
    assert (tmp_path / "study.json").is_file()
    assert [r.params["x"] for r in result.trials].count(0.5) == 1
    assert len(result.trials) == 2


class _FailsOnce(io.FileIO):
    """A file whose first write is cut off after a half, whose second fails, and then it is sound."""

    failures = 0

    def write(self, content):
        type(self).failures += 1
        if self.failures == 1:
            return super().write(bytes(content)[: len(content) // 2])
        if self.failures == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(content)


def test_an_append_that_fails_half_way_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    # what lies in a buffer is written once more when the file is closed: behind the half that is there
    storage = open_storage(tmp_path)
    study = optuna.create_study(storage=storage, study_name="s")
    path = tmp_path / "study.journal"
    before = path.read_bytes()
    _FailsOnce.failures = 0
    opened = Path.open

    def fails(self, mode="r", buffering=-1, **rest):
        if self != path or "a" not in mode:
            return opened(self, mode, buffering, **rest)
        raw = _FailsOnce(self, mode)
        return raw if buffering == 0 else io.BufferedWriter(raw)

    monkeypatch.setattr(Path, "open", fails)

    def three_rows():
        with storage._backend.together():
            for number in range(3):
                storage.set_study_user_attr(study._study_id, f"k{number}", number)

    with pytest.raises(OSError, match="Input/output error"):
        three_rows()
    assert path.read_bytes() == before
    monkeypatch.undo()
    study.set_user_attr("k", 1)
    assert optuna.load_study(storage=open_storage(tmp_path), study_name="s").user_attrs == {"k": 1}


def test_a_trial_forces_five_writes_however_many_settings_it_has(tmp_path, monkeypatch):
    """The claim, the draws and the end in the journal, `config.yaml` and `result.json`; optuna alone six."""
    from darts_core.study import run_study

    forced, marks, fsync = [], [], os.fsync

    def counted(file):
        forced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        fsync(file)

    monkeypatch.setattr(os, "fsync", counted)
    space = {name: {"low": 0.0, "high": 1.0} for name in "abcd"}
    run_study(
        lambda trial: trial.params["a"], space, folder=tmp_path, trials=3, sampler="random",
        pruner="none", on_trial=lambda record: marks.append(len(forced)),
    )  # fmt: skip
    of_a_trial = sorted(forced[marks[0] : marks[1]])
    assert of_a_trial[2:] == ["study.journal"] * 3
    assert [name.split(".")[1] for name in of_a_trial[:2]] == ["config", "result"]


def test_what_a_trial_ends_with_stands_in_the_journal_with_its_state_or_not_at_all(tmp_path):
    from darts_core.study.optuna_private import told

    study = optuna.create_study(storage=open_storage(tmp_path), study_name="s")
    path = tmp_path / "study.journal"
    number = study.ask().number
    before = path.read_bytes()
    ended = told(study, number, optuna.trial.TrialState.COMPLETE, [1.0], {"reason": "finished"})
    whole = path.read_bytes()
    assert (ended.values, ended.user_attrs) == ([1.0], {"reason": "finished"})
    assert whole.startswith(before)
    # a cut anywhere in what was written leaves the attribute or nothing, never the state alone
    for size in range(len(before), len(whole), 7):
        path.write_bytes(whole[:size])
        (found,) = optuna.load_study(storage=open_storage(tmp_path), study_name="s").trials
        assert not found.state.is_finished()
    path.write_bytes(whole)
    (found,) = optuna.load_study(storage=open_storage(tmp_path), study_name="s").trials
    assert (found.values, found.user_attrs) == ([1.0], {"reason": "finished"})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        told(study, number, optuna.trial.TrialState.COMPLETE, [2.0], {"reason": "again"})
