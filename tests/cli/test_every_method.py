"""Every strategy and relaxation through the command line: killed, resumed, equal to a run that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darts_core.checkpoint import load_checkpoint
from darts_core.runlog import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[2]
TINY = ["space=nasbench201", "data=digits", "+data.limit=160", "device=cpu", "search.epochs=2",
    "search.finalists=1",
        "search.channels=4", "search.layers=1", "search.batch_size=16",
        "search.checkpoint_every=2", "search.alpha_learning_rate=0.05"]  # fmt: skip
SMALLER = {
    "p_darts": ["strategy.stages=[{skip_dropout:0.0},{operations:3,skip_dropout:0.4}]"],
    "drnas_progressive": ["strategy.stages=[{channel_fraction:2},{operations:3,channel_fraction:1}]"],
    "rsps": ["strategy.samples=4", "strategy.batches=1", "strategy.finalists=2"],
    "random_search": ["strategy.candidates=2"],
    "regularized_evolution": ["strategy.candidates=2", "strategy.population=1"],
    # alone it ends after its first step, and there is nothing to kill
    "zero_cost": ["strategy.samples=4", "strategy.warm_start=1.0"],
}  # fmt: skip
METHODS = [
    f"{key}={path.stem}"
    for key, group in (("strategy", "strategy"), ("relax", "relax"))
    for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
]
# the process kills itself right after its second checkpoint, which lies inside the first epoch
DYING = """
import os, signal
from darts_core.search.state import SearchState

save, count = SearchState.save, [0]


def dying(self, path):
    save(self, path)
    count[0] += 1
    if count[0] == 2 and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


if os.path.exists("dies"):
    SearchState.save = dying
"""


def search(folder: Path, method: str) -> tuple[int, str]:
    folder.mkdir(exist_ok=True)
    (folder / "dying.py").write_text(DYING)
    argv = [method, *TINY, *SMALLER.get(method.partition("=")[2], []), "plugins=[dying]", "job=one"]
    done = subprocess.run(
        [sys.executable, "-m", "darts_core.cli", "search", *argv],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def rows(folder: Path) -> list[dict[str, object]]:
    found = read_jsonl(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in found]


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_it_runs_resumes_after_a_kill_and_repeats_itself(method: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    status, text = search(whole, method)
    assert status == 0, text
    killed.mkdir()
    (killed / "dies").touch()
    status, text = search(killed, method)
    assert status == -signal.SIGKILL, text
    status, text = search(killed, method)
    assert status == 0, text
    assert "resumed from" in text
    first, second = (folder / "runs" / "one" / "V001" / "search" for folder in (whole, killed))
    assert [row["epoch"] for row in rows(first)] == [0, 1]
    assert rows(first) == rows(second)
    assert read_json(first / "result.json")["text"] == read_json(second / "result.json")["text"]
    states = [load_checkpoint(folder / "checkpoint.pt")["supernet"] for folder in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_methods_of_the_configuration_are_all_there() -> None:
    assert {"strategy=first_order", "strategy=unrolled", "relax=gumbel"} <= set(METHODS)
    assert len(METHODS) == 23
