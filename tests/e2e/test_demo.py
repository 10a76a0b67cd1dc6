"""The demo over three seeds: as accurate as the hand-designed network, and faster after pruning."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.runlog import read_json


@pytest.mark.full
def test_the_demo_keeps_its_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours, baseline, speedups = [], [], []
    for seed in range(3):
        assert cli.main(["run", "experiment=demo", f"seed={seed}", f"job=demo{seed}"]) == 0
        version = tmp_path / "runs" / f"demo{seed}" / "V001"
        rows = read_json(version / "bench" / "results.json")["rows"]
        by_kind = {row["kind"]: row for row in reversed(rows)}
        ours.append(by_kind["tuned"]["accuracy_mean"])
        baseline.append(by_kind["baseline"]["accuracy_mean"])
        speedups.append(read_json(version / "prune" / "result.json")["speedup"])
        assert (version / "report.html").stat().st_size > 10_000
    assert statistics.mean(ours) >= statistics.mean(baseline) - 0.007
    assert statistics.median(speedups) > 1.1
