"""A network of the user's own in `bench`, `latency time`, `predict` and `serve-bench`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from darts_core import cli
from darts_core.commands.latency_time import _model
from darts_core.commands.serve_bench import time_artifact
from darts_core.data import load_data
from darts_core.errors import ConfigError
from darts_core.models import trust
from darts_core.models.baselines import baseline
from darts_core.report.read import read_rows
from darts_core.train import save_model

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width):
        super().__init__()
        self.conv, self.head = nn.Conv2d(in_channels, width, 3), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))

def small(num_classes, in_channels, width=4):
    return Net(num_classes, in_channels, width)

def words(num_classes, in_channels):
    return nn.Sequential(nn.Embedding(in_channels, 3), nn.Linear(3, num_classes))

def mood(num_classes, in_channels):
    return nn.Sequential(nn.EmbeddingBag(in_channels, 3), nn.Linear(3, num_classes))
"""
TINY = [
    "data=digits", "data.limit=200", "data.test_limit=100", "train.epochs=1", "train.batch_size=64",
    "device=cpu",
]  # fmt: skip
BENCH = [*TINY, "bench.seconds=0.03", "bench.options.seeds=2", "runtime=eager"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "benchednets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_NAMED", set())
    yield tmp_path
    sys.modules.pop("benchednets", None)


def rows(version: Path):
    return read_rows(version / "bench" / "results.json")


def test_bench_trains_a_function_of_the_users_over_seeds(place: Path) -> None:
    argv = ["bench", "model=benchednets:small", "model_args.width=6", "job=own", *BENCH]
    assert cli.main(argv) == 0
    (row,) = rows(place / "runs" / "own" / "V001")
    assert row.name == "benchednets:small"
    assert row.n == 2
    assert row.params == 6 * 9 + 6 + 6 * 10 + 10


