"""The demo: a network within its share of a rival's time, chosen by finalists, shipped, told in words."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.runlog import read_json


@pytest.mark.full
def test_the_demo_keeps_its_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "darts_core")
    assert cli.main(["run", "experiment=demo", "job=demo"]) == 0
    version = tmp_path / "runs" / "demo" / "V001"
    search = read_json(version / "search" / "result.json")
    assert search["aim"]["met"]
    assert search["aim"]["found_ms"] <= 1.05 * search["aim"]["budget_ms"]
    # what the pool of finalists cost is counted
    told = search["finalists"]
    assert 0 < told["choosing_seconds"] < told["device_seconds"] < search["device_seconds"]
    budget = read_json(version / "search" / "budget.json")
    assert budget["budget_ms"] == pytest.approx(0.36 * budget["latency_ms"])
    bracket = search["finalists"]["bracket"]
    assert len(bracket) == 16
    assert all(row["cost"] <= 1.05 * budget["budget_ms"] for row in bracket)
    assert search["text"] == bracket[search["finalists"]["winner"]]["architecture"]
    rows = read_json(version / "bench" / "results.json")["rows"]
    by_kind = {row["kind"]: row for row in reversed(rows)}
    assert by_kind["exported"]["accuracy_mean"] >= by_kind["baseline"]["accuracy_mean"] - 0.015
    spent = {k: by_kind[k]["extra"]["device_seconds"] for k in ("exported", "baseline")}
    assert spent["baseline"] == pytest.approx(spent["exported"], rel=0.5)
    assert not (version / "prune").exists()
    assert (version / "report.html").stat().st_size > 10_000
    said = [r.getMessage() for r in caplog.records if "% test accuracy" in r.getMessage()]
    assert len(said) == 1
    assert "0.36× of its time was aimed at" in said[0] or "none is compared" in said[0]
    assert any(r.getMessage().startswith("aims at 0.36x of resnet8's") for r in caplog.records)
