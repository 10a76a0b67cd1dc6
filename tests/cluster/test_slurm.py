"""Studies whose workers are jobs: submitit's own processes, and a Slurm of one node where it is installed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from figures import facts, study_row

from benchmarks.slurm_node import slurm_node, why_not
from darts_core.study import run_study

pytestmark = pytest.mark.cluster
NEEDS = ("submitit",)
SPACE = {"x": {"low": 0.0, "high": 1.0}}


@pytest.fixture(autouse=True)
def _findable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def study(folder, **options):
    from job_objectives import training

    settings = {"trials": 6, "workers": 2, "sampler": "random", "pruner": "none", "seed": 5}
    settings |= {"slurm": {"cluster": "local", "minutes": 10}, "epochs_per_trial": 3}
    return run_study(training, SPACE, folder=folder, **{**settings, **options})


class During(threading.Thread):
    """Waits for the second epoch of trial 0, does something to its job, and lets the trial go on."""

    def __init__(self, folder, act):
        super().__init__()
        self.trial, self.act = folder / "trials" / "0000", act
        self.start()

    def run(self):
        while not (self.trial / "waits").is_file():
            time.sleep(0.05)
        self.act(json.loads((self.trial / "lease.json").read_text()))
        (self.trial / "go").touch()


def epochs_of(result):
    return [
        [e for e, *_ in json.loads((r.folder / "state.json").read_text())] for r in result.trials
    ]


def test_a_job_that_is_told_to_leave_saves_is_queued_again_and_goes_on(tmp_path, figures):
    far = tmp_path / "far"
    During(far, lambda lease: os.kill(lease["pid"], signal.SIGUSR2))
    result = study(far)
    (tmp_path / "near/trials/0000").mkdir(parents=True)
    (tmp_path / "near/trials/0000/go").touch()
    assert facts(result) == facts(study(tmp_path / "near", slurm=None, workers=1))
    assert epochs_of(result) == [[0, 1, 2]] * 6
    # the signal came during epoch 1: that one was finished, saved and reported by the first job
    ran = json.loads((far / "trials/0000/state.json").read_text())
    assert ran[0][1] == ran[1][1] != ran[2][1]
    attempts = [
        json.loads((r.folder / "result.json").read_text())["attempts"] for r in result.trials
    ]
    assert attempts == [2, 1, 1, 1, 1, 1]
    log = "".join(path.read_text() for path in far.glob("slurm/*_log.*"))
    assert "SIGUSR2: this job leaves when what runs is saved" in log
    assert "Requeued job" in log
    figures(study_row("a job is told to leave", "submitit's processes", result, epochs_of(result)))


def test_a_killed_job_is_replaced_and_its_trial_goes_on(tmp_path, caplog, figures):
    def kill(lease):
        os.kill(lease["pid"], signal.SIGKILL)

    During(tmp_path, kill)
    result = study(tmp_path)
    assert [r.state for r in result.trials] == ["complete"] * 6
    assert epochs_of(result) == [[0, 1, 2]] * 6
    assert "a job ended before its time" in caplog.text
    figures(study_row("a job is killed", "submitit's processes", result, epochs_of(result)))


@pytest.fixture(scope="module")
def slurm():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with slurm_node() as conf:
        yield conf


def test_an_array_of_slurm_is_preempted_and_queued_again(tmp_path, slurm, figures):
    """A real sbatch: two workers; the one with trial 0 is warned, and goes on after Slurm queued it again."""

    def warn(lease):
        job = next(n for n in _jobs() if _runs(n, lease["pid"]))
        subprocess.run(["scancel", "--signal=USR2", job], check=True)

    During(tmp_path, warn)
    result = study(tmp_path, slurm={"minutes": 10})
    assert [r.state for r in result.trials] == ["complete"] * 6
    assert epochs_of(result) == [[0, 1, 2]] * 6
    ran = json.loads((tmp_path / "trials/0000/state.json").read_text())
    assert all(number for *_, number in ran)
    assert ran[0][1] == ran[1][1] != ran[2][1]
    assert json.loads((tmp_path / "trials/0000/result.json").read_text())["attempts"] == 2
    log = "".join(path.read_text() for path in tmp_path.glob("slurm/*_log.*"))
    assert "Requeued job" in log
    # nothing is left in the queue
    assert not _jobs()
    figures(study_row("a job is told to leave", "Slurm, one node", result, epochs_of(result)))


def test_jobs_of_a_killed_command_are_found_again(tmp_path, slurm, caplog, figures):
    code = (
        "import sys; from pathlib import Path; from test_slurm import study; "
        "study(Path(sys.argv[1]), slurm={})"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    while not (tmp_path / "trials/0000/waits").is_file():
        assert driver.poll() is None
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    During(tmp_path, lambda lease: None)
    caplog.set_level("INFO")
    result = study(tmp_path, slurm={})
    assert "of an earlier command work on" in caplog.text
    assert epochs_of(result) == [[0, 1, 2]] * 6
    attempts = [
        json.loads((r.folder / "result.json").read_text())["attempts"] for r in result.trials
    ]
    assert attempts == [1] * 6
    figures(
        study_row(
            "the command is killed, and started again", "Slurm, one node", result, epochs_of(result)
        )
    )


def _jobs():
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _runs(job, pid):
    """Whether a job holds the process: its own processes carry its number."""
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    known = dict(line.partition("=")[::2] for line in environment)
    return f"{known['SLURM_ARRAY_JOB_ID']}_{known['SLURM_ARRAY_TASK_ID']}" == job


@pytest.mark.parametrize("where", ["local", "slurm"])
def test_commands_on_a_queue(tmp_path, where, request):
    """A sweep of `tune`, and the elements of a multirun; trained for real."""
    if where == "slurm":
        request.getfixturevalue("slurm")
    common = [
        "data=digits", "data.limit=100", "architecture=DARTS_V2", "train.layers=2", "train.channels=2",
        "train.batch_size=32", "train.epochs=1", "hydra/launcher=slurm", f"hydra.launcher.cluster={where}",
        "hydra.launcher.minutes=10", f"out={tmp_path}/runs",
    ]  # fmt: skip
    swept = [
        "tune",
        "-m",
        "hydra/sweeper=darts",
        "train.weight_decay=interval(0,0.01)",
        "tune.trials=3",
    ]
    for command in (swept, ["train", "-m", "seed=0,1"]):
        done = subprocess.run(
            [sys.executable, "-m", "darts_core.cli", *command, *common],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("runs/*/V001/tune/result.json")
    assert [t["state"] for t in json.loads(result.read_text())["trials"]] == ["complete"] * 3
    results = sorted(tmp_path.glob("runs/*/V*/*/train/result.json"))
    assert [path.parts[-3] for path in results] == ["0", "1"]
    assert list(result.parent.glob("slurm/*_log.out"))


def test_an_element_that_is_told_to_leave_goes_on_from_its_checkpoint(tmp_path):
    command = [
        sys.executable, "-m", "darts_core.cli", "train", "-m", "hydra/launcher=slurm", "seed=0,1",
        "hydra.launcher.cluster=local", "data=digits", "data.limit=100", "architecture=DARTS_V2",
        "train.layers=2", "train.channels=2", "train.batch_size=32", "train.epochs=12",
        f"out={tmp_path}/runs",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("runs/*/V001/0/train/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    for pid in _submitted(tmp_path):
        os.kill(pid, signal.SIGUSR2)
    _, said = process.communicate()
    assert process.returncode == 0, said
    logs = "".join(path.read_text() for path in tmp_path.glob("runs/*/V001/slurm/*_log.*"))
    assert "Requeued job" in logs
    for seed in (0, 1):
        (rows,) = tmp_path.glob(f"runs/*/V001/{seed}/train/metrics.jsonl")
        epochs = [json.loads(line)["epoch"] for line in rows.read_text().splitlines()]
        assert epochs == list(range(12))
        assert (rows.parent / "result.json").is_file()


def _submitted(folder):
    """The processes that run the elements below `folder`."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().decode(errors="replace")
            if "submitit.core._submit" in line and str(folder) in line:
                yield int(path.parent.name)
