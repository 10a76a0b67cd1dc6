"""Numbers of strategies, relaxations, penalties, guards and callbacks hold to their constructors' ranges."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from test_settings import NUMBERS, ends, outside

from darts_core import cli
from darts_core.errors import ConfigError
from darts_core.runlog import read_yaml
from darts_core.settings import Bounds, from_plain, ranges_of
from darts_core.settings.field import type_of_hint
from darts_core.settings.tree import config_root
from darts_core.stages.targets import TARGET_GROUPS, instantiate, registered
from darts_core.strategies import Stage

GROUPS = ("strategy", "relax", "penalty", "guards", "callbacks")
# what a constructor needs beside the number that is tried
BESIDE: dict[str, dict[str, Any]] = {"Progressive": {"stages": [{}]}}


def classes() -> dict[str, tuple[str, type]]:
    """Each registered class once, by its name: its group and itself."""
    found = {}
    for group in GROUPS:
        for target in registered(group):
            module, _, name = target.rpartition(".")
            found[name] = (group, getattr(importlib.import_module(module), name))
    return found


def numeric(cls: type) -> dict[str, type]:
    """The numbers that the constructor takes, by their names: int or float."""
    hints = inspect.get_annotations(inspect.unwrap(cls.__init__), eval_str=True)
    kinds = {name: type_of_hint(hint)[0] for name, hint in hints.items()}
    return {name: kind for name, kind in kinds.items() if kind in NUMBERS}


CLASSES = classes()
CASES = [
    pytest.param(name, argument, kind, id=f"{name}.{argument}")
    for name, (_, cls) in CLASSES.items()
    for argument, kind in numeric(cls).items()
]


def made(name: str, argument: str, value: Any) -> Any:
    group, cls = CLASSES[name]
    node = {"_target_": f"{cls.__module__}.{name}", **BESIDE.get(name, {}), argument: value}
    return instantiate(group, node)


def bounds(name: str, argument: str) -> Bounds:
    return ranges_of(CLASSES[name][1])[argument]


def test_the_groups_are_those_that_the_walk_finds():
    assert len(CASES) > 40
    assert set(GROUPS) <= set(TARGET_GROUPS)


@pytest.mark.parametrize(("name", "argument", "kind"), CASES)
def test_every_number_declares_its_range_and_a_wrong_one_is_a_sentence(name, argument, kind):
    for value in [*outside(kind, bounds(name, argument)), "abc", True, [1]]:
        with pytest.raises(ConfigError) as caught:
            made(name, argument, value)
        said = str(caught.value)
        assert f".{argument}=" in said
        assert "\n" not in said
        assert said.endswith(".")


@pytest.mark.parametrize(("name", "argument", "kind"), CASES)
def test_the_ends_are_accepted(name, argument, kind):
    for value in ends(kind, bounds(name, argument)):
        assert getattr(made(name, argument, value), argument) == value


@pytest.mark.parametrize(
    "field", ["extra_layers", "operations", "skip_dropout", "channel_fraction"]
)
def test_a_stage_of_a_progressive_search_declares_its_numbers(field):
    for value in (-1, float("nan"), float("inf"), 10**12, "abc"):
        with pytest.raises(ConfigError, match=rf"strategy\.stages\.{field}="):
            from_plain(Stage, {field: value})


def test_what_the_files_of_the_groups_hold_is_in_range():
    for group in ("strategy", "relax", "penalty"):
        for path in config_root().glob(TARGET_GROUPS[group]):
            node = read_yaml(path)
            if "_target_" in node:
                instantiate(group, node)


TYPED = [
    ("strategy=unrolled", "strategy.epsilon=nan"),
    ("strategy=rsps", "strategy.samples=10000000000000"),
    ("strategy=p_darts", "strategy.stages=[{skip_dropout: inf}]"),
    ("relax=softmax", "relax.temperature=nan"),
    ("relax=gumbel", "relax.temperature_end=0"),
    ("relax=partial_channels", "relax.channel_fraction=0"),
    ("penalty=beta", "penalty.end=inf"),
    ("search.epochs=1", "search.guards.skips.share=nan"),
]


@pytest.mark.parametrize(("choice", "override"), TYPED)
def test_the_command_refuses_them_and_leaves_nothing(
    choice: str, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    small = ["data=digits", "data.limit=100", "space=nasbench201", "search.channels=4"]
    assert cli.main(["search", *small, "search.batch_size=16", choice, override]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("darts-core")]
    assert len(lines) == 1
    assert " is not allowed; give " in lines[0]
    assert [p for p in tmp_path.rglob("V001") if p.is_dir()] == []
