"""A search under a latency budget: what is returned was measured, or the command ends with the fastest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.runlog import read_json, read_jsonl
from darts_core.stages import cost

TINY = [
    "search", "data=digits", "data.limit=200", "space=nasbench201", "search.epochs=2", "search.finalists=1",
    "search.channels=2", "search.layers=1", "search.batch_size=32", "latency.runtime=eager",
    "latency.batch=1", "latency.wait_seconds=0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def whatever_else_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("measure", "rows"):
        # by module: the package has a function of the same name
        monkeypatch.setattr(sys.modules[f"darts_core.latency.{module}"], "FOREIGN_CORES", 1e9)


def test_the_measured_time_the_expectation_and_the_multiplier_are_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*TINY, "latency.budget_ms=1000", "job=wide"]) == 0
    folder = tmp_path / "runs" / "wide" / "V001" / "search"
    found = read_json(folder / "result.json")["cost"]
    assert 0 < found["measured"] <= 1000
    assert found["pick"] == read_json(folder / "result.json")["text"]
    assert [step["architecture"] for step in found["steps"]] == [found["pick"]]
    rows = read_jsonl(folder / "metrics.jsonl")
    assert [row["cost/multiplier"] for row in rows] == [0.0, 0.0], "the budget is never broken"
    assert all(row["cost/expected_ms"] > 0 for row in rows)


def test_the_command_ends_with_the_fastest_that_it_could_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [*TINY, "latency.budget_ms=0.001", "job=narrow"]
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert (
        "The budget of 0.001 ms is below the fastest network of this space and size, which takes"
        in (said)
    )
    assert list(tmp_path.glob("runs/narrow/V*")) == [], "refused before anything was searched"
    # and if it had seemed within reach
    monkeypatch.setattr(cost, "_require_reachable", lambda *a: None)
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert "search epoch 2/2" in said
    assert "the fastest that could be found takes" in said
    assert not (tmp_path / "runs" / "narrow" / "V001" / "search" / "result.json").exists()
