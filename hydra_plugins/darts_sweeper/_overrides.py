"""Hydra's override grammar as a search space, and values back into overrides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)

from darts_core.errors import TuneError

__all__ = ["joined", "spell", "split", "with_numbers", "words"]

_TAGS = ("log",)
# a text to YAML, a number to Hydra and to whoever writes it
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The fixed overrides, and the space spanned by the swept ones (key -> YAML form).

    `choice(a,b)` and `a,b` are choices; `range(1,9)` whole numbers below 9; `interval(0.1,0.5)`
    real numbers; `int(interval(1,8))` whole ones, both ends included; `tag(log, ...)` makes any of
    the numeric ones logarithmic.

    Raises:
        TuneError: empty interval or range, unknown tag, or a glob.
    """
    fixed: list[str] = []
    space: dict[str, dict[str, Any]] = {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.is_sweep_override():
            space[override.get_key_element()] = _dimension(override)
        else:
            fixed.append(override.input_line)
    return fixed, space


def joined(swept: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The space of the command line with the dimensions of `hydra.sweeper.space` behind it.

    Raises:
        TuneError: a setting is in both, which say what to draw for it.
    """
    named = {name.lstrip("+") for name in more}
    twice = [name for name in swept if name.lstrip("+") in named]
    if twice:
        raise TuneError(
            f"{', '.join(twice)} is swept on the command line and in hydra.sweeper.space; keep one of them."
        )
    return {**swept, **more}


def _dimension(override: Override) -> dict[str, Any]:
    sweep: Any = override.value()
    key = override.get_key_element()
    if isinstance(sweep, Glob):
        raise TuneError(f"{key} is swept over a glob; write the choices out as choice(a,b).")
    unknown = sorted(tag for tag in sweep.tags if tag not in _TAGS)
    if unknown:
        raise TuneError(f"The tag {unknown[0]!r} of {key} is unknown; the only tag is log.")
    log = "log" in sweep.tags
    if isinstance(sweep, ChoiceSweep):
        return {"choices": [Override._convert_value(item) for item in sweep.list]}
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        integer = isinstance(low, int) and isinstance(high, int)
        return {"low": low, "high": high, "log": log, "integer": integer}
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep, log)
    raise TuneError(f"{key} is swept in a way that has no search space: {override.input_line}.")


def _range(key: str, sweep: RangeSweep, log: bool) -> dict[str, Any]:
    values = [float(v) if isinstance(v, Decimal) else v for v in sweep.range()]
    if not values:
        raise TuneError(
            f"The range of {key} is empty: range({sweep.start},{sweep.stop}) ends before its "
            "start; the end itself is not part of a range."
        )
    if len(values) == 1:
        return {"choices": values}
    low, high = min(values), max(values)
    step = abs(sweep.step)
    if log:
        if not (isinstance(low, int) and step == 1):
            raise TuneError(f"The range of {key} is logarithmic, so its step must be 1.")
        return {"low": low, "high": high, "log": True}
    if isinstance(low, int):
        return {"low": low, "high": high, "step": step}
    # Hydra adds binary fractions up; an end that is off by a rounding error would be no point of the grid
    start = Decimal(str(sweep.start))
    ends = (start, start + (len(values) - 1) * Decimal(str(sweep.step)))
    return {"low": float(min(ends)), "high": float(max(ends)), "step": float(step)}


def spell(value: Any) -> str:
    """`value` in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(spell(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}: {spell(v)}" for k, v in value.items()) + "}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def words(params: Mapping[str, Any]) -> str:
    """Settings as overrides to paste behind a command: a shell takes away no quotes but its own."""
    return shlex.join(f"{name}={spell(value)}" for name, value in params.items())


def with_numbers(node: Any) -> Any:
    """A dimension in its YAML form, `1e-4` or `1.5e4` in it as the number that it is on a command line.

    Choices among which there is a text stay as they are.
    """
    if isinstance(node, Mapping):
        return {key: with_numbers(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        numbers = [with_numbers(item) for item in node]
        return list(node) if any(isinstance(item, str) for item in numbers) else numbers
    return float(node) if isinstance(node, str) and _EXPONENT.fullmatch(node) else node
