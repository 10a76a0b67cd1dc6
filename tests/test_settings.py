"""Every setting holds to the range that it declares: in process over all, through the command over 50."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from darts_core import cli
from darts_core.errors import ConfigError
from darts_core.settings import (
    Bounds,
    Settings,
    SlurmQueue,
    bounds_of,
    default_of,
    from_plain,
    schema,
    to_plain,
    type_of,
)
from darts_core.settings.train import TrainConfig
from darts_core.stages.schema import COMMANDS, STAGES

NUMBERS = (int, float)


def nodes(cls: type[Settings], prefix: str = "") -> Iterator[tuple[type[Settings], str]]:
    """(class, its key with a dot) of a stage's settings and of every node inside."""
    yield cls, prefix
    for item in fields(cls):
        kind, _ = type_of(cls, item.name)
        if isinstance(kind, type) and issubclass(kind, Settings):
            yield from nodes(kind, f"{prefix}{item.name}.")


def numeric() -> dict[tuple[str, str], tuple[type[Settings], str, Any, Bounds | None]]:
    """(command, key) -> (class, field, its number type, bounds), lists of numbers included."""
    found = {}
    for command in COMMANDS:
        for cls, prefix in nodes(STAGES[command]):
            for item in fields(cls):
                kind, _ = type_of(cls, item.name)
                inner = get_args(kind)[0] if get_args(kind) else kind
                if inner in NUMBERS:
                    key = (command, f"{prefix}{item.name}")
                    found[key] = (cls, item.name, inner, bounds_of(item))
    return found


NUMERIC = numeric()
# one of each class's fields: the same node serves several commands
ONCE = {(cls, name): (key, kind, bounds) for key, (cls, name, kind, bounds) in NUMERIC.items()}
CASES = [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, name in ONCE]


def outside(kind: type, bounds: Bounds) -> list[Any]:
    """Numbers beyond both ends, the ends themselves where they are open, and what is no number."""
    wrong: list[Any] = []
    for end, is_open, away in (
        (bounds.low, bounds.low_open, -1),
        (bounds.high, bounds.high_open, 1),
    ):
        assert end is not None
        if kind is int:
            wrong += [int(end) + away, away * 10**25]
        else:
            wrong += [math.nextafter(end, away * math.inf), float(end) + away, away * 1e300]
            wrong += [float(end)] if is_open else []
    return wrong if kind is int else [*wrong, math.nan, math.inf, -math.inf]


def ends(kind: type, bounds: Bounds) -> list[Any]:
    """The outermost numbers that are allowed."""
    assert bounds.low is not None
    assert bounds.high is not None
    if kind is int:
        return [int(bounds.low), int(bounds.high)]
    low = math.nextafter(bounds.low, math.inf) if bounds.low_open else float(bounds.low)
    high = math.nextafter(bounds.high, -math.inf) if bounds.high_open else float(bounds.high)
    return [low, high]


def given(cls: type[Settings], name: str, value: Any) -> dict[str, Any]:
    """The field, as a list where it holds one, with what it may contradict out of its way."""
    kind, _ = type_of(cls, name)
    beside: dict[str, Any] = {}
    own = {item.name for item in fields(cls)}
    if name in ("learning_rate", "min_learning_rate") and "min_learning_rate" in own:
        beside = {"learning_rate": 100.0, "min_learning_rate": 0.0}
    if name == "budget" and "cost" in own:
        beside = {"cost": "macs"}
    if name in ("population", "tournament"):
        beside = {"population": 1_000_000, "tournament": 1}
    return {**beside, name: [value] if get_args(kind) else value}


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_every_number_declares_a_range_that_holds_its_default(cls: type, name: str) -> None:
    _, _, bounds = ONCE[cls, name]
    assert bounds is not None, f"{cls.__name__}.{name} has no `setting(...)`"
    assert bounds.low is not None
    assert bounds.high is not None
    assert bounds.low < bounds.high
    assert bounds.help
    default = next(default_of(item) for item in fields(cls) if item.name == name)
    for value in default if isinstance(default, list) else [default]:
        assert value is None or bounds.holds(value)


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_numbers_outside_a_range_are_refused_in_one_sentence(cls: type, name: str) -> None:
    _, kind, bounds = ONCE[cls, name]
    for value in [*outside(kind, bounds), "abc", True, [[]]]:
        with pytest.raises(ConfigError) as caught:
            cls(**given(cls, name, value))
        said = str(caught.value)
        assert name in said
        assert "\n" not in said
        assert said.endswith(".")


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_the_ends_of_a_range_are_accepted(cls: type, name: str) -> None:
    _, kind, bounds = ONCE[cls, name]
    for value in ends(kind, bounds):
        wanted = given(cls, name, value)
        made = cls(**wanted)
        assert getattr(made, name) == wanted[name]
        assert from_plain(cls, to_plain(made)) == made