def test_bench_takes_given_weights_as_they_are(place: Path) -> None:
    from benchednets import small

    torch.manual_seed(3)
    model = small(10, 1)
    torch.save(model.state_dict(), "w.pt")
    assert cli.main(["bench", "model=benchednets:small", "weights=w.pt", "job=own", *BENCH]) == 0
    version = place / "runs" / "own" / "V001"
    (row,) = rows(version)
    assert row.n == 1
    assert not (version / "trained").exists()
    (kept,) = version.glob("given/*/model.pt")
    state = torch.load(kept, weights_only=True)["state"]
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of timm where it is not installed: one network, made as timm makes its own."""
    if importlib.util.find_spec("timm") is not None:
        return
    from benchednets import small

    def create_model(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> nn.Module:
        assert (name, pretrained) == ("test_resnet", False)
        return small(num_classes, in_chans)

    def is_model(name: str) -> bool:
        return name == "test_resnet"

    stand_in = types.SimpleNamespace(is_model=is_model, create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", stand_in)


def test_bench_measures_a_timm_network(place: Path, timm: None) -> None:
    argv = ["bench", "model=timm:test_resnet", "job=own", *BENCH, "bench.options.seeds=1"]
    assert cli.main(argv) == 0
    assert rows(place / "runs" / "own" / "V001")[0].name == "timm:test_resnet"


def test_bench_of_a_job_finds_its_newest_version_that_has_a_model(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = place / "runs" / "own"
    assert cli.main(["train", "model=benchednets:small", "job=own", *TINY]) == 0
    assert cli.main(["search", "job=own", *TINY[:3], "device=cpu", "space=nasbench201",
                     "search.epochs=1", "search.finalists=1", "search.channels=2", "search.layers=1",
                     "search.batch_size=32"]) == 0  # fmt: skip
    assert sorted(path.name for path in job.glob("V*")) == ["V001", "V002"]
    assert cli.main(["bench", "job=own", "bench.seconds=0.03", *TINY]) == 0
    assert [row.kind for row in rows(job / "V001")] == ["trained"]
    assert sorted(path.name for path in job.glob("V*")) == ["V001", "V002"]
    capsys.readouterr()
    assert cli.main(["bench", "job=other", *TINY]) == 2
    assert "No version of job 'other' in runs holds a trained model of" in capsys.readouterr().err
    assert not list((place / "runs" / "other").glob("V*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=resnet8", "model_args.width=3"], "go with a named model"),
        (["model=benchednets:smal"], "Did you mean 'small'"),
        (["what=step", "model_args.width=3"], "go with model="),
    ],
)
def test_mistakes_of_bench_end_in_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words, *BENCH]) == 2
    assert sentence in capsys.readouterr().err


TIME = ["latency", "time", "device=cpu", "seconds=0.03", "batch=1"]


def test_latency_time_takes_a_function_and_a_file_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shape = ["size=8", "in_channels=1", "model_args.width=6"]
    assert cli.main([*TIME, "model=benchednets:small", *shape]) == 0
    assert "benchednets:small: " in (out := capsys.readouterr().out)
    assert "ms at batch 1" in out
    assert cli.main([*TIME, "model=benchednets:small", "shape=12,9,20"]) == 0
    assert "benchednets:small: " in capsys.readouterr().out
    assert cli.main(["train", "model=benchednets:small", "job=own", *TINY]) == 0
    capsys.readouterr()
    assert cli.main([*TIME, "model=runs/own/V001/train", "runtime=eager"]) == 0
    assert "eager on" in capsys.readouterr().out


def test_latency_time_takes_networks_over_tokens(place: Path) -> None:
    from benchednets import words

    torch.save(words(5, 5).state_dict(), "w.pt")
    given = {"model": "benchednets:words", "shape": "7", "classes": 5}
    row = torch.full((1, 7), 4)
    model, shape = _model({**given, "weights": "w.pt"}, {})
    assert (shape, tuple(model(row).shape)) == ((7,), (1, 7, 5))
    assert tuple(_model({**given, "model": "benchednets:mood"}, {})[0](row).shape) == (1, 5)
    with pytest.raises(ConfigError, match=r"gives \(2, 7, 5\) for two samples; outputs \[2, 4\]"):
        _model({**given, "classes": 4}, {"num_classes": 5})


def test_a_saved_network_that_does_not_say_its_shape_is_a_sentence(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"name": "resnet8", "num_classes": 10}
    save_model(place / "m.pt", baseline(**network), {"baseline": network})
    assert cli.main([*TIME, "model=m.pt"]) == 2
    assert "does not say what shape its samples have" in capsys.readouterr().err


def test_latency_time_takes_a_timm_network(timm: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TIME, "model=timm:test_resnet", "size=32"]) == 0
    assert "timm:test_resnet: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["time"], "needs model="),
        (
            ["time", "model=benchednets:small", "space=darts"],
            "Unknown setting of `latency time` 'space'",
        ),
        (["time", "model=benchednets:small", "model_args.width"], "write model_args.NAME=VALUE"),
        (["time", "model=missing.pt"], "neither a saved model"),
        (["time", "model=benchednets:small", "shape=3,x"], "no shape of a sample"),
        (["time", "model=benchednets:small", "shape=3,8,8", "size=8"], "not both"),
        (["time", "model=benchednets:small", "shape=0,8,8"], "no shape of a sample"),
        (["build", "model=benchednets:small"], "timed by `darts-core latency time`"),
        (["build", "shape=1,320"], "shape= is for `latency time`"),
        (["show", "space=darts"], "space= is not read by `latency show`"),
    ],
)
def test_mistakes_of_latency_time_end_in_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["latency", *words]) == 2
    assert sentence in capsys.readouterr().err


OWN = ["model=benchednets:small", "model_args.width=5", "data=digits", "data.limit=200"]


@pytest.fixture
def weights(place: Path) -> Path:
    """A state dict of the user's network, and a sample of the data."""
    benchednets = importlib.import_module("benchednets")
    torch.manual_seed(3)
    torch.save(benchednets.small(10, 1, 5).state_dict(), place / "net.pt")
    np.save(place / "one.npy", np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
    return place / "net.pt"


def test_predict_asks_a_network_of_the_users(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", *OWN, f"weights={weights}", "device=cpu", "one.npy", "--json", "--top", "10"]
    assert cli.main(argv) == 0
    said = json.loads(capsys.readouterr().out)["classes"]
    bundle = load_data("digits", limit=200)
    benchednets = importlib.import_module("benchednets")
    model = benchednets.small(10, 1, 5)
    model.load_state_dict(torch.load(weights, weights_only=True))
    x = (torch.arange(64.0).view(1, 1, 8, 8) / 255 - bundle.mean[0]) / bundle.std[0]
    with torch.no_grad():
        wanted = torch.softmax(model.eval()(x), 1)[0]
    assert [said[name] for name in bundle.class_names] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_serve_bench_times_a_network_of_the_users_and_a_saved_one(
    weights: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = ["--seconds", "0.02", "--batch", "2", "--json"]
    assert cli.main(["serve-bench", *OWN, f"weights={weights}", "device=cpu", *times]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["runtime"], list(row["rows"])) == ("eager", ["2"])
    assert row["rows"]["2"]["median_ms"] > 0
    meta = {
        "model": {"name": "benchednets:small", "arguments": {"num_classes": 10, "in_channels": 1}},
        "image_shape": [1, 8, 8], "class_names": list("0123456789"), "mean": [0.3], "std": [0.3],
    }  # fmt: skip
    save_model(
        place / "kept" / "model.pt", importlib.import_module("benchednets").small(10, 1), meta
    )
    row = time_artifact("kept", "eager", [1], None, 0.02, False, plugins=["benchednets"])
    assert (row["runtime"], list(row["rows"])) == ("eager", ["1"])
    trust._NAMED.clear()
    # a file alone does not make the program import code
    assert cli.main(["serve-bench", "kept", *times]) == 2
    assert "plugins=[benchednets]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["predict", "model=benchednets:small", "a.png"], ["needs data=NAME"]),
        (["serve-bench", "timm:resnet18"], ["needs data=NAME"]),
        (["predict", "--model", "benchednets:small", *OWN, "a.png"], ["not both"]),
        (["predict", *OWN], ["Give the files"]),
        (["predict", "a.png"], ["--model", "model=package.module:function"]),
        (["serve-bench"], ["--model DIR"]),
        (["serve-bench", "kept", "weights=net.pt"], ["goes with a named model"]),
        (["serve-bench", *OWN, "--tune"], ["is not exported"]),
        (["serve-bench", *OWN, "--runtime", "onnx"], ["runs eagerly", "darts-core export model="]),
        (["predict", *OWN, "a.png", "--runtime", "onnx"], ["runs eagerly"]),
        (["serve-bench", *OWN, "batch=3"], ["'batch=3'"]),
        (["serve-bench", "kept", "other"], ["One model"]),
        (["predict", *OWN, "data.lmit=3", "a.png"], ["data.limit"]),
    ],
)
def test_mistakes_of_predict_and_serve_bench_end_in_one_sentence(
    argv: list[str], words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "kept").mkdir()
    (place / "kept" / "model.pt").touch()
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert len(said.strip().splitlines()) == 1
