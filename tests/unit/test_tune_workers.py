"""Workers in processes, and what survives kill -9 of a trial, a worker, or everything."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest

from darts_core.errors import ResumeError, TuneError
from darts_core.runlog import read_json
from darts_core.study import engines, launch, run_study
from darts_core.study.claim import Claim
from darts_core.study.launch import RelaunchLimit
from darts_core.study.lease import FileLeases, Lease
from darts_core.study.resources import pin_worker, visible_gpus
from darts_core.study.runner import ChildRunner, pack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills processes by /proc")

SPACE = {"x": {"low": 0.0, "high": 1.0}}
EPOCHS = 4


def dies_once(trial):
    """Kills its own process after the second epoch, the first time round."""
    checkpoint = trial.folder / "checkpoint.json"
    start = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    for epoch in range(start, EPOCHS):
        if epoch == 2 and not trial.resumed and trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write_text(json.dumps(epoch + 1))
        trial.report(epoch, val_accuracy=float(start))
    return float(start)


def dies_always(trial):
    os.kill(os.getpid(), signal.SIGKILL)


def own_process(trial):
    return {"val_accuracy": 1.0, "pid": os.getpid(), "threads": int(os.environ["OMP_NUM_THREADS"])}


def test_an_objective_of_a_notebook_is_refused_before_its_workers_die_of_it(monkeypatch):
    main = ModuleType("__main__")
    exec("def of_a_cell(trial):\n    return 1.0", vars(main))
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(TuneError, match=r"notebook or a shell.* workers=1"):
        pack(main.of_a_cell)
    assert pack(partial(print, b"by value, as of __main__"))
    main.__file__ = "train.py"  # which a worker reads as well
    assert pack(main.of_a_cell)


class Ended:
    """A process that met the study in its script and is gone."""

    exitcode = 213

    def __init__(self):
        self.sentinel, end = os.pipe()
        os.close(end)

    def join(self):
        pass

    kill = join


def test_a_script_that_calls_run_study_unguarded_is_told_so(tmp_path, monkeypatch, capsys):
    words = "put the call under if __name__ == '__main__':."
    with monkeypatch.context() as new:  # a worker that is being made imports the script
        new.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
        new.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as left:
            run_study(own_process, SPACE, folder=tmp_path / "a", trials=1)
    assert left.value.code == Ended.exitcode
    assert capsys.readouterr().err.endswith(f"{words}\n")
    assert not (tmp_path / "a").exists()
    # and this is what its starter says of it, after the first one
    started = [Ended(), Ended()]
    monkeypatch.setattr(launch, "_launch", lambda *_: started.pop())
    with pytest.raises(TuneError, match=re.escape(words)):
        run_study(own_process, SPACE, folder=tmp_path / "b", trials=2, workers=2)
    one = ChildRunner(own_process, ())
    one._process, one._pipe, one._talk = Ended(), io.BytesIO(), lambda *_: None
    claim = SimpleNamespace(number=0, params={}, folder=tmp_path, seed=0, resumed=False)
    with pytest.raises(TuneError, match=re.escape(words)):
        one.run(claim, None)


class Waiting:
    """A pipe to a process that has reported an epoch and waits for what is said of it."""

    def send(self, value):
        pass

    def recv(self):
        return "report", 0, {"val_accuracy": 0.5}

    def poll(self, seconds):
        return True

    def close(self):
        pass


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "study.journal")


def test_books_on_a_full_disk_are_no_death_of_a_trial_that_waits_for_their_answer(tmp_path):
    ended = []
    runner = ChildRunner(own_process, ())
    runner._pipe = Waiting()
    runner._process = SimpleNamespace(
        kill=lambda: ended.append("killed"), join=lambda: ended.append("joined"), exitcode=0
    )
    claim = SimpleNamespace(number=0, params={}, folder=tmp_path, seed=0, resumed=False)
    with pytest.raises(OSError, match="No space left"):
        runner.run(claim, full_disk)
    # a process that waits for an answer ends by force alone: joined first, it was waited for without end
    assert ended == ["killed", "joined"]


class Hanging(Waiting):
    """A pipe to a process that reports at these looks, and hangs from then on."""

    looks = 0

    def __init__(self, *reports):
        self.reports = reports

    def poll(self, seconds):
        self.looks += 1
        return self.looks in self.reports


# a pause of 400 s, then of 500 s until the budget is spent: three times as long is waited for
@pytest.mark.parametrize(("reports", "last"), [((4,), 4 + 12), ((), 15)])
def test_a_trial_that_hangs_is_ended_by_force_when_the_budget_is_spent(
    tmp_path, monkeypatch, reports, last
):
    ended, pipe, runner = [], Hanging(*reports), ChildRunner(own_process, ())
    monkeypatch.setattr(
        "darts_core.study.runner.time", SimpleNamespace(monotonic=lambda: 100.0 * pipe.looks)
    )
    runner._pipe = pipe
    runner._process = SimpleNamespace(
        terminate=lambda: ended.append("asked"), kill=lambda: ended.append("killed"),
        join=lambda *_: ended.append("joined"),
    )  # fmt: skip

    def over():
        if pipe.looks == 1:
            raise OSError(errno.ESTALE, "the books are away for a moment")
        return "the budget of 5.0 device-seconds is spent" if pipe.looks > 4 else None

    claim = SimpleNamespace(
        number=0, params={}, folder=tmp_path, seed=0, resumed=False, over=over
    )  # fmt: skip
    kind, reason = runner.run(claim, lambda epoch, row: None)
    assert kind == "pruned"
    assert reason.startswith("the budget of 5.0 device-seconds is spent; it reported nothing after")
    assert pipe.looks == last
    assert ended == ["asked", "joined", "killed", "joined"]
    assert runner._process is None
    # the pauses of earlier trials are known to the next
    assert runner._longest == 100.0 * sum(reports)


def test_a_beat_that_a_full_disk_missed_is_followed_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr("darts_core.study.claim.BEAT_SECONDS", 0.001)
    claim = Claim(SimpleNamespace(number=0), tmp_path, Lease(), None, {}, 0, since=0.0)
    beats, again = iter([full_disk]), threading.Event()
    claim.renew = lambda: next(beats, again.set)()
    with claim.beating():
        assert again.wait(5.0)


def test_a_lease_that_was_replaced_while_it_was_read_is_read_again(tmp_path, monkeypatch):
    leases = FileLeases(lambda number: tmp_path)
    leases.write(0, Lease(token="mine"))
    stale = iter([ResumeError("lease.json cannot be read (Stale file handle).")])

    def read(path):
        for error in stale:
            raise error
        return read_json(path)

    monkeypatch.setattr("darts_core.study.lease.read_json", read)
    assert leases.read(0).token == "mine"
    (tmp_path / "lease.json").write_text('{"host": "a')
    assert leases.read(0) is None


def test_trials_run_in_processes_of_their_own_with_one_thread(tmp_path):
    result = run_study(own_process, SPACE, folder=tmp_path, trials=4, workers=2)
    pids = {record.metrics["pid"] for record in result.trials}
    assert len(pids) == 4
    assert os.getpid() not in pids
    assert {record.metrics["threads"] for record in result.trials} == {1.0}


def test_a_killed_trial_goes_on_from_its_checkpoint_under_its_number(tmp_path):
    result = run_study(dies_once, SPACE, folder=tmp_path, trials=3, isolate=True, pruner="none")
    assert [r.state for r in result.trials] == ["complete"] * 3
    assert [r.value for r in result.trials] == [0.0, 2.0, 0.0]
    assert result.trials[1].epochs == EPOCHS
    rows = (tmp_path / "trials/0001/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(EPOCHS))
    assert json.loads((tmp_path / "trials/0001/result.json").read_text())["attempts"] == 2


def test_a_trial_that_always_dies_fails_after_a_few_restarts(tmp_path):
    with pytest.raises(TuneError, match=r"process died 3 times .*SIGKILL"):
        run_study(dies_always, SPACE, folder=tmp_path, trials=1, isolate=True, max_restarts=2)


def test_an_objective_that_cannot_be_sent_is_a_sentence(tmp_path):
    with pytest.raises(TuneError, match="top level of a module"):
        run_study(lambda trial: 1.0, SPACE, folder=tmp_path, trials=2, workers=2)


def test_a_live_worker_of_another_process_keeps_its_trial(tmp_path):
    run_study(own_process, SPACE, folder=tmp_path, trials=1)
    from darts_core.study.budget import Budget
    from darts_core.study.ledger import Ledger
    from darts_core.study.spec import StudySpec

    spec = StudySpec.make(SPACE, Budget(trials=3), folder=tmp_path)
    first, second = Ledger(spec), Ledger(spec)
    held = first.claim()
    other = second.claim()
    assert (held.number, other.number) == (1, 2)
    assert second.claim() is None
    held.release()
    taken = second.claim()
    assert taken.number == 1
    assert taken.resumed
    assert second.leases.read(1).token == taken.lease.token


def test_gpus_are_dealt_out_by_turns(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert visible_gpus() == ["2", "5"]
    pin_worker(2, "cuda:1")
    assert visible_gpus() == ["2", "5"], "alone, GPU 2 would be no cuda:1"
    pin_worker(3, "cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_trials_in_other_processes_find_what_this_one_keeps_of_a_gpu_given_back(monkeypatch):
    import torch  # not at the top: the fork server imports this file

    seen = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: seen.append("given back"))
    monkeypatch.setattr(engines, "run_workers", lambda *_, **__: seen.append("elsewhere"))
    monkeypatch.setattr(engines, "work", lambda *_, **__: seen.append("here"))
    ledger = SimpleNamespace(trials=list, spec=SimpleNamespace(wanted=()))
    for workers in (2, 1):
        engines._run_once(ledger, None, workers, None, False, None, lambda: None)
    assert seen == ["given back", "elsewhere", "here"]


@dataclass(frozen=True)
class Reusing:
    """An objective whose trials may share a process."""

    reuse_process: bool = True

    def __call__(self, trial):
        if trial.number == 1:
            raise ValueError("ends its process too")
        return {"val_accuracy": 1.0, "pid": os.getpid()}


def test_trials_share_a_process_when_the_objective_allows_it(tmp_path):
    result = run_study(Reusing(), SPACE, folder=tmp_path, trials=4, isolate=True)
    pids = [record.metrics.get("pid") for record in result.trials]
    assert pids[2] == pids[3] != os.getpid()
    assert pids[0] != pids[2]
    assert result.trials[1].state == "fail"


def test_workers_that_keep_dying_are_given_up_but_progress_counts():
    limit = RelaunchLimit(limit=2)
    for ended in (0, 0, 1, 1, 2, 2):
        limit.death(ended, "status -9")
    with pytest.raises(TuneError, match=r"died 3 times in a row .*status -9"):
        limit.death(2, "status -9")


def full_disk_once(trial):
    mark = trial.folder.parent.parent / "seen"
    if trial.number == 0 and not mark.exists():
        mark.touch()
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")
    trial.report(0, val_accuracy=0.5)
    return 0.5


def test_a_worker_whose_disk_is_full_leaves_its_trial_open(tmp_path, caplog):
    result = run_study(full_disk_once, SPACE, folder=tmp_path, trials=2, workers=2)
    assert [t.state for t in result.trials] == ["complete", "complete"]
    assert (tmp_path / "seen").exists()
