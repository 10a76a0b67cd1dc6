"""Three hosts that share a database and a path for files: one cut off, off, slow, or with another clock.

What holds in each case: every trial is complete, once, with every epoch once in the books; no trial is taken
from a host that comes back in time; the log says what happened.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from figures import row
from hosts import hosts, why_not

from benchmarks import postgresql
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.spec import StudySpec

pytestmark = pytest.mark.cluster
NEEDS = ("psycopg", "fsspec")
TRIALS, EPOCHS = 9, 3
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.fixture(scope="module")
def three():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with hosts("one", "two", "three") as made:
        yield made


@pytest.fixture(scope="module")
def server(three):
    if postgresql.why_not():
        pytest.skip(postgresql.why_not())
    with postgresql.postgresql_server(addresses=[host.near for host in three]) as found:
        yield found


class Study:
    """A study of these hosts and what the test sees of it."""

    def __init__(self, server, folder, *, trials=TRIALS, stale_seconds=60):
        self.folder, self.server, self.trials = folder, server, trials
        self._stale = str(stale_seconds)
        self.name = folder.name
        self.notes = folder / "notes"
        self.notes.touch()
        self.programs = {}

    def start(self, host, what="study", **environment):
        """Begin to work on it there."""
        here = [
            str(Path(__file__).with_name("host_worker.py")),
            what,
            self.server.url_at(host.near),
        ]
        places = [str(self.folder / name) for name in (host.name, "kept", "notes")]
        command = [sys.executable, *here, *places, self.name, str(self.trials), self._stale]
        self.programs[host.name] = host.start(
            command, self.folder / f"{host.name}.log", **environment
        )

    def hold(self, host):
        """Let the trials of a host wait before their second epoch."""
        (self.folder / f"hold-{host.name}").touch()

    def let_go(self, host):
        """And go on."""
        (self.folder / f"hold-{host.name}").unlink()

    def said(self, host):
        """What the host's log holds."""
        return (self.folder / f"{host.name}.log").read_text()

    def until(self, *words):
        """Wait for a note with these words; its first word."""
        while True:
            for line in self.notes.read_text().splitlines():
                if all(word in line.split() for word in words):
                    return line.split()[0]
            self._look()

    def until_said(self, host, text):
        """Wait for a line of a host's log."""
        while text not in self.said(host):
            self._look()

    def _look(self):
        ended = {name: p.poll() for name, p in self.programs.items()}
        logs = [path.read_text() for path in self.folder.glob("*.log")]
        assert not any(ended.values()), (ended, logs)
        time.sleep(0.05)

    def ends(self, *those):
        """Wait until they have ended well."""
        for host in those:
            assert self.programs[host.name].wait() == 0, self.said(host)

    def attempts(self, folder):
        """Sittings of each trial, the books being exact."""
        budget = Budget(trials=self.trials, epochs_per_trial=EPOCHS)
        spec = StudySpec.make(
            {"x": {"low": 0.0, "high": 1.0}}, budget, folder=folder, sampler="random", pruner="none", seed=5,
            storage=self.server.url, study_name=self.name,
        )  # fmt: skip
        ledger = Ledger(spec)
        found = ledger.trials()
        assert [t.number for t in found] == list(range(self.trials))
        assert all(t.state.name == "COMPLETE" and t.values == [t.params["x"]] for t in found)
        assert all(sorted(t.intermediate_values) == [1, 2, 3] for t in found)
        assert ledger.spent(found).epochs == self.trials * EPOCHS
        results = [json.loads(p.read_text()) for p in self.folder.glob("*/trials/*/result.json")]
        # one host wrote the end of each trial
        assert sorted(r["number"] for r in results) == list(range(self.trials))
        return {r["number"]: r["attempts"] for r in results}

    def row(self, fault):
        """The figures of a fault."""
        results = self.folder.glob("*/trials/*/result.json")
        where = "three hosts, a database in common"
        return row(fault, where, results, self.trials, self.epochs())

    def epochs(self):
        """How often each epoch of each trial was trained."""
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return Counter((int(n), int(e)) for n, e, _ in lines if e.isdigit())


ONCE = {(number, epoch): 1 for number in range(TRIALS) for epoch in range(EPOCHS)}


