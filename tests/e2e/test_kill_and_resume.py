"""A search killed with -9 goes on by the same command and ends exactly where an unkilled one ends.

The searches are over in a second or two. So that a busy machine cannot let one end before the test has
looked, a plugin makes it wait at a chosen place for as long as a file says so.
"""

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

SEARCH = ["search", "data=digits", "data.limit=640", "space=nasbench201", "search.epochs=3",
    "search.finalists=1", "search.channels=2",
          "search.layers=1", "search.batch_size=29", "search.checkpoint_every=2",
          "plugins=[waiting]"]  # fmt: skip

# `hold` holds a number and a place. The search waits there at that checkpoint of its process: `after`
# it is written, or `within`, when the file's bytes are on disk under the temporary name
WAITING = """
import os, time
from contextlib import contextmanager
from pathlib import Path
import darts_core.checkpoint as c

count, replacing = [0], c.replacing

def wait(place):
    hold = Path("hold")
    if hold.exists() and hold.read_text().split() == [str(count[0]), place]:
        Path("held").touch()
        end = time.monotonic() + 600
        while hold.exists() and time.monotonic() < end:
            time.sleep(0.005)

@contextmanager
def watched(path):
    count[0] += 1
    with replacing(path) as stream:
        yield stream
        stream.flush()
        wait("within")
    wait("after")

c.replacing = watched
"""


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "waiting.py").write_text(WAITING)
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


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.02)


def start_held(folder: Path, checkpoint: int, place: str) -> subprocess.Popen[str]:
    """A search that waits at its process's checkpoint of that number; returns once it does."""
    (folder / "held").unlink(missing_ok=True)
    (folder / "hold").write_text(f"{checkpoint} {place}")
    process = start(folder, *SEARCH)
    wait_for((folder / "held").exists, process)
    return process


def kill(process: subprocess.Popen[str], folder: Path) -> None:
    process.kill()
    process.wait()
    (folder / "hold").unlink()


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
    # in the middle of the first epoch: only a checkpoint within the epoch is there
    kill(start_held(tmp_path, 1, "after"), tmp_path)
    assert (killed / "checkpoint.pt").is_file()
    assert read_jsonl(killed / "metrics.jsonl") == []
    # while the checkpoint at the end of the second epoch is being written
    in_an_epoch = load_checkpoint(killed / "checkpoint.pt")
    assert (in_an_epoch["epoch"], in_an_epoch["step"]) == (0, 2)
    ends = 4 + 5  # the rest of the first epoch's nine steps, then the second epoch's
    kill(start_held(tmp_path, ends, "within"), tmp_path)
    assert list(killed.glob(".checkpoint.pt.*.tmp"))
    kept = load_checkpoint(killed / "checkpoint.pt")
    assert (kept["epoch"], kept["step"]) == (1, 8)
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
    process = start_held(tmp_path, 1, "after")
    if number == signal.SIGINT:  # a running version is not taken by a second process
        text = finish(start(tmp_path, *SEARCH), expected=2)
        assert f"is in use by process {process.pid}" in text
    process.send_signal(number)
    (tmp_path / "hold").unlink()
    text = finish(process, expected=130)
    assert "checkpoint is saved" in text
    assert "Go on with:  darts-core search data=digits data.limit=640 space=nasbench201" in text
    assert "Traceback" not in text
    kept = load_checkpoint(stopped / "checkpoint.pt")
    assert (kept["epoch"], kept["step"]) == (0, 3)  # the step that it was in
    if number == signal.SIGTERM:  # what both have saved is the same
        finish(start(tmp_path, *SEARCH))
        assert_equal(unkilled, stopped)
