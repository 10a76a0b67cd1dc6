"""What a study of the recipe varies: `tune.space`, held to what `train` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Any

from darts_core.errors import ConfigError, unknown_name
from darts_core.settings import Train, Tune, bounds_of, type_of
from darts_core.settings.field import Bounds, check_value
from darts_core.study.space import SearchDimension, parse_space

__all__ = ["choices_first", "recipe_space"]


def recipe_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """The node `tune.space` as it was meant, once `train` would take every value.

    Raises:
        ConfigError: `train` has no such setting, or would refuse one of its values in each trial that has it.
        TuneError: a dimension is malformed.
    """
    known = {item.name: item for item in fields(Train)}
    for name in space:
        if name not in known:
            raise ConfigError(unknown_name("setting in tune.space", str(name), known))
    usual = Tune().space
    found = {name: _one_kind(node, usual.get(name)) for name, node in space.items()}
    for name, dimension in parse_space(found).items():
        _check_values(dimension, known[name])
    return found


def choices_first(space: Mapping[str, Any]) -> dict[str, Any]:
    """The node as older programs read it: choices took the place of a range beside them, any value passed."""
    return {
        name: (
            {key: node[key] for key in ("choices", "when") if key in node}
            if isinstance(node, Mapping) and node.get("choices") is not None
            else node
        )
        for name, node in space.items()
    }


def _one_kind(node: Any, usual: Any) -> Any:
    """Of a dimension with choices and a range, what was given: Hydra keeps the default's keys beside it."""
    if not (isinstance(node, Mapping) and isinstance(usual, Mapping)):
        return node
    if "choices" not in node or "low" not in node:
        return node
    unchanged = all(node.get(key) == value for key, value in usual.items())
    return {k: v for k, v in node.items() if k not in usual} if unchanged else node


def _check_values(dimension: SearchDimension, item: Field[Any]) -> None:
    """Refuse a choice, or an end of a range, that `train` does not take."""
    kind, optional = type_of(Train, item.name)
    bounds = bounds_of(item) or Bounds()
    key = f"tune.space.{item.name}: train.{item.name}"
    for value in dimension.choices or _ends(dimension, bounds):
        check_value(key, value, kind, optional, bounds)


def _ends(dimension: SearchDimension, bounds: Bounds) -> Iterable[Any]:
    """The least and the largest value that may be drawn."""
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.step is not None:
        values = dimension.values()
        return values[0], values[-1]
    if dimension.integer:
        return int(low), int(high)
    # the very end of a continuous range is not met with
    bare = ((low, bounds.low, bounds.low_open), (high, bounds.high, bounds.high_open))
    return [end for end, bound, is_open in bare if not (is_open and end == bound)]