@pytest.mark.parametrize("command", COMMANDS)
def test_choices_name_what_is_allowed(command: str) -> None:
    for cls, _ in nodes(STAGES[command]):
        for item in fields(cls):
            bounds = bounds_of(item)
            assert bounds is not None, f"{cls.__name__}.{item.name}"
            for choice in bounds.choices:
                cls(**{item.name: [choice] if get_args(type_of(cls, item.name)[0]) else choice})
            if bounds.choices:
                with pytest.raises(ConfigError, match=bounds.choices[0]):
                    cls(**{item.name: ["no"] if get_args(type_of(cls, item.name)[0]) else "no"})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_schema_of_hydra_is_the_declaration(command: str) -> None:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(OmegaConf.structured(schema(STAGES[command])))
    assert from_plain(STAGES[command], plain) == STAGES[command]()
    assert plain == to_plain(STAGES[command]())


def typed_cases() -> list[tuple[str, str]]:
    """50 pairs of (command, override), drawn over all fields and kinds of wrong values."""
    draw = random.Random(20261127)
    keys = draw.sample(sorted(NUMERIC), 50)
    cases = []
    for command, key in keys:
        cls, name, kind, bounds = NUMERIC[command, key]
        assert bounds is not None
        value = draw.choice(outside(kind, bounds))
        is_list = bool(get_args(type_of(cls, name)[0]))
        cases.append((command, f"{key}=[{value}]" if is_list else f"{key}={value}"))
    return cases


@pytest.mark.parametrize(("command", "override"), typed_cases())
def test_the_command_refuses_them_in_one_sentence_and_leaves_nothing(
    command: str, override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, override]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("darts-core: ")
    assert override.partition("=")[0].rpartition(".")[2] in lines[0]
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(low=0, high=1, low_open=True, high_open=True), "a number above 0 and below 1"),
        (Bounds(low=0, high=1, low_open=True), "a number above 0, at most 1"),
        (Bounds(low=0, high=1, high_open=True), "a number from 0 to below 1"),
        (Bounds(low=0, high=1), "a number from 0 to 1"),
    ],
)
def test_the_words_of_a_range_name_no_end_that_is_refused(bounds: Bounds, words: str) -> None:
    assert bounds.words(float) == words


def test_what_is_wrong_with_a_queue_is_told_without_a_node_that_was_not_given() -> None:
    with pytest.raises(ConfigError, match=r"^slurm\.cpus=0 is not allowed"):
        from_plain(SlurmQueue, {"cpus": 0})


def test_a_number_of_numpy_is_one_of_python() -> None:
    made = TrainConfig(epochs=np.int64(3), learning_rate=np.float32(0.5), flip=np.True_)
    assert (made.epochs, made.learning_rate, made.flip) == (3, 0.5, True)
    assert [type(v) for v in (made.epochs, made.learning_rate, made.flip)] == [int, float, bool]
    with pytest.raises(ConfigError, match=r"train\.epochs=0 is not allowed"):
        TrainConfig(epochs=np.int64(0))
