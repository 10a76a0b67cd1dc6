"""The search loop, its state and its guards."""

from darts_core.search.loop import search
from darts_core.search.types import (
    Doubt,
    Guard,
    GuardContext,
    GuardFinding,
    SearchConfig,
    SearchResult,
)

__all__ = [
    "Doubt",
    "Guard",
    "GuardContext",
    "GuardFinding",
    "SearchConfig",
    "SearchResult",
    "search",
]
