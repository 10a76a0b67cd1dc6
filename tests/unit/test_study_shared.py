"""One database for several jobs, passwords in its URL, what a trial costs, and trial 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from darts_core.credentials import PASSWORD_VARIABLE, keep_password, masked, with_password
from darts_core.errors import TuneError
from darts_core.study import launch, resources, run_study
from darts_core.study.budget import Budget
from darts_core.study.ledger import Ledger
from darts_core.study.resources import device_share
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study

SPACE = {"x": {"low": 0.0, "high": 1.0}}


def quality(trial):
    for epoch in range(4):
        trial.report(epoch, val_accuracy=trial.params["x"])
    return trial.params["x"]


def shared(tmp_path, job, space=SPACE):
    budget = Budget(trials=3)
    url = f"sqlite:///{tmp_path}/one.db"
    return StudySpec.make(
        space, budget, folder=tmp_path / job, storage=url, study_name="s", sampler="random"
    )


def test_a_second_job_on_the_same_study_takes_other_trials_and_those_of_a_dead_one(tmp_path):
    first, second = Ledger(shared(tmp_path, "a")), Ledger(shared(tmp_path, "b"))
    mine, theirs = first.claim(), second.claim()
    assert (mine.number, theirs.number) == (0, 1)
    third = second.claim()
    assert third.number == 2
    assert first.claim() is None
    # the first job's worker is gone: its trial goes on elsewhere, under its number, once
    mine.release()
    taken = second.claim()
    assert (taken.number, taken.resumed) == (0, True)
    assert first.claim() is None
    for claim in (theirs, third, taken):
        second.complete(claim, 0.5)
    assert [t.state.name for t in first.trials()] == ["COMPLETE"] * 3
    with pytest.raises(TuneError, match="another space"):
        Ledger(shared(tmp_path, "c", {"y": {"low": 0.0, "high": 1.0}}))


def test_a_result_whose_telling_was_cut_off_is_told_by_the_other_job(tmp_path):
    first, second = Ledger(shared(tmp_path, "a")), Ledger(shared(tmp_path, "b"))
    claim = first.claim()
    first._tell = lambda *a: None  # killed between the file and the database
    first._settle(
        0, claim.lease, "complete", "finished", metrics={"val_accuracy": 0.25}, values=[0.25]
    )
    claim.lease.start = None
    second.leases.write(0, claim.lease)
    assert second.claim().number == 1
    assert second.trials()[0].values == [0.25]


def test_a_password_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    url = "postgresql+psycopg://me:se:cret@127.0.0.1:1/db?connect_timeout=1"
    assert masked(url) == "postgresql+psycopg://me:***@127.0.0.1:1/db?connect_timeout=1"
    assert masked("postgresql://h/db?user=me&password=s3&x=1").endswith("&password=***&x=1")
    assert masked("sqlite:///a@b.db") == "sqlite:///a@b.db"
    with pytest.raises(TuneError, match=PASSWORD_VARIABLE):
        with_password(masked(url))
    monkeypatch.setenv(PASSWORD_VARIABLE, "")
    assert keep_password(url) == masked(url)
    assert with_password(masked(url)) == url
    monkeypatch.delenv(PASSWORD_VARIABLE)
    (tmp_path / "word").write_text("se:cret\n")
    monkeypatch.setenv(f"{PASSWORD_VARIABLE}_FILE", str(tmp_path / "word"))
    assert with_password(masked(url)).startswith("postgresql+psycopg://me:se%3Acret@")
    with pytest.raises(TuneError) as caught:
        run_study(quality, SPACE, folder=tmp_path / "s", trials=1, storage=url)
    assert "cret" not in str(caught.value)
    _nobody_says(tmp_path / "s", "cret")


def _nobody_says(folder, word):
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in files if word.encode() in p.read_bytes()]


def test_the_command_writes_and_prints_no_password(tmp_path):
    url = "postgresql+psycopg://me:se-cret@127.0.0.1:1/db?connect_timeout=1"
    more = ["data=synthetic", "tune.trials=1", "train.epochs=1", "tune.training_seconds=1"]
    main = "from darts_core.cli import main; raise SystemExit(main())"
    base = [
        sys.executable,
        "-c",
        main,
        "tune",
        f"out={tmp_path}/runs",
        "architecture=resnet8",
        *more,
    ]
    done = subprocess.run(
        [*base, f"tune.options.storage={url}"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "se-cret" not in done.stdout + done.stderr
    _nobody_says(tmp_path, "se-cret")
    # from a file it would be written anew: refused
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/db.yaml").write_text(
        f"# @package _global_\ntune: {{options: {{storage: '{url}'}}}}\n"
    )
    done = subprocess.run(
        [*base, "experiment=db", "--config-dir", "mine"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert PASSWORD_VARIABLE in done.stderr
    assert "se-cret" not in done.stdout + done.stderr
    assert not list((tmp_path / "runs").rglob("V*"))


def test_the_baseline_is_trial_0_is_never_stopped_and_the_gain_is_against_it(tmp_path):
    result = run_study(
        quality, SPACE, folder=tmp_path, trials=12, baseline={"x": 0.01}, sampler="random",
        epochs_per_trial=4, epochs=30,
    )  # fmt: skip
    own = result.trials[0]
    assert (own.is_baseline, own.state, own.params, own.epochs) == (
        True,
        "complete",
        {"x": 0.01},
        4,
    )
    # the first epochs of all and the rest of its own take more than the share: the best one ends all the same
    best = max(result.trials, key=lambda r: r.params["x"])
    assert (result.best_number, best.epochs, best.state) == (best.number, 4, "complete")
    assert result.gain == pytest.approx(best.params["x"] - 0.01)
    assert replace(result, objectives={"val_accuracy": "minimize"}).gain == -result.gain < -0.5
    assert result.to_dict()["baseline_value"] == 0.01
    assert not any(r.is_baseline for r in result.trials[1:])
    # the worst of all by far: any other would have been paused at its first rung
    assert all(r.epochs < 4 for r in result.trials if r.params["x"] < 0.2 and r.number)


def test_a_baseline_outside_the_space_is_run_and_teaches_the_sampler_nothing(tmp_path):
    result = run_study(
        quality, SPACE, folder=tmp_path, trials=8, baseline={"x": 7.0}, sampler="gp", pruner="none"
    )
    assert result.trials[0].params == {"x": 7.0}
    assert all(0 <= r.params["x"] <= 1 for r in result.trials[1:])
    spec = StudySpec.make(SPACE, Budget(trials=8), folder=tmp_path, sampler="gp", pruner="none")
    seen = open_study(spec).study.get_trials(deepcopy=False)
    assert seen[0].state.name == "FAIL"
    assert json.loads((tmp_path / "trials/0000/result.json").read_text())["values"] == [7.0]


def test_a_worker_that_dies_is_not_its_trials_failure(tmp_path):
    """Whatever killed the worker: the study, the host, an operator. Only the trial's own death counts."""
    spec = StudySpec.make(SPACE, Budget(trials=1), folder=tmp_path, pruner="none", max_restarts=0)
    ledger = Ledger(spec)
    claim = ledger.claim()
    for _ in range(6):
        claim.lease.start = "1"  # as of a process that is gone
        ledger.leases.write(0, claim.lease)
        claim = ledger.claim()
        assert (claim.number, claim.lease.idle) == (0, 0)
    claim.restart()  # the trial's own process died
    assert claim.lease.idle == 1


