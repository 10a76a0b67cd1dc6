"""A search killed with -9 goes on by the same command and ends exactly where an unkilled one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from darts_core.checkpoint import load_checkpoint
from darts_core.runlog import read_json, read_jsonl

SEARCH = ["search", "data=digits", "space=nasbench201", "search.epochs=3", "search.channels=2",
          "search.layers=1", "search.batch_size=64", "search.checkpoint_every=2"]  # fmt: skip


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "darts_core.cli", *argv],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], expected: int = 0) -> str:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == expected, text
    return text


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


def stage(folder: Path) -> Path:
    return folder / "runs" / "digits-nasbench201" / "V001" / "search"


def plain_rows(folder: Path) -> list[dict[str, object]]:
    """The metric rows without what depends on the clock."""
    rows = read_jsonl(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


def assert_equal(a: Path, b: Path) -> None:
    """Two finished searches: same metrics, same architecture, same tensors, bit for bit."""
    assert plain_rows(a) == plain_rows(b)
    assert [row["epoch"] for row in plain_rows(a)] == [0, 1, 2]
    assert (a / "architecture.yaml").read_bytes() == (b / "architecture.yaml").read_bytes()
    first, second = (load_checkpoint(p / "checkpoint.pt")["supernet"] for p in (a, b))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unkilled")
    finish(start(folder, *SEARCH))
    return stage(folder)


def test_a_search_killed_twice_equals_the_unkilled_one(unkilled: Path, tmp_path: Path) -> None:
    killed = stage(tmp_path)
    process = start(tmp_path, *SEARCH)
    # in the middle of the first epoch: only a checkpoint within the epoch is there
    wait_for((killed / "checkpoint.pt").is_file, process)
    process.kill()
    process.wait()
    assert len(read_jsonl(killed / "metrics.jsonl")) < 3
    process = start(tmp_path, *SEARCH)
    wait_for(lambda: len(read_jsonl(killed / "metrics.jsonl")) >= 2, process)
    process.kill()
    process.wait()
    assert not (killed / "result.json").exists()
    text = finish(start(tmp_path, *SEARCH))
    assert "resuming" in text
    assert "resumed from" in text
    assert_equal(unkilled, killed)
    assert read_json(killed / "result.json")["text"] == read_json(unkilled / "result.json")["text"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_prints_the_command_that_resumes(
    number: signal.Signals, unkilled: Path, tmp_path: Path
) -> None:
    stopped = stage(tmp_path)
    process = start(tmp_path, *SEARCH)
    wait_for((stopped / "checkpoint.pt").is_file, process)
    process.send_signal(number)
    text = finish(process, expected=130)
    assert "checkpoint is saved" in text
    assert "Go on with:  darts-core search data=digits space=nasbench201" in text
    assert "Traceback" not in text
    finish(start(tmp_path, *SEARCH))
    assert_equal(unkilled, stopped)


def test_a_running_version_is_not_taken_by_a_second_process(tmp_path: Path) -> None:
    first = start(tmp_path, *SEARCH)
    wait_for((stage(tmp_path).parent / "version.json").is_file, first)
    try:
        text = finish(start(tmp_path, *SEARCH), expected=2)
        assert "is in use by process" in text
    finally:
        first.kill()
        first.wait()
