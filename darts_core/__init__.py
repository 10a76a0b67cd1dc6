"""darts-core: differentiable architecture search from data to an exported, checked model.

Importing this package loads the standard library only; torch, numpy and the rest come with the first
name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from darts_core.errors import DartsError

if TYPE_CHECKING:
    from darts_core.architecture import Architecture
    from darts_core.spaces import SearchSpace, get_space
    from darts_core.supernet import Count, Supernet, build, count

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "Count",
    "DartsError",
    "SearchSpace",
    "Supernet",
    "__version__",
    "build",
    "count",
    "get_space",
]

_LAZY = {
    "Architecture": "darts_core.architecture",
    "Count": "darts_core.supernet",
    "SearchSpace": "darts_core.spaces",
    "Supernet": "darts_core.supernet",
    "build": "darts_core.supernet",
    "count": "darts_core.supernet",
    "get_space": "darts_core.spaces",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'darts_core' has no attribute {name!r}")