def test_more_workers_than_devices_share_the_devices_seconds(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_share(2, 2) == 1.0
    with caplog.at_level("WARNING", logger="darts_core"):
        assert device_share(8, 2) == 0.25
    assert "8 workers share 2 device slots" in caplog.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(resources, "usable_processors", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shares = [device_share(4, device=name) for name in ("auto", "cuda", "cuda:1", "cpu")]
    assert shares == [0.5, 0.5, 0.25, 1.0]
    spec = StudySpec.make(SPACE, Budget(trials=1), folder=tmp_path, device_share=0.25)
    claim = Ledger(spec).claim()
    claim.since -= 8.0
    assert claim.seconds() == pytest.approx(2.0, abs=0.5)


def test_a_lease_is_written_by_who_has_a_connection_already(tmp_path):
    """Else a report with a connection and a beat that waits for one wait for each other."""
    spec = StudySpec.make(SPACE, Budget(trials=1), folder=tmp_path, pruner="none")
    claim, writing = Ledger(spec).claim(), []

    def together(step):
        writing.append(claim._writing.locked())
        step()

    claim.together = together
    claim.renew(1)
    claim.restart()
    claim.release()
    assert writing == [False] * 3


def test_who_has_nothing_else_to_do_waits_for_other_hosts_and_takes_over_what_they_left(
    tmp_path, caplog, monkeypatch
):
    """Each worker that is started anew would wait anew, and for ever."""
    monkeypatch.setattr(launch, "_WAIT_SECONDS", 0.01)
    caplog.set_level("INFO")
    first = Ledger(shared(tmp_path, "a"))
    claim = first.claim()
    claim.lease.host = "a host that was switched off"
    first.leases.write(0, claim.lease)
    found = run_study(
        quality, SPACE, folder=tmp_path / "b", trials=1, storage=f"sqlite:///{tmp_path}/one.db",
        study_name="s", sampler="random", stale_seconds=0.5,
    )  # fmt: skip
    assert [r.state for r in found.trials] == ["complete"]
    assert json.loads((found.trials[0].folder / "result.json").read_text())["attempts"] == 2
    assert "nothing is left but trials that run elsewhere (0)" in caplog.text
    assert "trial 0 was interrupted" in caplog.text


def test_a_trial_that_another_host_let_go_of_is_free_at_once(tmp_path):
    first, second = Ledger(shared(tmp_path, "a")), Ledger(shared(tmp_path, "b"))
    claim = first.claim()
    claim.lease.host = "another host"
    first.leases.write(0, claim.lease)
    assert second.claim().number == 1
    claim.release()
    assert second.claim().number == 0
