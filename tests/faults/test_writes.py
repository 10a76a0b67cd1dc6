"""A write, a flush to disk or a rename that fails, or a kill there: the same command ends as undisturbed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import NAMES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names open files by /proc")


def tried(place: Path, command: str, every: int, limit: float) -> str:
    """What the run of the faults prints; it must have found nothing."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("try_writes.py"), place, command, "--every", str(every)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DARTS_DEBUG": "0", "COVERAGE": ""},
        capture_output=True, text=True, timeout=limit,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_some_faults_at_writes_of_a_search(tmp_path):
    assert " right" in tried(tmp_path, "search", 93, 300)


def test_some_faults_at_writes_of_a_training(tmp_path):
    assert " right" in tried(tmp_path, "train", 75, 300)


@pytest.mark.full
@pytest.mark.parametrize("command", NAMES)
def test_every_fault_at_every_write(tmp_path, command):
    """The first, a middle and the last hit of each site; of what takes longer, every so many of them."""
    tried(tmp_path, command, {"job": 4, "tune": 4, "export": 4, "run": 40}.get(command, 1), 3000)
