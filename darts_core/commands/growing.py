"""A command that is an earlier one with more elements or more seeds, and may go on from what it left."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from darts_core.commands.compose import Session, compose
from darts_core.commands.overrides import expand, key_of
from darts_core.errors import DartsError
from darts_core.stages.schema import UNHASHED, Stage

__all__ = ["beginning", "counts"]

_LAUNCHER = ("hydra/launcher", "hydra.launcher")
_SWEEPER = ("hydra/sweeper", "hydra.sweeper")


def counts(text: str, *, launcher: bool = False) -> bool:
    """Whether an override decides what a multirun computes; where and beside what it is computed does not.

    An older program counted the `launcher`.
    """
    key = key_of(text)
    return key.partition(".")[0] not in UNHASHED and (launcher or not key.startswith(_LAUNCHER))


def beginning(
    config: Stage, args: argparse.Namespace, place: Session, stamp: Callable[..., str]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the command that a version records is the beginning of this one.

    It is where it had fewer seeds, or is the same multirun without its last elements: the others keep their
    numbers, and so their folders.

    Args:
        config: of this command, of a multirun that of its first element.
        args: as parsed.
        place: what `session` yielded.
        stamp: the hash of settings and of a multirun's overrides.
    """

    @cache  # a job may have hundreds of versions to compare with
    def of_fewer_seeds() -> frozenset[str]:
        whole: Any = config
        fewer = range(2, getattr(whole, "seeds", 1))  # a single one has no folder of its own
        return frozenset(stamp(replace(whole, seeds=n), ()) for n in fewer)

    @cache
    def own() -> list[frozenset[str]]:
        return _elements(args.overrides)

    def begins(known: Mapping[str, Any]) -> bool:
        words, was = known.get("overrides"), known.get("config_hash")
        if not isinstance(words, list) or bool(known.get("multirun")) != bool(args.multirun):
            return False
        if not args.multirun:
            return str(was) in of_fewer_seeds()
        if len({text for text in args.overrides if counts(text)}.difference(words)) != 1:
            return False  # it is one sweep that has grown
        before = _elements(words)
        if not 0 < len(before) < len(own()) or own()[: len(before)] != before:
            return False
        try:
            first = compose(config.STAGE, expand(words)[0], place)
        except DartsError:  # it was typed for another program
            return False
        return was in (stamp(first, words), stamp(first, words, launcher=True))

    return begins


def _elements(overrides: Sequence[str]) -> list[frozenset[str]]:
    """What each element of a multirun is told; nothing where more than what counts decides their numbers."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        values: list[list[str]] = []
        for override in parser.parse_overrides(list(map(str, overrides))):
            key, swept = override.get_key_element(), override.is_sweep_override()
            if key_of(key).startswith(_SWEEPER):
                return []
            if swept and not (counts(key) and override.is_discrete_sweep()):
                return []
            found = (
                override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
            )
            if counts(key):
                values.append([f"{key}={value}" for value in found])
    except HydraException:
        return []
    return [frozenset(words) for words in itertools.product(*values)]
