"""A trial's sitting seen from both ends: files go there and come back, hosts vanish in between."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from darts_core.errors import TuneError
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.ray_cluster import RayCluster, check_answers, cluster_of
from darts_core.study.remote import LinkLost, Sitting, changed_files, follow, store_files
from darts_core.study.runner import pack
from darts_core.study.spec import StudySpec


def counts(trial):
    """Three epochs from a checkpoint; each notes its host's folder."""
    state = trial.folder / "deep" / "state.json"
    done = json.loads(state.read_text()) if state.is_file() else []
    for epoch in range(len(done), 3):
        done.append(str(trial.folder))
        state.parent.mkdir(exist_ok=True)
        state.write_text(json.dumps(done))
        trial.report(epoch, val_accuracy=trial.params["x"])
    return {"val_accuracy": trial.params["x"] + trial.resumed}


def sitting(packed, wanted):
    made = Sitting(packed, wanted)
    assert made.ready()
    return made


class Vanishing:
    """The far end, gone after so many messages."""

    def __init__(self, sitting, messages):
        self.sitting, self.left = sitting, messages
        self.begin, self.answer = sitting.begin, sitting.answer

    def next(self):
        if not self.left:
            self.sitting.close()
            raise LinkLost("its host is gone")
        self.left -= 1
        return self.sitting.next()


def test_a_trial_goes_on_elsewhere_from_its_last_report(tmp_path):
    spec = StudySpec.make(
        {"x": {"low": 0.0, "high": 1.0}}, Budget(trials=1), folder=tmp_path, pruner="none"
    )
    ledger, packed = Ledger(spec), pack(counts)
    claim = ledger.claim()

    def decide(epoch, metrics):
        return ledger.report(claim, epoch, metrics)

    with pytest.raises(LinkLost):
        follow(Vanishing(sitting(packed, spec.wanted), 2), claim, decide)
    state = claim.folder / "deep" / "state.json"
    assert len(json.loads(state.read_text())) == 2
    claim.restart(died=False)
    assert follow(sitting(packed, spec.wanted), claim, decide) == (
        "returned", {"val_accuracy": claim.params["x"] + 1},
    )  # fmt: skip
    places = json.loads(state.read_text())
    # nothing is run twice, and nothing ran in the study's own folder
    assert len(places) == 3
    assert len(set(places)) == 2
    assert str(claim.folder) not in places
    assert (claim.lease.attempt, claim.lease.idle, claim.lease.epochs) == (2, 0, 3)
    assert len((claim.folder / "metrics.jsonl").read_text().splitlines()) == 3


def test_files_come_back_once_and_the_books_stay_at_home(tmp_path):
    there, here, seen = tmp_path / "there", tmp_path / "here", {}
    (there / "a").mkdir(parents=True)
    (there / "a" / "weights.pt").write_bytes(b"1")
    (there / "lease.json").write_text("{}")
    (there / "result.json").write_text("{}")
    (there / "link").symlink_to(tmp_path)
    assert changed_files(there, seen) == {"a/weights.pt": b"1"}
    assert changed_files(there, seen) == {}
    time.sleep(0.01)
    (there / "a" / "weights.pt").write_bytes(b"22")
    found = changed_files(there, seen)
    assert found == {"a/weights.pt": b"22"}
    store_files(here, found)
    assert (here / "a" / "weights.pt").read_bytes() == b"22"


def test_a_file_that_goes_while_it_is_looked_at_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "a.tmp").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    read, seen = Path.read_bytes, {}

    def renamed(path):
        # as a script that writes beside and replaces, and runs on meanwhile
        if path.name == "a.tmp":
            path.rename(path.with_name("a"))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", renamed)
    assert changed_files(tmp_path, seen) == {"b": b"2"}
    assert changed_files(tmp_path, seen) == {"a": b"1"}


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "lease.json", "a/../../b"])
def test_a_file_that_is_not_the_trials_own_is_refused(tmp_path, name):
    with pytest.raises(TuneError, match="not its own"):
        store_files(tmp_path / "trial", {name: b""})
    assert not (tmp_path / "outside").exists()


def test_what_of_a_cluster_a_trial_takes():
    assert cluster_of({"address": "auto", "num_gpus": 0.5}) == RayCluster("auto", num_gpus=0.5)
    with pytest.raises(TuneError, match=r"'num_cpu'.*num_cpus"):
        cluster_of({"num_cpu": 1})
    with pytest.raises(TuneError, match="num_gpus=-1"):
        replace(RayCluster(), num_gpus=-1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_cpus": "two"}, "num_cpus='two' is not allowed; give a number"),
        ({"num_gpus": None}, "num_gpus=None is not allowed"),
        ({"address": 6379}, "address=6379 is no text; give auto or HOST:PORT"),
        ({"runtime_env": "."}, r"runtime_env='\.' is no mapping"),
        (["auto"], r"cluster is \['auto'\]; give a mapping"),
    ],
)
def test_a_cluster_described_by_values_of_the_wrong_kind_is_refused_in_a_sentence(given, words):
    with pytest.raises(TuneError, match=words):
        cluster_of(given)


def test_an_address_where_nothing_answers_is_said_within_a_bounded_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TuneError, match=f"{address} did not answer as Ray does"):
            check_answers(address, patience_seconds=0.2)
    for closed in (address, f"ray://{address}"):
        with pytest.raises(TuneError, match=f"Nothing answers at the Ray address {closed}"):
            check_answers(closed)
    for wrong in ("127.0.0.1:70000", "ray://host:port"):
        with pytest.raises(TuneError, match=f"{wrong} is no HOST:PORT"):
            check_answers(wrong)


@pytest.mark.parametrize("address", ["auto", "local", "somehost", "kuberay://host:1"])
def test_what_is_no_host_and_port_is_left_to_ray(address):
    check_answers(address)
