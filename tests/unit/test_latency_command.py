"""The words of `darts-core latency`: arguments of a model, and where the networks of a check are kept."""

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darts_core import cli
from darts_core.bench.results import read_results
from darts_core.commands.latency import _check, _folder
from darts_core.commands.latency_time import split_arguments
from darts_core.errors import ConfigError
from darts_core.latency import check


def test_arguments_of_a_model_are_read_as_by_the_other_commands():
    words = ["model_args.drop=1e-3", "model_args.when=2020-13-45", "model_args.mode=no", "batch=1"]
    words += ["model_args.sizes=[1,2]", "model_args.depth=null", "model_args.name='a,b'"]
    others, found = split_arguments(words)
    assert others == ["batch=1"]
    assert found == {
        "drop": 0.001,
        "when": "2020-13-45",
        "mode": "no",
        "sizes": [1, 2],
        "depth": None,
        "name": "a,b",
    }


@pytest.mark.parametrize(
    "word", ["model_args.x", "model_args.=1", "model_args.x=1,2", "model_args.x=[1"]
)
def test_an_argument_without_one_value_is_a_sentence(word):
    with pytest.raises(ConfigError, match="is not a setting"):
        split_arguments([word])


def test_a_table_may_lie_in_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    for word, place in (("table=~/t.json", "t.json"), ("out=~/runs", "runs/latency/")):
        assert cli.main(["latency", "show", word]) == 2
        assert f"{tmp_path}/{place}" in capsys.readouterr().err


def test_networks_of_other_classes_are_kept_apart():
    space, path = SimpleNamespace(name="darts"), Path("runs/latency/cpu.json")
    usual = _folder({}, space, path)
    assert usual == Path("runs/latency/cpu-darts-----check")
    assert (
        len({usual, _folder({"classes": 10}, space, path), _folder({"classes": 9}, space, path)})
        == 3
    )


def test_a_check_keeps_a_file_for_each_batch_and_a_command_to_type(tmp_path, monkeypatch):
    table = SimpleNamespace(
        runtime="onnx", dtype="float32", device="cpu", threads=1, rows={}, fits={}, save=lambda _: None
    )  # fmt: skip
    record = {"fit_key": "k", "fit": {}, "n": 4, "flagged": 0}
    record |= dict.fromkeys(("correlation", "correlation_all", "test_retest"), 1.0)
    monkeypatch.setattr(check, "check_predictions", lambda *_, batch, **__: {**record, "b": batch})
    monkeypatch.setattr(check, "draw_scatter", lambda _, path: path.touch())
    words = ["latency", "check", "space=mine", f"table={tmp_path}/xeon-2.4GHz.json"]
    words += [f"results={tmp_path}/kept", "--plugins", "my_nas"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/darts-core", *words])
    given, path = {"results": str(tmp_path / "kept")}, tmp_path / "xeon-2.4GHz.json"
    space, cpu = SimpleNamespace(name="mine"), torch.device("cpu")
    _check(given, table, space, lambda _: None, (3, 8, 8), cpu, path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        f"xeon-2.4GHz-mine-batch{batch}.{end}" for batch in (1, 32) for end in ("json", "png")
    ]
    (kept,) = (tmp_path / "kept").iterdir()
    assert shlex.split(read_results(kept).command)[-5:] == [
        "latency", "check", "space=mine", "--plugins", "my_nas",
    ]  # fmt: skip
