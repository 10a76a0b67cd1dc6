"""A study in a PostgreSQL server that has little room for connections, and one that is restarted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from darts_core.study import database
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.runner import CallableRunner
from darts_core.study.spec import StudySpec
from darts_core.study.study import announce, open_study
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


def test_a_clock_that_is_off_and_slow_answers_are_said(server, tmp_path, caplog, monkeypatch):
    ledger = open_study(spec_of(server, tmp_path, 1))
    announce(ledger, 1)
    assert "clock" not in caplog.text
    now = time.time
    monkeypatch.setattr(database.time, "time", lambda: now() - 600)
    monkeypatch.setattr(database, "_ANSWER_SECONDS", 0.0)
    announce(ledger, 1)
    assert "this host's clock is 10 minutes behind the database's" in caplog.text
    assert "the database answers slowly" in caplog.text


def test_hosts_that_open_a_new_database_together(server, tmp_path):
    import psycopg

    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    fresh = replace(spec_of(server, tmp_path, 1), storage=f"{server.url.rpartition('/')[0]}/fresh")
    ready, errors = threading.Barrier(3), []

    def opened():
        ready.wait()
        try:
            open_study(fresh)
        except BaseException as error:  # asserted below
            errors.append(error)

    threads = [threading.Thread(target=opened) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_pooler_that_takes_no_options_is_asked_without(server, tmp_path, monkeypatch):
    import psycopg

    connect, asked = psycopg.connect, []

    def pooled(*arguments, **options):
        asked.append("options" in options)
        if asked[-1]:
            raise psycopg.OperationalError(
                "unsupported startup parameter in options: tcp_user_timeout"
            )
        return connect(*arguments, **options)

    monkeypatch.setattr(psycopg, "connect", pooled)
    open_study(spec_of(server, tmp_path, 1))
    assert asked[:2] == [True, False]
    assert asked.count(True) == 1
