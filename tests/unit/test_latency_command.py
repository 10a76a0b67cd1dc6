"""The words of `darts-core latency`: arguments of a model, and where the networks of a check are kept."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from darts_core import cli
from darts_core.commands.latency import _folder
from darts_core.commands.latency_time import split_arguments
from darts_core.errors import ConfigError


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
