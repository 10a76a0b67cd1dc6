"""A study in a PostgreSQL server that has little room for connections, and one that is restarted."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.runner import CallableRunner
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study
from darts_core.study.worker import work

SPACE = {"x": {"low": 0.0, "high": 1.0}}
ROOM = 10
WORKERS = 16
TRIALS = 32


@pytest.fixture(scope="module")
def server(start_postgresql):
    settings = {"max_connections": str(ROOM), "superuser_reserved_connections": "2"}
    with start_postgresql(**settings) as found:
        yield found


def spec_of(server, folder, trials=TRIALS):
    return StudySpec.make(
        SPACE, Budget(trials=trials), folder=folder, sampler="random", pruner="none", storage=server.url,
        study_name=folder.name,
    )  # fmt: skip


class Connections:
    """Open ones of this process, now and at most."""

    def __init__(self):
        from sqlalchemy import event
        from sqlalchemy.pool import Pool

        self.now = self.most = 0
        self._lock = threading.Lock()
        event.listen(Pool, "connect", lambda *a: self._count(1))
        event.listen(Pool, "close", lambda *a: self._count(-1))

    def _count(self, change):
        with self._lock:
            self.now += change
            self.most = max(self.most, self.now)


@pytest.fixture(scope="module")
def connections():
    pytest.importorskip("sqlalchemy")
    return Connections()


def exact(spec, trials=TRIALS):
    found = Ledger(spec).trials()
    assert [t.number for t in found] == list(range(trials))
    assert all(t.state.name == "COMPLETE" for t in found)
    assert all(t.values == [t.params["x"]] for t in found)


def test_a_worker_holds_one_connection_and_none_while_its_trial_runs(server, connections, tmp_path):
    spec = spec_of(server, tmp_path, 4)
    open_study(spec)
    during = []

    def objective(trial):
        if not during:
            connections.most = 0  # opening a storage takes two
        during.append(connections.now)
        trial.report(0, val_accuracy=trial.params["x"])
        during.append(connections.now)
        return trial.params["x"]

    assert connections.now == 0
    work(spec, CallableRunner(objective, spec.wanted), say=False)
    assert during == [0] * 8
    assert connections.most == 1
    exact(spec, 4)


def run_workers(spec, objective, count):
    """So many workers at once, each with a ledger of its own; what they raised."""
    errors = []

    def body():
        try:
            work(spec, CallableRunner(objective, spec.wanted), say=False)
        except BaseException as error:  # asserted below
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, errors


def test_more_workers_than_connections_take_turns(server, connections, tmp_path):
    spec = spec_of(server, tmp_path)
    open_study(spec)
    runs = Counter()

    def objective(trial):
        runs[trial.number] += 1
        return trial.params["x"]

    connections.most = 0
    threads, errors = run_workers(spec, objective, WORKERS)
    for thread in threads:
        thread.join()
    assert not errors
    assert (
        connections.most <= 8
    )  # four, each of which takes a second one while it opens the storage
    assert runs == Counter(range(TRIALS))
    exact(spec)


def test_a_restarted_server_loses_no_trial_and_repeats_none(server, tmp_path, caplog):
    spec = spec_of(server, tmp_path, 30)
    open_study(spec)
    runs, begun = Counter(), threading.Event()

    def objective(trial):
        runs[trial.number] += 1
        for epoch in range(3):
            trial.report(epoch, val_accuracy=trial.params["x"])
        if trial.number == 5:
            begun.set()
        return trial.params["x"]

    threads, errors = run_workers(spec, objective, 3)
    assert begun.wait(120)
    server.stop()
    server.start()
    for thread in threads:
        thread.join()
    assert not errors
    exact(spec, 30)
    assert runs == Counter(range(30))
    assert "the database" in caplog.text
