"""`key=value` words of the argparse commands, checked like those of the Hydra commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import ConfigError, unknown_name

__all__ = ["parse"]

_WORDS = {int: "a whole number", float: "a number", str: "text"}


def parse(words: Sequence[str], known: Mapping[str, type]) -> dict[str, Any]:
    """The settings in `words`, each converted to the type that `known` states.

    Raises:
        ConfigError: a word has no `=`, its key is unknown, or its value has another type.
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
            raise ConfigError(f"{key}={value} is not {_WORDS[known[key]]}.") from None
    return found
