"""A script's trials on another node: what is sent there, what comes back. The node is this process."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from autosearch_workshop import BASE

from darts_core.autosearch.driver import Search
from darts_core.autosearch.elsewhere import JobThere, ScriptTrials, run_there
from darts_core.autosearch.spec import Limits, SearchPlan
from darts_core.errors import JobError
from darts_core.study import calls
from darts_core.study.ledger import Ledger
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.remote import Sitting, follow
from darts_core.study.runner import pack

SCRIPT = """
import os
from pathlib import Path
from darts_core import autosearch
from beside import offset
def train():
    mark = Path(autosearch.checkpoint_dir) / "seen"
    seen = mark.read_text() if mark.exists() else ""
    for step in range(2):
        autosearch.reporter(acc=autosearch.config["x"] + offset + step)
    mark.write_text(seen + str(Path.cwd()))
    Path("model.txt").write_text(str(autosearch.config["x"]))
    autosearch.report(autosearch.config["x"] + offset, model_path=str(Path("model.txt").resolve()))
"""


@pytest.fixture
def far(shop, tmp_path, monkeypatch):
    """A workshop whose code lies in several files, and a cluster that calls here."""
    workshop = shop(SCRIPT)
    (tmp_path / "code" / "beside.py").write_text("offset = 10\n")

    def called(place, call, count, folder, *, look):
        sent = pickle.loads(pickle.dumps(call))
        return [sent(number) for number in range(count)]

    monkeypatch.setattr("darts_core.autosearch.elsewhere.run_calls", called)
    assert calls.run_calls is not called
    workshop.place = RayCluster()
    return workshop


def test_a_steps_trial_runs_from_the_code_that_was_sent(far, tmp_path):
    step = Search(BASE, far, first={"x": 2}, is_baseline=True)
    ledger = Ledger(step._study())
    claim = ledger.claim()
    packed = pack(ScriptTrials(JobThere.of(far, far.place), BASE, step.step))
    (tmp_path / "code").rename(tmp_path / "gone")  # the node never saw it
    sitting = Sitting(packed, ledger.spec.wanted)
    assert sitting.ready()
    reports = []

    def decide(epoch, metrics):
        reports.append((epoch, metrics["acc"]))
        return ledger.report(claim, epoch, metrics)

    kind, outcome = follow(sitting, claim, decide)
    x = claim.params["x"]
    assert (kind, outcome["acc"]) == ("returned", x + 10)
    assert reports == [(0, x + 10.0), (1, x + 11.0)]
    # the row came back, and the files, whose paths hold here
    assert claim.row["state"] == "done"
    assert claim.row["model_path"] == "model.txt"
    assert (claim.folder / "output" / "model.txt").read_text() == str(x)
    assert str(tmp_path) not in (claim.folder / "checkpoint" / "seen").read_text()
    assert len((claim.folder / "reports.jsonl").read_text().splitlines()) == 3
    record = ledger.complete(claim, outcome)
    assert (record.state, record.value) == ("complete", x + 10)
    row = json.loads((claim.folder / "result.json").read_text())
    assert (row["trial_id"], row["ledger"]["state"]) == (claim.folder.name, "complete")


def test_an_attempt_that_failed_there_counts_too(far, tmp_path):
    (tmp_path / "code" / "beside.py").write_text("raise MemoryError('none is left')\n")
    spec = replace(BASE, limits=Limits(retries=1))
    step = Search(spec, far, first={"x": 2}, is_baseline=True)
    claim = Ledger(step._study()).claim()
    claim.folder = tmp_path / "there"  # files are sent to a folder of the node's own
    runner = ScriptTrials(JobThere.of(far, far.place), spec, step.step).runner(("acc",))
    assert runner.run(claim, lambda epoch, metrics: None)[0] == "raised"
    first = json.loads((claim.folder / "result.1.json").read_text())
    assert (first["state"], claim.row["attempt"]) == ("failed", 2)
    assert claim.row["earlier_seconds"] >= first["time_total_s"] > 0


def test_a_confirming_run_is_a_call(far, tmp_path, monkeypatch):
    node = tmp_path / "node"
    node.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(node))
    far.there = lambda *given: run_there(far, far.place, *given)
    row = far.run_one(
        BASE, 0, {"x": 3}, step="confirm-best", phase="confirm", seed=7, confirms="best"
    )
    assert (row["state"], row["values"]["acc"], row["confirms"]) == ("done", 13, "best")
    (kept,) = far.known_rows("confirm-best", "confirm")
    assert kept["trial_id"] == row["trial_id"] == far.trial_id("confirm-best", "confirm", 0, 7)
    folder = far.version / "autosearch" / "trials" / row["trial_id"]
    assert (folder / "output" / "model.txt").read_text() == "3"
    assert far.account.spent_seconds == 0.0
    # nothing stays on the node
    assert not list(node.glob("darts-job-*"))


def test_a_confirming_run_that_failed_there_counts_when_it_is_run_again(far, tmp_path):
    far.there = lambda *given: run_there(far, far.place, *given)
    beside, rows = tmp_path / "code" / "beside.py", []
    for text in ("raise MemoryError('none is left')", "offset = 10"):
        beside.write_text(text + "\n")
        rows.append(far.run_one(BASE, 0, {"x": 3}, step="confirm-best", phase="confirm", seed=7))
    assert [(row["state"], row["attempt"]) for row in rows] == [("failed", 1), ("done", 2)]
    assert rows[1]["earlier_seconds"] == rows[0]["time_total_s"] > 0


def test_an_elastic_search_is_refused_where_nodes_share_no_folder(far):
    from darts_core.autosearch.multi import run_plan

    spec = replace(BASE, algorithm="elastic_search", algorithm_options={"setting": "network"})
    with pytest.raises(JobError, match="run it on Slurm"):
        run_plan(SearchPlan((spec,)), far)
