"""Overrides as they are typed: their grammar, and what a sweep over several values expands to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from darts_core.credentials import keep_password, refuse_password
from darts_core.errors import ConfigError, first_line
from darts_core.store.names import quoted

__all__ = ["as_text", "expand", "key_of", "parse", "quoted", "without_password"]

# a database's URL, and nodes that may hold one: what opens it puts the password back for the ***
_DATABASES = ("storage", "warm_start")
_HOLD_DATABASES = ("tune", "tune.options", "hydra.sweeper")
_BRACKETS = frozenset("[](){}'\"")
# what Hydra's grammar may take for a number or a truth value
_NO_TEXT = re.compile(r"[+-]?[\d.][\w.+-]*|true|false", re.IGNORECASE)


def as_text(text: str) -> str:
    """An override of a text: 2026_11_30 is no number there, and stays as it is typed."""
    key, sign, value = text.partition("=")
    return f"{key}{sign}{quoted(value)}" if _NO_TEXT.fullmatch(value) else text


def key_of(text: str) -> str:
    """The setting that an override is for: `search.epochs` of `++search.epochs=3`."""
    return text.lstrip("+~").partition("=")[0]


def without_password(text: str) -> str:
    """An override that may be shown and saved; of a database's URL the password goes into the environment.

    Raises:
        TuneError: another URL holds one: nothing would put it back.
    """
    key = key_of(text)
    if key not in _HOLD_DATABASES and key.rpartition(".")[2] not in _DATABASES:
        remedy = (
            "leave it out, and give it as what opens this address reads it from the environment"
        )
        refuse_password(text.partition("=")[2], key, remedy)
    return str(keep_password(text))


def parse(text: str) -> Any:
    """Hydra's view of one override.

    Raises:
        ConfigError: it is not written as key=value.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, _, value = text.partition("=")
        # what may be meant as a list, or is quoted already, is not to be quoted as a whole
        own = value and not _BRACKETS.intersection(value)
        example = f"{key}={quoted(value)}" if own else "architecture='...'"
        said = first_line(error).rstrip(".")
        raise ConfigError(
            f"{text!r} is not a setting; write key=value, and put values with commas, blanks, brackets or "
            f'other signs in inner quotes, e.g. "{example}" ({said}).'
        ) from None


def expand(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """What to check of a multirun's overrides: each sweep at its first value, then each other value.

    An interval or range stands for its two ends: whatever lies between has the same type. A glob is of a
    group's choices, so that Hydra must be initialised.

    Returns:
        The overrides with every sweep at its first value, and variants with one sweep at another value.

    Raises:
        ConfigError: an override is not written as key=value, or a sweep has no value.
    """
    values: dict[int, list[str]] = {}
    for index, text in enumerate(overrides):
        override = parse(text)
        if override.is_sweep_override():
            start = text.partition("=")[0]
            values[index] = [f"{start}={value}" for value in _values(override)]
            if not values[index]:
                raise ConfigError(f"{text!r} sweeps over no value at all; give at least one.")
    base = [values[index][0] if index in values else text for index, text in enumerate(overrides)]
    variants = [
        [*base[:index], text, *base[index + 1 :]]
        for index, texts in values.items()
        for text in texts[1:]
    ]
    return base, variants


def _values(override: Any) -> list[str]:
    """The values of a sweep that are worth checking, as they are typed."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.types import Glob, IntervalSweep, RangeSweep

    value = override.value()
    if isinstance(value, Glob):
        # as Hydra's sweeper matches them: our own choices of the group
        loader = GlobalHydra.instance().config_loader()
        return value.filter(loader.get_group_options(override.key_or_group))
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    if isinstance(value, RangeSweep):
        ends = _ends(value.start, value.stop, value.step)
        return [str(end) for end in ends]
    return list(override.sweep_string_iterator())


def _ends(start: Any, stop: Any, step: Any) -> list[Any]:
    """First and last member of a range whose end is not part of it."""
    if not step or (stop - start) * step <= 0:
        return []
    if all(isinstance(number, int) for number in (start, stop, step)):
        return [start, range(start, stop, step)[-1]]
    count = -int(-(stop - start) // step)
    return [start, start + (count - 1) * step] if count > 1 else [start]
