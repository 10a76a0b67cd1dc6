"""The trainings of a search's finalists on Ray and as jobs: the same bracket as on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
NEEDS = ("ray", "submitit")


def search(folder: Path, *more: str) -> dict:
    command = [
        sys.executable, "-m", "darts_core.cli", "search", "data=digits", "data.limit=100",
        "space=nasbench201", "search.channels=2", "search.layers=1", "search.batch_size=32",
        "search.epochs=1", "search.finalists=3", "search.finalist_epochs=4", f"out={folder}", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = folder.glob("*/V001/search/result.json")
    return json.loads(result.read_text())["finalists"]


def what_was_found(facts: dict) -> list:
    return [facts["rungs"], facts["winner"], facts["epochs"], facts["bracket"]]


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    return search(tmp_path_factory.mktemp("near") / "runs")


def test_finalists_are_trained_on_ray(tmp_path, cluster, near):
    cluster.add(2)
    far = search(tmp_path / "runs", f"search.ray={{address: '{cluster.address}'}}")
    assert what_was_found(far) == what_was_found(near)
    folders = list(tmp_path.glob("runs/*/V001/search/finalists/*/seed0"))
    assert len(folders) == 3
    assert all((folder / "checkpoint.pt").is_file() for folder in folders)


def test_finalists_are_trained_by_jobs(tmp_path, near):
    far = search(tmp_path / "runs", "search.slurm={cluster: local, minutes: 10}")
    assert what_was_found(far) == what_was_found(near)
    assert list(tmp_path.glob("runs/*/V001/search/finalists/slurm/*_result.pkl"))
