"""Studies and multiruns on a Ray cluster of several nodes: nodes killed and added, the driver killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from figures import facts, study_row
from ray_objectives import training

from darts_core.study import run_study

pytestmark = pytest.mark.cluster
NEEDS = ("ray",)
SPACE = {"x": {"low": 0.0, "high": 1.0}}


def study(folder, address, **options):
    settings = {"trials": 6, "workers": 2, "sampler": "random", "pruner": "none", "seed": 5}
    settings |= {"ray": {"address": address}, "epochs_per_trial": 3}
    return run_study(training, SPACE, folder=folder, **{**settings, **options})


def epochs_of(result):
    return [
        [epoch for epoch, _ in json.loads((r.folder / "state.json").read_text())]
        for r in result.trials
    ]


DRIVER = """
import logging, sys
logging.basicConfig(level=logging.INFO)
sys.path.insert(0, {here!r})
from test_ray import study
study(Path({folder!r}), {address!r})
"""


@contextlib.contextmanager
def driver(folder, address):
    """The study in a process of its own, from its first report on; killed at the end of the block."""
    here = os.path.dirname(__file__)
    code = "from pathlib import Path" + DRIVER.format(
        here=here, folder=str(folder), address=address
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        while not (folder / "trials" / "0000" / "metrics.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_lost_node_is_a_lost_worker_and_a_new_one_takes_its_trials(tmp_path, cluster, figures):
    """Two workers ask for places on a cluster with one: the second waits, and claims nothing meanwhile."""
    node, folder = cluster.add(), tmp_path / "far"
    with driver(folder, cluster.address) as process:
        cluster.remove_node(node, allow_graceful=False)
        cluster.add()
        assert process.wait() == 0
    far = study(folder, None)  # it has ended: this only reads it
    near = study(tmp_path / "near", None, ray=None, workers=1)
    assert facts(far) == facts(near)
    assert epochs_of(far) == [[0, 1, 2]] * 6
    results = [json.loads((r.folder / "result.json").read_text()) for r in far.trials]
    assert [result["attempts"] for result in results] == [2, 1, 1, 1, 1, 1]
    # trial 0 ran below two workers of Ray
    assert (
        len({worker for _, worker in json.loads((folder / "trials/0000/state.json").read_text())})
        == 2
    )
    figures(
        study_row("a node is killed, another one added", "Ray, several nodes", far, epochs_of(far))
    )


def test_a_killed_driver_goes_on_where_it_was(tmp_path, cluster, figures):
    cluster.add()
    with driver(tmp_path, cluster.address):
        pass
    result = study(tmp_path, cluster.address)
    assert [r.state for r in result.trials] == ["complete"] * 6
    assert epochs_of(result) == [[0, 1, 2]] * 6
    assert result.spent["epochs"] == 18
    figures(
        study_row(
            "the driver is killed, and started again",
            "Ray, several nodes",
            result,
            epochs_of(result),
        )
    )


def test_elements_of_a_multirun_are_tasks(tmp_path, cluster):
    cluster.add()
    command = [
        sys.executable, "-m", "darts_core.cli", "search", "-m", "hydra/launcher=ray",
        f"hydra.launcher.address={cluster.address}", "data=digits", "data.limit=100", "space=nasbench201",
        "search.channels=2", "search.layers=1", "search.batch_size=32", "search.epochs=1",
        "search.finalists=1", "seed=0,1", f"out={tmp_path}/runs",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = sorted(tmp_path.glob("runs/*/V001/*/search/result.json"))
    assert [path.parts[-3] for path in results] == ["0", "1"]
    assert not list(tmp_path.rglob(".seen-*"))


def test_a_sweep_of_the_tune_command_stops_early_on_a_cluster(tmp_path, cluster):
    cluster.add()
    command = [
        sys.executable, "-m", "darts_core.cli", "tune", "-m", "hydra/sweeper=darts", "hydra/launcher=ray",
        f"hydra.launcher.address={cluster.address}", "hydra/sweeper/pruner=asha", "architecture=DARTS_V2",
        "data=digits", "data.limit=200", "train.epochs=3", "train.layers=2", "train.batch_size=32",
        "train.channels=4,6", "train.learning_rate=tag(log,interval(0.01,0.3))", "tune.trials=4",
        "hydra.sweeper.objectives={val_accuracy: maximize, params: minimize}",
        "hydra.sweeper.defaults_first=false", f"out={tmp_path}/runs",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "on Ray, 2 nodes" in done.stdout + done.stderr
    (result,) = tmp_path.glob("runs/*/V001/tune/result.json")
    trials = json.loads(result.read_text())["trials"]
    assert {t["state"] for t in trials} == {"complete", "pruned"}
    assert all(
        result.parent.joinpath(f"trials/{t['number']:04d}/checkpoint.pt").is_file() for t in trials
    )
