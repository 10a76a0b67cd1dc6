"""A search of a user's script on Ray and as jobs: the trials, models and confirming runs of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest

from darts_core.study.results import read_rows

pytestmark = pytest.mark.cluster
NEEDS = ("ray", "submitit")
SCRIPT = """
import os, time
from pathlib import Path
from darts_core import autosearch
def train():
    state = Path(autosearch.checkpoint_dir) / "done"
    done = int(state.read_text()) if state.exists() else 0
    Path("node").write_text(str(Path.cwd()) + os.environ.get("SUBMITIT_EXECUTOR", ""))
    for step in range(done, 3):
        if step == 1 and Path({hold!r}).exists():
            Path({hold!r} + "-waits").write_text(str(os.getpid()))
            while Path({hold!r}).exists():
                time.sleep(0.05)
        state.write_text(str(step + 1))
        autosearch.reporter(accuracy=autosearch.config["x"] + step, training_iteration=step + 1)
    Path("model.txt").write_text(str(autosearch.config["x"]))
    autosearch.report(autosearch.config["x"], model_path="model.txt")
"""
JOB = """
general: {confirm_seeds: 1}
search_space:
  - params: [{type: discrete_param, name: x, values: [0.1, 0.2, 0.3, 0.4], default: 0.1}]
search_algorithm: {type: grid_search, reward_attr: accuracy, mode: max, max_concurrent: 2}
max_iterations: 4
"""


def search(folder, *more):
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    (code / "train_me.py").write_text(SCRIPT.replace("{hold!r}", repr(str(folder / "hold"))))
    (folder / "job.yaml").write_text(JOB)
    command = [
        sys.executable, "-m", "darts_core.cli", "jobs", "--root", str(folder / "runs"), "create",
        "--name", "mine", "--code", str(code), "--boot-file", "train_me.py", "--wait",
        "--config", str(folder / "job.yaml"), *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def found(process, folder):
    said, _ = process.communicate()
    assert process.returncode == 0, said
    rows = read_rows(folder / "runs/mine/V001")
    assert len(rows) >= 4, said
    shown = [
        (r["phase"], r["number"], r["config"], r["state"], r["values"]["accuracy"]) for r in rows
    ]
    trials = folder / "runs/mine/V001/autosearch/trials"
    for row in rows:
        model = trials / row["trial_id"] / "output" / row["model_path"]
        assert model.read_text() == str(row["config"]["x"])
    nodes = {(trials / row["trial_id"] / "output/node").read_text() for row in rows}
    return sorted(shown, key=str), nodes


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    folder = tmp_path_factory.mktemp("near")
    return found(search(folder), folder)[0]


def test_a_job_on_ray_outlives_a_node(tmp_path, cluster, near):
    node = cluster.add(1)
    (tmp_path / "hold").touch()
    process = search(tmp_path, "--ray", f"{{address: '{cluster.address}'}}")
    while not (tmp_path / "hold-waits").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    pid = int((tmp_path / "hold-waits").read_text())
    cluster.remove_node(node, allow_graceful=False)
    # a script that is let go of before it is killed would go on, and write what nobody hears of
    for _ in range(600):
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.1)
    (tmp_path / "hold").unlink()
    cluster.add(2)
    rows, nodes = found(process, tmp_path)
    assert rows == near
    # none ran in the job's own folder
    assert not any(node.startswith(str(tmp_path)) for node in nodes)
    # what the lost node ran ended with it
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        raise AssertionError("the lost node's trial lives on")
    results = (tmp_path / "runs/mine/V001/autosearch/trials").glob("*/result.json")
    attempts = [r["ledger"]["attempts"] for r in map(_read, results) if "ledger" in r]
    assert sorted(attempts) == [1, 1, 1, 2]


def _read(path):
    return json.loads(path.read_text())


def test_a_job_as_jobs_of_slurm(tmp_path, near):
    process = search(tmp_path, "--slurm", "{cluster: local, minutes: 10}")
    rows, nodes = found(process, tmp_path)
    assert rows == near
    assert all(node.endswith("output" + "local") for node in nodes)
