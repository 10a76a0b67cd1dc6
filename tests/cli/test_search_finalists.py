"""Finalists through the command: the bracket in result.json, a budget, one finalist, a resumed pool."""

from pathlib import Path

import numpy as np
import pytest
import torch

from darts_core import cli
from darts_core.architecture import Architecture
from darts_core.checkpoint import load_checkpoint
from darts_core.runlog import read_json
from darts_core.search.finalists import PICK
from darts_core.spaces.toy import planted_images

SEARCH = [
    "search", "data=digits", "data.limit=200", "space=convnet", "search.epochs=2", "search.channels=2",
    "search.batch_size=64", "search.finalist_epochs=2", "latency.cost=macs", "latency.budget=0.03",
]  # fmt: skip


def run(folder: Path, *words: str) -> Path:
    assert cli.main([*SEARCH, *words, f"out={folder}", "job=a"]) == 0
    return folder / "a" / "V001" / "search"


def test_the_finalists_decide_within_the_budget_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run(tmp_path / "many", "search.finalists=4")
    result = read_json(folder / "result.json")
    told = result["finalists"]
    assert told["rungs"] == [1, 2]
    assert len(told["bracket"]) == 4
    assert all(row["cost"] <= 1.05 * 0.03 for row in told["bracket"])
    best = told["bracket"][told["winner"]]
    assert best["architecture"] == result["text"]
    # the cost told is of the network that is returned, not of the alphas' pick
    assert result["text"] != result["cost"]["pick"]
    assert result["cost"]["measured"] == result["cost"]["found"] == best["cost"]
    assert Architecture.from_yaml(folder / "architecture.yaml").text() == result["text"]
    assert told["device_seconds"] < result["device_seconds"]
    pool = read_json(folder / "finalists" / "pool.json")["finalists"]
    assert [row["source"] for row in pool] == [row["source"] for row in told["bracket"]]


def test_one_finalist_is_the_pick_of_the_alphas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run(tmp_path / "one", "search.finalists=1")
    result = read_json(folder / "result.json")
    assert "finalists" not in result
    assert not (folder / "finalists").exists()
    # bit for bit the search that finalists come after, and what it alone would have returned
    many = run(tmp_path / "many", "search.finalists=2")
    alone, before = (load_checkpoint(f / "checkpoint.pt")["supernet"] for f in (folder, many))
    assert alone.keys() == before.keys()
    assert all(torch.equal(alone[name], before[name]) for name in alone)
    pick = read_json(many / "finalists" / "pool.json")["finalists"][0]
    assert pick["source"] == PICK
    assert Architecture.from_dict(pick["architecture"]).text() == result["text"]


def test_a_network_of_one_cell_has_finalists_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = planted_images(96, seed=0)
    np.savez("planted.npz", images=images.transpose(0, 2, 3, 1), labels=labels)
    words = ["search", "data=npz", "data.path=planted.npz", "space=toy", "search.layers=1"]
    words += ["search.channels=4", "search.epochs=1", "search.batch_size=16", "search.finalists=2"]
    words += ["search.finalist_epochs=1", "search.guards.eigenvalue=null", "job=a"]
    assert cli.main(words) == 0
    assert len(read_json(tmp_path / "runs/a/V001/search/result.json")["finalists"]["bracket"]) == 2