@pytest.mark.parametrize("fault", ["cut", "off"])
def test_a_trial_of_a_host_that_is_gone_goes_on_elsewhere_once(
    fault, three, server, tmp_path, figures
):
    first, *others = three
    study = Study(server, tmp_path, stale_seconds=20)
    study.hold(first)
    for host in three:
        study.start(host)
    number = study.until("waits", "one")
    if fault == "cut":
        first.cut()
    else:
        first.off()
    study.ends(*others)
    if fault == "off":
        first.on()
    else:
        first.back()
        study.let_go(first)
        study.ends(first)
        assert f"trial {number} is run by another worker now" in study.said(first)
        assert "the database's server is away" in study.said(first)
    assert study.attempts(tmp_path / "look") == {n: 1 + (n == int(number)) for n in range(TRIALS)}
    # nothing but what the first host did without an answer was trained twice
    assert study.epochs() == {**ONCE, (int(number), 1): 1 + (fault == "cut")}
    assert f"trial {number} was interrupted" in "".join(map(study.said, others))
    happened = {"cut": "is cut off, and back later", "off": "is switched off"}
    figures(study.row(f"a host {happened[fault]}"))


def test_a_host_that_is_back_in_time_keeps_its_trial(three, server, tmp_path, figures):
    first, *others = three
    study = Study(server, tmp_path, stale_seconds=3600)
    study.hold(first)
    for host in three:
        study.start(host)
    study.until("waits", "one")
    first.cut()
    for host in others:
        study.until_said(host, "trials that run elsewhere")
    # else it may be back before it has asked anything
    study.until_said(first, "the database's server is away")
    first.back()
    study.let_go(first)
    study.ends(*three)
    assert set(study.attempts(tmp_path / "look").values()) == {1}
    assert study.epochs() == ONCE
    figures(study.row("a host is cut off, and back in time"))


def test_a_host_that_is_cut_off_with_the_studys_lock_does_not_hold_up_the_others(
    three, server, tmp_path, figures
):
    first, *others = three
    study = Study(server, tmp_path)
    study.start(first, "lock")
    study.until("lock", "held")
    first.cut()
    try:
        for host in others:
            study.start(host)
        study.ends(*others)
    finally:
        first.back()
        study.programs["one"].kill()
    assert set(study.attempts(tmp_path / "look").values()) == {1}
    assert study.epochs() == ONCE
    figures(study.row("a host is cut off with the study's lock"))


@pytest.mark.skipif(not FAKETIME, reason="Debian's libfaketime is not installed")
def test_clocks_ten_minutes_off_and_one_that_jumps(three, server, tmp_path, figures):
    """Ahead, behind, and one that is put right while a trial runs."""
    study, jumps = Study(server, tmp_path), tmp_path / "clock"
    study.hold(three[2])
    jumps.write_text("+600s\n")
    fake = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    study.start(three[0], **fake, FAKETIME="+600s")
    study.start(three[1], **fake, FAKETIME="-600s")
    study.start(three[2], **fake, FAKETIME_TIMESTAMP_FILE=str(jumps), FAKETIME_NO_CACHE="1")
    study.until("waits", "three")
    jumps.write_text("-600s\n")
    study.until_said(three[0], "trials that run elsewhere")
    study.let_go(three[2])
    study.ends(*three)
    assert set(study.attempts(tmp_path / "look").values()) == {1}
    assert study.epochs() == ONCE
    assert "this host's clock is 10 minutes ahead of the database's" in study.said(three[0])
    assert "this host's clock is 10 minutes behind the database's" in study.said(three[1])
    figures(study.row("clocks ten minutes ahead and behind, one that jumps"))


def test_the_database_is_restarted_while_three_hosts_work(three, server, tmp_path, figures):
    study = Study(server, tmp_path)
    for host in three:
        study.hold(host)
        study.start(host)
    for host in three:
        study.until("waits", host.name)
    server.stop()
    for host in three:
        study.let_go(host)
    time.sleep(1)  # they meet a server that is away
    server.start()
    study.ends(*three)
    assert set(study.attempts(tmp_path / "look").values()) == {1}
    assert study.epochs() == ONCE
    assert all("the database's server is away" in study.said(host) for host in three)
    figures(study.row("the database is restarted"))


def test_a_slow_network(three, server, tmp_path, figures):
    study = Study(server, tmp_path, trials=3)
    three[0].slow("128kbit")
    try:
        for host in three:
            study.hold(host)
            study.start(host)
        for host in three:
            study.until("waits", host.name)
            study.let_go(host)
        study.ends(*three)
    finally:
        three[0].quick()
    assert set(study.attempts(tmp_path / "look").values()) == {1}
    assert set(study.epochs().values()) == {1}
    assert "the database answers slowly" in study.said(three[0])
    assert "the database answers slowly" not in study.said(three[1])
    figures(study.row("a network of 128 kbit/s"))
