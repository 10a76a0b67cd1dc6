"""The settings that a strategy and a relaxation were made with, and where those of a checkpoint differ."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["differences", "settings_of"]


def settings_of(thing: object) -> dict[str, Any]:
    """The arguments of an object's constructor that it keeps under their own names, as plain values.

    What it keeps otherwise, or is no plain value, is left out: of that nothing can be said.
    """
    try:
        parameters = inspect.signature(type(thing)).parameters
    except (TypeError, ValueError):  # of a class that is not written in Python
        return {}
    kept = getattr(thing, "__dict__", {})
    found = {}
    for name in parameters:
        try:
            found[name] = _plain(kept[name])
        except (KeyError, TypeError):
            continue
    return found


def _plain(value: Any) -> Any:
    """`value` as numbers, texts, lists and dictionaries.

    Raises:
        TypeError: it is something else.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} is no plain value")


def differences(known: Any, now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where settings differ, as `strategy.epsilon=0.1 there, 0.2 here`.

    What only one side names is left out: another version of the program has other settings.

    Args:
        known: of a checkpoint, as `now`; anything else, as in older files, says nothing.
        now: settings by node.
    """
    found = []
    for node, settings in now.items():
        before = known.get(node) if isinstance(known, Mapping) else None
        for name, value in settings.items():
            if not isinstance(before, Mapping) or name not in before:
                continue
            other = before[name]
            # NaN differs from itself
            if other != value and repr(other) != repr(value):
                found.append(f"{node}.{name}={other!r} there, {value!r} here")
    return found
