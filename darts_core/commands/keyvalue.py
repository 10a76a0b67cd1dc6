"""`key=value` words of the argparse commands, checked like those of the Hydra commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import ConfigError, unknown_name

__all__ = ["parse"]

_WORDS = {int: "a whole number", float: "a number", str: "text"}
# sizes, counts, seconds and rates: all are above nothing, and none of them is larger
_MOST: Mapping[type, float] = {int: 100_000, float: 1_000_000.0}


def parse(words: Sequence[str], known: Mapping[str, type]) -> dict[str, Any]:
    """The settings in `words`, each converted to the type that `known` states.

    Raises:
        ConfigError: a word has no `=`, its key is unknown, or its value has another type or is out of range.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise ConfigError(f"{word!r} is not a setting; write key=value.")
        if key not in known:
            raise ConfigError(unknown_name("setting", key, known))
        try:
            found[key] = known[key](value)
        except ValueError:
            raise ConfigError(f"{key}={value[:80]} is not {_WORDS[known[key]]}.") from None
        if known[key] is not str and not 0 < found[key] <= _MOST[known[key]]:
            raise ConfigError(
                f"{key}={value[:80]} is not allowed; give {_WORDS[known[key]]} above 0, at most "
                f"{_MOST[known[key]]:,}."
            )
    return found
