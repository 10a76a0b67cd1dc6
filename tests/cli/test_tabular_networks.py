"""Networks over a table's columns: an MLP on plain values [B, F], from data to a verified export."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from darts_core import cli
from darts_core.export import load
from darts_core.models import trust
from darts_core.prune.groups import find_groups
from darts_core.runlog import read_json
from darts_core.train import load_model

SOURCE = """
from torch import nn
from darts_core.supernet import WidthChoice

def mlp(num_classes, in_features, width=8):
    return nn.Sequential(nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes))

def wide(num_classes, in_features):
    choice = WidthChoice([2, 4, 8], label="width", dim=-1)
    return nn.Sequential(nn.Linear(in_features, 8), nn.ReLU(), choice, nn.Linear(8, num_classes))
"""
RECIPE = ["train.epochs=12", "train.batch_size=16", "train.learning_rate=0.1"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = f"tables_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    y = (50 + 3 * x[:, 0] - 2 * x[:, 1]).astype(np.float32)
    np.savez(tmp_path / "table.npz", x=x, y=y)
    # columns of different units: each is a channel of one position, with a mean and deviation of its own
    units = np.array([1000, 0.001, 1, 1, 1, 1], np.float32)
    np.savez(tmp_path / "columns.npz", x=(x * units + 7)[:, :, None], y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_NAMED", set())
    yield name
    sys.modules.pop(name, None)


def words(module: str, job: str) -> list[str]:
    return ["data=npz", "data.path=table.npz", "device=cpu", f"job={job}", f"plugins=[{module}]"]


def test_an_mlp_on_columns_is_trained_cut_exported_and_asked(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(module, "table")
    assert cli.main(["train", *given, *RECIPE, f"model={module}:mlp"]) == 0
    version = tmp_path / "runs" / "table" / "V001"
    assert read_json(version / "train" / "result.json")["val_r2"] > 0.9
    model, meta = load_model(version / "train" / "model.pt")
    assert isinstance(model.model[0], nn.Linear)
    assert [(g.root, g.channels) for g in find_groups(model, meta["image_shape"])] == [
        ("model.0", 8)
    ]
    files = ["export.formats=[onnx]", "export.options.max_seconds=0.05"]
    assert cli.main(["export", *given, *files]) == 0
    loaded = load(version / "export", device="cpu")
    assert loaded.manifest["artifacts"]["onnx"]["relative_error"] < 1e-4
    x = np.load("table.npz")["x"]
    np.save("row.npy", x[0])
    capsys.readouterr()
    assert cli.main(["predict", "--model", str(version / "export"), "row.npy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["values"]
    mean, std = loaded.described.mean[0], loaded.described.std[0]
    with torch.no_grad():
        output = model(torch.from_numpy((x[:1, None] - mean) / std))
    assert list(said.values()) == pytest.approx([float(loaded.task.read(output)[0])], rel=1e-4)


def test_columns_of_different_units_are_normalised_one_by_one(module: str, tmp_path: Path) -> None:
    given = [w for w in words(module, "units") if w != "data.path=table.npz"]
    argv = ["train", *given, "data.path=columns.npz", *RECIPE, f"model={module}:mlp"]
    assert cli.main(argv) == 0
    version = tmp_path / "runs" / "units" / "V001"
    assert read_json(version / "train" / "result.json")["val_r2"] > 0.9
    model, meta = load_model(version / "train" / "model.pt")
    assert (meta["image_shape"], model.model[0].in_features) == ([6, 1], 6)


def test_the_widths_of_an_mlp_are_searched(module: str, tmp_path: Path) -> None:
    given = words(module, "wide")
    small = ["search.epochs=1", "search.batch_size=16", "search.finalists=1"]
    cost = ["latency.cost=macs", "latency.budget=4.0e-5", "search.alpha_learning_rate=0.05"]
    assert cli.main(["search", *given, *small, *cost, f"model={module}:wide"]) == 0
    assert cli.main(["train", *given, "train.epochs=1", "train.batch_size=16"]) == 0
    model, _ = load_model(tmp_path / "runs" / "wide" / "V001" / "train" / "model.pt")
    # 6 columns into 4 or 2, these into one number: at most 40 products
    assert model.model[0].out_features in (2, 4)


def test_a_network_that_fits_neither_way_is_refused_for_the_first(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", *words(module, "bad"), f"model={module}:mlp", "model_args.in_features=5"]
    assert cli.main(argv) == 2
    assert "does not run on inputs [2, 1, 6]" in capsys.readouterr().err
