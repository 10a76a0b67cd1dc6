"""The shipped spaces of choices from data to a verified export, in miniature, on data made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darts_core import cli
from darts_core.architecture import Architecture
from darts_core.runlog import read_json, read_yaml

SMALL = [
    "device=cpu", "job=mini", "search.channels=4", "search.epochs=1", "search.batch_size=16",
    "search.alpha_learning_rate=0.02", "latency.cost=macs", "train.channels=4", "train.epochs=1",
    "train.batch_size=16", "tune.trials=1", "prune.epochs=1", "prune.budget=90%", "prune.options.rounds=1",
    "prune.options.seconds=0.05", "export.formats=[onnx]", "export.options.max_seconds=0.05",
    "bench.baseline_width=2", "bench.seconds=0.05", "allow_doubtful=true",
]  # fmt: skip


def images(path: Path) -> Path:
    """Two classes of images that differ in which half is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    pixels = rng.integers(0, 100, (96, 12, 12, 1))
    pixels[labels == 0, :6] += 120
    pixels[labels == 1, 6:] += 120
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


@pytest.mark.full
@pytest.mark.parametrize(("space", "budget"), [("resnet", 0.03), ("vit_tiny", 0.01)])
def test_a_space_of_images_goes_from_data_to_a_verified_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str, budget: float
) -> None:
    monkeypatch.chdir(tmp_path)
    data = images(tmp_path / "data.npz")
    words = [f"space={space}", "data=npz", f"data.path={data}", f"latency.budget={budget}"]
    assert cli.main(["run", *words, *SMALL]) == 0
    verify(tmp_path / "runs" / "mini" / "V001", space, budget)


def verify(version: Path, space: str, budget: float) -> None:
    """The architecture's file, the budget, the export's error and the bench's rows."""
    found = Architecture.from_yaml(version / "search" / "architecture.yaml")
    assert found.space == space
    assert read_json(version / "search" / "result.json")["cost"]["found"] <= 1.05 * budget
    assert read_yaml(version / "train" / "architecture.yaml")["space"] == space
    artifacts = read_json(version / "export" / "manifest.json")["artifacts"]
    assert artifacts["onnx"]["relative_error"] <= 1e-4
    kinds = {row["kind"] for row in read_json(version / "bench" / "results.json")["rows"]}
    assert {"searched", "tuned", "pruned", "exported"} <= kinds
