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
    "search.finalists=1",
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


def series(path: Path) -> Path:
    """Two classes of series of two channels that differ in their frequency, by four speakers."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    times = np.arange(96) + rng.uniform(0, 6, (96, 1))
    waves = np.sin(times * np.where(labels, 0.9, 0.3)[:, None])
    x = waves[:, None] + 0.3 * rng.normal(size=(96, 2, 96))
    speakers = np.array(["ann", "bob", "cy", "dee"])[np.arange(96) // 2 % 4]
    np.savez(path, x=x.astype(np.float32), y=labels, group=speakers)
    return path


def text(path: Path) -> Path:
    """A text in which the letter after a vowel names it."""
    rng = np.random.default_rng(0)
    pairs = np.array(["ax", "ey", "iz"])[rng.integers(0, 3, 3000)]
    path.write_text("".join(pairs))
    return path


@pytest.mark.full
def test_series_go_from_data_to_a_verified_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["space=conv1d", "data=npz", f"data.path={series(tmp_path / 'data.npz')}"]
    words += ["data.split_by=group", "data.leave_out=bob", "latency.budget=0.02"]
    assert cli.main(["run", *words, *SMALL]) == 0
    version = tmp_path / "runs" / "mini" / "V001"
    verify(version, "conv1d", 0.02)
    assert "test_accuracy" in read_json(version / "prune" / "result.json")


@pytest.mark.full
def test_a_text_goes_from_data_to_a_verified_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["space=gpt_tiny", "data=text", f"data.path={text(tmp_path / 'data.txt')}"]
    words += ["data.length=16", "latency.budget=0.02", "train.epochs=4"]
    assert cli.main(["run", *[w for w in SMALL if w != "train.epochs=1"], *words]) == 0
    version = tmp_path / "runs" / "mini" / "V001"
    verify(version, "gpt_tiny", 0.02)
    # of six tokens: pure guessing has a perplexity of 6
    assert 1.0 < read_json(version / "prune" / "result.json")["test_perplexity"] < 6.0


def verify(version: Path, space: str, budget: float) -> None:
    """The architecture's file, the budget, the export's error and the bench's rows."""
    found = Architecture.from_yaml(version / "search" / "architecture.yaml")
    assert found.space == space
    assert read_json(version / "search" / "result.json")["cost"]["found"] <= 1.05 * budget
    assert read_yaml(version / "train" / "architecture.yaml")["space"] == space
    artifacts = read_json(version / "export" / "manifest.json")["artifacts"]
    assert artifacts["onnx"]["relative_error"] <= 1e-4
    assert (version / "report.html").stat().st_size > 10_000
    kinds = {row["kind"] for row in read_json(version / "bench" / "results.json")["rows"]}
    assert {"baseline", "searched", "tuned", "pruned", "exported"} <= kinds
