"""What a cluster's trials find in their environment (`runtime_env.env_vars`): keys of services, mostly.

Pages, tables and lists are passed around: they name such variables and leave out what stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["shown_override", "without_variables"]

_HIDDEN = "***"
# env_vars={A: b, C: d}, also within a longer mapping; and env_vars.A=b
_IN_OVERRIDE = re.compile(r"(?:(env_vars\s*[:=]\s*\{)[^{}]*)|(?:(env_vars\.[^=]*=).*)", re.DOTALL)


def without_variables(content: Any) -> Any:
    """Settings as plain values, each variable of the environment with `***` in the place of its value."""
    if not isinstance(content, Mapping):
        return content
    return {
        key: dict.fromkeys(value, _HIDDEN)
        if key == "env_vars" and isinstance(value, Mapping)
        else without_variables(value)
        for key, value in content.items()
    }


def shown_override(text: str) -> str:
    """An override as it was typed, with `***` for what it puts into the environment."""
    return _IN_OVERRIDE.sub(lambda found: f"{found[1] or found[2]}{_HIDDEN}", text)
