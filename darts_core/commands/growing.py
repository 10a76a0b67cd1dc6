"""A command that is an earlier one with more elements or more seeds, and may go on from what it left."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from darts_core.commands.compose import Session, compose
from darts_core.commands.overrides import expand, key_of
from darts_core.errors import DartsError
from darts_core.stages.schema import UNHASHED, Stage

__all__ = ["begins", "counts"]

_LAUNCHER = ("hydra/launcher", "hydra.launcher")


def counts(text: str) -> bool:
    """Whether an override decides what a multirun computes; where and beside what it is computed does not."""
    key = key_of(text)
    return key.partition(".")[0] not in UNHASHED and not key.startswith(_LAUNCHER)


def begins(
    known: Mapping[str, Any],
    config: Stage,
    args: argparse.Namespace,
    place: Session,
    stamp: Callable[[Stage, Sequence[str]], str],
) -> bool:
    """Whether the command that a version records is the beginning of this one.

    It is where it had fewer seeds, or is the same multirun without its last elements: the others keep their
    numbers, and so their folders.

    Args:
        known: of the version's record.
        config: of this command, of a multirun that of its first element.
        args: as parsed.
        place: what `session` yielded.
        stamp: the hash of settings and of a multirun's overrides.
    """
    words, was = known.get("overrides"), known.get("config_hash")
    if not isinstance(words, list) or bool(known.get("multirun")) != bool(args.multirun):
        return False
    if not args.multirun:
        whole: Any = config
        fewer = range(2, getattr(whole, "seeds", 1))  # a single one has no folder of its own
        return any(stamp(replace(whole, seeds=n), ()) == was for n in fewer)
    before, now = _elements(words), _elements(args.overrides)
    if not 0 < len(before) < len(now) or now[: len(before)] != before:
        return False
    try:
        return stamp(compose(config.STAGE, expand(words)[0], place), words) == was
    except DartsError:  # it was typed for another program
        return False


def _elements(overrides: Sequence[str]) -> list[frozenset[str]]:
    """What each element of a multirun is told; nothing under another sweeper than Hydra's."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = parser.parse_overrides([text for text in map(str, overrides) if counts(text)])
        values: dict[str, list[str]] = {}
        for override in parsed:
            key, swept = override.get_key_element(), override.is_sweep_override()
            if key_of(key) == "hydra/sweeper" or (swept and not override.is_discrete_sweep()):
                return []
            found = (
                override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
            )
            values[key] = [f"{key}={value}" for value in found]
    except HydraException:
        return []
    return [frozenset(words) for words in itertools.product(*values.values())]
