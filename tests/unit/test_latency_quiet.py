"""A timing gets the device alone, soon, and trainings go on after it."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from functools import partial

import pytest

from darts_core.errors import DartsError, LatencyError
from darts_core.latency import device as locks
from darts_core.latency import quiet
from darts_core.latency.quiet import SharedDevice, alone_on
from darts_core.store.locks import device_lock_path


def _time(events, begun, done):
    begun.set()
    with alone_on("cpu"):
        events.append("timing")
        done.wait(10)
        events.append("timed")


def test_trainings_step_aside_for_a_timing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "lock_path", lambda key: tmp_path / key)
    events, begun, done = [], threading.Event(), threading.Event()
    timer = threading.Thread(target=_time, args=(events, begun, done))
    with SharedDevice("cpu") as first, SharedDevice("cpu") as second:
        first.step_aside()  # nobody waits: does not block
        timer.start()
        begun.wait(10)
        while locks_free(tmp_path):
            pass  # until the timer stands at the gate
        assert events == []
        others = [threading.Thread(target=use.step_aside) for use in (first, second)]
        others[0].start()
        assert events == []  # the second training is still in its epoch
        others[1].start()
        while "timing" not in events:
            pass
        assert all(other.is_alive() for other in others)
        done.set()
        for thread in (timer, *others):
            thread.join(10)
            assert not thread.is_alive()
    assert events == ["timing", "timed"]


def locks_free(folder):
    from darts_core.latency.quiet import _locked

    gate = _locked(next(folder.glob("*gate")), "alone")
    if gate is None:
        return False
    gate.close()
    return True


def test_who_never_lets_go_holds_nobody_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "lock_path", lambda key: tmp_path / key)
    monkeypatch.setattr(quiet, "PATIENCE", 0.05)
    monkeypatch.setattr(quiet, "_TELL_AFTER", 0.0)
    caplog.set_level("INFO", logger="darts_core")
    with SharedDevice("cpu"), alone_on("cpu"):  # the training of a stopped process
        pass
    assert "waiting for the epochs of trainings on cpu to end" in caplog.text
    assert "did not end within 0 s" in caplog.text
    caplog.clear()
    with alone_on("cpu"), SharedDevice("cpu") as training:
        training.step_aside()
        training.step_aside()
    assert caplog.text.count("a timing on cpu did not end") == 1


@pytest.mark.parametrize("lock", [locks.device_lock, alone_on])
def test_a_folder_without_locks_is_told_at_once_and_of_no_other_process(
    tmp_path, monkeypatch, lock
):
    """As Lustre is often mounted on clusters, whose TMPDIR it may be."""

    def none_here(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks, "lock_path", lambda key: tmp_path / key)
    monkeypatch.setattr(quiet, "PATIENCE", 0.05)
    monkeypatch.setattr(locks.fcntl, "flock", none_here)
    more = {"wait_seconds": 0.05} if lock is locks.device_lock else {}
    with (
        pytest.raises(LatencyError, match=r"cannot be locked \(Function not .*set TMPDIR to"),
        lock("cpu", **more),
    ):
        pass


def test_a_user_without_an_account_has_locks_of_its_own(monkeypatch, tmp_path):
    """A container may run under any number."""
    from darts_core.latency.device import lock_path

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert lock_path("cpu").parent.name == f"darts_core_locks_user-{os.getuid()}"


def test_no_lock_lies_in_a_folder_that_another_user_has_made(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    for path in (partial(locks.lock_path, "cpu0"), partial(device_lock_path, tmp_path, "cuda:0")):
        with pytest.raises(DartsError, match="belongs to another user; set TMPDIR to a folder"):
            path()
