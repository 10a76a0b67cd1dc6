"""Numbers to predict and images of many channels, from data to a verified export, in miniature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from darts_core import cli
from darts_core.data import load_data
from darts_core.export import Numbers, load, predict, read_manifest
from darts_core.runlog import read_json
from darts_core.tasks import saved_task
from darts_core.train import evaluate, load_model

NET = """
from torch import nn


def net(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv1d(in_channels, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""
SMALL = [
    "device=cpu", "job=mini", "search.channels=4", "search.layers=1", "search.epochs=1",
    "search.batch_size=16", "search.alpha_learning_rate=0.02", "search.finalists=1",
    "search.guards.eigenvalue=null", "train.channels=4", "train.layers=1", "train.epochs=1",
    "train.batch_size=16", "tune.trials=1", "reduce=prune", "prune.epochs=1", "prune.budget=1000",
    "prune.options.rounds=1", "prune.options.seconds=0.05", "export.formats=[onnx]",
    "export.options.max_seconds=0.05", "bench.baseline_width=2", "bench.seconds=0.05",
    "allow_doubtful=true", "aim=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one's own that predicts the level of a series, trained, pruned and exported."""
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1, 12)).astype(np.float32) + rng.normal(size=(200, 1, 1))
    np.savez(
        folder / "a.npz", x=x.astype(np.float32), y=500 + 30 * x.mean((1, 2)), class_names=["level"]
    )
    (folder / "level_net.py").write_text(NET)
    shared = ["data=npz", "data.path=a.npz", "job=level", "device=cpu", "plugins=[level_net]"]
    recipe = ["train.epochs=15", "train.batch_size=16", "train.learning_rate=0.1"]
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    try:
        assert cli.main(["train", *shared, *recipe, "model=level_net:net"]) == 0
        quick = ["export.formats=[onnx]", "export.options.max_seconds=0.05"]
        assert cli.main(["export", *shared, *quick]) == 0
    finally:
        patch.undo()
    return folder


def test_numbers_are_judged_and_given_in_their_own_unit(numbers: Path) -> None:
    version = numbers / "runs" / "level" / "V001"
    result = read_json(version / "train" / "result.json")
    assert result["metric"] == {"name": "r2", "direction": "maximize", "share": False}
    assert result["test_r2"] > 0.8
    assert 0 < result["test_mae"] < 20
    manifest = read_manifest(version / "export")
    assert manifest["test_r2"] == result["test_r2"]
    task = saved_task(manifest["task"], "manifest.json")
    assert (task.outputs, task.names) == (1, ("level",))
    assert abs(task.mean[0] - 500) < 10


def test_an_exported_model_predicts_what_the_network_does(numbers: Path) -> None:
    version = numbers / "runs" / "level" / "V001"
    bundle = load_data("npz", numbers / "a.npz")
    loaded = load(version / "export", device="cpu")
    x, y = next(iter(bundle.batches("test", 8, shuffle=False)))
    assert loaded.task is not None
    answers = loaded.task.read(loaded(x))
    assert float((answers - y).abs().mean()) < 20
    np.save(numbers / "one.npy", bundle.test.inputs[0].numpy())
    (said,) = predict(loaded, [numbers / "one.npy"])
    assert isinstance(said, Numbers)
    assert said.values["level"] == pytest.approx(float(answers[0, 0]), abs=1e-2)


def test_other_data_are_judged_by_the_statistics_that_the_model_learned(numbers: Path) -> None:
    from darts_core.train import of_model

    path = numbers / "runs" / "level" / "V001" / "train" / "model.pt"
    model, meta = load_model(path)
    moved = load_data("npz", numbers / "a.npz", limit=60)
    own = of_model(moved, meta, str(path))
    assert own.task.mean != moved.task.mean
    assert evaluate(model, own, "test").value > 0.8


@pytest.mark.full
@pytest.mark.parametrize("space", ["nasbench201", "resnet", "darts"])
def test_twelve_channels_that_are_not_square_go_from_data_to_a_verified_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    x = rng.normal(size=(96, 12, 12, 20)).astype(np.float32) * 20 + 1000
    x[labels == 1, 5] += 30
    np.savez("a.npz", x=x, y=labels)
    layers = ["search.layers=3", "train.layers=3"] if space == "darts" else []
    assert cli.main(["run", f"space={space}", "data=npz", "data.path=a.npz", *SMALL, *layers]) == 0
    manifest = read_manifest(tmp_path / "runs" / "mini" / "V001" / "export")
    assert manifest["input_shape"] == [12, 12, 20]
    assert manifest["unit"] == 1
    assert manifest["artifacts"]["onnx"]["relative_error"] < 1e-4
    rows = read_json(tmp_path / "runs" / "mini" / "V001" / "bench" / "results.json")["rows"]
    assert {row["kind"] for row in rows} >= {"baseline", "searched", "pruned", "exported"}


@pytest.mark.full
def test_a_regression_goes_from_data_to_a_verified_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2, 64)).astype(np.float32)
    np.savez("a.npz", x=x, y=np.stack([x[:, 0].mean(1), x[:, 1].max(1)], 1))
    assert cli.main(["run", "space=conv1d", "data=npz", "data.path=a.npz", *SMALL]) == 0
    version = tmp_path / "runs" / "mini" / "V001"
    assert read_manifest(version / "export")["metric"]["name"] == "r2"
    page = (version / "report.html").read_text()
    assert "test R2" in page
    assert "test accuracy" not in page
    rows = read_json(version / "bench" / "results.json")["rows"]
    assert {row["kind"] for row in rows} >= {"baseline", "searched", "pruned", "exported"}
