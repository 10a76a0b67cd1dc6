"""How a study's database is connected to: patience with a full or absent server, and what means that."""

import pytest

from darts_core.study import database
from darts_core.study.database import _Patient, lost
from darts_core.study.lease import Lease, LeaseWatch


@pytest.fixture
def naps(monkeypatch):
    taken = []
    monkeypatch.setattr(database.time, "sleep", taken.append)
    return taken


def answering(*answers):
    left = list(answers)

    def connect():
        answer = left.pop(0)
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    return connect


def test_a_full_server_is_asked_again_with_growing_pauses(naps, caplog):
    caplog.set_level("INFO", logger="darts_core")
    full = "connection failed: FATAL:  sorry, too many clients already"
    reserved = "FATAL:  remaining connection slots are reserved for roles with SUPERUSER"
    assert _Patient(answering(full, reserved, full, 7))() == 7
    assert len(naps) == 3
    assert naps[2] > naps[0]
    assert [r.message for r in caplog.records] == [
        "the database's server is full; it is asked again until there is room"
    ]


def test_a_server_that_never_was_there_is_not_waited_for_and_one_that_was_is(naps):
    with pytest.raises(RuntimeError, match="refused"):
        _Patient(answering("Connection refused"))()
    back = []
    patient = _Patient(answering(1, "Connection refused", "the database system is starting up", 2))
    patient.back = lambda: back.append("back")
    assert patient() == 1
    assert not back
    assert patient() == 2
    assert back == ["back"]
    with pytest.raises(RuntimeError, match="password"):
        _Patient(answering("password authentication failed"))()


def test_patience_ends(naps, monkeypatch):
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(database.time, "monotonic", lambda: next(clock))
    with pytest.raises(RuntimeError, match="too many"):
        _Patient(answering(*["too many clients"] * 9))()


def test_which_errors_mean_that_the_connection_is_gone():
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from optuna.exceptions import StorageInternalError

    gone = sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed"))
    wrapped = StorageInternalError("commit")
    wrapped.__cause__ = gone
    assert lost(gone)
    assert lost(sqlalchemy.exc.PendingRollbackError("Can't reconnect"))
    assert lost(wrapped)
    assert not lost(ValueError("x"))
    assert not lost(sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("twice")))


def test_leases_are_waited_for_anew_when_the_server_was_away(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("darts_core.study.lease.time.monotonic", lambda: clock[0])
    watch = LeaseWatch(stale_seconds=60.0)
    lease = Lease(host="another", beat=5.0)
    assert watch.alive(lease)
    clock[0] = 300.0
    watch.forgive()
    clock[0] = 350.0
    assert watch.alive(lease)
    clock[0] = 361.0
    assert not watch.alive(lease)
