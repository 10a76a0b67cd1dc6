"""The worked example's `run_all.py` through its command line: a search, its table, its results file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from darts_core.bench.results import read_results

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "resnet50_mnist" / "run_all.py"
# more steps an epoch than the warm-up of the alphas, or the search says that they never moved
SIZES = ["--data", "digits", "--images", "576", "--epochs", "1", "--width", "4", "--batch", "16"]


def run_all(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", "runs", "--seeds", "1", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.full
def test_a_search_ends_in_a_table_and_is_not_repeated(tmp_path: Path) -> None:
    assert "has finished yet" in run_all(tmp_path, *SIZES, "--only-table").stderr
    done = run_all(tmp_path, *SIZES, "--only", "differentiable")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differentiable: front" in done.stdout
    trials = sorted((tmp_path / "runs/differentiable/V001/autosearch/trials").iterdir())

    again = run_all(tmp_path, *SIZES, "--only", "differentiable", "--out", "results")
    assert again.returncode == 0, again.stdout + again.stderr
    assert sorted((tmp_path / "runs/differentiable/V001/autosearch/trials").iterdir()) == trials
    table = (tmp_path / "runs/table.txt").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[1:]] == ["ResNet-50", "differentiable"]
    (path,) = (tmp_path / "results").iterdir()
    results = read_results(path)
    baseline, found = results.models()
    assert (baseline.kind, found.kind, found.n) == ("baseline", "searched", 1)
    assert found.latency[32].runtime == "onnx"
    cost = found.extra["cost_in_trainings"]
    assert cost["clock_with_trial_0"] == pytest.approx(cost["clock_search_alone"] + 1)
    shown = json.loads((tmp_path / "runs/export/differentiable/best.json").read_text())
    assert found.extra["config"] == shown["best"]["config"]

    other = run_all(tmp_path, *SIZES, "--images", "64", "--only", "differentiable")
    assert other.returncode == 1
    assert "was made with images=576, not 64" in other.stderr
